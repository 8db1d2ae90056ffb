"""train/card.py: what the card says is what was done."""

from __future__ import annotations

import re
from itertools import product

import pytest

from fivefold.config import ModelConfig
from fivefold.train.card import model_card
from fivefold.train.sampling import Mixture
from tests import toy
from tests.train import toys

OPTIONAL = {"turn": "**A turn**", "refine": "**Distillation** on from there", "pairs": "**Pairs**"}
SOURCES = Mixture(toys.corpora()).drawn()


def card(config: ModelConfig | None = None, scores: str = "", **updates: int) -> str:
    return model_card(
        config or toy.config(), updates={"distil": 4321, **updates}, longest=77, sources=SOURCES, scores=scores
    )


@pytest.mark.parametrize("ran", list(product([False, True], repeat=3)), ids=str)
def test_stages_that_were_run_are_told_in_order_and_the_others_are_not(ran: tuple[bool, ...]) -> None:
    updates = {
        name: 1000 + number if done else 0 for number, (name, done) in enumerate(zip(OPTIONAL, ran, strict=True))
    }
    told = re.findall(r"^(\d)\. (\*\*.*?\*\*(?: on from there)?)", card(**updates), re.MULTILINE)
    expected = [
        "**Start.**",
        "**Distillation**",
        *(said for said, done in zip(OPTIONAL.values(), ran, strict=True) if done),
    ]
    assert told == [(str(n), said) for n, said in enumerate([*expected, "**Adapters**"], 1)]
    text = card(**updates)
    assert "4,321 updates" in text and all((f"1,00{n} updates" in text) is ran[n] for n in (1, 2))


def test_the_numbers_are_the_models() -> None:
    config = toy.config(num_hidden_layers=7, hidden_size=32, vocab_size=123456, rotary_emb_base=20000.0, lora_rank=3)
    text = " ".join(card(config).split())
    for said in (
        "fivefold: 7 layers, 32 wide",
        "Matryoshka dimensions 8, 16, 32.",
        "The 123,456 pieces are XLM-R's own",
        "(base 20000)",
        "rank 3, body frozen",
        "Texts up to 64 tokens run, but training saw at most 77.",
    ):
        assert said in text, said
    assert not re.search(r"[{}]", text)


def test_every_source_is_credited_with_its_licence_and_its_share() -> None:
    rows = re.findall(r"^\| (\S+) \((.+)\) \| (.+) \| (\d+)% \|$", card(), re.MULTILINE)
    assert [row[:3] for row in rows] == [(s["source"], s["rows"], s["licence"]) for s in SOURCES] and len(rows) > 2
    assert abs(sum(int(share) for *_, share in rows) - 100) <= len(rows) / 2


def test_scores_stand_as_they_were_printed() -> None:
    scores = "| set {0} | own, 8 |\n|---|---:|\n| **sts {dims}** | 0.5 |"
    assert f"\n\n{scores}\n\n## Limits" in card(scores=f"\n{scores}\n\n")
    assert "_Not measured yet._" in card(scores=" \n") and "_Not measured" not in card(scores=scores)
