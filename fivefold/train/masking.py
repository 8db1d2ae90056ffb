"""Which tokens a masked language model has to guess: whole words, 15 % of them.

Of the chosen words' tokens 80 % are hidden, 10 % become any token, 10 % stay (Devlin et al. 2019, arXiv 1810.04805).
The library's collator with whole words knows only the first, and finds words by gaps, which many scripts do not have.

Shapes: B texts, L tokens of the longest.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

WORD = "▁"
IGNORED = -100
UNSPACED = frozenset("CJK HIRAGANA KATAKANA THAI LAO KHMER MYANMAR TIBETAN".split())
"""Scripts without spaces between words: each piece counts as one."""


def begins_word(piece: str) -> bool:
    """Whether a piece of a unigram vocabulary begins a word."""
    if piece.startswith(WORD) or not piece:
        return True
    return unicodedata.name(piece[0], "").split(" ")[0].split("-")[0] in UNSPACED


@dataclass(frozen=True)
class WholeWords:
    """A collator: texts -> `input_ids`, `attention_mask` and `labels`, [B, L] each."""

    rust: Tokenizer
    max_length: int
    pad_id: int
    share: float = 0.15
    mask: str = "<mask>"

    def __call__(self, rows: Sequence[dict[str, str]]) -> dict[str, Tensor]:
        """Draws from torch's generator, whose state a checkpoint keeps."""
        masked = [self._masked(row["text"]) for row in rows]
        ids = pad_sequence([ids for ids, _ in masked], batch_first=True, padding_value=self.pad_id)
        labels = pad_sequence([labels for _, labels in masked], batch_first=True, padding_value=IGNORED)
        ones = [torch.ones_like(ids) for ids, _ in masked]
        return {"input_ids": ids, "attention_mask": pad_sequence(ones, batch_first=True), "labels": labels}

    def _masked(self, text: str) -> tuple[Tensor, Tensor]:
        """Ids and labels of one text, [L] each; of two words or more at least one is to be guessed."""
        found = self.rust.encode(text)
        keep = min(len(found.ids), self.max_length)
        ids = torch.tensor([*found.ids[: keep - 1], found.ids[-1]])
        special = torch.tensor([*found.special_tokens_mask[: keep - 1], 1], dtype=torch.bool)
        starts = torch.tensor([begins_word(piece) for piece in (*found.tokens[: keep - 1], "")])
        words = (starts | special).cumsum(0) - 1  # the start token is word 0
        drawn = torch.rand(int(words[-1]) + 1)
        drawn[words[special]] = 2.0
        chosen = drawn[words] < self.share
        if not chosen.any():
            chosen = (words == int(drawn.argmin())) & ~special
        labels = ids.where(chosen, torch.tensor(IGNORED))
        fate = torch.rand(len(ids))
        hidden = self.rust.token_to_id(self.mask)
        ids = ids.where(~(chosen & (fate < 0.8)), torch.tensor(hidden))
        anything = torch.randint(self.rust.get_vocab_size(), (len(ids),))
        return ids.where(~(chosen & (fate >= 0.9)), anything), labels
