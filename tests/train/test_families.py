"""train/families.py: what a family learns of which rows, through which adapters; the first loss against its formula."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fivefold.config import TASKS
from fivefold.embedder import Embedder, TorchBackend
from fivefold.errors import InputError
from fivefold.tokenizer import Tokenizer
from fivefold.train import losses
from fivefold.train.corpora import Graded, Labelled, Pair
from fivefold.train.families import FAMILIES, fit_family, prepared
from fivefold.train.journal import read_log
from fivefold.train.loop import Run, Schedule
from fivefold.train.rows import Row
from fivefold.train.teacher import Teacher
from tests import toy
from tests.train import toys

TEXTS = toys.sentences(140)
ROWS: dict[str, list[Row]] = {
    "pairs": [Pair("en", q, p) for q, p in zip(TEXTS[:4], TEXTS[4:8], strict=True)],
    "scored": [Graded("en", a, b, s) for a, b, s in zip(TEXTS[:4], TEXTS[4:8], (0.1, 0.9, 0.5, 0.3), strict=True)],
    "labelled": [Labelled("en", text, "ab"[i % 2]) for i, text in enumerate(TEXTS[:8])],
}
LEARNED = {
    ("retrieval", "pairs"): losses.contrast,
    ("text-matching", "pairs"): losses.contrast,
    ("text-matching", "scored"): losses.ordered,
    ("classification", "pairs"): losses.contrast,
    ("classification", "labelled"): losses.contrast,
    ("separation", "pairs"): losses.contrast,
    ("separation", "scored"): losses.ordered,
    ("separation", "labelled"): losses.separated,
}
"""The table of the paper: section 4 and its appendix; what is not in it cannot be learned."""


class Given(nn.Module):
    """A model whose features are its vectors."""

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"sentence_embedding": features["vectors"]}

    def get_embedding_dimension(self) -> int:
        return 8


def value(loss: nn.Module, columns: int, kind: str) -> float:
    """Of a loss for fixed vectors: one column of two classes, or several of what belongs together."""
    drawn = torch.randn(columns, 4, 8, generator=torch.Generator().manual_seed(0))
    labels = {"scored": torch.tensor([0.1, 0.9, 0.5, 0.3]), "labelled": torch.tensor([0, 1, 0, 1])}.get(kind)
    found: Tensor = loss([{"vectors": column} for column in drawn], labels)
    return found.item()


@pytest.fixture
def one_thread(threads: None) -> None:
    """Vectors of 32 dimensions are not worth several, and on a busy machine these wait for each other."""
    torch.set_num_threads(1)


@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_learns_of_its_kinds_of_rows_by_their_loss(family: str, kind: str) -> None:
    if (family, kind) not in LEARNED:
        with pytest.raises(InputError, match=rf"^mine\.jsonl: {family} learns from .*pairs.*, one kind a file, not "):
            prepared(family, {"mine.jsonl": ROWS[kind]}, 0)
        return
    data, make = prepared(family, {"mine.jsonl": ROWS[kind]}, 0)["mine.jsonl"]
    columns = len([name for name in data.column_names if name not in ("score", "label")])
    assert columns == {"pairs": 2, "scored": 2, "labelled": 9 if family == "classification" else 1}[kind]
    expected = LEARNED[family, kind](Given(), FAMILIES[family].temperature, (4, 8))
    own = {losses.contrast: "pairs", losses.ordered: "scored", losses.separated: "labelled"}[LEARNED[family, kind]]
    assert value(make(Given(), (4, 8), None), columns, own) == pytest.approx(value(expected, columns, own))


def test_every_task_of_v3_belongs_to_one_family() -> None:
    tasks = [task for family in FAMILIES.values() for task in family.tasks]
    assert sorted(tasks) == sorted(task.name for task in TASKS)


def test_a_temperature_of_ones_own_is_for_one_kind_of_rows() -> None:
    found = prepared("separation", ROWS, 0, {Graded: 0.7})
    for kind, loss, columns in (
        ("pairs", losses.contrast, 2),
        ("scored", losses.ordered, 2),
        ("labelled", losses.separated, 1),
    ):
        temperature = 0.7 if kind == "scored" else FAMILIES["separation"].temperature
        expected = value(loss(Given(), temperature, ()), columns, kind)
        assert value(found[kind][1](Given(), (), None), columns, kind) == pytest.approx(expected)


def test_two_kinds_of_rows_in_one_set_are_refused_with_its_name() -> None:
    """Whichever comes first; the sets beside it are no matter."""
    for mixed in ([*ROWS["pairs"], ROWS["scored"][0]], [ROWS["scored"][0], *ROWS["pairs"]]):
        with pytest.raises(InputError, match=r"^b: text-matching learns from pairs, scored pairs, one kind a file"):
            prepared("text-matching", {"a": ROWS["pairs"], "b": mixed}, 0)


def test_classes_are_drawn_by_the_seed() -> None:
    drawn = [prepared("classification", {"a": ROWS["labelled"]}, seed)["a"][0].to_dict() for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def mean_contrast(queries: Tensor, passages: Tensor, negatives: Tensor, dims: tuple[int, ...]) -> float:
    """InfoNCE both ways at 0.05, the mean over directions and prefixes: [S, D], [S, D], [C, S, D]."""
    values = []
    for d in dims:
        q, p, n = (F.normalize(x[..., :d], dim=-1) for x in (queries, passages, negatives.flatten(0, 1)))
        gold = torch.arange(len(q))
        values.append(F.cross_entropy(q @ torch.cat([p, n]).T / 0.05, gold))
        values.append(F.cross_entropy(p @ q.T / 0.05, gold))
    return torch.stack(values).mean().item()


@pytest.mark.filterwarnings("ignore")  # of the trainer
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("negatives", [1, 66])
def test_queries_go_through_their_adapter_and_all_else_through_the_passages(negatives: int, tmp_path: Path) -> None:
    """However many negatives a row has: the first loss of a run is the formula's, over vectors that `Embedder` gives."""
    encoder = toy.encoder(toy.config(hidden_dropout_prob=0.0))
    embedder = Embedder(TorchBackend(encoder, torch.device("cpu")), Tokenizer(toy.rust_tokenizer(), encoder.config))
    texts = np.array(TEXTS[: 2 * (2 + negatives)]).reshape(-1, 2)
    q = torch.from_numpy(embedder.encode(texts[0].tolist(), task="retrieval.query"))
    p, *n = (torch.from_numpy(embedder.encode(some.tolist(), task="retrieval.passage")) for some in texts[1:])
    expected = mean_contrast(q, p, torch.stack(n), encoder.config.matryoshka_dimensions)
    rows = [Pair("en", query, passage, "", tuple(others)) for query, passage, *others in texts.T.tolist()]
    run = Run(tmp_path, cpu=True, log_steps=1, save_steps=1000)
    materials = prepared("retrieval", {"a": rows}, 0)
    fit_family(encoder, toy.rust_tokenizer(), "retrieval", materials, schedule=Schedule(1, 1e-3, 2), run=run)
    assert read_log(tmp_path)[0]["loss"] == pytest.approx(expected, rel=2e-3)


