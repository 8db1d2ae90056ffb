"""model.py: precision, dropout, positions, and start values."""

import torch

from fivefold.model import Encoder
from fivefold.packing import pack
from tests import toy


def test_positions_matter() -> None:
    """The same tokens in another order give other states: rotary positions are applied."""
    encoder = toy.encoder()
    forward, backward = (encoder(pack([toy.sequence(ids)])) for ids in ([0, 7, 8, 9, 2], [0, 9, 8, 7, 2]))
    assert not torch.allclose(forward.mean(0), backward.mean(0), atol=1e-3)


def test_dropout_only_while_training() -> None:
    """Two evaluations agree; two training passes differ."""
    encoder = toy.encoder()
    batch = pack([toy.sequence([0, 7, 8, 9, 2])])
    torch.testing.assert_close(encoder(batch), encoder(batch))
    encoder.train()
    assert not torch.allclose(encoder(batch), encoder(batch))


def test_bfloat16_stays_close_to_float32() -> None:
    """Half precision is the same model with rounding."""
    batch = pack([toy.sequence([0, 7, 8, 9, 2], 1), toy.sequence([0, 30, 2], 4)])
    exact, rounded = toy.encoder(), toy.encoder().to(torch.bfloat16)
    cosine = torch.nn.functional.cosine_similarity(exact(batch), rounded(batch).float())
    assert cosine.min() > 0.99


def test_start_values() -> None:
    """Normal weights, zero biases and padding row, unit norms."""
    torch.manual_seed(0)
    encoder = Encoder(toy.config())
    encoder.reset_parameters()
    state = encoder.state_dict()
    assert 0.018 < state["layers.0.mlp.fc1.weight"].std() < 0.022
    assert not state["layers.0.mlp.fc1.bias"].any()
    assert not state["embeddings.word_embeddings.weight"][1].any()
    assert (state["layers.1.norm2.weight"] == 1).all()


def test_a_config_without_pooler_or_adapters_has_no_such_tensors() -> None:
    """The state holds exactly what the config names."""
    names = Encoder(toy.config(pooler=False, lora_adaptations=(), task_instructions={})).state_dict()
    assert not [n for n in names if "pooler" in n or "lora" in n]
