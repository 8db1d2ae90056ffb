"""commands/sinks.py: what is read back is what was written, in any blocks; what a format cannot hold is refused."""

from __future__ import annotations

import datetime
import decimal
import io
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fivefold.commands.sinks import SINKS, kind_of, opened
from fivefold.errors import InputError
from fivefold.jobs import records
from fivefold.jobs.records import Record
from fivefold.vectors import Array


def vectors(count: int, dims: int = 3, dtype: Any = np.float32) -> Array:
    return np.random.default_rng(count).normal(size=(count, dims), scale=40).astype(dtype)


def write(path: Path, *blocks: list[Record], kind: str | None = None, schema: pa.Schema | None = None) -> Path:
    with opened(str(path), kind_of(str(path), kind), "v", schema) as sink:
        for block in blocks:
            sink.write(block, vectors(len(block)))
    return path


def lines(path: Path) -> list[Record]:
    return [json.loads(line) for line in path.read_bytes().decode("utf-8").split("\n")[:-1]]


SIZES = st.lists(st.integers(0, 12), min_size=1, max_size=5)


@pytest.mark.parametrize("seekable", [True, False], ids=["file", "pipe"])
@given(sizes=SIZES, dims=st.integers(1, 5), dtype=st.sampled_from(["float32", "int8", "uint8"]))
def test_an_array_is_that_of_all_blocks_in_a_file_and_in_a_pipe(
    seekable: bool, sizes: list[int], dims: int, dtype: str
) -> None:
    stream = io.BytesIO()
    stream.seekable = lambda: seekable  # type: ignore[method-assign]
    blocks = [vectors(size, dims, dtype) for size in sizes]
    sink = SINKS["npy"](stream, "v", None)
    for block in blocks:
        sink.write([{}] * len(block), block)
    sink.close()
    stream.seek(0)
    found = np.load(stream)
    np.testing.assert_array_equal(found, np.concatenate(blocks))
    assert found.dtype == dtype and not stream.read()


def test_the_header_of_an_array_has_room_for_any_number_of_rows() -> None:
    """It is written before the number is known, and again over itself."""
    stream = io.BytesIO()
    sink = SINKS["npy"](stream, "v", None)
    sink.write([{}], vectors(1))
    sink.count = 10**15  # type: ignore[attr-defined]
    sink.close()
    stream.seek(0)
    assert np.lib.format.read_magic(stream) == (1, 0)
    assert np.lib.format.read_array_header_1_0(stream)[0] == (10**15, 3)
    assert stream.read() == vectors(1).tobytes()


def test_floats_in_json_are_the_same_float32_again() -> None:
    """Of any size; one digit less would do for most of them."""
    stream = io.BytesIO()
    bits = np.random.default_rng(0).integers(0, 2**32, 5000, dtype=np.uint32).view(np.float32)
    block = np.concatenate([[0.0, -0.0, 1e-45], bits[np.isfinite(bits)]]).astype(np.float32)[None]
    SINKS["jsonl"](stream, "v", None).write([{}], block)
    found = np.array([json.loads(stream.getvalue())["v"]], dtype=np.float32)
    assert found.tobytes() == block.tobytes()  # with the sign of zero
    assert len(stream.getvalue()) < 18 * block.size  # and not the 17 digits of a double


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
WILD = st.text(st.characters() | st.sampled_from('\ud800\udfff\u2028\x00\r\n"\\'), max_size=6)


@given(
    st.lists(st.dictionaries(st.text(max_size=4).filter(lambda name: name != "v"), JSON | WILD, max_size=3), max_size=4)
)
def test_columns_of_json_are_kept_and_our_own_reader_reads_them(rows: list[Record]) -> None:
    """Half surrogates as JavaScript makes them too: a file that is not UTF-8 would be no JSON."""
    stream = io.BytesIO()
    SINKS["jsonl"](stream, "v", None).write(rows, vectors(len(rows), 1))
    found = list(records.READERS["jsonl"](io.BytesIO(stream.getvalue()), "x"))
    assert [number for number, _ in found] == list(range(1, len(rows) + 1))
    assert [{k: v for k, v in row.items() if k != "v"} for _, row in found] == rows  # type: ignore[union-attr]


