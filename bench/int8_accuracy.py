"""Cosine of int8 vectors to float32 ones, and how far a vector depends on its neighbours in the pack, on real weights.

    python bench/int8_accuracy.py texts.txt                      # one text a line; the shipped model
    python bench/int8_accuracy.py texts.txt --model FOLDER --texts 10000

The bars: mean cosine at least .995, lowest at least .98. Prints a table, and one line of JSON last.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from fivefold import Embedder
from fivefold.vectors import Array

ALONE = 200
"""Texts that are also embedded one by one."""


def cosines(a: Array, b: Array) -> np.ndarray:
    """Of unit vectors, row by row: [n]."""
    return (a.astype(np.float64) * b).sum(1)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--model", default="v3-nano")
    parser.add_argument("--dtype", default="int8")
    parser.add_argument("--texts", type=int, default=10_000)
    a = parser.parse_args()
    lines = [line for line in a.file.read_text(encoding="utf-8").splitlines() if line.strip()]
    texts = [lines[i] for i in np.random.default_rng(0).permutation(len(lines))[: a.texts]]
    exact, small = (Embedder.load(a.model, dtype=dtype, device="cpu") for dtype in ("float32", a.dtype))
    tasks = [*exact.tasks, None]
    spread = [tasks[i % len(tasks)] for i in range(len(texts))]
    together = small.encode(texts, task=spread)
    found = cosines(exact.encode(texts, task=spread), together)
    alone = np.stack([small.encode(text, task=task) for text, task in zip(texts[:ALONE], spread[:ALONE], strict=True)])
    apart = cosines(alone, together[:ALONE])
    print(f"{len(texts)} texts, six tasks in turn, {small.backend.precision.describe()} against float32")
    print(
        f"cosine      mean {found.mean():.5f}   1 in 100 below {np.quantile(found, 0.01):.5f}   lowest {found.min():.5f}"
    )
    for task in tasks:
        of_task = found[[t == task for t in spread]]
        print(f"  {task or 'no task':20s} mean {of_task.mean():.5f}   lowest {of_task.min():.5f}")
    print(f"alone against together: lowest cosine {apart.min():.7f}")
    result = {"mean": found.mean(), "lowest": found.min(), "alone": apart.min(), "texts": len(texts)}
    print(json.dumps({"bench": "int8_accuracy", **result}, default=float))


if __name__ == "__main__":
    main()
