"""The published numbers of the real checkpoints. Need the hub and an accepted licence: run with `-m hub`.

FIVEFOLD_ACCEPT_LICENSE=1 pytest -m hub tests/golden/test_published.py
"""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from fivefold import Embedder
from fivefold.packing import pack
from fivefold.tokenizer import Tokenizer
from tests import toy

pytestmark = [
    pytest.mark.hub,
    pytest.mark.skipif(
        os.environ.get("FIVEFOLD_ACCEPT_LICENSE") != "1",
        reason="needs the network and FIVEFOLD_ACCEPT_LICENSE=1 (jina-embeddings-v3 is CC BY-NC 4.0)",
    ),
]

MODELS = ("jinaai/jina-embeddings-v3", "jinaai/jina-embeddings-v3-hf")
SENTENCE = "Jina Embeddings V3 is great for semantic search."
# last_hidden_state[0, 1:4, 1:10] of SENTENCE without any prompt, float32 (transformers' integration test)
HIDDEN = {
    None: [
        [-3.1011, 0.856, -0.2491, 0.9427, 1.4015, -1.1527, 1.3804, -0.5453, -1.8164],
        [-3.1108, 1.0107, -0.2097, 1.3495, 0.9984, -0.9518, 1.3189, -0.6295, -2.1128],
        [-2.7095, 0.6469, -0.4475, 1.1364, 1.5975, -0.7545, 1.0803, 0.5199, -2.3569],
    ],
    "retrieval.query": [
        [-1.9765, 0.7356, -0.4414, 0.5823, 2.1507, -0.8906, 0.0233, -0.2389, -1.5708],
        [-2.0078, 0.9562, -0.3315, 1.008, 1.8247, -0.6678, -0.2505, -0.3441, -1.9328],
        [-1.9107, 0.712, -0.4675, 0.9436, 2.1607, -0.417, -0.1513, 1.0063, -2.0103],
    ],
    "retrieval.passage": [
        [-1.7028, 0.5688, -0.8541, 0.4696, 2.5396, -0.8374, -0.1404, -0.3123, -1.4636],
        [-1.6631, 0.6571, -0.8641, 0.9177, 2.3502, -0.6578, -0.3763, -0.3975, -1.7684],
        [-1.4739, 0.4739, -0.8745, 0.8812, 2.6848, -0.4496, -0.4964, 0.6403, -2.0821],
    ],
    "separation": [
        [-3.0336, 1.4392, 0.2875, 0.766, 0.7054, -1.1701, 1.6121, -0.6325, -1.5177],
        [-3.0875, 1.5134, 0.362, 1.0281, 0.4895, -1.0484, 1.6574, -0.7636, -1.6736],
        [-2.7605, 1.292, 0.2223, 0.9895, 0.8515, -0.905, 1.5558, 0.141, -1.8531],
    ],
    "classification": [
        [-2.715, 0.2485, 1.2297, 0.6988, 0.9804, -1.2831, 1.3446, -0.1663, -0.6874],
        [-2.8101, 0.1711, 1.201, 0.9873, 0.5092, -1.3312, 1.4633, -0.2467, -0.7835],
        [-2.6067, 0.2362, 0.6945, 1.0134, 0.7105, -1.3767, 0.9999, 0.4427, -1.1153],
    ],
    "text-matching": [
        [-1.5888, 1.0527, 0.1237, -0.0822, 1.6507, -1.0371, -0.8815, -0.8082, -0.6564],
        [-1.6529, 1.3143, 0.1957, 0.2914, 1.4897, -0.8735, -1.0067, -0.7544, -1.0513],
        [-1.5308, 1.4805, -0.1393, 0.3879, 1.4373, -0.6064, -1.6436, 0.4793, -1.3388],
    ],
}
# Tokens 1..3, columns 1..3 of a row of ids whose first position is masked, so that it is not there for us (same
# test, older)
MASKED_IDS = [345, 232, 328, 740, 140, 1695, 69, 6078, 1588, 2]
MASKED_HIDDEN = {
    None: [[-2.1561, 1.8075, -0.1943], [-2.0813, 1.9855, -0.276], [-2.1181, 2.0043, -0.1322]],
    "retrieval.query": [[-1.5202, 2.4074, -0.9706], [-1.5279, 2.4025, -1.1237], [-1.5252, 2.6143, -0.9416]],
    "retrieval.passage": [[-1.0778, 1.8124, -0.8223], [-1.3796, 1.8108, -0.9868], [-1.1073, 1.9459, -0.8104]],
    "separation": [[-2.3134, 1.9034, 0.1885], [-2.1804, 1.9923, 0.1184], [-2.2325, 2.0251, 0.2533]],
    "classification": [[-1.9793, 2.2602, -0.17995], [-1.878, 2.266, -0.21822], [-1.9202, 2.4457, -0.00022832]],
    "text-matching": [[-1.6952, 1.8568, -0.2258], [-1.6239, 1.9056, -0.2681], [-1.5218, 1.8185, 0.0062]],
}
# First five entries of the unit vector without prompt (fastembed's tests, float32 ONNX)
TEXTS = ("Hello World", "Follow the white rabbit.")
VECTORS = {
    "retrieval.query": [
        [0.0623, -0.0402, 0.1706, -0.0143, 0.0617],
        [-0.1064, -0.0733, 0.0353, 0.0096, 0.0667],
    ],
    "retrieval.passage": [
        [0.0513, -0.0247, 0.1751, -0.0075, 0.0679],
        [-0.0987, -0.0786, 0.09, 0.0087, 0.0577],
    ],
    "separation": [
        [0.094, -0.1065, 0.1305, 0.0547, 0.0556],
        [0.0315, -0.1468, 0.065, 0.0568, 0.0546],
    ],
    "classification": [
        [0.0606, -0.0877, 0.1384, 0.0065, 0.0722],
        [-0.0502, -0.119, 0.032, 0.0514, 0.0689],
    ],
    "text-matching": [
        [0.0911, -0.0341, 0.1305, -0.026, 0.0576],
        [-0.1432, -0.05, 0.0133, 0.0464, 0.0789],
    ],
}


@cache
def embedder(model: str) -> Embedder:
    """The real model without its prompts, which the published numbers leave out."""
    loaded = Embedder.load(model, dtype="float32", device="cpu", accept_license=True)
    loaded.tokenizer = Tokenizer(loaded.tokenizer.rust, replace(loaded.config, task_instructions={}))
    return loaded


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("task", HIDDEN)
def test_hidden_states(model: str, task: str | None) -> None:
    """Three tokens, nine columns, each task and the body."""
    tokens = embedder(model).encode_tokens(SENTENCE, task=task, normalize=False)
    assert tokens.vectors.shape == (17, 1024)
    np.testing.assert_allclose(tokens.vectors[1:4, 1:10], HIDDEN[task], atol=1e-4)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("task", MASKED_HIDDEN)
def test_hidden_states_of_given_ids(model: str, task: str | None) -> None:
    """No tokenizer between: ids straight into the backend. Rotary positions are relative, so the shift by one is
    nothing."""
    loaded = embedder(model)
    hidden = loaded.backend.hidden_states(pack([toy.sequence(MASKED_IDS, loaded.config.task_id(task))]))
    np.testing.assert_allclose(hidden[:3, 1:4], MASKED_HIDDEN[task], atol=1e-4)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("task", VECTORS)
def test_sentence_vectors(model: str, task: str) -> None:
    """Mean-pooled unit vectors."""
    np.testing.assert_allclose(embedder(model).encode(TEXTS, task=task)[:, :5], VECTORS[task], atol=1e-4)
