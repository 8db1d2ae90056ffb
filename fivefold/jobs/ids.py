"""Ids that come twice, found over any number of rows: 8 bytes a row on disk, a bounded number of them in memory.

Two ids may have one hash, so what is found here are candidates; whoever has the ids at hand compares them.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np
import numpy.typing as npt

from fivefold.errors import JobError

HASH_BYTES = 8
HASHES_IN_MEMORY = 1 << 22


class Ids:
    """Hashes of ids in the order they came, in a file without a name.

    Raises:
        JobError: there is no room for it; from any method but `close`.
    """

    def __init__(self) -> None:
        with _room():
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the object
        self.count = 0

    def add(self, name: str) -> None:
        """The next id."""
        with _room():
            self._file.write(hashlib.blake2b(name.encode("utf-8"), digest_size=HASH_BYTES).digest())
        self.count += 1

    def repeated(self, at_once: int = HASHES_IN_MEMORY) -> set[int]:
        """Numbers of the rows, from 0, whose hash another row has too. Sorted in ranges of about `at_once` hashes."""
        if not self.count:
            return set()
        with _room():
            self._file.flush()
        hashes: npt.NDArray[np.uint64] = np.memmap(self._file, dtype=np.uint64, mode="r")
        ranges = 1 << max(0, (self.count - 1) // at_once).bit_length()
        found: set[int] = set()
        for part in range(ranges):
            found |= _repeated(hashes, part, ranges)
        return found

    def close(self) -> None:
        """Give the disk back."""
        with suppress(OSError):  # it tries once more to write what had no room
            self._file.close()


@contextmanager
def _room() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise JobError(
            f"the check for ids that come twice has no room for its temporary file, 8 bytes a row: {error.strerror or error}; "
            "make room, or name another folder in TMPDIR"
        ) from None


def _repeated(hashes: npt.NDArray[np.uint64], part: int, ranges: int) -> set[int]:
    """Rows whose hash comes twice among those of one range."""
    mine = []
    for start in range(0, len(hashes), HASHES_IN_MEMORY):
        piece = hashes[start : start + HASHES_IN_MEMORY]
        mine.append(start + np.flatnonzero(piece & np.uint64(ranges - 1) == part))
    rows = np.concatenate(mine)
    order = rows[np.argsort(hashes[rows], kind="stable")]
    equal = hashes[order[1:]] == hashes[order[:-1]]
    return set(order[1:][equal].tolist()) | set(order[:-1][equal].tolist())
