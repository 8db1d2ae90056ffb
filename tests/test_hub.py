"""Names to folders: shipped, local, and fetched by the real hub client from a small hub on the loopback address."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from huggingface_hub import close_session

from fivefold import hub
from fivefold.checkpoint import load_encoder, write
from fivefold.errors import CheckpointError, LicenceError, MissingFileError
from tests import toy

SHA = "0123456789abcdef0123456789abcdef01234567"
UNWANTED = {
    "pytorch_model.bin": b"pickle",
    "onnx/model.onnx": b"graph",
    "onnx/config.json": b"{}",
    "custom.py": b"code",
}


@dataclass
class FakeHub:
    """Repositories by id: their files, their info, and the error their files answer with, if any."""

    files: dict[str, bytes]
    infos: dict[str, dict[str, Any]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    fetched: list[str] = field(default_factory=list)
    endpoint: str = ""

    def info(self, repo: str) -> dict[str, Any]:
        """The answer to a question about a model."""
        return {"id": repo, "modelId": repo, "sha": SHA, "tags": [], "siblings": [], **self.infos[repo]}

    def tree(self) -> list[dict[str, Any]]:
        """Every file, flat."""
        return [
            {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            for path, data in self.files.items()
        ]


def handler(state: FakeHub) -> type[BaseHTTPRequestHandler]:
    """Speaks the hub's few endpoints: info, info of a revision, tree, and files."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            """Keep the test's output clean."""

        def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_GET(self) -> None:
            """Every route, for GET and HEAD."""
            parts = self.path.split("?")[0].strip("/").split("/")
            api = parts[:2] == ["api", "models"]
            repo = "/".join(parts[2:4] if api else parts[:2])
            rest = parts[4:] if api else parts[2:]
            if repo not in state.infos:
                return self.answer(404, X_Error_Code="RepoNotFound")
            if len(rest) > 1 and rest[1] not in ("main", "v1", SHA):
                return self.answer(404, X_Error_Code="RevisionNotFound")
            if api:
                found = state.tree() if rest[:1] == ["tree"] else state.info(repo)
                return self.answer(200, json.dumps(found).encode(), Content_Type="application/json")
            if repo in state.gated:
                return self.answer(403, X_Error_Code="GatedRepo")
            path = "/".join(rest[2:])
            state.fetched.append(path)
            data = state.files[path]
            return self.answer(200, data, ETag=f'"{hashlib.sha1(data).hexdigest()}"', X_Repo_Commit=SHA)

        do_HEAD = do_GET

    return Handler


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A `-hf` repository of a toy model, and what never is to be fetched."""
    folder = tmp_path_factory.mktemp("repo") / "hf"
    write(folder, toy.config(), toy.encoder().state_dict(), layout="hf", max_shard_bytes=30_000)
    (folder / "tokenizer.json").write_text("{}")
    (folder / "sentencepiece.bpe.model").write_bytes(b"pieces")
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return found | UNWANTED


