"""transformers' classes for JinaBERT, the jina-embeddings-v2 models, on our backbone, without remote code.

Names, arguments, outputs and files are those of the code published with v2. Heads and losses are those of transformers'
BERT, as they were there, around another body; `fivefold/interop/jinabert_rows.py` holds its layers. `register()` makes
`AutoModel` choose these classes where a config.json says `jina_bert`, as those written here do.

Shapes: B rows, L tokens of a row, D hidden.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForMultipleChoice,
    AutoModelForNextSentencePrediction,
    AutoModelForPreTraining,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    BertConfig,
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForNextSentencePrediction,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertLMHeadModel,
    BertPreTrainedModel,
)
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndCrossAttentions
from transformers.models.bert.modeling_bert import (
    BertForPreTrainingOutput,
    BertOnlyMLMHead,
    BertOnlyNSPHead,
    BertPreTrainingHeads,
)
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from fivefold.attention import alibi_bias
from fivefold.config import FEED_FORWARDS, is_qk_post_norm
from fivefold.errors import CheckpointError
from fivefold.interop.encode import Encoded, SentenceEncoder
from fivefold.interop.jinabert_rows import (
    JinaBertAttentionFunction,
    JinaBertEncoder,
    JinaBertLayer,
    additive_mask,
)
from fivefold.interop.rows import JinaEmbeddingsV3Embeddings, JinaEmbeddingsV3Pooler, rows

__all__ = [
    "JinaBertConfig",
    "JinaBertForMaskedLM",
    "JinaBertForMultipleChoice",
    "JinaBertForNextSentencePrediction",
    "JinaBertForPreTraining",
    "JinaBertForPreTrainingOutput",
    "JinaBertForQuestionAnswering",
    "JinaBertForSequenceClassification",
    "JinaBertForTokenClassification",
    "JinaBertLMHeadModel",
    "JinaBertModel",
    "JinaBertPreTrainedModel",
    "register",
]

logger = logging.getLogger(__name__)

JinaBertForPreTrainingOutput = BertForPreTrainingOutput


class JinaBertConfig(BertConfig):
    """BERT's configuration and what JinaBERT adds: ALiBi, a gated feed-forward, and the variant.

    `qk_post_norm` is that of jina-embeddings-v2-base-code, which its published config.json tells by the code it names.
    """

    model_type = "jina_bert"

    position_embedding_type: str = "alibi"
    feed_forward_type: str = "geglu"
    qk_post_norm: bool = False
    emb_pooler: str | None = None

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Also reads the published files."""
        return super().from_dict(_ours(config_dict), **kwargs)


def _ours(published: Mapping[str, Any]) -> dict[str, Any]:
    """A published config.json in our words: 'torch' was that code's name for sdpa, and None for eager."""
    ours = {**published, "qk_post_norm": is_qk_post_norm(published)}
    if ours.get("attn_implementation") == "torch":
        del ours["attn_implementation"]
    return ours


def _check(config: JinaBertConfig) -> None:
    gated = FEED_FORWARDS[1:]
    if config.position_embedding_type != "alibi" or config.feed_forward_type not in gated:
        raise CheckpointError(
            f"JinaBERT has alibi positions and {' or '.join(gated)} feed-forward layers here, not "
            f"{config.position_embedding_type!r} and {config.feed_forward_type!r}; set position_embedding_type and "
            f"feed_forward_type in the config"
        )
    if config.add_cross_attention:
        raise CheckpointError("JinaBERT has no cross-attention here; leave add_cross_attention off")


class JinaBertPreTrainedModel(BertPreTrainedModel):
    """What the classes below have in common."""

    config_class = JinaBertConfig
    _no_split_modules = ["JinaEmbeddingsV3Embeddings", "JinaBertLayer", "JinaBertQkPostNormLayer"]
    _supports_flash_attn = False  # transformers' kernels take no bias by distance
    _supports_flex_attn = False
    _supports_attention_backend = False
    _can_record_outputs = {"hidden_states": JinaBertLayer, "attentions": JinaBertAttentionFunction}

    def __init__(self, config: JinaBertConfig) -> None:
        # Not super(): the heads below have a second parent that would build BERT's own body.
        BertPreTrainedModel.__init__(self, config)


