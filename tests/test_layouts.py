"""The key table: total, one to one, and its cuts undone by its joins."""

from __future__ import annotations

import pytest
import torch

from fivefold.config import ModelConfig
from fivefold.layouts import (
    ADAPTER_FORMS,
    BARE_PLAIN,
    JINA_BANKS,
    JINA_PLAIN,
    JINABERT_FORM,
    MODEL_FORMS,
    OWN_FORM,
    PEFT_FORM,
    QK_POST_NORM_FORM,
    Form,
    Scheme,
    closest,
    folder_name,
    is_bank,
    tensor_shapes,
)
from tests import toy

CONFIG = toy.config()
SHAPES = tensor_shapes(CONFIG)
# The shapes of the models that each form names.
V2_SCHEMES = {Scheme.JINABERT: toy.jinabert_config(), Scheme.QK_POST_NORM: toy.jinabert_config(qk_post_norm=True)}
SHAPES_OF = {f: tensor_shapes(V2_SCHEMES.get(f.scheme, CONFIG)) for f in (*MODEL_FORMS, *ADAPTER_FORMS)}
V3 = ModelConfig(lora_adaptations=CONFIG.lora_adaptations)


@pytest.mark.parametrize("form", MODEL_FORMS)
def test_every_tensor_has_a_place_of_its_own(form: Form) -> None:
    """No two of our tensors share a foreign name, and no column forgets a module."""
    names = [foreign for name in SHAPES_OF[form] for foreign in form.place(name).names]
    assert len(names) == len(set(names)) >= len(SHAPES_OF[form])


@pytest.mark.parametrize("form", [*MODEL_FORMS, *ADAPTER_FORMS])
def test_split_and_join_are_inverse(form: Form) -> None:
    """Parts have the shapes that `Place` foretells, and joined give the tensor again."""
    for name, shape in SHAPES_OF[form].items():
        if form in ADAPTER_FORMS and not is_bank(name):
            continue
        own = torch.randn(shape[1:] if form in ADAPTER_FORMS else shape)
        place = form.place(name)
        if form not in ADAPTER_FORMS and is_bank(name) and len(place.names) > 1:
            continue  # native names hold no banks
        parts = place.split(own)
        assert {tuple(part.shape) for part in parts.values()} == {place.shape(tuple(own.shape))}
        assert torch.equal(place.join(parts[n] for n in place.names), own)


def test_counts_of_the_published_repositories() -> None:
    """492 tensors in the original file, 294 in the -hf base, 294 in each of its adapter files."""
    shapes = tensor_shapes(V3)
    assert len(JINA_BANKS.split({n: torch.empty(s, device="meta") for n, s in shapes.items()})) == 492
    base = {n: torch.empty(s, device="meta") for n, s in shapes.items() if not is_bank(n)}
    assert len(JINA_PLAIN.split(base)) == 294
    terms = {n: torch.empty(s[1:], device="meta") for n, s in shapes.items() if is_bank(n)}
    assert len(PEFT_FORM.split(terms)) == 294


@pytest.mark.parametrize(
    ("form", "own", "foreign"),
    [
        (JINA_BANKS, "embeddings.norm.bias", ("roberta.emb_ln.bias",)),
        (
            JINA_BANKS,
            "layers.7.attention.Wqkv.weight",
            ("roberta.encoder.layers.7.mixer.Wqkv.parametrizations.weight.original",),
        ),
        (
            JINA_BANKS,
            "embeddings.word_embeddings.lora_A",
            ("roberta.embeddings.word_embeddings.parametrizations.weight.0.lora_A",),
        ),
        (BARE_PLAIN, "layers.11.mlp.fc2.bias", ("encoder.layers.11.mlp.fc2.bias",)),
        (Form(Scheme.NATIVE), "layers.1.norm2.weight", ("layers.1.post_mlp_layernorm.weight",)),
        (QK_POST_NORM_FORM, "layers.1.skip_norm.weight", ("encoder.layer.1.layer_norm_1.weight",)),
        (QK_POST_NORM_FORM, "layers.1.norm1.weight", ("encoder.layer.1.attention.output.LayerNorm.weight",)),
        (JINABERT_FORM, "layers.1.norm2.weight", ("encoder.layer.1.mlp.layernorm.weight",)),
        (PEFT_FORM, "layers.3.attention.out_proj.lora_B", ("roberta.encoder.layers.3.mixer.out_proj.lora_B.weight",)),
        (PEFT_FORM, "embeddings.word_embeddings.lora_B", ("roberta.embeddings.word_embeddings.lora_embedding_B",)),
        (
            PEFT_FORM,
            "layers.0.attention.Wqkv.lora_A",
            tuple(f"roberta.encoder.layers.0.self_attn.{x}_proj.lora_A.weight" for x in "qkv"),
        ),
    ],
)
def test_published_names(form: Form, own: str, foreign: tuple[str, ...]) -> None:
    """Names as the published files have them."""
    assert form.place(own).names == foreign


def test_the_gate_lies_in_the_first_half_with_us() -> None:
    """And in the second one in the variant with normalised queries and keys."""
    rows = torch.arange(6.0)[:, None]
    for form, order in ((JINABERT_FORM, [0, 1, 2, 3, 4, 5]), (QK_POST_NORM_FORM, [3, 4, 5, 0, 1, 2])):
        (foreign,) = form.place("layers.0.mlp.fc1.weight").split(rows).values()
        assert foreign.flatten().tolist() == order


def test_the_closest_form_survives_a_missing_tensor() -> None:
    """A file that lacks a tensor is still known by the rest; one with nothing in common is not."""
    found = {f for name in SHAPES if not is_bank(name) for f in Form(Scheme.NATIVE).place(name).names}
    assert closest(MODEL_FORMS, SHAPES, found - {"embeddings.LayerNorm.weight"}) == Form(Scheme.NATIVE)
    assert closest(MODEL_FORMS, SHAPES, set(SHAPES)) == OWN_FORM
    assert closest(MODEL_FORMS, SHAPES, {"something.else"}) is None


def test_folder_names() -> None:
    """Dots and hyphens of task names become underscores."""
    assert [folder_name(task) for task in CONFIG.lora_adaptations] == [
        "retrieval_query",
        "retrieval_passage",
        "separation",
        "classification",
        "text_matching",
    ]
