"""sentence-transformers on our encoder: change the import and keep the code.

`SentenceTransformer` is the library's own class, which loads every layout that `Embedder` loads, without remote code. Its
first module is `Transformer` below; pooling, normalising, training and everything else is the library's. The instruction
of a task comes with the task, and a `prompt` or `prompt_name` stands in its place, so nothing is said twice.

Shapes: B texts, L tokens of the longest, T tokens in all, D hidden.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import sentence_transformers
import torch
from sentence_transformers.base.modules import InputModule, Normalize
from sentence_transformers.sentence_transformer.modules import Pooling
from tokenizers import Tokenizer as RustTokenizer
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint

from fivefold.checkpoint import load_encoder, write
from fivefold.errors import InputError
from fivefold.hub import resolve
from fivefold.model import Encoder
from fivefold.packing import PackedBatch, pack
from fivefold.quantization import FLOATS
from fivefold.sequence import Sequence as Tokens
from fivefold.shards import read_json
from fivefold.tokenizer import Tokenizer, check_texts

__all__ = ["SentenceTransformer", "Transformer"]

ROLES: Mapping[str, str] = {"query": "retrieval.query", "document": "retrieval.passage"}
"""What `encode_query` and `encode_document` pass as `task`."""


class Transformer(InputModule):
    """Texts to token embeddings, through the adapter of a task."""

    config_file_name = "sentence_bert_config.json"
    config_keys = ["max_seq_length", "default_task"]
    forward_kwargs = {"task"}

    def __init__(
        self,
        encoder: Encoder,
        tokenizer: RustTokenizer,
        *,
        max_seq_length: int | None = None,
        default_task: str | None = None,
        lora_main_params_trainable: bool = False,
    ) -> None:
        """Only the adapters are trained, unless `lora_main_params_trainable` is on or there are none."""
        super().__init__()
        self.encoder = encoder
        self.tokenizer = tokenizer
        self.max_seq_length = self._reader.check_length(max_seq_length)
        self.default_task = default_task
        everything = lora_main_params_trainable or not encoder.config.lora_adaptations
        for name, parameter in encoder.named_parameters():
            parameter.requires_grad_(everything or "lora_" in name)

    @classmethod
    def load(
        cls,
        model_name_or_path: str,
        subfolder: str = "",
        *,
        model_kwargs: Mapping[str, Any] | None = None,
        processor_kwargs: Mapping[str, Any] | None = None,
        config_kwargs: Mapping[str, Any] | None = None,
        backend: str = "torch",
        **hub_kwargs: Any,
    ) -> Transformer:
        """The encoder of a folder, as `SentenceTransformer` asks for it.

        Args:
            model_name_or_path: the folder.
            subfolder: where in it the encoder lies.
            model_kwargs: `default_task`, `lora_main_params_trainable`, and `dtype`, which is float32 otherwise.
            processor_kwargs: must be empty, as `config_kwargs` must.
            config_kwargs: see there.
            backend: "torch" is all there is.
            hub_kwargs: not needed for a folder.

        Raises:
            InputError: another option, or a dtype that is none.
            UnknownTaskError: a `default_task` that the model does not have.
        """
        options = dict(model_kwargs or {})
        dtype = _dtype(options.pop("dtype", options.pop("torch_dtype", None)))
        strange = [*(set(options) - {"default_task", "lora_main_params_trainable"}), *(processor_kwargs or {})]
        strange += [*(config_kwargs or {}), *([] if backend == "torch" else [f"backend {backend!r}"])]
        if strange:
            raise InputError(
                f"this model has no option {', '.join(sorted(strange))}; model_kwargs may hold default_task, "
                f"lora_main_params_trainable and dtype, and the backend is torch"
            )
        folder = Path(model_name_or_path) / subfolder
        path = folder / cls.config_file_name
        saved = read_json(path) if path.is_file() else {}
        options = {**{key: saved[key] for key in cls.config_keys if key in saved}, **options}
        encoder = load_encoder(folder, dtype=dtype, device=torch.device("cpu"))
        return cls(encoder, Tokenizer.from_folder(folder, encoder.config).rust, **options)

    @property
    def default_task(self) -> str | None:
        """The task of texts that come with none; `None` is the body alone."""
        return self._default_task

    @default_task.setter
    def default_task(self, task: str | None) -> None:
        self.encoder.config.task_id(task)
        self._default_task = task

    @property
    def _reader(self) -> Tokenizer:
        return Tokenizer(self.tokenizer, self.encoder.config)

    def _task(self, task: str | None) -> str | None:
        """The model's name of a task, a role or none; a model without retrieval tasks makes nothing of roles."""
        known = self.encoder.config.lora_adaptations
        role = ROLES.get(task or "")
        if role is not None and task not in known:
            task = role if role in known else None
        return self.default_task if task is None else task

    def preprocess(
        self,
        inputs: Sequence[str],
        prompt: str | None = None,
        *,
        task: str | None = None,
        max_length: int | None = None,
    ) -> dict[str, Tensor]:
        """Texts -> `input_ids` and `attention_mask` [B, L], `task_ids` [B].

        `prompt` stands in the place of the task's instruction. Texts over the limit are cut, as everywhere in this library.
        """
        config, name = self.encoder.config, self._task(task)
        task_id = config.task_id(name)
        prefix = config.prompt(name) if prompt is None else prompt
        texts = [prefix + text for text in check_texts(inputs)]
        limit = self._reader.check_length(max_length or self.max_seq_length)
        sequences, _ = self._reader.sequences(texts, [None] * len(texts), max_length=limit, truncate=True)
        ids = [torch.from_numpy(s.input_ids).long() for s in sequences]
        return {
            "input_ids": pad_sequence(ids, batch_first=True, padding_value=config.pad_token_id),
            "attention_mask": pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
            "task_ids": torch.full((len(ids),), task_id),
        }

    def forward(self, features: dict[str, Any], task: str | None = None) -> dict[str, Any]:
        """Adds `token_embeddings` [B, L, D], zero at padding; `task` is for features without `task_ids`."""
        ids, kept = features["input_ids"], features["attention_mask"].bool()
        if "task_ids" in features:
            task_ids = features["task_ids"].tolist()
        else:
            task_ids = [self.encoder.config.task_id(self._task(task))] * len(ids)
        hidden = self.encoder(_packed(ids, kept, task_ids).to(ids.device))  # [T, D]
        features["token_embeddings"] = hidden.new_zeros(*kept.shape, hidden.shape[-1])
        features["token_embeddings"][kept] = hidden
        return features

    def get_embedding_dimension(self) -> int:
        """D."""
        return self.encoder.config.hidden_size

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: Mapping[str, Any] | None = None) -> None:
        """From now on backward computes each layer's activations again, as a trainer's `gradient_checkpointing` asks."""
        options = {"use_reentrant": False, **(gradient_checkpointing_kwargs or {})}
        for layer in self.encoder.layers:
            layer.forward = partial(checkpoint, partial(type(layer).forward, layer), **options)

    def save(self, output_path: str, *, safe_serialization: bool = True) -> None:
        """Write the model in our own layout, which `Embedder` loads too; the folder may hold one already."""
        if not safe_serialization:
            raise InputError("weights are written as safetensors only; leave safe_serialization on")
        folder = Path(output_path)
        with TemporaryDirectory(dir=folder) as staging:
            # Weights may be mapped from the file they replace, so that file must not change under them.
            written = Path(staging) / "model"
            write(written, self.encoder.config, self.encoder.state_dict())
            for path in written.iterdir():
                path.replace(folder / path.name)
        self.tokenizer.save(str(folder / "tokenizer.json"))
        self.save_config(output_path)


