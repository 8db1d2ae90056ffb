"""`fivefold serve`: from options and environment to a running server."""

from __future__ import annotations

import os
from argparse import Namespace
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from fivefold.commands.loading import counts, load_embedder
from fivefold.cores import available
from fivefold.embedder import Embedder
from fivefold.errors import InputError, MissingExtraError
from fivefold.fleet import Fleet

try:
    from fivefold.serve.app import create_app
    from fivefold.serve.limits import BODY_SECONDS, WAITING_BATCHES, Limits
    from fivefold.serve.metrics import Metrics
    from fivefold.serve.server import log_to_stdout
    from fivefold.serve.server import run as run_server
    from fivefold.serve.service import ANY_NAME, Names, Service
except ModuleNotFoundError as error:
    if (error.name or "").startswith("fivefold"):
        raise
    raise MissingExtraError(f"the server needs {error.name}: pip install 'fivefold[serve]'") from None

HUB_NAME = "jinaai/jina-embeddings-v3"
"""What clients of the hosted API call the model."""
PREFIX = "FIVEFOLD_"
YES = ("1", "true", "yes", "on")


def run(args: Namespace) -> None:
    """Load the model and serve until a signal."""
    settings = Settings(args)
    log_to_stdout(args.log_level)
    build = partial(create_app, settings.load, keys=settings.keys(), cors_origins=settings.words("cors_origin"))
    host, port = settings.text("host", "127.0.0.1"), settings.number("port", 8080)
    drain_seconds = settings.number("drain_seconds", 30)
    if settings.switch("ray"):
        from fivefold.serve import replicas  # Ray is an extra of its own

        chosen = Fleet(
            *counts(settings.text("replicas", "1"), "--replicas"),
            cpus=settings.number("replica_cpus", 1),
            gpus=settings.number("replica_gpus", 0),
            address=settings.text("ray_address", "") or None,
        )
        # Of the machine's cores these are a replica's own.
        settings.environment.setdefault(PREFIX + "THREADS", str(chosen.cpus))
        most_requests = settings.number("max_concurrent_requests", 512)
        replicas.run(
            build, host=host, port=port, replicas=chosen, drain_seconds=drain_seconds, most_requests=most_requests
        )
        return
    head_seconds = settings.number("body_seconds", BODY_SECONDS)
    run_server(build(), host=host, port=port, drain_seconds=drain_seconds, head_seconds=head_seconds)


class Settings:
    """Options of the command line; what is not given there comes from the environment, else from the default. It travels to
    replicas, whose environment is another one."""

    def __init__(self, args: Namespace) -> None:
        self.args = args
        self.environment = {name: value for name, value in os.environ.items() if name.startswith(PREFIX)}
        self.model = self.text("model", "v3-nano")

    def text(self, name: str, default: str) -> str:
        """An option that is a word."""
        given = getattr(self.args, name)
        return str(given) if given is not None else self.environment.get(PREFIX + name.upper(), default)

    def number(self, name: str, default: int) -> int:
        """An option that is a whole number."""
        word = self.text(name, str(default))
        try:
            return int(word)
        except ValueError:
            raise InputError(f"{PREFIX}{name.upper()} must be a whole number, got {word!r}") from None

    def words(self, name: str) -> list[str]:
        """An option that may be given several times; in the environment with commas between."""
        given = getattr(self.args, name)
        if given is not None:
            return list(given)
        return [word.strip() for word in self.environment.get(PREFIX + name.upper(), "").split(",") if word.strip()]

    def switch(self, name: str) -> bool:
        """An option that is on or off."""
        return bool(getattr(self.args, name)) or self.environment.get(PREFIX + name.upper(), "").lower() in YES

    def keys(self) -> list[str]:
        """API keys: options, FIVEFOLD_API_KEYS with commas between, and the lines of a file, together."""
        found = list(self.args.api_key or ())
        found += self.environment.get(PREFIX + "API_KEYS", "").split(",")
        path = self.text("api_key_file", "")
        if path:
            try:
                found += Path(path).read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise InputError(f"cannot read the keys of {path}: {error}") from None
        kept = [key.strip() for key in found if key.strip() and not key.lstrip().startswith("#")]
        if path and not kept:
            raise InputError(f"{path} holds no key, and with no key the server would let everybody in")
        return kept

    def load(self, metrics: Metrics) -> Service:
        """The model on every device, behind one queue."""
        embedders = [self._embedder(device) for device in (self.text("device", "").split(",") or [""])]
        limits = self._limits(embedders[0], len(embedders))
        own = [_short(self.model), self.model, HUB_NAME, _short(HUB_NAME)]
        names = self.words("served_model_name") or own
        served = next((name for name in names if name != ANY_NAME), own[0])
        others = [name for name in names if name != served]
        return Service.start(
            embedders,
            names=Names(served, tuple(others)),
            limits=limits,
            metrics=metrics,
            auto_truncate=self.switch("auto_truncate"),
            tokenization_workers=self.number("tokenization_workers", 2),
            threads=self.number("threads", available()),
        )

    def _embedder(self, device: str) -> Embedder:
        chosen = {
            "model": self.model,
            "device": device.strip() or None,
            "revision": self.text("revision", "") or None,
            "local_files_only": self.switch("local_files_only"),
            "accept_license": self.switch("accept_license"),
            "adapter": self.words("adapter"),
        }
        return load_embedder(Namespace(**{**vars(self.args), **chosen}))

    def _limits(self, embedder: Embedder, devices: int) -> Limits:
        of_the_model = {
            "max_input_length": embedder.config.max_length,
            "max_batch_tokens": embedder.max_batch_tokens,
            "max_queue_tokens": WAITING_BATCHES * devices * embedder.max_batch_tokens,
        }
        defaults: dict[str, Any] = {field.name: of_the_model.get(field.name, field.default) for field in fields(Limits)}
        limits = Limits(**{name: self.number(name, default) for name, default in defaults.items()})
        embedder.tokenizer.check_length(limits.max_input_length)
        return limits


def _short(model: str) -> str:
    """The last part of a path or hub id."""
    return model.rstrip("/").rsplit("/", 1)[-1]
