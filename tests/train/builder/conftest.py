from __future__ import annotations

import json
import lzma
from pathlib import Path

import pytest

from fivefold.train.builder import sieve

ARTICLE = {
    "lang": "en",
    "title": "Bassoon",
    "desc": "woodwind with a double reed",
    "p": "The bassoon is played by few.",
}


@pytest.fixture
def few_sets(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One article in place of the sets that ship, whose index takes seconds."""
    folder = tmp_path_factory.mktemp("shipped")
    with lzma.open(folder / sieve.HELD_ARTICLES, "wt", encoding="utf-8") as file:
        file.write(json.dumps(ARTICLE) + "\n")
    monkeypatch.setattr(sieve, "SHIPPED_SETS", folder)
    return folder
