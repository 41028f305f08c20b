"""What of a selection stands in the file: all but what its format has no way to write, and what the live release cut.

In columns what `blocklist.publish.target` tells of one entry, and by the same code that writes.
"""

from __future__ import annotations

import polars as pl
from msgspec.structs import replace

from blocklist.config import Export
from blocklist.publish import compose, rpz, sharing
from blocklist.publish.descriptor import Format
from blocklist.publish.selection import Selection
from blocklist.publish.zone_options import longest_of_split
from blocklist.select import networks


def written(export: Export, fmt: Format, selection: Selection) -> Selection:
    """`selection` of `export` without the entries that `fmt` leaves out; see `blocklist.publish.render`."""
    if fmt.code in ("stix", "misp"):
        return replace(selection, urls=selection.urls.filter(sharing.shared(selection.urls["url"])))
    if fmt.of_rows:
        return selection
    values = fmt.settle({**export.options, "serial": 1})
    if fmt.code != "rpz":
        return compose.written(fmt, selection, values)
    if export.split is not None:
        values["origin"] = longest_of_split(values["origin"])
    return rpz.written(selection, values)


def without(selection: Selection, names: pl.Series) -> Selection:
    """`selection` without the blocks of `names`, which a release left out."""
    gone = names.implode()
    return replace(
        selection,
        domains=selection.domains.filter(~(pl.col("block") & pl.col("name").is_in(gone))),
        networks=selection.networks.filter(~pl.col("cidr").is_in(gone)),
        urls=selection.urls.filter(~pl.col("url").is_in(gone)),
        rows=selection.rows.filter(~pl.col("indicator").is_in(gone)),
    )


def of_rows(selection: Selection) -> Selection:
    """What the `rows` of a list for people block, as a target would hold it."""
    rows = selection.rows
    area = networks.to_cidrs(networks.union(networks.parse(rows["indicator"]).drop_nulls("family")))
    cidrs = area.select(networks.text(area).alias("cidr"), "family", pl.lit("both").alias("direction"))
    subtree = (pl.col("scope") == "subtree").alias("subtree")
    domains = rows.filter(kind="domain").select(pl.col("indicator").alias("name"), subtree, pl.lit(True).alias("block"))
    return Selection(
        domains=domains.sort("name", "subtree"),
        networks=cidrs,
        urls=rows.filter(kind="url").select(url="indicator"),
    )
