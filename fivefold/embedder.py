"""The public face: text in, vectors out. And the one seam of the system, `Backend`.

The straight line: texts -> tokenizer -> sequences -> packs -> backend -> pooling -> vectors. Nothing here changes after
`load`, so an `Embedder` is safe to call from many threads at once, each call with its own task.

Shapes: T tokens in the pack, S spans, L tokens of one text, D hidden, d kept dims.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from fivefold import chunking, memory
from fivefold.checkpoint import load_encoder
from fivefold.config import ModelConfig
from fivefold.errors import InputError, NonFiniteError, TruncationWarning
from fivefold.hub import resolve
from fivefold.model import Encoder
from fivefold.packing import PackedBatch, pack, plan, rounded
from fivefold.peft import add_adapter
from fivefold.pooling import pool
from fivefold.quantization import Precision, choose, prepack
from fivefold.sequence import IntArray, Sequence
from fivefold.tokenizer import Cut, Tokenizer, check_texts
from fivefold.vectors import Array, FloatArray, VectorForm

TaskName = str | None

# A pack large enough to keep the matrix units busy, small enough that its activations stay cheap.
MAX_BATCH_TOKENS = {"cpu": 2048, "int8": 1024, "cuda": 32768}


class Backend(Protocol):
    """Anything that turns a packed batch into hidden states [T, D]."""

    def hidden_states(self, batch: PackedBatch) -> torch.Tensor:
        """Hidden states [T, D] of the last layer, on any device."""
        ...


class TorchBackend:
    """The torch encoder on one device."""

    def __init__(self, encoder: Encoder, device: torch.device, precision: Precision | None = None) -> None:
        self.encoder = encoder.eval()
        self.device = device
        self.precision = precision or Precision("float32")

    @torch.inference_mode()
    def hidden_states(self, batch: PackedBatch) -> torch.Tensor:
        """Hidden states [T, D] in the encoder's precision."""
        by_onednn = self.device.type == "cpu" and self.encoder.run is None
        hidden: torch.Tensor = self.encoder(rounded(batch) if by_onednn else batch.to(self.device))
        return hidden[: len(batch.input_ids)]


@dataclass(frozen=True, slots=True)
class TokenVectors:
    """Every token of one text: vectors [L, d], character offsets [L, 2] ((-1, -1): special and prompt tokens), ids [L]."""

    vectors: Array
    offsets: IntArray
    token_ids: IntArray


@dataclass(frozen=True, slots=True)
class ChunkVectors:
    """The chunks of one document: vectors [S, d], half-open character spans [S, 2], and the texts they cover."""

    vectors: Array
    spans: IntArray
    texts: list[str]

    def __len__(self) -> int:
        """Number of chunks."""
        return len(self.texts)


