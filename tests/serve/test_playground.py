"""The page: complete in itself, every control named, every route and field it uses served."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from fivefold.serve.routes.operations import GETS
from fivefold.serve.schema import EmbeddingsRequest, SegmentRequest


class Page(HTMLParser):
    """Controls without a label, and everything the page would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.labels, self.unnamed, self.fetched, self.ids = 0, [], [], []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        named = dict(attributes)
        self.ids += [named["id"]] if "id" in named else []
        self.labels += tag == "label"
        if tag in ("input", "select", "textarea") and not self.labels:
            self.unnamed.append(named)
        self.fetched += [value for key, value in attributes if key in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        self.labels -= tag == "label"


def test_the_page_stands_alone(server) -> None:
    answer = server.get("/")
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    page = Page(answer.text)
    assert not page.fetched and "http://" not in answer.text and "https://" not in answer.text
    assert not page.unnamed and len(page.ids) == len(set(page.ids))
    script = answer.text.split("<script>")[1]
    for name in set(re.findall(r'at\("([\w-]+)"\)', script)):
        assert name in page.ids, name


def test_what_it_asks_for_is_served(server) -> None:
    script = server.get("/").text.split("<script>")[1]
    paths = set(re.findall(r'call\("([^"]+)"', script))
    assert paths == {"/v1/embeddings", "/v1/segment", "/info"} and "/info" in {path for path, *_ in GETS}
    for field in ("model", "input", "task", "dimensions", "late_chunking", "late_chunking_windows"):
        assert field in EmbeddingsRequest.model_fields and field in script
    assert {"content", "chunk_tokens"} <= set(SegmentRequest.model_fields)
    info = server.get("/info").json()
    for field in set(re.findall(r"info\.(\w+)", script)):
        assert field in info, field


def test_its_search_works_on_the_documents_of_its_example(server) -> None:
    text = server.get("/").text.split('<textarea id="document" spellcheck="false">')[1].split("<")[0]
    cut = server.post("/v1/segment", {"content": text, "chunk_tokens": 20}).json()
    body = {"input": cut["chunks"], "late_chunking": True, "late_chunking_windows": True, "task": "retrieval.passage"}
    assert len(server.post("/v1/embeddings", body).json()["data"]) == cut["num_chunks"] > 2
