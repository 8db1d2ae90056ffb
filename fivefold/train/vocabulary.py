"""The vocabulary: all of XLM-R's own pieces, behind XLM-R's own normaliser, so that texts are cut as the teacher cuts them."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from fivefold.train.teacher import TeacherFile

SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
MASK = "<mask>"
UNK_ID = 3
JOINER = "\u200d"
"""Zero-width joiner: a space to XLM-R, while the map of today's sentencepiece keeps it."""


def tokenizer_of(file: TeacherFile) -> Tokenizer:
    """The teacher's pieces with their scores, as a tokenizer."""
    return build_tokenizer(file.pieces, (round(float(score), 5) for score in file.scores), charsmap())


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
