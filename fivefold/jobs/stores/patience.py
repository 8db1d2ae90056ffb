"""Calls of a store's client: again, with growing pauses, while a failure may pass; told in our words when it does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_exponential, wait_random

from fivefold.errors import StoreError

PATIENCE_SECONDS = 60.0
"""How long one call may keep failing: a server that is restarted is back by then."""
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0
SHOWN_CHARACTERS = 300

Result = TypeVar("Result")


@dataclass(frozen=True)
class Patience:
    """How a client fails: `failures` are its exceptions, `passing` tells those worth another try."""

    where: str
    failures: tuple[type[Exception], ...]
    passing: Callable[[BaseException], bool]

    def call(self, action: Callable[[], Result]) -> Result:
        """The action's result. It is repeated as a whole, so it must be idempotent.

        Raises:
            StoreError: it failed for good, or for longer than a minute.
        """
        again = Retrying(
            retry=retry_if_exception(self.passing),
            wait=wait_exponential(FIRST_PAUSE, LONGEST_PAUSE) + wait_random(0, FIRST_PAUSE),
            stop=stop_after_delay(PATIENCE_SECONDS),
            reraise=True,
        )
        try:
            result: Result = again(action)
            return result
        except self.failures as error:
            said = " ".join(str(error).split())[:SHOWN_CHARACTERS] or type(error).__name__
            tried = f", tried again for {PATIENCE_SECONDS:.0f} s" if self.passing(error) else ""
            raise StoreError(f"{self.where}{tried}: {said}") from error
