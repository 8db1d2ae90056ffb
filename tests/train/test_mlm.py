"""train/mlm.py: a body there and back through the library's class with its head."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fivefold.interop.transformers import JinaEmbeddingsV3ForMaskedLM
from fivefold.train.loop import Run, Schedule
from fivefold.train.mlm import fit_masked
from tests import toy
from tests.train import toys

pytestmark = pytest.mark.filterwarnings("ignore")  # of the trainer


@pytest.fixture(autouse=True)
def one_thread(threads: None) -> None:
    """Vectors of 32 dimensions are not worth several, and on a busy machine these wait for each other."""
    torch.set_num_threads(1)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("pooler", [False, True])
def test_all_of_a_body_learns_but_its_pooler(pooler: bool, recompute: bool, tmp_path: Path) -> None:
    """No hidden word is guessed from that, but the folder that is written has it again."""
    encoder = toy.encoder(toy.config(pooler=pooler, lora_adaptations=(), task_instructions={}))
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    run = Run(tmp_path, cpu=True, log_steps=1, save_steps=1000, recompute=recompute)
    after = fit_masked(encoder, toy.rust_tokenizer(), toys.sentences(8), schedule=Schedule(2, 1e-2, 8), run=run)
    assert after.keys() == before.keys() and any(name.startswith("pooler.") for name in after) is pooler
    for name, tensor in before.items():
        assert after[name].shape == tensor.shape and after[name].dtype == tensor.dtype
        assert torch.equal(after[name], tensor) is name.startswith("pooler."), name
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())


def test_the_model_with_its_head_is_left_for_transformers(tmp_path: Path) -> None:
    encoder = toy.encoder(toy.config(lora_adaptations=(), task_instructions={}))
    run = Run(tmp_path, cpu=True, log_steps=1, save_steps=1000)
    after = fit_masked(encoder, toy.rust_tokenizer(), toys.sentences(8), schedule=Schedule(1, 1e-2, 8), run=run)
    model = JinaEmbeddingsV3ForMaskedLM.from_pretrained(tmp_path / "masked-lm")
    words = model.get_input_embeddings().weight
    assert torch.equal(words, after["embeddings.word_embeddings.weight"])
    assert model.get_output_embeddings().weight is words
