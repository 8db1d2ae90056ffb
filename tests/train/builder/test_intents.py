"""train/builder/intents.py: templates written out, against all the sentences that they stand for."""

from __future__ import annotations

import json
import random
from itertools import permutations, product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fivefold.train.builder import intents
from fivefold.train.builder.intents import LONGEST, OF_AN_INTENT, written_out
from fivefold.train.builder.rows import Wanted, clean
from tests.train.builder import packages

Template = tuple[str, frozenset[str], dict[str, Any]]
"""Its text, every sentence, and the grammar that it needs."""
EMPTY: dict[str, Any] = {"expansion_rules": {}, "lists": {}}


def merged(parts: list[Template]) -> dict[str, Any]:
    return {key: {k: v for part in parts for k, v in part[2][key].items()} for key in EMPTY}


def in_a_row(parts: list[Template]) -> Template:
    said = frozenset(" ".join(one) for one in product(*(part[1] for part in parts)))
    return " ".join(part[0] for part in parts), said, merged(parts)


def one_of(parts: list[Template]) -> Template:
    return f"({'|'.join(p[0] for p in parts)})", frozenset().union(*(p[1] for p in parts)), merged(parts)


def optional(parts: list[Template]) -> Template:
    return f"[{'|'.join(p[0] for p in parts)}]", frozenset({""}).union(*(p[1] for p in parts)), merged(parts)


def in_any_order(parts: list[Template]) -> Template:
    orders = [one for order in permutations(parts) for one in product(*(part[1] for part in order))]
    return f"({';'.join(p[0] for p in parts)})", frozenset(map(" ".join, orders)), merged(parts)


def rule(part: Template) -> Template:
    name = part[0].encode().hex()
    return f"<{name}>", part[1], {**part[2], "expansion_rules": {**part[2]["expansion_rules"], name: part[0]}}


def slot(parts: list[Template]) -> Template:
    """Of a list, whose values are templates too."""
    name = " ".join(p[0].encode().hex() for p in parts)
    values: list[object] = [p[0] if n % 2 else {"in": p[0], "out": n} for n, p in enumerate(parts)]
    lists = {**merged(parts)["lists"], name: {"values": values}}
    return f"{{{name}:as}}", frozenset().union(*(p[1] for p in parts)), {**merged(parts), "lists": lists}


WORDS = st.sampled_from("abcdef").map(lambda word: (word, frozenset({word}), EMPTY))
TEMPLATES = st.recursive(
    WORDS,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=2).map(in_a_row),
        st.lists(inner, min_size=1, max_size=3).map(one_of),
        st.lists(inner, min_size=1, max_size=2).map(optional),
        st.lists(inner, min_size=2, max_size=3).map(in_any_order),
        inner.map(rule),
        st.lists(inner, min_size=1, max_size=2).map(slot),
    ),
    max_leaves=5,
)


@given(TEMPLATES, st.integers(0, 99))
def test_what_is_written_out_is_one_of_the_sentences_that_a_template_stands_for(template: Template, seed: int) -> None:
    text, sentences, grammar = template
    assert clean(written_out(text, grammar, random.Random(seed))) in set(map(clean, sentences))


@pytest.mark.parametrize(
    ("text", "count"),
    [("a|b", 2), ("a [b|c] d", 3), ("(a;b;c)", 6), ("[a] [b]", 4), ("(a|(b|c) [d])", 5), ("<r> {s}", 6), ("{n}", 3)],
)
def test_every_sentence_of_a_template_can_be_drawn(text: str, count: int) -> None:
    grammar = {
        "expansion_rules": {"r": "x|y"},
        "lists": {"s": {"values": ["u|t", {"in": "v"}]}, "n": {"range": {"from": 10, "to": 20, "step": 5}}},
    }
    rng = random.Random(0)
    found = {clean(written_out(text, grammar, rng)) for _ in range(400)}
    assert len(found) == count
    if text == "{n}":
        assert found == {"10", "15", "20"}  # both ends


def grammar_of(*sentences: str) -> dict[str, Any]:
    data = [{"sentences": [sentence]} for sentence in sentences]
    return {
        "intents": {"Do": {"data": data}},
        "expansion_rules": {"loop": "<loop> x"},
        "lists": {"free": {"wildcard": True}},
    }


def texts(folder: Path, grammar: dict[str, Any], seed: int = 0) -> list[str]:
    path = packages.wheel(folder / "intents-1.whl", {"intents/data/de.json": json.dumps(grammar)})
    rows = list(intents.read([path], Wanted(seed=seed)))
    assert {(row.source, row.lang, row.label) for row in rows} <= {("ha_intent", "de", "Do")}
    return [row.text for row in rows]


def test_what_a_user_fills_is_left_out_with_the_part_that_needs_it_and_no_more(tmp_path: Path) -> None:
    found = texts(tmp_path, grammar_of("open [the {free}] door", "shut {free}", "go <nowhere>", "wait <loop>"))
    assert found == ["open door"]


def test_sentences_differ_are_short_and_are_no_more_than_a_class_may_have(tmp_path: Path) -> None:
    many = "(" + "|".join(f"word{n}" for n in range(40)) + ")"
    found = texts(tmp_path, grammar_of(f"{many} {many}", f"{many}", "z" * (LONGEST + 1), "one", "one"))
    assert len(found) == len(set(found)) <= OF_AN_INTENT and "one" in found
    assert all(len(text) <= LONGEST for text in found)
    fifty = texts(tmp_path, grammar_of(*(f"{many} {many} {n}" for n in range(50))))
    assert len(fifty) == OF_AN_INTENT and len({text.split()[-1] for text in fifty}) == 50  # from each before any twice
    assert (
        fifty
        == texts(tmp_path, grammar_of(*(f"{many} {many} {n}" for n in range(50))))
        != texts(tmp_path, grammar_of(*(f"{many} {many} {n}" for n in range(50))), seed=1)
    )
