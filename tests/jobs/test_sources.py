from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from fivefold.errors import InputError
from fivefold.jobs import sources
from fivefold.jobs.records import READERS, Row
from fivefold.jobs.sources import Entry, Fields
from tests.jobs.corpus import IDS, jsonl, rows

TABLE = pa.Table.from_pylist(rows(5))


def write_stream(table: pa.Table, path: Path) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)


def write_feather(table: pa.Table, path: Path) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)


WRITERS = {
    "a.parquet": lambda table, path: pq.write_table(table, path),
    "a.arrow": write_stream,
    "a.feather": write_feather,
    "a.csv": lambda table, path: pyarrow.csv.write_csv(table, path),
    "a.jsonl": lambda table, path: jsonl(path, table.to_pylist()),
}


def read(inputs: list[str], fields: Fields, kind: str | None = None) -> list[Entry]:
    files = sources.files(inputs, kind)
    for file in files:
        sources.check(file, fields)
    return [entry for file in files for entry in sources.entries(file, fields)]


def texts(entries: list[Entry]) -> list[str]:
    return [entry.found.text for entry in entries if isinstance(entry.found, Row)]


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_rows(name: str, tmp_path: Path) -> None:
    WRITERS[name](TABLE, tmp_path / name)
    found = read([str(tmp_path / name)], IDS)
    assert [entry.id for entry in found] == TABLE["id"].to_pylist()
    assert texts(found) == TABLE["text"].to_pylist()


def test_urls_are_read_like_paths(tmp_path: Path) -> None:
    with fsspec.open("memory://corpus/b.jsonl", "wt", encoding="utf-8") as stream:
        stream.write('{"text": "two"}\n')
    with fsspec.open("memory://corpus/a.txt", "wt", encoding="utf-8") as stream:
        stream.write("left out: there is a table")
    found = read(["memory://corpus"], Fields())
    assert [(entry.id, entry.found.text) for entry in found] == [("memory://corpus/b.jsonl:1", "two")]  # type: ignore[union-attr]


def test_a_folder_of_texts(tmp_path: Path) -> None:
    for name in ("b.md", "a.txt", ".hidden.txt", "picture.png", "sub/c.rst"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    assert [entry.id for entry in read([str(tmp_path)], Fields())] == [
        f"{tmp_path}/{n}" for n in ("a.txt", "b.md", "sub/c.rst")
    ]


def test_a_folder_that_datasets_saved(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    kept = datasets.Dataset.from_list(rows(5))
    kept.save_to_disk(str(tmp_path / "saved"))
    assert texts(read([str(tmp_path / "saved")], IDS)) == TABLE["text"].to_pylist()
    (tmp_path / "saved" / "state.json").write_text(json.dumps({"_indices_data_files": [{"filename": "indices.arrow"}]}))
    with pytest.raises(InputError, match="flatten_indices"):
        sources.files([str(tmp_path / "saved")], None)


@pytest.mark.parametrize(
    ("columns", "fields", "message"),
    [
        ({"body": ["x"]}, Fields(), "no column 'text'; it has 'body'.*--field"),
        ({"text": [1]}, Fields(), "column 'text' must hold texts, it holds int.*--field"),
        (
            {"text": ["x"], "id": [1.5]},
            IDS,
            "'id' must hold texts or whole numbers, it holds (float|double).*--id-field",
        ),
        ({"text": ["x"]}, Fields(task="task"), "no column 'task'.*--task-field"),
        ({"text": ["x"], "id": ["a"]}, Fields(), "'id' of its own; pass --id-field id"),
        ({"text": ["x"], "vector": [1.0]}, Fields(), "'vector' of its own; rename"),
        ({"text": ["x"], "start": [1]}, Fields(chunks=True), "'start' of its own"),
    ],
)
@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.jsonl"])
def test_columns_are_checked_before_work(
    name: str, columns: dict[str, list[Any]], fields: Fields, message: str, tmp_path: Path
) -> None:
    WRITERS[name](pa.table(columns), tmp_path / name)
    with pytest.raises(InputError, match=message):
        read([str(tmp_path / name)], fields)


@pytest.mark.parametrize(
    ("line", "name", "reason"),
    [
        ('{"id": "x", "text"', "a.jsonl:2", "not valid JSON"),
        ("[1]", "a.jsonl:2", "must be a JSON object"),
        ('{"id": "x", "text": null}', "x", "must be a text, got NoneType"),
        ('{"id": "x", "text": 5}', "x", "must be a text, got int"),
        ('{"id": "x"}', "x", "no 'text'"),
        ('{"text": "y"}', "a.jsonl:2", "the id 'id' must be a text or a whole number, got none"),
        ('{"id": true, "text": "y"}', "a.jsonl:2", "got bool"),
        ('{"id": "x", "text": "' + "y" * (sources.MAX_ROW_CHARACTERS + 1) + '"}', "x", "split it"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_bad_row_is_told_and_the_others_are_read(line: str, name: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": 1, "text": "good"}\n' + line + '\n{"id": 2, "text": "good"}\n')
    first, bad, last = read([str(tmp_path / "a.jsonl")], IDS)
    assert (first.id, last.id) == ("1", "2") and bad.id.endswith(name)
    assert isinstance(bad.found, InputError) and reason in str(bad.found)


def test_half_surrogates_in_ids_and_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"id": "\\ud800", "text": "x"}\n{"id": "b", "text": "\xff"}\n')
    first, second = read([str(tmp_path / "a.jsonl")], IDS)
    assert first.id == "\ufffd" and "not UTF-8" in str(second.found)


def test_inputs_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        sources.files([str(tmp_path / "nothing.jsonl")], None)
    with pytest.raises(InputError, match="nothing to read"):
        sources.files([str(tmp_path)], None)
    path = jsonl(tmp_path / "a.jsonl", rows(1))
    with pytest.raises(InputError, match="given twice"):
        sources.files([path, path], None)
    with pytest.raises(InputError, match="cannot read nosuch://x"):
        sources.files(["nosuch://x"], None)
    (tmp_path / "empty.parquet").touch()
    with pytest.raises(InputError, match="not a readable Parquet file"):
        read([str(tmp_path / "empty.parquet")], IDS)


def test_a_file_that_fails_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(stream: Any, path: str) -> Iterator[Any]:
        yield 1, {"id": "a", "text": "x"}
        raise OSError(5, "Input/output error")

    monkeypatch.setitem(READERS, "jsonl", failing)
    with pytest.raises(InputError, match="cannot read .*a.jsonl: Input/output error"):
        list(sources.entries(sources.File(jsonl(tmp_path / "a.jsonl", []), "jsonl"), IDS))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet"])
def test_a_row_of_100_mb_costs_its_neighbours_nothing(name: str, tmp_path: Path) -> None:
    table = pa.table({"id": ["a", "b", "c"], "text": ["x", "all human beings " * (100 * 2**20 // 17), "z"]})
    WRITERS[name](table, tmp_path / name)
    first, huge, last = read([str(tmp_path / name)], IDS)
    assert texts([first, last]) == ["x", "z"] and huge.id == "b"
    assert "row 2: 104,857,598 characters, more than the 4,194,304" in str(huge.found)
