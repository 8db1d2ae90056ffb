"""Golden sets G1 and G2: weights from a formula, numbers from native transformers (and PEFT), toy size, float32."""

import numpy as np
import pytest
import torch

from fivefold.config import ModelConfig
from fivefold.model import Encoder
from fivefold.packing import pack
from fivefold.pooling import pool
from tests.toy import sequence

TOLERANCE = 2e-5
ROWS = ([0, 5, 9, 31, 7, 2], [0, 11, 4, 2])
# h[0, 0], h[0, 4], h[1, 3] of the padded batch are tokens 0, 4 and 6 + 3 of the pack.
TOKENS = (0, 4, 9)
GOLDEN = {
    "body": {
        "hidden": [
            [-0.727975, -1.058529, -0.349272, 2.753148, -0.830373, 1.348171],
            [-1.372120, -1.302125, -0.267394, 1.409516, -0.114682, 0.980772],
            [-1.091221, -1.178233, -0.421638, 2.755846, -0.090245, 1.975105],
        ],
        "unit": [
            [-0.222796, -0.285441, -0.111226, 0.541568, -0.182403, 0.352027],
            [-0.276723, -0.291073, -0.079996, 0.619586, -0.055497, 0.411428],
        ],
        "cosine": 0.852127,
    },
    "adapter": {
        "hidden": [
            [-0.417726, -1.141304, -0.484765, 2.369499, -1.068844, 1.133062],
            [-1.367386, -1.490220, -0.285471, 1.367106, 0.110241, 0.879960],
            [-1.136137, -1.352652, -0.407561, 2.575023, -0.009236, 1.847486],
        ],
        "unit": [
            [-0.183271, -0.315884, -0.119692, 0.450266, -0.178339, 0.297981],
            [-0.256463, -0.333999, -0.114227, 0.574491, -0.053017, 0.406752],
        ],
        "cosine": 0.834524,
    },
}
POOLER = [0.384830, 0.521440, 0.493232, 0.557670, 0.782819, 0.848346]
OTHER_BASE = [-1.371718, -1.302187, -0.267335, 1.407420, -0.115447, 0.979124]


def original_name(name: str) -> str:
    """Our tensor name in the original layout's order-giving spelling."""
    return (
        name.replace("embeddings.norm", "emb_ln").replace("layers.", "encoder.layers.").replace("attention.", "mixer.")
    )


def wave(function: np.ufunc, number: int, shape: torch.Size, a: float, b: float, c: float = 0.0) -> torch.Tensor:
    """function(a number + b i + c i^2) over the flat index i."""
    i = np.arange(shape.numel(), dtype=np.float64)
    return torch.tensor(function(a * number + b * i + c * i * i).reshape(shape), dtype=torch.float32)


def formula_encoder(base: float = 20000.0) -> Encoder:
    """The toy model of the golden sets with its one task."""
    config = ModelConfig(
        vocab_size=32,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=20,
        max_position_embeddings=64,
        rotary_emb_base=base,
        lora_adaptations=("task",),
    )
    encoder = Encoder(config).eval().requires_grad_(False)
    state = encoder.state_dict()
    body = sorted((name for name in state if "lora" not in name), key=original_name)
    for number, name in enumerate(body):
        w = wave(np.sin, number, state[name].shape, 0.7, 0.3, 0.001)
        if "norm" in name:
            w = 1 + 0.1 * w if name.endswith("weight") else 0.1 * w
        else:
            w = 0.3 * w
        state[name].copy_(w)
    for number, name in enumerate(n for n in body if state[n].ndim == 2):
        for bank, function, a, b in (("lora_A", np.sin, 1.1, 0.2), ("lora_B", np.cos, 1.3, 0.25)):
            target = state[name.replace("weight", bank)][0]
            target.copy_(0.5 * wave(function, number, target.shape, a, b))
    return encoder


@pytest.mark.parametrize(("which", "task_id"), [("body", -1), ("adapter", 0)])
def test_hidden_states_and_vectors(which: str, task_id: int) -> None:
    """Hidden states, pooled unit vectors and their cosine."""
    batch = pack([sequence(row, task_id) for row in ROWS])
    hidden = formula_encoder()(batch)
    unit = torch.nn.functional.normalize(pool(hidden, batch.spans))
    expected = GOLDEN[which]
    np.testing.assert_allclose(hidden[list(TOKENS), :6], expected["hidden"], atol=TOLERANCE)
    np.testing.assert_allclose(unit[:, :6], expected["unit"], atol=TOLERANCE)
    assert float(unit[0] @ unit[1]) == pytest.approx(expected["cosine"], abs=TOLERANCE)


def test_pooler() -> None:
    """The tanh pooler of the body."""
    encoder = formula_encoder()
    batch = pack([sequence(row) for row in ROWS])
    assert encoder.pooler is not None
    np.testing.assert_allclose(encoder.pooler(encoder(batch), batch)[0, :6], POOLER, atol=TOLERANCE)


def test_the_rotary_base_matters() -> None:
    """Base 10000 gives the other published row: the base really comes from the config."""
    batch = pack([sequence(row) for row in ROWS])
    np.testing.assert_allclose(formula_encoder(10000.0)(batch)[4, :6], OTHER_BASE, atol=TOLERANCE)
