"""Back to an earlier release: what it was chosen from, under the guards, holds and rules of now.

With every published file what its policy had chosen is kept (`text`), once for all exports that share it. An export
that is pinned to an earlier release is made of that instead of the current picture, until it is unpinned.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import msgspec
import polars as pl

from blocklist import clock
from blocklist.catalog import Feed
from blocklist.config import Config, Policy
from blocklist.errors import IndicatorError, RecordError
from blocklist.ingest.guard import guard
from blocklist.ingest.normalize import normalize
from blocklist.picture import Picture
from blocklist.publish import rows as rows_
from blocklist.rules import Rule
from blocklist.select.current import DOMAIN, Current, current
from blocklist.select.express import Capability, Expressed, express
from blocklist.select.policy import Chosen, Selected, Withheld, in_force, rule_entries, select
from blocklist.splice import Lines, Splice, Splicing
from blocklist.store import kept
from blocklist.store.record import Record

# Feeds that stand for what is listed in one direction, or in both.
_SPEAK = {0: "both", 1: "inbound", 2: "outbound"}
_SCHEMA = {"name": pl.String, "kind": pl.UInt8, "subtree": pl.UInt8, "direction": pl.UInt8}
_HEAD = "\t".join(_SCHEMA).encode() + b"\n"


def text(chosen: Chosen, rules: Sequence[Rule], told: pl.DataFrame | None = None) -> bytes:
    """What `chosen` holds by its listings, without the entries of `rules`: `name`, `kind`, `subtree`, `direction`.

    Tab-separated, names before networks before URLs, each sorted, so that one day's differs little from the next one's.
    With `told` (see `blocklist.publish.rows`) its columns follow.
    """
    whole = pl.concat(_sections(chosen, rules))
    if told is not None:
        whole = whole.join(told, on="name", how="left", maintain_order="left")
    out = io.BytesIO()
    whole.write_csv(out, separator="\t", quote_style="never")
    return out.getvalue()


def text_of_change(before: Chosen, gone: Chosen, come: Chosen, rules: Sequence[Rule], old: bytes) -> Splice | None:
    """The `text` of `before` with the rows `come` in place of those `gone`, from `old`, its text under these `rules`.

    None where `old` is something else.
    """
    splicing = Splicing(old)
    known = splicing.replace(_HEAD, _HEAD)
    for was, less, more in zip(*(_sections(some, rules) for some in (before, gone, come)), strict=True):
        # Three codes of one digit follow, and what stands between them.
        sizes = [part["name"].str.len_bytes() + len("\t0\t0\t0\n") for part in (was, less, more)]
        lines = [
            Lines(p["name"], size, p.write_csv(separator="\t", quote_style="never", include_header=False).encode())
            for p, size in ((less, sizes[1]), (more, sizes[2]))
        ]
        known = known and splicing.lines(was["name"], sizes[0], *lines)
    return splicing.end() if known else None


def _sections(chosen: Chosen, rules: Sequence[Rule]) -> list[pl.DataFrame]:
    """Names, networks and URLs of `text`."""
    ruled = rule_entries(rules).select("name", "subtree")
    domains = chosen.decisions.filter("block").select("name", "subtree")
    if ruled.height:
        domains = domains.join(ruled, on=["name", "subtree"], how="anti")
    both = pl.col("inbound") & pl.col("outbound")
    parts = [
        domains.select("name", _code(DOMAIN, "kind"), pl.col("subtree").cast(pl.UInt8), _code(0, "direction")),
        chosen.networks.select(
            "name",
            pl.when(pl.col("family") == 4).then(_code(2, "kind")).otherwise(_code(3, "kind")).alias("kind"),
            _code(0, "subtree"),
            pl.when(both)
            .then(_code(0, "d"))
            .when("inbound")
            .then(_code(1, "d"))
            .otherwise(_code(2, "d"))
            .alias("direction"),
        ),
        _urls(chosen, rules).select("name", _code(4, "kind"), _code(0, "subtree"), _code(0, "direction")),
    ]
    return [_sorted(part) for part in parts]


def _sorted(part: pl.DataFrame) -> pl.DataFrame:
    # Two keys on purpose: see `blocklist.select.fold.fold`.
    return part if part["name"].is_sorted() else part.sort("name", "subtree")


def _code(value: int, name: str) -> pl.Expr:
    return pl.lit(value, pl.UInt8).alias(name)


def _urls(chosen: Chosen, rules: Sequence[Rule]) -> pl.DataFrame:
    denied = [rule.name for rule in rules if rule.kind == "url" and rule.blocks]
    return chosen.urls.filter(~pl.col("url").is_in(denied)).select(pl.col("url").alias("name"))


class Pin(msgspec.Struct, frozen=True):
    """Until it is ended, `export` holds what release `release` was chosen from. `chosen`: digest of that `text`."""

    id: int
    export: str
    release: int
    chosen: str
    reason: str
    author: str
    created: str


def pins(record: Record) -> dict[str, Pin]:
    """The pins in force by export."""
    return {row[1]: Pin(*row) for row in record.pins()}


def roll_back(record: Record, export: str, number: int | None, *, reason: str, author: str) -> Pin:
    """Pin `export` to release `number`, or to the one that was live before the one that is. Publish it afterwards.

    Raises IndicatorError when there is none, it was never published, or what it held is kept no more.
    """
    live = record.connection.execute("SELECT id FROM release WHERE export = ? AND state = 'live'", (export,)).fetchone()
    if live is None:
        raise IndicatorError(f"{export} was never published", hint=f"'blocklist export {export}' publishes it")
    pinned = pins(record).get(export)
    if number is None:
        # From a release that is itself a way back, the next one goes back further.
        before = pinned.release if pinned is not None else live[0]
        row = record.connection.execute(
            "SELECT id, state, chosen, published FROM release WHERE export = ? AND id < ? "
            "AND state = 'superseded' AND published IS NOT NULL ORDER BY id DESC LIMIT 1",
            (export, before),
        ).fetchone()
        if row is None:
            raise IndicatorError(
                f"no release of {export} was live before release {before}",
                hint=f"'blocklist release list --export {export}' shows them",
            )
    else:
        row = record.connection.execute(
            "SELECT id, state, chosen, published FROM release WHERE export = ? AND id = ?", (export, number)
        ).fetchone()
        if row is None:
            raise IndicatorError(
                f"{export} has no release {number}", hint=f"'blocklist release list --export {export}' shows them"
            )
        if row[3] is None:
            raise IndicatorError(
                f"release {number} of {export} was never published ({row[1]})",
                hint=f"'blocklist release list --export {export}' shows those that were live",
            )
    if row[2] is None or not kept.is_kept(record.state, row[2]):
        raise IndicatorError(
            f"what release {row[0]} of {export} held is not kept any more",
            hint="[keep] releases says how long; newer releases: 'blocklist release list'",
        )
    with record.new_run("release rollback", author) as run:
        run.connection.execute(
            "UPDATE pin SET until = ?, ended = ?, ended_by = ? WHERE export = ? AND until IS NULL",
            (run.id, run.at, author, export),
        )
        cursor = run.connection.execute(
            "INSERT INTO pin (export, release, reason, author, created, since) VALUES (?, ?, ?, ?, ?, ?)",
            (export, row[0], reason, author, run.at, run.id),
        )
        run.event("release rolled back", export=export, release=row[0], reason=reason)
    assert cursor.lastrowid is not None
    return Pin(cursor.lastrowid, export, row[0], row[2], reason, author, run.at)


def live_at(record: Record, export: str, at: datetime) -> int:
    """The release of `export` that was live at `at`. Raises IndicatorError when none was."""
    row = record.connection.execute(
        "SELECT id FROM release WHERE export = ? AND published <= ? ORDER BY id DESC LIMIT 1", (export, clock.text(at))
    ).fetchone()
    if row is None:
        raise IndicatorError(
            f"nothing of {export} was published by {clock.said(clock.text(at))}",
            hint=f"'blocklist release list --export {export}' shows what was",
        )
    return int(row[0])


def unpin(record: Record, export: str, *, author: str) -> Pin:
    """End the pin of `export`. Raises IndicatorError when it has none."""
    pin = pins(record).get(export)
    if pin is None:
        raise IndicatorError(f"{export} is not pinned", hint="'blocklist status' shows which exports are")
    with record.new_run("release unpin", author) as run:
        run.connection.execute(
            "UPDATE pin SET until = ?, ended = ?, ended_by = ? WHERE id = ?", (run.id, run.at, author, pin.id)
        )
        run.event("release unpinned", export=export, release=pin.release)
    return pin


def shown_by(record: Record, release: int) -> int:
    """The release whose listings `release` shows: itself, or what it amends, or what its export was pinned to."""
    while True:
        row = record.connection.execute(
            "SELECT coalesce(r.amends, (SELECT max(p.release) FROM pin p WHERE p.export = r.export "
            "AND p.since <= r.run AND (p.until IS NULL OR p.until > r.run))) FROM release r WHERE r.id = ?",
            (release,),
        ).fetchone()
        if row is None or row[0] is None or row[0] >= release:
            return release
        release = row[0]


def listed_in(record: Record, release: int) -> int:
    """The run whose listings a release shows."""
    (run,) = record.connection.execute("SELECT run FROM release WHERE id = ?", (shown_by(record, release),)).fetchone()
    return int(run)


class Pinned:
    """Decisions of a kept `text` under the guards, holds, rules and verdicts of now; asked like `Decided`.

    `held`: `name: String`, `guard: String`, `subtree_only: Boolean` of what guards of now withhold from it. `refused`:
    how many of its names the normaliser of now rejects. `told`: what lists for people said of its names, where that was
    kept with them (see `blocklist.publish.rows`). Raises RecordError when the bytes can't be read.
    """

    def __init__(
        self, pin: Pin, config: Config, picture: Picture, record: Record, policy: Policy, rules: Sequence[Rule]
    ) -> None:
        self._rules, self._record = rules, record
        self._fitted: dict[Capability, Expressed] = {}
        rows = _read(kept.read(config.state, pin.chosen), pin.release, pin.export)
        self.told = _told(rows)
        self._feeds = {
            i: Feed(title="", url="file:", category="other", confidence=100, direction=way)  # type: ignore[arg-type]
            for i, way in _SPEAK.items()
        }
        frames, self.refused = _accepted(rows, self._feeds)
        self._current = current(frames, self._feeds, picture.suffixes)
        self.held = guard(self._current, picture.references())
        self.withheld: Withheld = in_force(self.held, record.released_names(), picture.references().addresses)
        self._current = _narrowed(self._current, self.withheld.subtrees["name"])
        # Scopes and confidence were settled when it was chosen.
        self._policy = msgspec.structs.replace(policy, categories=["other"], feeds=None, min_confidence=0, widen=False)
        self._chosen: dict[tuple[str, ...], Selected] = {}

    def chosen(self, name: str) -> Chosen:
        """What is chosen, whatever the policy is called."""
        return self.selected(name, self._policy.kinds)

    def fitted(self, name: str, capability: Capability) -> Expressed:
        """The decisions in what `capability` can say."""
        if capability not in self._fitted:
            self._fitted[capability] = express(self.chosen(name).decisions, capability)
        return self._fitted[capability]

    def selected(self, name: str, kinds: Iterable[str]) -> Selected:
        """What is chosen of `kinds`."""
        taken = tuple(kind for kind in self._policy.kinds if kind in set(kinds))
        if taken not in self._chosen:
            self._chosen[taken] = select(
                self._current,
                self._feeds,
                msgspec.structs.replace(self._policy, kinds=list(taken)),
                self.withheld,
                self._rules,
                self._record.verdict_names(),
            )
        return self._chosen[taken]


def told_in(data: bytes, release: int, export: str) -> pl.DataFrame | None:
    """What lists for people said of the names of a `text`; None where it was kept without. Raises RecordError."""
    return _told(_read(data, release, export))


def _told(rows: pl.DataFrame) -> pl.DataFrame | None:
    told = list(rows_.SCHEMA)
    return rows.select(told).unique("name") if set(told) <= set(rows.columns) else None


def _narrowed(now: Current, held: pl.Series) -> Current:
    """A registrable name that may not be blocked as a subtree stands for itself alone, as if it had not widened."""
    names = now.names.select("name", "registrable").with_row_index("gid")
    alone = names.filter(pl.col("registrable") & pl.col("name").is_in(held.implode()))
    narrow = pl.col("gid").is_in(alone["gid"].implode())
    return Current(now.listings.with_columns(pl.col("subtree") & ~narrow), now.names)


def _read(data: bytes, release: int, export: str) -> pl.DataFrame:
    columns = {**_SCHEMA, **rows_.SCHEMA}
    try:
        header = data[: data.find(b"\n")].decode("ascii").split("\t")
        schema = {name: columns[name] for name in header} if set(header) <= set(columns) else _SCHEMA
        return pl.read_csv(io.BytesIO(data), separator="\t", quote_char=None, schema=schema)
    except (pl.exceptions.PolarsError, UnicodeDecodeError) as error:
        raise RecordError(
            f"what release {release} of {export} held can't be read: {error}",
            hint=f"'blocklist release unpin {export}' goes on with what is listed now",
        ) from None


def _accepted(rows: pl.DataFrame, feeds: Mapping[int, Feed]) -> tuple[dict[int, pl.DataFrame], int]:
    """Indicators by direction, without what the normaliser of now refuses, and how many that were.

    A URL is kept as it is: it was written as the normaliser writes it, without a scheme, which it can't read again.
    """
    texts = rows.filter(pl.col("kind") != 4).select(
        pl.int_range(pl.len(), dtype=pl.UInt32).alias("number"),
        pl.col("name").alias("text"),
        pl.col("subtree").cast(pl.Boolean),
    )
    sound = normalize(texts, Feed(title="", url="file:", category="other"), "lines").frame
    # A network that is masked or split now would be another one.
    stays = pl.col("name").is_in(sound["name"].implode()) | (pl.col("kind") == 4)
    left = rows.filter(stays)
    indicators = left.select(
        "name",
        "kind",
        pl.col("subtree").cast(pl.Boolean),
        pl.lit(0, pl.UInt32).alias("line"),
        pl.lit(100, pl.UInt8).alias("confidence"),
        pl.lit(None, pl.String).alias("extra"),
        "direction",
    )
    frames = {i: indicators.filter(pl.col("direction") == i).drop("direction") for i in feeds}
    return {i: frame for i, frame in frames.items() if frame.height}, rows.height - left.height


__all__ = ["Pin", "Pinned", "listed_in", "pins", "roll_back", "shown_by", "text", "told_in", "unpin"]
