"""JSON Lines: one object a line, keys as columns (Spamhaus DROP)."""

from __future__ import annotations

import polars as pl

from blocklist.catalog import InputFormat
from blocklist.errors import FeedError
from blocklist.ingest.formats import JUDGED, OVERRIDES, Rows, percent
from blocklist.ingest.refused import Refused
from blocklist.names import Reject


def parse(lines: pl.DataFrame, spec: InputFormat) -> Rows:
    """Rows with the key `value` as text. Objects with the key `skip_if` are comments (a metadata line).

    Raises FeedError when the descriptor names no key.
    Each line is decoded alone into just the keys asked for, so that one damaged line costs itself only.
    """
    values = [str(value) for value in spec.values]
    if not values:
        raise FeedError(
            "the lines are JSON, and the feed does not say which key holds the indicator",
            hint='set format = { name = "jsonl", value = "the key" }',
        )
    wanted = {o: str(c) for o in ("scope", *JUDGED, *OVERRIDES) if (c := getattr(spec, o)) is not None}
    keys = sorted({*values, *wanted.values(), *spec.where, *([spec.skip_if] if spec.skip_if else [])})
    looks = lines["line"].str.starts_with("{") & lines["line"].str.ends_with("}")
    rejects = Refused()
    rejects.refuse(Reject.SYNTAX, lines["number"].filter(~looks))
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
    for key in spec.where:
        matching = frame[f"\0{key}"].is_in(spec.accepted(key)).fill_null(False)
        comments += frame.height - int(matching.sum())
        frame = frame.filter(matching)
    text = pl.coalesce(pl.col(f"\0{key}").replace("", None) for key in values).str.strip_chars().alias("text")
    rows = frame.select(
        "number", text, *(pl.col(f"\0{key}").str.strip_chars().alias(name) for name, key in wanted.items())
    )
    missing = rows["text"].is_null()
    rejects.refuse(Reject.SYNTAX, rows["number"].filter(missing))
    rows = rows.filter(~missing)
    if "confidence" in rows.columns:
        rows = rows.with_columns(percent(pl.col("confidence")))
    if "scope" in rows.columns:
        subtree = (pl.col("scope").str.to_lowercase() == "subtree").fill_null(False)
        rows = rows.with_columns(subtree.alias("subtree")).drop("scope")
    return Rows(rows, rejects, comments=comments)


def _quoted(key: str) -> str:
    """A key of the descriptor as a JSONPath step; letters, digits and `_` stand bare."""
    return key if key.isidentifier() and key.isascii() else "['" + key.replace("'", "") + "']"
