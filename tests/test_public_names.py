"""The public names: exactly these, loaded lazily, importable quickly."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata

import pytest

import fivefold
from fivefold import errors


def in_a_new_process(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_every_listed_name_is_there_and_nothing_else() -> None:
    namespace: dict[str, object] = {}
    exec("from fivefold import *", namespace)
    assert set(namespace) - {"__builtins__"} == set(fivefold.__all__) == set(dir(fivefold))
    assert list(fivefold.__all__) == sorted(fivefold.__all__, key=lambda n: (not n.isupper(), n.startswith("__"), n))


def test_every_error_is_public() -> None:
    drawn = {n for n, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)}
    assert drawn <= set(fivefold.__all__)


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Embeder'"):
        fivefold.Embeder  # noqa: B018


def test_import_loads_neither_torch_nor_numpy() -> None:
    code = "import sys, fivefold; print({'torch', 'numpy', 'tokenizers', 'huggingface_hub'} & set(sys.modules))"
    assert in_a_new_process(code) == "set()"


def test_import_is_quick() -> None:
    code = "import time; t = time.perf_counter(); import fivefold; print(time.perf_counter() - t)"
    assert min(float(in_a_new_process(code)) for _ in range(3)) < 0.15


def test_the_installed_version_is_the_packages_own() -> None:
    try:
        installed = metadata.version("fivefold")
    except metadata.PackageNotFoundError:
        pytest.skip("run from a checkout that is not installed")
    assert installed == fivefold.__version__
