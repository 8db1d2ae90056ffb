"""Golden sets G3 and G4: JinaBERT folders as the v2 repositories have them, with weights from a formula, toy size, float32.

The numbers of G3 are the published code's own. Those of G4, the variant that normalises queries and keys, are of a reading
of it that two independent ports share.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fivefold.checkpoint import load_encoder
from fivefold.packing import pack
from fivefold.pooling import pool
from tests.golden.test_formula_weights import wave
from tests.toy import sequence

TOLERANCE = 2e-5
D, F, V, LAYERS = 24, 20, 32, 2
CODE = {"A": "jinaai/jina-bert-implementation", "B": "jinaai/jina-bert-v2-qk-post-norm"}
GOLDEN = {
    "A, 4 heads, geglu": {
        "hidden": [
            [-0.698586, 0.154785, -0.752778, 1.024419, 0.884473, 0.714304],
            [-0.674330, 0.095273, -0.221835, 0.592522, 0.905726, 0.224735],
            [-1.359397, -1.432440, -0.067952, 1.278454, -0.574161, 0.560017],
        ],
        "pooler": [-0.555811, 0.622640, -0.942529, 0.481492],
        "mean": [[-0.567401, 0.242328, -0.430683, 0.524593], [-0.712153, -0.809829, -0.091519, 0.782299]],
        "cosine": 0.857555,
    },
    "A, 6 heads, reglu": {
        "hidden": [
            [-0.842059, -0.526664, -0.220841, 1.281599, 0.393162, 0.770343],
            [-0.930409, -0.555890, 0.848954, 0.982928, 1.165638, 0.576122],
            [-0.398126, -1.786520, 0.096410, 0.476699, -0.815414, -0.166624],
        ],
        "pooler": [-0.733106, 0.699400, -0.950225, 0.395602],
        "mean": [[-0.740211, 0.072006, 0.016759, 0.590135], [-0.224536, -1.173264, 0.081497, 0.567822]],
        "cosine": 0.841470,
    },
    "B, 4 heads, geglu": {
        "hidden": [
            [2.140381, 0.980823, 1.232733, 0.181609, 0.159613, 0.316178],
            [0.779825, 0.722480, 1.969629, 0.924333, 1.020453, 1.201383],
            [0.852870, 0.426522, 0.983467, 0.802202, 0.554931, 1.198046],
        ],
        "mean": [[1.458759, 0.971285, 1.244066, 0.457223], [1.544422, 0.789409, 1.247229, 0.422060]],
        "cosine": 0.906473,
    },
}
ROWS = {"A": ([2, 5, 9, 31, 7, 3], [2, 11, 4, 3]), "B": ([0, 5, 9, 31, 7, 2], [0, 11, 4, 2])}
# h[0, 0], h[0, 4], h[1, 3] of the padded batch are tokens 0, 4 and 6 + 3 of the pack.
TOKENS = (0, 4, 9)


def linear(name: str, rows: int, columns: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}


def norm(name: str) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (D,), f"{name}.bias": (D,)}


def published_shapes(variant: str) -> dict[str, tuple[int, ...]]:
    """Every tensor of a v2 file by its published name."""
    shapes = {"embeddings.word_embeddings.weight": (V, D), "embeddings.token_type_embeddings.weight": (2, D)}
    shapes |= norm("embeddings.LayerNorm")
    for n in range(LAYERS):
        layer = f"encoder.layer.{n}"
        for name in ("self.query", "self.key", "self.value", "output.dense"):
            shapes |= linear(f"{layer}.attention.{name}", D, D)
        shapes |= norm(f"{layer}.attention.output.LayerNorm")
        if variant == "A":
            shapes |= {f"{layer}.mlp.gated_layers.weight": (2 * F, D), **linear(f"{layer}.mlp.wo", D, F)}
            shapes |= norm(f"{layer}.mlp.layernorm")
        else:
            shapes |= {f"{layer}.mlp.up_gated_layer.weight": (2 * F, D), **linear(f"{layer}.mlp.down_layer", D, F)}
            for name in ("attention.self.layer_norm_q", "attention.self.layer_norm_k", "layer_norm_1", "layer_norm_2"):
                shapes |= norm(f"{layer}.{name}")
    return shapes | (linear("pooler.dense", D, D) if variant == "A" else {})


def formula_folder(folder: Path, setting: str, *, prefix: str = "") -> Path:
    """A v2 folder of the golden sets; weight number t is that of the t-th name in sorted order."""
    variant, heads, feed_forward = setting.split(", ")
    tensors = {}
    for number, (name, shape) in enumerate(sorted(published_shapes(variant).items())):
        w = wave(np.sin, number, torch.Size(shape), 0.7, 0.3, 0.001)
        if "norm" in name.lower():
            w = 1 + 0.1 * w if name.endswith("weight") else 0.1 * w
        else:
            w = 0.3 * w
        tensors[prefix + name] = w
    save_file(tensors, folder / "model.safetensors")
    config = {
        "_name_or_path": CODE[variant],
        "architectures": ["JinaBertForMaskedLM"],
        "model_type": "bert",
        "vocab_size": V,
        "hidden_size": D,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": int(heads.split()[0]),
        "intermediate_size": F,
        "max_position_embeddings": 8192,
        "position_embedding_type": "alibi",
        "feed_forward_type": feed_forward,
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.mark.parametrize("prefix", ["", "bert."])
@pytest.mark.parametrize("setting", GOLDEN)
def test_hidden_states_and_vectors(setting: str, prefix: str, tmp_path: Path) -> None:
    """Hidden states, pooler, means and their cosine, through a folder read as it is published."""
    encoder = load_encoder(
        formula_folder(tmp_path, setting, prefix=prefix), dtype=torch.float32, device=torch.device("cpu")
    )
    batch = pack([sequence(row) for row in ROWS[setting[0]]])
    expected = GOLDEN[setting]
    hidden = encoder(batch)
    means = pool(hidden, batch.spans)
    np.testing.assert_allclose(hidden[list(TOKENS), :6], expected["hidden"], atol=TOLERANCE)
    np.testing.assert_allclose(means[:, :4], expected["mean"], atol=TOLERANCE)
    assert float(torch.cosine_similarity(means[0], means[1], 0)) == pytest.approx(expected["cosine"], abs=TOLERANCE)
    assert (encoder.pooler is None) == ("pooler" not in expected)
    if encoder.pooler is not None:
        np.testing.assert_allclose(encoder.pooler(hidden, batch)[0, :4], expected["pooler"], atol=TOLERANCE)
