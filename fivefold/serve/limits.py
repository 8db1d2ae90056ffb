"""Every limit of the server in one place: what a request may hold, and how much work may wait.

The names are TEI's where it has one. `/info` shows them, `fivefold serve` has a flag and an environment variable for each.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from fivefold.errors import InputError

WAITING_BATCHES = 4
"""Batches that may wait before a request, for each device, where nobody says otherwise: some seconds, in which a burst of
large requests is worked off. A load that lasts is held to less; see scheduler.py."""

BODY_SECONDS = 30
"""Time for a request to arrive, where nobody says otherwise; known before the model is."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What is refused: larger requests with 413, more of them with 429."""

    max_input_length: int
    """Tokens of one text, special tokens and prompt included."""
    max_batch_tokens: int
    """Tokens of one forward pass."""
    max_queue_tokens: int
    """Tokens that may wait before a request, at most; see scheduler.py."""
    max_client_batch_size: int = 2048
    """Texts of one request."""
    max_request_tokens: int = 1 << 20
    """Tokens of one request."""
    max_concurrent_requests: int = 512
    """Requests that are read, waiting or computed at one time."""
    max_body_bytes: int = 32 << 20
    """Bytes of one request's body."""
    body_seconds: int = BODY_SECONDS
    """Time for a request's head to arrive, and again for its body."""

    def __post_init__(self) -> None:
        """Refuse limits that would refuse everything."""
        for field in fields(self):
            if getattr(self, field.name) < 1:
                raise InputError(f"{field.name} must be at least 1, got {getattr(self, field.name)}")
