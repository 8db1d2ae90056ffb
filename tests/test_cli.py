"""The command line, run in this process on the tiny checkpoint; help and broken pipes in a process of their own."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fivefold import Embedder, __version__
from fivefold.checkpoint import save_adapter
from fivefold.cli import COMMANDS, main, parser
from fivefold.jobs.store import Rows

ROWS = [
    {"id": 7, "text": "a fox", "kind": "retrieval.query"},
    {"id": 8, "text": "der Hund", "kind": ""},
    {"id": 9, "text": "el río", "kind": "none"},
]


@pytest.fixture(scope="module")
def embedder(tiny_folder: Path) -> Embedder:
    return Embedder.load(tiny_folder)


@pytest.fixture
def run(tiny_folder: Path, capsys: pytest.CaptureFixture[str]):
    """Run a command on the tiny model; gives (exit status, stdout, stderr)."""

    def call(*argv: str | Path) -> tuple[int, str, str]:
        status = main([*map(str, argv), "--model", str(tiny_folder)])
        return status, *capsys.readouterr()

    return call


def feed(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))


def write_jsonl(path: Path, rows: list[dict] = ROWS) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def records_of(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


# help, version, errors


@pytest.mark.parametrize("argv", [["--help"], *([c.name, "--help"] for c in COMMANDS)], ids=lambda argv: argv[0])
def test_help_is_quick_and_loads_no_heavy_library(argv: list[str]) -> None:
    code = (
        "import sys\nfrom fivefold.cli import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit as e:\n"
        "    assert not e.code\nprint(sorted({'torch', 'numpy', 'pyarrow', 'lancedb'} & set(sys.modules)))"
    )
    best = float("inf")
    for _ in range(3):  # the machine may be busy: the best of three counts
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True, check=True)
        best = min(best, time.perf_counter() - start)
        assert done.stdout.splitlines()[-1] == "[]"
    assert best < 0.3


def test_every_option_says_its_default() -> None:
    for action in parser()._subparsers._group_actions[0].choices.values():
        for option in action._actions:
            if option.option_strings and option.dest != "help":
                assert "default" in option.help, f"{action.prog} {option.option_strings}"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert not ended.value.code
    assert capsys.readouterr().out == f"fivefold {__version__}\n"


def test_errors_are_one_line_and_status_2(run) -> None:
    status, out, err = run("similarity", "a", "b", "--task", "nonsense")
    assert (status, out) == (2, "")
    assert err.startswith("fivefold: unknown task 'nonsense'") and "Traceback" not in err
    status, _, err = run("embed", "/no/such/file.txt")
    assert status == 2 and "cannot read /no/such/file.txt" in err


def test_interrupt_gives_130(monkeypatch: pytest.MonkeyPatch, run) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Embedder, "load", interrupted)
    assert run("similarity", "a", "b")[0] == 130


def test_a_broken_pipe_is_quiet(tiny_folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "many.lines"
    source.write_text("a fox\n" * 5000)
    command = [sys.executable, "-m", "fivefold", "embed", str(source), "--model", str(tiny_folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 141


# embed


def test_lines_from_stdin_to_jsonl(run, monkeypatch: pytest.MonkeyPatch, embedder: Embedder) -> None:
    feed(monkeypatch, b"a fox\r\n\nder Hund")
    status, out, _ = run("embed")
    rows = records_of(out)
    assert status == 0 and [r["text"] for r in rows] == ["a fox", "", "der Hund"]
    expected = embedder.encode(["a fox", "", "der Hund"])
    np.testing.assert_allclose([r["embedding"] for r in rows], expected, atol=1e-6)


def test_text_files_give_one_row_each(run, tmp_path: Path) -> None:
    for name in ("a.txt", "b.md"):
        (tmp_path / name).write_text(f"{name}\nsecond line")
    _, out, _ = run("embed", tmp_path / "a.txt", tmp_path / "b.md", "--truncate-dim", "3")
    rows = records_of(out)
    assert [r["text"] for r in rows] == ["a.txt\nsecond line", "b.md\nsecond line"]
    assert [len(r["embedding"]) for r in rows] == [3, 3]


def test_jsonl_to_npy_with_a_task_for_each_row(run, tmp_path: Path, embedder: Embedder) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl")
    status, _, _ = run("embed", source, "--task-field", "kind", "--task", "separation", "--output", tmp_path / "v.npy")
    expected = embedder.encode([r["text"] for r in ROWS], task=["retrieval.query", "separation", None])
    assert status == 0
    np.testing.assert_allclose(np.load(tmp_path / "v.npy"), expected, atol=1e-6)


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_csv_to_parquet_keeps_columns(run, tmp_path: Path, suffix: str, embedder: Embedder) -> None:
    separator = {"csv": ",", "tsv": "\t"}[suffix]
    source = tmp_path / f"rows.{suffix}"
    source.write_text(
        separator.join(["id", "body"]) + "\n" + separator.join(["1", '"two\nlines"']) + "\n", encoding="utf-8-sig"
    )
    status, _, err = run("embed", source, "--field", "body", "--output", tmp_path / "v.parquet", "--precision", "int8")
    assert status == 0, err
    table = pq.read_table(tmp_path / "v.parquet")
    assert table.select(["id", "body"]).to_pylist() == [{"id": "1", "body": "two\nlines"}]
    assert table["embedding"].to_pylist() == embedder.encode(["two\nlines"], precision="int8").tolist()


def test_parquet_keeps_the_types_of_its_columns(run, tmp_path: Path) -> None:
    schema = pa.schema([("text", pa.large_string()), ("when", pa.date32()), ("n", pa.int16())])
    table = pa.table({"text": ["a", "b"], "when": [None, 3], "n": [1, None]}, schema=schema)
    pq.write_table(table, tmp_path / "in.parquet")
    assert run("embed", tmp_path / "in.parquet", "--output", tmp_path / "out.parquet")[0] == 0
    out = pq.read_table(tmp_path / "out.parquet")
    assert out.drop_columns(["embedding"]).cast(schema).equals(table)
    assert out.schema.field("n").type == pa.int16()
    _, text, _ = run("embed", tmp_path / "in.parquet", "--truncate-dim", "1")
    assert records_of(text)[1]["when"] == "1970-01-04"


def test_blocks_join_without_a_seam(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fivefold.commands.embed.BLOCK_ROWS", 2)
    rows = [{"text": word} for word in "one two three four five".split()]
    source = write_jsonl(tmp_path / "rows.jsonl", rows)
    for name in ("a.npy", "a.parquet", "a.jsonl"):
        assert run("embed", source, "--output", tmp_path / name)[0] == 0
    vectors = np.load(tmp_path / "a.npy")
    assert vectors.shape == (5, 32)
    assert pq.read_table(tmp_path / "a.parquet")["text"].to_pylist() == [r["text"] for r in rows]
    written = records_of((tmp_path / "a.jsonl").read_text())
    np.testing.assert_array_equal(np.array([r["embedding"] for r in written], dtype=np.float32), vectors)


def test_chunks_tell_document_span_and_text(run, tmp_path: Path, embedder: Embedder) -> None:
    texts = ["The quick brown fox jumps. The lazy dog sleeps near the river.", "A second document."]
    source = write_jsonl(tmp_path / "rows.jsonl", [{"id": i, "text": text} for i, text in enumerate(texts)])
    status, out, _ = run("embed", source, "--chunk-tokens", "12")
    rows = records_of(out)
    assert status == 0 and {r["document"] for r in rows} == {0, 1} and len(rows) > 2
    assert all(texts[r["document"]][r["start"] : r["stop"]] == r["text"] and r["id"] == r["document"] for r in rows)
    expected = embedder.encode_chunks(texts[0], chunk_tokens=12).vectors[0]
    np.testing.assert_allclose(rows[0]["embedding"], expected, atol=1e-6)


def test_chunks_do_not_fit_npy(run, tmp_path: Path) -> None:
    status, _, err = run(
        "embed", write_jsonl(tmp_path / "r.jsonl"), "--chunk-tokens", "9", "--output", tmp_path / "v.npy"
    )
    assert status == 2 and "npy" in err and not (tmp_path / "v.npy").exists()


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("r.jsonl", b'{"text": "a"}\n{"text": 3}\n', "r.jsonl, row 2: 'text' must be a text, got int"),
        ("r.jsonl", b'{"text": "a"}\n{"body": "b"}\n', "r.jsonl, row 2: there is no 'text'; it has 'body'"),
        ("r.jsonl", b'{"text": "a"}\n\n{bad\n', "r.jsonl, row 3: not valid JSON"),
        ("r.jsonl", b'["a"]\n', "r.jsonl, row 1: must be a JSON object"),
        ("r.jsonl", b'{"text": "a", "embedding": 1}\n', "r.jsonl, row 1: it already has 'embedding'"),
        ("r.csv", b"id,text\n1,a\n2\n", "r.csv, row 2: no cell for 'text'"),
        ("r.csv", b"id,text\n1,a,b\n", "r.csv, row 1: more cells"),
        ("r.csv", b'id,text\n1,"a\n', "r.csv, row 1 (line"),
        ("r.lines", b"a\n\xff\n", "r.lines, row 2: not UTF-8 at byte 0"),
        ("r.txt", b"\xff", "r.txt, row 1: not UTF-8"),
        ("r.parquet", b"PAR1 no", "r.parquet: not a readable Parquet file"),
        ("r.jsonl", b"", "there is no text in"),
    ],
)
def test_a_broken_row_is_named_and_nothing_is_written(run, tmp_path: Path, name: str, data: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(data)
    status, _, err = run("embed", tmp_path / name, "--output", tmp_path / "v.npy")
    assert status == 2 and said in err
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_an_unknown_task_in_a_row_is_named(run, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "r.jsonl", [{"text": "a", "t": "separation"}, {"text": "b", "t": "poetry"}])
    status, _, err = run("embed", source, "--task-field", "t")
    assert status == 2 and "r.jsonl, row 2: unknown task 'poetry'" in err


def test_a_long_text_is_cut_with_a_warning_or_refused(run, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "r.jsonl", [{"text": "short"}, {"text": "fox " * 200}])
    status, _, err = run("embed", source)
    assert status == 0 and "row 1 to" in err and "1 text was cut" in err
    status, _, err = run("embed", source, "--no-truncate")
    assert status == 2 and "r.jsonl, row 2:" in err


def test_rows_that_do_not_fit_one_parquet_schema(run, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "r.jsonl", [{"text": "a", "n": 1}, {"text": "b", "n": "two"}])
    status, _, err = run("embed", source, "--output", tmp_path / "v.parquet")
    assert status == 2 and "write JSONL instead" in err and not (tmp_path / "v.parquet").exists()
    assert run("embed", source, "--output", tmp_path / "v.jsonl")[0] == 0


# search


@pytest.fixture
def library(tmp_path: Path) -> Path:
    folder = tmp_path / "library"
    folder.mkdir()
    (folder / "fox.txt").write_text("The quick brown fox jumps over the lazy dog.\nIt's near the river bank.")
    (folder / "hund.md").write_text("Der schnelle braune Fuchs springt.")
    (folder / "o'clock.txt").write_text("El zorro marrón.")
    (folder / "image.png").write_bytes(b"\x89PNG")
    return folder


def search(run, library: Path, tmp_path: Path, *more: str) -> tuple[int, list[dict], str]:
    status, out, err = run("search", library, "--index", tmp_path / "index", "--chunk-tokens", "16", "--json", *more)
    return status, records_of(out), err


def test_search_finds_passages_with_score_and_span(run, library: Path, tmp_path: Path, embedder: Embedder) -> None:
    status, answers, err = search(run, library, tmp_path, "--query", "a fox", "--query", "a dog", "--top", "3")
    assert status == 0 and [a["query"] for a in answers] == ["a fox", "a dog"]
    assert "embedded 3, reused 0" in err and "1 files with other suffixes" in err
    hits = answers[0]["hits"]
    assert len(hits) == 3 and hits == sorted(hits, key=lambda hit: -hit["score"])
    for hit in hits:
        text = Path(hit["source"]).read_text()
        assert text[hit["start"] : hit["stop"]] == hit["text"]
        chunks = embedder.encode_chunks(text, chunk_tokens=16)
        vector = chunks.vectors[chunks.texts.index(hit["text"])]
        assert hit["score"] == pytest.approx(float(vector @ embedder.encode_query("a fox")), abs=1e-5)


def test_only_changed_files_are_embedded_again(run, library: Path, tmp_path: Path) -> None:
    search(run, library, tmp_path, "--query", "x")
    assert "embedded 0, reused 3" in search(run, library, tmp_path, "--query", "x")[2]
    (library / "fox.txt").write_text("Now about penguins.")
    (library / "o'clock.txt").unlink()
    _, answers, err = search(run, library, tmp_path, "--query", "x", "--top", "50")
    assert "embedded 1, reused 1, removed 1" in err
    found = " ".join(hit["text"] for hit in answers[0]["hits"])
    assert "penguins" in found and "Fuchs" in found and "dog" not in found and "zorro" not in found


def test_an_index_is_searched_without_its_sources(run, library: Path, tmp_path: Path) -> None:
    _, before, _ = search(run, library, tmp_path, "--query", "fox")
    status, out, _ = run("search", "--index", tmp_path / "index", "--json", "--query", "fox")
    assert status == 0 and records_of(out) == before


def test_an_index_refuses_other_dimensions_tasks_and_models(
    run, library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search(run, library, tmp_path, "--query", "x")
    for more, said in (
        (["--truncate-dim", "8"], "dimensions: 32 in the index, 8 asked for"),
        (["--task", "separation"], "task: 'retrieval.passage' in the index, 'separation' asked for"),
        (["--lines"], "lines: False in the index, True asked for"),
    ):
        status, _, err = search(run, library, tmp_path, "--query", "x", *more)
        assert status == 2 and said in err
    with monkeypatch.context() as patch:  # a model that says something else about the probe
        patch.setattr("fivefold.jobs.origin.PROBE_TEXT", "der Hund am Fluss")
        status, _, err = run("search", "--index", tmp_path / "index", "--query", "x")
    assert status == 2 and "other weights" in err
    (tmp_path / "index" / "settings.json").write_text("{}")
    status, _, err = search(run, library, tmp_path, "--query", "x")
    assert status == 2 and "--rebuild" in err
    assert search(run, library, tmp_path, "--query", "x", "--rebuild")[0] == 0


def test_lines_are_passages_and_queries_come_from_stdin(run, library: Path, tmp_path: Path, monkeypatch) -> None:
    feed(monkeypatch, b"a fox\n\nein Fuchs\n")
    status, answers, _ = search(run, library, tmp_path, "--lines", "--top", "50")
    assert status == 0 and [a["query"] for a in answers] == ["a fox", "ein Fuchs"]
    assert "It's near the river bank." in {hit["text"] for hit in answers[0]["hits"]}


# a store in the place of the index


def test_files_go_into_a_store_and_are_found_there(run, library: Path, tmp_path: Path, embedder: Embedder) -> None:
    store = f"lancedb://{tmp_path}/db/things"
    status, _, err = run("index", library, "--store", store, "--chunk-tokens", "16")
    assert status == 0 and "3 files indexed" in err and "1 files with other suffixes" in err
    status, out, _ = run("search", "--store", store, "--query", "a fox", "--json", "--top", "50")
    (answer,) = records_of(out)
    assert status == 0 and answer == search(run, library, tmp_path, "--query", "a fox", "--top", "50")[1][0]
    for hit in answer["hits"]:
        assert Path(hit["source"]).read_text()[hit["start"] : hit["stop"]] == hit["text"]
    _, page, _ = run("search", "--store", store, "--query", "a fox")
    assert "fox.txt [" in page


def test_a_file_indexed_again_leaves_nothing_of_what_it_was(run, library: Path, tmp_path: Path) -> None:
    store = f"lancedb://{tmp_path}/db/things"
    counts = []
    for text in (None, None, "Now about penguins."):
        if text is not None:
            (library / "fox.txt").write_text(text)
        _, _, err = run("index", library, "--store", store, "--chunk-tokens", "16")
        counts.append(int(err.split(" passages in all")[0].split()[-1]))
    _, out, _ = run("search", "--store", store, "--query", "x", "--json", "--top", "50")
    found = " ".join(hit["text"] for hit in records_of(out)[0]["hits"])
    assert counts[0] == counts[1] > counts[2] and "penguins" in found and "dog" not in found


def test_hybrid_search_finds_a_word_that_the_vector_does_not(run, library: Path, tmp_path: Path) -> None:
    (library / "part.txt").write_text("xq77b")
    found = {}
    for how in ((), ("--hybrid",)):
        _, answers, _ = search(run, library, tmp_path, "--query", "xq77b", "--lines", "--top", "2", *how)
        found[how] = [hit["text"] for hit in answers[0]["hits"]]
    assert "xq77b" in found["--hybrid",] and "xq77b" not in found[()]
    store = f"parquet://{tmp_path}/vectors"
    run("index", library, "--store", store, "--precision", "int8")
    status, _, err = run("search", "--store", store, "--query", "x", "--hybrid")
    assert status == 2 and "does not rank by words" in err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--task", "classification"], "a query with task 'classification' does not fit"),
        (["--task", "none"], "a query with task None does not fit"),
        (["--truncate-dim", "8"], "32 dimensions are stored"),
        (["--index", "x"], "--index does not go with --store"),
        (["--rebuild"], "--rebuild does not go with --store"),
    ],
)
def test_a_query_that_does_not_fit_the_store_is_refused(
    run, library: Path, tmp_path: Path, more: list[str], said: str
) -> None:
    store = f"lancedb://{tmp_path}/db/things"
    run("index", library, "--store", store)
    status, _, err = run("search", "--store", store, "--query", "x", *more)
    assert status == 2 and said in err
    for task in ("retrieval.query", "retrieval.passage"):
        assert run("search", "--store", store, "--query", "x", "--task", task)[0] == 0


def test_a_store_refuses_passages_of_another_task_and_queries_where_nothing_is(
    run, library: Path, tmp_path: Path
) -> None:
    store = f"lancedb://{tmp_path}/db/things"
    status, _, err = run("search", "--store", store, "--query", "x")
    assert status == 2 and "the collection does not exist" in err
    run("index", library, "--store", store)
    status, _, err = run("index", library, "--store", store, "--task", "separation")
    assert status == 2 and "task: 'retrieval.passage' in the index, 'separation' asked for" in err


def test_the_default_index_lies_in_the_cache_folder(run, library: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    status, out, _ = run("search", library, "--query", "fox", "--chunk-tokens", "16", "--top", "50")
    assert status == 0 and "fox.txt [0:" in out
    assert len(list((tmp_path / "cache" / "fivefold" / "indexes").iterdir())) == 1
    assert "reused 3" in run("search", library, "--query", "fox", "--chunk-tokens", "16")[2]


def test_a_killed_run_is_finished_by_the_next(run, library: Path, tmp_path: Path, monkeypatch) -> None:
    from fivefold.commands.folder import Index

    put = Index.put

    def dies_in_the_second(self: Index, source: str, fingerprint: str, blocks: Iterator[Rows]) -> None:
        if source.endswith("hund.md"):
            self.store.upsert(next(blocks))  # half a file is in, its row in `sources` is not
            raise KeyboardInterrupt
        put(self, source, fingerprint, blocks)

    monkeypatch.setattr(Index, "put", dies_in_the_second)
    assert search(run, library, tmp_path, "--query", "x")[0] == 130
    monkeypatch.setattr(Index, "put", put)
    assert "embedded 2, reused 1" in search(run, library, tmp_path, "--query", "x")[2]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([], "nothing to search"),
        (["/no/such"], "cannot read /no/such"),
        (["--index", "/no/such"], "there is no index in /no/such"),
        (["--top", "0"], "--top must be at least 1"),
    ],
)
def test_search_refuses_early(run, more: list[str], said: str) -> None:
    status, _, err = run("search", "--query", "x", *more)
    assert status == 2 and said in err


# similarity, info, convert


def test_similarity_of_two_and_of_three(run, embedder: Embedder) -> None:
    vectors = embedder.encode(["a fox", "ein Fuchs"], task="text-matching")
    said = run("similarity", "a fox", "ein Fuchs")[1]
    assert re.fullmatch(r"\d\.\d{4}\n", said) and abs(float(said) - vectors[0] @ vectors[1]) < 6e-5
    found = json.loads(run("similarity", "a fox", "ein Fuchs", "x", "--json")[1])
    assert np.allclose(np.diag(found["similarity"]), 1, atol=1e-5) and len(found["similarity"]) == 3
    assert len(run("similarity", "a", "b", "c")[1].splitlines()) == 4
    assert run("similarity", "alone")[0] == 2


def test_an_adapter_by_name(run, tiny_folder: Path, tmp_path: Path, embedder: Embedder) -> None:
    save_adapter(tiny_folder, tmp_path / "a", task="retrieval.query")
    named = ("--adapter", f"mine={tmp_path / 'a'}", "--prompt", f"mine={embedder.config.prompt('retrieval.query')}")
    said = json.loads(run("similarity", "a fox", "ein Fuchs", "--json", "--task", "mine", *named)[1])
    vectors = embedder.encode(["a fox", "ein Fuchs"], task="retrieval.query")
    np.testing.assert_allclose(said["similarity"][0][1], vectors[0] @ vectors[1], atol=1e-5)
    for wrong in (("--adapter", "mine"), ("--adapter", "=a"), (*named, *named[:2])):
        status, _, error = run("similarity", "a", "b", *wrong)
        assert status == 2 and "write NAME=VALUE, once for each task" in error


def test_info_for_people_and_programs(run, tiny_folder: Path) -> None:
    facts = json.loads(run("info", "--json")[1])
    assert facts["dimensions"] == 32 and facts["licence"] == "apache-2.0"
    assert facts["tasks"]["retrieval.passage"] == "Represent the document for retrieval: "
    assert facts["files"]["model.safetensors"] == (tiny_folder / "model.safetensors").stat().st_size
    page = run("info")[1]
    assert "retrieval.query" in page and "max length            64" in page


@pytest.mark.parametrize("layout", ["jina", "hf", "transformers", "fivefold"])
def test_convert_writes_a_model_that_gives_the_same_vectors(
    layout: str, tiny_folder: Path, tmp_path: Path, embedder: Embedder, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "converted"
    status = main(["convert", str(tiny_folder), str(target), "--layout", layout])
    assert status == 0, capsys.readouterr().err
    tasks = None if layout == "transformers" else "retrieval.query"  # native files hold the body alone
    expected = embedder.encode("a fox", task=tasks)
    np.testing.assert_allclose(Embedder.load(target).encode("a fox", task=tasks), expected, atol=1e-5)
    assert main(["convert", str(tiny_folder), str(target), "--layout", layout]) == 2
    assert "not an empty folder" in capsys.readouterr().err


def test_choices_are_those_of_the_library() -> None:
    """The command line states them itself, to stay quick; this holds them to the tables that decide."""
    from fivefold import embedder, layouts, options, quantization, vectors

    assert options.DTYPES == quantization.DTYPES
    assert options.PRECISIONS == tuple(vectors.PRECISIONS)
    assert options.LAYOUTS == tuple(layouts.LAYOUTS)
    limits = f"{embedder.MAX_BATCH_TOKENS['cpu']} on a CPU, {embedder.MAX_BATCH_TOKENS['cuda']} on a GPU"
    with_limits = [command for command in COMMANDS if "--max-batch-tokens" in _help(command)]
    assert len(with_limits) == 7
    assert all(limits in " ".join(_help(command).split()) for command in with_limits)


def _help(command: object) -> str:
    from argparse import ArgumentParser

    made = ArgumentParser()
    command.options(made)  # type: ignore[attr-defined]
    return made.format_help()
