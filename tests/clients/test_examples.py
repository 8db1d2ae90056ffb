"""The examples of other libraries, in both of their ways: the model in the process, and a server."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.conftest import NANO
from tests.serve.process import Process

pytestmark = [pytest.mark.clients, pytest.mark.filterwarnings("ignore")]  # also of clients in the files before

EXAMPLES = Path(__file__).parents[2] / "examples"
NEEDED = {
    "haystack_rag.py": ("haystack", "haystack_integrations.components.embedders.jina"),
    "llama_index_rag.py": ("llama_index.core", "llama_index.embeddings.jinaai"),
    "langchain_rag.py": ("langchain_core", "langchain_openai"),
}


@pytest.fixture(scope="module")
def open_url() -> Iterator[str]:
    """A server that asks for no key."""
    if not NANO.is_dir():
        pytest.skip("this checkout came without v3-nano")
    process = Process(NANO).ready()
    yield process.url
    assert process.stop()[0] == 0


def answers(name: str, *arguments: str) -> list[str]:
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent)}
    argv = [sys.executable, str(EXAMPLES / name), *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*_rag.py")))
def test_both_ways_give_the_same(name: str, open_url: str) -> None:
    for package in NEEDED[name]:
        pytest.importorskip(package)
    inside, through = answers(name), answers(name, open_url)
    assert inside == through and "Pinguine" in inside[0] and len(inside) == 2
