"""The batch job: what it costs over `encode`, what a second worker brings, what memory a large corpus takes, what a full disk
leaves. What kills leave is in `jobs_kills.py`.

    python bench/jobs.py --overhead                          # no Ray
    python bench/jobs.py --memory                            # no Ray
    python bench/jobs.py --workers                           # two workers of a core each against one; needs the extra ray
    python bench/jobs.py --full-disk                         # a file system of 2 MB; needs root

The model is random and of v3's architecture at a twelfth of its depth and width, so that 50,000 rows take minutes: what the job
adds to a row weighs hundreds of times more here than it does beside v3. Prints a table, and one line of JSON last.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from safetensors.torch import save_file

from tests import toy

WORDS = "fox river bank Fuchs Fluss zorro perezoso renard chien lazy dog jumps springt über saute junto al río".split()
SIZES = {"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 384}
ROOT = Path(__file__).parents[1]


def model(folder: Path) -> Path:
    """A checkpoint of random weights."""
    folder.mkdir()
    config = toy.config(**SIZES, max_position_embeddings=514)
    (folder / "config.json").write_text(json.dumps(config.to_dict()), encoding="utf-8")
    state = toy.encoder(config, adapters=0.05).state_dict()
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "model.safetensors")
    toy.rust_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def corpus(path: Path, rows: int, words: tuple[int, int] = (5, 40)) -> Path:
    """Rows of different lengths."""
    chosen = random.Random(0)
    with path.open("w", encoding="utf-8") as stream:
        for i in range(rows):
            text = " ".join(chosen.choices(WORDS, k=chosen.randint(*words)))
            stream.write(json.dumps({"id": f"row-{i}", "text": f"{i} {text}"}) + "\n")
    return path


def job(rows: Path, output: Path, folder: Path | str, *options: str) -> list[str]:
    """The command line of a job."""
    return [sys.executable, "-m", "fivefold", "batch", str(rows), "--id-field", "id", "--output", str(output)] + [
        *("--model", str(folder), "--json"),
        *options,
    ]


def one_core() -> dict[str, str]:
    """An environment in which torch has one thread."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def overhead(work: Path, folder: Path | str, rows: int, rounds: int) -> dict[str, float]:
    """Seconds of the whole job over those of `encode` on the same rows, in turn, in one process; medians."""
    import torch

    from fivefold import Embedder
    from fivefold.jobs import job as jobs
    from fivefold.jobs.folder import Folder
    from fivefold.jobs.sources import Fields, files
    from fivefold.jobs.work import Settings

    torch.set_num_threads(1)
    path = corpus(work / f"{rows}.jsonl", rows)
    embedder = Embedder.load(folder)
    texts = [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]
    embedder.encode(texts[:500], task="retrieval.passage")
    alone, whole = [], []
    for number in range(rounds):
        start = time.perf_counter()
        embedder.encode(texts, task="retrieval.passage")
        alone.append(time.perf_counter() - start)
        start = time.perf_counter()
        output = Folder(str(work / f"overhead-{number}"))
        settings = Settings(task="retrieval.passage")
        jobs.run(files([str(path)], None), Fields(id="id"), settings, engine=jobs.Here(embedder), folder=output)
        whole.append(time.perf_counter() - start)
    encode, batch = float(np.median(alone)), float(np.median(whole))
    return {"rows": rows, "encode_seconds": encode, "job_seconds": batch, "overhead": batch / encode - 1}


def memory(work: Path, folder: Path | str, rows: int) -> dict[str, float]:
    """Peak memory of a job over a corpus and over one ten times as large, each in a process of its own, in MB."""
    found = {}
    for name, count in (("small", rows // 10), ("large", rows)):
        path = corpus(work / f"{name}.jsonl", count, (2, 6))
        subprocess.run(
            job(path, work / name, folder, "--part-rows", "512"), check=True, stdout=subprocess.DEVNULL, env=one_core()
        )
        found[f"{name}_mb"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024  # the largest child so far
    return {"rows": rows, **found, "ratio": found["large_mb"] / found["small_mb"]}


def throughput(work: Path, folder: Path | str, rows: int) -> dict[str, float]:
    """Rows a second between the first and the last finished part, with one worker and with two; starting Ray is left out."""
    path = corpus(work / "throughput.jsonl", rows, (40, 80))
    speed = {}
    for workers in (1, 2):
        output = work / f"workers-{workers}"
        argv = job(path, output, folder, "--workers", str(workers), "--part-rows", "128")
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, env=one_core())
        ended = sorted(part.stat().st_mtime for part in (output / "_fivefold").glob("part-*.json"))
        speed[workers] = 128 * (len(ended) - 1) / (ended[-1] - ended[0])
    return {"rows": rows, "one": speed[1], "two": speed[2], "ratio": speed[2] / speed[1]}


def finished(output: Path) -> set[str]:
    """Names of the parts that count."""
    return {part.name for part in (output / "_fivefold").glob("part-*.json")}


def full_disk(work: Path, folder: Path | str, rows: int) -> dict[str, float]:
    """A job over a file system of 2 MB, and again when it has grown."""
    path, disk = corpus(work / "disk.jsonl", rows), work / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], check=True)
    try:
        argv = job(path, disk / "out", folder, "--part-rows", "128")
        ended = subprocess.run(argv, capture_output=True, text=True, env=one_core())
        assert ended.returncode == 2 and "No space left" in ended.stderr, ended.stderr
        kept = len(finished(disk / "out"))
        subprocess.run(["mount", "-o", "remount,size=500m", str(disk)], check=True)
        again = json.loads(subprocess.run(argv, check=True, capture_output=True, text=True, env=one_core()).stdout)
        ids = pq.read_table(disk / "out")["id"].to_pylist()
        assert len(set(ids)) == len(ids) == rows
        return {"rows": rows, "parts_before": kept, "rows_reused": again["reused"]}
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def main() -> None:
    """Run what is asked for, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("overhead", "memory", "workers", "full-disk"):
        parser.add_argument(f"--{name}", action="store_true")
    parser.add_argument("--rows", type=int, help="by default 50000, and 20000 for workers")
    parser.add_argument("--rounds", type=int, default=3, help="of the overhead")
    parser.add_argument("--model", help="a name or folder in place of the random one")
    args = parser.parse_args()
    everything = not (args.overhead or args.memory or args.workers or args.full_disk)
    results: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        folder = args.model or model(work / "model")
        if args.overhead or everything:
            results["overhead"] = overhead(work, folder, args.rows or 50000, args.rounds)
        if args.memory or everything:
            results["memory"] = memory(work, folder, args.rows or 50000)
        if args.workers or everything:
            results["workers"] = throughput(work, folder, args.rows or 20000)
        if args.full_disk:
            results["full_disk"] = full_disk(work, folder, args.rows or 5000)
    for name, numbers in results.items():
        print(f"{name:<10} " + "  ".join(f"{key} {value:,.4g}" for key, value in numbers.items()))
    print(json.dumps({"benchmark": "jobs", **results}))


if __name__ == "__main__":
    main()
