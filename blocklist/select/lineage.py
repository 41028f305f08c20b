"""Which names stand above which, found once for all policies: folding for each then walks numbers instead of labels."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import polars as pl

from blocklist.select.fold import nearest


class Lineage(msgspec.Struct, frozen=True):
    """Names by number: those of a picture by their `gid`, then those of rules that are not among them.

    `above: UInt32`, by number, the number of the nearest of these names above it, null where there is none. `ruled:
    UInt32`, the numbers of the names of rules, and `names: String`, these names, aligned.
    """

    above: pl.Series
    names: pl.Series
    ruled: pl.Series

    @classmethod
    def of(cls, names: pl.Series, domain: pl.Series, rules: Sequence[str]) -> Lineage:
        """Of the listed `names`, which are domains where `domain` says so (Boolean), and the names of `rules`."""
        asked = pl.Series("name", sorted(set(rules)), dtype=pl.String)
        number = pl.int_range(pl.len(), dtype=pl.UInt32).alias("number")
        listed = names.alias("name").to_frame().select(number, "name").filter(domain)
        known = listed.filter(pl.col("name").is_in(asked.implode()))
        new = asked.filter(~asked.is_in(known["name"].implode())).to_frame()
        new = new.select((number + len(names)).cast(pl.UInt32), "name")
        every = pl.concat([listed, new])
        roots = every.select("name", pl.lit(True).alias("block"))
        covers = nearest(every.select("name", pl.lit(True).alias("subtree")), roots)
        found = covers.select(every["number"].gather(covers["row"]).alias("number"), pl.col("above").alias("name"))
        found = found.join(every.rename({"number": "up"}), on="name", how="inner")
        above = pl.repeat(None, len(names) + new.height, dtype=pl.UInt32, eager=True)
        ruled = pl.concat([known, new])
        return cls(above.scatter(found["number"], found["up"]), ruled["name"], ruled["number"])

    def numbers(self, decisions: pl.DataFrame, gids: pl.Series) -> pl.Series:
        """The numbers of the names of `decisions` (UInt32), of which `gids` says those of listed ones, else null."""
        if not gids.has_nulls():
            return gids
        mine = decisions.filter(gids.is_null()).select("name")
        known = pl.DataFrame({"name": self.names, "number": self.ruled})
        said = mine.join(known, on="name", how="left", maintain_order="left")["number"]
        return gids.clone().scatter(gids.is_null().arg_true(), said)

    def nearest(self, decisions: pl.DataFrame, numbers: pl.Series) -> pl.DataFrame:
        """What `fold.nearest` says of decisions and their own roots: `row: UInt32`, `cover: Boolean`."""
        roots = decisions.select((pl.col("block").cast(pl.UInt8) + 1).alias("does"), "subtree")
        does = pl.repeat(0, len(self.above), dtype=pl.UInt8, eager=True)
        does = does.scatter(numbers.filter(roots["subtree"]), roots.filter("subtree")["does"])
        step = pl.DataFrame({"row": pl.int_range(len(numbers), dtype=pl.UInt32, eager=True), "at": numbers})
        # An exact entry is also covered by the subtree entry of its own name.
        step = step.with_columns(pl.when(roots["subtree"]).then(self.above.gather(numbers)).otherwise("at").alias("at"))
        found = [pl.DataFrame(schema={"row": pl.UInt32, "cover": pl.Boolean})]
        while (step := step.drop_nulls("at")).height:
            step = step.with_columns(does.gather(step["at"]).alias("does"))
            found.append(step.filter(pl.col("does") > 0).select("row", (pl.col("does") == 2).alias("cover")))
            step = step.filter(pl.col("does") == 0)
            step = step.select("row", self.above.gather(step["at"]).alias("at"))
        return pl.concat(found)