class Embedder:
    """A loaded model. Make one with `Embedder.load`.

    Example:
        >>> embedder = Embedder.load()
        >>> query = embedder.encode_query("Where do penguins live?")
        >>> documents = embedder.encode_document(["Pinguine leben auf der Südhalbkugel.", "Le café est chaud."])
        >>> int((documents @ query).argmax())
        0
    """

    def __init__(
        self,
        backend: Backend,
        tokenizer: Tokenizer,
        *,
        model_name: str = "",
        max_batch_tokens: int = MAX_BATCH_TOKENS["cpu"],
    ) -> None:
        if max_batch_tokens < 1:
            raise InputError(f"max_batch_tokens must be at least 1, got {max_batch_tokens}")
        self.backend = backend
        self.max_batch_tokens = max_batch_tokens
        self.tokenizer = tokenizer
        self.model_name = model_name

    @classmethod
    def load(
        cls,
        model: str | Path = "v3-nano",
        *,
        device: str | None = None,
        dtype: str | None = None,
        backend: str = "torch",
        revision: str | None = None,
        local_files_only: bool = False,
        accept_license: bool = False,
        max_batch_tokens: int | None = None,
        adapters: Mapping[str, str | Path] | None = None,
        prompts: Mapping[str, str] | None = None,
    ) -> Embedder:
        """Load a model once; the result serves every task.

        Args:
            model: the shipped `v3-nano`, a folder in any known layout, or a hub id such as `jinaai/jina-embeddings-v3`.
            device: `cpu`, `cuda`, `cuda:1`, ...; by default a GPU where there is one.
            dtype: `float32`, `bfloat16`, `float16`, on a CPU also `int8`, or `auto` for the fastest of them that keeps the
                vectors' quality (docs/cpu.md); by default float32 on a CPU and bfloat16 on a GPU. Where a processor has no
                fast `int8`, float32 is used: `embedder.backend.precision` says what and why, and how floats are multiplied.
            backend: `torch`, or `onnx` for ONNX Runtime on a CPU: it runs the graph that `fivefold export onnx` wrote into the
                folder, or makes a float32 one of the weights where there is none.
            revision: branch, tag or commit of a hub model.
            local_files_only: use the hub's local cache and no network.
            accept_license: required to fetch weights under a non-commercial licence.
            max_batch_tokens: tokens of one forward pass; bounds memory. One longer text still runs alone.
            adapters: further tasks by name, each the folder of a LoRA that PEFT saved for this model.
            prompts: what goes before every text of a task, where it is not the checkpoint's own; added ones have none.

        Raises:
            UnknownTaskError: a prompt for a task that does not exist.
            CheckpointError: the files are absent, damaged or of another architecture.
            LicenceError: the hub's weights have a non-commercial licence that was not accepted.
            MissingExtraError: the backend's library is not installed.
        """
        if backend not in BACKENDS:
            raise InputError(f"unknown backend {backend!r}; choose one of: {', '.join(BACKENDS)}")
        where = _device("cpu" if device is None and backend == "onnx" else device)
        precision = choose(dtype, where)
        folder = resolve(
            str(model),
            revision=revision,
            local_files_only=local_files_only,
            accept_license=accept_license,
            graph=backend == "onnx",
        )
        config, opened = BACKENDS[backend](folder, precision, where, adapters or {})
        kind = "int8" if precision.name == "int8" else where.type
        budget = MAX_BATCH_TOKENS.get(kind, MAX_BATCH_TOKENS["cpu"])
        return cls(
            opened,
            Tokenizer.from_folder(folder, config.with_prompts(prompts or {})),
            model_name=str(model),
            max_batch_tokens=budget if max_batch_tokens is None else max_batch_tokens,
        )

    @property
    def config(self) -> ModelConfig:
        """The architecture and tasks."""
        return self.tokenizer.config

    @property
    def dimensions(self) -> int:
        """Full width D of a vector; any `truncate_dim` from 1 to this can be asked for."""
        return self.config.hidden_size

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the adapters, in the order of their ids."""
        return self.config.lora_adaptations

    def encode(
        self,
        texts: str | Iterable[str],
        *,
        task: TaskName | SequenceOf[TaskName] = None,
        truncate_dim: int | None = None,
        max_length: int | None = None,
        truncate: bool = True,
        normalize: bool = True,
        precision: str = "float32",
        show_progress: bool = False,
    ) -> Array:
        """Embed texts: one vector each, in the order given.

        Args:
            texts: a string, which gives a 1-D array, or any iterable of strings.
            task: an adapter for all texts, or a list with one entry a text; `None` is the body without adapter or prompt.
            truncate_dim: keep the first dimensions, 1 to D; the cut vector is normalised again.
            max_length: tokens a text may have, prompt and special tokens included; by default all the model can read.
            truncate: cut longer texts, with one warning that counts them; False raises instead.
            normalize: unit length, so that a dot product is the cosine.
            precision: `float32`, `int8`, `uint8`, `binary` or `ubinary` (vectors.py says how).
            show_progress: a progress bar on stderr.

        Returns:
            [n, d], or [d] for a string; the binary precisions pack 8 dimensions a byte.

        Raises:
            InputError: with what is wrong with the input and what to do.
            NonFiniteError: the model gave NaN or infinity; the message names the texts.
        """
        form = VectorForm.checked(truncate_dim, self.dimensions, normalize, precision)
        listed = check_texts(texts)
        tasks = self._tasks_of(task, len(listed))
        limit = self._limit(max_length, tasks)
        rounds, cuts = [], []
        with tqdm(total=len(listed), unit="text", disable=not show_progress) as bar:
            read = self.tokenizer.rounds(listed, tasks, max_length=limit, truncate=truncate)
            for start, sequences, cut in read:
                cuts.append(cut)
                rounds.append(self.embed(sequences, form, bar, start))
        _warn_of_cuts(cuts, limit)
        vectors = np.concatenate(rounds)
        return vectors[0] if isinstance(texts, str) else vectors

    def encode_query(
        self,
        texts: str | Iterable[str],
        *,
        truncate_dim: int | None = None,
        max_length: int | None = None,
        truncate: bool = True,
        normalize: bool = True,
        precision: str = "float32",
        show_progress: bool = False,
    ) -> Array:
        """`encode` for the queries of a search: adapter and prompt of `retrieval.query`."""
        return self.encode(
            texts,
            task="retrieval.query",
            truncate_dim=truncate_dim,
            max_length=max_length,
            truncate=truncate,
            normalize=normalize,
            precision=precision,
            show_progress=show_progress,
        )

    def encode_document(
        self,
        texts: str | Iterable[str],
        *,
        truncate_dim: int | None = None,
        max_length: int | None = None,
        truncate: bool = True,
        normalize: bool = True,
        precision: str = "float32",
        show_progress: bool = False,
    ) -> Array:
        """`encode` for the documents of a search: adapter and prompt of `retrieval.passage`."""
        return self.encode(
            texts,
            task="retrieval.passage",
            truncate_dim=truncate_dim,
            max_length=max_length,
            truncate=truncate,
            normalize=normalize,
            precision=precision,
            show_progress=show_progress,
        )

    def encode_tokens(
        self,
        texts: str | Iterable[str],
        *,
        task: TaskName | SequenceOf[TaskName] = None,
        truncate_dim: int | None = None,
        max_length: int | None = None,
        truncate: bool = True,
        normalize: bool = True,
        precision: str = "float32",
    ) -> TokenVectors | list[TokenVectors]:
        """Every token's vector with its character offsets: one `TokenVectors` a text, or just one for a string."""
        form = VectorForm.checked(truncate_dim, self.dimensions, normalize, precision)
        listed = check_texts(texts)
        tasks = self._tasks_of(task, len(listed))
        limit = self._limit(max_length, tasks)
        sequences, cut = self.tokenizer.sequences(listed, tasks, max_length=limit, truncate=truncate, offsets=True)
        _warn_of_cuts([cut], limit)
        each_token = [Sequence(s.input_ids, s.task_id, _singles(len(s)), s.offsets) for s in sequences]
        vectors = self.embed(each_token, form)
        ends = np.cumsum([len(s) for s in sequences])[:-1]
        parts = np.split(vectors, ends) if sequences else []
        found = [
            TokenVectors(v, s.offsets, s.input_ids)
            for v, s in zip(parts, sequences, strict=True)
            if s.offsets is not None
        ]
        return found[0] if isinstance(texts, str) else found

    def encode_chunks(
        self,
        document: str,
        *,
        chunks: Iterable[str] | None = None,
        spans: Iterable[tuple[int, int]] | None = None,
        chunk_tokens: int | None = None,
        overlap: int | None = None,
        task: TaskName = "retrieval.passage",
        truncate_dim: int | None = None,
        max_length: int | None = None,
        normalize: bool = True,
        precision: str = "float32",
    ) -> ChunkVectors:
        """Late chunking: read the document as a whole, return a vector for each of its chunks.

        Args:
            document: one text of any length; past the model's length it is read in overlapping windows, and each chunk
                is pooled in the one window that gives it most context.
            chunks: the chunk texts, as they occur in the document, in order.
            spans: or their half-open character spans.
            chunk_tokens: or a size: the document is split at paragraphs, sentences and words into chunks of at most so
                many tokens.
            overlap: tokens that neighbouring windows share; by default 512, or a quarter of a smaller window.
            task, truncate_dim, max_length, normalize, precision: as in `encode`.

        Raises:
            ChunkError: a chunk is not in the document, holds no token, or is longer than the model can read at once.
        """
        form = VectorForm.checked(truncate_dim, self.dimensions, normalize, precision)
        if not isinstance(document, str):
            raise InputError(f"document must be one string, got {type(document).__name__}; call once for each document")
        char_spans = self._char_spans(document, chunks, spans, chunk_tokens)
        task_id = self.config.task_id(task)
        limit = self._limit(max_length, [task])
        tokens = self.tokenizer.tokens(document, task)
        token_spans = chunking.token_spans(tokens, char_spans)
        parts = chunking.windows(tokens, token_spans, task_id=task_id, max_length=limit, overlap=overlap)
        vectors = self.embed([w.sequence for w in parts], form)
        order = np.argsort([c for w in parts for c in w.chunks], kind="stable")
        return ChunkVectors(
            vectors[order], np.array(char_spans, dtype=np.int32).reshape(-1, 2), [document[a:b] for a, b in char_spans]
        )

    def _char_spans(
        self,
        document: str,
        chunks: Iterable[str] | None,
        spans: Iterable[tuple[int, int]] | None,
        chunk_tokens: int | None,
    ) -> list[chunking.CharSpan]:
        """Character spans from whichever of the three ways of chunking was used."""
        if sum(x is not None for x in (chunks, spans, chunk_tokens)) != 1:
            raise InputError("pass exactly one of chunks=, spans= or chunk_tokens= to say where the document is cut")
        if chunks is not None:
            return chunking.locate(document, chunks)
        if spans is not None:
            return chunking.check_spans(document, spans)
        assert chunk_tokens is not None
        return chunking.split(document, self.tokenizer, chunk_tokens)

    def _tasks_of(self, task: TaskName | SequenceOf[TaskName], count: int) -> list[TaskName]:
        """One checked task name for each text."""
        if task is None or isinstance(task, str):
            self.config.task_id(task)
            return [task] * count
        tasks = list(task)
        if len(tasks) != count:
            raise InputError(
                f"{count} texts but {len(tasks)} tasks: pass one task, or a list with one entry for each text"
            )
        for name in tasks:
            if name is not None and not isinstance(name, str):
                raise InputError(f"a task must be a name or None, got {type(name).__name__}")
        for name in set(tasks):
            self.config.task_id(name)
        return tasks

    def _limit(self, max_length: int | None, tasks: list[TaskName]) -> int:
        """The checked token limit; every task's prompt must leave room for text."""
        limit = self.tokenizer.check_length(max_length)
        for task in set(tasks):
            self.tokenizer.room(task, limit)
        return limit

    def embed(self, sequences: list[Sequence], form: VectorForm, bar: tqdm[Any] | None = None, first: int = 0) -> Array:
        """Vectors of all spans of all sequences, in the order given; `first` is the first text's number, for errors."""
        counts = np.array([len(s.spans) for s in sequences], dtype=np.int64)
        ends = counts.cumsum()
        empty = form.apply(np.empty((0, self.dimensions), dtype=np.float32))
        out = np.empty((int(counts.sum()), *empty.shape[1:]), dtype=empty.dtype)
        for indices in plan(sequences, self.max_batch_tokens):
            vectors = self._pool(pack([sequences[i] for i in indices]))
            rows = np.concatenate([np.arange(ends[i] - counts[i], ends[i]) for i in indices])
            _check_finite(vectors, np.repeat(indices, counts[indices]) + first)
            out[rows] = form.apply(vectors)
            if bar is not None:
                bar.update(len(indices))
        return out

    @torch.inference_mode()
    def _pool(self, batch: PackedBatch) -> FloatArray:
        pooled: FloatArray = pool(self.backend.hidden_states(batch), batch.spans).cpu().numpy()
        return pooled


