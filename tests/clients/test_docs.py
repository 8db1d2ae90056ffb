"""The snippets for clients in docs/server.md, run as they stand but for the address."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from tests.clients.calls import NODE, require_node
from tests.test_docs_current import blocks

pytestmark = [pytest.mark.clients, pytest.mark.filterwarnings("ignore")]
HERE = "http://127.0.0.1:8080"
SNIPPETS = [(language, body) for language in ("py", "js", "shell") for _, body in blocks(language) if HERE in body]


def run(*argv: str, snippet: str = "") -> str:
    done = subprocess.run(argv, input=snippet, cwd=NODE, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(("language", "snippet"), SNIPPETS)
def test_snippets_run(url: str, language: str, snippet: str) -> None:
    snippet = snippet.replace(HERE, url)
    if language == "py":
        for module in re.findall(r"^(?:from|import) (\S+)", snippet, re.MULTILINE):
            pytest.importorskip(module)
        exec(compile(snippet, language, "exec"), {"__name__": "snippet"})
    elif language == "js":
        require_node(snippet.split(' from "')[1].split('"')[0].removesuffix("/embeddings/jina"))
        run("node", "--input-type=module", snippet=snippet)
    elif shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    else:
        assert '"embedding":[' in run("sh", "-c", snippet)
