"""What clients send and get back, as pydantic models; and the many forms of an input made into one.

Lenient where clients differ: unknown fields are ignored, an option may be null, text may come as a string, as {"text"}, as
token ids or as a list of these. Strict where a guess would give other vectors. The same models make /openapi.json.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from fivefold.serve.intake import Input

_TASK = {"anyOf": [{"type": "string"}, {"type": "null"}]}
_OBJECT = {"type": "object", "properties": {"text": {"type": "string"}, "task": _TASK}, "required": ["text"]}
_IDS = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
_ONE = [{"type": "string"}, _OBJECT]
INPUT_SCHEMA = {
    "anyOf": [*_ONE, _IDS, {"type": "array", "items": {"anyOf": [*_ONE, _IDS]}}],
    "description": "A text, an object with a text and (our extension) its task, token ids of this model, or a list of these.",
}
FIRST_WRONG = Field(fail_fast=True)
"""Of a list stop at the first wrong item: pydantic would describe them all, and a body may hold millions."""
WRONG_INPUT = 'must be a string, {"text": ...}, a list of token ids, or a list of these'
WRONG_TEXT = 'must be a string or {"text": ...}'


def inputs_of(value: Any) -> list[Input]:
    """Any of the forms of `input` as a list; raises ValueError that names the first item that is none."""
    if isinstance(value, list) and not _is_ids(value):
        return [_input(item, f"item {number}") for number, item in enumerate(value)]
    return [_input(value, "it")]


def _input(value: Any, name: str) -> Input:
    if isinstance(value, Input):
        return value
    if isinstance(value, str):
        return Input(value)
    if isinstance(value, dict):
        text, task = value.get("text"), value.get("task")
        if not isinstance(text, str):
            raise ValueError(f"{name} is an object without a string in 'text'; only text can be embedded")
        if not (task is None or isinstance(task, str)):
            raise ValueError(f"{name} has no string in 'task'; name one of the model's tasks, or leave it out")
        return Input(text, task)
    if isinstance(value, list) and _is_ids(value):
        return Input(value)
    raise ValueError(f"{name} {WRONG_INPUT}")


def _is_ids(value: list[Any]) -> bool:
    """Whether a list is token ids; an empty list is a list of no texts."""
    return bool(value) and all(isinstance(item, int) and not isinstance(item, bool) for item in value)


def _strings_of(value: Any) -> list[str]:
    """Documents and the like: strings or {"text"} objects."""
    if not isinstance(value, list):
        raise ValueError("must be a list of strings")
    return [_string(item, f"item {number}") for number, item in enumerate(value)]


def _string(value: Any, name: str) -> str:
    found = _input(value, name).content if isinstance(value, str | dict) else None
    if not isinstance(found, str):
        raise ValueError(f"{name} {WRONG_TEXT}")
    return found


def _number(value: Any) -> Any:
    """Pydantic takes true for 1, which as a number of dimensions is another vector."""
    if isinstance(value, bool):
        raise ValueError("must be an integer, not true or false")
    return value


Inputs = Annotated[list[Input], BeforeValidator(inputs_of), WithJsonSchema(INPUT_SCHEMA)]
Strings = Annotated[
    list[str],
    BeforeValidator(_strings_of),
    WithJsonSchema({"type": "array", "items": {"anyOf": _ONE}}),
]
Whole = Annotated[int, BeforeValidator(_number)]
Count = Annotated[int, Field(ge=1), BeforeValidator(_number)]


class Request(BaseModel):
    """A request's body: what it does not know it ignores."""

    model_config = ConfigDict(extra="ignore", arbitrary_types_allowed=True)


class EmbeddingsRequest(Request):
    """Jina's and OpenAI's fields together."""

    input: Inputs
    model: str | None = None
    task: str | Annotated[list[str | None], FIRST_WRONG] | None = Field(
        None, description="Adapter for all inputs, or a list with one for each (our extension); null is none."
    )
    dimensions: Whole | None = Field(None, description="Keep the first dimensions; the cut vector is normalised again.")
    normalized: bool | None = Field(None, description="Unit length; true by default.")
    truncate: bool | None = Field(
        None, description="Cut inputs that are too long; false by default, which refuses them."
    )
    late_chunking: bool | None = Field(None, description="Read all inputs as one text; a vector for each.")
    late_chunking_windows: bool | None = Field(
        None, description="Our extension: with late_chunking, read more than the model's length in overlapping windows."
    )
    embedding_type: str | Annotated[list[str], FIRST_WRONG] | None = Field(
        None, description="float, base64, binary, ubinary, int8, uint8, or a list of these, which gives an object."
    )
    encoding_type: str | Annotated[list[str], FIRST_WRONG] | None = Field(
        None, description="Older name of embedding_type."
    )
    encoding_format: str | None = Field(None, description="OpenAI's: float or base64.")
    user: Any = None

    @property
    def encoding(self) -> str | list[str]:
        """The encoding asked for, whichever name it came under; of a list each once, for the answer has a key for each."""
        asked = self.embedding_type or self.encoding_type or self.encoding_format or "float"
        return asked if isinstance(asked, str) else list(dict.fromkeys(asked))


