"""A resumed job is the uninterrupted job, wherever it was stopped, by whatever."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fivefold import Embedder
from fivefold.jobs.job import Here
from tests import toy
from tests.jobs.corpus import SMALL, Counting, assert_same, jsonl, rows, run, written

ROOT = Path(__file__).parents[2]
ARGV = [sys.executable, "-m", "fivefold", "batch", "--id-field", "id", "--part-rows", "4", "--json"]


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return toy.embedder()


@settings(max_examples=8)
@given(st.lists(st.integers(1, 4), max_size=5), st.integers(1, 30), st.integers(1, 7))
def test_stopped_anywhere_any_number_of_times(stops: list[int], count: int, part_rows: int) -> None:
    embedder = toy.embedder()
    chosen = replace(SMALL, part_rows=part_rows)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = jsonl(folder / "a.jsonl", rows(count))
        run(path, folder / "whole", embedder, settings=chosen)
        did: list[int] = []
        for stop in [*stops, 10**9]:
            engine = Counting(Here(embedder), stop)
            try:
                run(path, folder / "out", embedder, engine=engine, settings=chosen)
            except KeyboardInterrupt:
                pass
            did += engine.did
        assert sorted(did) == list(range(-(-count // part_rows)))
        assert_same(written(folder / "out"), written(folder / "whole"))


def test_killed_and_started_again(tiny_folder: Path, tmp_path: Path) -> None:
    chosen = random.Random(5)
    path = jsonl(tmp_path / "a.jsonl", rows(480))
    run(path, tmp_path / "whole", Embedder.load(tiny_folder))
    out, seen = tmp_path / "out", 0
    for _ in range(2):
        driver = subprocess.Popen([*ARGV, path, "--output", str(out), "--model", str(tiny_folder)], cwd=ROOT)
        seen = wait_for(out, seen + chosen.randint(3, 30), driver)
        driver.send_signal(signal.SIGKILL)
        assert driver.wait() == -signal.SIGKILL
    done = run(path, out, Embedder.load(tiny_folder))
    assert done.reused >= 4 * seen
    assert_same(written(out), written(tmp_path / "whole"))


def wait_for(out: Path, parts: int, driver: subprocess.Popen[bytes]) -> int:
    """Until so many parts are finished; how many are."""
    while (found := len(list((out / "_fivefold").glob("part-*.json")))) < parts and driver.poll() is None:
        time.sleep(0.005)
    return found


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
def test_a_file_that_may_not_grow_is_a_full_disk(embedder: Embedder, tiny_folder: Path, tmp_path: Path) -> None:
    chosen = random.Random(1)
    long = [{**row, "text": "".join(chosen.choices("abcdefghij ", k=5000))} for row in rows(8, 8)]
    path = jsonl(tmp_path / "a.jsonl", [*rows(8), *long])
    limited = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000));"
        "from fivefold.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    options = ["--output", str(tmp_path / "out"), "--model", str(tiny_folder), "--part-rows", "8"]
    argv = [sys.executable, "-c", limited, "batch", path, "--id-field", "id", *options]
    ended = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 2 and "cannot write" in ended.stderr and "File too large" in ended.stderr
    engine = Counting(Here(embedder))
    assert run(path, tmp_path / "out", embedder, engine=engine, settings=replace(SMALL, part_rows=8)).reused == 8
    assert engine.did == [1] and len(written(tmp_path / "out")) == 16
