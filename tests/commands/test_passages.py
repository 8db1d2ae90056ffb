"""commands/passages.py: every file once, and every passage of it with its place and its own vector."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fivefold.commands import passages
from fivefold.commands.passages import SCHEMA, Cutting, embedded, skipped_note, source_files
from fivefold.embedder import Embedder
from fivefold.errors import InputError
from fivefold.jobs.origin import origin_of
from fivefold.jobs.store import Rows
from tests import toy

LINES, LATE = Cutting(True, 16), Cutting(False, 16)


@pytest.fixture(scope="module")
def embedder() -> Iterator[Embedder]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # vectors of 32 dimensions are not worth several
    yield toy.embedder()
    torch.set_num_threads(before)


def read(data: str | bytes, embedder: Embedder, cutting: Cutting = LINES, **options: object) -> list[Rows]:
    origin = origin_of(embedder, **{"task": "separation", "truncate_dim": 8, "precision": "int8", **options})  # type: ignore[arg-type]
    return list(embedded("a.txt", data.encode() if isinstance(data, str) else data, embedder, cutting, origin))


WILD = st.lists(st.text(st.sampled_from("ab é日\t\r\x0b\x1c\x85\u2028\ufeff"), max_size=5), max_size=7)


@settings(max_examples=40)
@given(WILD, st.sampled_from(["\n", "\r\n"]), st.integers(1, 3))
def test_lines_are_those_of_an_editor_each_with_its_span_and_vector(
    embedder: Embedder, lines: list[str], end: str, at_a_time: int
) -> None:
    """What Python takes for the end of a line beside these two is none; blocks join without a seam."""
    text = end.join(lines)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passages, "BLOCK_LINES", at_a_time)
        blocks = read(text, embedder)
    kept = [kept for line in text.split("\n") if (kept := line.rstrip("\r")).strip()]
    rows = [row for block in blocks for row in block.columns.to_pylist()]
    assert [row["text"] for row in rows] == kept == [text[row["start"] : row["stop"]] for row in rows]
    starts = [row["start"] for row in rows]
    assert starts == sorted(set(starts)) and {row["document"] for row in rows} <= {"a.txt"}
    assert [name for block in blocks for name in block.ids] == [f"a.txt#{r['start']}-{r['stop']}" for r in rows]
    assert [len(block.ids) for block in blocks[:-1]] == [at_a_time] * (len(blocks) - 1)
    for block in blocks:
        texts = block.columns["text"].to_pylist()
        expected = embedder.encode(texts, task="separation", truncate_dim=8, precision="int8")
        np.testing.assert_array_equal(block.vectors, expected)


@pytest.mark.parametrize("data", ["", " \r\n\t\n", "\u3000"])
@pytest.mark.parametrize("cutting", [LINES, LATE])
def test_a_file_without_text_has_no_passage_and_is_no_error(data: str, cutting: Cutting, embedder: Embedder) -> None:
    assert read(data, embedder, cutting) == []


def test_late_passages_are_those_of_the_embedder_in_every_form(embedder: Embedder) -> None:
    text = " ".join(toy.TEXTS[:4])
    (rows,) = read(text, embedder, LATE)
    chunks = embedder.encode_chunks(text, chunk_tokens=16, task="separation", truncate_dim=8, precision="int8")
    np.testing.assert_array_equal(rows.vectors, chunks.vectors)
    assert rows.columns["text"].to_pylist() == chunks.texts and len(chunks.texts) > 3
    assert rows.vectors.dtype == np.int8 and rows.columns.schema == SCHEMA and len(set(rows.ids)) == len(rows.ids)


@given(st.lists(st.sampled_from([b"a", "é".encode(), b"", b"\xff", b"\xc3"]), min_size=1, max_size=6))
def test_bytes_that_are_no_text_are_told_by_their_line(embedder: Embedder, lines: list[bytes]) -> None:
    def bad(line: bytes) -> bool:
        try:
            line.decode()
        except UnicodeDecodeError:
            return True
        return False

    broken = [number for number, line in enumerate(lines, 1) if bad(line)]
    if not broken:
        return
    for cutting in (LINES, LATE):
        with pytest.raises(
            InputError, match=rf"^a\.txt, line {broken[0]}: not UTF-8; convert the file, or leave it out$"
        ):
            read(b"\n".join(lines), embedder, cutting)


def test_an_error_of_the_model_is_told_with_the_file(embedder: Embedder) -> None:
    origin = replace(origin_of(embedder, task=None), task="poetry")
    for cutting in (LINES, LATE):
        with pytest.raises(InputError, match=r"^a\.txt: unknown task 'poetry'"):
            list(embedded("a.txt", b"x", embedder, cutting, origin))


def test_files_are_read_once_each_however_they_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a path and another one, in a folder and beside it, by a link; under the first of these names."""
    monkeypatch.chdir(tmp_path)
    for name in (
        "b.txt",
        "sub/a.MD",
        "sub/deep/c.rst",
        "sub/picture.png",
        "sub/.git/d.txt",
        "sub/.hidden.txt",
        ".own/e.text",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "sub" / "link.txt").symlink_to(tmp_path / "b.txt")
    names = ["b.txt", "./b.txt", str(tmp_path / "b.txt"), "sub", str(tmp_path / "sub"), "sub/deep"]
    assert source_files(names) == ([Path("b.txt"), Path("sub/a.MD"), Path("sub/deep/c.rst")], 1)
    assert source_files([".own", "sub/.hidden.txt"]) == ([Path(".own/e.text"), Path("sub/.hidden.txt")], 0)
    assert source_files(["sub/picture.png", "sub/deep", "sub"])[0][0] == Path("sub/picture.png")
    assert source_files(["sub", "sub/picture.png"])[1] == 0  # it was asked for by name
    assert source_files([]) == ([], 0) and "1 files with other suffixes than .md, .rst" in skipped_note(1)


def test_names_that_are_no_files_are_told(tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_text("x")
    with pytest.raises(InputError, match=r"no text file in .* \(looked for \.md, \.rst, \.text, \.txt\)"):
        source_files([str(tmp_path)])
    with pytest.raises(InputError, match="cannot read .*nothing: there is no such file or folder"):
        source_files([str(tmp_path / "picture.png"), str(tmp_path / "nothing")])
    with pytest.raises(InputError, match="cannot read .*: Is a directory"):
        passages.read(tmp_path)


def test_ways_of_cutting_differ_in_what_they_differ() -> None:
    assert LINES.differences(Cutting(True, 16)) == []
    assert LINES.differences(Cutting(False, 8)) == [
        "lines: True in the index, False asked for",
        "chunk_tokens: 16 in the index, 8 asked for",
    ]
