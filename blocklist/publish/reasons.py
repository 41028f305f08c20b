"""Why each entry of a release is there, for structured DNS errors (RFC 8914 and what builds on it) and block pages.

One JSON object a line: `name`, `kind`, `scope`, `category`, `feeds`, and where somebody says so `authority`,
`legal_basis`, `contact`, `case` and `reason`; of the feed with the highest confidence, the row before the feed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

import polars as pl

from blocklist.catalog import KINDS, REACH, TLP, Feed
from blocklist.config import Policy
from blocklist.publish.parts import CHUNK
from blocklist.publish.selection import Selection
from blocklist.rules import Rule
from blocklist.select.current import CATEGORY, Current
from blocklist.select.policy import taken
from blocklist.store.record import Record

_SAID = ("authority", "legal_basis", "contact", "case", "reason")
_FIELDS = ("name", "kind", "scope", "category", "feeds", *_SAID)
_SCHEMA = {"name": pl.String, "category": pl.String, "feeds": pl.String, **dict.fromkeys(_SAID, pl.String)}


def told(
    current: Current, feeds: Mapping[int, Feed], policy: Policy, frames: Mapping[int, pl.DataFrame], names: pl.Series
) -> pl.DataFrame:
    """`name`, `category`, `feeds` (comma between) and what is said, of those of `names` that `policy` takes.

    By the listings that it takes and may tell its audience.
    """
    gids = current.names.select("name").with_row_index("gid").filter(pl.col("name").is_in(names.implode()))
    rows = taken(current, feeds, policy).filter(pl.col("gid").is_in(gids["gid"].implode()))
    if rows.is_empty():
        return pl.DataFrame(schema=_SCHEMA)
    words = {code: word for word, code in CATEGORY.items()}
    # The highest confidence; where it is equal, the category that comes first in the catalogue.
    best = (
        rows.sort(["gid", "confidence", "category", "feed"], descending=[False, True, False, False])
        .group_by("gid", maintain_order=True)
        .agg(pl.col("category").first(), pl.col("feed").first().alias("of"), pl.col("feed"))
    )
    ids = {i: feed.id for i, feed in feeds.items()}
    listing = pl.element().replace_strict(ids, return_dtype=pl.String).sort()
    out = best.join(gids, on="gid").with_columns(
        pl.col("category").replace_strict(words, return_dtype=pl.String),
        pl.col("feed").list.eval(listing).list.join(",").alias("feeds"),
    )
    out = out.join(_rows(frames, out["name"]), on=["of", "name"], how="left")
    legal, contact = ({i: getattr(f, key) or None for i, f in feeds.items()} for key in ("legal_basis", "contact"))
    of_feed = [
        pl.col("of").replace_strict(known, default=None, return_dtype=pl.String).alias(f"feed_{key}")
        for key, known in (("legal_basis", legal), ("contact", contact))
    ]
    out = out.with_columns(of_feed).with_columns(
        pl.coalesce("legal_basis", "feed_legal_basis").alias("legal_basis"), pl.col("feed_contact").alias("contact")
    )
    return out.select(*_SCHEMA).sort("name")


def told_then(record: Record, policy: Policy, names: Sequence[str], release: int) -> pl.DataFrame:
    """The same of `names` that are listed no more, as they were when `release` was made; without a contact."""
    reach = TLP if policy.audience == "house" else TLP[: TLP.index(REACH[policy.audience]) + 1]
    rows = record.connection.execute(
        """
        WITH v AS (SELECT feed, category, confidence, mode, attributes, max(since) FROM feed_version GROUP BY feed)
        SELECT c.name, coalesce(c.extra ->> 'category', v.category), f.name,
               c.extra ->> 'authority', c.extra ->> 'legal_basis', NULL, c.extra ->> 'reference', c.extra ->> 'reason',
               max(coalesce(c.confidence, v.confidence))
        FROM listing_closed c JOIN feed f ON f.id = c.feed JOIN v ON v.feed = c.feed
        WHERE c.name IN (SELECT value FROM json_each(?1))
          AND c.since <= (SELECT run FROM release WHERE id = ?2) AND c.until > (SELECT run FROM release WHERE id = ?2)
          AND v.category <> 'reference' AND v.mode = 'live'
          AND coalesce(c.extra ->> 'category', v.category) IN (SELECT value FROM json_each(?3))
          AND (?5 OR coalesce(v.attributes ->> 'redistribution', '') <> 'forbidden')
          AND coalesce(c.extra ->> 'tlp', v.attributes ->> 'tlp', 'clear') IN (SELECT value FROM json_each(?4))
        GROUP BY c.name
        """,
        (
            *(json.dumps(list(names)), release, json.dumps(list(policy.categories)), json.dumps(list(reach))),
            policy.audience == "house",
        ),
    )
    return pl.DataFrame([row[:-1] for row in rows], schema=_SCHEMA, orient="row")


def _rows(frames: Mapping[int, pl.DataFrame], names: pl.Series) -> pl.DataFrame:
    """`of` (feed), `name` and what the row itself says; only of rows that say something."""
    parts = []
    for number, frame in frames.items():
        some = frame.filter(pl.col("extra").is_not_null())
        if some.height:
            some = some.filter(pl.col("name").is_in(names.implode()))
            say = {"authority": "authority", "legal_basis": "legal_basis", "case": "reference", "reason": "reason"}
            parts.append(
                some.select(
                    pl.lit(number, pl.UInt16).alias("of"),
                    "name",
                    *(pl.col("extra").str.json_path_match(f"$.{key}").alias(name) for name, key in say.items()),
                )
            )
    if not parts:
        return pl.DataFrame(
            schema={"of": pl.UInt16, "name": pl.String, **{k: pl.String for k in _SAID if k != "contact"}}
        )
    return pl.concat(parts).unique(["of", "name"], keep="first")


def lines(parts: Mapping[str, Selection], known: pl.DataFrame, rules: Sequence[Rule]) -> Iterator[str]:
    """The lines, by category and name; blocked entries only."""
    denied = pl.DataFrame(
        [(r.name, r.author, r.ticket, r.reason) for r in rules if r.blocks],
        schema={"name": pl.String, "by": pl.String, "ticket": pl.String, "because": pl.String},
        orient="row",
    ).unique("name", keep="first", maintain_order=True)
    known = known.drop("category")
    for category, selection in parts.items():
        blocked = pl.concat(
            [
                selection.domains.filter("block").select(
                    "name",
                    pl.lit("domain").alias("kind"),
                    pl.when("subtree").then(pl.lit("subtree")).otherwise(pl.lit("exact")).alias("scope"),
                ),
                selection.networks.select(
                    pl.col("cidr").alias("name"),
                    pl.when(pl.col("family") == 4).then(pl.lit(KINDS[1])).otherwise(pl.lit(KINDS[2])).alias("kind"),
                    pl.lit("exact").alias("scope"),
                ).unique(maintain_order=True),
                selection.urls.select(
                    pl.col("url").alias("name"), pl.lit("url").alias("kind"), pl.lit("exact").alias("scope")
                ),
                selection.rows.select(pl.col("indicator").alias("name"), "kind", "scope"),
            ]
        )
        told_of = blocked.join(known, on="name", how="left", maintain_order="left").join(
            denied, on="name", how="left", maintain_order="left"
        )
        # A person's word stands before that of a feed.
        told_of = told_of.with_columns(
            pl.lit(category).alias("category"),
            pl.coalesce("by", "authority").alias("authority"),
            pl.coalesce("ticket", "case").alias("case"),
            pl.coalesce("because", "reason").alias("reason"),
        ).select(_FIELDS)
        for chunk in told_of.iter_slices(CHUNK):
            if chunk.height:
                yield _encoded(chunk) + "\n"


def _encoded(chunk: pl.DataFrame) -> str:
    """JSON in ASCII, without what nobody says: encoded a distinct value at a time."""
    fields = []
    for name in _FIELDS:
        distinct = chunk[name].unique().drop_nulls()
        texts = [json.dumps(v.split(",") if name == "feeds" else v, ensure_ascii=True) for v in distinct.to_list()]
        # DEL is the one control character that JSON lets through.
        coded = pl.Series(texts, dtype=pl.String).str.replace_all("\x7f", "\\u007f", literal=True)
        mapped = pl.col(name).replace_strict(distinct, coded, default=None, return_dtype=pl.String)
        fields.append(pl.lit(f'"{name}":') + mapped)
    objects = pl.concat_str(pl.lit("{"), pl.concat_str(fields, separator=",", ignore_nulls=True), pl.lit("}"))
    text: str = chunk.select(objects.str.join("\n")).item()
    return text
