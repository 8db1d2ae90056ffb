"""JinaBERT's transformers classes: the body and all heads against a reference written out, and what people do with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModel, AutoModelForMaskedLM, PreTrainedTokenizerFast

from fivefold import Embedder
from fivefold.checkpoint import convert, detect_layout
from fivefold.errors import CheckpointError
from fivefold.interop import jinabert as ours
from tests import toy
from tests.golden.test_jinabert import GOLDEN, ROWS, TOLERANCE, formula_folder
from tests.interop import jinabert_reference as reference

VARIANTS = {
    "first": {"num_attention_heads": 4},
    "first, reglu": {"num_attention_heads": 6, "feed_forward_type": "reglu"},
    "qk-post-norm": {"num_attention_heads": 4, "qk_post_norm": True},
}
HEADS = [cls for _, cls in ours.AUTO_CLASSES[1:]]
SIDES = {"right": [[1] * 7, [1] * 4 + [0] * 3], "left": [[1] * 7, [0] * 3 + [1] * 4], "none": [[1] * 7] * 2}


def config(variant: str = "first", **changes: Any) -> ours.JinaBertConfig:
    values: dict[str, Any] = {
        "vocab_size": 400,
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "intermediate_size": 20,
        "type_vocab_size": 3,
        "emb_pooler": "mean",
    }
    return ours.JinaBertConfig(**{**values, **VARIANTS[variant], **changes})


def model(cls: Any, made: ours.JinaBertConfig, *, seed: int = 0) -> Any:
    """Random weights, large enough that everything matters."""
    torch.manual_seed(seed)
    made_model = cls(made).eval()
    with torch.no_grad():
        for name, parameter in made_model.named_parameters():
            norm = "norm" in name.lower()
            parameter.add_(torch.randn_like(parameter) * (0.1 if norm or name.endswith("bias") else 0.3))
    return made_model


def inputs(side: str = "right") -> reference.Inputs:
    torch.manual_seed(1)
    shape = (2, 7)
    return reference.Inputs(torch.randint(5, 400, shape), torch.randint(0, 3, shape), torch.tensor(SIDES[side]))


def named(given: reference.Inputs) -> dict[str, Tensor]:
    return {"input_ids": given.ids, "attention_mask": given.mask, "token_type_ids": given.types}


def tensors(made: torch.nn.Module) -> dict[str, Tensor]:
    return {name.removeprefix("bert."): tensor for name, tensor in made.state_dict().items()}


def expected_body(made: Any, given: reference.Inputs, *, causal: bool = False) -> tuple[list[Tensor], list[Tensor]]:
    c = made.config
    shape = {"heads": c.num_attention_heads, "layers": c.num_hidden_layers, "act": c.feed_forward_type}
    return reference.body(tensors(made), given, causal=causal, **shape)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=2e-5)


# ---- the body -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_hidden_states(variant: str, side: str, attention: str) -> None:
    """Every layer's, at every token, padding included."""
    made, given = model(ours.JinaBertModel, config(variant, attn_implementation=attention)), inputs(side)
    states, probabilities = expected_body(made, given)
    found = made(**named(given), output_hidden_states=True, output_attentions=attention == "eager")
    assert len(found.hidden_states) == len(states)
    for mine, theirs in zip(found.hidden_states, states, strict=True):
        close(mine, theirs)
    close(found.pooler_output, reference.pooled(tensors(made), states[-1]))
    if attention == "eager":
        for mine, theirs in zip(found.attentions, probabilities, strict=True):
            close(mine, theirs)


@torch.no_grad()
def test_other_ways_in_and_out() -> None:
    """Embeddings for ids, positions that change nothing, a mask for every pair, tuples, no pooler, neither and both."""
    made, given = model(ours.JinaBertModel, config()), inputs()
    expected = made(**named(given)).last_hidden_state
    rows = made.get_input_embeddings()(given.ids)
    rest = {"attention_mask": given.mask, "token_type_ids": given.types}
    close(made(inputs_embeds=rows, **rest).last_hidden_state, expected)
    close(made(**named(given), position_ids=torch.arange(7)[None] + 3).last_hidden_state, expected)
    pairs = given.mask[:, None].expand(-1, 7, -1)
    close(made(given.ids, pairs, given.types).last_hidden_state, expected)
    close(made(**named(given), return_dict=False)[0], expected)
    assert ours.JinaBertModel(config(), add_pooling_layer=False)(given.ids).pooler_output is None
    for wrong in ({}, {"input_ids": given.ids, "inputs_embeds": rows}):
        with pytest.raises(ValueError, match="exactly one of input_ids or inputs_embeds"):
            made(**wrong)


