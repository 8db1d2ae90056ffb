"""The pruned vocabulary: the most useful of XLM-R's own pieces, behind XLM-R's own normaliser.

Pieces keep their unigram scores, so a text whose best pieces were all kept is segmented exactly as the teacher does it.
Usefulness is the share of a piece in text of the tuned languages, mixed with the probability XLM-R itself gives the piece,
because the corpora speak of fewer things than the world does. Every single character of the tuned scripts is kept.
"""

from __future__ import annotations

import math
import random
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from fivefold.train.corpora import Corpora
from fivefold.train.teacher import TeacherFile

FloatArray = npt.NDArray[np.float64]

SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
MASK = "<mask>"
UNK_ID = 3
WORD = "▁"
JOINER = "\u200d"
"""Zero-width joiner: a space to XLM-R, while the map of today's sentencepiece keeps it."""
SCRIPTS = frozenset(
    "LATIN CYRILLIC GREEK ARABIC HEBREW DEVANAGARI BENGALI THAI GEORGIAN HANGUL HIRAGANA KATAKANA CJK".split()
)
"""First words of the Unicode names of the letters of the tuned languages."""
PRIOR_SHARE = 0.6
"""Weight of XLM-R's own piece probabilities beside the counts."""
SCRIPT_EXPONENT = 0.65
"""Evens out how much of those probabilities each script has: below 1 lifts the small scripts."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The kept pieces in id order, their scores, and the rows they had in the teacher's table."""

    pieces: list[str]
    scores: list[float]
    rows: list[int]


@cache
def script(piece: str) -> str | None:
    """The script of a piece's letters: None without letters, "" where one is foreign to the tuned languages."""
    names = {
        unicodedata.name(c, "?").split()[0].split("-")[0] for c in piece if c.isalpha() or unicodedata.combining(c)
    }
    names.discard("COMBINING")
    if not names <= SCRIPTS:
        return ""
    return min(names, default=None)


def sample_texts(corpora: Corpora, *, per_language: int, seed: int) -> dict[str, list[str]]:
    """Up to `per_language` texts of every language, drawn evenly from its sources."""
    by_language: dict[str, list[list[str]]] = defaultdict(list)
    for source in _texts_by_source(corpora):
        for lang, texts in source.items():
            by_language[lang].append(texts)
    rng = random.Random(seed)
    found = {}
    for lang, sources in sorted(by_language.items()):
        share = per_language // len(sources)
        found[lang] = [t for texts in sources for t in rng.sample(texts, min(share, len(texts)))]
    return found


def _texts_by_source(corpora: Corpora) -> Iterable[Mapping[str, list[str]]]:
    for segments in corpora.segments.values():
        yield _grouped((lang, text) for s in segments for lang, text in s.texts.items())
    for pairs in corpora.pairs.values():
        yield _grouped((p.lang, text) for p in pairs for text in (p.query, p.passage))
    for labelled in corpora.labels.values():
        yield _grouped((row.lang, row.text) for row in labelled)


def _grouped(items: Iterable[tuple[str, str]]) -> Mapping[str, list[str]]:
    grouped: dict[str, list[str]] = defaultdict(list)
    for lang, text in items:
        grouped[lang].append(text)
    return grouped


def usefulness(
    tokenizer: Tokenizer, pieces: list[str], scores: Iterable[float], texts: Mapping[str, list[str]]
) -> FloatArray:
    """A number for every piece: its mean share over the languages of `texts`, mixed with XLM-R's probability."""
    counted = np.zeros(len(pieces))
    for lang_texts in texts.values():
        counts: Counter[int] = Counter()
        for encoding in tokenizer.encode_batch_fast(lang_texts, add_special_tokens=False):
            counts.update(encoding.ids)
        total = sum(counts.values())
        for piece, count in counts.items():
            counted[piece] += count / total / len(texts)
    return (1 - PRIOR_SHARE) * counted + PRIOR_SHARE * _prior(pieces, scores)


