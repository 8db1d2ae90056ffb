"""A small random checkpoint in the `hf` layout with a tokenizer that transformers reads: what these tests stand on."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer, processors
from transformers import PreTrainedTokenizerFast

from fivefold.checkpoint import write
from fivefold.config import ModelConfig
from fivefold.model import Encoder
from tests import toy


def encoder(config: ModelConfig | None = None) -> Encoder:
    """The weights of `write_hf`."""
    return toy.encoder(config or toy.config())


def write_hf(folder: Path, config: ModelConfig | None = None) -> Path:
    """Base, five PEFT folders, tokenizer."""
    made = encoder(config)
    write(folder, made.config, made.state_dict(), layout="hf")
    rust = Tokenizer.from_str(toy.rust_tokenizer().to_str())
    rust.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    names = {"bos": "<s>", "cls": "<s>", "eos": "</s>", "sep": "</s>", "pad": "<pad>", "unk": "<unk>", "mask": "<mask>"}
    specials = {f"{kind}_token": token for kind, token in names.items()}
    PreTrainedTokenizerFast(tokenizer_object=rust, model_max_length=made.config.max_length, **specials).save_pretrained(
        folder
    )
    return folder
