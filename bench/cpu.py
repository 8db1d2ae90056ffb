"""Us against other runtimes on a CPU, random weights at v3 size, in one run, in turn.

    python bench/cpu.py --work /tmp/cpu            # 24 layers; models are converted once, into the folder
    python bench/cpu.py --work /tmp/cpu6 --layers 6 --only ours,onnxruntime-int8

Peers run the body alone, without adapters, as their users do: batches of 32, padded; on the mix of lengths sorted, and once
more as the texts come. Their int8 is what their own tools make: `quantize_dynamic` of ONNX Runtime, post-training quantization
of NNCF for OpenVINO (both are what sentence-transformers offers). A peer whose library is missing is left out, by name.
"Linears alone" are all linears with the rounding of what goes in, and nothing between them. Prints tables, and one line of
JSON last.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from encode import random_folder
from torch.nn.functional import cosine_similarity

from fivefold import kernels
from fivefold.checkpoint import load_encoder
from fivefold.cores import told
from fivefold.embedder import MAX_BATCH_TOKENS
from fivefold.model import Encoder
from fivefold.packing import TaskSlice, pack, plan
from fivefold.pooling import pool
from fivefold.quantization import Int8Linear, KernelLinear, Precision, prepack
from fivefold.sequence import Sequence

Rows = list[np.ndarray]
Run = Callable[[Rows], np.ndarray]
Hidden = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Ids and mask [32, L] -> hidden states [32, L, D]."""

PEER_BATCH = 32
TURN_S = 0.2
"""Of a contestant, at least."""
CLOCKS: Mapping[str, Callable[[], float]] = {"wall": time.perf_counter, "processor": time.process_time}
CASES: Mapping[str, Callable[[np.random.Generator], list[int]]] = {
    "1x16": lambda rng: [16],
    "8x64": lambda rng: [64] * 8,
    "4x512": lambda rng: [512] * 4,
    "mix": lambda rng: [int(n) for n in np.clip(rng.lognormal(4.2, 0.8, 64), 8, 512)],
    "1x8192": lambda rng: [8192],
}
"""Lengths of the texts of each case; the mix has a median of 67 tokens and a long tail."""


def ours(encoder: Encoder, tasks: tuple[int, ...], budget: int) -> Run:
    """Packed, as `Embedder` packs; texts take the tasks in turn."""

    def run(rows: Rows) -> np.ndarray:
        sequences = [_sequence(row, tasks[i % len(tasks)]) for i, row in enumerate(rows)]
        out = torch.empty(len(rows), encoder.config.hidden_size)
        for indices in plan(sequences, budget):
            batch = pack([sequences[i] for i in indices])
            out[indices] = pool(encoder(batch), batch.spans)
        return out.numpy()

    return run


def _sequence(row: np.ndarray, task_id: int) -> Sequence:
    return Sequence(row, task_id, np.array([[0, len(row)]], dtype=np.int32))


def padded(hidden: Hidden, *, ordered: bool) -> Run:
    """A peer: ids and mask [32, L] -> hidden states; the masked mean is ours."""

    def run(rows: Rows) -> np.ndarray:
        order = sorted(range(len(rows)), key=lambda i: -len(rows[i])) if ordered else list(range(len(rows)))
        out = [np.empty(0)] * len(rows)
        for start in range(0, len(order), PEER_BATCH):
            indices = order[start : start + PEER_BATCH]
            width = max(len(rows[i]) for i in indices)
            ids, mask = np.ones((len(indices), width), np.int64), np.zeros((len(indices), width), np.int64)
            for r, i in enumerate(indices):
                ids[r, : len(rows[i])], mask[r, : len(rows[i])] = rows[i], 1
            states = hidden(ids, mask)
            for r, i in enumerate(indices):
                out[i] = states[r, : len(rows[i])].mean(0)
        return np.stack(out)

    return run


