"""Is a text in its language, or English still? As far as letters and the commonest English words tell."""

from __future__ import annotations

import re
from collections.abc import Mapping

SCRIPTS: Mapping[str, re.Pattern[str]] = {
    **dict.fromkeys(("bg", "ru", "uk"), re.compile("[\u0400-\u052f]")),
    **dict.fromkeys(("ar", "fa", "ur"), re.compile("[\u0600-\u06ff\u0750-\u077f]")),
    "bn": re.compile("[\u0980-\u09ff]"),
    "el": re.compile("[\u0370-\u03ff\u1f00-\u1fff]"),
    "he": re.compile("[\u0590-\u05ff]"),
    "hi": re.compile("[\u0900-\u097f]"),
    "ja": re.compile("[\u3040-\u30ff\u4e00-\u9fff]"),
    "ka": re.compile("[\u10a0-\u10ff]"),
    "ko": re.compile("[\uac00-\ud7a3]"),
    "th": re.compile("[\u0e00-\u0e7f]"),
    "zh": re.compile("[\u3400-\u9fff]"),
}
"""The letters of the languages that are not written in Latin ones."""
OWN = 0.2
"""Share of letters that are of the language's own at least; the others are names and code."""
LATIN = re.compile("[A-Za-z]")
FEWEST_LETTERS = 12
"""Latin ones; a name may be as it is."""

ENGLISH = frozenset("the and that with you this from which are".split())
WORD = re.compile(r"[^\W\d_]+")
MUCH, FEWEST_WORDS = 0.2, 8
"""Share of a text's words that are among the above, and how many words that takes."""
SHARED, FEWEST_SHARED = 0.7, 4
"""Share of a translation's words that are in the English text, and how many words that takes."""


def translated(lang: str, text: str, english: str = "") -> bool:
    """Whether a text is in `lang` rather than in English; `english` is what it is the translation of."""
    if lang == "en":
        return True
    if lang in SCRIPTS:
        foreign = len(LATIN.findall(text))
        if foreign >= FEWEST_LETTERS and len(SCRIPTS[lang].findall(text)) < OWN / (1 - OWN) * foreign:
            return False
    words = WORD.findall(text.lower())
    if len(words) >= FEWEST_WORDS and sum(word in ENGLISH for word in words) >= MUCH * len(words):
        return False
    if not english or len(words) < FEWEST_SHARED:
        return True
    known = frozenset(WORD.findall(english.lower()))
    return sum(word in known for word in words) < SHARED * len(words)
