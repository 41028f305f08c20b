"""How well known a held thing is, and what well-known names blocking it would take along: from the reference feeds."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from blocklist.config import Config
from blocklist.select.fold import parents
from blocklist.select.known import best_known, named_by
from blocklist.store import columns

_EXAMPLES = 3


@dataclass(frozen=True)
class Fame:
    """`reference` names it, or `under`, the nearest name above it, in `line`; `rank` where its order is a ranking.

    `below`: so many names that references name stand below it, `examples` the best known of them.
    """

    reference: str | None = None
    line: int | None = None
    rank: int | None = None
    under: str | None = None
    below: int = 0
    examples: Sequence[str] = ()


def fame_of(config: Config, db: sqlite3.Connection, names: Sequence[str]) -> dict[str, Fame]:
    """What the references say of `names`; of a reference whose column file is gone, nothing until the next update."""
    named = _named(config, db)
    asked = pl.Series("entry", list(dict.fromkeys(names)), dtype=pl.String)
    known = {
        entry: (feed, line, rank, under) for entry, under, feed, line, rank in best_known(asked, named).iter_rows()
    }
    below = {entry: (count, examples) for entry, count, examples in _below(asked, named).iter_rows()}
    return {name: Fame(*known.get(name, (None,) * 4), *below.get(name, (0, ()))) for name in asked}


def _named(config: Config, db: sqlite3.Connection) -> pl.DataFrame:
    """All that references list, as `named_by` gives it."""
    parts = []
    rows = db.execute("SELECT f.name, s.id FROM snapshot s JOIN feed f ON f.id = s.feed WHERE s.state = 'current'")
    for feed_id, snapshot in rows:
        if (feed := config.feeds.get(feed_id)) is None or not feed.is_reference:
            continue
        if (found := columns.read(config.state, snapshot)) is not None:
            parts.append((feed_id, feed.ranked, found.frame))
    return named_by(parts)


def _below(asked: pl.Series, named: pl.DataFrame) -> pl.DataFrame:
    """`entry`, `count`, `examples: List[String]` of those of `asked` that have names of references below them."""
    # One search for all of them first: hardly any name of a top list is below a held one.
    near = (
        named.filter(pl.col("name").str.contains_any([f".{name}" for name in asked])) if len(asked) else named.clear()
    )
    step, found = near.select("name", "rank", pl.col("name").alias("entry")), []
    while step.height:
        step = step.with_columns(parents(pl.col("entry")).alias("entry")).drop_nulls("entry")
        step = step.filter(pl.col("entry").str.contains(".", literal=True))
        found.append(step.filter(pl.col("entry").is_in(asked.implode())))
    if not found:
        return pl.DataFrame(schema={"entry": pl.String, "count": pl.UInt32, "examples": pl.List(pl.String)})
    rows = pl.concat(found).sort("rank", "name", nulls_last=True)
    return rows.group_by("entry").agg(pl.len().alias("count"), pl.col("name").head(_EXAMPLES).alias("examples"))
