"""`fivefold serve` with v3-nano as a process of its own, as people start it, and the same model in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import fivefold
from fivefold import Embedder
from tests.clients.calls import KEY, MAX_TOKENS
from tests.serve.process import Process

NANO = Path(fivefold.__file__).parent / "models" / "v3-nano"


@pytest.fixture(scope="session", autouse=True)
def offline() -> Iterator[None]:
    """Clients that ask the internet on import or count their users do neither."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        patch.setenv("ANONYMIZED_TELEMETRY", "False")
        patch.setenv("HAYSTACK_TELEMETRY_ENABLED", "False")
        yield


@pytest.fixture(scope="session")
def url() -> Iterator[str]:
    if not NANO.is_dir():
        pytest.skip("this checkout came without v3-nano")
    process = Process(NANO, "--api-key", KEY, "--max-input-length", str(MAX_TOKENS)).ready()
    yield process.url
    assert process.stop()[0] == 0


@pytest.fixture(scope="session")
def embedder() -> Embedder:
    return Embedder.load("v3-nano")
