"""The adapters: the body is frozen, each group of tasks trains its own low-rank terms from the same start.

retrieval        query and passage together, behind their prompts: in-batch contrast, held to the teacher's ranking
text-matching    graded pairs in their people's order (CoSENT), and translations in contrast
classification   texts of one class together (supervised contrast), held to the teacher's similarities
separation       the same with a sharper contrast and a looser hold

Every contrast is taken over the Matryoshka prefixes.

Shapes: S texts, P pairs, D hidden.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.random import Generator
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import Parameter

from fivefold.config import ModelConfig
from fivefold.model import Encoder
from fivefold.train.corpora import PAIRS, SEGMENTS, Corpora, Labelled, Pair
from fivefold.train.distil import SLACK, teacher_vectors
from fivefold.train.forward import embed
from fivefold.train.loop import Step, StepResult
from fivefold.train.losses import cosent, info_nce, match_divergence, similarity_divergence, supervised_contrast
from fivefold.train.sampling import RUNS, ByLanguage, Translations, in_language, joined
from fivefold.train.teacher import PASSAGE, QUERY, Teacher

TEMPERATURE = 0.02
"""The teacher's cosines lie close together; so do the student's."""
MAX_LENGTH = 192
"""In tokens of the teacher; most passages are shorter."""


@dataclass(frozen=True, slots=True)
class Workbench:
    """What every group trains with; `encoder` holds the adapters of that group only."""

    encoder: Encoder
    tokenizer: Tokenizer
    teacher: Teacher
    corpora: Corpora
    seed: int
    workers: int = 1

    @property
    def config(self) -> ModelConfig:
        """The group's own configuration."""
        return self.encoder.config

    def embed(self, texts: list[str], tasks: list[str]) -> tuple[Tensor, int]:
        """Vectors [S, D] with prompt and adapter of each text's task."""
        prompted = [self.config.prompt(task) + text for text, task in zip(texts, tasks, strict=True)]
        ids = [self.config.task_id(task) for task in tasks]
        limit = int(MAX_LENGTH * SLACK)
        return embed(self.encoder, self.tokenizer, prompted, max_length=limit, task_ids=ids, workers=self.workers)

    def targets(self, texts: list[str]) -> Tensor:
        """The teacher's vectors of prefixed texts."""
        return teacher_vectors(self.teacher, texts, max_length=MAX_LENGTH, workers=self.workers)

    def over_prefixes(self, loss: Callable[[int], Tensor]) -> Tensor:
        """Mean of `loss(dims)` over the Matryoshka dimensions."""
        return torch.stack([loss(dims) for dims in self.config.matryoshka_dimensions]).mean()


# --- retrieval -------------------------------------------------------------------------------------------------------

QueryPassage = tuple[str, str]
DrawMatches = Callable[[Generator, int], list[QueryPassage]]
CLOZE_SOURCES = ("vital_title",)
MATCH_SHARES = (0.4, 0.2, 0.4)
"""Of draws: pairs as they are; a sentence with its own passage; a sentence with the passage around it in another language."""


class Matches:
    """Draws of queries and the passages they should find.

    All queries of a draw are of one language, and so are all passages: where other passages differ in language, a model
    learns that the right one is in the language of the query, and then misses answers in another.
    """

    def __init__(self, corpora: Corpora) -> None:
        found = [source for source in PAIRS if corpora.pairs.get(source.name)]
        shares = np.array([source.share for source in found])
        self.shares = shares / shares.sum()
        self.pairs = [ByLanguage(corpora.pairs[source.name]) for source in found]
        self.leads = ByLanguage([row for name in CLOZE_SOURCES for row in corpora.pairs[name]])
        self.texts = [Translations(corpora.segments[name]) for name in RUNS if corpora.segments.get(name)]

    def draw(self, rng: Generator, count: int) -> list[QueryPassage]:
        """`count` of one of the three kinds."""
        kinds: tuple[DrawMatches, ...] = (self._pairs, self._cloze, self._across)
        return kinds[rng.choice(len(kinds), p=MATCH_SHARES)](rng, count)

    def _pairs(self, rng: Generator, count: int) -> list[QueryPassage]:
        source = self.pairs[rng.choice(len(self.pairs), p=self.shares)]
        return [(row.query, row.passage) for row in source.draw(rng, count)]

    def _cloze(self, rng: Generator, count: int) -> list[QueryPassage]:
        return [self._sentence_and_rest(rng, row.passage) for row in self.leads.draw(rng, count)]

    def _sentence_and_rest(self, rng: Generator, passage: str) -> QueryPassage:
        sentence = draw_sentence(rng, passage)
        kept = passage.replace(sentence, " ") if rng.random() < 0.5 else passage
        return sentence, kept if len(kept) > len(sentence) else passage

    def _across(self, rng: Generator, count: int) -> list[QueryPassage]:
        texts = self.texts[rng.integers(len(self.texts))]
        lang, *others = texts.languages(rng, texts.segments[int(rng.integers(len(texts.segments)))], 2)
        return [self._sentence_and_run(rng, texts, lang, (others or [lang])[0]) for _ in range(count)]

    def _sentence_and_run(self, rng: Generator, texts: Translations, lang: str, other: str) -> QueryPassage:
        run = texts.run(rng, int(rng.integers(3, 7)))
        asked = run[int(rng.integers(len(run)))]
        return in_language(asked, lang), joined(run, other)


