"""How many cores there are for this process, and for how long torch's threads keep them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fivefold.cores import OWN, TURNS, available

MACHINE = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, MACHINE),
        ({"cpu.max": "max 100000\n"}, MACHINE),
        ({"cpu.max": "100000 100000\n"}, 1),
        ({"cpu.max": "20000 100000\n"}, 1),
        ({"cpu.max": "99900000 100000\n"}, MACHINE),
        ({"cpu.max": "what is this"}, MACHINE),
        ({"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, MACHINE),
    ],
)
def test_a_containers_limit_is_kept(tmp_path: Path, files: dict[str, str], cores: int) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content, encoding="ascii")
    assert available(tmp_path) == cores


@pytest.mark.parametrize(
    ("before", "own", "told"),
    [
        ("", {}, TURNS[1]),
        ("import torch; ", {}, "nothing"),  # which has read it by now
        ("", {TURNS[0]: "7"}, "7"),
        ("", {"OMP_WAIT_POLICY": "active"}, "nothing"),
    ],
)
def test_torchs_threads_are_told_to_leave_soon_where_nobody_said_otherwise(
    before: str, own: dict[str, str], told: str
) -> None:
    rest = {name: value for name, value in os.environ.items() if name not in OWN}
    code = f"{before}import os, fivefold; print(os.environ.get({TURNS[0]!r}, 'nothing'))"
    said = subprocess.run([sys.executable, "-c", code], env={**rest, **own}, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == told
