"""What the pages say is so: help texts, Python snippets, commands, links, the changelog's version."""

from __future__ import annotations

import gc
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import fivefold
from fivefold.checkpoint import convert
from fivefold.cli import COMMANDS, parser

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!\w+:|#)([^)#]+)")

shipped = pytest.mark.skipif(
    not (ROOT / "fivefold" / "models" / "v3-nano").is_dir(), reason="this checkout came without v3-nano"
)


def blocks(language: str) -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for number, (kind, body) in enumerate(FENCE.findall(page.read_text(encoding="utf-8"))):
            if kind == language:
                yield f"{page.name}-{number}", body


SNIPPETS = dict(blocks("python"))
COMMAND_BLOCKS = dict(blocks("sh"))


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the examples and a model for transformers in it, where commands of the pages may write."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "examples").symlink_to(ROOT / "examples")
    nano = ROOT / "fivefold" / "models" / "v3-nano"
    if nano.is_dir():
        convert(nano, folder / "v3-nano-hf", layout="hf")
    return folder


def commands_of(block: str) -> list[list[str]]:
    """The arguments of each `fivefold` in a block, after pipes and before redirections."""
    lines = [line.split(">")[0].split("|")[-1] for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.strip().startswith("fivefold")]


def test_the_help_blocks_are_current() -> None:
    page = ROOT / "docs" / "cli.md"
    assert runpy.run_path(str(ROOT / "docs" / "cli_help.py"))["filled"](page.read_text()) == page.read_text(), (
        "run make docs"
    )
    assert all(f"<!-- help: {command.name} -->" in page.read_text() for command in COMMANDS)


@pytest.mark.parametrize("name", COMMAND_BLOCKS)
def test_commands_have_options_that_exist(name: str) -> None:
    for argv in commands_of(COMMAND_BLOCKS[name]):
        parser().parse_args(argv)


@shipped
@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, block in COMMAND_BLOCKS.items() if "jinaai/" not in block])
def test_commands_run(name: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fivefold_function = f'fivefold() {{ "{sys.executable}" -m fivefold "$@"; }}\nset -e\n'
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("XDG_CACHE_HOME", str(workplace / "cache"))
    script = fivefold_function + COMMAND_BLOCKS[name]
    done = subprocess.run(["sh", "-c", script], cwd=workplace, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr


@shipped
@pytest.mark.filterwarnings("ignore:'pin_memory' argument:UserWarning")  # a trainer's default, on a machine without GPU
@pytest.mark.parametrize("name", SNIPPETS)
def test_snippets_run(name: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    exec(compile(SNIPPETS[name], name, "exec"), {"__name__": "snippet"})
    gc.collect()  # what a snippet leaves open is its own failure, not that of a later test


@shipped
@pytest.mark.parametrize(
    "path",  # those of other libraries are run in tests/clients/test_examples.py
    [path for path in sorted((ROOT / "examples").glob("*.py")) if not path.stem.endswith("_rag")],
    ids=lambda path: path.name,
)
def test_examples_run(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out


@pytest.mark.parametrize("page", [*PAGES, ROOT / "DESIGN.md", ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_trees_files_exist() -> None:
    tree = (ROOT / "README.md").read_text().split("## The tree")[1].split("## ")[0]
    for name in re.findall(r"\b(\w+\.py)\b", tree):
        assert (ROOT / "fivefold" / name).is_file(), name


def test_the_changelog_begins_with_this_version() -> None:
    versions = re.findall(r"^## (\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == fivefold.__version__
