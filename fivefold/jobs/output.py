"""Parts as files: vectors beside their columns, written whole, read back for a store.

Shapes: S vectors, d dimensions.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fivefold.errors import JobError
from fivefold.jobs.folder import Finished, Folder
from fivefold.jobs.store import Rows
from fivefold.jobs.work import Embedded


def save(folder: Folder, done: Embedded) -> Finished:
    """Write a part; when this returns it counts."""
    folder.write(folder.part_file(done.part.index), encoded(done))
    finished = Finished(
        part=done.part.index,
        fingerprint=done.part.fingerprint,
        rows=done.part.rows,
        vectors=len(done.vectors),
        tokens=done.tokens,
        cut=done.cut,
        failed=done.failed,
    )
    folder.finish(finished)
    return finished


def encoded(done: Embedded) -> memoryview:
    """A part as a Parquet file: `id`, `vector`, and the other columns."""
    flat = pa.array(np.ascontiguousarray(done.vectors).reshape(-1))
    vectors = pa.FixedSizeListArray.from_arrays(flat, done.vectors.shape[1])
    sink = pa.BufferOutputStream()
    pq.write_table(done.table.add_column(1, "vector", vectors), sink)
    return memoryview(sink.getvalue())


def load(folder: Folder, part: int) -> Rows:
    """The rows of a part that `save` wrote."""
    data = folder.read(folder.part_file(part))
    if data is None:
        raise JobError(f"{folder.name}/{folder.part_file(part)} is gone, though it was finished; bring it back")
    table = pq.read_table(pa.BufferReader(data))
    column = table["vector"].combine_chunks()
    vectors = column.flatten().to_numpy(zero_copy_only=False).reshape(len(table), column.type.list_size)
    return Rows(table["id"].to_pylist(), vectors, table.drop_columns(["id", "vector"]))
