"""transformers' classes for jina-embeddings-v3 on our backbone: change the import and keep the code.

Arguments, defaults, outputs, losses, parameter names and files are those of the classes in transformers; checkpoints and
PEFT adapters go through its own machinery. `register()` makes `AutoModel` and `pipeline` choose these classes.

Shapes: B rows, L tokens of a row, D hidden, V vocabulary, C classes.
"""

# Annotations stay objects here: transformers reads off `kwargs` what a forward can be asked for.
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedModel,
    initialization,
)
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_outputs import (
    BaseModelOutputWithPooling,
    MaskedLMOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from transformers.models.jina_embeddings_v3.modeling_jina_embeddings_v3 import JinaEmbeddingsV3RotaryEmbedding
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from fivefold.errors import CheckpointError
from fivefold.heads import (
    SEQUENCE_LOSSES,
    MaskedLMHead,
    SequenceClassificationHead,
    SpanHead,
    TokenClassificationHead,
    class_loss,
    problem_type,
    span_loss,
)
from fivefold.interop.encode import SentenceEncoder
from fivefold.interop.rows import (
    AttentionFunction,
    JinaEmbeddingsV3Embeddings,
    JinaEmbeddingsV3Layer,
    JinaEmbeddingsV3Pooler,
    rows,
)
from fivefold.model import Rotary

__all__ = [
    "JinaEmbeddingsV3Config",
    "JinaEmbeddingsV3ForMaskedLM",
    "JinaEmbeddingsV3ForQuestionAnswering",
    "JinaEmbeddingsV3ForSequenceClassification",
    "JinaEmbeddingsV3ForTokenClassification",
    "JinaEmbeddingsV3Model",
    "JinaEmbeddingsV3PreTrainedModel",
    "register",
]


class JinaEmbeddingsV3Config(transformers.JinaEmbeddingsV3Config):
    """transformers' own, as a class that `register` can tell from it."""

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """transformers' own, which reads other layouts as well, with a warning, and leaves their weights at random.

        Raises:
            CheckpointError: the configuration is of another layout.
        """
        if config_dict.get("model_type", cls.model_type) != cls.model_type or "auto_map" in config_dict:
            raise CheckpointError(
                f"this config.json is not of model_type {cls.model_type!r}, which is what transformers' classes read; convert "
                "the checkpoint first: fivefold convert FOLDER NEW_FOLDER --layout transformers"
            )
        return super().from_dict(config_dict, **kwargs)


class JinaEmbeddingsV3PreTrainedModel(PreTrainedModel):
    """What the classes below have in common."""

    config_class = JinaEmbeddingsV3Config
    base_model_prefix = "roberta"
    supports_gradient_checkpointing = True
    _no_split_modules = ["JinaEmbeddingsV3Embeddings", "JinaEmbeddingsV3Layer"]
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_record_outputs = {"hidden_states": JinaEmbeddingsV3Layer, "attentions": AttentionFunction}

    @classmethod
    def is_custom_code(cls) -> bool:
        """No: files are read and written with the name map that transformers has for its own class."""
        return False

    def load_adapter(
        self,
        peft_model_id: str | None = None,
        adapter_name: str | None = None,
        *args: Any,
        adapter_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """transformers' own, whose older versions look for a `subfolder` on the hub alone; here folders have them too."""
        options = dict(adapter_kwargs or {})
        if peft_model_id is not None and Path(peft_model_id).is_dir():
            peft_model_id = str(Path(peft_model_id) / options.pop("subfolder", ""))
        return super().load_adapter(peft_model_id, adapter_name, *args, adapter_kwargs=options, **kwargs)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, MaskedLMHead):
            initialization.zeros_(module.bias)


class JinaEmbeddingsV3Model(SentenceEncoder, JinaEmbeddingsV3PreTrainedModel):
    """The encoder, with a pooler unless `add_pooling_layer` is off."""

    def __init__(self, config: JinaEmbeddingsV3Config, add_pooling_layer: bool = True) -> None:
        super().__init__(config)
        self.gradient_checkpointing = False
        self.embeddings = JinaEmbeddingsV3Embeddings(config)
        self.pooler = JinaEmbeddingsV3Pooler(config) if add_pooling_layer else None
        self.rotary_emb = JinaEmbeddingsV3RotaryEmbedding(config)
        self.layers = nn.ModuleList(JinaEmbeddingsV3Layer(config) for _ in range(config.num_hidden_layers))
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
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPooling:
        """Ids [B, L], or their rows [B, L, D], to hidden states [B, L, D] and the pooler's output [B, D].

        `output_hidden_states`, `output_attentions` (eager attention only) and `return_dict` as everywhere in transformers.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("You must specify exactly one of input_ids or inputs_embeds")
        x = self.embeddings(input_ids, token_type_ids, inputs_embeds)
        mask = create_bidirectional_mask(config=self.config, inputs_embeds=x, attention_mask=attention_mask)
        batch = rows(x.shape[:2], mask, kwargs, x.device)
        rotary = self._rotary(x, position_ids)
        for layer in self.layers:
            x = layer(x, batch, rotary)
        pooled = None if self.pooler is None else self.pooler(x.flatten(0, 1), batch)
        return BaseModelOutputWithPooling(last_hidden_state=x, pooler_output=pooled)

    def _rotary(self, x: Tensor, position_ids: Tensor | None) -> Rotary:
        """transformers' tables, which know every kind of `rope_parameters`, in our form: [B L, 1, H/2] each."""
        count, length = x.shape[:2]
        if position_ids is None:
            position_ids = torch.arange(length, device=x.device)[None]
        tables = self.rotary_emb(x, position_ids)  # [1 or B, L, H] each, both halves alike
        cos, sin = (t.chunk(2, -1)[0].expand(count, -1, -1).flatten(0, 1)[:, None] for t in tables)
        return cos, sin


class JinaEmbeddingsV3ForMaskedLM(JinaEmbeddingsV3PreTrainedModel):
    """Guesses hidden tokens; the decoder is the word table."""

    _tied_weights_keys = {
        "lm_head.decoder.weight": "roberta.embeddings.word_embeddings.weight",
        "lm_head.decoder.bias": "lm_head.bias",
    }

    def __init__(self, config: JinaEmbeddingsV3Config) -> None:
        super().__init__(config)
        self.lm_head = MaskedLMHead(config.hidden_size, config.vocab_size, config.layer_norm_eps)
        self.roberta = JinaEmbeddingsV3Model(config, add_pooling_layer=False)
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        """The decoder."""
        return self.lm_head.decoder

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        """Another decoder."""
        self.lm_head.decoder = new_embeddings

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> MaskedLMOutput:
        """Scores [B, L, V], and with `labels` [B, L] the loss over those that are not -100."""
        body = self.roberta(
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, return_dict=True, **kwargs
        )
        logits = self.lm_head(body.last_hidden_state)
        return MaskedLMOutput(
            loss=None if labels is None else class_loss(logits, labels),
            logits=logits,
            hidden_states=body.hidden_states,
            attentions=body.attentions,
        )


def _classifier_dropout(config: JinaEmbeddingsV3Config) -> float:
    own = config.classifier_dropout
    return config.hidden_dropout_prob if own is None else own  # type: ignore[no-any-return]


class JinaEmbeddingsV3ForSequenceClassification(JinaEmbeddingsV3PreTrainedModel):
    """Classes or values of a whole text."""

    def __init__(self, config: JinaEmbeddingsV3Config) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.classifier = SequenceClassificationHead(config.hidden_size, config.num_labels, _classifier_dropout(config))
        self.roberta = JinaEmbeddingsV3Model(config, add_pooling_layer=False)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> SequenceClassifierOutput:
        """Scores [B, C], and with `labels` the loss of `config.problem_type`, which the first labels settle if it is None."""
        body = self.roberta(
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, return_dict=True, **kwargs
        )
        logits = self.classifier(body.last_hidden_state[:, 0])
        loss = None
        if labels is not None:
            if self.config.problem_type is None:
                self.config.problem_type = problem_type(self.num_labels, labels)
            loss = SEQUENCE_LOSSES[self.config.problem_type](logits, labels)
        return SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=body.hidden_states, attentions=body.attentions
        )


