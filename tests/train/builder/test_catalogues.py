from __future__ import annotations

import gettext
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fivefold.errors import JobError
from fivefold.train.builder import catalogues
from fivefold.train.builder.rows import Aligned, Wanted
from tests.train.builder import packages
from tests.train.builder.packages import catalogue, needs_dpkg

LEAVE = "Leave the town at once"


@needs_dpkg
def test_messages_are_aligned_over_packages_and_languages(tmp_path: Path) -> None:
    other = {
        "usr/lib/game/fr/LC_MESSAGES/a.mo": catalogue({LEAVE: "Quittez la ville tout de suite"}),
        "usr/lib/game/pt_BR/LC_MESSAGES/a.mo": catalogue({LEAVE: "Saia já da cidade"}),
        "usr/lib/game/de/LC_MESSAGES/a.mo": catalogue({LEAVE: "Geht sofort"}),
        "usr/lib/game/de/LC_MESSAGES/a.po": "no catalogue",
    }
    paths = [packages.program(tmp_path), packages.deb(tmp_path / "other_1_all.deb", other)]
    leave = {"de": "Die Stadt sofort verlassen", "en": LEAVE, "ja": "すぐに町を出る"}
    assert list(catalogues.read(paths, Wanted())) == [
        Aligned("mo", {"de": "%d der alten Dateien speichern", "en": "Save %d of the old files"}),
        Aligned("mo", {**leave, "fr": "Quittez la ville tout de suite", "pt": "Saia já da cidade"}),
    ]
    few = catalogues.read(paths[:1], Wanted(frozenset({"en", "ja"})))
    assert [dict(row.texts) for row in few] == [{"en": LEAVE, "ja": "すぐに町を出る"}]


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("Open the _file\n  that was closed", "Open the file that was closed"),
        ("Ctx menu\4Open &all of them", "Open all of them"),
        ("<p>Are you <b>quite</b> sure?</p><p>Yes &amp; no.</p>", "Are you quite sure? Yes & no."),
        ("Could not write %s to <filename>{name}</filename>", "Could not write %s to {name}"),
        ("~Use black and white", "Use black and white"),
        ("Black && white pictures here", ""),
        ("Well... but... why, oh why?!", "Well... but... why, oh why?!"),
        ("Two words", ""),
        ("%s %d of %s", ""),
        ("one file was lost\0many files were lost", ""),
        ("the variable file_name or other_name", ""),
        ("-a, --all  show all of them", ""),
        ("usage: this <file> of mine", ""),
        ("See https://example.org for more", ""),
        ("1, 2, 3, 4, 5 and so on (6)", ""),
        ("very " * 200, ""),
        ("a torn \ufffd letter in it", ""),
        ("Save it with %PRODUCTNAME as well", ""),
        ("Use 50%OF the coupons for all", "Use 50%OF the coupons for all"),
    ],
)
def test_english_messages(message: str, text: str) -> None:
    assert catalogues.sentence(message) == text


@pytest.mark.parametrize(
    ("english", "translation", "text"),
    [
        ("Save all the files", "Все файлы сохранить(&S)", "Все файлы сохранить"),
        ("Save files and backups", "Dateien und -kopien sichern", "Dateien und -kopien sichern"),
        ("Save all the files", "save all the Files", ""),
        ("Save all the files", "", ""),
        ("Save all the files", "!", ""),
        ("Save all the files", "***** ***** a", ""),
        ("Save all the files", "alles " * 20, ""),
        ("Save all %d files of %s", "%s: alle %d Dateien sichern", "%s: alle %d Dateien sichern"),
        ("Save all %d files of %s", "Alle %d Dateien sichern", ""),
        ("Save %(all)s of the files", "%(alle)s der Dateien sichern", ""),
        ("A 50% bonus for all files", "50%-Bonus für alle Dateien", "50%-Bonus für alle Dateien"),
    ],
)
def test_translations(english: str, translation: str, text: str) -> None:
    assert catalogues.translated(english, translation) == text


@pytest.mark.parametrize(("charset", "order"), [("utf-8", "<"), ("utf-8", ">"), ("EUC-JP", "<")])
def test_a_catalogue_is_read_as_gettext_reads_it(charset: str, order: str) -> None:
    messages = {"one": "一", "ctx\4two": "二", "three": ""}
    raw = catalogue(messages, charset, order)
    assert dict(catalogues.entries(Path("a.deb"), raw)) == messages
    assert gettext.GNUTranslations(io.BytesIO(raw)).gettext("one") == "一"


def test_a_catalogue_without_a_header_is_utf_8() -> None:
    raw = catalogue({"one": "一"}).replace(b"charset", b"unknown")
    assert list(catalogues.entries(Path("a.deb"), raw)) == [("one", "一")]


@pytest.mark.parametrize(
    "raw",
    [b"", b"not a catalogue, but long enough for one", catalogue({"a": "b"}, "ascii").replace(b"=ascii", b"=klang")],
)
def test_what_is_no_catalogue(raw: bytes) -> None:
    with pytest.raises(JobError, match=r"a\.deb cannot be read: .*delete it"):
        list(catalogues.entries(Path("a.deb"), raw))


@given(st.data())
def test_torn_catalogues(data: st.DataObject) -> None:
    whole = catalogue({"one": "eins", "two": "zwei"})
    place = data.draw(st.integers(0, len(whole) - 1))
    torn = whole[:place] + data.draw(st.binary(max_size=8)) + whole[data.draw(st.integers(place, len(whole))) :]
    try:
        found = list(catalogues.entries(Path("a.deb"), torn))
    except JobError:
        return
    assert all(isinstance(text, str) for entry in found for text in entry)
