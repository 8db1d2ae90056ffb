"""Columns as plain values and back: any type that is taken comes back the same."""

from __future__ import annotations

import datetime
import decimal
import json

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fivefold.errors import InputError
from fivefold.jobs.stores.columns import check_columns, from_plain, to_flat, to_plain

VALUES = {
    pa.int8(): st.integers(-128, 127),
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.uint64(): st.integers(0, 2**64 - 1),
    pa.float64(): st.floats(allow_nan=False, allow_infinity=False),
    pa.bool_(): st.booleans(),
    pa.string(): st.text(),
    pa.binary(): st.binary(),
    pa.date32(): st.dates(),
    pa.timestamp("us", tz="UTC"): st.datetimes(timezones=st.just(datetime.timezone.utc)),
    pa.timestamp("ms"): st.datetimes().map(lambda when: when.replace(microsecond=when.microsecond // 1000 * 1000)),
    pa.time64("us"): st.times(),
    pa.duration("us"): st.timedeltas(datetime.timedelta(-(10**8)), datetime.timedelta(10**8)),
    pa.decimal128(12, 3): st.decimals(-(10**8), 10**8, places=3),
    pa.list_(pa.string()): st.lists(st.none() | st.text()),
    pa.struct([("a", pa.int64()), ("b", pa.list_(pa.float64()))]): st.fixed_dictionaries(
        {"a": st.integers(-(2**63), 2**63 - 1), "b": st.lists(st.floats(allow_nan=False, allow_infinity=False))}
    ),
    pa.dictionary(pa.int32(), pa.string()): st.sampled_from(["x", "ü"]),
}


@pytest.mark.parametrize("kind", VALUES, ids=str)
@pytest.mark.parametrize("form", [to_plain, to_flat])
def test_values_come_back(form, kind: pa.DataType) -> None:
    @settings(max_examples=25)
    @given(st.lists(st.none() | VALUES[kind], min_size=1, max_size=5))
    def holds(values: list[object]) -> None:
        table = pa.table({"c": pa.array(values, kind)})
        check_columns(table.schema)
        plain = json.loads(json.dumps(form(table), allow_nan=False))
        found = [from_plain(record, table.schema)["c"] for record in plain]
        assert found == table["c"].to_pylist()

    holds()


def test_flat_records_have_no_null_list_or_mapping() -> None:
    table = pa.table({"n": [None, 1], "tags": [["a"], None], "text": ["x", None]})
    assert to_flat(table) == [{"tags": '["a"]', "text": "x"}, {"n": 1}]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ([("id", pa.string())], "'id' is the store's own"),
        ([("a", pa.int8()), ("a", pa.int8())], "'a' comes twice"),
        ([("m", pa.map_(pa.string(), pa.int8()))], "which this store cannot keep"),
        ([("l", pa.list_(pa.decimal128(3)))], "which this store cannot keep"),
    ],
)
def test_other_columns_are_refused(fields: list[tuple[str, pa.DataType]], said: str) -> None:
    with pytest.raises(InputError, match=said):
        check_columns(pa.schema(fields))


def test_a_decimal_is_exact() -> None:
    table = pa.table({"c": pa.array([decimal.Decimal("0.1")], pa.decimal128(20, 18))})
    assert from_plain(to_plain(table)[0], table.schema) == {"c": decimal.Decimal("0.100000000000000000")}
