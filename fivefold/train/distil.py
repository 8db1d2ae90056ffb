"""Distillation: the student's body learns the teacher's vectors, the same one for every language of a sentence.

Loss: 10 (1 - cos) to the teacher's vector, plus the divergence of the in-batch similarities, over the whole vector and, with
less weight, over its Matryoshka prefixes. The word table stays frozen.

Shapes: S texts, D hidden, L tokens of one text.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import Parameter

from fivefold.model import Encoder
from fivefold.train.forward import embed
from fivefold.train.loop import StepResult
from fivefold.train.losses import cosine_distance, prefix_divergence, similarity_divergence
from fivefold.train.sampling import Example, Mixture
from fivefold.train.teacher import Teacher

FROZEN = "embeddings.word_embeddings", "embeddings.token_type_embeddings"


@dataclass(frozen=True, slots=True)
class DistilSettings:
    """What a step reads and how its terms weigh; lengths in tokens."""

    examples: int = 24
    long_examples: int = 6
    long_every: int = 8
    max_length: int = 128
    long_length: int = 500
    slack: float = 1.25  # a pruned vocabulary needs more tokens for the same text
    temperature: float = 0.02
    distance_weight: float = 10.0
    prefix_weight: float = 0.3
    seed: int = 0
    workers: int = 1


def body_parameters(encoder: Encoder) -> dict[str, Parameter]:
    """Everything distillation trains; all else is frozen here."""
    chosen = {}
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad_("lora" not in name and not name.startswith(FROZEN))
        if parameter.requires_grad:
            chosen[name] = parameter
    return chosen


def teacher_vectors(teacher: Teacher, order: Tensor, texts: list[str], *, max_length: int, workers: int = 1) -> Tensor:
    """The teacher's vectors [S, D] in the student's order of dimensions, each different text encoded once."""
    rows = {text: row for row, text in enumerate(dict.fromkeys(texts))}
    vectors = teacher.encode(list(rows), max_length=max_length, workers=workers)[:, order]
    return vectors[torch.tensor([rows[text] for text in texts])]


class Distillation:
    """One step of the loop: draw, ask the teacher, compare."""

    def __init__(
        self,
        encoder: Encoder,
        tokenizer: Tokenizer,
        teacher: Teacher,
        mixture: Mixture,
        order: Tensor,
        settings: DistilSettings,
    ) -> None:
        self.encoder, self.tokenizer, self.teacher = encoder.train(), tokenizer, teacher
        self.mixture, self.order, self.settings = mixture, order, settings
        self.dims = encoder.config.matryoshka_dimensions

    def __call__(self, step: int) -> StepResult:
        """The loss of step number `step`, which alone decides what is drawn."""
        s = self.settings
        rng = np.random.default_rng((s.seed, step))
        is_long = step % s.long_every == s.long_every - 1
        limit = s.long_length if is_long else s.max_length
        examples = self.mixture.draw_long(rng, s.long_examples) if is_long else self.mixture.draw(rng, s.examples)
        target = self._targets(examples, limit)
        texts = [text for example in examples for text in example.texts]
        vectors, tokens = embed(self.encoder, self.tokenizer, texts, max_length=int(limit * s.slack), workers=s.workers)
        return self._result(vectors, target, tokens)

    def _targets(self, examples: list[Example], limit: int) -> Tensor:
        """The teacher's vector of every student text, [S, D]."""
        wanted = [target for example in examples for target in example.targets]
        return teacher_vectors(self.teacher, self.order, wanted, max_length=limit, workers=self.settings.workers)

    def _result(self, vectors: Tensor, target: Tensor, tokens: int) -> StepResult:
        s = self.settings
        distance = cosine_distance(vectors, target)
        divergence = similarity_divergence(vectors, target, s.temperature)
        prefixes = prefix_divergence(vectors, target, s.temperature, self.dims)
        loss = s.distance_weight * distance + divergence + s.prefix_weight * prefixes
        parts = {"distance": distance.item(), "divergence": divergence.item(), "prefixes": prefixes.item()}
        return StepResult(loss, parts, tokens)
