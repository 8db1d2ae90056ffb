"""What transformers' page on this model shows, in its order, with our import and a small checkpoint."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoTokenizer

import fivefold.interop.transformers as ours
from tests.interop.folders import write_hf


@pytest.fixture(scope="module")
def name(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_hf(tmp_path_factory.mktemp("hf") / "m"))


@pytest.fixture
def tokenizer(name: str, caplog: pytest.LogCaptureFixture) -> Any:
    caplog.set_level(logging.ERROR, "transformers")  # heads that the checkpoint lacks are new, and transformers says so
    return AutoTokenizer.from_pretrained(name)


def test_hidden_states(name: str, tokenizer: Any) -> None:
    model = ours.JinaEmbeddingsV3Model.from_pretrained(name, device_map="auto")
    inputs = tokenizer("The quick brown fox is great for search.", return_tensors="pt").to(model.device)
    with torch.no_grad():
        outputs = model(**inputs)
    assert outputs.last_hidden_state.shape == (*inputs.input_ids.shape, 32)


def test_mean_pooling_with_an_adapter(name: str, tokenizer: Any) -> None:
    sentences = ["The quick brown fox", "jumps over the lazy dog near the river bank."]
    model = ours.JinaEmbeddingsV3Model.from_pretrained(name, device_map="auto")
    encoded = tokenizer(sentences, padding=True, truncation=True, return_tensors="pt").to(model.device)
    task = "text_matching"
    model.load_adapter(name, adapter_name=task, adapter_kwargs={"subfolder": task})
    model.set_adapter(task)
    with torch.no_grad():
        states = model(**encoded)[0]
    mask = encoded["attention_mask"].unsqueeze(-1).expand(states.size()).float()
    pooled = F.normalize((states * mask).sum(1) / mask.sum(1).clamp(min=1e-9), p=2, dim=1)
    torch.testing.assert_close(pooled, model.encode(sentences, task="text-matching", convert_to_tensor=True))


def test_a_model_from_a_configuration() -> None:
    configuration = ours.JinaEmbeddingsV3Config(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2
    )
    assert ours.JinaEmbeddingsV3Model(configuration).config is configuration


def test_masked_lm(name: str, tokenizer: Any) -> None:
    model = ours.JinaEmbeddingsV3ForMaskedLM.from_pretrained(name)
    inputs = tokenizer("The quick <mask> fox", return_tensors="pt")
    with torch.no_grad():
        logits = model(**inputs).logits
    index = (inputs.input_ids == tokenizer.mask_token_id)[0].nonzero(as_tuple=True)[0]
    assert index.numel() == 1
    assert isinstance(tokenizer.decode(logits[0, index].argmax(-1)), str)
    labels = torch.where(inputs.input_ids == tokenizer.mask_token_id, 7, -100)
    expected = -logits[0, index].log_softmax(-1)[0, 7]
    torch.testing.assert_close(model(**inputs, labels=labels).loss, expected)


def test_one_label(name: str, tokenizer: Any) -> None:
    inputs = tokenizer("Hello, my dog is cute", return_tensors="pt")
    model = ours.JinaEmbeddingsV3ForSequenceClassification.from_pretrained(name)
    with torch.no_grad():
        predicted = model(**inputs).logits.argmax().item()
    assert model.config.id2label[predicted] in ("LABEL_0", "LABEL_1")
    model = ours.JinaEmbeddingsV3ForSequenceClassification.from_pretrained(name, num_labels=len(model.config.id2label))
    assert model(**inputs, labels=torch.tensor([1])).loss > 0


def test_many_labels(name: str, tokenizer: Any) -> None:
    problem = "multi_label_classification"
    inputs = tokenizer("Hello, my dog is cute", return_tensors="pt")
    model = ours.JinaEmbeddingsV3ForSequenceClassification.from_pretrained(name, num_labels=3, problem_type=problem)
    with torch.no_grad():
        logits = model(**inputs).logits
    chosen = torch.arange(3)[logits.sigmoid().squeeze(0) > 0.5]
    labels = F.one_hot(chosen, num_classes=3).sum(0, keepdim=True).float()
    assert model(**inputs, labels=labels).loss > 0


def test_token_labels(name: str, tokenizer: Any) -> None:
    model = ours.JinaEmbeddingsV3ForTokenClassification.from_pretrained(name)
    inputs = tokenizer("The fox lives near the river", add_special_tokens=False, return_tensors="pt")
    with torch.no_grad():
        predicted = model(**inputs).logits.argmax(-1)
    assert all(model.config.id2label[label.item()].startswith("LABEL_") for label in predicted[0])
    assert model(**inputs, labels=predicted).loss > 0


def test_answers(name: str, tokenizer: Any) -> None:
    model = ours.JinaEmbeddingsV3ForQuestionAnswering.from_pretrained(name)
    inputs = tokenizer("Who jumps?", "The fox jumps.", return_tensors="pt")
    with torch.no_grad():
        outputs = model(**inputs)
    start, end = outputs.start_logits.argmax(), outputs.end_logits.argmax()
    assert isinstance(tokenizer.decode(inputs.input_ids[0, start : end + 1]), str)
    loss = model(**inputs, start_positions=torch.tensor([4]), end_positions=torch.tensor([5])).loss
    expected = -(outputs.start_logits.log_softmax(-1)[0, 4] + outputs.end_logits.log_softmax(-1)[0, 5]) / 2
    torch.testing.assert_close(loss, expected)
