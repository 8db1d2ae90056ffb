"""Processor cores: how many there are for this process, and how the batches that run at one time share them.

Threads of one forward pass wait for each other after every matrix. On cores that they share with the event loop and the
clients that wait costs more than the second core brings, so several batches run side by side instead, and a batch that is
alone and long has all cores. Measured in LOG.md.
"""

from __future__ import annotations

import os
from pathlib import Path

MOST_BATCHES = 4
"""Batches at one time on a CPU: each has activations of its own in memory."""
TOKENS_PER_CORE = 64
"""Below it a second core costs more than it brings."""
CGROUP = Path("/sys/fs/cgroup")


def available(cgroup: Path = CGROUP) -> int:
    """Cores that this process may use: those of the machine, less what affinity and the container's quota take away."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    quota = _quota(cgroup)
    return cores if quota is None else max(1, min(cores, round(quota)))


def share(cores: int, batches: int, tokens: int) -> int:
    """Threads for one of so many batches, which has so many tokens."""
    return max(1, min(cores // batches, tokens // TOKENS_PER_CORE))


def _quota(cgroup: Path) -> float | None:
    """Cores of a container's CPU limit, from the files of either version of Linux's control groups; None without one."""
    try:
        if (both := cgroup / "cpu.max").exists():
            quota, period = both.read_text(encoding="ascii").split()
        else:
            quota, period = (
                (cgroup / "cpu" / f"cpu.cfs_{part}_us").read_text(encoding="ascii") for part in ("quota", "period")
            )
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError):  # no control groups, or "max"
        return None
