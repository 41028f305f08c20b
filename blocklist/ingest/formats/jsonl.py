"""JSON Lines: one object a line, keys as columns (Spamhaus DROP)."""

from __future__ import annotations

import polars as pl

from blocklist.catalog import InputFormat
from blocklist.errors import FeedError
from blocklist.ingest.formats import JUDGED, OVERRIDES, Rows, percent
from blocklist.names import Reject


def parse(lines: pl.DataFrame, spec: InputFormat) -> Rows:
    """Rows with the key `value` as text. Objects with the key `skip_if` are comments (a metadata line).

    Raises FeedError when the descriptor names no key.
    Each line is decoded alone into just the keys asked for, so that one damaged line costs itself only.
    """
    if spec.value is None:
        raise FeedError(
            "the lines are JSON, and the feed does not say which key holds the indicator",
            hint='set format = { name = "jsonl", value = "the key" }',
        )
    wanted = {"text": str(spec.value)}
    wanted |= {o: str(c) for o in ("scope", *JUDGED, *OVERRIDES) if (c := getattr(spec, o)) is not None}
    keys = sorted({*wanted.values(), *spec.where, *([spec.skip_if] if spec.skip_if else [])})
    looks = lines["line"].str.starts_with("{") & lines["line"].str.ends_with("}")
    line = pl.col("line")
    frame = lines.filter(looks).select(
        "number",
        *(line.str.json_path_match(f"$.{_quoted(key)}").alias(f"\0{key}") for key in keys),
    )
    comments = 0
    if spec.skip_if is not None:
        skipped = frame[f"\0{spec.skip_if}"].is_not_null()
        comments += int(skipped.sum())
        frame = frame.filter(~skipped)
    for key, value in spec.where.items():
        matching = (frame[f"\0{key}"] == value).fill_null(False)
        comments += frame.height - int(matching.sum())
        frame = frame.filter(matching)
    missing = frame[f"\0{wanted['text']}"].is_null()
    rejected = lines.height - int(looks.sum()) + int(missing.sum())
    selected = [pl.col(f"\0{key}").str.strip_chars().alias(name) for name, key in wanted.items()]
    rows = frame.filter(~missing).select("number", *selected)
    if "confidence" in rows.columns:
        rows = rows.with_columns(percent(pl.col("confidence")))
    if "scope" in rows.columns:
        subtree = (pl.col("scope").str.to_lowercase() == "subtree").fill_null(False)
        rows = rows.with_columns(subtree.alias("subtree")).drop("scope")
    return Rows(rows, {Reject.SYNTAX: rejected} if rejected else {}, comments=comments)


def _quoted(key: str) -> str:
    """A key of the descriptor as a JSONPath step; letters, digits and `_` stand bare."""
    return key if key.isidentifier() and key.isascii() else "['" + key.replace("'", "") + "']"
