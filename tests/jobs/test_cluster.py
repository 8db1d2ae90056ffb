"""The job on Ray: the same output, with a worker killed, and after the driver was."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from fivefold import Embedder
from fivefold.fleet import Fleet
from tests.jobs.corpus import SMALL, assert_same, jsonl, rows, run, written

ray = pytest.importorskip("ray", reason="needs the extra ray")
psutil = pytest.importorskip("psutil")
ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow

from fivefold.jobs.cluster import (  # noqa: E402
    _block,
    _block_message,
    _prepared,
    _prepared_message,
    started,
)
from fivefold.jobs.plan import make_plan, read_shard  # noqa: E402
from fivefold.jobs.sources import Fields, files  # noqa: E402
from fivefold.jobs.work import prepare  # noqa: E402


class Driver:
    """`fivefold batch` as a process of its own, and how far it is."""

    def __init__(self, corpus: str, output: Path, model: Path, *options: str) -> None:
        argv = [sys.executable, "-m", "fivefold", "batch", corpus, "--id-field", "id", "--output", str(output)]
        argv += ["--model", str(model), "--part-rows", "8", "--json", *options]
        self.output = output
        self.popen = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT, text=True)

    def finished(self) -> set[int]:
        return {int(path.stem.split("-")[1]) for path in (self.output / "_fivefold").glob("part-*.json")}

    def wait_for(self, parts: int) -> None:
        while len(self.finished()) < parts and self.popen.poll() is None:
            time.sleep(0.01)

    def workers(self) -> list[psutil.Process]:
        inside = psutil.Process(self.popen.pid).children(recursive=True)
        return [process for process in inside if "_Embed" in " ".join(process.cmdline())]

    def end(self) -> dict[str, int]:
        out = self.popen.communicate(timeout=300)[0]
        assert self.popen.returncode == 0, out
        told: dict[str, int] = json.loads(out)
        return told


def test_rows_survive_the_way_between_stages(tiny_folder: Path, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", [*rows(5), {"id": "bad"}])
    embedder = Embedder.load(tiny_folder)
    for settings, fields in ((SMALL, Fields(id="id")), (replace(SMALL, chunk_tokens=4), Fields(id="id", chunks=True))):
        plan = make_plan(files([path], None), fields, 10)
        (block,) = read_shard(plan.shards()[0], fields, plan.schema, frozenset({0}))
        prepared = prepare(_block(_block_message(block)), embedder.tokenizer, settings)
        again = _prepared(_prepared_message(prepared))
        assert _block(_block_message(block)) == block
        assert [s.input_ids.tolist() for s in again.sequences] == [s.input_ids.tolist() for s in prepared.sequences]
        assert [s.spans.tolist() for s in again.sequences] == [s.spans.tolist() for s in prepared.sequences]
        assert (again.table, again.owners, again.failed) == (prepared.table, prepared.owners, prepared.failed)


def test_a_ray_of_our_own_is_not_one_that_runs_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """`ray start` leaves its address for all that follow, also when it was killed."""
    asked: list[dict[str, object]] = []
    monkeypatch.setattr(ray, "init", lambda **options: asked.append(options))
    for workers in (Fleet(), Fleet(address="here:6379")):
        with started(workers):
            pass
    assert [options["address"] for options in asked] == ["local", "here:6379"]
    assert "num_cpus" in asked[0] and "num_cpus" not in asked[1]


def test_killed_workers_and_a_killed_driver_lose_nothing(tiny_folder: Path, tmp_path: Path) -> None:
    chosen = random.Random(7)
    corpus = jsonl(tmp_path / "a.jsonl", [*rows(400), {"id": "bad", "text": None}])
    run(corpus, tmp_path / "whole", Embedder.load(tiny_folder), settings=replace(SMALL, part_rows=8))
    first = Driver(corpus, tmp_path / "out", tiny_folder, "--workers", "2")
    first.wait_for(3)
    chosen.choice(first.workers()).send_signal(signal.SIGKILL)
    first.wait_for(15)
    first.popen.kill()
    first.popen.communicate()
    before = first.finished()
    assert 15 <= len(before) < 51
    told = Driver(corpus, tmp_path / "out", tiny_folder, "--workers", "1-2").end()
    assert (told["rows"], told["vectors"], told["failed"]) == (401, 400, 1) and told["reused"] >= 8 * len(before) - 7
    assert_same(written(tmp_path / "out"), written(tmp_path / "whole"))