def _device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"unknown device {name!r}; use cpu, cuda or cuda:N") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device {name!r} was asked for, but torch sees no CUDA device; use device='cpu'")
    return device


Adapters = Mapping[str, str | Path]
"""Folders of tasks beside the model's own, by name."""


def _open_torch(
    folder: Path, precision: Precision, device: torch.device, adapters: Adapters
) -> tuple[ModelConfig, Backend]:
    encoder = load_encoder(folder, dtype=precision.dtype, device=device, int8=precision.name == "int8")
    for name, adapter in adapters.items():
        add_adapter(encoder, name, Path(adapter))
    if device.type == "cpu":
        precision = prepack(encoder, precision)
        memory.give_back()
    return encoder.config, TorchBackend(encoder, device, precision)


def _open_onnx(
    folder: Path, precision: Precision, device: torch.device, adapters: Adapters
) -> tuple[ModelConfig, Backend]:
    from fivefold.export.runtime import open_onnx  # its libraries are an extra

    if device.type != "cpu" or precision.name != "float32":
        raise InputError("backend 'onnx' runs on a CPU, in the precision of its graph: leave device and dtype out")
    if adapters:
        raise InputError("backend 'onnx' runs the tasks of its graph alone: leave adapters out, or use backend='torch'")
    return open_onnx(folder)


