"""Does quality hold where texts are longer than any in training? Passages joined to documents of a given length.

Each document is found by the queries of its passages. A longer document says more, so it is harder to find in any way; what
reading at length costs shows beside the mean of its passages' own vectors, which never leave the trained lengths.
"""

from __future__ import annotations

from collections.abc import Iterable

from fivefold.embedder import Embedder
from fivefold.evaluate.sets import Documents, EvalSet, Retrieval, Texts, documents

MAX_DOCUMENTS = 40


def joined(data: Retrieval, embedder: Embedder, tokens: int) -> Documents:
    """Neighbouring passages, joined to documents of up to `tokens` tokens."""
    asked: dict[int, list[str]] = {}
    for query, answer in zip(data.queries, data.gold, strict=True):
        asked.setdefault(answer, []).append(query)
    rows: list[tuple[Texts, list[list[str]]]] = []
    room = 0
    for number, passage in enumerate(data.passages):
        length = len(embedder.tokenizer.rust.encode(passage).ids)
        if length > room:
            if len(rows) == MAX_DOCUMENTS:
                break
            rows.append(((), []))
            room = tokens
        chunks, questions = rows[-1]
        rows[-1] = ((*chunks, passage), [*questions, asked.get(number, [])])
        room -= length
    return documents(f"{data.name}@{tokens}", rows)


def by_length(sets: Iterable[EvalSet], embedder: Embedder, lengths: Iterable[int]) -> list[EvalSet]:
    """The retrieval sets that ask within one language, once for each length."""
    own = [data for data in sets if isinstance(data, Retrieval) and "->" not in data.name]
    return [joined(data, embedder, tokens) for tokens in lengths for data in own]
