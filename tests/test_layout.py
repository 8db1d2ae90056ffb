"""The shape of the house: who may import whom, no cycles, heavy libraries at home, functions that fit a glance."""

from __future__ import annotations

import ast
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "fivefold"

# Reading order: a file of the core imports only files before it.
CORE = (
    "errors",
    "cores",
    "memory",
    "fleet",
    "config",
    "sequence",
    "tokenizer",
    "chunking",
    "packing",
    "attention",
    "lora",
    "model",
    "kernels",
    "fused",
    "quantization",
    "heads",
    "pooling",
    "vectors",
    "layouts",
    "codebooks",
    "compact",
    "shards",
    "peft",
    "adapters",
    "checkpoint",
    "hub",
    "embedder",
)
# Folders below the line: they import the core and themselves, never one another. cli.py imports a command when it runs.
ROOMS = ("commands", "jobs", "serve", "train", "evaluate", "interop", "export")
# The doors: commands that start what is in another room, and the one that opens a backend by name.
DOORS = {
    "commands.embed": "jobs",
    "commands.sinks": "jobs",
    "commands.batch": "jobs",
    "commands.serve": "serve",
    "commands.export": "export",
    "commands.search": "jobs",
    "commands.index": "jobs",
    "commands.folder": "jobs",
    "commands.passages": "jobs",
    "commands.answers": "jobs",
    "commands.eval": "evaluate",
    "commands.train": "train",
    "embedder": "export",
    "train.loop": "interop",
    "train.mlm": "interop",
}
FACE = ("__init__", "__main__", "cli", "options", "training_options")

# Libraries the core needs, and where the heavy others live.
CORE_LIBRARIES = {"torch", "tokenizers", "safetensors", "huggingface_hub", "numpy", "tqdm", "semantic_text_splitter"}
HOMES = {
    "lancedb": {"commands", "jobs"},
    "pyarrow": {"commands", "jobs"},
    "filelock": {"commands", "jobs"},
    "usearch": {"jobs"},
    "qdrant_client": {"jobs"},
    "pymilvus": {"jobs"},
    "grpc": {"jobs"},
    "psycopg": {"jobs"},
    "pgvector": {"jobs"},
    "chromadb": {"jobs"},
    "httpx": {"jobs"},
    "pinecone": {"jobs"},
    "tenacity": {"jobs"},
    "fsspec": {"jobs"},
    "transformers": {"train", "interop"},
    "peft": {"train", "interop"},
    "sentence_transformers": {"train", "interop"},
    "sentencepiece": {"train"},
    "scipy": {"train", "evaluate"},
    "sklearn": {"train", "evaluate"},
    "starlette": {"serve"},
    "pydantic": {"serve"},
    "orjson": {"serve"},
    "prometheus_client": {"serve"},
    "uvicorn": {"serve"},
    "ray": {"fleet", "jobs", "serve"},
    "onnx": {"export"},
    "onnxruntime": {"export"},
    "mteb": {"evaluate"},
    "matplotlib": {"train", "evaluate"},
    "datasets": {"train"},
    "accelerate": {"train"},
}
# Files whose signatures are another library's, open keywords and all.
IMITATIONS = {
    "interop.transformers",
    "interop.encode",
    "interop.jinabert",
    "interop.sentence_transformers",
    "evaluate.mteb",
    "train.journal",
}
MAX_FUNCTION_LINES, MAX_MEDIAN_LINES, MAX_FILE_LINES = 60, 15, 500

FILES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}


def name_of(path: Path) -> str:
    """fivefold/commands/embed.py -> commands.embed"""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def runtime_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Every node but those under `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        yield child
        yield from runtime_nodes(child)


def imports(path: Path) -> set[str]:
    """Dotted names a file imports, at any depth; `from fivefold import x` counts as fivefold.x."""
    found: set[str] = set()
    for node in runtime_nodes(TREES[path]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            submodules = module == "fivefold" or (PACKAGE.parent / module.replace(".", "/")).is_dir()
            found |= {f"{module}.{alias.name}" for alias in node.names} if submodules else {module}
    return found


def ours(path: Path) -> set[str]:
    names = {name.removeprefix("fivefold.") for name in imports(path) if name.startswith("fivefold.")}
    return {name for name in names if name.split(".")[0] in {*CORE, *ROOMS, *FACE}}


def foreign(path: Path) -> set[str]:
    tops = {name.split(".")[0] for name in imports(path)}
    return tops - set(sys.stdlib_module_names) - {"fivefold"}


def test_every_file_has_its_place() -> None:
    tops = {name_of(path).split(".")[0] for path in FILES}
    assert tops <= {*CORE, *ROOMS, *FACE}, "give a new file its place in CORE or ROOMS"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_point_one_way(path: Path) -> None:
    name = name_of(path)
    top = name.split(".")[0]
    for imported in ours(path):
        target = imported.split(".")[0]
        if top in CORE:
            assert target in (*CORE[: CORE.index(top)], DOORS.get(name)), f"{name} may not import {imported}"
        elif top in ROOMS:
            assert target in (*CORE, top, DOORS.get(name)), f"{name} may not import {imported}"
        else:
            known = ("config", "cores", "errors", "options", "training_options", "cli")
            assert target in known, f"{name} may not import {imported} at import time"


def test_there_are_no_cycles() -> None:
    graph = {name_of(path): ours(path) for path in FILES}
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, f"import cycle: {' -> '.join([*above, name])}"
        if name not in done:
            for imported in graph.get(name, ()):
                visit(imported, (*above, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_heavy_libraries_stay_home(path: Path) -> None:
    top = name_of(path).split(".")[0]
    for library in foreign(path):
        if library not in CORE_LIBRARIES:
            assert top in HOMES.get(library, set()), f"{name_of(path)} may not import {library}"


def functions() -> Iterator[tuple[str, int]]:
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{name_of(path)}.{node.name}", body_lines(node)


def body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring."""
    docstring = node.body[0] if ast.get_docstring(node) else None
    documented = (docstring.end_lineno or 0) - docstring.lineno + 1 if docstring is not None else 0
    return (node.end_lineno or 0) - node.lineno + 1 - documented


def test_functions_fit_a_glance() -> None:
    sizes = dict(functions())
    assert not {name: size for name, size in sizes.items() if size > MAX_FUNCTION_LINES}
    assert statistics.median(sizes.values()) < MAX_MEDIAN_LINES


def test_files_hold_one_concept() -> None:
    assert not {name_of(p) for p in FILES if len(p.read_text(encoding="utf-8").splitlines()) > MAX_FILE_LINES}
    assert not {p.stem for p in FILES} & {"utils", "util", "common", "helpers", "helper", "manager", "base", "misc"}


def test_public_functions_have_no_open_keywords() -> None:
    for path, tree in TREES.items():
        if name_of(path) in IMITATIONS:
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                assert node.args.kwarg is None, f"{name_of(path)}.{node.name} takes **{node.args.kwarg.arg}"