class JinaBertModel(JinaBertPreTrainedModel, SentenceEncoder):
    """The encoder, with a pooler unless `add_pooling_layer` is off; `is_decoder` hides later tokens from earlier ones."""

    def __init__(self, config: JinaBertConfig, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        _check(config)
        self.gradient_checkpointing = False
        self.embeddings = JinaEmbeddingsV3Embeddings(config)
        self.encoder = JinaBertEncoder(config)
        self.pooler = JinaEmbeddingsV3Pooler(config) if add_pooling_layer else None
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The word table."""
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Another word table."""
        self.embeddings.word_embeddings = value  # type: ignore[assignment]

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        past_key_values: Any = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPoolingAndCrossAttentions:
        """Ids [B, L], or their rows [B, L, D], to hidden states [B, L, D] and the pooler's output [B, D].

        `output_hidden_states`, `output_attentions` (eager attention only) and `return_dict` as everywhere in transformers.
        `position_ids` change nothing: ALiBi knows distances alone.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("You must specify exactly one of input_ids or inputs_embeds")
        if encoder_hidden_states is not None:
            raise ValueError("JinaBERT has no cross-attention here; leave encoder_hidden_states out")
        if past_key_values is not None:
            raise ValueError("JinaBERT keeps no cache here; pass use_cache=False to generate")
        x = self.embeddings(input_ids, token_type_ids, inputs_embeds)
        if attention_mask is None:
            attention_mask = torch.ones(x.shape[:2], device=x.device)
        mask = additive_mask(attention_mask, x.dtype, causal=self.config.is_decoder)
        batch = rows(x.shape[:2], mask, {}, x.device)
        bias = alibi_bias(self.config.num_attention_heads, x.shape[1], x.device, x.dtype)
        x = self.encoder(x, batch, bias)
        pooled = None if self.pooler is None else self.pooler(x.flatten(0, 1), batch)
        return BaseModelOutputWithPoolingAndCrossAttentions(last_hidden_state=x, pooler_output=pooled)

    def encode(  # type: ignore[override]
        self,
        sentences: str | list[str],
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        output_value: str = "sentence_embedding",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: torch.device | str | None = None,
        normalize_embeddings: bool = False,
        **tokenizer_kwargs: Any,
    ) -> Encoded:
        """Sentences to vectors: the mean of each one's hidden states, of any length unless `normalize_embeddings`.

        Arguments as in `SentenceEncoder.encode`; v2 has no tasks and no smaller vectors.
        """
        if self.config.emb_pooler is None:
            logger.warning("No emb_pooler specified, defaulting to mean pooling.")
        return SentenceEncoder.encode(
            self,
            sentences,
            batch_size,
            show_progress_bar,
            output_value,
            convert_to_numpy,
            convert_to_tensor,
            device,
            normalize_embeddings,
            None,
            task=None,
            **tokenizer_kwargs,
        )


def _classifier(model: Any, num_labels: int) -> None:
    """Gives a model BERT's classifier: dropout and one linear."""
    config = model.config
    model.num_labels = num_labels
    model.dropout = nn.Dropout(
        config.hidden_dropout_prob if config.classifier_dropout is None else config.classifier_dropout
    )
    model.classifier = nn.Linear(config.hidden_size, num_labels)


class JinaBertForPreTraining(JinaBertPreTrainedModel, BertForPreTraining):
    """Guesses hidden tokens, and whether the second text follows the first."""

    def __init__(self, config: JinaBertConfig) -> None:
        super().__init__(config)
        self.bert = JinaBertModel(config)
        self.cls = BertPreTrainingHeads(config)
        self.post_init()


class JinaBertLMHeadModel(JinaBertPreTrainedModel, BertLMHeadModel):
    """Guesses each next token; keeps no cache of earlier ones."""

    def __init__(self, config: JinaBertConfig) -> None:
        super().__init__(config)
        if not config.is_decoder:
            logger.warning("If you want to use `JinaBertLMHeadModel` as a standalone, add `is_decoder=True.`")
        self.bert = JinaBertModel(config, add_pooling_layer=False)
        self.cls = BertOnlyMLMHead(config)
        self.post_init()


class JinaBertForMaskedLM(JinaBertPreTrainedModel, BertForMaskedLM):
    """Guesses hidden tokens; the decoder is the word table."""

    def __init__(self, config: JinaBertConfig) -> None:
        super().__init__(config)
        if config.is_decoder:
            logger.warning(
                "If you want to use `JinaBertForMaskedLM`, set `is_decoder=False`: it should see both sides."
            )
        self.bert = JinaBertModel(config, add_pooling_layer=False)
        self.cls = BertOnlyMLMHead(config)
        self.post_init()


class JinaBertForNextSentencePrediction(JinaBertPreTrainedModel, BertForNextSentencePrediction):
    """Whether the second text follows the first: 0 if it does, 1 if it was drawn at random."""

    def __init__(self, config: JinaBertConfig) -> None:
        super().__init__(config)
        self.bert = JinaBertModel(config)
        self.cls = BertOnlyNSPHead(config)
        self.post_init()


class JinaBertForSequenceClassification(JinaBertPreTrainedModel, BertForSequenceClassification):
    """Classes or values of a whole text; with one of them, jina-reranker-v1's scores."""

    def __init__(self, config: JinaBertConfig) -> None:
        super().__init__(config)
        self.bert = JinaBertModel(config)
        _classifier(self, config.num_labels)
        self.post_init()


class JinaBertForMultipleChoice(JinaBertPreTrainedModel, BertForMultipleChoice):
    """Which of several texts fits: a score for each."""

    def __init__(self, config: JinaBertConfig) -> None:
        super().__init__(config)
        self.bert = JinaBertModel(config)
        _classifier(self, 1)
        self.post_init()


class JinaBertForTokenClassification(JinaBertPreTrainedModel, BertForTokenClassification):
    """Classes of every token."""

    def __init__(self, config: JinaBertConfig) -> None:
        super().__init__(config)
        self.bert = JinaBertModel(config, add_pooling_layer=False)
        _classifier(self, config.num_labels)
        self.post_init()


class JinaBertForQuestionAnswering(JinaBertPreTrainedModel, BertForQuestionAnswering):
    """Where in a text the answer to a question stands."""

    def __init__(self, config: JinaBertConfig) -> None:
        super().__init__(config)
        self.num_labels = 2
        self.bert = JinaBertModel(config, add_pooling_layer=False)
        self.qa_outputs = nn.Linear(config.hidden_size, self.num_labels)
        self.post_init()


AUTO_CLASSES = (
    (AutoModel, JinaBertModel),
    (AutoModelForPreTraining, JinaBertForPreTraining),
    (AutoModelForCausalLM, JinaBertLMHeadModel),
    (AutoModelForMaskedLM, JinaBertForMaskedLM),
    (AutoModelForNextSentencePrediction, JinaBertForNextSentencePrediction),
    (AutoModelForSequenceClassification, JinaBertForSequenceClassification),
    (AutoModelForMultipleChoice, JinaBertForMultipleChoice),
    (AutoModelForTokenClassification, JinaBertForTokenClassification),
    (AutoModelForQuestionAnswering, JinaBertForQuestionAnswering),
)


def register() -> None:
    """From now on, in this process, transformers' Auto classes and pipelines load `jina_bert` models with these classes."""
    AutoConfig.register(JinaBertConfig.model_type, JinaBertConfig, exist_ok=True)
    for auto, ours in AUTO_CLASSES:
        auto.register(JinaBertConfig, ours, exist_ok=True)
