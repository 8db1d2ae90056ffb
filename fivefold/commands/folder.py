"""A folder of embedded passages that follows files: a LanceDB store, and a list of the files that are in it.

    DIR/settings.json     how files are cut into passages; made last, never changed
    DIR/passages.lance    the store: `fivefold search --store lancedb:///DIR/passages` reads it too
    DIR/sources.lance     one row a file that is completely in: source, fingerprint

A file's passages are deleted, then added, then its row in `sources` is written, so a run that is killed leaves a file
that will simply be done again. Knows nothing of how passages are embedded.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import lancedb
import pyarrow as pa
from filelock import FileLock, Timeout

from fivefold.commands.passages import SCHEMA, Cutting
from fivefold.errors import InputError
from fivefold.jobs.origin import differences, prepare
from fivefold.jobs.store import Origin, Rows
from fivefold.jobs.stores.lance import LanceStore

FORMAT = 2
PARTS = ("passages.lance", "sources.lance", "settings.json")


class Index:
    """An open index. Make one with `Index.create` or `Index.open`."""

    def __init__(self, folder: Path, cutting: Cutting) -> None:
        self.folder = folder
        self.cutting = cutting
        self.store = LanceStore(str(folder), "passages")
        self._sources = lancedb.connect(folder).create_table("sources", schema=_SOURCES, exist_ok=True)

    @classmethod
    def create(cls, folder: Path, cutting: Cutting, origin: Origin) -> Index:
        """A new, empty index."""
        folder.mkdir(parents=True, exist_ok=True)
        made = cls(folder, cutting)
        prepare(made.store, origin, SCHEMA)
        settings = {"format": FORMAT, **asdict(cutting)}
        (folder / "settings.json").write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
        return made

    @classmethod
    def open(cls, folder: Path, cutting: Cutting, origin: Origin) -> Index:
        """An index that is there; refuses one made with other settings."""
        opened = cls(folder, read_cutting(folder))
        stored = opened.store.origin()
        if stored is None:
            raise _unreadable(folder)
        different = opened.cutting.differences(cutting) + differences(stored, origin)
        if different:
            raise InputError(
                f"the index {folder} does not fit ({'; '.join(different)}); ask with its settings, "
                "name another --index, or pass --rebuild to make it anew"
            )
        return opened

    def fingerprints(self) -> dict[str, str]:
        """Every source that is completely in, with its fingerprint."""
        columns = self._sources.to_arrow().to_pydict()
        return dict(zip(columns["source"], columns["fingerprint"], strict=True))

    def __len__(self) -> int:
        """Number of passages."""
        return self.store.count()

    def remove(self, source: str) -> None:
        """Take a source and its passages out."""
        self._sources.delete("source = '" + source.replace("'", "''") + "'")
        self.store.delete(source)

    def put(self, source: str, fingerprint: str, blocks: Iterator[Rows]) -> None:
        """Replace a source's passages by those of `blocks`."""
        self.remove(source)
        for rows in blocks:
            self.store.upsert(rows)
        self._sources.add(pa.table({"source": [source], "fingerprint": [fingerprint]}, _SOURCES))

    def tidy(self) -> None:
        """Merge the small pieces that updates leave."""
        self.store.close()
        self._sources.optimize()


def exists(folder: Path) -> bool:
    """Whether an index is in the folder."""
    return (folder / "settings.json").is_file()


def read_cutting(folder: Path) -> Cutting:
    """How the files of the index in the folder were cut."""
    try:
        settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
        if settings.pop("format") != FORMAT:
            raise _unreadable(folder)
        return Cutting(**settings)
    except FileNotFoundError:
        raise InputError(f"there is no index in {folder}; name files to make one from") from None
    except (ValueError, TypeError, KeyError, AttributeError):
        raise _unreadable(folder) from None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Only one process changes an index at a time; another is refused at once."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = FileLock(folder / ".lock", timeout=0).acquire()
    except Timeout:
        raise InputError(f"another fivefold is changing the index {folder}; wait until it is done") from None
    except OSError as error:
        raise InputError(
            f"cannot write an index to {folder}: {error.strerror or error}; name another --index"
        ) from None
    with held:
        yield


def _unreadable(folder: Path) -> InputError:
    return InputError(f"{folder} is not an index this fivefold can read; pass --rebuild to make it anew")


_SOURCES = pa.schema([("source", pa.string()), ("fingerprint", pa.string())])
