"""A real server, a real browser, and pages that are watched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fivefold import Embedder
from tests.serve.process import ROOT, Process

NANO = ROOT / "fivefold" / "models" / "v3-nano"


@pytest.fixture(scope="session")
def embedder() -> Embedder:
    return Embedder.load(NANO)


@pytest.fixture(scope="session")
def url() -> Iterator[str]:
    process = Process(NANO).ready()
    yield process.url
    assert process.stop()[0] == 0


@pytest.fixture(scope="session")
def locked(tiny_folder: Path) -> Iterator[str]:
    """The address of a server that wants the key `sk-right`."""
    process = Process(tiny_folder, "--api-key", "sk-right").ready()
    yield process.url
    assert process.stop()[0] == 0


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    pytest.importorskip("playwright")
    from tests.browser.chromium import chromium

    with chromium() as found:
        yield found


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Any]]:
    """Open a page, with options of Playwright's contexts.

    Afterwards: nothing was asked of any other origin, nothing was refused by the content security policy, and the console has
    no errors but those of `expected` statuses, which Chromium writes there.
    """
    contexts, faults = [], []

    def open_page(
        address: str, *, expected: tuple[int, ...] = (), before: Callable[[Any], None] = id, **options: Any
    ) -> Any:
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        known = [f"status of {status} " for status in expected]

        def hear(message: Any) -> None:
            if message.type in ("error", "warning") and not any(status in message.text for status in known):
                faults.append(message.text)

        page.on("console", hear)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda request: request.url.startswith(address) or faults.append(request.url))
        before(page)
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not faults
