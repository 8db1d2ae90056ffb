"""The clients are scripts here: what they are asked for, what they leave, what is said when they fail."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path

import pytest

from fivefold.errors import JobError
from fivefold.train.builder.fetching import Package, Registries, version_of

PIP = 'echo "$@" >> "$LOG"; while [ "$1" != --dest ]; do shift; done; echo wheel > "$2/toy-1.whl"'
NPM = (
    'echo "$@" >> "$LOG"; for a in "$@"; do case $a in --pack-destination=*) echo t > "${a#*=}/toy-1.tgz";; esac; done'
)
APT = """echo "$@" >> "$LOG"
case "$3" in
  update) mkdir -p state/lists; echo list > state/lists/host_Translation-de;;
  download) echo deb > "$4_4%3a7.4-1_all.deb";;
esac"""


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, body in (("pip", PIP), ("npm", NPM), ("apt-get", APT)):
        script(folder / name, body)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    return tmp_path / "log"


def script(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\nset -e\n{body}\n")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("package", "asked", "version"),
    [
        (Package("pypi", "toy", "1"), "download --no-deps --only-binary=:all: --dest * toy==1", "1"),
        (Package("npm", "toy", "1"), "pack --ignore-scripts --pack-destination=* toy@1", "1"),
        (Package("debian", "toy"), "-c *apt.conf download toy", "4:7.4-1"),
    ],
)
def test_a_package_is_fetched_once(log: Path, tmp_path: Path, package: Package, asked: str, version: str) -> None:
    registries = Registries(tmp_path / "cache", ("en", "de"))
    path = registries(package)
    assert path.is_file() and version_of(package, path) == version
    assert fnmatch(log.read_text().splitlines()[-1], asked)
    before = log.read_text()
    assert registries(package) == Registries(tmp_path / "cache", ())(package) == path
    assert log.read_text() == before


def test_apt_has_a_state_of_its_own(log: Path, tmp_path: Path) -> None:
    registries = Registries(tmp_path / "cache", ("en", "de"))
    lists = registries(Package("debian-lists", "Translation"))
    registries(Package("debian", "toy"))
    assert [path.name for path in lists.iterdir() if path.is_file()] == ["host_Translation-de"]
    for name, languages in (("apt", '"none";'), ("apt-lists", '"en"; "de";')):
        root = tmp_path / "cache" / name
        config = (root / "apt.conf").read_text()
        assert f"Acquire::Languages {{ {languages} }};" in config
        for folder in ("State", "State::Lists", "Cache"):
            assert f'Dir::{folder} "{root}/' in config
    assert log.read_text().count("update") == 2


def test_what_the_client_said_is_told(log: Path, tmp_path: Path) -> None:
    script(tmp_path / "bin" / "pip", 'echo "no such version" >&2; exit 1')
    registries = Registries(tmp_path / "cache", ())
    with pytest.raises(JobError, match=r"pip could not fetch toy; [\s\S]*no such version"):
        registries(Package("pypi", "toy", "9"))
    script(tmp_path / "bin" / "pip", PIP)
    assert registries(Package("pypi", "toy", "9")).is_file()  # nothing of the failure is left


def test_a_client_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(JobError, match="toy is fetched by npm, which is not on this machine"):
        Registries(tmp_path / "cache", ())(Package("npm", "toy", "1"))
