"""Processor cores: how many there are for this process, and whose they are.

A container's limit is seen by neither torch nor the system's count. Torch's threads keep a core for up to 16 ms after their
work is done, turning in a loop in case there is more; our own kernels, which have threads of their own, then wait for it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
TURNS = "GOMP_SPINCOUNT", "2000"
"""How GNU's OpenMP is told how long its threads turn, which it reads once, when torch is loaded: 0.1 ms, not 300,000 turns."""
OWN = (TURNS[0], "OMP_WAIT_POLICY")


def leave_soon() -> None:
    """Have torch's threads sleep soon after their work, where torch is not loaded yet."""
    if "torch" not in sys.modules:
        os.environ.update(told())


def told() -> dict[str, str]:
    """What an environment says to them for that; nothing where people said what they want."""
    return {} if any(name in os.environ for name in OWN) else dict([TURNS])


def available(cgroup: Path = CGROUP) -> int:
    """Cores that this process may use: those of the machine, less what affinity and the container's quota take away."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    quota = _quota(cgroup)
    return cores if quota is None else max(1, min(cores, round(quota)))


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
