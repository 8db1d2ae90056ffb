"""commands/answers.py: queries from wherever they come, and what was found for them, for people and for programs."""

from __future__ import annotations

import io
import json
import sys
from argparse import Namespace
from dataclasses import dataclass, field

import pytest

from fivefold.commands.answers import SHOWN_CHARACTERS, answer
from fivefold.errors import InputError
from fivefold.jobs.store import Hit

PASSAGE = Hit("a.txt#3-9", 0.12345678, {"document": "a.txt", "start": 3, "stop": 9, "text": "a\n fox"})
ROW = Hit("d7", -1.0, {"text": None, "n": 1, "document": None})


@dataclass
class Found:
    """In a searcher's place: these hits for every query."""

    hits: list[Hit]
    asked: list[tuple[str, int, bool]] = field(default_factory=list)

    def search(self, query: str, *, limit: int, hybrid: bool) -> list[Hit]:
        self.asked.append((query, limit, hybrid))
        return self.hits


def ask(hits: list[Hit], query: list[str] | None, *, as_json: bool = True) -> list[tuple[str, int, bool]]:
    found = Found(hits)
    answer(found, Namespace(query=query, json=as_json, top=3, hybrid=True))  # type: ignore[arg-type]
    return found.asked


def typed(monkeypatch: pytest.MonkeyPatch, data: bytes, *, terminal: bool = False) -> None:
    stream = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8")
    stream.isatty = lambda: terminal  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stdin", stream)


def test_a_line_of_json_for_each_query(capsys: pytest.CaptureFixture[str]) -> None:
    assert ask([PASSAGE, ROW], ["x", "ü"]) == [("x", 3, True), ("ü", 3, True)]
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["query"], second["query"]) == ("x", "ü")
    assert (
        first["hits"]
        == second["hits"]
        == [
            {"score": 0.123457, "source": "a.txt", "start": 3, "stop": 9, "text": "a\n fox"},
            {"score": -1.0, "source": "d7", "text": None, "n": 1},
        ]
    )


def test_columns_of_the_rows_never_stand_in_the_place_of_the_score(capsys: pytest.CaptureFixture[str]) -> None:
    """`source` is what many corpora call where a row is from, and the row could not be told by it."""
    ask([Hit("d1", 0.5, {"text": "x", "score": 99, "source": "wikipedia"})], ["q"])
    (hit,) = json.loads(capsys.readouterr().out)["hits"]
    assert hit == {"score": 0.5, "source": "d1", "text": "x", "columns": {"score": 99, "source": "wikipedia"}}


def test_a_page_shows_place_and_beginning_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    exact, longer = (Hit("d", 0.5, {"text": "é" * (SHOWN_CHARACTERS + more)}) for more in (0, 1))
    ask([PASSAGE, ROW, exact, longer], ["the query"], as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "",
        "the query",
        "  1  0.123  a.txt [3:9]",
        "     a fox",
        "  2  -1.000  d7",
        "     ",
        "  3  0.500  d",
        "     " + "é" * SHOWN_CHARACTERS,
        "  4  0.500  d",
        "     " + "é" * (SHOWN_CHARACTERS - 1) + "…",
    ]
    ask([], ["the query"], as_json=False)
    assert "nothing: the index is empty" in capsys.readouterr().out


def test_queries_are_answered_as_they_come_until_one_is_no_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(monkeypatch, b"\n  one \r\n\n\t\nzwei\n\xff\nthree\n")
    with pytest.raises(InputError, match="standard input, line 6: the query is not UTF-8"):
        ask([], None)
    assert [json.loads(line)["query"] for line in capsys.readouterr().out.splitlines()] == ["one", "zwei"]


@pytest.mark.parametrize("end", [b"", b"\nnever asked\n", b"   \nnever asked\n"], ids=["end", "empty", "blank"])
def test_a_terminal_is_asked_until_an_empty_line_or_the_end(
    end: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(monkeypatch, b" one \ntwo\n" + end, terminal=True)
    assert [query for query, *_ in ask([], None)] == ["one", "two"]
    assert "an empty line to leave" in capsys.readouterr().err
