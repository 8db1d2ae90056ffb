"""Packages from PyPI, npm and Debian, through their own clients, each fetched once.

Where the registries are is the clients' business. apt works in a state folder of its own beside the packages, with the
machine's sources: its lists, its cache and what is installed are not touched.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias
from urllib.parse import unquote

from fivefold.errors import JobError

SHOWN = 600
"""Characters of what a client said, from its end."""
APT = """\
Dir::State "{root}/state";
Dir::State::Lists "{root}/state/lists";
Dir::Cache "{root}/cache";
Dir::Cache::pkgcache "pkgcache.bin";
Dir::Cache::srcpkgcache "srcpkgcache.bin";
Acquire::GzipIndexes "false";
APT::Sandbox::User "root";
#clear Acquire::Languages;
Acquire::Languages {{ {languages} }};
"""


@dataclass(frozen=True, slots=True)
class Package:
    """A package of one of the registries: pypi, npm, debian; "debian-lists" are the lists of all Debian packages.

    Debian has one version of each, the one in the machine's release.
    """

    registry: str
    name: str
    version: str = ""


Fetch: TypeAlias = Callable[[Package], Path]
"""A package to its file, or to the folder of the lists."""


def version_of(package: Package, path: Path) -> str:
    """The version that was fetched."""
    return unquote(path.name.split("_")[1]) if path.suffix == ".deb" else package.version


class Registries:
    """Fetches into `cache`; what is there already is not fetched again."""

    def __init__(self, cache: Path, languages: Sequence[str]) -> None:
        self.cache = cache.absolute()
        self.languages = languages

    def __call__(self, package: Package) -> Path:
        """The file of a package.

        Raises:
            JobError: the client is not there, or found no such package, with what it said.
        """
        if package.registry == "debian-lists":
            return self._apt("apt-lists", self.languages) / "state" / "lists"
        folder = self.cache / package.registry / "-".join(filter(None, (package.name, package.version)))
        if not folder.is_dir():
            partial = folder.with_name(folder.name + ".partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            _run(CLIENTS[package.registry](self, package, partial), partial, package.name)
            partial.rename(folder)
        (file,) = folder.iterdir()
        return file

    def _pypi(self, package: Package, target: Path) -> list[str]:
        pinned = f"{package.name}=={package.version}"
        return ["pip", "download", "--no-deps", "--only-binary=:all:", "--dest", str(target), pinned]

    def _npm(self, package: Package, target: Path) -> list[str]:
        return ["npm", "pack", "--ignore-scripts", f"--pack-destination={target}", f"{package.name}@{package.version}"]

    def _debian(self, package: Package, _: Path) -> list[str]:
        return ["apt-get", "-c", str(self._apt("apt", ["none"]) / "apt.conf"), "download", package.name]

    def _apt(self, name: str, languages: Sequence[str]) -> Path:
        """A state folder, with the lists of all packages in it and their descriptions in `languages`."""
        root = self.cache / name
        if not (root / "updated").is_file():
            for part in ("state/lists/partial", "cache/archives/partial"):
                (root / part).mkdir(parents=True, exist_ok=True)
            quoted = " ".join(f'"{lang}";' for lang in languages)
            (root / "apt.conf").write_text(APT.format(root=root, languages=quoted), encoding="utf-8")
            _run(["apt-get", "-c", str(root / "apt.conf"), "update"], root, "the lists of Debian's packages")
            (root / "updated").touch()
        return root


CLIENTS: Mapping[str, Callable[[Registries, Package, Path], list[str]]] = {
    "pypi": Registries._pypi,
    "npm": Registries._npm,
    "debian": Registries._debian,
}


def _run(command: Sequence[str], folder: Path, what: str) -> None:
    client = command[0]
    if shutil.which(client) is None:
        raise JobError(
            f"{what} is fetched by {client}, which is not on this machine; install it, or leave its source out"
        )
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "LC_ALL": "C"}, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip())[-SHOWN:]
        raise JobError(
            f"{client} could not fetch {what}; see that it reaches its registry, then give the same command again:\n{said}"
        )
