"""What a job will take, from a sample that is really embedded: time, size of the output, memory."""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import asdict, dataclass
from datetime import timedelta

from fivefold.embedder import Embedder
from fivefold.jobs.job import form_of
from fivefold.jobs.output import encoded
from fivefold.jobs.plan import Block, Plan, make_plan, samples
from fivefold.jobs.sources import Fields, File
from fivefold.jobs.work import Embedded, Settings, embed, prepare

SAMPLED_PARTS, SAMPLED_ROWS = 8, 32
"""Parts to take rows from, and rows of each."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Numbers of the whole job; `memory_bytes` is the peak of all workers together."""

    rows: int
    parts: int
    tokens: int
    vectors: int
    seconds: float
    output_bytes: int
    memory_bytes: int
    sampled_rows: int
    failed_in_sample: int

    def to_dict(self) -> dict[str, float]:
        """For JSON."""
        return asdict(self)

    def __str__(self) -> str:
        """For people."""
        return "\n".join(
            (
                f"rows      {self.rows:,} in {self.parts:,} parts",
                f"tokens    about {self.tokens:,}",
                f"vectors   about {self.vectors:,}",
                f"time      about {timedelta(seconds=round(self.seconds))}",
                f"output    about {self.output_bytes / 1e6:,.1f} MB",
                f"memory    about {self.memory_bytes / 1e6:,.0f} MB",
                f"(from {self.sampled_rows} rows, of which {self.failed_in_sample} failed)",
            )
        )


def estimate(
    files: tuple[File, ...], fields: Fields, settings: Settings, *, embedder: Embedder, workers: int
) -> Estimate:
    """Check and count the whole corpus, embed a sample of it; nothing is written."""
    plan = make_plan(files, fields, settings.part_rows)
    form = form_of(embedder, settings)
    blocks = [_head(block) for block in samples(plan, SAMPLED_PARTS)]
    if blocks:
        embed(prepare(blocks[0], embedder.tokenizer, settings), embedder, form)  # the first one is slower
    start = time.perf_counter()
    done = [embed(prepare(block, embedder.tokenizer, settings), embedder, form) for block in blocks]
    seconds = time.perf_counter() - start
    return _scaled(plan, blocks, done, seconds, workers, chunked=settings.chunk_tokens is not None)


def _head(block: Block) -> Block:
    """The first rows that can be used, and as large a share of the others."""
    table = block.table.slice(0, SAMPLED_ROWS)
    share = len(table) / len(block.table) if len(block.table) else 1.0
    return Block(block.part, table, block.tasks[:SAMPLED_ROWS], block.refused[: round(len(block.refused) * share)])


def _scaled(
    plan: Plan, blocks: list[Block], done: list[Embedded], seconds: float, workers: int, *, chunked: bool
) -> Estimate:
    """From the sample to the corpus: what goes with the length of texts by characters, as rows may differ by orders of
    magnitude, and what each row has once by rows."""
    rows = sum(len(block.table) + len(block.refused) for block in blocks)
    sampled = sum(len(text) for block in blocks for text in block.table["text"].to_pylist())
    by_length = sum(part.characters for part in plan.parts) / max(sampled, 1)
    by_vectors = by_length if chunked else plan.rows / max(rows, 1)
    return Estimate(
        rows=plan.rows,
        parts=len(plan.parts),
        tokens=round(sum(one.tokens for one in done) * by_length),
        vectors=round(sum(len(one.vectors) for one in done) * by_vectors),
        seconds=seconds * by_length / workers,
        output_bytes=round(sum(len(encoded(one)) for one in done) * by_vectors),
        memory_bytes=_peak() * workers,
        sampled_rows=rows,
        failed_in_sample=sum(len(one.failed) for one in done),
    )


def _peak() -> int:
    """Most memory this process ever had, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
