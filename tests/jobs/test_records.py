"""jobs/records.py: every row of every format once, by its number; what cannot be read is an error that names it."""

from __future__ import annotations

import csv
import datetime
import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fivefold.errors import InputError
from fivefold.jobs import records
from fivefold.jobs.records import Columns, Row, kind_of, parquet_schema, read, row_of, schema_of

TEXT = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('\n\r\t",\x00\x85\u2028\ufeff'), max_size=8)
CELLS = TEXT.filter(lambda cell: "\x00" not in cell)
BAD_UTF8 = pa.StringArray.from_buffers(3, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0\3\0\0\0"), pa.py_buffer(b"a\xffc"))


def found(kind: str, data: bytes) -> list[tuple[int, Any]]:
    return list(records.READERS[kind](io.BytesIO(data), "the file"))


def parquet(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def ipc(table: pa.Table, *, stream: bool = False, rows: int = 2) -> bytes:
    sink = io.BytesIO()
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)
    return sink.getvalue()


BINARY: dict[str, Callable[[pa.Table], tuple[str, bytes]]] = {
    "parquet": lambda table: ("parquet", parquet(table)),
    "stream": lambda table: ("arrow", ipc(table, stream=True)),
    "feather": lambda table: ("arrow", ipc(table)),
}
binary = pytest.mark.parametrize("form", BINARY)


@given(st.lists(st.binary(max_size=6).map(lambda line: line.replace(b"\n", b"")), min_size=1, max_size=6))
def test_lines_are_all_there_whatever_their_bytes(rows: list[bytes]) -> None:
    """What other programs take for the end of a line is text here, and one line that is no text leaves the others."""
    found_rows = found("lines", b"\n".join(rows) + b"\n")
    assert [number for number, _ in found_rows] == list(range(1, len(rows) + 1))
    for (number, row), line in zip(found_rows, rows, strict=True):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r")
        except UnicodeDecodeError as error:
            assert f"the file, row {number}: not UTF-8 at byte {error.start} of it; convert" in str(row)
        else:
            assert row == {"file": "the file", "line": number, "text": text}


@given(st.lists(st.dictionaries(TEXT, st.integers() | st.none() | TEXT, max_size=3), max_size=5), st.data())
def test_rows_of_json_keep_the_number_of_their_line(rows: list[dict[str, Any]], data: st.DataObject) -> None:
    lines: list[bytes] = []
    numbers = []
    for row in rows:
        lines += [b""] * data.draw(st.integers(0, 2)) + [b" \t"] * data.draw(st.integers(0, 1))
        lines.append(json.dumps(row, ensure_ascii=data.draw(st.booleans())).encode())
        numbers.append(len(lines))
    mark = data.draw(st.sampled_from([b"", b"\xef\xbb\xbf"])) if numbers[:1] == [1] else b""
    end = data.draw(st.sampled_from([b"\n", b"\r\n"]))
    assert found("jsonl", mark + end.join(lines)) == list(zip(numbers, rows, strict=True))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"[" * 10**5, "not valid JSON"),
        (b'{"n": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (b'{"text": "\xed\xa0\x80"}', "not UTF-8 at byte 10"),
        ('\ufeff{"text": "x"}'.encode(), "not valid JSON"),
        (b'{"text": "x"} {"text": "y"}', "not valid JSON"),
        (b"null", "must be a JSON object, got NoneType"),
        (b'"text"', "must be a JSON object, got str"),
    ],
    ids=lambda value: str(value)[:12],
)
def test_a_line_that_is_no_object_is_told_and_the_next_is_read(line: bytes, said: str) -> None:
    (_, first), (number, bad), (_, last) = found("jsonl", b'{"a": 1}\n' + line + b'\n{"a": 2}')
    assert (first, last) == ({"a": 1}, {"a": 2})
    assert number == 2 and isinstance(bad, InputError) and f"the file, row 2: {said}" in str(bad)


