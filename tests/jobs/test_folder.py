"""jobs/folder.py: files that are whole or not there, at a path and at a URL; what counts and what is tidied away."""

from __future__ import annotations

from pathlib import Path

import pytest

from fivefold.errors import InputError, JobError
from fivefold.jobs import folder as module
from fivefold.jobs.folder import Finished, Folder, stale
from fivefold.jobs.plan import Part


@pytest.fixture(params=["path", "url"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    return Folder(str(tmp_path / "out") if request.param == "path" else f"memory://{tmp_path.name}")


def line(part: int, fingerprint: str = "f", *, stored: bool = False) -> Finished:
    return Finished(part, fingerprint, rows=2, vectors=1, tokens=9, cut=0, stored=stored, failed=[("é", "why")])


def test_a_part_counts_from_finish_to_forget(folder: Folder) -> None:
    assert folder.is_empty() and folder.finished() == {}
    folder.write(folder.part_file(7), b"vectors")
    folder.write(folder.attempt_file(7), b"{}")
    assert folder.finished() == {} and not folder.is_empty()
    folder.finish(line(7))
    assert folder.finished() == {7: line(7)} and folder.read(folder.attempt_file(7)) is None
    folder.forget(7)
    folder.forget(7)  # there is nothing left, and no error
    assert folder.finished() == {} and folder.read(folder.part_file(7)) is None


def test_tidying_takes_what_a_killed_process_left(folder: Folder) -> None:
    """Half files, and vectors that the store has; nothing else."""
    for part, stored in ((0, False), (1, True)):
        folder.write(folder.part_file(part), b"vectors")
        folder.finish(line(part, stored=stored))
    folder.write(".part-000002.parquet.0a1b2c3d.part", b"half")
    folder.write("_fivefold/.part-000002.json.0a1b2c3d.part", b"{")
    folder.write("notes.txt", b"the user's own")
    folder.tidy()
    assert folder.finished().keys() == {0, 1}
    assert folder.read(folder.part_file(0)) == b"vectors" and folder.read(folder.part_file(1)) is None
    assert folder.read("notes.txt") and folder.read(".part-000002.parquet.0a1b2c3d.part") is None
    assert folder.read("_fivefold/.part-000002.json.0a1b2c3d.part") is None


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"part": 0}', b'{"part": 0, "other": 1, "failed": []}', b"\xff"])
def test_a_manifest_that_cannot_be_read_is_named(data: bytes, folder: Folder) -> None:
    folder.write("_fivefold/part-000004.json", data)
    with pytest.raises(JobError, match=r"part-000004\.json cannot be read; delete it"):
        folder.finished()


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder(str(tmp_path))
    folder.write("card.json", b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "fsync", full)
    with pytest.raises(JobError, match=r"card\.json: No space left on device\. Nothing that was finished is lost"):
        folder.write("card.json", b"new")
    assert folder.read("card.json") == b"old" and [path.name for path in tmp_path.iterdir()] == ["card.json"]


def test_only_one_holds_the_lock_and_it_is_given_back(tmp_path: Path) -> None:
    with Folder(str(tmp_path)).locked(), pytest.raises(InputError, match="another job is writing"):
        with Folder(str(tmp_path)).locked():
            pass
    with Folder(str(tmp_path)).locked():
        pass


def test_places_that_nobody_can_write_to_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot write to nothing://here"):
        Folder("nothing://here")
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(InputError, match="cannot write to"), Folder(str(tmp_path / "file")).locked():
        pass


def test_parts_of_other_rows_are_stale() -> None:
    """Changed, and those beyond the end of an input that got shorter."""
    parts = tuple(Part(i, 0, 2, 9, fingerprint, "a", "b") for i, fingerprint in enumerate("fgf"))
    assert stale({i: line(i) for i in (0, 1, 2, 5)}, parts) == [1, 5]