def draw_sentence(rng: Generator, text: str) -> str:
    """A sentence of at least 30 characters of a passage, or the passage itself."""
    sentences = [part for part in text.split(". ") if len(part) >= 30]
    return sentences[rng.integers(len(sentences))] if sentences else text


def retrieval(bench: Workbench) -> Step:
    """Both retrieval adapters in one step."""
    matches, pairs = Matches(bench.corpora), 24

    def step(number: int) -> StepResult:
        rng = np.random.default_rng((bench.seed, 1, number))
        queries, passages = zip(*matches.draw(rng, pairs), strict=True)
        tasks = ["retrieval.query"] * pairs + ["retrieval.passage"] * pairs
        vectors, tokens = bench.embed([*queries, *passages], tasks)
        wanted = bench.targets([*(QUERY + q for q in queries), *(PASSAGE + p for p in passages)])
        same = equal_rows(queries) | equal_rows(passages)
        asked, found = vectors[:pairs], vectors[pairs:]
        contrast = bench.over_prefixes(lambda d: info_nce(asked[:, :d], found[:, :d], TEMPERATURE, same))
        hold = match_divergence(asked, found, wanted[:pairs], wanted[pairs:], TEMPERATURE)
        return StepResult(contrast + hold, {"contrast": contrast.item(), "hold": hold.item()}, tokens)

    return step


def equal_rows(texts: Sequence[str]) -> Tensor:
    """Which texts are the same: [P, P] bool."""
    numbers = {text: i for i, text in enumerate(texts)}
    rows = torch.tensor([numbers[text] for text in texts])
    return rows[:, None] == rows


# --- text matching ---------------------------------------------------------------------------------------------------


def text_matching(bench: Workbench) -> Step:
    """Graded pairs, within and across languages, beside translations."""
    graded = bench.corpora.graded
    langs, count, pairs = sorted(graded), 40, 24
    sources = [s for s in SEGMENTS if bench.corpora.segments.get(s.name)]
    texts = [Translations(bench.corpora.segments[s.name]) for s in sources]
    shares = np.array([s.share for s in sources]) / sum(s.share for s in sources)

    def draw_graded(rng: Generator) -> tuple[str, str, float]:
        row = int(rng.integers(len(graded[langs[0]])))
        first, second = rng.integers(len(langs), size=2)
        if rng.random() < 0.7:
            second = first
        one, two = graded[langs[first]][row], graded[langs[second]][row]
        return one.first, two.second, one.score

    def draw_translation(rng: Generator) -> tuple[str, str]:
        drawn = texts[rng.choice(len(texts), p=shares)].draw(rng, 2).texts
        return drawn[0], drawn[-1]

    def step(number: int) -> StepResult:
        rng = np.random.default_rng((bench.seed, 2, number))
        first, second, scores = zip(*(draw_graded(rng) for _ in range(count)), strict=True)
        left, right = zip(*(draw_translation(rng) for _ in range(pairs)), strict=True)
        listed = [*first, *second, *left, *right]
        vectors, tokens = bench.embed(listed, ["text-matching"] * len(listed))
        a, b, lefts, rights = torch.split(vectors, [count, count, pairs, pairs])
        wanted, same = torch.tensor(scores), equal_rows(left) | equal_rows(right)
        order = bench.over_prefixes(lambda d: cosent(a[:, :d], b[:, :d], wanted, 0.05))
        contrast = bench.over_prefixes(lambda d: info_nce(lefts[:, :d], rights[:, :d], TEMPERATURE, same))
        return StepResult(order + contrast, {"order": order.item(), "contrast": contrast.item()}, tokens)

    return step


