"""What a release would change, in words that a person can judge: how many, by whose feed, and which that people know.

Made for every held release, where it is kept for `release show`, and for `export --dry-run`.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import polars as pl

from blocklist import clock
from blocklist.catalog import CATEGORIES
from blocklist.picture import Picture
from blocklist.publish.selection import Selection
from blocklist.rules import Rule
from blocklist.select.known import best_known
from blocklist.select.renew import Touched
from blocklist.store.record import Record

_SHOWN = 12


class Part(msgspec.Struct, frozen=True):
    """Entries that come and go by one feed and category; one of several feeds counts for each."""

    feed: str
    category: str
    added: int
    removed: int


class Known(msgspec.Struct, frozen=True):
    """An entry that people know: a reference feed names it, or `under`, which is above it; `rank` where it ranks."""

    entry: str
    change: str
    under: str
    reference: str
    line: int
    rank: int | None = None


class Wait(msgspec.Struct, frozen=True):
    """Why a release waits for a person, and what to do where approving it is not the way."""

    reason: str
    ways: Sequence[str] = ()


class Plan(msgspec.Struct, frozen=True):
    """`before`: entries of the live release, None when there is none. `removed_because`: how many for which reason.

    `gate`: why it waits, and `ways`: what a person can do about it. `ruled`: the rules that came or ended since the
    live release, in words; what they change counts in `added` and `removed`, not in `parts`. `complete`: False when
    what was removed is only known as a number, because the copy of the live release is gone.
    """

    before: int | None
    after: int
    added: int
    removed: int
    parts: Sequence[Part] = ()
    removed_because: dict[str, int] = msgspec.field(default_factory=dict)
    known: Sequence[Known] = ()
    known_more: int = 0
    gate: str | None = None
    ways: Sequence[str] = ()
    complete: bool = True
    ruled: Sequence[str] = ()


def texts(selection: Selection) -> pl.Series:
    """What a selection blocks, each once (String)."""
    return pl.concat(
        [
            selection.domains.filter("block")["name"].alias("entry"),
            selection.networks["cidr"].alias("entry"),
            selection.urls["url"].alias("entry"),
            selection.rows["indicator"].alias("entry"),
        ]
    ).unique()


def plan(
    export: str,
    old: Selection | None,
    new: Selection,
    *,
    picture: Picture,
    record: Record,
    rules: Sequence[Rule],
    drops: Sequence[str],
    since_run: int | None,
    live: int | None,
    counts: tuple[int | None, int, int, int],
    wait: Wait | None,
) -> Plan:
    """The plan of `new`, after `old` of the run `since_run` and the release `live`.

    `counts`: entries before and after, added, removed.
    `drops`: the verdicts that the export's policy drops.
    """
    before, after, added, removed = counts
    now = texts(new)
    then = texts(old) if old is not None else now.clear()
    complete = old is not None or before is None
    # Without what stood there, nothing says which of them are new.
    come = now.filter(~now.is_in(then.implode())) if complete else now.clear()
    gone = then.filter(~then.is_in(now.implode()))
    listed = _listed(picture, pl.concat([come, gone]))
    closed = _closed(record, since_run, gone)
    known, more = _known(picture, come, gone)
    return Plan(
        before,
        after,
        added,
        removed,
        _parts(come, gone, listed, closed, rules),
        _reasons(record, gone, listed, closed, rules, drops),
        known,
        more,
        None if wait is None else wait.reason,
        _ways(export, wait, before is not None),
        complete,
        _ruled(record, live),
    )


def _ruled(record: Record, live: int | None) -> list[str]:
    """Rules that began, were removed or expired since the release `live`, the newest first."""
    rows = record.connection.execute(
        "SELECT r.id, r.action, r.name, r.since > l.run, r.until IS NOT NULL FROM rule r, release l WHERE l.id = ?1 "
        "AND ((r.since > l.run) != (coalesce(r.until, 0) > l.run) "
        "OR (r.until IS NULL AND r.expires > l.created AND r.expires <= ?2)) ORDER BY r.id DESC",
        (live, clock.text(clock.now())),
    ).fetchall()
    return [
        f"rule {number}: {action} {name}" if began and not removed else f"rule {number} has ended: {action} {name}"
        for number, action, name, began, removed in rows
    ]


def _listed(picture: Picture, names: pl.Series) -> pl.DataFrame:
    """`entry`, `feed`, `category: String` of what is listed now."""
    current = picture.about(Touched.of(names).among)
    feeds = {i: feed.id for i, feed in picture.feeds.items()}
    rows = current.listings.filter(~pl.col("expired"))
    return rows.select(
        current.names["name"].gather(rows["gid"]).alias("entry"),
        pl.col("feed").replace_strict(feeds, default="", return_dtype=pl.String),
        pl.col("category").replace_strict(dict(enumerate(CATEGORIES)), return_dtype=pl.String),
    )


def _closed(record: Record, since: int | None, gone: pl.Series) -> pl.DataFrame:
    """`entry`, `feed`, `category: String` of the listings that ended since the run `since`, of what is `gone`."""
    schema = {"entry": pl.String, "feed": pl.String, "category": pl.String}
    if since is None or not len(gone):
        return pl.DataFrame(schema=schema)
    rows = record.connection.execute(
        "SELECT c.name, f.name, coalesce(json_extract(c.extra, '$.category'), v.category) FROM listing_closed c "
        "JOIN feed f ON f.id = c.feed JOIN feed_version v ON v.feed = c.feed "
        "AND v.since = (SELECT max(since) FROM feed_version WHERE feed = c.feed) WHERE c.until > ?",
        (since,),
    ).fetchall()
    return pl.DataFrame(rows, schema=schema, orient="row").filter(pl.col("entry").is_in(gone.implode()))


def _parts(
    come: pl.Series, gone: pl.Series, listed: pl.DataFrame, closed: pl.DataFrame, rules: Sequence[Rule]
) -> list[Part]:
    ruled = pl.Series("entry", [rule.name for rule in rules], dtype=pl.String)
    out: dict[tuple[str, str], list[int]] = {}
    for place, names, known in ((0, come, listed), (1, gone, pl.concat([closed, listed]))):
        mine = known.filter(pl.col("entry").is_in(names.implode())).unique()
        counted = mine.group_by("feed", "category").len()
        for feed, category, count in counted.iter_rows():
            out.setdefault((feed, category), [0, 0])[place] += count
        rest = names.filter(~names.is_in(mine["entry"].implode()))
        if said := int(rest.is_in(ruled.implode()).sum()):
            out.setdefault(("rules", ""), [0, 0])[place] += said
        if left := len(rest) - said:
            out.setdefault(("joined or cut networks", ""), [0, 0])[place] += left
    found = [Part(feed, category, *counts) for (feed, category), counts in out.items()]
    return sorted(found, key=lambda part: (-part.added - part.removed, part.feed, part.category))


def _reasons(
    record: Record,
    gone: pl.Series,
    listed: pl.DataFrame,
    closed: pl.DataFrame,
    rules: Sequence[Rule],
    drops: Sequence[str],
) -> dict[str, int]:
    """Why entries go, each counted once, by the first of these that is true."""
    released, verdicts = list(record.released_names()), record.verdict_names()
    tests = {
        "allowed by a rule": pl.Series([rule.name for rule in rules if not rule.blocks], dtype=pl.String),
        "held by a guard": record.open_holds().filter(~pl.col("name").is_in(released))["name"],
        **{verdict: verdicts.filter(pl.col("verdict") == verdict)["name"] for verdict in drops},
        "still listed, but not taken any more, or covered by a wider entry": listed["entry"],
        "no longer listed": closed["entry"],
    }
    out, left = {}, gone
    for words, names in tests.items():
        hit = left.is_in(names.implode())
        if count := int(hit.sum()):
            out[words] = count
        left = left.filter(~hit)
    if len(left):
        out["networks joined or cut otherwise"] = len(left)
    return out


def _known(picture: Picture, come: pl.Series, gone: pl.Series) -> tuple[list[Known], int]:
    found = []
    for change, names in (("added", come), ("removed", gone)):
        rows = best_known(names, picture.named())
        found += [Known(entry, change, under, feed, line, rank) for entry, under, feed, line, rank in rows.iter_rows()]
    found.sort(key=lambda known: (known.rank is None, known.rank or 0, known.entry))
    return found[:_SHOWN], max(len(found) - _SHOWN, 0)


def _ways(export: str, wait: Wait | None, stands: bool) -> list[str]:
    """What a person can do about `export`, of which a release `stands`."""
    if wait is None:
        return [f"publish it with 'blocklist export {export}'"]
    ways = list(wait.ways) or [
        f"right as it is: 'blocklist release approve {export}'",
        "one feed is wrong: 'blocklist feeds rollback FEED --reason … --now' gives its list of before, "
        "'blocklist feeds disable FEED' and 'blocklist update' nothing of it",
        "one entry is wrong: 'blocklist why ENTRY', then 'blocklist allow add ENTRY --reason … --now'",
    ]
    until = ["until then the last approved list stays, with every rule of yours laid over it"]
    return ways + (until if stands else [])