class Usage(BaseModel):
    """Tokens read, special ones counted, task prompts not."""

    total_tokens: int
    prompt_tokens: int


class EmbeddingData(BaseModel):
    """One vector."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str | dict[str, list[float] | str]


class EmbeddingsResponse(BaseModel):
    """Vectors in the order of the inputs."""

    model: str
    object: Literal["list"]
    usage: Usage
    data: list[EmbeddingData]


class EmbedRequest(Request):
    """TEI's /embed and /embed_all."""

    inputs: Inputs
    truncate: bool | None = Field(None, description="Cut long inputs; the server's auto_truncate by default.")
    truncation_direction: Literal["left", "Left", "right", "Right"] | None = None
    prompt_name: str | None = Field(None, description="A task's name: adapter and prompt.")
    normalize: bool | None = None
    dimensions: Whole | None = None

    @property
    def from_left(self) -> bool:
        """Whether a long text loses its beginning."""
        return (self.truncation_direction or "right").lower() == "left"


class TokenizeRequest(Request):
    """TEI's /tokenize."""

    inputs: Inputs
    add_special_tokens: bool | None = None
    prompt_name: str | None = None


class Token(BaseModel):
    """One token: its characters are half open; null where it stands for none."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


class SimilarityInputs(Request):
    """One text and those to compare it with."""

    source_sentence: str
    sentences: Annotated[list[str], FIRST_WRONG]


class SimilarityParameters(Request):
    """Options of /similarity."""

    truncate: bool | None = None
    truncation_direction: Literal["left", "Left", "right", "Right"] | None = None
    prompt_name: str | None = None


class SimilarityRequest(Request):
    """TEI's /similarity."""

    inputs: SimilarityInputs
    parameters: SimilarityParameters | None = None


def _labels_of(value: Any) -> Any:
    """Labels whose form is checked: for the groups of an object there is no `FIRST_WRONG`."""
    groups = list(value.values()) if isinstance(value, dict) else [value]
    if not all(isinstance(group, list) and all(isinstance(label, str) for label in group) for group in groups):
        raise ValueError("must be a list of strings, or an object of such lists")
    if not groups or not all(groups):
        raise ValueError("must hold at least one label, in every group")
    return value


Labels = Annotated[
    list[str] | dict[str, list[str]],
    BeforeValidator(_labels_of, json_schema_input_type=list[str] | dict[str, list[str]]),
]


class ClassifyRequest(Request):
    """Zero-shot: labels are texts."""

    input: Inputs
    labels: Labels = Field(description="A list of labels, or an object of such lists, each decided by itself.")
    model: str | None = None
    truncate: bool | None = None

    @property
    def groups(self) -> dict[str, list[str]]:
        """The labels by group; a plain list is the group ''."""
        return {"": self.labels} if isinstance(self.labels, list) else self.labels


class RerankRequest(Request):
    """Documents in order of their cosine with the query."""

    query: Annotated[str, BeforeValidator(lambda value: _string(value, "it"))]
    documents: Strings
    model: str | None = None
    top_n: Count | None = None
    return_documents: bool | None = None
    truncate: bool | None = None


class SegmentRequest(Request):
    """A text to cut into chunks at paragraphs, sentences and words."""

    content: str
    chunk_tokens: Count | None = Field(None, description="Longest chunk in tokens of this model; 256 by default.")
    return_chunks: bool | None = Field(None, description="Also send the chunks' texts; true by default.")


class ErrorDetail(BaseModel):
    """OpenAI's part of an error."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """The body of every error."""

    detail: str
    code: str
    request_id: str
    error_type: str
    error: ErrorDetail
