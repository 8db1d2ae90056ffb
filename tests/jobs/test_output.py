"""jobs/output.py: a part comes back from its file as it went in, of every precision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from fivefold.errors import JobError
from fivefold.jobs.folder import Folder
from fivefold.jobs.output import load, save
from fivefold.jobs.plan import Part
from fivefold.jobs.work import Embedded

PART = Part(index=3, file=0, rows=5, characters=50, fingerprint="f", first="a", last="e")
COLUMNS = {"text": ["x", "", "ü", "\x00"], "n": [1, 2, None, 4], "tags": [["a"], [], None, ["b", "c"]]}


def embedded(dtype: str, dims: int = 8) -> Embedded:
    """Four vectors of five rows, one of which failed."""
    vectors = np.random.default_rng(0).integers(-128 if dtype == "int8" else 0, 127, (4, dims)).astype(dtype)
    table = pa.table({"id": ["a", "b", "c", "d"], **COLUMNS})
    return Embedded(PART, table, vectors, tokens=40, failed=[("e", "too long")], cut=2)


@pytest.mark.parametrize("dtype", ["float32", "int8", "uint8"])
@pytest.mark.parametrize("dims", [1, 8])
def test_a_part_is_read_as_it_was_written(dtype: str, dims: int, tmp_path: Path) -> None:
    folder, done = Folder(str(tmp_path)), embedded(dtype, dims)
    finished = save(folder, done)
    assert folder.finished() == {3: finished}
    assert (finished.rows, finished.vectors, finished.tokens, finished.cut) == (5, 4, 40, 2)
    assert finished.failed == [("e", "too long")] and not finished.stored
    rows = load(folder, 3)
    assert rows.ids == ["a", "b", "c", "d"] and rows.columns.to_pydict() == COLUMNS
    assert rows.vectors.dtype == dtype and np.array_equal(rows.vectors, done.vectors)


def test_a_part_without_a_vector(tmp_path: Path) -> None:
    """All of its rows failed."""
    folder, full = Folder(str(tmp_path)), embedded("float32")
    save(folder, Embedded(PART, full.table.slice(0, 0), full.vectors[:0], 0, [], 0))
    rows = load(folder, 3)
    assert rows.ids == [] and rows.vectors.shape == (0, 8)


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    save(folder, embedded("float32"))
    (tmp_path / "part-000003.parquet").unlink()
    with pytest.raises(JobError, match=r"part-000003\.parquet is gone"):
        load(folder, 3)
