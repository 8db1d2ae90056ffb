"""Processor cores: how many there are for this process. A container's limit is seen by neither torch nor the system's count."""

from __future__ import annotations

import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


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
