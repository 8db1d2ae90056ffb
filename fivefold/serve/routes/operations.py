"""What operators and clients ask about the server itself: is it alive, what does it serve, what are its limits."""

from __future__ import annotations

import base64
import re
import time
from dataclasses import asdict
from hashlib import sha256
from importlib.resources import files
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from fivefold import __version__
from fivefold.embedder import TorchBackend
from fivefold.serve import wire
from fivefold.serve.gate import State
from fivefold.serve.metrics import CONTENT_TYPE
from fivefold.serve.service import Service

INLINE = re.compile(rb"<(script|style)>(.*?)</\1>", re.DOTALL)


async def live(request: Request, state: State) -> Response:
    """GET /live: the process answers."""
    return _json({"status": "alive"})


async def ready(request: Request, state: State) -> Response:
    """GET /ready: 200 when requests are served; 503 while loading, draining or when the model does not work."""
    state.ready()
    return _json({"status": "ready"})


async def health(request: Request, state: State) -> Response:
    """GET /health: `/ready`, with the time, which is all Infinity's clients read."""
    state.ready()
    return _json({"status": "ok", "unix": time.time()})


async def metrics(request: Request, state: State) -> Response:
    """GET /metrics: Prometheus' text."""
    service = state.service
    usable = service is not None and not state.draining and service.scheduler.healthy
    state.metrics.ready.set(1 if usable else 0)
    return Response(state.metrics.page(), headers={"content-type": CONTENT_TYPE})


async def playground(request: Request, state: State) -> Response:
    """GET /: the page to try it all."""
    page = files("fivefold.serve").joinpath("playground.html").read_bytes()
    return Response(page, media_type="text/html", headers={"content-security-policy": _policy(page)})


def _policy(page: bytes) -> str:
    """A content security policy under which the page's own script and style run, and nothing else does."""
    hashes = {name.decode(): base64.b64encode(sha256(code).digest()).decode() for name, code in INLINE.findall(page)}
    return (
        f"default-src 'none'; script-src 'sha256-{hashes['script']}'; style-src 'sha256-{hashes['style']}'; "
        "img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


async def models(request: Request, state: State) -> Response:
    """GET /v1/models."""
    return _json({"object": "list", "data": [_model(state.serving())]})


async def infinity_models(request: Request, state: State) -> Response:
    """GET /models: Infinity's client wants its own name as the owner, and the state of the queue."""
    listed = {**_model(state.serving()), "owned_by": "infinity"}
    return _json({"object": "list", "data": [listed], "created": int(time.time())})


async def model(request: Request, state: State) -> Response:
    """GET /v1/models/{id}."""
    service, asked = state.serving(), request.path_params["id"]
    service.names.check(asked)
    return _json(_model(service))


def _model(service: Service) -> dict[str, Any]:
    waiting = service.scheduler.queued_requests
    return {
        "id": service.names.served,
        "object": "model",
        "created": service.created,
        "owned_by": "fivefold",
        "backend": "torch",
        "capabilities": ["embed"],
        "stats": {
            "queue_fraction": service.scheduler.queued_tokens / service.limits.max_queue_tokens,
            "queue_absolute": waiting,
            "results_pending": waiting,
            "batch_size": service.limits.max_batch_tokens,
        },
    }


async def info(request: Request, state: State) -> Response:
    """GET /info: TEI's fields, every limit, the tasks."""
    service = state.serving()
    config = service.embedder.config
    facts = {
        "model_id": service.embedder.model_name,
        "model_sha": None,
        "model_dtype": _dtype(service),
        "model_type": {"embedding": {"pooling": "mean"}},
        "served_model_name": service.names.served,
        **asdict(service.limits),
        "max_batch_requests": None,
        "auto_truncate": service.auto_truncate,
        "tokenization_workers": service.tokenization_workers,
        "dimensions": config.hidden_size,
        "matryoshka_dimensions": list(config.matryoshka_dimensions),
        "tasks": {name: config.prompt(name) for name in config.lora_adaptations},
        "version": __version__,
        "sha": None,
        "docker_label": None,
    }
    return _json(facts)


def _dtype(service: Service) -> str | None:
    backend = service.embedder.backend
    if not isinstance(backend, TorchBackend):
        return None
    return str(next(backend.encoder.parameters()).dtype).removeprefix("torch.")


def _json(value: Any) -> Response:
    return Response(wire.dumps(value), media_type="application/json")


# (path, function, whether it needs no key, summary)
GETS = (
    ("/", playground, True, "The playground"),
    ("/live", live, True, "The process lives"),
    ("/ready", ready, True, "Requests are served"),
    ("/health", health, True, "Requests are served"),
    ("/metrics", metrics, True, "Prometheus metrics"),
    ("/v1/models", models, False, "The model"),
    ("/models", infinity_models, False, "The model, as Infinity"),
    ("/v1/models/{id:path}", model, False, "The model by its name"),
    ("/info", info, False, "Limits and tasks, as TEI"),
)
