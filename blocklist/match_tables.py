"""What a replay of logs found, as the tables that a person or a script wants to see."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import polars as pl

from blocklist.match import Matched
from blocklist.publish.rollback import Pin

_EXAMPLES = 5
_FEEDS = pl.col("feed").unique().sort().alias("feeds")
_COUNTS = (pl.col("count").sum().alias("queries"), pl.col("client").drop_nulls().n_unique().alias("clients"))


class Row(msgspec.Struct, frozen=True):
    """One thing that was asked for and is blocked, or one entry that hit: how often, by how many clients."""

    what: str
    queries: int
    clients: int
    entry: str
    feeds: Sequence[str]
    lists: Sequence[str]


class Tables:
    """Sums over `matched`; every list the most frequent first."""

    def __init__(self, matched: Matched) -> None:
        self._matched = matched
        self._pairs = matched.asked.pairs
        things = matched.asked.things.with_row_index("thing")
        self._shown = things.select("thing", pl.coalesce("url", "host").alias("what"))
        hits = [hits.frame.with_columns(list=pl.lit(hits.name)) for hits in matched.exports]
        empty = pl.DataFrame(schema={"thing": pl.UInt32, "entry": pl.String, "scope": pl.String, "list": pl.String})
        self._hits = pl.concat([empty, *hits])
        self._blocked = self._hits["thing"].unique()

    def totals(self) -> dict[str, int]:
        """Of all that was asked, and of what any export blocks."""
        pairs = self._pairs
        blocked = self._of(self._blocked)
        return {
            "queries": int(pairs["count"].sum()),
            "names": self._matched.asked.things.height,
            "clients": pairs["client"].drop_nulls().n_unique(),
            "blocked_queries": int(blocked["count"].sum()),
            "blocked_names": len(self._blocked),
            "blocked_clients": blocked["client"].drop_nulls().n_unique(),
        }

    def lists(self) -> list[dict[str, object]]:
        """Exports, those of shadow policies, policies that none uses: entries, those that hit, what they block."""
        out: list[dict[str, object]] = []
        of_kinds = {
            "export": self._matched.exports,
            "shadow": self._matched.shadowed,
            "policy": self._matched.policies,
        }
        for kind, some in of_kinds.items():
            for hits in some:
                of = self._of(hits.frame["thing"])
                out.append(
                    {
                        "list": hits.name,
                        "kind": kind,
                        "format": hits.format,
                        "policy": hits.policy,
                        "pinned": hits.pin.release if hits.pin is not None else None,
                        "entries": hits.entries,
                        "entries_hit": hits.frame.select("entry", "scope").n_unique() if hits.frame.height else 0,
                        "queries": int(of["count"].sum()),
                        "names": hits.frame.height,
                        "clients": of["client"].drop_nulls().n_unique(),
                    }
                )
        return out

    def pins(self) -> list[Pin]:
        """What holds exports at earlier releases."""
        return [hits.pin for hits in (*self._matched.exports, *self._matched.shadowed) if hits.pin is not None]

    def blocked(self, limit: int | None) -> list[Row]:
        """What is blocked, with its entry (where exports differ, the first one's), feeds and exports."""
        counts = self._counted(self._blocked)
        said = self._hits.group_by("thing", maintain_order=True).agg(
            pl.col("entry").first(), pl.col("list").unique(maintain_order=True)
        )
        feeds = self._matched.feeds.group_by("thing").agg(_FEEDS)
        rows = counts.join(said, on="thing").join(feeds, on="thing", how="left")
        return _rows(rows.join(self._shown, on="thing"), limit)

    def entries(self, limit: int | None) -> list[Row]:
        """The exported entries that hit."""
        of = self._hits.unique(["thing", "entry"], maintain_order=True)
        counts = of.join(self._pairs, on="thing").group_by("entry").agg(*_COUNTS)
        lists = self._hits.group_by("entry").agg(pl.col("list").unique(maintain_order=True))
        feeds = of.join(self._matched.feeds, on="thing").group_by("entry").agg(_FEEDS)
        rows = counts.join(lists, on="entry").join(feeds, on="entry", how="left")
        return _rows(rows.with_columns(what="entry"), limit)

    def feeds(self) -> list[dict[str, object]]:
        """Every feed that lists something: what it took part in blocking, and what without it would have passed."""
        of = self._matched.feeds
        alone = of.filter(pl.len().over("thing") == 1)
        sums = {}
        for name, frame in (("", of), ("alone_", alone)):
            sums[name] = {
                row["feed"]: row
                for row in frame.join(self._pairs, on="thing")
                .group_by("feed")
                .agg(*_COUNTS, pl.col("thing").n_unique().alias("names"))
                .iter_rows(named=True)
            }
        out = []
        for feed, size in self._matched.sizes.items():
            row: dict[str, object] = {"feed": feed, "mode": self._matched.modes[feed], "entries": size}
            for name in ("", "alone_"):
                for key in ("queries", "names", "clients"):
                    row[name + key] = sums[name].get(feed, {}).get(key, 0)
            out.append(row)
        return sorted(out, key=lambda r: (-int(str(r["queries"])), -int(str(r["alone_queries"])), str(r["feed"])))

    def shadows(self) -> list[dict[str, object]]:
        """What shadow feeds would block that passes now."""
        out: list[dict[str, object]] = []
        for shadow in self._matched.shadows:
            of = self._of(shadow.frame["thing"])
            most = self._counted(shadow.frame["thing"]).join(self._shown, on="thing")
            out.append(
                {
                    "feed": shadow.feed,
                    "policy": shadow.policy,
                    "queries": int(of["count"].sum()),
                    "names": shadow.frame.height,
                    "clients": of["client"].drop_nulls().n_unique(),
                    "examples": most.sort("queries", "what", descending=[True, False])["what"]
                    .head(_EXAMPLES)
                    .to_list(),
                }
            )
        return out

    def clients(self, limit: int) -> list[dict[str, object]]:
        """Who asked most for what is blocked."""
        rows = (
            self._of(self._blocked)
            .drop_nulls("client")
            .group_by("client")
            .agg(pl.col("count").sum().alias("queries"), pl.col("thing").n_unique().alias("names"))
            .sort("queries", "client", descending=[True, False])
        )
        return rows.head(limit).rows(named=True)

    def _of(self, things: pl.Series) -> pl.DataFrame:
        return self._pairs.filter(pl.col("thing").is_in(things.implode()))

    def _counted(self, things: pl.Series) -> pl.DataFrame:
        return self._of(things).group_by("thing").agg(*_COUNTS)


def _rows(frame: pl.DataFrame, limit: int | None) -> list[Row]:
    frame = frame.sort("queries", "what", descending=[True, False])
    frame = frame if limit is None else frame.head(limit)
    columns = ("what", "queries", "clients", "entry", "feeds", "list")
    return [Row(w, q, c, e, f or [], x) for w, q, c, e, f, x in frame.select(columns).iter_rows()]


__all__ = ["Row", "Tables"]