# --- classes ---------------------------------------------------------------------------------------------------------


class Classes:
    """Draws of texts from a few classes of one labelled source."""

    def __init__(self, rows: Sequence[Labelled]) -> None:
        by_label: dict[str, list[Labelled]] = defaultdict(list)
        for row in rows:
            by_label[row.label].append(row)
        self.classes = [ByLanguage(by_label[label]) for label in sorted(by_label) if len(by_label[label]) > 1]

    def draw(self, rng: Generator, classes: int, each: int) -> list[tuple[str, int]]:
        """`each` (text, class number) of up to `classes` classes, in mixed languages."""
        chosen = rng.choice(len(self.classes), size=min(classes, len(self.classes)), replace=False)
        return [(self.classes[c].draw(rng)[0].text, int(c)) for c in chosen for _ in range(each)]


def labelled_sources(corpora: Corpora) -> dict[str, Sequence[Labelled]]:
    """All labelled texts by source: topics of articles, intents, and recipes by category."""
    recipes: list[Pair] = corpora.pairs.get("recipes", [])
    return {
        **corpora.labels,
        "recipes": [Labelled(row.lang, row.query, row.label) for row in recipes if row.label],
    }


@dataclass(frozen=True, slots=True)
class ClassSettings:
    """Shares of the labelled sources and how the two terms weigh."""

    shares: Mapping[str, float]
    temperature: float
    hold: float


CLASS_SETTINGS = {
    "classification": ClassSettings({"vitaltopic": 0.7, "ha_intent": 0.3}, 0.05, 1.0),
    "separation": ClassSettings({"vitaltopic": 0.85, "recipes": 0.05, "ha_intent": 0.1}, 0.03, 0.5),
}


def class_step(bench: Workbench, task: str, stream: int) -> Step:
    """Texts of one class towards one another; a title with its text, a sentence of it, or a short text."""
    settings, rows = CLASS_SETTINGS[task], labelled_sources(bench.corpora)
    names = [name for name in settings.shares if rows.get(name)]
    shares = np.array([settings.shares[name] for name in names])
    sources = [Classes(rows[name]) for name in names]

    def step(number: int) -> StepResult:
        rng = np.random.default_rng((bench.seed, stream, number))
        source = sources[rng.choice(len(sources), p=shares / shares.sum())]
        drawn = source.draw(rng, classes=8, each=5)
        texts = [draw_sentence(rng, text) for text, _ in drawn]
        vectors, tokens = bench.embed(texts, [task] * len(texts))
        wanted = bench.targets([QUERY + text for text in texts])
        classes = torch.tensor([label for _, label in drawn])
        contrast = bench.over_prefixes(lambda d: supervised_contrast(vectors[:, :d], classes, settings.temperature))
        hold = similarity_divergence(vectors, wanted, TEMPERATURE)
        loss = contrast + settings.hold * hold
        return StepResult(loss, {"contrast": contrast.item(), "hold": hold.item()}, tokens)

    return step


# --- groups ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Group:
    """Tasks that train together, for how many steps and how fast."""

    tasks: tuple[str, ...]
    steps: int
    learning_rate: float
    build: Callable[[Workbench], Step]


GROUPS = {
    "retrieval": Group(("retrieval.query", "retrieval.passage"), 120, 2e-3, retrieval),
    "text-matching": Group(("text-matching",), 150, 3e-3, text_matching),
    "classification": Group(("classification",), 60, 3e-3, lambda bench: class_step(bench, "classification", 3)),
    "separation": Group(("separation",), 60, 3e-3, lambda bench: class_step(bench, "separation", 4)),
}


def group_config(config: ModelConfig, tasks: tuple[str, ...]) -> ModelConfig:
    """The same model with the adapters of these tasks only."""
    prompts = {task: config.prompt(task) for task in tasks}
    return replace(config, lora_adaptations=tasks, task_instructions=prompts)


def adapter_parameters(encoder: Encoder) -> dict[str, Parameter]:
    """The low-rank terms; everything else is frozen here."""
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad_("lora" in name)
    return {name: p for name, p in encoder.named_parameters() if p.requires_grad}


def stack_adapters(config: ModelConfig, groups: Mapping[tuple[str, ...], Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Banks of the groups -> banks of the whole model, tasks in the order of its configuration."""
    where = {task: (tensors, row) for tasks, tensors in groups.items() for row, task in enumerate(tasks)}
    names = next(iter(groups.values()))
    return {
        name: torch.stack([where[task][0][name][where[task][1]] for task in config.lora_adaptations]) for name in names
    }
