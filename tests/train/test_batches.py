from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from fivefold.train.batches import graded_set, held_set, labelled_set, mapped_set, pair_set, sampler, target_set
from fivefold.train.corpora import Graded, Labelled, Pair


def batches(data: Dataset) -> list[list[dict[str, Any]]]:
    drawn = sampler(
        data,
        batch_size=4,
        drop_last=True,
        valid_label_columns=["label", "score"],
        generator=torch.Generator().manual_seed(0),
        seed=0,
    )
    return [[data[i] for i in batch] for batch in drawn]


def test_no_text_is_twice_in_a_batch_of_pairs() -> None:
    rows = [Pair("en", f"q{i % 10}", f"p{i}", negatives=(f"n{i}", f"m{i % 7}")) for i in range(40)]
    data = pair_set(rows)
    assert data.column_names == ["query", "passage", "negative_1", "negative_2"]
    found = batches(data)
    assert len(found) >= 9
    assert all(len({text for row in batch for text in row.values()}) == 16 for batch in found)


def test_labels_come_several_of_a_kind_and_are_numbers() -> None:
    data = labelled_set([Labelled("en", str(i), "cba"[i % 3]) for i in range(24)])
    assert data["label"][:3] == [2, 1, 0]
    for batch in batches(data):
        labels = [row["label"] for row in batch]
        assert len(set(labels)) == 2 and all(labels.count(label) == 2 for label in labels)


def test_targets_stay_in_order_and_scores_do_not() -> None:
    texts = [str(i) for i in range(12)]
    found = batches(target_set(texts, texts))
    assert [row["target"] for batch in found for row in batch] == texts
    scored = batches(graded_set([Graded("en", t, t, float(t)) for t in texts]))
    order = [row["score"] for batch in scored for row in batch]
    assert sorted(order) == list(range(12)) != order


def test_a_mapped_set_is_on_disk_and_in_order(tmp_path: Path) -> None:
    rows = [(f"text {i}", f"query: {i}", "" if i % 2 else "same") for i in range(12)]
    data = mapped_set(iter(rows), tmp_path / "drawn.arrow")
    assert [tuple(row[name] for name in ("text", "target", "same")) for row in data] == rows
    assert [file["filename"] for file in data.cache_files] == [str(tmp_path / "drawn.arrow")]
    assert [row["text"] for batch in batches(data) for row in batch] == [text for text, _, _ in rows]


def test_beside_each_text_stands_what_a_teacher_reads() -> None:
    pairs = held_set(pair_set([Pair("en", "a", "b", None, ("c",))]), {"passage": "p: ", "negative_1": "p: "}, "q: ")
    assert pairs.column_names[:3] == ["query", "passage", "negative_1"]
    assert pairs[0] == {
        "query": "a",
        "passage": "b",
        "negative_1": "c",
        "target_query": "q: a",
        "target_passage": "p: b",
        "target_negative_1": "p: c",
    }
    translations = held_set(pair_set([Pair("de", "ein", "one")]), {}, "q: ", {"query": "passage"})
    assert (translations[0]["target_query"], translations[0]["target_passage"]) == ("q: one", "q: one")
    labelled = held_set(labelled_set([Labelled("en", "a", "x")]), {}, "q: ")
    assert labelled[0] == {"text": "a", "label": 0, "target_text": "q: a"}