@pytest.fixture
def fake(files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """The hub, up for one test."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    close_session()
    free, bound = {"cardData": {"license": "apache-2.0"}}, {"cardData": {"license": "cc-by-nc-4.0"}}
    state = FakeHub(files, {"org/free": free, "org/bound": bound, "org/tagged": {"tags": ["license:cc-by-nc-sa-4.0"]}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(state))
    state.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield state
    close_session()
    server.shutdown()
    server.server_close()
    thread.join()


def resolve(fake: FakeHub, model: str, cache: Path, **options: Any) -> Path:
    return hub.resolve(model, cache_dir=cache, endpoint=fake.endpoint, **options)


def test_a_model_is_fetched_and_loads(fake: FakeHub, tmp_path: Path) -> None:
    """Everything that is needed, adapters and shards too; no pickles, graphs or code."""
    folder = resolve(fake, "org/free", tmp_path)
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert found == set(fake.files) - set(UNWANTED)
    assert not set(fake.fetched) & set(UNWANTED)
    encoder = load_encoder(folder, dtype=torch.float32, device=torch.device("cpu"))
    assert torch.equal(encoder.pooler.dense.weight, toy.encoder().pooler.dense.weight)  # type: ignore[union-attr]


def test_the_graph_is_fetched_for_those_who_run_it(fake: FakeHub, tmp_path: Path) -> None:
    folder = resolve(fake, "org/free", tmp_path, graph=True)
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert found & set(UNWANTED) == {"onnx/model.onnx"}


@pytest.mark.parametrize("model", ["org/bound", "org/tagged"])
def test_a_non_commercial_licence_has_to_be_accepted(fake: FakeHub, model: str, tmp_path: Path) -> None:
    """The error names the licence, the model and both ways; nothing has been fetched by then."""
    with pytest.raises(
        LicenceError, match=rf"{model} is under the licence cc-by-nc-.*accept_license=True.*--accept-license"
    ):
        resolve(fake, model, tmp_path)
    assert fake.fetched == []
    assert list(tmp_path.iterdir()) == []
    assert (resolve(fake, model, tmp_path, accept_license=True) / "config.json").is_file()


def test_the_cache_alone(fake: FakeHub, tmp_path: Path) -> None:
    """Without network: an error before it was fetched, the same folder after, with a licence once accepted."""
    with pytest.raises(CheckpointError, match="org/bound: some files are not in the local cache"):
        resolve(fake, "org/bound", tmp_path, local_files_only=True)
    folder = resolve(fake, "org/bound", tmp_path, accept_license=True)
    fake.endpoint = "http://127.0.0.1:9"
    assert resolve(fake, "org/bound", tmp_path, local_files_only=True) == folder


def test_revisions(fake: FakeHub, tmp_path: Path) -> None:
    """A tag and a commit are found; another is an error naming it."""
    assert resolve(fake, "org/free", tmp_path, revision="v1") == resolve(fake, "org/free", tmp_path, revision=SHA)
    with pytest.raises(CheckpointError, match="org/free at revision v9: the model has no such revision"):
        resolve(fake, "org/free", tmp_path, revision="v9")


def test_what_the_hub_does_not_give(fake: FakeHub, tmp_path: Path) -> None:
    """Unknown and gated models, and a hub that does not answer."""
    with pytest.raises(CheckpointError, match="org/none: the hub has no such model: check the name"):
        resolve(fake, "org/none", tmp_path)
    fake.gated.add("org/free")
    with pytest.raises(CheckpointError, match="org/free: its owner wants terms accepted"):
        resolve(fake, "org/free", tmp_path)
    fake.endpoint = "http://127.0.0.1:9"
    with pytest.raises(CheckpointError, match="the hub did not answer: check the network, or pass local_files_only"):
        resolve(fake, "org/free", tmp_path)


def test_offline_mode(fake: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the hub client is told to stay offline, the error says how to use its cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    close_session()
    with pytest.raises(CheckpointError, match="set to offline: pass local_files_only=True"):
        resolve(fake, "org/free", tmp_path)


def test_folders_and_shipped_models_need_no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder is itself; a shipped name is a folder of the package, or an error where it was left out."""
    assert hub.resolve(str(tmp_path)) == tmp_path
    monkeypatch.setattr(hub, "SHIPPED", {"v3-nano": "models", "lost": "models/lost"})
    monkeypatch.setattr(hub, "__file__", str(tmp_path / "hub.py"))
    (tmp_path / "models").mkdir()
    assert hub.resolve("v3-nano") == tmp_path / "models"
    with pytest.raises(MissingFileError, match="this installation came without lost"):
        hub.resolve("lost")


@pytest.mark.parametrize(
    "model", ["v3-nona", "./no/such/folder", "/no/such", "a/b/c", "", "org/", "~none/x", "x/model.safetensors"]
)
def test_what_is_no_name_at_all(model: str) -> None:
    """The error lists the shipped models and goes nowhere near a network."""
    with pytest.raises(MissingFileError, match=r"neither a shipped model \(v3-nano\)"):
        hub.resolve(model)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cc-by-nc-4.0", True),
        ("cc-by-nc-sa-3.0", True),
        ("polyform-noncommercial-1.0.0", True),
        ("fair-noncommercial-research-license", True),
        ("apache-2.0", False),
        ("mit", False),
        ("cc-by-4.0", False),
        ("ncsa", False),
        ("bsd-3-clause", False),
    ],
)
def test_which_licences_are_non_commercial(name: str, expected: bool) -> None:
    assert hub.is_non_commercial(name) is expected


def test_where_a_licence_is_found() -> None:
    """A name of its own before the card's `other`, and tags where there is no card."""

    def info(card: dict[str, str] | None, tags: list[str]) -> Any:
        return SimpleNamespace(card_data=SimpleNamespace(**card) if card is not None else None, tags=tags)

    assert (
        hub.licence(info({"license": "other", "license_name": "some-nc-licence"}, ["license:other"]))
        == "some-nc-licence"
    )
    assert hub.licence(info(None, ["torch", "license:mit"])) == "mit"
    assert hub.licence(info({}, [])) is None
