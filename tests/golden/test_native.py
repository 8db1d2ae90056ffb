"""Against native transformers and PEFT, which share no code with us: random weights, float32, both published
layouts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import JinaEmbeddingsV3Model

from fivefold.checkpoint import convert, load_encoder, write
from fivefold.config import ModelConfig
from fivefold.embedder import Embedder, TorchBackend
from fivefold.model import Encoder
from fivefold.packing import pack
from fivefold.tokenizer import Tokenizer
from tests import toy

pytestmark = pytest.mark.filterwarnings("ignore:Already found a `peft_config`")  # PEFT says so for every second adapter

ATOL = 3e-5
TOY = toy.config(max_position_embeddings=128)
WIDE = toy.config(
    max_position_embeddings=128, hidden_size=1024, num_hidden_layers=4, num_attention_heads=16, intermediate_size=4096
)
TASKS = (None, *TOY.lora_adaptations)
CPU = torch.device("cpu")


class Referee:
    """Native transformers on a `-hf` folder; one active adapter at a time, padded batches."""

    def __init__(self, folder: Path, tasks: tuple[str, ...]) -> None:
        self.model = JinaEmbeddingsV3Model.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager"
        ).eval()
        for task in tasks:
            subfolder = task.replace(".", "_").replace("-", "_")
            self.model.load_adapter(str(folder), adapter_name=subfolder, adapter_kwargs={"subfolder": subfolder})

    @torch.no_grad()
    def hidden(self, rows: list[list[int]], task: str | None) -> list[torch.Tensor]:
        """Hidden states of the valid tokens of each row."""
        if task is None:
            self.model.disable_adapters()
        else:
            self.model.enable_adapters()
            self.model.set_adapter(task.replace(".", "_").replace("-", "_"))
        ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(r) for r in rows], batch_first=True, padding_value=1)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones(len(r)) for r in rows], batch_first=True).long()
        states = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        return [states[i, : len(row)] for i, row in enumerate(rows)]


def small_weights(config: ModelConfig) -> Encoder:
    """Random weights of a real model's size: 0.05 in the body, adapters that visibly matter."""
    encoder = toy.encoder(config, adapters=0.15)
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=0.05 if config.hidden_size > 100 else 0.3)
    return encoder


@pytest.fixture(scope="module", params=[TOY, WIDE], ids=["toy", "wide"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `-hf` folder with random weights and five adapters, written by us."""
    config: ModelConfig = request.param
    path = tmp_path_factory.mktemp("native") / "hf"
    write(path, config, dict(small_weights(config).state_dict()), layout="hf")
    return path


@pytest.fixture(scope="module")
def referee(folder: Path) -> Referee:
    """The folder as native transformers reads it."""
    return Referee(folder, TOY.lora_adaptations)


def rows() -> list[list[int]]:
    """Token rows of very different lengths."""
    rng = np.random.default_rng(0)
    return [[0, *rng.integers(5, TOY.vocab_size, n).tolist(), 2] for n in (1, 30, 7, 60, 7)]


@pytest.mark.parametrize("layout", ["hf", "jina", "transformers"])
@pytest.mark.parametrize("task", TASKS)
def test_hidden_states_of_every_task(
    folder: Path, referee: Referee, layout: str, task: str | None, tmp_path: Path
) -> None:
    """Each task, and the body alone, from each layout."""
    source = folder
    if layout != "hf":
        source = tmp_path / layout
        convert(folder, source, layout=layout)
    encoder = load_encoder(source, dtype=torch.float32, device=CPU)
    task_id = encoder.config.task_id(task)
    found = encoder(pack([toy.sequence(row, task_id) for row in rows()]))
    torch.testing.assert_close(found, torch.cat(referee.hidden(rows(), task)), atol=ATOL, rtol=0)


def test_mixed_tasks_in_one_forward(folder: Path, referee: Referee) -> None:
    """One pack with all tasks equals the referee switching adapters for each row."""
    encoder = load_encoder(folder, dtype=torch.float32, device=CPU)
    pairs = [(row, task) for task in TASKS for row in rows()]
    found = encoder(pack([toy.sequence(row, encoder.config.task_id(task)) for row, task in pairs]))
    expected = torch.cat([state for task in TASKS for state in referee.hidden(rows(), task)])
    torch.testing.assert_close(found, expected, atol=ATOL, rtol=0)


@pytest.mark.parametrize("task", TASKS)
def test_pooled_unit_vectors_at_every_size(folder: Path, referee: Referee, task: str | None) -> None:
    """Text to vector: the tokenizer's ids through the referee, averaged, cut and normalised by hand."""
    encoder = load_encoder(folder, dtype=torch.float32, device=CPU)
    embedder = Embedder(TorchBackend(encoder, CPU), Tokenizer(toy.rust_tokenizer(), encoder.config))
    prompt = encoder.config.prompt(task)
    ids = [toy.rust_tokenizer().encode(prompt + text).ids[: encoder.config.max_length] for text in toy.TEXTS[:4]]
    means = torch.stack([state.double().mean(0) for state in referee.hidden(ids, task)])
    for dims in (1, 2, 8, 17, 31, encoder.config.hidden_size):
        expected = torch.nn.functional.normalize(means[:, :dims], dim=-1).numpy()
        found = embedder.encode(toy.TEXTS[:4], task=task, truncate_dim=dims, truncate=False)
        np.testing.assert_allclose(found, expected, atol=ATOL)
