"""Every limit of the server in one place: what a request may hold, and how much work may wait.

The names are TEI's where it has one. `/info` shows them, `fivefold serve` has a flag and an environment variable for each.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from fivefold.errors import InputError

WAITING_BATCHES = 16
"""Batches that may wait before a request, where nobody says otherwise."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What is refused: larger requests with 413, more of them with 429."""

    max_input_length: int
    """Tokens of one text, special tokens and prompt included."""
    max_batch_tokens: int
    """Tokens of one forward pass."""
    max_queue_tokens: int
    """Tokens that may wait before a request; see scheduler.py."""
    max_client_batch_size: int = 2048
    """Texts of one request."""
    max_request_tokens: int = 1 << 20
    """Tokens of one request."""
    max_concurrent_requests: int = 512
    """Requests that are read, waiting or computed at one time."""
    max_body_bytes: int = 32 << 20
    """Bytes of one request's body."""
    body_seconds: int = 30
    """Time for a body to arrive."""

    def __post_init__(self) -> None:
        """Refuse limits that would refuse everything."""
        for field in fields(self):
            if getattr(self, field.name) < 1:
                raise InputError(f"{field.name} must be at least 1, got {getattr(self, field.name)}")
