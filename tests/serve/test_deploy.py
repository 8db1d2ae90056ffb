"""The deployment files name options, paths, ports and times that exist and fit together."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fivefold import __version__
from fivefold.cli import parser
from fivefold.serve.routes.operations import GETS

DEPLOY = Path(__file__).parents[2] / "deploy"
FILES = sorted(path for path in DEPLOY.iterdir() if path.is_file())
OPTIONS = {*vars(parser().parse_args(["serve"])), "api_keys"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_names_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert {name.lower() for name in re.findall(r"FIVEFOLD_([A-Z_]+)", text)} <= OPTIONS
    assert {flag.replace("-", "_") for flag in re.findall(r"fivefold serve --([\w-]+)", text)} <= OPTIONS
    served = {route for route, *_ in GETS}
    assert set(re.findall(r"path: (/\w+)", text)) | set(re.findall(r"8080(/\w+)", text)) <= served
    assert "8080" in text


def test_the_server_has_time_to_drain() -> None:
    def number(name: str, pattern: str) -> int:
        found = re.search(pattern, (DEPLOY / name).read_text(encoding="utf-8"))
        assert found is not None, pattern
        return int(found.group(1))

    drain = number("Dockerfile", r"FIVEFOLD_DRAIN_SECONDS=(\d+)")
    pause = number("kubernetes.yaml", r"sleep, \"(\d+)\"")
    assert number("kubernetes.yaml", r"terminationGracePeriodSeconds: (\d+)") > drain + pause
    unit_drain = number("fivefold.service", r"FIVEFOLD_DRAIN_SECONDS=(\d+)")
    assert number("fivefold.service", r"TimeoutStopSec=(\d+)") > unit_drain


def test_the_image_is_of_this_version() -> None:
    assert f"image: fivefold:{__version__}" in (DEPLOY / "kubernetes.yaml").read_text(encoding="utf-8")
