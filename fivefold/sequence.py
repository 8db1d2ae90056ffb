"""`Sequence`: one run of tokens on its way through the model. Knows neither text nor tensors.

Shapes: L tokens, S spans.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Sequence:
    """One run of tokens through the model, with everything that belongs to it.

    `spans` [S, 2] are half-open token ranges to pool, one vector each; a plain embedding has the one span [0, L].
    `offsets` [L, 2] are half-open character ranges in the text the caller gave, (-1, -1) for special and prompt tokens;
    `None` where nobody asked for them.
    """

    input_ids: IntArray
    task_id: int
    spans: IntArray
    offsets: IntArray | None = None

    def __len__(self) -> int:
        """Number of tokens L."""
        return len(self.input_ids)
