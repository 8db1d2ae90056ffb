"""MTEB on tiny tasks of our own, made with its own classes; each goes through the adapter of its type."""

from __future__ import annotations

from typing import Any

import pytest

mteb = pytest.importorskip("mteb")

from datasets import Dataset, DatasetDict  # noqa: E402
from mteb.abstasks.classification import AbsTaskClassification  # noqa: E402
from mteb.abstasks.sts import AbsTaskSTS  # noqa: E402
from mteb.abstasks.task_metadata import TaskMetadata  # noqa: E402
from mteb.types import PromptType  # noqa: E402

from fivefold import InputError  # noqa: E402
from fivefold.evaluate.mteb import MtebEncoder, run  # noqa: E402
from tests import toy  # noqa: E402

TEXTS = [text[:30] for text in toy.TEXTS[:8]]

pytestmark = pytest.mark.filterwarnings("ignore")  # of the library


def metadata(kind: str, score: str) -> Any:
    return TaskMetadata(
        name=f"Tiny{kind}",
        description="A few texts.",
        reference=None,
        dataset={"path": "none/none", "revision": "1"},
        type=kind,
        category="t2t",
        modalities=["text"],
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score=score,
        date=None,
        domains=None,
        task_subtypes=None,
        license=None,
        annotations_creators=None,
        dialect=None,
        sample_creation=None,
        bibtex_citation=None,
    )


class TinySTS(AbsTaskSTS):
    metadata = metadata("STS", "cosine_spearman")
    min_score, max_score = 0, 5

    def load_data(self, *args: Any, **kwargs: Any) -> None:
        rows = {"sentence1": TEXTS, "sentence2": TEXTS[1:] + TEXTS[:1], "score": [float(i % 5) for i in range(8)]}
        self.dataset = DatasetDict(test=Dataset.from_dict(rows))
        self.data_loaded = True


class TinyClassification(AbsTaskClassification):
    metadata = metadata("Classification", "accuracy")

    def load_data(self, *args: Any, **kwargs: Any) -> None:
        rows = {"text": TEXTS * 2, "label": [i % 2 for i in range(16)]}
        self.dataset = DatasetDict({name: Dataset.from_dict(rows) for name in ("train", "test")})
        self.data_loaded = True


class Noting:
    """An embedder that notes which tasks it is asked for."""

    def __init__(self) -> None:
        self.embedder, self.asked = toy.embedder(), set[Any]()
        self.tasks, self.model_name = self.embedder.tasks, "toy"

    def encode(self, texts: list[str], *, task: str | None, truncate_dim: int | None) -> Any:
        self.asked.add((task, truncate_dim))
        return self.embedder.encode(texts, task=task, truncate_dim=truncate_dim)


@pytest.mark.parametrize(("task", "adapter"), [(TinySTS, "text-matching"), (TinyClassification, "classification")])
def test_tasks_go_through_their_adapters(task: Any, adapter: str) -> None:
    noting = Noting()
    encoder = MtebEncoder(noting, truncate_dim=16)  # type: ignore[arg-type]
    found = mteb.evaluate(encoder, [task()], cache=None, show_progress_bar=False, co2_tracker=False)
    assert noting.asked == {(adapter, 16)}
    assert -1 <= found.task_results[0].get_score() <= 1


@pytest.mark.parametrize(
    ("kind", "side", "task"),
    [
        ("Retrieval", PromptType.query, "retrieval.query"),
        ("Retrieval", PromptType.document, "retrieval.passage"),
        ("InstructionRetrieval", PromptType.query, "retrieval.query"),
        ("Reranking", PromptType.query, "separation"),
        ("Clustering", None, "separation"),
        ("PairClassification", None, "classification"),
        ("BitextMining", None, "text-matching"),
    ],
)
def test_adapters_by_type(kind: str, side: Any, task: str) -> None:
    assert MtebEncoder(toy.embedder()).task_for(kind, side) == task
    bare = toy.embedder(toy.config(lora_adaptations=(), task_instructions={}))
    assert MtebEncoder(bare).task_for(kind, side) is None


def test_unknown_tasks() -> None:
    with pytest.raises(InputError, match="lists the names"):
        run(toy.embedder(), ["NoSuchTask"])
