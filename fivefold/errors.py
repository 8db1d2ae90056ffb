"""Everything fivefold raises or warns, drawn as a tree.

    FivefoldError
    ├── InputError              what the caller passed cannot be served        (also a ValueError)
    │   ├── UnknownTaskError    no adapter of that name
    │   ├── DimensionError      a truncate_dim the model does not have
    │   ├── TextTooLongError    over the limit, and truncation was refused
    │   └── ChunkError          a chunk that is not in the document, or holds no token
    ├── CheckpointError         the files of a model cannot be used
    │   ├── MissingFileError    a file that must be there is not               (also a FileNotFoundError)
    │   └── TensorError         a tensor is missing, left over, misshapen or corrupt
    ├── LicenceError            weights whose licence was not accepted
    ├── NonFiniteError          the model produced NaN or infinity
    ├── JobError                a batch job cannot go on; what it finished stays
    ├── StoreError              a vector store cannot be reached, or refused
    └── MissingExtraError       an optional library is not installed           (also an ImportError)

    UserWarning
    └── TruncationWarning       texts were cut to the model's length

Every message says what was tried and what to do next.
"""


class FivefoldError(Exception):
    """Root of the tree: catch this to catch everything fivefold raises on purpose."""


class InputError(FivefoldError, ValueError):
    """The caller's input cannot be served as it is."""


class UnknownTaskError(InputError):
    """The named task is not one of the model's adapters."""


class DimensionError(InputError):
    """The requested number of dimensions is outside 1..hidden_size."""


class TextTooLongError(InputError):
    """A text is longer than the limit and the caller refused truncation."""


class ChunkError(InputError):
    """A chunk cannot be found in its document, or covers no token of it."""


class CheckpointError(FivefoldError):
    """The files of a model are absent, inconsistent or unreadable."""


class MissingFileError(CheckpointError, FileNotFoundError):
    """A file that a checkpoint must have is not there."""


class TensorError(CheckpointError):
    """A tensor is missing, left over, misshapen or corrupt; the message names it."""


class LicenceError(FivefoldError):
    """The weights' licence has to be accepted before they are fetched."""


class NonFiniteError(FivefoldError):
    """The model produced NaN or infinity for a finite input."""


class JobError(FivefoldError):
    """A batch job cannot go on. What it finished stays, and the same command goes on from there."""


class StoreError(FivefoldError):
    """A vector store cannot be reached or used, or refused what it was asked; the message names the store."""


class MissingExtraError(FivefoldError, ImportError):
    """A feature needs a library that is not installed; the message names the extra."""


class TruncationWarning(UserWarning):
    """Texts were cut: says how many texts and tokens were lost."""
