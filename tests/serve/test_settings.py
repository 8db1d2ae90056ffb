"""Options and environment of `fivefold serve` -> settings."""

from __future__ import annotations

import asyncio
from dataclasses import fields
from pathlib import Path

import pytest

from fivefold.checkpoint import save_adapter
from fivefold.cli import parser
from fivefold.commands.serve import Settings
from fivefold.errors import InputError
from fivefold.serve.limits import Limits
from fivefold.serve.metrics import Metrics


def settings(*argv: str) -> Settings:
    return Settings(parser().parse_args(["serve", *argv]))


def test_every_limit_is_an_option() -> None:
    assert {field.name for field in fields(Limits)} <= set(vars(parser().parse_args(["serve"])))


def test_the_command_line_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIVEFOLD_PORT", "1")
    monkeypatch.setenv("FIVEFOLD_MODEL", "from-environment")
    monkeypatch.setenv("FIVEFOLD_CORS_ORIGIN", "a, b")
    monkeypatch.setenv("FIVEFOLD_AUTO_TRUNCATE", "true")
    found = settings()
    assert found.number("port", 8080) == 1 and found.model == "from-environment"
    assert found.words("cors_origin") == ["a", "b"] and found.switch("auto_truncate")
    found = settings("--port", "2", "--model", "x", "--cors-origin", "c")
    assert found.number("port", 8080) == 2 and found.model == "x" and found.words("cors_origin") == ["c"]
    monkeypatch.delenv("FIVEFOLD_AUTO_TRUNCATE")
    assert not settings().switch("auto_truncate") and settings("--auto-truncate").switch("auto_truncate")


def test_keys_come_from_three_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert settings().keys() == []
    (tmp_path / "keys").write_text("# team\n three \n\nfour\n", encoding="utf-8")
    monkeypatch.setenv("FIVEFOLD_API_KEYS", "two, ")
    assert settings("--api-key", "one", "--api-key-file", str(tmp_path / "keys")).keys() == [
        "one", "two", "three", "four",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "served", "others"),
    [
        (["house", "*"], "house", ("*",)),
        (["*", "house"], "house", ("*",)),
        (["*"], None, ("*",)),
        (["house", "home", "house"], "house", ("home",)),
    ],
)
def test_any_name_is_none_to_answer_with(
    tiny_folder: Path, given: list[str], served: str | None, others: tuple
) -> None:
    words = [word for name in given for word in ("--served-model-name", name)]
    service = settings("--model", str(tiny_folder), *words).load(Metrics())
    assert (service.names.served, service.names.others) == (served or tiny_folder.name, others)
    service.names.check("anything") if "*" in others else service.names.check("home")
    asyncio.run(service.close())


def test_the_model_and_its_limits(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIVEFOLD_MAX_QUEUE_TOKENS", "77")
    monkeypatch.setenv("FIVEFOLD_THREADS", "1")
    service = settings("--model", str(tiny_folder), "--max-batch-tokens", "32", "--device", "cpu,cpu").load(Metrics())
    assert service.names.served == tiny_folder.name and "jina-embeddings-v3" in service.names.others
    assert (service.limits.max_queue_tokens, service.limits.max_batch_tokens) == (77, 32)
    assert service.limits.max_input_length == 64
    assert len(service.scheduler._workers) == 2
    asyncio.run(service.close())


def test_adapters_from_the_environment(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for task in ("separation", "classification"):
        save_adapter(tiny_folder, tmp_path / task, task=task)
    monkeypatch.setenv("FIVEFOLD_ADAPTER", f"one={tmp_path / 'separation'}, two={tmp_path / 'classification'}")
    service = settings("--model", str(tiny_folder), "--prompt", "two=Class: ").load(Metrics())
    assert service.task("two") == "two" and service.embedder.tasks[-2:] == ("one", "two")
    assert service.embedder.config.prompt("two") == "Class: "
    asyncio.run(service.close())


@pytest.mark.parametrize(
    "options", [("--max-input-length", "65"), ("--max-queue-tokens", "0"), ("--body-seconds", "-1")]
)
def test_limits_that_cannot_be(tiny_folder: Path, options: tuple[str, ...]) -> None:
    with pytest.raises(InputError):
        settings("--model", str(tiny_folder), *options).load(Metrics())