def native(folder: Path, threads: int, dtype: torch.dtype = torch.float32) -> Hidden:
    """transformers."""
    from transformers import JinaEmbeddingsV3Model

    model = JinaEmbeddingsV3Model.from_pretrained(folder, dtype=dtype, add_pooling_layer=False).eval()

    def run(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        inputs = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
        return model(**inputs).last_hidden_state.float().numpy()

    return run


def exported(folder: Path) -> Path:
    """The native model as an ONNX graph, made once."""
    path = folder / "onnx" / "model.onnx"
    if not path.exists():
        from transformers import JinaEmbeddingsV3Model

        model = JinaEmbeddingsV3Model.from_pretrained(folder, dtype=torch.float32, add_pooling_layer=False).eval()
        path.parent.mkdir(exist_ok=True)
        ids, axes = torch.randint(5, 1000, (2, 24)), {0: "batch", 1: "length"}
        torch.onnx.export(
            _States(model), (ids, torch.ones_like(ids)), str(path), dynamo=False, opset_version=17,
            input_names=["input_ids", "attention_mask"], output_names=["states"],
            dynamic_axes={"input_ids": axes, "attention_mask": axes, "states": axes},
        )  # fmt: skip
    return path


class _States(torch.nn.Module):
    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state


def onnxruntime_int8(folder: Path, threads: int) -> Hidden:
    """ONNX Runtime, dynamically quantized."""
    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic

    source = exported(folder)
    path = source.with_name("int8.onnx")
    if not path.exists():
        quantize_dynamic(source, path, weight_type=QuantType.QInt8, use_external_data_format=True)
    return _session(onnxruntime, path, threads)


def onnxruntime_float32(folder: Path, threads: int) -> Hidden:
    """ONNX Runtime, float32."""
    import onnxruntime

    return _session(onnxruntime, exported(folder), threads)


def _session(onnxruntime: object, path: Path, threads: int) -> Hidden:
    options = onnxruntime.SessionOptions()  # type: ignore[attr-defined]
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])  # type: ignore[attr-defined]
    return lambda ids, mask: session.run(None, {"input_ids": ids, "attention_mask": mask})[0]


def openvino_int8(folder: Path, threads: int, hint: str) -> Hidden:
    """OpenVINO, post-training quantization over 24 random texts, weights and activations with fixed scales."""
    import nncf
    import openvino

    path = exported(folder).with_name("openvino-int8.xml")
    if not path.exists():
        rng = np.random.default_rng(1)
        texts = [rng.integers(5, 30000, (1, int(rng.integers(16, 128)))) for _ in range(24)]
        data = nncf.Dataset([{"input_ids": ids, "attention_mask": np.ones_like(ids)} for ids in texts])
        model = openvino.convert_model(exported(folder))
        openvino.save_model(nncf.quantize(model, data, model_type=nncf.ModelType.TRANSFORMER, subset_size=24), path)
    return _compiled(openvino, path, threads, hint)


def openvino_floats(folder: Path, threads: int, hint: str) -> Hidden:
    """OpenVINO on the graph as it is."""
    import openvino

    return _compiled(openvino, exported(folder), threads, hint)


def _compiled(openvino: object, path: Path, threads: int, hint: str) -> Hidden:
    """`hint` is what is computed between and beside products of bytes: where the processor can, its own choice is bf16."""
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": hint}
    model = openvino.Core().compile_model(path, "CPU", settings)  # type: ignore[attr-defined]
    return lambda ids, mask: model({"input_ids": ids, "attention_mask": mask})[0]


PEERS: Mapping[str, Callable[[Path, int], Hidden]] = {
    "native float32": native,
    "native bfloat16": partial(native, dtype=torch.bfloat16),
    "onnxruntime float32": onnxruntime_float32,
    "openvino float32": partial(openvino_floats, hint="f32"),
    "openvino bfloat16": partial(openvino_floats, hint="bf16"),
    "onnxruntime int8": onnxruntime_int8,
    "openvino int8": partial(openvino_int8, hint="f32"),
    "openvino int8 and bfloat16": partial(openvino_int8, hint="bf16"),
}
OURS = ("ours float32", "ours bfloat16", "ours int8", "ours int8 by torch")
"""The last is what int8 is where the kernels cannot run."""
NEEDED = ("ours float32", "ours int8")
"""What all are compared with."""


