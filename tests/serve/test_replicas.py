"""The server on Ray Serve: the same answers, from two replicas, and an orderly end."""

from __future__ import annotations

import sys
from pathlib import Path

import httpx
import pytest

from fivefold.cli import EXIT_ERROR, main
from tests.serve.process import Process


def test_ray_without_ray_names_the_extra(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "fivefold.serve.replicas", raising=False)
    assert main(["serve", "--ray", "--model", str(tiny_folder)]) == EXIT_ERROR
    assert "pip install 'fivefold[ray,serve]'" in capsys.readouterr().err


@pytest.mark.slow
def test_two_replicas_answer_and_end(tiny_folder: Path) -> None:
    pytest.importorskip("ray", reason="needs the extra ray")
    server = Process(tiny_folder, "--ray", "--replicas", "2", "--api-key", "open").ready()
    key = {"Authorization": "Bearer open"}
    question = {"model": "x", "input": ["one", "two"], "task": "text-matching"}
    answers = [httpx.post(server.url + "/v1/embeddings", json=question, headers=key, timeout=60) for _ in range(8)]
    assert {answer.status_code for answer in answers} == {404}  # the model's name is checked as ever
    question.pop("model")
    answers = [httpx.post(server.url + "/v1/embeddings", json=question, headers=key, timeout=60) for _ in range(8)]
    assert {answer.status_code for answer in answers} == {200}
    assert len({tuple(answer.json()["data"][1]["embedding"]) for answer in answers}) == 1
    assert httpx.post(server.url + "/v1/embeddings", json=question).status_code == 401
    server.popen.terminate()
    server.popen.communicate(timeout=120)
    assert server.popen.returncode == 0