BACKENDS: Mapping[str, Callable[[Path, Precision, torch.device, Adapters], tuple[ModelConfig, Backend]]] = {
    "torch": _open_torch,
    "onnx": _open_onnx,
}
"""From a model's folder to its config and what runs it."""


def _singles(length: int) -> IntArray:
    """One span for each token: [L, 2]."""
    starts = np.arange(length, dtype=np.int32)
    return np.stack([starts, starts + 1], axis=1)


def _check_finite(vectors: FloatArray, texts: npt.NDArray[np.int64]) -> None:
    bad = np.unique(texts[~np.isfinite(vectors).all(axis=1)])
    if bad.size:
        named = ", ".join(map(str, bad[:5])) + (" and others" if bad.size > 5 else "")
        raise NonFiniteError(
            f"the model gave NaN or infinity for text {named}; "
            "in half precision load with dtype='float32', otherwise the weights are damaged: fetch them again"
        )


def _warn_of_cuts(cuts: list[Cut], limit: int) -> None:
    texts, tokens = sum(c.texts for c in cuts), sum(c.tokens for c in cuts)
    if texts:
        warnings.warn(
            f"{texts} text{'s were' if texts > 1 else ' was'} cut to {limit} tokens, losing {tokens} tokens; "
            "use encode_chunks for long documents, or truncate=False to raise instead",
            TruncationWarning,
            stacklevel=3,
        )
