from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fivefold.errors import InputError, JobError
from fivefold.jobs import plan as plans
from fivefold.jobs import sources
from fivefold.jobs.plan import Plan, make_plan, read_shard, samples
from fivefold.jobs.sources import Fields
from tests.jobs.corpus import IDS, jsonl, rows


def planned(inputs: list[str], fields: Fields = IDS, part_rows: int = 4) -> Plan:
    return make_plan(sources.files(inputs, None), fields, part_rows)


def blocks(plan: Plan, wanted: set[int]) -> list[plans.Block]:
    return [b for shard in plan.shards() for b in read_shard(shard, plan.fields, plan.schema, frozenset(wanted))]


def test_parts_hold_every_row_once_and_end_with_their_file(tmp_path: Path) -> None:
    inputs = [jsonl(tmp_path / "a.jsonl", rows(10)), jsonl(tmp_path / "b.jsonl", rows(3, 10))]
    plan = planned(inputs)
    assert [(part.rows, part.file) for part in plan.parts] == [(4, 0), (4, 0), (2, 0), (3, 1)]
    ids = [name for block in blocks(plan, {0, 1, 2, 3}) for name in block.table["id"].to_pylist()]
    assert ids == [row["id"] for row in rows(13)]
    assert [block.part.index for block in blocks(plan, {1, 3})] == [1, 3]


@settings(max_examples=30)
@given(st.lists(st.sampled_from(["x.txt", "x.lines", "x.jsonl"]), min_size=1, max_size=8), st.integers(1, 5), st.data())
def test_any_mix_of_files_and_any_parts_of_it(kinds: list[str], part_rows: int, data: st.DataObject) -> None:
    with pytest.MonkeyPatch.context() as patch:
        contents: dict[str, list[str]] = {}
        for number, kind in enumerate(kinds):
            count = 1 if kind == "x.txt" else data.draw(st.integers(0, 7))
            contents[f"{number}-{kind}"] = [f"{number} {i}" for i in range(count)]
        patch.setattr("fivefold.jobs.records.read", lambda path, kind: iter(records_of(contents[path], kind)))
        files = tuple(sources.File(name, name.split(".")[-1].replace("txt", "text")) for name in contents)
        everything = [text for texts in contents.values() for text in texts]
        if not everything:
            with pytest.raises(InputError, match="no row"):
                make_plan(files, Fields(), part_rows)
            return
        plan = make_plan(files, Fields(), part_rows)
        wanted = data.draw(st.sets(st.sampled_from([part.index for part in plan.parts])))
        found = {block.part.index: block.table["text"].to_pylist() for block in blocks(plan, wanted)}
        cuts = [sum(part.rows for part in plan.parts[:n]) for n in range(len(plan.parts) + 1)]
        assert found == {n: everything[cuts[n] : cuts[n + 1]] for n in wanted}
        assert cuts[-1] == len(everything) and all(1 <= part.rows <= part_rows for part in plan.parts)


def records_of(texts: list[str], kind: str) -> list[tuple[int, dict[str, Any]]]:
    return [(n, {"text": text}) for n, text in enumerate(texts, 1)]


def test_a_long_text_ends_its_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "PART_CHARACTERS", 100)
    records = [{"id": i, "text": "x" * size} for i, size in enumerate([60, 60, 60, 500, 10])]
    assert [part.rows for part in planned([jsonl(tmp_path / "a.jsonl", records)]).parts] == [2, 2, 1]


@pytest.mark.parametrize("change", ["text", "id", "n"])
def test_a_fingerprint_sees_any_change_and_only_in_its_part(change: str, tmp_path: Path) -> None:
    before = planned([jsonl(tmp_path / "a.jsonl", rows(8))])
    again = planned([jsonl(tmp_path / "a.jsonl", rows(8))])
    changed = rows(8)
    changed[5][change] = "other" if change != "n" else 77
    after = planned([jsonl(tmp_path / "a.jsonl", changed)])
    assert again.parts == before.parts
    assert [a.fingerprint == b.fingerprint for a, b in zip(before.parts, after.parts, strict=True)] == [True, False]


def test_rows_that_change_while_the_job_runs(tmp_path: Path) -> None:
    plan = planned([jsonl(tmp_path / "a.jsonl", rows(8))])
    jsonl(tmp_path / "a.jsonl", rows(8)[:4] + rows(4, 30))
    assert len(blocks(plan, {0})) == 1
    with pytest.raises(JobError, match=r"changed while the job ran: part 1 \(4 rows, 'd4' to 'd7'\)"):
        blocks(plan, {0, 1})


