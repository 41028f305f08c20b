"""How well known a listed thing is: the place of its name, or of the nearest name above it, in the reference feeds."""

from __future__ import annotations

import polars as pl

from blocklist.select.fold import parents


def best_known(names: pl.Series, named: pl.DataFrame) -> pl.DataFrame:
    """Those of `names` that a reference names, or whose nearest ancestor one does, the best known first.

    `named`: `name: String`, `feed: String`, `line: UInt32`, unique by name (`Picture.named`).
    Out: `entry`, `under`: the name in the reference, `feed`, `line`.
    """
    host = pl.coalesce(pl.col("entry").str.extract(r"^//([^/:]*)"), pl.col("entry"))
    step = names.unique().alias("entry").to_frame().with_columns(host.alias("name"))
    found = []
    while step.height:
        hit = step.join(named, on="name", how="inner")
        found.append(hit.select("entry", pl.col("name").alias("under"), "feed", "line"))
        step = step.join(hit, on="entry", how="anti")
        step = step.with_columns(parents(pl.col("name")).alias("name"))
        step = step.filter(pl.col("name").str.contains(".", literal=True).fill_null(False))
    if not found:
        return pl.DataFrame(schema={"entry": pl.String, "under": pl.String, "feed": pl.String, "line": pl.UInt32})
    return pl.concat(found).sort("line", "entry")