@torch.no_grad()
def test_a_decoder_never_looks_ahead() -> None:
    made, given = model(ours.JinaBertModel, config(is_decoder=True)), inputs()
    close(made(**named(given)).last_hidden_state, expected_body(made, given, causal=True)[0][-1])


def test_generating_takes_no_cache() -> None:
    """Said, rather than giving the wrong tokens: each is the likeliest after all before it."""
    made = model(ours.JinaBertLMHeadModel, config(is_decoder=True, eos_token_id=None))
    start = inputs().ids[:1]
    with pytest.raises(ValueError, match="pass use_cache=False"):
        made.generate(start, max_new_tokens=2, do_sample=False)
    found = made.generate(start, max_new_tokens=3, do_sample=False, use_cache=False)
    expected = start
    for _ in range(3):
        expected = torch.cat([expected, made(expected).logits[:, -1:].argmax(-1)], 1)
    assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients(variant: str) -> None:
    """Of all parameters, with and without checkpointing."""
    made, given = model(ours.JinaBertModel, config(variant, hidden_dropout_prob=0.0)), inputs()
    made(**named(given)).last_hidden_state.square().sum().backward()
    found = {name: p.grad.clone() for name, p in made.named_parameters() if p.grad is not None}
    made.zero_grad()
    made.train()
    getattr(made, "activation_checkpointing_enable", made.gradient_checkpointing_enable)()  # the newest name first
    made(**named(given)).last_hidden_state.square().sum().backward()
    t = {name: p.detach().clone().requires_grad_() for name, p in tensors(made).items()}
    c = made.config
    states, _ = reference.body(t, given, heads=c.num_attention_heads, layers=2, act=c.feed_forward_type)
    states[-1].square().sum().backward()
    assert set(found) == {name for name in t if not name.startswith("pooler")}
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, t[name].grad, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(made.get_parameter(name).grad, gradient, atol=1e-5, rtol=1e-5)


# ---- the heads ------------------------------------------------------------------------------------------------------


def expected_outputs(cls: Any, made: Any, given: reference.Inputs, labels: dict[str, Tensor]) -> dict[str, Tensor]:
    """What each head gives, and its loss, by hand."""
    t, hidden = tensors(made), expected_body(made, given)[0][-1]
    entropy = reference.cross_entropy
    if cls is ours.JinaBertForPreTraining:
        words = reference.predictions(t, hidden)
        follows = reference.linear(t, "cls.seq_relationship", reference.pooled(t, hidden))
        loss = entropy(words, labels["labels"]) + entropy(follows, labels["next_sentence_label"])
        return {"loss": loss, "prediction_logits": words, "seq_relationship_logits": follows}
    if cls is ours.JinaBertLMHeadModel:
        words = reference.predictions(t, hidden)
        return {"loss": entropy(words[:, :-1], labels["labels"][:, 1:]), "logits": words}
    if cls is ours.JinaBertForQuestionAnswering:
        start, end = reference.linear(t, "qa_outputs", hidden).unbind(-1)
        loss = (entropy(start, labels["start_positions"]) + entropy(end, labels["end_positions"])) / 2
        return {"loss": loss, "start_logits": start, "end_logits": end}
    if cls is ours.JinaBertForMaskedLM:
        logits = reference.predictions(t, hidden)
    elif cls is ours.JinaBertForNextSentencePrediction:
        logits = reference.linear(t, "cls.seq_relationship", reference.pooled(t, hidden))
    elif cls is ours.JinaBertForTokenClassification:
        logits = reference.linear(t, "classifier", hidden)
    else:
        logits = reference.linear(t, "classifier", reference.pooled(t, hidden))
    return {"loss": entropy(logits, labels["labels"]), "logits": logits}


