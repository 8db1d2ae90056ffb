"""`encode` as the code published with jina-embeddings-v3 has it: arguments, defaults, order of work, messages.

One task a call, through the adapter that PEFT has active meanwhile, so calls on one model must not overlap. `Embedder` has
neither limit, and no padding.

Shapes: B texts of a batch, L tokens of a row, D hidden, d kept dims.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import trange
from transformers import AutoTokenizer
from transformers.tokenization_utils_base import LARGE_INTEGER

from fivefold.config import TASKS
from fivefold.errors import DimensionError, MissingFileError, UnknownTaskError
from fivefold.layouts import folder_name

logger = logging.getLogger(__name__)

Encoded: TypeAlias = "npt.NDArray[np.float32] | Tensor | list[Tensor]"

MAX_LENGTH = 8192
"""Tokens of a text where the tokenizer does not say."""


class SentenceEncoder:
    """The `encode` of a model that transformers has loaded from somewhere: a mixin."""

    @torch.inference_mode()
    def encode(
        self: Any,
        sentences: str | list[str],
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        output_value: str = "sentence_embedding",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: torch.device | str | None = None,
        normalize_embeddings: bool = True,
        truncate_dim: int | None = None,
        *,
        task: str | None = None,
        **tokenizer_kwargs: Any,
    ) -> Encoded:
        """Sentences to vectors: the mean of each one's hidden states, cut, then normalised.

        Args:
            sentences: a string gives one vector, a list one for each.
            batch_size: sentences of one forward pass, longest first.
            show_progress_bar: by default where the logger is at INFO or DEBUG.
            output_value: "sentence_embedding" is all there is.
            convert_to_numpy: a float32 array; else a list of tensors.
            convert_to_tensor: one tensor instead.
            device: moves the model there first.
            normalize_embeddings: unit length.
            truncate_dim: keep the first dimensions, one of the config's `matryoshka_dimensions`.
            task: one of the config's `lora_adaptations`: its prompt goes before every sentence, and its adapter is loaded
                from where the model came from if it is not there yet. None is the body alone.
            tokenizer_kwargs: for the tokenizer, such as max_length; padding and truncation are on by default.

        Raises:
            UnknownTaskError: no such task.
            DimensionError: a `truncate_dim` the model was not trained for.
        """
        if output_value != "sentence_embedding":
            raise NotImplementedError(f"output_value {output_value!r} does not exist; use 'sentence_embedding'")
        prompt = _prompt(self.config, task)
        if device is not None:
            self.to(device)
        tokenizer = _tokenizer(self)
        limit = MAX_LENGTH if tokenizer.model_max_length > LARGE_INTEGER else tokenizer.model_max_length
        options = {"padding": True, "truncation": True, "max_length": limit, **tokenizer_kwargs}
        texts = [sentences] if isinstance(sentences, str) else list(sentences)
        order = np.argsort([-len(text) for text in texts], kind="stable")
        found: list[Tensor] = []
        with _evaluating(self), _adapted(self, task):
            bar = logger.isEnabledFor(logging.INFO) if show_progress_bar is None else show_progress_bar
            for start in trange(0, len(texts), batch_size, desc="Encoding", disable=not bar):
                batch = [prompt + texts[i] for i in order[start : start + batch_size]]
                vectors = _cut(
                    _means(self, tokenizer(batch, return_tensors="pt", **options)), truncate_dim, self.config
                )
                found.extend(F.normalize(vectors, dim=-1) if normalize_embeddings else vectors)
        back = [found[i] for i in np.argsort(order)]
        return _formed(back, single=isinstance(sentences, str), tensor=convert_to_tensor, array=convert_to_numpy)


def _prompt(config: Any, task: str | None) -> str:
    """The instruction of a task, by the config or, where it has no such keys, by the release."""
    if task is None:
        return ""
    tasks = getattr(config, "lora_adaptations", None) or [known.name for known in TASKS]
    if task not in tasks:
        raise UnknownTaskError(
            f"Unsupported task '{task}'. Supported tasks are: {', '.join(tasks)}. "
            "Alternatively, don't pass the `task` argument to disable LoRA."
        )
    prompts: Mapping[str, str] = getattr(config, "task_instructions", None) or {t.name: t.prompt for t in TASKS}
    return prompts.get(task, "")


def _tokenizer(model: Any) -> Any:
    """The tokenizer that lies where the model came from."""
    if not model.name_or_path:
        raise MissingFileError("this model was not loaded from anywhere, so it has no tokenizer; use from_pretrained")
    return AutoTokenizer.from_pretrained(model.name_or_path)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


@contextmanager
def _adapted(model: Any, task: str | None) -> Iterator[None]:
    """The task's adapter alone is active, or none; afterwards everything is as it was."""
    loaded = getattr(model, "peft_config", {})  # PEFT adds the attribute
    if task is None and not loaded:
        yield
        return
    active = model.active_adapters() if loaded else []
    names = [] if task is None else [folder_name(task)]
    for name in set(names) - set(loaded):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Already found a `peft_config`")  # several adapters are what we want
            model.load_adapter(model.name_or_path, adapter_name=name, adapter_kwargs={"subfolder": name})
    disabled, trained = _adapters_disabled(model), [(p, p.requires_grad) for p in model.parameters()]
    try:
        model.enable_adapters()
        model.set_adapter(names)
        yield
    finally:
        model.set_adapter(active)
        if disabled:
            model.disable_adapters()
        for parameter, trainable in trained:
            parameter.requires_grad_(trainable)


def _adapters_disabled(model: nn.Module) -> bool:
    from peft.tuners.tuners_utils import BaseTunerLayer  # an optional library, there if any adapter is

    return any(module.disable_adapters for module in model.modules() if isinstance(module, BaseTunerLayer))


def _means(model: Any, inputs: Any) -> Tensor:
    """Mean of each row's hidden states, padding apart: [B, D] float32."""
    inputs = inputs.to(model.device)
    hidden: Tensor = model(**inputs).last_hidden_state.float()  # [B, L, D]
    mask: Tensor = inputs["attention_mask"][..., None]  # [B, L, 1]
    return (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)


def _cut(vectors: Tensor, truncate_dim: int | None, config: Any) -> Tensor:
    """Vectors [B, D] -> [B, d]."""
    dims = truncate_dim or getattr(config, "truncate_dim", None)
    known = getattr(config, "matryoshka_dimensions", None)
    if not dims:
        return vectors
    if not known:
        logger.warning("Matryoshka embeddings are not supported, so dimension truncation will not be performed.")
        return vectors
    if dims not in known:
        raise DimensionError(
            f"The provided `truncate_dim` value of {dims} is not supported. Supported dimensions are {list(known)}."
        )
    return vectors[:, :dims]


def _formed(vectors: list[Tensor], *, single: bool, tensor: bool, array: bool) -> Encoded:
    """The vectors as the caller wants them."""
    if tensor:
        stacked = torch.stack(vectors)
        return stacked[0] if single else stacked
    if array:
        stacked_array = np.asarray([vector.cpu().numpy() for vector in vectors])
        return stacked_array[0] if single else stacked_array
    return vectors[0] if single else vectors
