"""The name of a model -> its folder: shipped with the package, a folder already there, or fetched from the hub.

Knows nothing of what is inside. Weights under a non-commercial licence are fetched only once it has been accepted; only
safetensors, JSON and tokenizer files are ever fetched, no pickles and no code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import HfApi, ModelInfo, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from fivefold.errors import CheckpointError, LicenceError, MissingFileError

SHIPPED = {"v3-nano": "models/v3-nano"}
"""Models inside the package: name -> folder."""

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
NON_COMMERCIAL = re.compile(r"(^|[-_ ])nc([-_ ]|$)|non-?commercial|research-only|-research($|-)", re.IGNORECASE)

WANTED_FILES = ("*.json", "*.safetensors", "*.model", "README.md", "LICENSE*")
GRAPH_FILES = ("*model.onnx", "*model.onnx_data")
UNWANTED_FILES = ("onnx/*.json", "openvino/*", "*.bin", "*.py")

# What the hub client raises -> what to do about it; the first that fits is taken, so subclasses stand first.
_ADVICE: tuple[tuple[type[BaseException], str], ...] = (
    (GatedRepoError, "its owner wants terms accepted: do so on the model's page, then log in with `hf auth login`"),
    (
        RepositoryNotFoundError,
        "the hub has no such model: check the name; if it is private, log in with `hf auth login`",
    ),
    (RevisionNotFoundError, "the model has no such revision: check the branch, tag or commit"),
    (HFValidationError, "this is not a hub id: write org/name"),
    (LocalEntryNotFoundError, "some files are not in the local cache: load it once with a network connection"),
    (OfflineModeIsEnabled, "the hub client is set to offline: pass local_files_only=True to use its cache"),
    (Exception, "the hub did not answer: check the network, or pass local_files_only=True to use the cache"),
)


def resolve(
    model: str,
    *,
    revision: str | None = None,
    local_files_only: bool = False,
    accept_license: bool = False,
    graph: bool = False,
    cache_dir: Path | None = None,
    endpoint: str | None = None,
) -> Path:
    """The folder of a model: a name in `SHIPPED`, a folder, or a hub id, in this order.

    Args:
        model: what the user wrote.
        revision: branch, tag or commit of a hub model.
        local_files_only: look in the hub's local cache alone; no network is used.
        accept_license: fetch weights although their licence forbids commercial use.
        graph: fetch the ONNX graph too, where the model has one.
        cache_dir: where fetched files are kept; the hub client's own place by default.
        endpoint: another hub, by its address.

    Raises:
        LicenceError: the licence is non-commercial and was not accepted.
        CheckpointError: there is no such model, or it cannot be fetched; the message says what to do.
    """
    if model in SHIPPED:
        return _shipped(model)
    folder = Path(model).expanduser() if model.startswith("~/") else Path(model)
    if model and folder.is_dir():
        return folder
    if not HUB_ID.fullmatch(model) or model.endswith((".safetensors", ".json")):
        raise MissingFileError(
            f"{model!r} is neither a shipped model ({', '.join(SHIPPED)}), nor a folder, "
            f"nor a hub id of the form org/name"
        )
    if not local_files_only:
        _check_licence(model, revision, accept_license, endpoint)
    wanted = (*WANTED_FILES, *(GRAPH_FILES if graph else ()))
    return _fetch(model, revision, wanted, local_files_only=local_files_only, cache_dir=cache_dir, endpoint=endpoint)


def licence(info: ModelInfo) -> str | None:
    """The licence that a model's card names, or else its tags; `None` where neither does."""
    named = [str(v) for v in (getattr(info.card_data, key, None) for key in ("license_name", "license")) if v]
    tagged = [tag.removeprefix("license:") for tag in info.tags or () if tag.startswith("license:")]
    return next(iter(named + tagged), None)


def is_non_commercial(name: str) -> bool:
    """Whether a licence of this name forbids commercial use, such as cc-by-nc-4.0."""
    return NON_COMMERCIAL.search(name) is not None


def _shipped(model: str) -> Path:
    folder = Path(__file__).parent / SHIPPED[model]
    if not folder.is_dir():
        raise MissingFileError(f"{folder} does not exist: this installation came without {model}; reinstall fivefold")
    return folder


def _check_licence(model: str, revision: str | None, accepted: bool, endpoint: str | None) -> None:
    with _explained(model, revision):
        info = HfApi(endpoint=endpoint).model_info(model, revision=revision)
    name = licence(info)
    if name and is_non_commercial(name) and not accepted:
        raise LicenceError(
            f"{model} is under the licence {name}, which forbids commercial use. Where that suits you, pass "
            f"accept_license=True, or --accept-license on the command line, and it will be fetched"
        )


def _fetch(
    model: str,
    revision: str | None,
    wanted: tuple[str, ...],
    *,
    local_files_only: bool,
    cache_dir: Path | None,
    endpoint: str | None,
) -> Path:
    with _explained(model, revision):
        folder = snapshot_download(
            model,
            revision=revision,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            allow_patterns=list(wanted),
            ignore_patterns=list(UNWANTED_FILES),
            endpoint=endpoint,
        )
    return Path(folder)


@contextmanager
def _explained(model: str, revision: str | None) -> Iterator[None]:
    """Turn whatever the hub client raises into a `CheckpointError` that says what to do."""
    try:
        yield
    except Exception as error:
        what = model if revision is None else f"{model} at revision {revision}"
        advice = next(text for kind, text in _ADVICE if isinstance(error, kind))
        raise CheckpointError(f"cannot fetch {what}: {advice} ({type(error).__name__}: {error})") from error
