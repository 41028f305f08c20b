"""Scored lists: `indicator <white space> number of lists` (IPsum); the score stays evidence in the raw line."""

from __future__ import annotations

import polars as pl

from blocklist.catalog import InputFormat
from blocklist.ingest.formats import Rows, percent
from blocklist.ingest.refused import refused
from blocklist.names import Reject

_SCORE = r"^[0-9]+(?:\.[0-9]+)?(?:[ ].*)?$"


def parse(lines: pl.DataFrame, spec: InputFormat) -> Rows:
    """The first column. With `confidence = N` in the format, column N (from 1) is taken as a confidence of 0–100."""
    text, score = _columns(pl.col("line"))
    frame = lines.select("number", text.alias("text"), score.alias("score"))
    numeric = frame["score"].str.contains(_SCORE).fill_null(False)
    kept = frame.filter(numeric)
    columns: list[pl.Expr | str] = ["number", "text"]
    if spec.confidence is not None:
        # `score` begins with column 2.
        column = spec.confidence - 2 if isinstance(spec.confidence, int) else 0
        score = pl.col("score").str.extract_all(r"[^ ]+").list.get(column, null_on_oob=True)
        columns.append(percent(score).alias("confidence"))
    return Rows(kept.select(columns), refused(Reject.SYNTAX, frame, ~numeric))


def plain(line: pl.Expr, spec: InputFormat) -> list[pl.Expr]:
    """The first column, where the second says nothing of it."""
    text, score = _columns(line)
    return [pl.when(score.str.contains(_SCORE)).then(text).alias("text")] if spec.confidence is None else []


def _columns(line: pl.Expr) -> tuple[pl.Expr, pl.Expr]:
    parts = line.str.replace_all("\t", " ", literal=True).str.splitn(" ", 2)
    return parts.struct.field("field_0"), parts.struct.field("field_1").str.strip_chars()
