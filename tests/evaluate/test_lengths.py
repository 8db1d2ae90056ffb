"""evaluate/lengths.py: passages joined to documents of a length, with every question at its own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fivefold import Embedder
from fivefold.evaluate import lengths
from fivefold.evaluate.lengths import by_length, joined
from fivefold.evaluate.sets import Bitext, Documents, EvalSet, Retrieval
from tests import toy


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return toy.embedder()


def tokens(embedder: Embedder, text: str) -> int:
    return len(embedder.tokenizer.rust.encode(text).ids)


PASSAGES = st.lists(st.integers(1, 12), max_size=9).map(
    lambda counts: tuple(f"{number} " + "fox dog " * count for number, count in enumerate(counts))
)


@given(PASSAGES, st.integers(1, 60), st.integers(1, 4), st.data())
def test_documents_are_neighbours_as_many_as_fit_and_questions_point_to_their_passage(
    embedder: Embedder, passages: tuple[str, ...], room: int, most: int, data: st.DataObject
) -> None:
    gold = tuple(data.draw(st.lists(st.integers(0, len(passages) - 1), max_size=9))) if passages else ()
    asked = Retrieval("xquad-en", tuple(f"q{n}" for n in range(len(gold))), passages, gold)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lengths, "MAX_DOCUMENTS", most)
        found = joined(asked, embedder, room)
    kept = [passage for document in found.documents for passage in document]
    assert tuple(kept) == passages[: len(kept)] and found.name == f"xquad-en@{room}"
    sizes = [[tokens(embedder, passage) for passage in document] for document in found.documents]
    assert all(len(size) == 1 or sum(size) <= room for size in sizes)
    for size, following in zip(sizes, sizes[1:], strict=False):
        assert sum(size) + following[0] > room  # no shorter than it need be
    assert len(kept) == len(passages) or len(found.documents) == most
    answers = {q: found.documents[number][place] for q, (number, place) in zip(found.queries, found.gold, strict=True)}  # type: ignore[index]
    assert answers == {q: passages[n] for q, n in zip(asked.queries, gold, strict=True) if n < len(kept)}
    assert len(found.queries) == len(answers)


def test_sets_that_ask_within_a_language_come_once_for_each_length(embedder: Embedder) -> None:
    """Across languages a document would be asked for twice, and other kinds have no documents."""
    sets: list[EvalSet] = [
        Bitext("udhr-deu", ("a",), ("b",)),
        *(Retrieval(name, ("q",), ("p",), (0,)) for name in ("xquad-de", "xquad-de->en", "vital-fr")),
        Documents("long-a", (("a",),), ("q",), ((0, None),)),
    ]
    found = by_length(iter(sets), embedder, [512, 64])
    assert [data.name for data in found] == ["xquad-de@512", "vital-fr@512", "xquad-de@64", "vital-fr@64"]
    assert by_length(sets, embedder, []) == []
