"""The pruned vocabulary: the most useful of XLM-R's own pieces, behind XLM-R's own normaliser.

Pieces keep their unigram scores, so a text whose best pieces were all kept is segmented exactly as the teacher does it.
Usefulness is the share of a piece in text of the tuned languages, mixed with the probability XLM-R itself gives the piece,
because the corpora speak of fewer things than the world does. Three kinds of text are counted: what training reads, all
aligned sentences, and the words of dictionaries, which reach further into the tail than running text. Every single character
of the tuned scripts is kept.
"""

from __future__ import annotations

import math
import random
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from fivefold.train.corpora import Corpora, read_sentences, read_words
from fivefold.train.teacher import TeacherFile

FloatArray = npt.NDArray[np.float64]

SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
MASK = "<mask>"
UNK_ID = 3
WORD = "▁"
JOINER = "\u200d"
"""Zero-width joiner: a space to XLM-R, while the map of today's sentencepiece keeps it."""
TUNED = dict(
    ar="ara", bn="ben", da="dan", de="deu", el="ell", en="eng", es="spa", fi="fin", fr="fra", hi="hin",
    id="ind", it="ita", ja="jpn", ka="kat", ko="kor", lv="lav", nb="nor", nl="nld", pl="pol", pt="por",
    ro="ron", ru="rus", sk="slk", sv="swe", th="tha", tr="tur", uk="ukr", ur="urd", vi="vie", zh="zho",
)  # fmt: skip
"""The 30 languages jina-embeddings-v3 is tuned for, with the three letters that dictionaries name them by."""
SCRIPTS = frozenset("LATIN CYRILLIC GREEK ARABIC DEVANAGARI BENGALI THAI GEORGIAN HANGUL HIRAGANA KATAKANA CJK".split())
"""First words of the Unicode names of the letters of the tuned languages."""
COUNT_EXPONENT = 0.75
"""Evens out the counts: below 1 lifts the tail, which small corpora count too low."""
PRIOR_SHARE = 0.3
"""Weight of XLM-R's own piece probabilities beside the counts."""
SCRIPT_EXPONENT = 0.65
"""Evens out how much of those probabilities each script has: below 1 lifts the small scripts."""

Texts = Mapping[str, Sequence[str]]
"""Language -> texts."""


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


def evidence(folder: Path, corpora: Corpora, *, per_language: int, seed: int) -> list[tuple[float, Texts]]:
    """What is counted, with weights: training text, all aligned sentences, and dictionary words, of the tuned languages."""
    long_codes = {long: short for short, long in TUNED.items()}
    sampled = partial(sample_texts, per_language=per_language, seed=seed)
    return [  # one kind after the other, since all at once are gigabytes
        (0.4, sampled(training_texts(corpora))),
        (0.4, sampled([_by_language(read_sentences(folder))])),
        (0.2, sampled([_by_language(read_words(folder), long_codes)])),
    ]


def sample_texts(sources: Iterable[Texts], *, per_language: int, seed: int) -> dict[str, list[str]]:
    """Up to `per_language` texts of every tuned language, drawn evenly from its sources."""
    by_language: dict[str, list[Sequence[str]]] = defaultdict(list)
    for source in sources:
        for lang, texts in source.items():
            by_language[lang].append(texts)
    rng = random.Random(seed)
    found = {}
    for lang in sorted(by_language.keys() & TUNED.keys()):
        share = per_language // len(by_language[lang])
        found[lang] = [t for texts in by_language[lang] for t in rng.sample(texts, min(share, len(texts)))]
    return found


def training_texts(corpora: Corpora) -> Iterable[Texts]:
    """The texts of every source that training reads."""
    for segments in corpora.segments.values():
        yield _by_language((lang, text) for s in segments for lang, text in s.texts.items())
    for pairs in corpora.pairs.values():
        yield _by_language((p.lang, text) for p in pairs for text in (p.query, p.passage))
    for labelled in corpora.labels.values():
        yield _by_language((row.lang, row.text) for row in labelled)


def _by_language(items: Iterable[tuple[str, str]], codes: Mapping[str, str] = MappingProxyType({})) -> Texts:
    """(language, text) -> texts by tuned language, each once, in order; `codes` renames languages, regions are dropped."""
    grouped: dict[str, dict[str, None]] = defaultdict(dict)
    for code, text in items:
        short = code.split("-")[0]
        lang = codes.get(short, short)
        if lang in TUNED:
            grouped[lang][text] = None
    return {lang: list(texts) for lang, texts in grouped.items()}


def usefulness(
    tokenizer: Tokenizer, pieces: list[str], scores: Iterable[float], counted: Sequence[tuple[float, Texts]]
) -> FloatArray:
    """A number for every piece: its share in text, evened out, mixed with XLM-R's probability; sums to 1."""
    shares = _shares(tokenizer, len(pieces), counted) ** COUNT_EXPONENT
    useful: FloatArray = (1 - PRIOR_SHARE) * shares / shares.sum() + PRIOR_SHARE * _prior(pieces, scores)
    return useful


def _shares(tokenizer: Tokenizer, size: int, counted: Sequence[tuple[float, Texts]]) -> FloatArray:
    """Share of every piece: a mean over languages, within each a weighted mean over the kinds of text that have it."""
    shares = np.zeros(size)
    languages = {lang for _, texts in counted for lang in texts}
    for lang in languages:
        kinds = [(weight, texts[lang]) for weight, texts in counted if texts.get(lang)]
        for weight, texts in kinds:
            counts = _counts(tokenizer, texts, size)
            shares += weight / sum(w for w, _ in kinds) * counts / max(1, counts.sum()) / len(languages)
    return shares


def _counts(tokenizer: Tokenizer, texts: Sequence[str], size: int) -> FloatArray:
    """How often each piece occurs."""
    counts = np.zeros(size)
    for start in range(0, len(texts), 5000):
        for encoding in tokenizer.encode_batch_fast(list(texts[start : start + 5000]), add_special_tokens=False):
            np.add.at(counts, encoding.ids, 1)
    return counts


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


def prune(file: TeacherFile, counted: Sequence[tuple[float, Texts]], *, size: int) -> tuple[Vocabulary, Tokenizer]:
    """The whole step: count, choose, build."""
    characters = charsmap()
    full = build_tokenizer(file.pieces, file.scores, characters)
    vocabulary = choose(file, usefulness(full, file.pieces, file.scores, counted), size)
    return vocabulary, build_tokenizer(vocabulary.pieces, vocabulary.scores, characters)
