"""The real process: `fivefold serve` on a free port. Signals, the environment, slow and vanishing clients."""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from fivefold.cli import main
from tests.serve.process import Process

pytestmark = pytest.mark.slow


def embed(url: str, text: str = "a fox", **options: Any) -> httpx.Response:
    return httpx.post(url + "/v1/embeddings", json={"input": text}, timeout=30, **options)


def raw(process: Process, data: bytes) -> bytes:
    """What comes back for bytes that no client library would send."""
    with socket.create_connection(("127.0.0.1", process.port), timeout=10) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        found = b""
        while part := connection.recv(65536):
            found += part
    return found


def test_a_server_from_start_to_end(launch: Callable[..., Process], tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("# for the team\nfile-key\n")
    process = launch(
        "--api-key-file", str(keys), "--served-model-name", "house-model", FIVEFOLD_API_KEYS="env-key, other",
        FIVEFOLD_MAX_CLIENT_BATCH_SIZE="7",
    ).ready()  # fmt: skip
    assert embed(process.url).status_code == 401
    for key in ("file-key", "env-key", "other"):
        answer = embed(process.url, headers={"authorization": f"Bearer {key}"})
        assert answer.status_code == 200 and answer.json()["model"] == "house-model"
    info = httpx.get(process.url + "/info", headers={"authorization": "Bearer other"}).json()
    assert info["max_client_batch_size"] == 7
    assert b"HTTP/1.1 400" in raw(process, b"nonsense\r\n\r\n")
    assert b"HTTP/1.1 401" in raw(process, b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")
    half = b"POST /embed HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer other\r\nContent-Length: 99\r\n\r\n{"
    raw(process, half)  # leaves in the middle of its body
    assert embed(process.url, headers={"authorization": "Bearer other"}).status_code == 200
    status, out = process.stop()
    assert status == 0
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["status"] for line in lines if line.get("route") == "/v1/embeddings"].count(200) == 4
    assert not any(word in out for word in ("file-key", "env-key", "a fox", "Traceback"))


def test_sigterm_under_load_loses_no_accepted_request(launch: Callable[..., Process]) -> None:
    process = launch().ready()
    results: list[int] = []

    def ask(client: httpx.Client, number: int) -> None:
        try:
            results.append(client.post(process.url + "/v1/embeddings", json={"input": ["fox"] * 20}).status_code)
        except (httpx.ConnectError, httpx.ReadError):
            results.append(
                0
            )  # refused, or reset in the queue of a listener that closes: never accepted, says the log below

    with httpx.Client(timeout=30) as client, ThreadPoolExecutor(4) as pool:
        work = [pool.submit(ask, client, n) for n in range(60)]
        while len(results) < 20:
            time.sleep(0.01)
        process.popen.send_signal(signal.SIGTERM)
        for one in work:
            one.result(30)
    code, out = process.end()
    accepted = [line["status"] for line in map(json.loads, out.splitlines()) if line.get("method") == "POST"]
    assert code == 0 and sorted(accepted) == sorted(status for status in results if status)
    assert set(results) <= {200, 503, 0} and results.count(200) >= 20


def test_a_model_that_does_not_load_ends_the_process(launch: Callable[..., Process], tmp_path: Path) -> None:
    broken = Process(tmp_path)
    out = broken.popen.communicate(timeout=60)[0]
    assert broken.popen.returncode == 2
    assert "config.json" in out.splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "environment", "message"),
    [
        (["--port", "x"], {}, None),
        ([], {"FIVEFOLD_PORT": "x"}, "FIVEFOLD_PORT"),
        (["--api-key-file", "/nowhere"], {}, "/nowhere"),
        (["--api-key-file", "/dev/null"], {}, "no key"),
    ],
)
def test_settings_that_cannot_be(options, environment, message, monkeypatch, capsys) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if message is None:
        with pytest.raises(SystemExit):
            main(["serve", *options])
    else:
        assert main(["serve", *options]) == 2
        assert message in capsys.readouterr().err