class JinaEmbeddingsV3ForTokenClassification(JinaEmbeddingsV3PreTrainedModel):
    """Classes of every token."""

    def __init__(self, config: JinaEmbeddingsV3Config) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.classifier = TokenClassificationHead(config.hidden_size, config.num_labels, _classifier_dropout(config))
        self.roberta = JinaEmbeddingsV3Model(config, add_pooling_layer=False)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> TokenClassifierOutput:
        """Scores [B, L, C], and with `labels` [B, L] the loss over those that are not -100."""
        body = self.roberta(
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, return_dict=True, **kwargs
        )
        logits = self.classifier(body.last_hidden_state)
        return TokenClassifierOutput(
            loss=None if labels is None else class_loss(logits, labels),
            logits=logits,
            hidden_states=body.hidden_states,
            attentions=body.attentions,
        )


class JinaEmbeddingsV3ForQuestionAnswering(JinaEmbeddingsV3PreTrainedModel):
    """Where in a text the answer to a question stands."""

    def __init__(self, config: JinaEmbeddingsV3Config) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.qa_outputs = SpanHead(config.hidden_size)
        self.roberta = JinaEmbeddingsV3Model(config, add_pooling_layer=False)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> QuestionAnsweringModelOutput:
        """Start and end scores [B, L], and with both positions [B] the loss; positions past the end count for nothing."""
        body = self.roberta(
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, return_dict=True, **kwargs
        )
        start, end = self.qa_outputs(body.last_hidden_state)
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = span_loss((start, end), (start_positions, end_positions))
        return QuestionAnsweringModelOutput(
            loss=loss, start_logits=start, end_logits=end, hidden_states=body.hidden_states, attentions=body.attentions
        )


AUTO_CLASSES = (
    (AutoModel, JinaEmbeddingsV3Model),
    (AutoModelForMaskedLM, JinaEmbeddingsV3ForMaskedLM),
    (AutoModelForSequenceClassification, JinaEmbeddingsV3ForSequenceClassification),
    (AutoModelForTokenClassification, JinaEmbeddingsV3ForTokenClassification),
    (AutoModelForQuestionAnswering, JinaEmbeddingsV3ForQuestionAnswering),
)


def register() -> None:
    """From now on, in this process, transformers' Auto classes and pipelines load v3 models with the classes above."""
    AutoConfig.register(JinaEmbeddingsV3Config.model_type, JinaEmbeddingsV3Config, exist_ok=True)
    for auto, ours in AUTO_CLASSES:
        auto.register(JinaEmbeddingsV3Config, ours, exist_ok=True)
