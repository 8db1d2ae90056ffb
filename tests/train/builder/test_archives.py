from __future__ import annotations

from pathlib import Path

import pytest

from fivefold.errors import JobError
from fivefold.train.builder import archives
from tests.train.builder import packages

FILES = {"data/a.txt": "a", "data/b.txt": "b" * 100_000, "data/c.bin": "c"}


def made(folder: Path, kind: str) -> Path:
    return getattr(packages, kind)(folder / f"toy{ {'wheel': '.whl', 'npm': '.tgz', 'deb': '.deb'}[kind] }", FILES)


@pytest.mark.parametrize("kind", ["wheel", "npm", pytest.param("deb", marks=packages.needs_dpkg)])
def test_members_come_one_by_one(tmp_path: Path, kind: str) -> None:
    path = made(tmp_path, kind)
    found = {Path(name).name: file.read() for name, file in archives.members(path, r"(package/)?data/[ab]\.txt")}
    assert found == {"a.txt": b"a", "b.txt": b"b" * 100_000}
    with archives.on_disk(path, ".*/b.txt") as file:
        assert file.read_text() == "b" * 100_000
    assert not file.exists()
    with pytest.raises(JobError, match="holds nothing like"):
        list(archives.members(path, "absent"))


@pytest.mark.parametrize("suffix", [".whl", ".tgz", pytest.param(".deb", marks=packages.needs_dpkg)])
def test_a_broken_archive_is_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(b"not an archive")
    with pytest.raises(JobError, match=r"broken.* delete it, so that it is fetched again"):
        list(archives.members(path, ".*"))


@packages.needs_dpkg
def test_half_a_package_is_an_error(tmp_path: Path) -> None:
    path = made(tmp_path, "deb")
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(JobError, match="delete it"):
        list(archives.members(path, ".*txt"))


def test_without_dpkg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(JobError, match="install dpkg"):
        list(archives.members(tmp_path / "a.deb", ".*"))
