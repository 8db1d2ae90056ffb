"""The job in one process: what it writes, what it refuses, what it goes on from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from fivefold.embedder import Embedder
from fivefold.errors import InputError, JobError, NonFiniteError, StoreError
from fivefold.jobs.attempts import POISON, Attempt
from fivefold.jobs.folder import Folder
from fivefold.jobs.job import Here, Target
from fivefold.jobs.sources import Fields
from fivefold.packing import PackedBatch
from tests import toy
from tests.jobs.corpus import IDS, SMALL, Counting, MemoryStore, assert_same, jsonl, rows, run, written


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return toy.embedder()


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    return jsonl(tmp_path / "rows.jsonl", rows(10))


def errors_of(output: Path) -> dict[str, str]:
    lines = (output / "_fivefold" / "errors.jsonl").read_text().splitlines()
    return {line["id"]: line["reason"] for line in map(json.loads, lines)}


@pytest.mark.parametrize(
    "changes",
    [{}, {"task": None}, {"truncate_dim": 8}, {"normalize": False}, {"precision": "int8"}, {"precision": "binary"}],
    ids=str,
)
def test_vectors_are_those_of_encode(changes: dict[str, Any], embedder: Embedder, corpus: str, tmp_path: Path) -> None:
    settings = replace(SMALL, **changes)
    done = run(corpus, tmp_path / "out", embedder, settings=settings)
    arguments = {"task": settings.task, "truncate_dim": settings.truncate_dim, "normalize": settings.normalize}
    expected = embedder.encode([row["text"] for row in rows(10)], precision=settings.precision, **arguments)
    table = pq.read_table(tmp_path / "out")
    np.testing.assert_allclose(np.array(table["vector"].to_pylist()), expected, atol=1e-5)
    assert table.drop_columns(["vector"]).to_pylist() == rows(10)
    assert (
        table.schema.field("vector").type.value_type
        == {"float32": "float", "int8": "int8", "binary": "int8"}[settings.precision]
    )
    assert (done.rows, done.vectors, done.reused, done.failed) == (10, 10, 0, [])


def test_a_task_for_each_row(embedder: Embedder, tmp_path: Path) -> None:
    tasks = ["separation", "", "none", "nonsense"]
    records = [{**row, "task": task} for row, task in zip(rows(4), tasks, strict=True)]
    done = run(jsonl(tmp_path / "a.jsonl", records), tmp_path / "out", embedder, fields=Fields(id="id", task="task"))
    texts = [row["text"] for row in rows(3)]
    expected = embedder.encode(texts, task=["separation", "retrieval.passage", None])
    assert_same(written(tmp_path / "out"), {f"d{i}": vector for i, vector in enumerate(expected)})
    assert len(done.failed) == 1 and "nonsense" in errors_of(tmp_path / "out")["d3"]
    with pytest.raises(InputError, match="vectors of one task"):
        run(
            str(tmp_path / "a.jsonl"),
            tmp_path / "2",
            embedder,
            fields=Fields(id="id", task="task"),
            target=Target(MemoryStore(), "m"),
        )


def test_late_chunks(embedder: Embedder, tmp_path: Path) -> None:
    text = " ".join(toy.TEXTS[:4])  # longer than the model: windows
    records = [
        {"id": "long", "text": text, "n": 1},
        {"id": "blank", "text": " \n"},
        {"id": "short", "text": "fox", "n": 2},
    ]
    settings = replace(SMALL, chunk_tokens=12)
    path = jsonl(tmp_path / "a.jsonl", records)
    run(path, tmp_path / "out", embedder, fields=Fields(id="id", chunks=True), settings=settings)
    expected = embedder.encode_chunks(text, chunk_tokens=12)
    found = {row["id"]: row for row in pq.read_table(tmp_path / "out").to_pylist()}
    assert len(found) == len(expected) + 1 and len(expected) > 4
    for number, ((start, stop), vector) in enumerate(zip(expected.spans.tolist(), expected.vectors, strict=True)):
        row = found[f"long#{number}"]
        assert (row["document"], row["start"], row["stop"], row["text"], row["n"]) == (
            "long",
            start,
            stop,
            text[start:stop],
            1,
        )
        np.testing.assert_allclose(row["vector"], vector, atol=1e-5)
    assert found["short#0"]["n"] == 2 and errors_of(tmp_path / "out").keys() == {"blank"}


def test_rows_that_fail_leave_the_others(embedder: Embedder, tmp_path: Path) -> None:
    records = [*rows(6), {"id": "long", "text": " ".join(toy.TEXTS)}, {"id": "none", "text": None}, "junk", *rows(3, 6)]
    path = jsonl(tmp_path / "a.jsonl", records)
    done = run(path, tmp_path / "out", embedder, settings=replace(SMALL, truncate=False))
    assert written(tmp_path / "out").keys() == {row["id"] for row in rows(9)}
    reasons = errors_of(tmp_path / "out")
    assert reasons.keys() == {"long", "none", f"{path}:9"} and "the limit is 64" in reasons["long"]
    assert len(done.failed) == 3
    cut = run(path, tmp_path / "cut", embedder)
    assert cut.cut == 1 and len(cut.failed) == 2


class Broken:
    """A backend that gives NaN, or raises, for sequences with one token id."""

    def __init__(self, embedder: Embedder, word: str, error: Exception | None) -> None:
        self.inner, self.error = embedder.backend, error
        self.token = embedder.tokenizer.rust.encode(word, add_special_tokens=False).ids[-1]

    def hidden_states(self, batch: PackedBatch) -> Any:
        hidden = self.inner.hidden_states(batch)
        bad = batch.input_ids == self.token
        if bad.any() and self.error is not None:
            raise self.error
        hidden[bad] = np.nan
        return hidden


@pytest.mark.parametrize("error", [None, RuntimeError("index out of range")], ids=str)
def test_a_row_that_the_model_cannot_stand(error: Exception | None, embedder: Embedder, tmp_path: Path) -> None:
    records = [{"id": i, "text": "狐" if i == 3 else "fox"} for i in range(6)]
    path = jsonl(tmp_path / "a.jsonl", records)
    broken = Embedder(Broken(embedder, "狐", error), embedder.tokenizer)
    run(path, tmp_path / "out", broken)
    assert written(tmp_path / "out").keys() == set("01245")
    assert ("NaN" if error is None else "index out of range") in errors_of(tmp_path / "out")["3"]


def test_a_model_that_fails_on_everything_ends_the_job(embedder: Embedder, corpus: str, tmp_path: Path) -> None:
    class Dead:
        def hidden_states(self, batch: PackedBatch) -> Any:
            raise RuntimeError("no device")

    engine = Counting(Here(embedder))
    engine.inner = replace(engine.inner, embedder=Embedder(Dead(), embedder.tokenizer))
    told = Here(embedder).origin(SMALL)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError, match="no device"):
        patch.setattr(Counting, "origin", lambda self, settings: told)
        run(corpus, tmp_path / "out", embedder, engine=engine)
    assert not list((tmp_path / "out").glob("*.parquet"))


@pytest.mark.parametrize("stop_after", [1, 2])
def test_resume_does_what_is_missing_and_nothing_twice(
    stop_after: int, embedder: Embedder, corpus: str, tmp_path: Path
) -> None:
    run(corpus, tmp_path / "whole", embedder)
    first, second = Counting(Here(embedder), stop_after), Counting(Here(embedder))
    with pytest.raises(KeyboardInterrupt):
        run(corpus, tmp_path / "out", embedder, engine=first)
    done = run(corpus, tmp_path / "out", embedder, engine=second)
    assert sorted(first.did + second.did) == [0, 1, 2] and done.reused == 4 * stop_after
    assert_same(written(tmp_path / "out"), written(tmp_path / "whole"))
    third = Counting(Here(embedder))
    assert run(corpus, tmp_path / "out", embedder, engine=third).reused == 10 and not third.did


def test_torn_parts_are_not_counted(embedder: Embedder, corpus: str, tmp_path: Path) -> None:
    run(corpus, tmp_path / "whole", embedder)
    run(corpus, tmp_path / "out", embedder)
    (tmp_path / "out" / "_fivefold" / "part-000001.json").unlink()
    (tmp_path / "out" / "part-000001.parquet").write_bytes(b"PAR1 half")
    (tmp_path / "out" / ".part-000002.parquet.0.part").write_bytes(b"half")
    engine = Counting(Here(embedder))
    run(corpus, tmp_path / "out", embedder, engine=engine)
    assert engine.did == [1] and not list((tmp_path / "out").glob(".*.part"))
    assert_same(written(tmp_path / "out"), written(tmp_path / "whole"))


@pytest.mark.parametrize(
    ("changes", "fields", "message"),
    [
        ({"task": "separation"}, IDS, "task: 'retrieval.passage' .* 'separation' asked for"),
        ({"truncate_dim": 8}, IDS, "dimensions: 32"),
        ({"precision": "int8"}, IDS, "precision: 'float32'"),
        ({"max_length": 9}, IDS, "max_length: None in the output, 9 asked for"),
        ({"part_rows": 5}, IDS, "part_rows: 4"),
        ({"chunk_tokens": 8}, Fields(id="id", chunks=True), "chunk_tokens: None"),
        ({}, Fields(text="id", id="text"), "field: 'text'.*id_field: 'id'"),
    ],
)
def test_another_job_is_refused_and_told_what_differs(
    changes: dict[str, Any], fields: Fields, message: str, embedder: Embedder, corpus: str, tmp_path: Path
) -> None:
    run(corpus, tmp_path / "out", embedder)
    before = written(tmp_path / "out")
    with pytest.raises(InputError, match=message):
        run(corpus, tmp_path / "out", embedder, settings=replace(SMALL, **changes), fields=fields)
    assert_same(written(tmp_path / "out"), before)


def test_other_weights_columns_or_files_are_refused(embedder: Embedder, corpus: str, tmp_path: Path) -> None:
    run(corpus, tmp_path / "out", embedder)
    other = Embedder(replace_backend(embedder, seed=1), embedder.tokenizer, model_name="toy")
    with pytest.raises(InputError, match="model: 'toy' has other weights"):
        run(corpus, tmp_path / "out", other)
    jsonl(tmp_path / "rows.jsonl", [{**row, "extra": "x"} for row in rows(10)])
    with pytest.raises(InputError, match="other columns than the output"):
        run(corpus, tmp_path / "out", embedder)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(InputError, match="is not the output of a job"):
        run(corpus, tmp_path / "mine", embedder)


def replace_backend(embedder: Embedder, seed: int) -> Any:
    backend = type(embedder.backend)
    return backend(toy.encoder(seed=seed), embedder.backend.device)  # type: ignore[attr-defined]


def test_changed_rows_are_refused_or_done_again(embedder: Embedder, corpus: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(corpus, out, embedder)
    changed = rows(9)
    changed[5]["text"] = "another text"
    jsonl(tmp_path / "rows.jsonl", changed)
    with pytest.raises(InputError, match=r"2 of the finished parts.*part 1 \(4 rows, 'd4' to 'd7'\).*--update"):
        run(corpus, out, embedder)
    engine = Counting(Here(embedder))
    run(corpus, out, embedder, engine=engine, update=True)
    run(corpus, tmp_path / "anew", embedder)
    assert engine.did == [1, 2]
    assert_same(written(out), written(tmp_path / "anew"))
    jsonl(tmp_path / "rows.jsonl", changed[:4])
    with pytest.raises(InputError, match=r"part 1 \(no rows left\)"):
        run(corpus, out, embedder)
    run(corpus, out, embedder, update=True)
    assert written(out).keys() == {"d0", "d1", "d2", "d3"}


def test_a_store_gets_every_row_and_keeps_what_it_was_made_with(
    embedder: Embedder, corpus: str, tmp_path: Path
) -> None:
    run(corpus, tmp_path / "whole", embedder)
    store = MemoryStore()
    run(corpus, tmp_path / "out", embedder, target=Target(store, "m"))
    assert_same({name: vector for name, (vector, _) in store.kept.items()}, written(tmp_path / "whole"))
    assert store.kept["d7"][1] == {"text": rows(10)[7]["text"], "n": 7}
    assert not list((tmp_path / "out").glob("*.parquet"))
    with pytest.raises(InputError, match="do not fit the collection"):
        run(corpus, tmp_path / "2", embedder, target=Target(store, "m"), settings=replace(SMALL, task=None))
    with pytest.raises(InputError, match="store: 'm' in the output, 'n' asked for"):
        run(corpus, tmp_path / "out", embedder, target=Target(MemoryStore(), "n"))
    with pytest.raises(InputError, match="store: 'm' in the output, None asked for"):
        run(corpus, tmp_path / "out", embedder)
    jsonl(tmp_path / "rows.jsonl", rows(9))
    with pytest.raises(InputError, match="a store would keep rows that went"):
        run(corpus, tmp_path / "out", embedder, target=Target(store, "m"), update=True)


def test_a_store_that_refuses_loses_nothing(embedder: Embedder, corpus: str, tmp_path: Path) -> None:
    store = MemoryStore(patience=1)
    with pytest.raises(StoreError, match="had enough. Nothing is lost"):
        run(corpus, tmp_path / "out", embedder, target=Target(store, "m"))
    assert store.count() == 4 and len(list((tmp_path / "out").glob("*.parquet"))) == 1
    store.patience = 99
    engine = Counting(Here(embedder))
    run(corpus, tmp_path / "out", embedder, engine=engine, target=Target(store, "m"))
    assert engine.did == [2] and store.kept.keys() == {row["id"] for row in rows(10)}


def test_a_row_that_ends_its_process_is_found(embedder: Embedder, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", [{"id": i, "text": "狐" if i == 2 else "fox"} for i in range(4)])
    deadly = Embedder(
        Broken(embedder, "狐", KeyboardInterrupt()), embedder.tokenizer
    )  # no Exception: ends like a signal
    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            run(path, tmp_path / "out", deadly)
    run(path, tmp_path / "out", deadly)
    assert errors_of(tmp_path / "out") == {"2": POISON} and written(tmp_path / "out").keys() == set("013")


def test_an_innocent_row_is_not_blamed_for_two_deaths_elsewhere() -> None:
    one = Attempt(3, "a").next()
    other = replace(one, row="b").next()
    assert other.poison == () and replace(other, row="b").next().poison == ("b",)


def test_a_full_disk_loses_nothing(
    embedder: Embedder, corpus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Folder.write

    def full(self: Folder, name: str, data: bytes, *, durable: bool = True) -> None:
        if name.startswith("part-000001"):
            monkeypatch.setattr("os.fsync", no_space)
        write(self, name, data, durable=durable)

    def no_space(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "write", full)
        with pytest.raises(JobError, match="No space left on device. Nothing that was finished is lost"):
            run(corpus, tmp_path / "out", embedder)
    monkeypatch.undo()
    engine = Counting(Here(embedder))
    run(corpus, tmp_path / "out", embedder, engine=engine)
    assert engine.did == [1, 2] and len(written(tmp_path / "out")) == 10


def test_what_fails_in_a_job_is_not_blamed_on_its_folder(
    embedder: Embedder, corpus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: str, kind: str) -> Any:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("fivefold.jobs.records.read", broken)
        with pytest.raises(OSError, match="Input/output error"):
            run(corpus, tmp_path / "out", embedder)
    assert run(corpus, tmp_path / "out", embedder).rows == 10  # and the lock is gone


def test_one_job_at_a_time(embedder: Embedder, corpus: str, tmp_path: Path) -> None:
    with Folder(str(tmp_path / "out")).locked(), pytest.raises(InputError, match="another job is writing"):
        run(corpus, tmp_path / "out", embedder)


def test_nan_everywhere_fails_every_row(embedder: Embedder, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", [{"id": 1, "text": "狐"}])
    broken = Embedder(Broken(embedder, "狐", NonFiniteError("NaN")), embedder.tokenizer)
    assert len(run(path, tmp_path / "out", broken).failed) == 1
