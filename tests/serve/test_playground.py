"""The page as text: complete in itself, every control named, every route and field it uses served.

tests/browser/ drives it in a browser.
"""

from __future__ import annotations

import base64
import re
from hashlib import sha256
from html.parser import HTMLParser
from itertools import product

from fivefold.serve.routes.operations import GETS
from fivefold.serve.schema import EmbeddingsRequest, SegmentRequest


class Page(HTMLParser):
    """Controls without a label, and everything the page would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.labels, self.unnamed, self.fetched, self.linked, self.ids, self.handlers = 0, [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        named = dict(attributes)
        self.ids += [named["id"]] if "id" in named else []
        self.labels += tag == "label"
        if tag in ("input", "select", "textarea") and not self.labels:
            self.unnamed.append(named)
        self.handlers += [key for key in named if key.startswith("on") or key == "style"]
        found = [value for key, value in attributes if key in ("src", "href")]
        if tag == "a":
            self.linked += found
        else:
            self.fetched += found

    def handle_endtag(self, tag: str) -> None:
        self.labels -= tag == "label"


def test_the_page_stands_alone(server) -> None:
    answer = server.get("/")
    assert answer.headers["content-type"].startswith("text/html")
    page = Page(answer.text)
    assert all(address.startswith("data:") for address in page.fetched)
    assert set(re.findall(r"https?://[^'\" ]+", answer.text)) == {
        "http://www.w3.org/2000/svg"
    }  # a name, not an address
    assert not page.unnamed and len(page.ids) == len(set(page.ids))
    script = answer.text.split("<script>")[1]
    for name in set(re.findall(r'at\("([\w-]+)"\)', script)):
        assert name in page.ids, name
    for form, part in product(
        re.findall(r'onSubmit\("(\w+)"', script), re.findall(r"at\(`\$\{name\}-(\w+)`\)", script)
    ):
        assert f"{form}-{part}" in page.ids


def test_only_its_own_script_and_style_run(server) -> None:
    answer = server.get("/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe-inline" not in policy
    for tag in ("script", "style"):
        (code,) = re.findall(f"<{tag}>(.*?)</{tag}>", answer.text, re.DOTALL)
        assert f"{tag}-src 'sha256-{base64.b64encode(sha256(code.encode()).digest()).decode()}'" in policy
    assert not Page(answer.text).handlers


def test_what_it_asks_for_is_served(server) -> None:
    script = server.get("/").text.split("<script>")[1]
    assert set(re.findall(r'call\("([^"]+)"', script)) == {"v1/embeddings", "v1/segment", "info"}
    assert {"/info", *(f"/{path}" for path in Page(server.get("/").text).linked)} <= {
        *(path for path, *_ in GETS),
        "/openapi.json",
    }
    for field in ("model", "input", "task", "dimensions", "late_chunking", "late_chunking_windows"):
        assert field in EmbeddingsRequest.model_fields and field in script
    assert {"content", "chunk_tokens"} <= set(SegmentRequest.model_fields)
    info = server.get("/info").json()
    for field in set(re.findall(r"info\.(\w+)", script)):
        assert field in info, field


def test_its_search_works_on_the_documents_of_its_example(server) -> None:
    text = server.get("/").text.split('<textarea id="document" spellcheck="false" required>')[1].split("<")[0]
    cut = server.post("/v1/segment", {"content": text, "chunk_tokens": 20}).json()
    body = {"input": cut["chunks"], "late_chunking": True, "late_chunking_windows": True, "task": "retrieval.passage"}
    assert len(server.post("/v1/embeddings", body).json()["data"]) == cut["num_chunks"] > 2
