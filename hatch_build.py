"""Compiles the kernels (fivefold/kernels) when the package is built or installed; without a C compiler goes on without them.

The library is made without flags for one processor (its functions say what they need, and who calls asks first) and has nothing
of Python in it, so a wheel is for a system and serves every version of Python. `python hatch_build.py` does the same in a
checkout.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

KERNELS = Path(__file__).parent / "fivefold" / "kernels"
LIBRARY = KERNELS / "libfivefold.so"
MACHINES = ("x86_64", "AMD64")
FLAGS = ("-std=gnu11", "-O3", "-fPIC", "-shared", "-fvisibility=hidden", "-pthread")


def compile_kernels(target: Path = LIBRARY, *, flags: tuple[str, ...] = ()) -> str:
    """Build the library; says why there is none, or nothing where there is."""
    if platform.machine() not in MACHINES or sys.platform != "linux":
        return "the kernels are for x86-64 on Linux"
    compiler = shlex.split(os.environ.get("CC", "cc"))
    if shutil.which(compiler[0]) is None:
        return f"there is no C compiler {compiler[0]!r}"
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:  # whoever runs the old one keeps it
        made = Path(folder) / target.name
        command = [*compiler, *FLAGS, *flags, "-o", str(made), *map(str, sorted(KERNELS.glob("*.c"))), "-lm"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"the C compiler failed: {' '.join(command)}\n{done.stderr}"
        made.replace(target)
    return ""


def wheel_tag() -> str:
    """Any Python 3, on this system."""
    return f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"


if __name__ == "__main__":
    if lack := compile_kernels():
        sys.exit(lack)
    print(LIBRARY)
else:
    try:
        from hatchling.builders.hooks.plugin.interface import BuildHookInterface
    except ImportError:  # the tests import this file where hatchling is not installed
        BuildHookInterface = object

    class KernelsHook(BuildHookInterface):  # type: ignore[type-arg,misc]
        """Called by hatchling before it gathers the files of a wheel, also of an editable one."""

        def initialize(self, version: str, build_data: dict[str, object]) -> None:
            """Compile, and say that the wheel holds the result."""
            if self.target_name != "wheel":
                return
            if lack := compile_kernels():
                self.app.display_warning(f"fivefold without its own int8 kernels: {lack}")
                return
            build_data["tag"] = wheel_tag()
            build_data["pure_python"] = False
            build_data["artifacts"] = ["fivefold/kernels/*.so"]
