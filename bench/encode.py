"""Our encoder against native transformers, float32, random weights at v3 size, in one run, in turn.

    python bench/encode.py                     # 24 layers, 1024 wide
    python bench/encode.py --layers 6          # a quick look

The peer is used as its users use it: padded batches of 32, sorted by length, masked mean. Lengths are drawn from
8..512. Prints a table, and one line of JSON last.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cosine_similarity
from transformers import JinaEmbeddingsV3Model

from fivefold.checkpoint import load_encoder, write
from fivefold.config import TASKS, ModelConfig
from fivefold.embedder import MAX_BATCH_TOKENS
from fivefold.model import Encoder
from fivefold.packing import pack, plan
from fivefold.pooling import pool
from fivefold.sequence import Sequence

Rows = list[np.ndarray]
SHORTEST, LONGEST, PEER_BATCH = 8, 512, 32


def random_folder(folder: Path, layers: int, vocab: int) -> None:
    """A `-hf` folder of random weights with five adapters, which both sides load."""
    config = ModelConfig(
        vocab_size=vocab,
        num_hidden_layers=layers,
        pooler=True,
        lora_adaptations=tuple(t.name for t in TASKS),
        task_instructions={t.name: t.prompt for t in TASKS},
    )
    torch.manual_seed(0)
    encoder = Encoder(config)
    encoder.reset_parameters()
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if "lora" in name:
                parameter.normal_(std=0.02)
    write(folder, config, dict(encoder.state_dict()), layout="hf")


def ours(encoder: Encoder, rows: Rows, task_ids: list[int]) -> torch.Tensor:
    """Packed, as `Embedder` packs."""
    sequences = [
        Sequence(row, task, np.array([[0, len(row)]], dtype=np.int32)) for row, task in zip(rows, task_ids, strict=True)
    ]
    out = torch.empty(len(rows), encoder.config.hidden_size)
    for indices in plan(sequences, MAX_BATCH_TOKENS["cpu"]):
        batch = pack([sequences[i] for i in indices])
        out[indices] = pool(encoder(batch), batch.spans)
    return out


def native(model: JinaEmbeddingsV3Model, rows: Rows) -> torch.Tensor:
    """Padded batches of 32, longest first."""
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
    out = torch.empty(len(rows), model.config.hidden_size)
    for start in range(0, len(order), PEER_BATCH):
        indices = order[start : start + PEER_BATCH]
        width = max(len(rows[i]) for i in indices)
        ids = torch.full((len(indices), width), 1)
        mask = torch.zeros_like(ids)
        for r, i in enumerate(indices):
            ids[r, : len(rows[i])], mask[r, : len(rows[i])] = torch.from_numpy(rows[i]), 1
        hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
        out[indices] = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    return out


def seconds(run: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


@torch.inference_mode()
def measure(encoder: Encoder, peer: JinaEmbeddingsV3Model, rows: Rows, rounds: int) -> dict[str, list[float]]:
    """Seconds of each contestant, in turn, `rounds` times after one warm-up."""
    n = len(rows)
    contestants: dict[str, Callable[[], object]] = {
        "native": lambda: native(peer, rows),
        "body": lambda: ours(encoder, rows, [-1] * n),
        "one task": lambda: ours(encoder, rows, [1] * n),
        "five tasks": lambda: ours(encoder, rows, [i % 5 for i in range(n)]),
    }
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name, run in contestants.items():
            elapsed = seconds(run)
            if turn:
                times[name].append(elapsed)
    return times


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--vocab", type=int, default=32000, help="rows of the word table; it is only gathered from")
    parser.add_argument("--texts", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    a = parser.parse_args()
    rng = np.random.default_rng(0)
    lengths = rng.integers(SHORTEST, LONGEST + 1, a.texts)
    rows = [rng.integers(5, a.vocab, n).astype(np.int32) for n in lengths]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "v3"
        random_folder(path, a.layers, a.vocab)
        encoder = load_encoder(path, dtype=torch.float32, device=torch.device("cpu"))
        peer = JinaEmbeddingsV3Model.from_pretrained(path, dtype=torch.float32, add_pooling_layer=False).eval()
        with torch.inference_mode():
            cosine = float(cosine_similarity(ours(encoder, rows, [-1] * len(rows)), native(peer, rows)).min())
        times = measure(encoder, peer, rows, a.rounds)
    report(times, int(lengths.sum()), cosine, a)


def report(times: dict[str, list[float]], tokens: int, cosine: float, a: argparse.Namespace) -> None:
    """The table, then the JSON line; ratios are medians over the rounds, pair by pair."""
    ratio = {k: statistics.median(p / t for p, t in zip(times["native"], v, strict=True)) for k, v in times.items()}
    speed = {k: round(tokens / statistics.median(v)) for k, v in times.items()}
    print(f"{a.texts} texts, {tokens} tokens, {a.layers} layers, float32, {torch.get_num_threads()} threads")
    for name in times:
        print(f"{name:12s} {speed[name]:6d} tokens/s   {ratio[name]:.2f}x native")
    print(f"lowest cosine to native {cosine:.8f}")
    rounded = {k: round(v, 3) for k, v in ratio.items()}
    print(
        json.dumps(
            {"bench": "encode", "tokens_per_s": speed, "ratio": rounded, "min_cosine": cosine, "layers": a.layers}
        )
    )


if __name__ == "__main__":
    main()
