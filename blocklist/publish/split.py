"""One file a category, so that an engine can give a reason; all files of an export are one release.

`split = "category"` writes `NAME-CATEGORY.EXT` beside `path` for every category of the policy and for rules, empty ones
too, so that the engine's configuration stays as it is. The zone of a category is `CATEGORY.ORIGIN`. An entry is in one
file: that of the feed with the highest confidence, where several list it. What stands below another entry (an exception
and what is below it) goes with that one, since engines ask zones one after the other.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from blocklist.config import REASONS, RULE, Export, Policy, split_names
from blocklist.publish.descriptor import Format
from blocklist.publish.file import Candidate
from blocklist.publish.render import Rendered
from blocklist.publish.selection import Selection
from blocklist.publish.standing import places_of, together
from blocklist.select import networks
from blocklist.select.fold import names_between, nearest, roots_of

_AREA = ["family", "first", "last"]
# Options that name what the file makes: two of one name would replace each other.
_OWN_NAME = ("table", "list", "prefix")


class File(msgspec.Struct, frozen=True):
    """One file of a split release, as it stands in the record. `category` of the reasons is empty."""

    category: str
    path: str
    digest: str
    entries: int


def paths(export: Export, policy: Policy, base: Path) -> list[tuple[str, Path]]:
    """Every file of an export by its category; that of one that is not split has none."""
    path = base / export.path
    if export.split is None:
        return [("", path)]
    return list(split_names(path, policy.categories).items())


def places(connection: sqlite3.Connection, release: int) -> list[tuple[str, Path]]:
    """Where the files of a recorded release were put, by category; that of one that is not split has none."""
    path, files = connection.execute("SELECT path, files FROM release WHERE id = ?", (release,)).fetchone()
    return places_of(path, files)


def path_of(path: Path, category: str) -> Path:
    """Where a category's entries were put beside `path`."""
    return split_names(path, [category])[category]


def options(fmt: Format, given: Mapping[str, Any], category: str) -> dict[str, Any]:
    """The options of a category's file: a zone, table or list of its own name."""
    out = dict(given)
    if not category:
        return out
    if "origin" in fmt.options:
        out["origin"] = f"{category}.{given.get('origin', fmt.options['origin'].default)}"
    for key in _OWN_NAME:
        if key in fmt.options and fmt.options[key].type == "text" and not fmt.options[key].choices:
            value = given.get(key, fmt.options[key].default)
            tried = (f"{value}-{category}", f"{value}_{category.replace('-', '_')}")
            out[key] = next((name for name in tried if fmt.options[key].fault(name) is None), value)
    return out


def settled(fmt: Format, given: Mapping[str, Any], category: str) -> dict[str, Any]:
    """`options` of a published file with the defaults of the rest; its serial is whatever it is."""
    return fmt.settle(options(fmt, {**given, "serial": 1}, category))


def parts(selection: Selection, category_of: pl.DataFrame, wanted: Sequence[str]) -> dict[str, Selection]:
    """`selection` by category; every entry is in one part.

    `category_of`: `name`, `category: String`, unique by name, of what is listed.
    """
    domains = _with_category(selection.domains, category_of, wanted)
    urls = selection.urls.join(category_of.rename({"name": "url"}), on="url", how="left", maintain_order="left")
    urls = urls.with_columns(_wanted(wanted))
    nets = _networks(selection.networks, category_of, wanted)
    out: dict[str, Selection] = {}
    for category in wanted:
        mine = pl.col("category") == category
        entries = domains.filter(mine).drop("category")
        between = names_between(entries) if selection.between.height else selection.between
        out[category] = Selection(
            domains=entries,
            between=between,
            networks=nets.filter(mine).drop("category"),
            urls=urls.filter(mine).drop("category"),
            rows=selection.rows.filter(pl.col("category").is_in(wanted) & mine),
        )
    return out


def _wanted(wanted: Sequence[str]) -> pl.Expr:
    known = pl.col("category").is_in(list(wanted))
    return pl.when(known).then("category").otherwise(pl.lit(RULE)).alias("category")


