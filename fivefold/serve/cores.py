"""How the batches that run at one time share the processor's cores.

Threads of one forward pass wait for each other after every matrix. On cores that they share with the event loop and the
clients that wait costs more than the second core brings, so several batches run side by side instead, and a batch that is
alone and long has all cores. Measured in LOG.md.
"""

from __future__ import annotations

MOST_BATCHES = 4
"""Batches at one time on a CPU: each has activations of its own in memory."""
TOKENS_PER_CORE = 64
"""Below it a second core costs more than it brings."""


def share(cores: int, batches: int, tokens: int) -> int:
    """Threads for one of so many batches, which has so many tokens."""
    return max(1, min(cores // batches, tokens // TOKENS_PER_CORE))
