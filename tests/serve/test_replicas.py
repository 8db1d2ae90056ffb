"""The server on Ray Serve: the same answers, from two replicas, an orderly end, and an update that no request notices."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from itertools import takewhile
from pathlib import Path

import httpx
import pytest

from fivefold.cli import EXIT_ERROR, main
from tests.serve.process import ROOT, Process, free_port


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


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a Ray that outlives the command that deploys on it, with a token of its own."""
    pytest.importorskip("ray", reason="needs the extra ray")
    files = tempfile.TemporaryDirectory(prefix="ray-")  # a short path, for sockets
    monkeypatch.setenv("RAY_TMPDIR", files.name)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", uuid.uuid4().hex)
    port = free_port()
    program = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--port", str(port)]
    options = ["--num-cpus", "6", "--include-dashboard", "false", "--disable-usage-stats"]
    head = subprocess.Popen(
        [*program, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    assert head.stdout is not None
    try:
        said = "".join(takewhile(lambda line: "Ray runtime started" not in line, head.stdout))
        assert head.poll() is None, said
        yield f"127.0.0.1:{port}"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(head.pid, signal.SIGKILL)
        head.communicate()
        files.cleanup()


def asking(url: str, ended: threading.Event, seen: Counter[tuple[int, str]]) -> None:
    """Requests one after the other; counts statuses with the model that answered."""
    with httpx.Client(timeout=60) as client:
        while not ended.is_set():
            answer = client.post(url + "/v1/embeddings", json={"input": "one"})
            seen[answer.status_code, answer.json().get("model", answer.text)] += 1


@pytest.mark.slow
def test_an_update_replaces_replicas_and_fails_no_request(tiny_folder: Path, cluster: str) -> None:
    port = free_port()
    url, seen, ended = f"http://127.0.0.1:{port}", Counter[tuple[int, str]](), threading.Event()
    threads = [threading.Thread(target=asking, args=(url, ended, seen)) for _ in range(4)]

    def deploy(name: str) -> None:
        options = ["--ray", "--ray-address", cluster, "--replicas", "2", "--served-model-name", name]
        serve = ["serve", "--model", str(tiny_folder), "--port", str(port), *options]
        subprocess.run([sys.executable, "-m", "fivefold", *serve], check=True, cwd=ROOT, timeout=300)

    deploy("first")
    for thread in threads:
        thread.start()
    try:
        deploy("second")
        time.sleep(5)  # until the last of the first have answered
        answered = seen[200, "first"]
        time.sleep(5)
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert seen.keys() == {(200, "first"), (200, "second")}, seen
    assert seen[200, "first"] == answered > 20 and seen[200, "second"] > 20