class Listening(Teacher):
    """The toy teacher, which keeps what it was asked to read."""

    def features(self, texts: list[str]) -> dict[str, Tensor]:
        self.heard = [*getattr(self, "heard", []), *texts]
        return super().features(texts)


@pytest.mark.filterwarnings("ignore")  # of the trainer
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("family", ["retrieval", "text-matching"])
def test_a_teacher_reads_passages_as_such_translations_in_english_and_no_scored_pairs(
    family: str, tmp_path: Path
) -> None:
    teacher = Listening(toys.teacher_file())
    sets: dict[str, list[Row]] = {
        "pairs": [Pair("en", r.query, r.passage, "", (f"not {r.query}",)) for r in ROWS["pairs"]]
    }  # type: ignore[union-attr]
    if family == "text-matching":
        sets["scored"] = [Graded("en", a, b, 0.5) for a, b in zip(TEXTS[20:24], TEXTS[24:28], strict=True)]
    fit_family(
        toy.encoder(toy.config(hidden_dropout_prob=0.0)),
        toy.rust_tokenizer(),
        family,
        prepared(family, sets, 0),
        schedule=Schedule(2, 1e-3, 4),
        run=Run(tmp_path, cpu=True, log_steps=1, save_steps=1000),
        teacher=teacher,
        held=1.0,
    )
    second = "passage: " if family == "retrieval" else "query: "
    first = TEXTS[:4] if family == "retrieval" else TEXTS[4:8]  # of a translation it knows the second side best
    expected = {f"query: {q}" for q in first} | {f"{second}{t}" for t in TEXTS[4:8]}
    assert set(teacher.heard) == expected | {f"{second}not {q}" for q in TEXTS[:4]}