def open_ours(folder: Path, dtype: str) -> Encoder:
    """Our encoder, as `Embedder.load` makes it."""
    precision = Precision(dtype)
    encoder = load_encoder(folder, dtype=precision.dtype, device=torch.device("cpu"), int8=dtype == "int8")
    if dtype != "int8":
        prepack(encoder, precision)
    return encoder


def our_runs(folder: Path, name: str) -> dict[str, Run]:
    """Without a task, with one, with all five in every batch; and in 8 bits the linears alone."""
    dtype = name.split()[1]
    if name.endswith("torch"):
        kernels.LIBRARY = folder / "none.so"
    encoder = open_ours(folder, dtype)
    tasks = {"": (-1,), ", one task": (1,), ", five tasks": (0, 1, 2, 3, 4)}
    budget = MAX_BATCH_TOKENS["int8" if dtype == "int8" else "cpu"]
    runs = {task: ours(encoder, ids, budget) for task, ids in tasks.items()}
    return {**runs, ", linears alone": linears_alone(encoder)} if dtype == "int8" else runs


def peer_runs(name: str, folder: Path, threads: int) -> dict[str, Run]:
    """Sorted by length and, for the mix, as the texts come."""
    hidden = PEERS[name](folder, threads)
    return {"": padded(hidden, ordered=True), ", unsorted": padded(hidden, ordered=False)}


