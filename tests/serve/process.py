"""`fivefold serve` as a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Process:
    """`fivefold serve` and how to reach it."""

    def __init__(self, folder: Path, *options: str, port: int = 0, **environment: str) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        argv = [sys.executable, "-m", "fivefold", "serve", "--model", str(folder), "--port", str(self.port), *options]
        self.popen = subprocess.Popen(
            argv,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            env={**os.environ, **environment},
        )

    def ready(self) -> Process:
        for _ in range(600):
            assert self.popen.poll() is None, self.popen.communicate()[0]
            try:
                if httpx.get(self.url + "/ready").status_code == 200:
                    return self
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        raise AssertionError("it did not become ready")

    def size(self) -> tuple[int, int, int]:
        """Resident memory in MB, threads, open files (on Linux)."""
        lines = Path(f"/proc/{self.popen.pid}/status").read_text().splitlines()
        value = {line.split(":")[0]: line.split()[1] for line in lines if len(line.split()) > 1}
        return int(value["VmRSS"]) // 1024, int(value["Threads"]), len(os.listdir(f"/proc/{self.popen.pid}/fd"))

    def stop(self) -> tuple[int, str]:
        """SIGTERM; exit status and what it wrote."""
        self.popen.send_signal(signal.SIGTERM)
        return self.end()

    def end(self) -> tuple[int, str]:
        """Wait for its own end; exit status and what it wrote."""
        out = self.popen.communicate(timeout=30)[0]
        return self.popen.returncode, out
