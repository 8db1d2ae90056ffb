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
from fivefold.train.sampling import Mixture
from fivefold.train.teacher import Teacher

FROZEN = "embeddings.word_embeddings"
SLACK = 1.1
"""A pruned vocabulary needs more tokens for the same text."""


@dataclass(frozen=True, slots=True)
class DistilSettings:
    """What a step reads and how its terms weigh; the length in tokens of the teacher."""

    examples: int = 24
    max_length: int = 500
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


def teacher_vectors(teacher: Teacher, texts: list[str], *, max_length: int, workers: int = 1) -> Tensor:
    """The teacher's vectors [S, D], each different text encoded once."""
    rows = {text: row for row, text in enumerate(dict.fromkeys(texts))}
    vectors = teacher.encode(list(rows), max_length=max_length, workers=workers)
    return vectors[torch.tensor([rows[text] for text in texts])]


class Distillation:
    """One step of the loop: draw, ask the teacher, compare."""

    def __init__(
        self,
        encoder: Encoder,
        tokenizer: Tokenizer,
        teacher: Teacher,
        mixture: Mixture,
        settings: DistilSettings,
    ) -> None:
        self.encoder, self.tokenizer, self.teacher = encoder.train(), tokenizer, teacher
        self.mixture, self.settings = mixture, settings
        self.dims = encoder.config.matryoshka_dimensions

    def __call__(self, step: int) -> StepResult:
        """The loss of step number `step`, which alone decides what is drawn."""
        s = self.settings
        rng = np.random.default_rng((s.seed, step))
        examples = self.mixture.draw(rng, s.examples)
        wanted = [target for example in examples for target in example.targets]
        target = teacher_vectors(self.teacher, wanted, max_length=s.max_length, workers=s.workers)
        texts = [text for example in examples for text in example.texts]
        limit = int(s.max_length * SLACK)
        vectors, tokens = embed(self.encoder, self.tokenizer, texts, max_length=limit, workers=s.workers)
        return self._result(vectors, target, tokens)

    def _result(self, vectors: Tensor, target: Tensor, tokens: int) -> StepResult:
        s = self.settings
        distance = cosine_distance(vectors, target)
        divergence = similarity_divergence(vectors, target, s.temperature)
        prefixes = prefix_divergence(vectors, target, s.temperature, self.dims)
        loss = s.distance_weight * distance + divergence + s.prefix_weight * prefixes
        parts = {"distance": distance.item(), "divergence": divergence.item(), "prefixes": prefixes.item()}
        return StepResult(loss, parts, tokens)