@given(
    st.lists(CELLS, min_size=1, max_size=3, unique=True),
    st.lists(st.lists(CELLS, min_size=3, max_size=3), max_size=4),
    st.sampled_from(["csv", "tsv"]),
    st.booleans(),
)
def test_tables_give_back_every_cell(names: list[str], rows: list[list[str]], kind: str, bom: bool) -> None:
    """With line ends, separators and quotes in them, under a header that may be as wild."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, delimiter="," if kind == "csv" else "\t", quoting=csv.QUOTE_ALL)
    writer.writerows([names, *(row[: len(names)] for row in rows)])
    data = stream.getvalue().encode("utf-8-sig" if bom or stream.getvalue().startswith("\ufeff") else "utf-8")
    assert found(kind, data) == [(n, dict(zip(names, row, strict=False))) for n, row in enumerate(rows, 1)]


def test_a_row_of_a_table_that_does_not_fit_its_header_leaves_the_others() -> None:
    rows = found("csv", b"id,text\n1,a\n\n2\n3,c,d\n4,d\n")
    assert [(number, row) for number, row in rows if isinstance(row, dict)] == [
        (1, {"id": "1", "text": "a"}),
        (4, {"id": "4", "text": "d"}),
    ]
    short, long = (str(row) for _, row in rows if isinstance(row, InputError))
    assert "row 2: no cell for 'text'; the row is too short" in short
    assert "row 3: more cells than the header has; quote cells that hold the separator" in long


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'id,text\n1,"a\nb"\n2,\xff\n3,c\n', "row 2 (line 4): not UTF-8 at byte 2 of it; convert the file"),
        (b"id,t\xe9xt\n1,a\n", "row 1 (line 1): not UTF-8 at byte 4"),
        (b'id,text\n\n1,a\n2,"b"c\n', "row 2 (line 4): ',' expected after '\"'"),
        (b'id,text\n0,x\n1,"a\n2,b\n3,c\n', "row 2 (line 3): unexpected end of data"),
    ],
    ids=["text", "header", "quotes", "end"],
)
def test_where_a_table_ends_early_is_told_by_row_and_by_line(data: bytes, said: str) -> None:
    """They are two things where a cell has lines or there are empty ones; people look for the line in an editor."""
    with pytest.raises(InputError, match=re.escape(f"the file, {said}")):
        found("csv", data)


def test_two_columns_of_one_name_are_refused_since_one_would_be_lost() -> None:
    twice = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], ["text", "text"])
    files = [
        ("csv", b"text,id,text\na,1,b\n"),
        ("tsv", b"text\ttext\na\tb\n"),
        *(make(twice) for make in BINARY.values()),
    ]
    for kind, data in files:
        with pytest.raises(
            InputError, match="the file: several columns are called 'text'; give each a name of its own"
        ):
            found(kind, data)
    assert found("csv", b"text,,\na,,\n") == [(1, {"text": "a", "": ""})]  # as spreadsheets write empty columns


@binary
@given(rows=st.integers(0, 7), at_a_time=st.integers(1, 4))
def test_rows_are_numbered_through_all_batches(form: str, rows: int, at_a_time: int) -> None:
    kind, data = BINARY[form](pa.table({"n": pa.array(range(rows), pa.int32())}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "ROWS_AT_A_TIME", at_a_time)
        assert found(kind, data) == [(n + 1, {"n": n}) for n in range(rows)]


@binary
def test_a_value_that_is_not_of_its_type_costs_its_own_row(form: str) -> None:
    """Columns of texts may hold any bytes, and dates may lie past the year 9999: other programs write both."""
    days = pa.array([1, 2, 3, 10**8], pa.date32())
    kind, data = BINARY[form](pa.table({"text": pa.concat_arrays([BAD_UTF8, pa.array(["d"])]), "day": days}))
    first, (two, bad), third, (four, late) = found(kind, data)
    assert first == (1, {"text": "a", "day": datetime.date(1970, 1, 2)})
    assert third == (3, {"text": "c", "day": datetime.date(1970, 1, 4)})
    for number, error in ((two, bad), (four, late)):
        assert isinstance(error, InputError)
        assert re.search(f"the file, row {number}: a value cannot be read .*fix or remove the row", str(error))
    assert (two, four) == (2, 4) and "0xff" in str(bad)


@binary
def test_a_file_cut_short_is_told_and_not_read_as_a_shorter_one(form: str) -> None:
    """At any place: no rest of a file that broke off passes for the whole."""
    table = pa.table({"text": [str(n) * 20 for n in range(9)]})
    kind, data = BINARY[form](table)
    end = len(data) - (8 if form == "stream" else 0)  # a stream may lack its end mark
    for size in range(0, end, 11):
        with pytest.raises(InputError, match=r"the file(: not a readable|, after row \d+: damaged) (Parquet|Arrow)"):
            found(kind, data[:size])


def test_damaged_pages_are_told_with_the_rows_before_them() -> None:
    data = bytearray(
        parquet(pa.table({"n": range(3000)}), row_group_size=1024, use_dictionary=False, compression="gzip")
    )
    start = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(1).column(0).data_page_offset
    data[start + 100 : start + 400] = bytes(300)
    seen = []
    with pytest.raises(InputError, match="the file, after row 1024: damaged Parquet data"):
        for number, row in records.READERS["parquet"](io.BytesIO(bytes(data)), "the file"):
            seen.append((number, row["n"]))  # type: ignore[index]
    assert seen == [(n + 1, n) for n in range(1024)]


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("lines", b"a\n"),
        ("jsonl", b'{"text": "a"}\n'),
        ("csv", b"text\na\n"),
        BINARY["parquet"](pa.table({"text": ["a"]})),
        BINARY["stream"](pa.table({"text": ["a"]})),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_standard_input_has_a_name_of_its_own_in_any_format(
    kind: str, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no file that can be read from its end, as Parquet wants."""

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def seek(self, *_: Any) -> int:
            raise io.UnsupportedOperation("a pipe")

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Pipe(data)))
    (row,) = records.rows(["-"], kind, Columns())
    assert (row.source, row.number, row.text, row.where) == ("standard input", 1, "a", "standard input, row 1")


