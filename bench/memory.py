"""Peak memory of encoding at v3 width, above the model itself: the bar is 1.2 GB.

    python bench/memory.py                     # 24 layers, 1024 wide, float32

Each case runs in a process of its own, so that peaks do not mix. Prints a table, and one line of JSON last.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
from pathlib import Path

import numpy as np
import torch

from fivefold.config import TASKS, ModelConfig
from fivefold.embedder import MAX_BATCH_TOKENS, TorchBackend
from fivefold.model import Encoder
from fivefold.packing import pack, plan
from fivefold.pooling import pool
from fivefold.sequence import Sequence

CASES = {
    "one text of 8192 tokens": [8192],
    "64 texts of 4 to 8192 tokens": [int(x) for x in np.geomspace(4, 8192, 64)],
    "2048 texts of 16 tokens": [16] * 2048,
}
MEGABYTE = 2**20


def resident() -> float:
    """Memory of this process now, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / MEGABYTE


def peak() -> float:
    """Highest memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@torch.inference_mode()
def run(lengths: list[int], layers: int, vocab: int, out: multiprocessing.Queue[tuple[float, float]]) -> None:
    """Build the model, note its size, encode with all five tasks in turn, report (model MB, peak MB)."""
    config = ModelConfig(vocab_size=vocab, num_hidden_layers=layers, lora_adaptations=tuple(t.name for t in TASKS))
    encoder = Encoder(config)
    for parameter in encoder.parameters():
        parameter.fill_(0.01)  # touches every page, without the temporaries of random numbers
    backend = TorchBackend(encoder, torch.device("cpu"))
    model = resident()
    rng = np.random.default_rng(0)
    sequences = [
        Sequence(rng.integers(5, vocab, n).astype(np.int32), i % 5, np.array([[0, n]], dtype=np.int32))
        for i, n in enumerate(lengths)
    ]
    for indices in plan(sequences, MAX_BATCH_TOKENS["cpu"]):
        batch = pack([sequences[i] for i in indices])
        pool(backend.hidden_states(batch), batch.spans)
    out.put((model, peak()))


def main() -> None:
    """Run every case and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--vocab", type=int, default=250002)
    a = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    above: dict[str, float] = {}
    for name, lengths in CASES.items():
        queue: multiprocessing.Queue[tuple[float, float]] = context.Queue()
        process = context.Process(target=run, args=(lengths, a.layers, a.vocab, queue))
        process.start()
        model, highest = queue.get()
        process.join()
        above[name] = round(highest - model)
        print(f"{name:32s} model {model:6.0f} MB   peak {highest:6.0f} MB   above {above[name]:5.0f} MB", flush=True)
    print(json.dumps({"bench": "memory", "mb_above_model": above, "layers": a.layers}))


if __name__ == "__main__":
    main()
