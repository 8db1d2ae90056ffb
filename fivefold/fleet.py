"""Models on Ray, for jobs and for servers: how many, each with what, and on which Ray."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

from fivefold.errors import InputError


@dataclass(frozen=True, slots=True)
class Fleet:
    """From `least` to `most` models, the cores and GPUs of each, and which Ray: an address, or None for one of our own here."""

    least: int = 1
    most: int = 1
    cpus: float = 1
    gpus: float = 0
    address: str | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if not 1 <= self.least <= self.most or self.cpus < 0 or self.gpus < 0:
            raise InputError(
                f"there must be at least one, the least first, each with no less than 0 CPUs and GPUs; got {self}"
            )

    def connect(self, *, object_store_bytes: int | None = None) -> None:
        """Start a Ray with one core to spare and an object store of a size, or reach the one at the address.

        Raises:
            ConnectionError: it does not come up, or cannot be reached.
        """
        import ray  # an extra

        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is told of our jobs and servers
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # the coming default, else Ray warns of it
        ours = {
            "num_cpus": math.ceil(self.most * self.cpus) + 1,
            "object_store_memory": object_store_bytes,
            "include_dashboard": False,
        }
        try:
            ray.init(
                address=self.address or "local",  # with None it would take one that somebody started here
                log_to_driver=False,
                logging_level="ERROR",
                **({} if self.address else ours),
            )
        except Exception as error:  # Ray raises it bare where a process of its own does not come up in time
            raise ConnectionError(f"there is no Ray {self.address or 'on this machine'}: {error}") from None
