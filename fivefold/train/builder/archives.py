"""Members of a package's archive, one after the other, so that no archive is ever in memory or unpacked as a whole."""

from __future__ import annotations

import re
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import copyfileobj, which
from typing import IO

from fivefold.errors import JobError


def members(path: Path, pattern: str) -> Iterator[tuple[str, IO[bytes]]]:
    """Name and open file of every member whose name is wholly as `pattern`: of a wheel, an npm package or a Debian package.

    A file is to be read before the next one is asked for.

    Raises:
        JobError: an archive that cannot be read, or one with no such member.
    """
    wanted, found = re.compile(pattern), False
    try:
        for name, file in _MEMBERS[path.suffix](path):
            if wanted.fullmatch(name):
                found = True
                yield name, file
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise unreadable(path, error) from None
    if not found:
        raise JobError(
            f"{path} holds nothing like {pattern}; the package has changed, name the version it was written for"
        )


def unreadable(path: Path, why: Exception) -> JobError:
    """The error for an archive that is torn, or a member of it."""
    return JobError(f"{path} cannot be read: {why}; delete it, so that it is fetched again")


@contextmanager
def on_disk(path: Path, pattern: str) -> Iterator[Path]:
    """The one member like `pattern` as a file, for as long as it is used."""
    with tempfile.NamedTemporaryFile() as target:
        for _, file in members(path, pattern):
            copyfileobj(file, target)
        target.flush()
        yield Path(target.name)


def _zipped(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if not info.is_dir():
                with archive.open(info) as file:
                    yield info.filename, file


def _tarred(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with tarfile.open(path, mode="r|gz") as archive:
        yield from _files(archive)


def _debian(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    if which("dpkg-deb") is None:
        raise JobError(
            f"{path} is a Debian package, and dpkg-deb, which reads them, is not on this machine; install dpkg"
        )
    with subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", path], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            yield from _files(archive)


def _files(archive: tarfile.TarFile) -> Iterator[tuple[str, IO[bytes]]]:
    for info in archive:
        file = archive.extractfile(info) if info.isfile() else None
        if file is not None:
            yield info.name.removeprefix("./"), file


_MEMBERS = {".whl": _zipped, ".tgz": _tarred, ".deb": _debian}
