"""What one export holds at one moment: the frames that go from selecting to rendering."""

from __future__ import annotations

import msgspec
import polars as pl


def _names(*flags: str) -> pl.DataFrame:
    return pl.DataFrame(schema={"name": pl.String, **dict.fromkeys(flags, pl.Boolean)})


def _networks() -> pl.DataFrame:
    return pl.DataFrame(schema={"cidr": pl.String, "family": pl.UInt8, "direction": pl.String})


def _rows() -> pl.DataFrame:
    text = ("indicator", "kind", "scope", "category")
    return pl.DataFrame(
        schema={
            **dict.fromkeys(text, pl.String),
            "confidence": pl.Int64,
            "feeds": pl.String,
            "since": pl.String,
        }
    )


class Selection(msgspec.Struct, frozen=True):
    """Entries of one export, fitted to what its format can say. The most specific one decides.

    `domains`: name String, subtree Boolean, block Boolean, sorted by name and subtree. An exact entry
    speaks for its own name and beats a subtree entry of that name; a subtree entry speaks for the name and
    all below it. `between`: name String, block Boolean: names between an entry and the subtree entry above
    it, where a zone must say again what holds there (RPZ only). `networks`: cidr String (canonical, single
    addresses bare), family UInt8 (4 or 6), direction String (inbound, outbound, both); collapsed in each
    direction, sorted by number. `urls`: url String. `rows`: indicator, kind, scope, category String,
    confidence Int64 (0 to 100), feeds String (comma between), since String (RFC 3339): the unfolded list
    for people.
    """

    domains: pl.DataFrame = msgspec.field(default_factory=lambda: _names("subtree", "block"))
    between: pl.DataFrame = msgspec.field(default_factory=lambda: _names("block"))
    networks: pl.DataFrame = msgspec.field(default_factory=_networks)
    urls: pl.DataFrame = msgspec.field(default_factory=lambda: pl.DataFrame(schema={"url": pl.String}))
    rows: pl.DataFrame = msgspec.field(default_factory=_rows)

    def entries(self) -> pl.Series:
        """A number an entry (UInt64), for counting what came and went.

        A collision of hashes would be one in 10^7 releases, and a count off by one.
        """
        frames = (
            self.domains.select("name", "subtree", "block"),
            self.networks.select("direction", "cidr"),
            self.urls.select("url"),
            self.rows.select("indicator"),
        )
        return pl.concat([frame.hash_rows().alias("entry") for frame in frames])