def _dtype(name: Any) -> torch.dtype:
    found = name if isinstance(name, torch.dtype) else FLOATS.get(name or "float32")
    if found is None:
        raise InputError(f"unknown dtype {name!r}; choose one of: {', '.join(FLOATS)}")
    return found


def _packed(ids: Tensor, kept: Tensor, task_ids: list[int]) -> PackedBatch:
    """Rows [B, L] without their padding, on the host; no spans, as the library pools."""
    rows, masks = ids.cpu().numpy().astype(np.int32), kept.cpu().numpy()
    spans = np.empty((0, 2), dtype=np.int32)
    return pack([Tokens(row[mask], task_id, spans) for row, mask, task_id in zip(rows, masks, task_ids, strict=True)])


class SentenceTransformer(sentence_transformers.SentenceTransformer):
    """The library's class on our encoder: arguments, methods and files are its own.

    `model_name_or_path` may be what `Embedder.load` takes: `v3-nano`, a folder in any layout, a hub id, whose licence
    may have to be accepted with `accept_license`. Vectors that `truncate_dim` cuts are normalised again.
    """

    # There, these two are empty until a model fills them; here, tasks have their instructions.
    _default_prompts: dict[str, str | None] = {}

    def __init__(
        self,
        model_name_or_path: str | Path | None = None,
        *,
        revision: str | None = None,
        local_files_only: bool = False,
        cache_folder: str | None = None,
        accept_license: bool = False,
        **kwargs: Any,
    ) -> None:
        if model_name_or_path is not None:
            model_name_or_path = resolve(
                str(model_name_or_path),
                revision=revision,
                local_files_only=local_files_only,
                accept_license=accept_license,
                cache_dir=Path(cache_folder) if cache_folder else None,
            )
        super().__init__(model_name_or_path and str(model_name_or_path), local_files_only=True, **kwargs)

    def encode(self, *args: Any, truncate_dim: int | None = None, **kwargs: Any) -> Any:
        """The library's own, but for the length of cut vectors, which is 1."""
        if truncate_dim is not None or self.truncate_dim is not None:
            kwargs["normalize_embeddings"] = True
        return super().encode(*args, truncate_dim=truncate_dim, **kwargs)

    def _load_default_modules(
        self, model_name_or_path: str, *args: Any, model_kwargs: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> tuple[list[Any], dict[str, Any]]:
        """The modules of a folder without modules.json, and the prompts that it then lacks as well."""
        options: dict[str, Any] = {key: kwargs.get(key) for key in ("processor_kwargs", "config_kwargs")}
        first = Transformer.load(model_name_or_path, model_kwargs=model_kwargs, backend=self.backend, **options)
        config = first.encoder.config
        for task in config.lora_adaptations:
            self.prompts.setdefault(task, config.prompt(task))
        return [first, Pooling(config.hidden_size, "mean"), Normalize()], {}

    def _load_module_class_from_ref(self, class_ref: str, *args: Any, **kwargs: Any) -> type:
        """Whatever a folder calls its encoder, it is ours."""
        if class_ref.rsplit(".", 1)[-1] == "Transformer":
            return Transformer
        loaded: type = super()._load_module_class_from_ref(class_ref, *args, **kwargs)
        return loaded
