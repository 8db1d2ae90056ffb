"""evaluate/ways.py: which adapter reads which side of a set, behind which prompt."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fivefold import Embedder
from fivefold.config import TASKS
from fivefold.evaluate.board import KINDS
from fivefold.evaluate.ways import BODY, OWN, OWN_WAY, Side, Way, ablation, matrix, one, voiced
from tests import toy

QUERY, PASSAGE = "retrieval.query", "retrieval.passage"
PROMPTS = {task.name: task.prompt for task in TASKS}


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return toy.embedder(max_batch_tokens=77)


def test_every_kind_of_the_board_has_adapters_and_each_is_one_of_v3s() -> None:
    assert set(OWN) == set(KINDS) == set(OWN_WAY.kinds)
    assert {task for pair in OWN.values() for task in pair} == set(PROMPTS)


@pytest.mark.parametrize("kind", KINDS)
def test_the_two_sides_differ_where_there_is_a_question_and_an_answer(kind: str) -> None:
    first, second = OWN_WAY.sides(kind)
    assert (first != second) is (kind in ("retrieval", "long"))
    assert (first.prompt, second.prompt) == (first.task, second.task)
    assert BODY.sides(kind) == (Side(None, None), Side(None, None))
    assert one("separation").sides(kind) == (Side("separation", "separation"),) * 2
    assert Way("quiet", bare=True).sides(kind) == (Side(first.task, None), Side(second.task, None))


def test_the_ablation_is_table_8_of_the_paper() -> None:
    """Two adapters or either one, with the prompts of both sides and with none."""
    ways = ablation()
    assert {way.sides(kind) for way in ways for kind in way.kinds} == {
        (Side(first, QUERY if said else None), Side(second, PASSAGE if said else None))
        for first, second in ((QUERY, PASSAGE), (QUERY, QUERY), (PASSAGE, PASSAGE))
        for said in (True, False)
    }
    assert len({way.name for way in ways}) == len(ways) == 6
    assert {kind for way in ways for kind in way.kinds} == {"retrieval", "long"}


def test_the_matrix_has_each_adapter_once_under_its_own_name() -> None:
    ways = matrix(list(PROMPTS))
    assert [way.name for way in ways] == ["own", "body", *PROMPTS]
    assert {way.adapters for way in ways} == {None, (None, None), *((task, task) for task in PROMPTS)}


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("said", [QUERY, PASSAGE, None, "separation"])
def test_a_voice_changes_the_prompt_of_its_adapter_and_nothing_else(said: str | None, embedder: Embedder) -> None:
    """Against a model without prompts that is given them as text."""
    torch.set_num_threads(1)
    before = embedder.encode(toy.TEXTS[:3], task=QUERY)
    spoken = voiced(embedder, Side(QUERY, said))
    silent = voiced(embedder, Side(QUERY, None))
    prompted = [(PROMPTS[said] if said else "") + text for text in toy.TEXTS[:3]]
    np.testing.assert_allclose(spoken.encode(toy.TEXTS[:3], task=QUERY), silent.encode(prompted, task=QUERY), atol=1e-6)
    for other in (PASSAGE, "classification", None):
        np.testing.assert_array_equal(spoken.encode("a fox", task=other), embedder.encode("a fox", task=other))
    np.testing.assert_array_equal(embedder.encode(toy.TEXTS[:3], task=QUERY), before)
    assert (spoken.model_name, spoken.max_batch_tokens) == ("toy", 77)
    assert np.allclose(spoken.encode(toy.TEXTS[:3], task=QUERY), before, atol=1e-6) == (said == QUERY)


@pytest.mark.parametrize("side", [Side(None, None), Side("separation", "separation")])
def test_where_nothing_is_to_be_said_the_model_is_the_same_one(side: Side, embedder: Embedder) -> None:
    assert voiced(embedder, side) is embedder
