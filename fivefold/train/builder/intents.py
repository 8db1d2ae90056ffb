"""Commands to a house by intent, written out from the templates of PyPI's home-assistant-intents.

A template is text with `(one|of)` alternatives, `[optional]` parts, `(in;any;order)`, `{slots}` of lists and `<rules>` of the
language. Slots that a user fills, such as names of rooms, are in no list: what needs them is passed over.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fivefold.train.builder.archives import members
from fivefold.train.builder.rows import Classed, Wanted, clean, language

OF_AN_INTENT = 60
"""Sentences of each intent and language at most; the classes would be as uneven as the templates otherwise."""
TRIES = 6
"""Draws from one template."""
DEPTH = 60
"""Rounds of writing out; a rule within itself never ends."""
LONGEST = 80
RULE, SLOT = re.compile(r"<([^<>]+)>"), re.compile(r"\{([^{}:]+)(?::[^{}]*)?\}")
GROUP = re.compile(r"\(([^()\[\]]*)\)|\[([^()\[\]]*)\]")
LEFT = re.compile(r"[<>{}()\[\]|]")

Grammar = Mapping[str, Any]


def read(paths: Sequence[Path], wanted: Wanted) -> Iterator[Classed]:
    """Texts of every intent in every language; which ones is drawn."""
    for member, file in members(paths[0], r".*/data/[^/]+\.json"):
        code = Path(member).stem
        if language(code) in wanted.languages:
            grammar = json.load(file)
            for intent in sorted(grammar["intents"]):
                rng = random.Random(f"{wanted.seed} {code} {intent}")
                for text in _sentences(grammar, intent, rng):
                    yield Classed("ha_intent", language(code), text, intent)


def _sentences(grammar: Grammar, intent: str, rng: random.Random) -> list[str]:
    """Different sentences, as many from each template as can be."""
    templates = [sentence for block in grammar["intents"][intent]["data"] for sentence in block["sentences"]]
    rng.shuffle(templates)
    found: dict[str, None] = {}
    for template in templates * TRIES:
        if len(found) == OF_AN_INTENT:
            break
        text = clean(written_out(template, grammar, rng))
        if text and len(text) <= LONGEST and not LEFT.search(text):
            found[text] = None
    return list(found)


def written_out(template: str, grammar: Grammar, rng: random.Random) -> str:
    """One sentence of a template, drawn; what cannot be written out is left in its brackets."""
    rules, lists = grammar["expansion_rules"], grammar["lists"]
    text = f"({template})"
    for _ in range(DEPTH):
        before = text
        text = RULE.sub(lambda m: f"({rules[m[1]]})" if m[1] in rules else m[0], text)
        text = GROUP.sub(lambda m: _drawn(m, rng), text)
        text = SLOT.sub(lambda m: _filled(m[0], lists.get(m[1], {}), rng), text)
        if text == before:
            break
    return text


def _drawn(group: re.Match[str], rng: random.Random) -> str:
    """One alternative of an innermost group, or nothing where it is optional."""
    if group[2] is not None and rng.random() < 0.5:
        return ""
    parts = rng.choice((group[1] if group[2] is None else group[2]).split("|")).split(";")
    rng.shuffle(parts)
    return " ".join(parts)


def _filled(slot: str, known: Mapping[str, Any], rng: random.Random) -> str:
    """A value of a slot's list, in brackets of its own since it may be a template; the slot itself where there is no list."""
    if values := known.get("values"):
        value = rng.choice(values)
        return f"({value['in'] if isinstance(value, dict) else value})"
    if limits := known.get("range"):
        return str(rng.randrange(limits["from"], limits["to"] + 1, limits.get("step", 1)))
    return slot
