"""commands/folder.py: an index holds the files it says it holds, after any failure and under any name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from fivefold.commands.folder import FORMAT, Index, exists, locked, read_cutting
from fivefold.commands.passages import SCHEMA, Cutting
from fivefold.errors import InputError
from fivefold.jobs.store import Origin, Rows

CUTTING = Cutting(False, 16)
ORIGIN = Origin("toy", "separation", 4, "float32", True, (0.5, 0.5, 0.5, 0.5))
NAMES = [
    "o'clock.txt",
    "''",
    "x' OR '1'='1",
    'say "hi".md',
    "back\\slash",
    "50%_.txt",
    "zwei\nZeilen",
    "日本.txt",
    "日本.tx",
]


def rows(source: str, count: int = 2) -> Rows:
    spans = [(10 * i, 10 * i + 5) for i in range(count)]
    columns = {
        "document": [source] * count,
        "start": [start for start, _ in spans],
        "stop": [stop for _, stop in spans],
        "text": [f"{source} {i}" for i in range(count)],
    }
    vectors = np.eye(4, dtype=np.float32)[:count]
    return Rows([f"{source}#{start}-{stop}" for start, stop in spans], vectors, pa.table(columns, SCHEMA))


def documents(index: Index) -> set[str]:
    return {str(hit.columns["document"]) for hit in index.store.search(np.ones(4, dtype=np.float32), limit=100)}


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return Index.create(tmp_path / "index", CUTTING, ORIGIN)


def test_a_file_is_put_replaced_and_taken_out_whatever_its_name(index: Index) -> None:
    for name in NAMES:
        index.put(name, f"of {name}", iter([rows(name)]))
    assert index.fingerprints() == {name: f"of {name}" for name in NAMES} and len(index) == 2 * len(NAMES)
    for number, name in enumerate(NAMES):
        index.put(name, "shorter", iter([rows(name, 1)]))
        assert index.fingerprints()[name] == "shorter" and len(index) == 2 * (len(NAMES) - number) - 1
        index.remove(name)
        assert list(index.fingerprints()) == NAMES[number + 1 :] and documents(index) == set(NAMES[number + 1 :])
        assert len(index) == 2 * (len(NAMES) - number - 1)
    index.tidy()
    assert len(index) == 0 and index.fingerprints() == {}


def test_a_file_that_fails_half_way_is_not_held_and_the_others_are(index: Index) -> None:
    def broken() -> Iterator[Rows]:
        yield rows("a.txt", 1)
        raise InputError("a.txt, line 7: not UTF-8")

    index.put("a.txt", "old", iter([rows("a.txt")]))
    index.put("b.txt", "b", iter([rows("b.txt")]))
    with pytest.raises(InputError, match="line 7"):
        index.put("a.txt", "new", broken())
    opened = Index.open(index.folder, CUTTING, ORIGIN)
    assert opened.fingerprints() == {"b.txt": "b"}
    opened.put("a.txt", "new", iter([rows("a.txt")]))
    assert len(opened) == 4 and documents(opened) == {"a.txt", "b.txt"}


def test_settings_are_written_last_so_that_an_index_without_them_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "write_text", full)
        Index.create(tmp_path, CUTTING, ORIGIN)
    assert not exists(tmp_path)
    Index.create(tmp_path, CUTTING, ORIGIN).put("a.txt", "a", iter([rows("a.txt")]))
    assert exists(tmp_path) and len(Index.open(tmp_path, CUTTING, ORIGIN)) == 2


def test_all_that_differs_is_told_with_the_ways_on(index: Index) -> None:
    other = replace(ORIGIN, task=None, dimensions=8)
    with pytest.raises(InputError) as refused:
        Index.open(index.folder, Cutting(True, 9), other)
    assert str(refused.value) == (
        f"the index {index.folder} does not fit (lines: False in the index, True asked for; chunk_tokens: 16 in the index, "
        "9 asked for; task: 'separation' in the index, None asked for; dimensions: 4 in the index, 8 asked for); ask with "
        "its settings, name another --index, or pass --rebuild to make it anew"
    )
    assert read_cutting(index.folder) == CUTTING


@pytest.mark.parametrize(
    "settings",
    [
        b"",
        b"\xff",
        b"[]",
        b"null",
        b'"text"',
        b"{}",
        json.dumps({"format": FORMAT - 1, "lines": False, "chunk_tokens": 16}).encode(),
        json.dumps({"format": FORMAT, "lines": False}).encode(),
        json.dumps({"format": FORMAT, "lines": False, "chunk_tokens": 16, "later": 1}).encode(),
    ],
)
def test_settings_of_another_program_or_version_are_no_index(settings: bytes, index: Index) -> None:
    (index.folder / "settings.json").write_bytes(settings)
    with pytest.raises(InputError, match="not an index this fivefold can read; pass --rebuild"):
        Index.open(index.folder, CUTTING, ORIGIN)


def test_settings_beside_a_store_that_is_gone_are_no_index(index: Index) -> None:
    for path in sorted((index.folder / "passages.lance").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (index.folder / "passages.lance").rmdir()
    with pytest.raises(InputError, match="not an index this fivefold can read; pass --rebuild"):
        Index.open(index.folder, CUTTING, ORIGIN)


def test_nothing_is_made_where_an_index_is_only_asked_for(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no index in .*; name files to make one from"):
        read_cutting(tmp_path / "none")
    assert list(tmp_path.iterdir()) == []


def test_an_index_is_changed_by_one_at_a_time_also_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a bad row"), locked(tmp_path / "new" / "index"):
        with (
            pytest.raises(InputError, match="another fivefold is changing the index"),
            locked(tmp_path / "new" / "index"),
        ):
            pass
        raise InputError("a bad row")
    with locked(tmp_path / "new" / "index"):
        pass


def test_a_place_where_no_index_can_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for place in ("notes.txt", "notes.txt/index"):
        with (
            pytest.raises(InputError, match="cannot write an index to .*: .*; name another --index"),
            locked(tmp_path / place),
        ):
            pass
    assert (tmp_path / "notes.txt").read_text() == "mine"
