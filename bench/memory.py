"""Peak memory of encoding, above the model itself: the bar is 1.2 GB.

    python bench/memory.py                     # v3: 24 layers, 1024 wide, float32
    python bench/memory.py --model v2          # JinaBERT base: 12 layers, 768 wide, ALiBi

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

from fivefold.config import JINABERT_DEFAULTS, NO_TASK, TASKS, ModelConfig
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
MODELS = {
    "v3": {"lora_adaptations": tuple(t.name for t in TASKS)},
    "v2": {
        **JINABERT_DEFAULTS,
        "max_position_embeddings": 8192,
        "position_embedding_type": "alibi",
        "feed_forward_type": "geglu",
    },
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
def run(lengths: list[int], config: ModelConfig, out: multiprocessing.Queue[tuple[float, float]]) -> None:
    """Build the model, note its size, encode with all its tasks in turn, report (model MB, peak MB)."""
    tasks = range(len(config.lora_adaptations)) or (NO_TASK,)
    encoder = Encoder(config)
    for parameter in encoder.parameters():
        parameter.fill_(0.01)  # touches every page, without the temporaries of random numbers
    backend = TorchBackend(encoder, torch.device("cpu"))
    model = resident()
    rng = np.random.default_rng(0)
    sequences = [
        Sequence(
            rng.integers(5, config.vocab_size, n).astype(np.int32),
            tasks[i % len(tasks)],
            np.array([[0, n]], dtype=np.int32),
        )
        for i, n in enumerate(lengths)
    ]
    for indices in plan(sequences, MAX_BATCH_TOKENS["cpu"]):
        batch = pack([sequences[i] for i in indices])
        pool(backend.hidden_states(batch), batch.spans)
    out.put((model, peak()))


def main() -> None:
    """Run every case and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="v3")
    parser.add_argument("--layers", type=int, help="fewer than the model's own")
    parser.add_argument("--vocab", type=int, help="fewer than the model's own")
    a = parser.parse_args()
    sizes = {"num_hidden_layers": a.layers, "vocab_size": a.vocab}
    config = ModelConfig(**MODELS[a.model] | {name: size for name, size in sizes.items() if size})
    context = multiprocessing.get_context("spawn")
    above: dict[str, float] = {}
    for name, lengths in CASES.items():
        queue: multiprocessing.Queue[tuple[float, float]] = context.Queue()
        process = context.Process(target=run, args=(lengths, config, queue))
        process.start()
        model, highest = queue.get()
        process.join()
        above[name] = round(highest - model)
        print(f"{name:32s} model {model:6.0f} MB   peak {highest:6.0f} MB   above {above[name]:5.0f} MB", flush=True)
    print(
        json.dumps({"bench": "memory", "model": a.model, "mb_above_model": above, "layers": config.num_hidden_layers})
    )


if __name__ == "__main__":
    main()