def test_inputs_are_read_one_after_the_other_each_by_its_suffix(tmp_path: Path) -> None:
    """The column that is named is one of tables; texts and lines have theirs. The first bad row ends it."""
    files = {"a.TSV": "body\nx\n", "b.txt": "y\nz\n", "c.lines": "u\nv", "d.ndjson": '{"body": "w"}\n{"body": 1}\n'}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    given_rows = records.rows([str(tmp_path / name) for name in files], None, Columns(text="body"))
    found_rows = [next(given_rows) for _ in range(5)]
    assert [(Path(row.source).name, row.number, row.text) for row in found_rows] == [
        ("a.TSV", 1, "x"),
        ("b.txt", 1, "y\nz\n"),
        ("c.lines", 1, "u"),
        ("c.lines", 2, "v"),
        ("d.ndjson", 1, "w"),
    ]
    with pytest.raises(InputError, match=r"d\.ndjson, row 2: 'body' must be a text, got int; fill or remove the row"):
        next(given_rows)
    kinds = [kind_of(name) for name in ("-", "x", "x.feather", "x.arrow", "x.csv.md")]
    assert kinds == ["lines", "text", "arrow", "arrow", "text"]


@pytest.mark.parametrize(
    ("record", "columns", "said"),
    [
        ({}, Columns(), "there is no 'text'; it has no columns at all. Name the text with --field"),
        ({"a": 1, "b": 2}, Columns(), "there is no 'text'; it has 'a', 'b'. Name"),
        ({"text": None}, Columns(), "'text' must be a text, got NoneType; fill or remove the row"),
        ({"text": "x"}, Columns(task="t"), "there is no 't'; it has 'text'. See --task-field"),
        ({"text": "x", "t": 0}, Columns(task="t"), "'t' must be a task's name, got int"),
    ],
)
def test_what_a_row_lacks_is_told_with_the_option_that_helps(
    record: dict[str, Any], columns: Columns, said: str
) -> None:
    with pytest.raises(InputError, match=re.escape(f"f.csv, row 7: {said}")):
        row_of("f.csv", 7, record, columns)


@pytest.mark.parametrize("task", [None, ""])
def test_an_empty_task_is_none(task: str | None) -> None:
    """A cell of CSV cannot be anything else."""
    record = {"text": "", "t": task}
    assert row_of("f", 1, record, Columns(task="t")) == Row("f", 1, record, "", None)


def test_types_come_from_files_that_declare_them_and_from_no_other(tmp_path: Path) -> None:
    paths = {name: str(tmp_path / name) for name in ("a.parquet", "b.parquet", "c.parquet", "d.feather", "e.jsonl")}
    table = pa.table({"text": ["a"], "n": pa.array([1], pa.int8())})
    pq.write_table(table.replace_schema_metadata({"pandas": "{}"}), paths["a.parquet"])
    pq.write_table(table, paths["b.parquet"])
    pq.write_table(pa.table({"text": ["a"], "n": [1]}), paths["c.parquet"])
    Path(paths["d.feather"]).write_bytes(ipc(table))
    Path(paths["e.jsonl"]).write_text('{"text": "a", "n": 1}\n')
    assert schema_of(paths["d.feather"], "arrow") == schema_of(paths["a.parquet"], "parquet") == table.schema
    assert schema_of(paths["a.parquet"], "parquet").metadata is None  # type: ignore[union-attr]
    assert schema_of(paths["e.jsonl"], "jsonl") is None
    assert parquet_schema([paths["a.parquet"], paths["b.parquet"]], None) == table.schema
    assert parquet_schema([paths["a.parquet"], paths["e.jsonl"]], None) is None
    assert parquet_schema(["-"], "parquet") is None
    with pytest.raises(InputError, match="different columns or types; embed them one by one"):
        parquet_schema([paths["a.parquet"], paths["c.parquet"]], None)


@pytest.mark.parametrize("path", ["no/such.csv", ".", "a\x00b", "nosuch://x", "memory://no/such"])
def test_what_cannot_be_opened_is_told(path: str) -> None:
    with pytest.raises(InputError, match=f"cannot read {re.escape(path)}: ."):
        list(read(path, "lines"))
