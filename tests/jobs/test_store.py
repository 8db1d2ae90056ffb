"""jobs/store.py: the records that pass between the job, the search and the stores lose nothing on their way."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from fivefold.jobs.store import Origin, Rows, WordStore
from tests.jobs.corpus import MemoryStore

FLOATS = st.floats(width=32, allow_nan=False)
ORIGINS = st.builds(
    Origin,
    model=st.text(),
    task=st.none() | st.text(),
    dimensions=st.integers(1, 1024),
    precision=st.sampled_from(["float32", "int8", "ubinary"]),
    normalized=st.booleans(),
    probe=st.lists(FLOATS, max_size=8).map(tuple),
)


@given(ORIGINS)
def test_an_origin_is_the_same_after_json(origin: Origin) -> None:
    """Every bit of the probe is, since stores keep it so and the model is told by it."""
    assert Origin.from_dict(json.loads(json.dumps(origin.to_dict()))) == origin
    assert hash(Origin.from_dict(origin.to_dict())) == hash(origin)


@given(
    count=st.integers(0, 20),
    size=st.integers(1, 7),
    cuts=st.lists(st.integers(0, 20), max_size=3),
    dtype=st.sampled_from(["float32", "int8", "uint8"]),
    columns=st.booleans(),
)
def test_slices_hold_every_row_once_with_its_own_vector_and_columns(
    count: int, size: int, cuts: list[int], dtype: str, columns: bool
) -> None:
    """However the table is in pieces, and where it has no column at all."""
    ids = [f"d{i}" for i in range(count)]
    vectors = np.arange(2 * count).reshape(count, 2).astype(dtype)
    whole = pa.table({"id of": ids, "n": range(count)} if columns else {})
    places = [0, *sorted(min(cut, count) for cut in cuts), count]
    table = pa.concat_tables([whole.slice(a, b - a) for a, b in zip(places, places[1:], strict=False)])
    parts = list(Rows(ids, vectors, table).slices(size))
    assert [len(part.ids) for part in parts] == [size] * (count // size) + [count % size] * (count % size > 0)
    assert [name for part in parts for name in part.ids] == ids
    assert all(part.vectors.dtype == dtype and len(part.vectors) == len(part.ids) for part in parts)
    np.testing.assert_array_equal(np.concatenate([vectors[:0], *(part.vectors for part in parts)]), vectors)
    if columns:
        assert [row for part in parts for row in part.columns.to_pylist()] == whole.to_pylist()


def test_a_store_ranks_by_words_only_if_it_says_so() -> None:
    class Words(MemoryStore):
        def find_words(self, words: str, *, limit: int) -> list[object]:
            return []

    assert isinstance(Words(), WordStore) and not isinstance(MemoryStore(), WordStore)
