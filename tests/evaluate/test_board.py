"""The board against the formulas written out, for every kind, way and number of dimensions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from fivefold import Embedder
from fivefold.evaluate.board import KINDS, Score, board
from fivefold.evaluate.lengths import by_length
from fivefold.evaluate.plots import draw
from fivefold.evaluate.report import document, means, table
from fivefold.evaluate.sets import Documents, EvalSet, Graded, Retrieval, read_sets
from fivefold.evaluate.ways import BODY, OWN_WAY, Way, ablation, matrix, one
from tests import toy
from tests.evaluate.board_sets import write_sets


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return toy.embedder(toy.config(max_position_embeddings=512), max_batch_tokens=1024)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> list[EvalSet]:
    return read_sets([write_sets(tmp_path_factory.mktemp("board") / "sets")])


@pytest.fixture(scope="module")
def scores(embedder: Embedder, sets: list[EvalSet]) -> list[Score]:
    return board(embedder, sets, ways=matrix(embedder.tasks), dims=(8, 32))


def value(scores: list[Score], name: str, metric: str, way: str = "own", dims: int = 32) -> float:
    (found,) = [s.value for s in scores if (s.set, s.metric, s.way, s.dims) == (name, metric, way, dims)]
    return found


def test_every_set_is_measured_in_every_way(scores: list[Score], embedder: Embedder) -> None:
    assert {score.kind for score in scores} == set(KINDS)
    assert {score.way for score in scores} == {"own", "body", *embedder.tasks}
    assert len(scores) == len({(s.set, s.metric, s.way, s.dims) for s in scores})
    assert all(np.isfinite(score.value) for score in scores)


def test_similarity_through_the_adapter_asked_for(scores: list[Score], sets: list[EvalSet], embedder: Embedder) -> None:
    data = next(data for data in sets if isinstance(data, Graded))
    for way, task in (("own", "text-matching"), ("separation", "separation"), ("body", None)):
        first, second = (embedder.encode(side, task=task, truncate_dim=8) for side in (data.first, data.second))
        expected = spearmanr((first * second).sum(1), data.scores)[0]
        assert value(scores, data.name, "spearman", way, 8) == pytest.approx(expected, abs=1e-6)


def test_search_across_languages_through_both_adapters(
    scores: list[Score], sets: list[EvalSet], embedder: Embedder
) -> None:
    data = next(data for data in sets if data.name == "xquad-de->en")
    assert isinstance(data, Retrieval)
    cosines = embedder.encode_query(data.queries) @ embedder.encode_document(data.passages).T
    ranks = [(row > row[gold]).sum() for row, gold in zip(cosines, data.gold, strict=True)]
    expected = np.mean([1 / np.log2(rank + 2) if rank < 10 else 0 for rank in ranks])
    assert value(scores, data.name, "ndcg@10") == pytest.approx(expected, abs=1e-6)


def test_late_chunks_are_chunks_of_the_document(scores: list[Score], sets: list[EvalSet], embedder: Embedder) -> None:
    data = next(data for data in sets if data.name == "long-xquad-en")
    assert isinstance(data, Documents)
    late = [
        embedder.encode_chunks(" ".join(chunks), chunks=chunks, task="retrieval.passage").vectors
        for chunks in data.documents
    ]
    cosines = embedder.encode_query(data.queries) @ np.concatenate(late).T
    chunk = [document * 5 + place for document, place in data.gold if place is not None]
    ranks = np.array([(row > row[gold]).sum() for row, gold in zip(cosines, chunk, strict=True)])
    assert value(scores, data.name, "late chunks, chunk") == pytest.approx(
        np.where(ranks < 10, 1 / np.log2(ranks + 2), 0).mean(), abs=1e-6
    )
    assert value(scores, data.name, "late chunks, chunk") != value(scores, data.name, "plain chunks, chunk")
    metrics = {score.metric for score in scores if score.set == "sentences-xquad-en"}
    assert "late chunks, document" in metrics and "late chunks, chunk" not in metrics


def test_prompts_can_be_dropped_and_swapped(sets: list[EvalSet], embedder: Embedder) -> None:
    """One adapter with both prompts is that adapter behind the prompts of the two."""
    data = next(data for data in sets if isinstance(data, Retrieval))
    found = board(embedder, [data], ways=[OWN_WAY, BODY, *ablation()])
    assert len({round(score.value, 9) for score in found}) > 2
    task, config = "retrieval.passage", embedder.config
    queries = [config.prompt("retrieval.query") + text for text in data.queries]
    bare = Embedder.encode(toy_without_prompts(embedder), queries, task=task)
    passages = embedder.encode(data.passages, task=task)
    ranks = ((bare @ passages.T) > (bare * passages[list(data.gold)]).sum(1, keepdims=True) + 1e-7).sum(1)
    expected = np.where(ranks < 10, 1 / np.log2(ranks + 2), 0).mean()
    assert value(found, data.name, "ndcg@10", "retrieval.passage alone, prompts") == pytest.approx(expected, abs=1e-6)
    assert not {score.way for score in board(embedder, sets[:1], ways=ablation())}  # it is about retrieval only


def toy_without_prompts(embedder: Embedder) -> Embedder:
    from fivefold.tokenizer import Tokenizer

    silent = embedder.config.with_prompts(dict.fromkeys(embedder.tasks, ""))
    return Embedder(embedder.backend, Tokenizer(embedder.tokenizer.rust, silent))


def test_documents_of_a_length(sets: list[EvalSet], embedder: Embedder) -> None:
    (*_, longest) = by_length(sets, embedder, (40, 120))
    assert isinstance(longest, Documents) and longest.name.endswith("@120")
    lengths = [sum(len(embedder.tokenizer.rust.encode(c).ids) for c in chunks) for chunks in longest.documents]
    assert all(length <= 120 for length in lengths) and max(lengths) > 60
    assert {len(d.documents) for d in by_length(sets, embedder, (1,)) if isinstance(d, Documents)} >= {10, 5}


def test_report_and_pictures(scores: list[Score], sets: list[EvalSet], embedder: Embedder, tmp_path: Path) -> None:
    by_group = means(scores)
    xquad = [s.value for s in scores if s.set.startswith("xquad") and s.way == "own" and s.dims == 32]
    assert by_group["xquad ndcg@10"]["own", 32] == pytest.approx(np.mean(xquad)) and len(xquad) == 3
    lines = table(scores).splitlines()
    assert lines[0].startswith("| set | own, 8 | own, 32 | body, 8 |")
    assert any(line.startswith("| **stsb spearman** |") for line in lines)
    whole = json.loads(json.dumps(document(scores, model="toy")))
    assert len(whole["scores"]) == len(scores) and whole["model"] == "toy"
    lengths = board(embedder, by_length(sets, embedder, (40, 120)))
    drawn = [path.name for path in draw([*scores, *lengths], tmp_path)]
    assert drawn == ["matryoshka.png", "adapters.png", "lengths.png"]
    assert all((tmp_path / name).stat().st_size > 5000 for name in drawn)
    assert draw(board(embedder, sets[:1], ways=[one("separation")]), tmp_path) == []


def test_kinds_can_be_chosen(sets: list[EvalSet], embedder: Embedder) -> None:
    found = board(embedder, sets, kinds=("clustering",), ways=[Way("quiet", bare=True)])
    assert {score.metric for score in found} == {"v-measure"}