def test_values_of_parquet_have_a_form_in_json_or_are_refused(tmp_path: Path) -> None:
    values = {
        "day": datetime.date(2024, 2, 29),
        "at": [datetime.datetime(2024, 2, 29, 1, 2, 3, 4), datetime.time(23, 59)],
        "price": decimal.Decimal("12.340"),
        "took": {"all": datetime.timedelta(seconds=90)},
    }
    assert {k: v for k, v in lines(write(tmp_path / "a.jsonl", [values]))[0].items() if k != "v"} == {
        "day": "2024-02-29",
        "at": ["2024-02-29T01:02:03.000004", "23:59:00"],
        "price": "12.340",
        "took": {"all": "0:01:30"},
    }
    for value, said in ((b"\0", "JSON cannot hold a bytes"), (math.nan, "NaN"), ([-math.inf], "NaN or infinity")):
        with pytest.raises(InputError, match=f"{said}.*write Parquet instead, or drop that column"):
            write(tmp_path / "b.jsonl", [{"x": value}])
        assert [p.name for p in tmp_path.iterdir()] == ["a.jsonl"]
    assert repr(pq.read_table(write(tmp_path / "b.parquet", [{"x": math.nan}]))["x"].to_pylist()) == "[nan]"


def test_columns_that_later_rows_lack_are_empty_there(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [{"b": 1}, {"a": "x"}], [{"b": None}], [{"a": "y", "b": 2}, {}])
    table = pq.read_table(path)
    assert table.schema.names == ["b", "a", "v"] and table.schema.field("v").type.list_size == 3
    assert table["b"].to_pylist() == [1, None, None, 2, None] and table["a"].to_pylist() == [None, "x", None, "y", None]
    np.testing.assert_array_equal(table["v"].to_pylist(), np.concatenate([vectors(2), vectors(1), vectors(2)]))
    assert pq.ParquetFile(path).num_row_groups == 3


@pytest.mark.parametrize(
    ("first", "later"),
    [
        (1, 1.5),
        ([1], [1.5]),
        ({"a": 1}, {"a": 1, "b": 2}),
        ({"a": {"b": 1}}, {"a": {"b": 1, "c": None}, "d": 1}),
        ([{"a": 1}], [{"b": 1}]),
        (1, "one"),
        ("one", 1),
        (1, True),
        (1.5, 2**53 + 1),
        (None, 1),
        (1, 2**63),
        ("x", "\ud800"),
    ],
    ids=repr,
)
def test_what_later_rows_hold_is_never_cut_to_fit_the_first(first: object, later: object, tmp_path: Path) -> None:
    """Whole numbers, objects and texts are what the first block says they are: with more in them, a later one is refused."""
    with pytest.raises(InputError, match="write JSONL instead"):
        write(tmp_path / "a.parquet", [{"x": first}], [{"x": later}])
    assert list(tmp_path.iterdir()) == []
    assert [row["x"] for row in lines(write(tmp_path / "a.jsonl", [{"x": first}], [{"x": later}]))] == [first, later]


@pytest.mark.parametrize(
    ("first", "later"),
    [(1.5, 2), ({"a": 1, "b": 2}, {"b": 3}), ([1], []), ([{"a": 1}], None), ({"a": [1]}, {"a": None}), ("x", None)],
    ids=repr,
)
def test_less_than_the_first_rows_held_fits(first: object, later: object, tmp_path: Path) -> None:
    found = pq.read_table(write(tmp_path / "a.parquet", [{"x": first}], [{"x": later}]))["x"].to_pylist()
    whole = {"a": None, **later} if isinstance(later, dict) else later
    assert found == [first, whole]