def serve(name: str, folder: Path, threads: int, pipe: Connection) -> None:
    """One contestant in a process of its own, so that idle threads and memory of others are out of its way."""
    torch.set_num_threads(threads)
    try:
        runs = our_runs(folder, name) if name.startswith("ours") else peer_runs(name, folder, threads)
    except ImportError as error:
        pipe.send(error.name)
        return
    pipe.send(list(runs))
    with torch.inference_mode():
        while (asked := pipe.recv()) is not None:
            variant, rows, clock = asked
            seconds, vectors = timed(partial(runs[variant], rows), CLOCKS[clock])
            pipe.send((seconds, vectors, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def timed(run: Callable[[], np.ndarray], clock: Callable[[], float]) -> tuple[float, np.ndarray]:
    """Median of the calls of a turn. A short one comes several times, without the first, which finds caches full of others'."""
    times: list[float] = []
    while sum(times) < TURN_S:
        begin = clock()
        vectors = run()
        times.append(clock() - begin)
    return statistics.median(times[1:] or times), vectors


def start(names: list[str], folder: Path, threads: int) -> dict[str, tuple[Connection, list[str]]]:
    """A process for each contestant, one after the other; those whose library is missing are named.

    This file has loaded torch before our package is there to say how long its threads turn: so it says so, of ours alone.
    """
    spawn, found, said = multiprocessing.get_context("spawn"), {}, told()
    for name in names:
        for variable, value in said.items():
            if name.startswith("ours"):
                os.environ[variable] = value
            else:
                os.environ.pop(variable, None)
        here, there = spawn.Pipe()
        spawn.Process(target=serve, args=(name, folder, threads, there), daemon=True).start()
        answer = here.recv()
        if isinstance(answer, list):
            found[name] = (here, answer)
        else:
            print(f"{name} left out: {answer} is not installed")
    return found


def linears_alone(encoder: Encoder) -> Run:
    """All linears for as many tokens, without adapters, and nothing else."""
    linears = [m for m in encoder.layers.modules() if isinstance(m, Int8Linear | KernelLinear)]

    def run(rows: Rows) -> np.ndarray:
        for indices in plan([_sequence(row, -1) for row in rows], MAX_BATCH_TOKENS["int8"]):
            tokens = sum(len(rows[i]) for i in indices)
            inputs = {m.shape[1]: torch.ones(tokens, m.shape[1]) for m in linears}
            for linear in linears:
                linear(inputs[linear.shape[1]], (TaskSlice(-1, 0, tokens),))
        return np.empty(0)

    return run


@dataclass
class Measured:
    """One contestant in one case."""

    times: list[float]
    vectors: np.ndarray
    peak_mb: float


def measure(
    everyone: Mapping[str, tuple[Connection, list[str]]], rows: Rows, case: str, a: argparse.Namespace
) -> dict[str, Measured]:
    """Everyone in turn, as many rounds as asked for after a warm-up."""
    found: dict[str, Measured] = {}
    for turn in range(a.rounds + 1):
        for name, (pipe, variants) in everyone.items():
            for variant in variants:
                if variant == ", unsorted" and case != "mix":
                    continue
                pipe.send((variant, rows, a.clock))
                taken, vectors, peak = pipe.recv()
                entry = found.setdefault(name + variant, Measured([], vectors, peak))
                entry.peak_mb = peak
                if turn:
                    entry.times.append(taken)
    return found


def report(case: str, rows: Rows, found: Mapping[str, Measured]) -> dict[str, object]:
    """A table; ratios are medians over the rounds, pair by pair, of a contestant's time over that of our int8."""
    tokens = sum(map(len, rows))
    base, exact = found["ours int8"].times, torch.from_numpy(found["ours float32"].vectors)
    entries: dict[str, object] = {}
    print(f"\n{case}: {len(rows)} texts, {tokens} tokens")
    for name, own in found.items():
        entry = {
            "tokens_per_s": round(tokens / statistics.median(own.times), 1),
            "int8_over": round(statistics.median(t / b for t, b in zip(own.times, base, strict=True)), 3),
            "peak_mb": round(own.peak_mb),
        }
        if own.vectors.size and "task" not in name:
            entry["cosine"] = round(float(cosine_similarity(torch.from_numpy(own.vectors), exact).min()), 6)
        print(
            f"  {name:30s} {entry['tokens_per_s']:8.1f} tokens/s   our int8 is {entry['int8_over']:6.2f}x"
            f"   {entry['peak_mb']:6d} MB   {entry.get('cosine', '')}"
        )
        entries[name] = entry
    return entries


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for converted models")
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--vocab", type=int, default=32000, help="rows of the word table; it is only gathered from")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--only", default="", help="contestants beside our float32 and int8, with commas between (default: all)"
    )
    parser.add_argument("--cases", default="1x16,8x64,4x512,mix")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--clock",
        choices=CLOCKS,
        default="wall",
        help="processor time, of --threads 1, is steadier where others compute too",
    )
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    folder = a.work / f"v3-{a.layers}"
    if not folder.exists():
        a.work.mkdir(parents=True, exist_ok=True)
        random_folder(folder, a.layers, a.vocab)
    names = [name for name in (*OURS, *PEERS) if name in NEEDED or not a.only or name in a.only.split(",")]
    everyone = start(names, folder, a.threads)
    found: dict[str, object] = {}
    print(f"{a.layers} layers, {a.threads} threads, {a.clock} time, {a.rounds} rounds")
    for case in a.cases.split(","):
        rng = np.random.default_rng(0)
        rows = [rng.integers(5, a.vocab, n).astype(np.int32) for n in CASES[case](rng)]
        found[case] = report(case, rows, measure(everyone, rows, case, a))
    for pipe, _ in everyone.values():
        pipe.send(None)
    print(
        json.dumps(
            {
                "bench": "cpu",
                "date": time.strftime("%Y-%m-%d"),
                "layers": a.layers,
                "threads": a.threads,
                "cases": found,
            }
        )
    )


if __name__ == "__main__":
    main()