def _with_category(domains: pl.DataFrame, category_of: pl.DataFrame, wanted: Sequence[str]) -> pl.DataFrame:
    """Entries with the category of the topmost entry that is above them."""
    top, roots = domains["name"], roots_of(domains)
    # Folded, and of one action, no entry stands below another; with allows a few do.
    while not domains["block"].all():
        above = nearest(pl.DataFrame({"name": top}).with_columns(pl.lit(True).alias("subtree")), roots)
        if above.is_empty():
            break
        rows = top.to_frame().with_row_index("row").join(above, on="row", how="left", maintain_order="left")
        top = rows.select(pl.coalesce("above", "name").alias("name"))["name"]
    told = top.alias("name").to_frame().join(category_of, on="name", how="left", maintain_order="left")
    return domains.with_columns(told.with_columns(_wanted(wanted))["category"])


def _networks(area: pl.DataFrame, category_of: pl.DataFrame, wanted: Sequence[str]) -> pl.DataFrame:
    """The same addresses in each direction, each in the first category (in the order of `wanted`) that lists it."""
    if area.is_empty():
        return area.with_columns(pl.lit("").alias("category"))
    mine = category_of.filter(pl.col("name").str.contains(r"^[0-9a-f.:]+(/[0-9]+)?$"))
    listed = pl.concat([mine, networks.parse(mine["name"]).select(_AREA)], how="horizontal").drop_nulls("family")
    out = []
    for direction in area["direction"].unique(maintain_order=True):
        rest = networks.parse(area.filter(pl.col("direction") == direction)["cidr"]).select(_AREA)
        alone = not area["cidr"].str.contains("/", literal=True).any()
        for category in wanted:
            if category == RULE:
                part, rest = networks.union(rest), rest.clear()
            else:
                theirs = networks.union(listed.filter(pl.col("category") == category).select(_AREA))
                left = networks.subtract(rest, theirs)
                part, rest = networks.subtract(rest, left), left
            # Addresses that stand alone do so because the target takes no networks.
            cidrs = networks.singles(part) if alone else networks.writable_cidrs(part)
            out.append(
                cidrs.select(
                    networks.text(cidrs).alias("cidr"),
                    pl.col("family").cast(pl.UInt8),
                    pl.lit(direction).alias("direction"),
                    pl.lit(category).alias("category"),
                )
            )
    return pl.concat(out)


def united(parts: Mapping[str, Selection]) -> Selection:
    """All parts as one, for counting what came and went."""
    if len(parts) == 1:
        return next(iter(parts.values()))
    frames = ("domains", "networks", "urls", "rows")
    return Selection(**{name: pl.concat([getattr(part, name) for part in parts.values()]) for name in frames})


class Files:
    """The candidates of one release, published one after the other; asked like the one of a single file."""

    def __init__(self) -> None:
        self.made: list[tuple[str, Candidate, Rendered]] = []

    def add(self, category: str, candidate: Candidate, rendered: Rendered) -> None:
        self.made.append((category, candidate, rendered))

    def seal(self) -> list[tuple[str, Path, Rendered]]:
        """End the writing; category, path for the checker, and what was written."""
        return [(category, candidate.seal(), rendered) for category, candidate, rendered in self.made]

    def sync(self) -> None:
        """Bytes on the disk."""
        for _, candidate, _ in self.made:
            candidate.sync()

    def publish(self) -> None:
        """Put each in its place. Killed in between, the next run finds files that are not of the live release."""
        for _, candidate, _ in self.made:
            candidate.publish()

    @property
    def files(self) -> list[File]:
        return [File(c, str(new.path.absolute()), r.digest, r.entries) for c, new, r in self.made]

    def rendered(self) -> Rendered:
        """All together: sums, and digests of the digests. Reasons count in the digests alone."""
        if len(self.made) == 1:
            return self.made[0][2]
        lists = [r for category, _, r in self.made if category != REASONS]
        lost: dict[str, int] = {}
        for r in lists:
            for reason, count in r.lost.items():
                lost[reason] = lost.get(reason, 0) + count
        return Rendered(
            entries=sum(r.entries for r in lists),
            records=sum(r.records for r in lists),
            lost=lost,
            body_digest=together([(c, r.body_digest) for c, _, r in self.made]),
            digest=together([(c, r.digest) for c, _, r in self.made]),
            lines=sum(r.lines for r in lists),
            size=sum(r.size for r in lists),
        )
