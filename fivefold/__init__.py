"""fivefold: self-hosted jina-embeddings-v3.

The names below are the public ones. They are loaded when first used, so `import fivefold` costs nothing: no torch,
no numpy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from fivefold import cores as _cores

if TYPE_CHECKING:
    from fivefold.config import TASKS, ModelConfig, Task
    from fivefold.embedder import Backend, ChunkVectors, Embedder, TokenVectors
    from fivefold.errors import (
        CheckpointError,
        ChunkError,
        DimensionError,
        FivefoldError,
        InputError,
        JobError,
        LicenceError,
        MissingExtraError,
        MissingFileError,
        NonFiniteError,
        StoreError,
        TensorError,
        TextTooLongError,
        TruncationWarning,
        UnknownTaskError,
    )

__version__ = "0.1.0"

_cores.leave_soon()

__all__ = [
    "TASKS",
    "Backend",
    "CheckpointError",
    "ChunkError",
    "ChunkVectors",
    "DimensionError",
    "Embedder",
    "FivefoldError",
    "InputError",
    "JobError",
    "LicenceError",
    "MissingExtraError",
    "MissingFileError",
    "ModelConfig",
    "NonFiniteError",
    "StoreError",
    "Task",
    "TensorError",
    "TextTooLongError",
    "TokenVectors",
    "TruncationWarning",
    "UnknownTaskError",
    "__version__",
]

_HOMES = {
    **dict.fromkeys(("TASKS", "ModelConfig", "Task"), "config"),
    **dict.fromkeys(("Backend", "ChunkVectors", "Embedder", "TokenVectors"), "embedder"),
}


def __getattr__(name: str) -> object:
    """Load a public name from its home module on first use."""
    if name not in __all__:
        raise AttributeError(f"module 'fivefold' has no attribute {name!r}")
    value = getattr(import_module(f"fivefold.{_HOMES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, loaded or not."""
    return sorted(__all__)