def test_ids_that_come_twice_are_named(tmp_path: Path) -> None:
    inputs = [jsonl(tmp_path / "a.jsonl", rows(9)), jsonl(tmp_path / "b.jsonl", rows(1, 3) + rows(2, 20) + rows(1, 7))]
    with pytest.raises(InputError, match="'d3', 'd7' come more than once; nothing was written"):
        planned(inputs)


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.jsonl", ""), ("a.jsonl", "\n\n"), ("a.csv", ""), ("a.csv", "id,text\n"), ("a.lines", ""), ("a.parquet", None)],
)
def test_empty_files_are_no_corpus_and_no_harm_in_one(name: str, content: str | None, tmp_path: Path) -> None:
    empty = tmp_path / name
    if content is None:
        pq.write_table(pa.table({"id": pa.array([], pa.string()), "text": pa.array([], pa.string())}), empty)
    else:
        empty.write_text(content)
    with pytest.raises(InputError, match=f"there is no row in .*{name}"):
        planned([str(empty)])
    plan = planned([str(empty), jsonl(tmp_path / "b.jsonl", rows(5))])
    assert sorted(name for block in blocks(plan, {0, 1}) for name in block.table["id"].to_pylist()) == [
        row["id"] for row in rows(5)
    ]


def test_types_of_columns_are_settled_over_all_rows(tmp_path: Path) -> None:
    first = [{"id": 1, "text": "a", "n": None, "tags": ["x"]}, {"id": 2, "text": "b", "more": {"k": 1}}]
    second = [{"id": 3, "text": "c", "n": 1.5}]
    plan = planned([jsonl(tmp_path / "a.jsonl", first), jsonl(tmp_path / "b.jsonl", second)])
    assert plan.schema.field("n").type == pa.float64()
    assert [block.table.schema for block in blocks(plan, {0, 1})] == [plan.schema] * 2
    jsonl(tmp_path / "b.jsonl", [{"id": 3, "text": "c", "n": "three", "tags": []}, {"id": 4, "text": "d", "n": 4}])
    with pytest.raises(InputError, match="'n' cannot be kept"):
        planned([str(tmp_path / "b.jsonl")])
    jsonl(tmp_path / "c.jsonl", [{"id": 3, "text": "c", "tags": "none"}])
    with pytest.raises(InputError, match="tags.*one type each"):
        planned([str(tmp_path / "a.jsonl"), str(tmp_path / "c.jsonl")])


@pytest.mark.parametrize("value", [{}, [{}], {"a": {}}], ids=str)
def test_objects_that_are_empty_in_every_row_are_refused_before_work(value: object, tmp_path: Path) -> None:
    """Parquet cannot hold them, and the first part would end with an error of its library."""
    empty = [{"id": f"d{i}", "text": "x", "meta": value} for i in range(3)]
    with pytest.raises(InputError, match="the column 'meta' cannot be kept .* empty in every row; leave it out"):
        planned([jsonl(tmp_path / "a.jsonl", empty)])
    full = {"id": "e", "text": "x", "meta": {"a": {"b": 1}}}
    if value != [{}]:
        assert planned([jsonl(tmp_path / "b.jsonl", [*empty, full])]).schema.field("meta").type.num_fields == 1


def test_types_that_a_file_declares_are_kept(tmp_path: Path) -> None:
    table = pa.table({"text": ["a"], "small": pa.array([1], pa.int8()), "when": pa.array([0], pa.timestamp("ms"))})
    pq.write_table(table, tmp_path / "a.parquet")
    plan = planned([str(tmp_path / "a.parquet")], Fields())
    assert plan.schema.field("small").type == pa.int8() and plan.schema.field("when").type == pa.timestamp("ms")
    (block,) = blocks(plan, {0})
    assert block.table["small"].to_pylist() == [1]


def test_the_text_has_its_own_name(tmp_path: Path) -> None:
    plan = planned([jsonl(tmp_path / "a.jsonl", [{"doc": 7, "body": "hello"}])], Fields(text="body", id="doc"))
    (block,) = blocks(plan, {0})
    assert block.table.to_pylist() == [{"id": "7", "text": "hello", "doc": 7}]


def test_samples_come_from_all_over(tmp_path: Path) -> None:
    plan = planned([jsonl(tmp_path / "a.jsonl", rows(40))])
    assert [block.part.index for block in samples(plan, 3)] == [0, 3, 6]
    assert len(samples(replace(plan), 99)) == 10