@pytest.mark.parametrize("value", [{}, [{}], "\ud800", 2**64, {"a": [1, "x"]}], ids=repr)
def test_what_no_parquet_file_holds_is_refused_with_the_way_out(value: object, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="write JSONL instead"):
        write(tmp_path / "a.parquet", [{"x": value}])
    assert lines(write(tmp_path / "a.jsonl", [{"x": value}]))[0]["x"] == value


def test_types_that_the_input_declared_are_kept_by_every_block(tmp_path: Path) -> None:
    """Also where the values alone would say another type, as whole numbers in a column of fractions do."""
    schema = pa.schema(
        [("n", pa.int16()), ("x", pa.float32()), ("d", pa.decimal128(9, 4)), ("m", pa.map_(pa.string(), pa.int8()))]
    )
    rows = [{"n": 1, "x": 2, "d": None, "m": [("k", 1)]}, {"n": None, "x": 0.5, "d": decimal.Decimal("1.5"), "m": []}]
    table = pq.read_table(write(tmp_path / "a.parquet", rows[:1], rows[1:], schema=schema))
    assert table.schema.remove(4) == schema and table.drop_columns(["v"]).to_pylist() == rows


@pytest.mark.parametrize("name", ["a.npy", "a.jsonl", "a.parquet"])
def test_a_run_that_fails_leaves_the_old_file_and_no_other(name: str, tmp_path: Path) -> None:
    """After the first block, before it, and where the process is interrupted."""
    old = write(tmp_path / name, [{"a": 1}]).read_bytes()
    for blocks in ((), ([{"a": 2}],)):
        for error in (InputError("a later row"), KeyboardInterrupt()):
            with pytest.raises(type(error)), opened(str(tmp_path / name), kind_of(name, None), "v", None) as sink:
                for block in blocks:
                    sink.write(block, vectors(1))
                raise error
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {name: old}


@pytest.mark.parametrize("where", ["no/such/a.npy", "."])
def test_places_that_cannot_be_written_are_told(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.npy").mkdir()
    with pytest.raises(InputError, match=r"cannot write .*a\.npy: (No such file|Is a directory)"):
        write(Path(where) if where.endswith("npy") else tmp_path / "a.npy", [{}])
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]


@pytest.mark.parametrize(
    ("path", "wanted", "kind"),
    [
        ("a.NPY", None, "npy"),
        ("a.npy.ndjson", None, "jsonl"),
        ("a.parquet", "jsonl", "jsonl"),
        ("-", None, "jsonl"),
        ("-", "npy", "npy"),
    ],
)
def test_a_format_is_the_one_asked_for_or_that_of_the_suffix(path: str, wanted: str | None, kind: str) -> None:
    assert kind_of(path, wanted) == kind


@pytest.mark.parametrize("path", ["a", "a.csv", ".npy", "npy"])
def test_a_suffix_that_tells_no_format_is_told(path: str) -> None:
    with pytest.raises(InputError, match=r"cannot tell the format of .*; name it \.npy, \.jsonl or \.parquet, or pass"):
        kind_of(path, None)


def test_binary_is_kept_from_a_terminal_and_not_from_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    class Screen(io.TextIOWrapper):
        def isatty(self) -> bool:
            return True

    for kind in ("npy", "parquet"):
        monkeypatch.setattr(sys, "stdout", Screen(io.BytesIO()))
        with pytest.raises(InputError, match="garble your terminal; pass --output FILE"), opened("-", kind, "v", None):
            pass
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO()))
        with opened("-", kind, "v", None) as sink:
            sink.write([{"a": 1}], vectors(1))
        data = sys.stdout.buffer.getvalue()  # type: ignore[attr-defined]
        found = np.load(io.BytesIO(data)) if kind == "npy" else pq.read_table(io.BytesIO(data))["v"].to_pylist()
        np.testing.assert_array_equal(found, vectors(1))
