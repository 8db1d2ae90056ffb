"""Ways to encode a set: which adapter reads which side of it, behind which prompt.

A kind of set has two sides (a query and a passage, a sentence and another), each with the adapter the papers give it. A
way keeps those adapters or puts others in their place, and keeps, swaps or drops the prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fivefold.embedder import Embedder
from fivefold.tokenizer import Tokenizer

Pair = tuple[str | None, str | None]

RETRIEVAL: Pair = ("retrieval.query", "retrieval.passage")
OWN: Mapping[str, Pair] = {
    "sts": ("text-matching", "text-matching"),
    "bitext": ("text-matching", "text-matching"),
    "retrieval": RETRIEVAL,
    "long": RETRIEVAL,
    "classification": ("classification", "classification"),
    "clustering": ("separation", "separation"),
}
"""Kind of set -> the adapters of its two sides."""


@dataclass(frozen=True, slots=True)
class Side:
    """The adapter that reads a text, and the task whose prompt goes before it; `None` is neither."""

    task: str | None
    prompt: str | None


@dataclass(frozen=True, slots=True)
class Way:
    """A name for the table, the adapters where they are not the kind's own, and the tasks whose prompts are said."""

    name: str
    adapters: Pair | None = None
    prompts: Pair | None = None
    bare: bool = False
    kinds: Sequence[str] = tuple(OWN)

    def sides(self, kind: str) -> tuple[Side, Side]:
        """How each side of a set of this kind is read; prompts are those of the adapters unless given."""
        adapters = self.adapters or OWN[kind]
        first, second = (None, None) if self.bare else self.prompts or adapters
        return Side(adapters[0], first), Side(adapters[1], second)


OWN_WAY = Way("own")
BODY = Way("body", adapters=(None, None))


def one(task: str) -> Way:
    """One adapter for everything."""
    return Way(task, adapters=(task, task))


def matrix(tasks: Sequence[str]) -> list[Way]:
    """Every adapter on every kind, the body, and the kinds' own."""
    return [OWN_WAY, BODY, *map(one, tasks)]


def ablation() -> list[Way]:
    """Two retrieval adapters against one, with and without prompts (table 8 of the paper on v3)."""
    retrieval = ("retrieval", "long")
    ways = [Way("2 adapters, prompts", kinds=retrieval), Way("2 adapters, no prompts", bare=True, kinds=retrieval)]
    for task in RETRIEVAL:
        ways.append(Way(f"{task} alone, prompts", (task, task), prompts=RETRIEVAL, kinds=retrieval))
        ways.append(Way(f"{task} alone, no prompts", (task, task), bare=True, kinds=retrieval))
    return ways


def voiced(embedder: Embedder, side: Side) -> Embedder:
    """The same model, whose prompt for the side's adapter is the side's."""
    config = embedder.config
    if side.task is None or side.prompt == side.task:
        return embedder
    spoken = config.with_prompts({side.task: config.prompt(side.prompt)})
    tokenizer = Tokenizer(embedder.tokenizer.rust, spoken)
    return Embedder(
        embedder.backend, tokenizer, model_name=embedder.model_name, max_batch_tokens=embedder.max_batch_tokens
    )