def _prior(pieces: list[str], scores: Iterable[float]) -> FloatArray:
    """XLM-R's piece probabilities over the tuned scripts, the small scripts lifted; sums to 1."""
    prior = np.array([math.exp(score) for score in scores])
    scripts = np.array([script(piece) or ("none" if script(piece) is None else "") for piece in pieces])
    prior[scripts == ""] = 0
    for name in {*scripts.tolist()} - {""}:
        members = scripts == name
        prior[members] *= prior[members].sum() ** (SCRIPT_EXPONENT - 1)
    normalised: FloatArray = prior / prior.sum()
    return normalised


def choose(file: TeacherFile, useful: FloatArray, size: int) -> Vocabulary:
    """The `size` pieces to keep, in XLM-R's order: specials, single characters of the tuned scripts, then by usefulness."""
    mask = file.pieces.index(MASK)
    ordinary = [i for i in range(len(SPECIALS), len(file.pieces)) if i != mask]
    needed = {i for i in ordinary if _is_needed(file.pieces[i])}
    ranked = sorted((i for i in ordinary if i not in needed), key=lambda i: (-useful[i], i))
    room = size - len(SPECIALS) - 1 - len(needed)
    rows = [*range(len(SPECIALS)), *sorted([*needed, *ranked[:room]]), mask]
    return Vocabulary([file.pieces[i] for i in rows], [round(float(file.scores[i]), 5) for i in rows], rows)


def _is_needed(piece: str) -> bool:
    """Single characters, with or without the word mark, of the tuned scripts or of none."""
    character = piece.removeprefix(WORD)
    return len(character) <= 1 and script(character) != ""


def charsmap() -> bytes:
    """XLM-R's character map, nmt_nfkc, as the sentencepiece library compiles it."""
    from sentencepiece import SentencePieceNormalizer

    return _bytes_field(SentencePieceNormalizer(rule_name="nmt_nfkc").serialized_normalizer_spec(), number=2)


def _bytes_field(message: bytes, *, number: int) -> bytes:
    """A length-delimited field of a serialised protocol buffer whose fields are all varints or length-delimited."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        value, at = _varint(message, at)
        if key & 7 == 2:
            if key >> 3 == number:
                return message[at : at + value]
            at += value
    raise ValueError(f"the message has no field {number}")


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """A base-128 number and where it ends."""
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        shift, at = shift + 7, at + 1
        if byte < 128:
            return value, at


def build_tokenizer(pieces: list[str], scores: Iterable[float], characters: bytes) -> Tokenizer:
    """A fast tokenizer: XLM-R's normaliser, words marked with "▁", unigram pieces, `<s> text </s>`."""
    tokenizer = Tokenizer(models.Unigram([(p, float(s)) for p, s in zip(pieces, scores, strict=True)], unk_id=UNK_ID))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(JOINER, " "),
            normalizers.Precompiled(characters),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[(name, pieces.index(name)) for name in ("<s>", "</s>")],
    )
    specials = [AddedToken(name, special=True, normalized=False) for name in SPECIALS]
    tokenizer.add_special_tokens([*specials, AddedToken(MASK, lstrip=True, special=True, normalized=False)])
    return tokenizer


def report(kept: Tokenizer, full: Tokenizer, texts: Mapping[str, list[str]]) -> dict[str, dict[str, float]]:
    """For every language: unknown pieces per piece, and the length ratio to the teacher's segmentation."""
    found = {}
    for lang, lang_texts in texts.items():
        ids = [i for e in kept.encode_batch_fast(lang_texts, add_special_tokens=False) for i in e.ids]
        before = sum(len(e.ids) for e in full.encode_batch_fast(lang_texts, add_special_tokens=False))
        found[lang] = {"unk": ids.count(UNK_ID) / len(ids), "length": len(ids) / before}
    return found


def prune(
    file: TeacherFile, corpora: Corpora, *, size: int, per_language: int = 40000, seed: int = 0
) -> tuple[Vocabulary, Tokenizer]:
    """The whole step: count, choose, build."""
    characters = charsmap()
    full = build_tokenizer(file.pieces, file.scores, characters)
    texts = sample_texts(corpora, per_language=per_language, seed=seed)
    vocabulary = choose(file, usefulness(full, file.pieces, file.scores, texts), size)
    return vocabulary, build_tokenizer(vocabulary.pieces, vocabulary.scores, characters)