def labels_for(cls: Any) -> dict[str, Tensor]:
    words = torch.tensor([[9, -100, 7, 8, -100, 5, 6], [-100, 9, 9, -100, 300, -100, 4]])
    return {
        ours.JinaBertForPreTraining: {"labels": words, "next_sentence_label": torch.tensor([0, 1])},
        ours.JinaBertLMHeadModel: {"labels": words},
        ours.JinaBertForMaskedLM: {"labels": words},
        ours.JinaBertForNextSentencePrediction: {"labels": torch.tensor([1, 1])},
        ours.JinaBertForSequenceClassification: {"labels": torch.tensor([2, 0])},
        ours.JinaBertForTokenClassification: {"labels": words.clamp(max=2)},
        ours.JinaBertForQuestionAnswering: {
            "start_positions": torch.tensor([1, 0]),
            "end_positions": torch.tensor([5, 6]),
        },
    }[cls]


@pytest.mark.parametrize("variant", ["first", "qk-post-norm"])
@pytest.mark.parametrize("cls", [h for h in HEADS if h is not ours.JinaBertForMultipleChoice], ids=lambda c: c.__name__)
@torch.no_grad()
def test_heads(cls: Any, variant: str) -> None:
    """Scores and losses."""
    made, given, labels = model(cls, config(variant, num_labels=3)), inputs(), labels_for(cls)
    found = made(**named(given), **labels)
    for name, expected in expected_outputs(cls, made, given, labels).items():
        close(found[name], expected)


@torch.no_grad()
def test_multiple_choice() -> None:
    """One score for each of the choices [B, C, L], and a choice among them."""
    made, given = model(ours.JinaBertForMultipleChoice, config()), inputs()
    t = tensors(made)
    scores = reference.linear(t, "classifier", reference.pooled(t, expected_body(made, given)[0][-1])).view(1, 2)
    found = made(**{name: x[None] for name, x in named(given).items()}, labels=torch.tensor([1]))
    close(found.logits, scores)
    close(found.loss, reference.cross_entropy(scores, torch.tensor([1])))


@pytest.mark.parametrize(
    ("num_labels", "labels", "loss"),
    [
        (1, torch.tensor([0.5, -1.0]), lambda s, y: F.mse_loss(s[:, 0], y)),
        (3, torch.tensor([[1.0, 0, 1], [0, 0, 1]]), F.binary_cross_entropy_with_logits),
    ],
)
@torch.no_grad()
def test_kinds_of_sequence_labels(num_labels: int, labels: Tensor, loss: Any) -> None:
    """Values, and several classes at once; one class stands above."""
    made = model(ours.JinaBertForSequenceClassification, config(num_labels=num_labels))
    found = made(**named(inputs()), labels=labels)
    close(found.loss, loss(found.logits, labels))


@pytest.mark.parametrize("cls", [ours.JinaBertForPreTraining, ours.JinaBertLMHeadModel, ours.JinaBertForMaskedLM])
def test_the_decoder_is_the_word_table(cls: Any, tmp_path: Path) -> None:
    """Tied when made, when saved and loaded, and when resized."""
    made = model(cls, config())
    made.save_pretrained(tmp_path)
    assert not [name for name in load_file(tmp_path / "model.safetensors") if "decoder" in name]
    loaded = cls.from_pretrained(tmp_path)
    for one in (made, loaded):
        assert one.get_output_embeddings().weight is one.get_input_embeddings().weight
    loaded.resize_token_embeddings(410)
    assert loaded(torch.tensor([[409]]))[0].shape[-1] == 410
    assert loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight


