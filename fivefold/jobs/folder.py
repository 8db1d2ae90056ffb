"""The folder of a job's output, here or at a URL: parts, and the manifest that says which of them count.

    DIR/part-000000.parquet            vectors and columns of one part
    DIR/_fivefold.json                what the vectors were made with, as a Parquet store keeps it
    DIR/_fivefold/job.json            what the job is: another job over the same folder is refused
    DIR/_fivefold/part-000000.json     this part is finished: its fingerprint, its numbers, the rows that failed
    DIR/_fivefold/attempt-000000.json this one is tried, see attempts.py
    DIR/_fivefold/errors.jsonl        all rows that failed, when the job ends

A file gets its name when it is whole and on disk, and a part counts when its manifest file is there. So a process may be killed
anywhere: a part is finished, or it is done again under the same name.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import fsspec
from filelock import FileLock, Timeout
from fsspec.implementations.local import LocalFileSystem

from fivefold.errors import InputError, JobError
from fivefold.jobs.plan import Part

JOB = "_fivefold/job.json"
CARD = "_fivefold.json"
ERRORS = "_fivefold/errors.jsonl"
MANIFEST = "_fivefold"
TORN = ".part"
"""Suffix of a file that is not whole."""


@dataclass(frozen=True, slots=True)
class Finished:
    """One line of the manifest: a part that is written, and later whether it is in the store."""

    part: int
    fingerprint: str
    rows: int
    vectors: int
    tokens: int
    cut: int
    stored: bool = False
    failed: list[tuple[str, str]] = field(default_factory=list)

    @classmethod
    def from_json(cls, data: bytes, where: str) -> Finished:
        """Inverse of `to_json`."""
        try:
            told = json.loads(data)
            return cls(**{**told, "failed": [(name, reason) for name, reason in told["failed"]]})
        except (ValueError, TypeError, KeyError):
            raise JobError(f"{where} cannot be read; delete it, and its part is done again") from None

    def to_json(self) -> bytes:
        """One line."""
        return json.dumps(asdict(self)).encode("ascii")


class Folder:
    """A folder by its path or URL."""

    def __init__(self, name: str) -> None:
        self.name = name
        try:
            self._system, self._root = fsspec.core.url_to_fs(name)
        except (ValueError, ImportError) as error:
            raise InputError(f"cannot write to {name}: {error}") from None
        self._local = isinstance(self._system, LocalFileSystem)

    def write(self, name: str, data: bytes | memoryview, *, durable: bool = True) -> None:
        """A file that is whole or not there; `durable` waits for the disk, so that it outlasts a power cut, too.

        Raises:
            JobError: it cannot be written; what was finished before stays.
        """
        path = f"{self._root}/{name}"
        try:
            if self._local:
                _replace(Path(path), data, durable)
            else:
                self._system.pipe_file(path, bytes(data))
        except OSError as error:
            raise JobError(
                f"cannot write {self.name}/{name}: {error.strerror or error}. Nothing that was finished is lost: start the job "
                "again when there is room"
            ) from None

    def read(self, name: str) -> bytes | None:
        """The file's bytes, None where there is none."""
        try:
            data: bytes = self._system.cat_file(f"{self._root}/{name}")
        except FileNotFoundError:
            return None
        return data

    def remove(self, name: str) -> None:
        """Take a file away, if it is there."""
        if self._system.exists(f"{self._root}/{name}"):
            self._system.rm_file(f"{self._root}/{name}")

    def is_empty(self) -> bool:
        """Whether there is nothing in it that is not hidden."""
        return not any(name != MANIFEST for name in self._names(""))

    def part_file(self, part: int) -> str:
        """The file of a part's vectors."""
        return f"{_name(part)}.parquet"

    def attempt_file(self, part: int) -> str:
        """The file that says that a part is tried."""
        return f"{MANIFEST}/attempt-{part:06d}.json"

    def finish(self, finished: Finished) -> None:
        """From now on the part counts."""
        self.write(_manifest(finished.part), finished.to_json())
        self.remove(self.attempt_file(finished.part))

    def forget(self, part: int) -> None:
        """The part does not count any more, then it goes."""
        self.remove(_manifest(part))
        self.remove(self.part_file(part))

    def finished(self) -> dict[int, Finished]:
        """Every part that counts."""
        found = {}
        for name in self._names(MANIFEST):
            if name.startswith("part-") and name.endswith(".json"):
                data = self.read(f"{MANIFEST}/{name}")
                line = Finished.from_json(data or b"", f"{self.name}/{MANIFEST}/{name}")
                found[line.part] = line
        return found

    def tidy(self) -> None:
        """Take away what a killed process left: half files, and files of parts that are in the store already."""
        sent = {self.part_file(index) for index, line in self.finished().items() if line.stored}
        for inside in ("", f"{MANIFEST}/"):
            for name in self._names(inside):
                if name.endswith(TORN) or (not inside and name in sent):
                    self.remove(inside + name)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One job at a time; another is refused. At a URL there is no lock."""
        if not self._local:
            yield
            return
        try:
            Path(self._root, MANIFEST).mkdir(parents=True, exist_ok=True)
            held = FileLock(Path(self._root, MANIFEST, ".lock")).acquire(timeout=0)
        except Timeout:
            raise InputError(f"another job is writing to {self.name}; wait until it is done") from None
        except OSError as error:
            raise InputError(f"cannot write to {self.name}: {error.strerror or error}") from None
        with held:  # outside of what is caught above: what fails in the job is not the folder's
            yield

    def _names(self, inside: str) -> list[str]:
        try:
            listed: list[Any] = self._system.ls(f"{self._root}/{inside}".rstrip("/"), detail=False)
        except FileNotFoundError:
            return []
        return [str(path).rstrip("/").rsplit("/", 1)[-1] for path in listed]


def stale(finished: dict[int, Finished], parts: tuple[Part, ...]) -> list[int]:
    """Finished parts whose rows are not those of the input any more."""
    now = {part.index: part.fingerprint for part in parts}
    return sorted(index for index, line in finished.items() if now.get(index) != line.fingerprint)


def _manifest(part: int) -> str:
    return f"{MANIFEST}/{_name(part)}.json"


def _name(part: int) -> str:
    return f"part-{part:06d}"


def _replace(path: Path, data: bytes | memoryview, durable: bool) -> None:
    """Write aside, wait for the disk, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}{TORN}")
    try:
        with open(aside, "wb") as stream:
            stream.write(data)
            stream.flush()
            if durable:
                os.fsync(stream.fileno())
        aside.replace(path)
        if durable:
            _sync_folder(path.parent)
    finally:
        aside.unlink(missing_ok=True)


def _sync_folder(path: Path) -> None:
    """The rename itself on disk, where the system has that."""
    if os.name == "posix":
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
