"""Verification of what is listed: which names are due, asking, and keeping the verdicts as intervals."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import polars as pl

from blocklist import clock
from blocklist.config import Config
from blocklist.errors import BlocklistError
from blocklist.ingest.normalize import DOMAIN, IPV4, IPV6
from blocklist.quantities import parse_duration
from blocklist.store.record import Record
from blocklist.suffixes import SuffixRules
from blocklist.verify.classify import Status
from blocklist.verify.control import Control
from blocklist.verify.endpoint import parse_resolver
from blocklist.verify.known import Known, Mark
from blocklist.verify.loop import run
from blocklist.verify.preflight import preflight
from blocklist.verify.results import ResolverReport
from blocklist.verify.schedule import due, is_dead, questions_a_day
from blocklist.verify.task import Task, ask

if TYPE_CHECKING:
    from blocklist.picture import Picture


@dataclass
class Verified:
    """What a verification learned; an object of `verify --json`.

    `turned`: how many became sinkholed or parked, or ceased to be. `daily`: how many queries a day it takes to keep
    every verdict fresh, at the queries a name of this run. `quorum`: how many resolvers must agree on bad news (None
    where workers ask, each by its own); `short`: that so many were dropped on the way that they can't.
    """

    checked: int = 0
    verdicts: dict[str, int] = field(default_factory=dict)
    changed: int = 0
    turned: int = 0
    died: int = 0
    revived: int = 0
    queries: int = 0
    seconds: float = 0.0
    rate: float = 0.0
    daily: int = 0
    unfinished: int = 0
    stopped: str | None = None
    quorum: int | None = None
    short: str | None = None
    resolvers: list[dict[str, Any]] = field(default_factory=list)


DROPPABLE = {Status.SINKHOLED, Status.PARKED}
SAMPLE = 40  # listed names, live when last asked, that the resolvers are tested with


@dataclass(frozen=True)
class _Standing:
    """The open verdict of a name."""

    status: str
    since: str
    authority: str | None
    strikes: int
    dead: bool
    died: int | None


def verify(
    config: Config,
    record: Record,
    picture: Picture,
    run_number: int,
    *,
    names: Sequence[str] | None = None,
    everything: bool = False,
    limit: int | None = None,
    budget: str | None = None,
    resolvers: Sequence[str] = (),
    scheduler: str | None = None,
    vantages: int = 1,
    processes: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Verified:
    """Ask DNS about listed domains that are due (or `names`, or `everything`) and record the verdicts.

    With `scheduler` the workers of Dask ask (`blocklist.verify.distributed`), `vantages` of them about each name; they
    may have resolvers of their own. Otherwise `processes` of this machine do (as configured, where not given).
    Verdicts are committed in batches: what was learned before an interruption is kept. Raises BlocklistError
    when no resolver is configured, or none passes the pre-flight.
    """
    started = time.monotonic()
    wanted = tuple(parse_resolver(text) for text in (resolvers or config.verify.resolvers))
    if not wanted and scheduler is None:
        raise BlocklistError(
            "no resolvers are configured, so nothing was verified",
            hint="set verify.resolvers in blocklist.toml to resolvers that do not load this list, or give workers "
            "their own (--scheduler)",
        )
    asked = list(names) if names is not None else _due(record, picture, everything, limit or config.verify.limit)
    out = Verified()
    if not asked:
        return out
    control = _control(config, record)
    writer = _Writer(record, run_number, picture.suffixes, out)
    deadline = started + parse_duration(budget or config.verify.budget)
    done = 0

    def keep(frame: pl.DataFrame) -> None:
        nonlocal done
        writer.keep(frame)
        done += frame.height
        if on_progress is not None:
            on_progress(done, len(asked))

    asking = config.verify
    task = Task(wanted, asking.rate, asking.timeout, asking.attempts, knowledge(picture), control, zones=True)
    if scheduler is not None:
        from blocklist.verify.distributed import resolve_on

        resolution = resolve_on(scheduler, asked, task, vantages=vantages, on_batch=keep, deadline=deadline)
    else:
        tested = run(preflight(wanted, control, rate=asking.rate, timeout=asking.timeout))
        out.resolvers += [_reported(ResolverReport(str(r), 0, 0, why)) for r, why in tested.dropped]
        out.quorum = min(2, len(tested.usable))
        task = replace(task, resolvers=tested.usable, keep_case=tested.keep_case, seconds=deadline - time.monotonic())
        if (count := processes or asking.processes) > 1:
            from blocklist.verify.processes import resolve_in

            resolution = resolve_in(count, asked, task, on_batch=keep)
        else:
            resolution = run(ask(asked, task, keep))
    summary = resolution.summary
    out.checked, out.verdicts, out.queries = summary.checked, dict(summary.verdicts), summary.queries
    out.unfinished, out.stopped, out.short = summary.unfinished, summary.stopped, summary.short
    out.resolvers += [_reported(r) for r in summary.resolvers]
    if out.checked:
        checks = questions_a_day(_verdicts(record), datetime.now(UTC))
        out.daily = round(checks * out.queries / out.checked)
    out.seconds = time.monotonic() - started
    out.rate = out.queries / summary.seconds if summary.seconds else 0.0
    return out


def knowledge(picture: Picture) -> Known:
    """What reference feeds with `action = "sinkhole"` or `"parking"` name: networks, and name servers."""
    networks: dict[str, Mark] = {}
    servers: dict[str, Mark] = {}
    for feed, frame in picture.informers():
        for name, kind, line in frame.select("name", "kind", "line").iter_rows():
            known = servers if kind == DOMAIN else networks if kind in (IPV4, IPV6) else {}
            mark = Mark(feed.action, f"{feed.id}, line {line}")
            if name not in known or feed.action == "sinkhole":
                known[name] = mark
    return Known(networks, servers)


def _control(config: Config, record: Record) -> Control:
    rows = record.connection.execute(
        "SELECT name FROM verdict WHERE status = ? ORDER BY checked DESC, name LIMIT ?", (Status.LIVE.value, SAMPLE)
    )
    table = config.verify.control
    return Control(tuple(table.exists), table.missing, tuple(table.canaries), tuple(row[0] for row in rows))


def _reported(report: ResolverReport) -> dict[str, Any]:
    told = ("address", "sent", "lost", "dropped", "keeps_case", "miscased")
    return {key: getattr(report, key) for key in told}


def _due(record: Record, picture: Picture, everything: bool, limit: int | None) -> list[str]:
    """Listed domains that an export could hold, the longest due first; all of them with `everything`."""
    current = picture.current()
    listed = current.names.filter((pl.col("kind") == 1) & ~pl.col("suffix")).select("name")
    if everything:
        names = listed["name"].to_list()
        return names[:limit] if limit is not None else names
    counted = current.listings.group_by("gid").agg(pl.col("feed").n_unique().alias("feeds")).sort("gid")
    feeds = current.names.select("name").with_columns(counted["feeds"])
    frame = listed.join(feeds, on="name", how="left").join(_verdicts(record), on="name", how="left")
    return due(frame, datetime.now(UTC), limit)["name"].to_list()


def _verdicts(record: Record) -> pl.DataFrame:
    """`name`, `status`, `since`, `checked` of every name that was ever asked about."""
    rows = record.connection.execute("SELECT name, status, since, checked FROM verdict").fetchall()
    return pl.DataFrame(
        rows,
        schema={"name": pl.String, "status": pl.String, "since": pl.String, "checked": pl.String},
        orient="row",
    ).with_columns(pl.col("since", "checked").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="us", time_zone="UTC"))


class _Writer:
    """Turns result frames into intervals of verdicts: a new one when status or authority changes."""

    def __init__(self, record: Record, run_number: int, suffixes: SuffixRules, out: Verified) -> None:
        self._record, self._run, self._suffixes, self._out = record, run_number, suffixes, out

    def keep(self, frame: pl.DataFrame) -> None:
        if frame.is_empty():
            return
        died = revived = changed = turned = 0
        with self._record.transaction() as db:
            for row in frame.iter_rows(named=True):
                known = self._known(db, row["name"])
                at = clock.text(row["checked"])
                same = known is not None and known.status == row["status"] and known.authority == row["authority"]
                if row["status"] == Status.UNKNOWN and known is not None and known.status != Status.UNKNOWN:
                    # No answer is no news: the verdict stands, and the name is asked again tomorrow.
                    db.execute("UPDATE verdict SET checked = ? WHERE name = ?", (at, row["name"]))
                    continue
                since = known.since if same and known else at
                strikes = (known.strikes if same and known else 0) + (row["status"] == Status.NXDOMAIN)
                dead = is_dead(
                    Status(row["status"]),
                    strikes,
                    clock.parse(since),
                    row["checked"],
                    row["authority"],
                    self._suffixes.registrable(row["name"]) or row["name"],
                )
                if known is not None and not same:
                    changed += 1
                    db.execute(
                        "INSERT OR REPLACE INTO verdict_closed "
                        "(name, since, until, status, dead, authority, resolver, detail, died, closed) "
                        "SELECT name, since, ?, status, dead, authority, resolver, detail, died, ? "
                        "FROM verdict WHERE name = ?",
                        (at, self._run, row["name"]),
                    )
                died_with = (known.died if same and known and known.dead else self._run) if dead else None
                died += dead and not (known is not None and known.dead)
                turned += not same and bool({row["status"], known.status if known else None} & DROPPABLE)
                revived += not dead and known is not None and known.dead
                db.execute(
                    "INSERT OR REPLACE INTO verdict (name, status, since, checked, first_nxdomain, strikes, dead, "
                    "authority, resolver, detail, run, died) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        row["name"],
                        row["status"],
                        since,
                        at,
                        since if row["status"] == Status.NXDOMAIN else None,
                        strikes,
                        int(dead),
                        row["authority"],
                        row["resolver"],
                        row["detail"],
                        self._run,
                        died_with,
                    ),
                )
            if died or revived or turned:
                # Only what a policy may drop can change an export; another status alone is evidence.
                self._record.bump(db)
        self._out.died += died
        self._out.revived += revived
        self._out.turned += turned
        self._out.changed += changed

    @staticmethod
    def _known(db: Any, name: str) -> _Standing | None:
        row = db.execute(
            "SELECT status, since, authority, strikes, dead, died FROM verdict WHERE name = ?", (name,)
        ).fetchone()
        return _Standing(row[0], row[1], row[2], row[3], bool(row[4]), row[5]) if row else None