# ---- files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "bert."])
@pytest.mark.parametrize("setting", GOLDEN)
@torch.no_grad()
def test_published_folders_load(setting: str, prefix: str, tmp_path: Path) -> None:
    """The golden numbers once more, by `from_pretrained`; the variant comes from the code that the config names."""
    path = formula_folder(tmp_path, setting, prefix=prefix) / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "attn_implementation": "torch"}))
    made = ours.JinaBertModel.from_pretrained(tmp_path, add_pooling_layer="pooler" in GOLDEN[setting])
    first, second = ROWS[setting[0]]
    pad = 0 if setting[0] == "A" else 1
    ids = torch.tensor([first, [*second, pad, pad]])
    hidden = made(ids, attention_mask=(ids != pad).long()).last_hidden_state
    found = torch.stack([hidden[0, 0], hidden[0, 4], hidden[1, 3]])[:, :6]
    np.testing.assert_allclose(found, GOLDEN[setting]["hidden"], atol=TOLERANCE)


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_saved_models_load_everywhere(variant: str, tmp_path: Path) -> None:
    """As the same class, as another head's body, through Auto classes, in `Embedder`, and converted there and back."""
    made, given = model(ours.JinaBertForMaskedLM, config(variant)), inputs()
    made.save_pretrained(tmp_path / "a")
    expected = made(**named(given)).logits
    close(ours.JinaBertForMaskedLM.from_pretrained(tmp_path / "a")(**named(given)).logits, expected)
    ours.register()
    assert type(AutoModelForMaskedLM.from_pretrained(tmp_path / "a")) is ours.JinaBertForMaskedLM
    assert detect_layout(tmp_path / "a") == "jinabert"
    convert(tmp_path / "a", tmp_path / "own", layout="fivefold")
    convert(tmp_path / "own", tmp_path / "b", layout="jinabert")
    body = ours.JinaBertModel.from_pretrained(tmp_path / "b", add_pooling_layer=False)
    close(body(**named(given)).last_hidden_state, made.bert(**named(given)).last_hidden_state)


def test_what_is_refused() -> None:
    """Positions and feed-forwards of other models, cross-attention, kernels without a bias."""
    for changes in ({"position_embedding_type": "absolute"}, {"feed_forward_type": "original"}):
        with pytest.raises(CheckpointError, match="alibi positions and geglu or reglu"):
            ours.JinaBertModel(config(**changes))
    with pytest.raises(CheckpointError, match="no cross-attention"):
        ours.JinaBertModel(config(add_cross_attention=True))
    with pytest.raises(ValueError, match="no cross-attention"):
        ours.JinaBertModel(config())(inputs().ids, encoder_hidden_states=torch.zeros(2, 7, 24))
    with pytest.raises(ValueError, match="lex"):
        ours.JinaBertModel(config(attn_implementation="flex_attention"))


# ---- encode ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A body with a tokenizer, as `from_pretrained` and `Embedder.load` want it."""
    path = tmp_path_factory.mktemp("jinabert")
    model(ours.JinaBertModel, config(max_position_embeddings=128)).save_pretrained(path)
    special = {"pad_token": "<pad>", "unk_token": "<unk>", "model_max_length": 128}
    PreTrainedTokenizerFast(tokenizer_object=toy.rust_tokenizer(), **special).save_pretrained(path)
    return path


def test_encode_has_the_defaults_of_v2(folder: Path) -> None:
    """float32 arrays in the order given, not of unit length unless asked; equal to `Embedder`."""
    made = ours.JinaBertModel.from_pretrained(folder)
    found = made.encode(toy.TEXTS, batch_size=3)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, Embedder.load(folder).encode(toy.TEXTS, normalize=False), atol=2e-5)
    assert not np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-2)
    unit = made.encode(toy.TEXTS[0], normalize_embeddings=True, convert_to_tensor=True)
    assert unit.shape == (24,)
    close(unit, F.normalize(torch.tensor(found[0]), dim=0))


def test_encode_has_neither_tasks_nor_smaller_vectors(folder: Path) -> None:
    made = ours.JinaBertModel.from_pretrained(folder)
    for option in ({"task": None}, {"truncate_dim": 8}):
        with pytest.raises(TypeError, match="multiple values"):
            made.encode("a text", **option)


def test_encode_says_when_it_chooses_the_pooling(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = ours.JinaBertModel.from_pretrained(folder, emb_pooler=None)
    made.encode("a text", max_length=8)
    assert "defaulting to mean pooling" in caplog.text


def test_auto_model(folder: Path) -> None:
    ours.register()
    assert type(AutoModel.from_pretrained(folder)) is ours.JinaBertModel
