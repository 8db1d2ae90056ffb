"""Our transformers classes against native ones of the same weights, and the checks transformers makes of every model."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import nn
from transformers import CONFIG_MAPPING, AutoConfig, AutoModel, pipeline

import fivefold.interop.transformers as ours
from fivefold.checkpoint import load_encoder, write
from fivefold.errors import CheckpointError
from fivefold.packing import pack
from tests import toy
from tests.interop.folders import encoder, write_hf

B, L, V = 3, 9, 50
IDS = torch.randint(2, V, (B, L), generator=torch.Generator().manual_seed(0))
MASK = torch.ones(B, L, dtype=torch.long)
MASK[0, 6:] = MASK[1, :4] = 0  # padded right, left, not at all
TYPES = torch.arange(L)[None].expand(B, -1) % 2
CLASSES = torch.tensor([2, 0, 1])

LABELS: dict[str, dict[str, torch.Tensor]] = {
    "Model": {},
    "ForMaskedLM": {"labels": IDS},
    "ForSequenceClassification": {"labels": CLASSES},
    "ForTokenClassification": {"labels": IDS % 3},
    "ForQuestionAnswering": {"start_positions": CLASSES, "end_positions": CLASSES + 8},
}
NAMES = tuple(LABELS)


def config(name: str = "Model", **changes: Any) -> Any:
    sizes = {
        "vocab_size": V,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 40,
    }
    labels = 2 if name == "ForQuestionAnswering" else 3
    limits = {"max_position_embeddings": 64, "type_vocab_size": 2, "initializer_range": 0.3, "num_labels": labels}
    return ours.JinaEmbeddingsV3Config(**{**sizes, **limits, **changes})


def model(name: str, library: Any = ours, *, eager: bool = False, **changes: Any) -> Any:
    torch.manual_seed(0)
    made = getattr(library, f"JinaEmbeddingsV3{name}")(config(name, **changes)).eval()
    made.set_attn_implementation("eager" if eager else "sdpa")
    return made


def pair(name: str, *, eager: bool = False, **changes: Any) -> tuple[Any, Any]:
    """Native and ours, with the same weights."""
    native, own = (model(name, library, eager=eager, **changes) for library in (transformers, ours))
    own.load_state_dict(native.state_dict())
    return native, own


def same(found: Any, expected: Any, atol: float) -> None:
    assert list(found) == list(expected)
    torch.testing.assert_close(dict(found), dict(expected), atol=atol, rtol=0)


def scalar(output: Any) -> torch.Tensor:
    return output.loss if "loss" in output else (output.last_hidden_state**2).mean() + output.pooler_output.sum()


def words_of(native: Any) -> torch.Tensor:
    return native.get_input_embeddings()(IDS).detach() * 1.5


# ---- parity with native transformers --------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("eager", [True, False], ids=["eager", "sdpa"])
@pytest.mark.parametrize("name", NAMES)
def test_outputs_losses_and_gradients(name: str, eager: bool, training: bool) -> None:
    """Even dropout draws the same numbers, so training steps agree too."""
    results = []
    for each in pair(name, eager=eager):
        torch.manual_seed(1)
        output = each.train(training)(
            IDS, attention_mask=MASK, output_hidden_states=True, output_attentions=eager, **LABELS[name]
        )
        scalar(output).backward()
        results.append((output, {key: p.grad for key, p in each.named_parameters()}))
    (expected, gradients), (found, own_gradients) = results
    assert len(found.hidden_states) == 3 and len(found.get("attentions", (0, 0))) == 2
    same(found, expected, 2e-5)
    assert own_gradients.keys() == gradients.keys()
    torch.testing.assert_close(own_gradients, gradients, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "inputs",
    [
        {"input_ids": IDS},
        {"input_ids": IDS, "attention_mask": MASK, "token_type_ids": TYPES},
        {"input_ids": IDS, "attention_mask": MASK, "position_ids": IDS % 40},
        {"input_ids": IDS, "attention_mask": MASK[:, None, None].expand(-1, 1, L, -1).bool()},
        {"input_ids": None, "attention_mask": MASK},
    ],
    ids=["ids alone", "token_type_ids", "position_ids", "a mask of four axes", "inputs_embeds"],
)
def test_every_input(inputs: dict[str, Any]) -> None:
    native, own = pair("Model")
    if inputs["input_ids"] is None:
        inputs = {**inputs, "inputs_embeds": words_of(native)}
    with torch.no_grad():
        same(own(**inputs), native(**inputs), 2e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 20000.0, "factor": 4.0}},
        {
            "rope_parameters": {"rope_type": "dynamic", "rope_theta": 20000.0, "factor": 4.0},
            "max_position_embeddings": 6,
        },
        {"rope_parameters": {"rope_type": "yarn", "rope_theta": 20000.0, "factor": 4.0}},
        {"hidden_act": "relu"},
        {"head_dim": 6},
        {"pad_token_id": None},
    ],
    ids=str,
)
def test_every_configuration(changes: dict[str, Any]) -> None:
    native, own = pair("Model", **copy.deepcopy(changes))
    with torch.no_grad():
        inputs = IDS, MASK, TYPES, torch.arange(L)[None]  # the native class of 5.4 has no defaults past the limit
        same(own(*inputs), native(*inputs), 2e-5)


@pytest.mark.parametrize(
    ("num_labels", "labels", "problem"),
    [
        (1, torch.tensor([0.5, -1.0, 2.0]), "regression"),
        (3, torch.rand(3, 3), "multi_label_classification"),
        (3, CLASSES, "single_label_classification"),
    ],
)
def test_problem_types(num_labels: int, labels: torch.Tensor, problem: str) -> None:
    native, own = pair("ForSequenceClassification", num_labels=num_labels)
    torch.testing.assert_close(own(IDS, labels=labels).loss, native(IDS, labels=labels).loss)
    assert own.config.problem_type == native.config.problem_type == problem


def test_both_inputs_or_neither_is_an_error() -> None:
    own = model("Model")
    for inputs in ({}, {"input_ids": IDS, "inputs_embeds": words_of(own)}):
        with pytest.raises(ValueError, match="exactly one of input_ids or inputs_embeds"):
            own(**inputs)


# ---- the checks transformers makes of every model -------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_files_are_natives_own(name: str, tmp_path: Path) -> None:
    """Each library reads what the other saves, the files are alike byte for byte, and nothing is lost on the way."""
    native, own = pair(name)
    native.save_pretrained(tmp_path / "native")
    own.save_pretrained(tmp_path / "own")
    for file in ("model.safetensors", "config.json"):
        assert (tmp_path / "native" / file).read_bytes() == (tmp_path / "own" / file).read_bytes()
    again, info = type(own).from_pretrained(tmp_path / "native", output_loading_info=True)
    assert not any(info.values())
    torch.testing.assert_close(dict(again.state_dict()), dict(native.state_dict()), atol=0, rtol=0)


def test_a_head_model_reads_the_body_and_the_body_a_head_model(tmp_path: Path) -> None:
    body = model("Model")
    body.save_pretrained(tmp_path / "body")
    head = ours.JinaEmbeddingsV3ForMaskedLM.from_pretrained(tmp_path / "body")
    assert torch.equal(head.roberta(IDS).last_hidden_state, body(IDS).last_hidden_state)
    head.save_pretrained(tmp_path / "head")
    again = ours.JinaEmbeddingsV3Model.from_pretrained(tmp_path / "head")
    assert torch.equal(again(IDS).last_hidden_state, body(IDS).last_hidden_state)


def test_the_published_layout_is_read_as_our_encoder_reads_it(tmp_path: Path) -> None:
    folder = write_hf(tmp_path / "m")
    core = load_encoder(folder, dtype=torch.float32, device=torch.device("cpu"))
    for device_map in (None, "cpu"):
        own = ours.JinaEmbeddingsV3Model.from_pretrained(folder, device_map=device_map)
        found = own(IDS[:1]).last_hidden_state[0]
        torch.testing.assert_close(found, core(pack([toy.sequence(IDS[0].tolist())])), atol=2e-5, rtol=0)


def test_the_decoder_is_the_word_table(tmp_path: Path) -> None:
    own = model("ForMaskedLM")
    assert own.lm_head.decoder.weight is own.roberta.embeddings.word_embeddings.weight
    assert own.lm_head.decoder.bias is own.lm_head.bias
    own.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    assert "lm_head.bias" in saved and not any("decoder" in key for key in saved)
    own.resize_token_embeddings(V + 5)
    assert own.lm_head.decoder.weight is own.roberta.embeddings.word_embeddings.weight
    assert own.config.vocab_size == V + 5


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("size", [V + 7, V - 9])
def test_resizing_keeps_the_rows_that_stay(size: int, tied: bool) -> None:
    own = model("ForMaskedLM", tie_word_embeddings=tied)
    ids = IDS.clamp(max=V - 10)
    with torch.no_grad():
        before, kept = own(ids).logits, min(size, V)
    own.resize_token_embeddings(size)
    after = own(ids, labels=ids)
    assert after.logits.shape == (B, L, size)
    torch.testing.assert_close(after.logits[..., :kept], before[..., :kept])
    after.loss.backward()


def test_word_tables_can_be_set() -> None:
    own = model("ForMaskedLM")
    table, decoder = nn.Embedding(10, 32), nn.Linear(32, 10)
    own.set_input_embeddings(table)
    own.set_output_embeddings(decoder)
    assert own.get_input_embeddings() is table and own.get_output_embeddings() is decoder
    assert own(IDS % 10).logits.shape == (B, L, 10)


@pytest.mark.parametrize("name", NAMES)
def test_start_values(name: str) -> None:
    """Also when nothing is in the file and the model is made on the meta device first."""
    cls = type(model(name))
    for made in (model(name), cls.from_pretrained(None, config=config(name), state_dict={})):
        for key, parameter in made.named_parameters():
            norm = "norm" in key.lower()
            if key.endswith("bias"):
                assert not parameter.any(), key
            elif norm:
                assert (parameter == 1).all(), key
            else:
                assert 0.2 < parameter.std() < 0.4, key
        assert not made.get_input_embeddings().weight[1].any()


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated")  # the only name in 5.4
@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_gradient_checkpointing(name: str, reentrant: bool) -> None:
    gradients, runs = [], []
    for checkpointing in (False, True):
        own = model(name)
        if checkpointing:
            own.gradient_checkpointing_enable({"use_reentrant": reentrant})
            own.base_model.layers[0].mlp.register_forward_hook(lambda *_: runs.append(1))
        torch.manual_seed(1)
        scalar(own.train()(IDS, attention_mask=MASK, **LABELS[name])).backward()
        gradients.append({key: p.grad for key, p in own.named_parameters()})
    torch.testing.assert_close(*gradients)
    assert len(runs) == 2, "backward computes the layer again"


@pytest.mark.parametrize("name", NAMES)
def test_tuples_hold_what_dicts_do(name: str) -> None:
    own, wants = model(name, eager=True), {"output_hidden_states": True, "output_attentions": True}
    by_name = own(IDS, **LABELS[name], **wants)
    as_tuple = own(IDS, **LABELS[name], **wants, return_dict=False)
    assert isinstance(as_tuple, tuple)
    torch.testing.assert_close(as_tuple, by_name.to_tuple())
    own.config.return_dict = False
    assert isinstance(own(IDS), tuple)


@pytest.mark.parametrize("name", NAMES)
def test_eager_equals_sdpa_and_twice_is_the_same(name: str) -> None:
    own = model(name)
    first, second = own(IDS, attention_mask=MASK), own(IDS, attention_mask=MASK)
    torch.testing.assert_close(dict(first), dict(second), atol=0, rtol=0)
    own.set_attn_implementation("eager")
    same(own(IDS, attention_mask=MASK), first, 2e-5)


def test_padding_left_and_right_change_nothing() -> None:
    own = model("Model")
    alone = own(IDS[:1, :5]).last_hidden_state[0]
    row, mask = torch.ones(2, 8, dtype=torch.long), torch.zeros(2, 8, dtype=torch.long)
    row[0, 3:] = row[1, :5] = IDS[0, :5]
    mask[0, 3:] = mask[1, :5] = 1
    left, right = own(row, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(left[3:], alone, atol=2e-5, rtol=0)
    torch.testing.assert_close(right[:5], alone, atol=2e-5, rtol=0)


def test_gradients_reach_what_was_recorded() -> None:
    own = model("Model", eager=True)
    output = own(IDS, output_hidden_states=True, output_attentions=True)
    recorded = (output.hidden_states[0], output.attentions[0])
    for tensor in recorded:
        tensor.retain_grad()
    output.last_hidden_state[0, 0, 0].backward()
    assert all(tensor.grad is not None and tensor.grad.any() for tensor in recorded)


def test_without_a_pooler() -> None:
    own = ours.JinaEmbeddingsV3Model(config(), add_pooling_layer=False)
    assert own(IDS).pooler_output is None and not any("pooler" in key for key in own.state_dict())


# ---- Auto classes and pipelines -------------------------------------------------------------------------------------


@pytest.fixture
def registered() -> Iterator[None]:
    ours.register()
    yield
    for auto, _ in ours.AUTO_CLASSES:
        auto._model_mapping._extra_content.pop(ours.JinaEmbeddingsV3Config)
    CONFIG_MAPPING._extra_content.pop("jina_embeddings_v3")


def test_auto_classes_give_ours_only_when_asked() -> None:
    native = transformers.JinaEmbeddingsV3Config(**config().to_dict())
    assert type(AutoModel.from_config(native)) is transformers.JinaEmbeddingsV3Model


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    ("task", "text", "name"),
    [
        ("feature-extraction", "Der Fuchs", "Model"),
        ("fill-mask", "Der <mask> Fuchs", "ForMaskedLM"),
        ("text-classification", "Der Fuchs", "ForSequenceClassification"),
        ("token-classification", "Der Fuchs", "ForTokenClassification"),
    ],
)
def test_pipelines(task: Any, text: str, name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)  # heads that the checkpoint lacks are new, and transformers says so
    folder = write_hf(tmp_path / "m", encoder().config)
    assert type(AutoConfig.from_pretrained(folder)) is ours.JinaEmbeddingsV3Config
    run = pipeline(task, model=str(folder), device="cpu")
    assert type(run.model) is getattr(ours, f"JinaEmbeddingsV3{name}")
    assert len(run(text)) > 0


@pytest.mark.parametrize("layout", ["jina", "fivefold"])
def test_another_layout_is_refused(tmp_path: Path, layout: str) -> None:
    """transformers would warn and leave the weights at random."""
    made = encoder()
    write(tmp_path, made.config, made.state_dict(), layout=layout)
    with pytest.raises(CheckpointError, match="fivefold convert"):
        ours.JinaEmbeddingsV3Model.from_pretrained(tmp_path)
