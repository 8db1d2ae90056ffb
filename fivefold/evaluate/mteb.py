"""MTEB runs a model of ours through this class, which picks the adapter by the type of the task as the authors do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import mteb
from mteb.models import ModelMeta
from mteb.models.abs_encoder import AbsEncoder
from mteb.types import PromptType

from fivefold.embedder import Embedder
from fivefold.errors import InputError
from fivefold.vectors import FloatArray

ADAPTERS: Mapping[str, str] = {
    "Clustering": "separation",
    "Reranking": "separation",
    "Classification": "classification",
    "MultilabelClassification": "classification",
    "PairClassification": "classification",
    "STS": "text-matching",
    "BitextMining": "text-matching",
    "Summarization": "text-matching",
}
"""Type of task -> adapter; the other types look for something, with the two adapters of retrieval."""
SIDES: Mapping[PromptType | None, str] = {PromptType.query: "retrieval.query"}


class MtebEncoder(AbsEncoder):  # type: ignore[misc]  # a class without types
    """An `Embedder` as MTEB wants it."""

    def __init__(self, embedder: Embedder, *, truncate_dim: int | None = None) -> None:
        self.model = embedder
        self.truncate_dim = truncate_dim
        self.mteb_model_meta = ModelMeta.create_empty({"name": f"fivefold/{Path(embedder.model_name).name or 'model'}"})

    def task_for(self, kind: str, side: PromptType | None) -> str | None:
        """The adapter of a type of task and a side of it; none where the model has none."""
        task = ADAPTERS.get(kind) or SIDES.get(side, "retrieval.passage")
        return task if task in self.model.tasks else None

    def encode(
        self,
        inputs: Iterable[Mapping[str, Any]],
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: PromptType | None = None,
        **kwargs: Any,
    ) -> FloatArray:
        """Batches of texts -> [n, d]."""
        texts = [text for batch in inputs for text in batch["text"]]
        task = self.task_for(task_metadata.type, prompt_type)
        return self.model.encode(texts, task=task, truncate_dim=self.truncate_dim)


def run(embedder: Embedder, names: Iterable[str], *, truncate_dim: int | None = None) -> dict[str, float]:
    """Main score of each of MTEB's tasks, whose data the library fetches.

    Raises:
        InputError: no task of that name.
    """
    try:
        tasks = mteb.get_tasks(tasks=list(names))
    except (KeyError, ValueError) as error:
        raise InputError(f"{error}; mteb.get_tasks() lists the names") from None
    found = mteb.evaluate(MtebEncoder(embedder, truncate_dim=truncate_dim), tasks, cache=None)
    return {result.task_name: result.get_score() for result in found.task_results}
