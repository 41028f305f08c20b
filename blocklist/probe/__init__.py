"""What the engines enforce, by their own answers: nobody's reload command and no file is believed."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from threading import Event
from typing import Literal

from blocklist import clock, interruption
from blocklist.config import LOCAL_SETS, REASONS, Config, Export
from blocklist.errors import ReleaseError
from blocklist.probe import listed, proxy, resolver, sets
from blocklist.publish import split
from blocklist.publish.delivery import zone as zones
from blocklist.publish.descriptor import Format
from blocklist.rules import Rule, rules_in_force
from blocklist.verify.endpoint import parse_resolver

State = Literal["ok", "catching up", "stale", "not enforcing", "silent"]
FAILED: tuple[State, ...] = ("stale", "not enforcing", "silent")


@dataclass
class Report:
    """One engine and one export. `lag` is in seconds, since the first release that the engine does not have yet.

    `part`: of a split export, the category whose file this is about. `proved`: sampled blocks whose answer names this
    very zone; another NXDOMAIN may be the name's own. `unanswered`: questions that are in no other count.
    """

    export: str
    engine: str
    role: str
    state: State = "ok"
    release: int | None = None
    serial: int | None = None
    served: int | None = None
    behind: int = 0
    lag: float = 0.0
    canaries: int = 0
    canaries_wrong: list[str] = field(default_factory=list)
    sampled: int = 0
    proved: int = 0
    missed: int = 0
    missed_names: list[str] = field(default_factory=list)
    unanswered: int = 0
    sets: dict[str, tuple[int, int]] = field(default_factory=dict)
    note: str = ""
    seconds: float = 0.0
    part: str = ""


@dataclass(frozen=True)
class _Live:
    id: int
    serial: int
    published: datetime
    files: list[tuple[str, Path]]


def examine(
    config: Config,
    formats: Mapping[str, Format],
    db: sqlite3.Connection,
    *,
    only: Collection[str] = (),
    sample: int,
    grace: float,
) -> Iterator[Report]:
    """A report for every engine of every export that is published; the engines of one export are asked side by side.

    `sample`: entries taken at random; `grace`: seconds for which a new release may be on its way.
    Raises ReleaseError when a published file can't be read.
    """
    now = clock.now()
    rules = rules_in_force(db, now)
    interruption.wakeable()
    for export in config.exports.values():
        engines = _engines(export)
        if (only and export.name not in only) or not engines:
            continue
        live = _live(db, export.name)
        if live is None:
            for engine, role in engines:
                yield Report(export.name, engine, role, "not enforcing", note="the export was never published")
            continue
        fmt = formats[export.format]
        for part, path in live.files:
            reports = [
                Report(export.name, engine, role, "ok", live.id, live.serial, part=part) for engine, role in engines
            ]
            questions = None
            if any(role != "firewall" for _, role in engines):
                questions = _questions(export, fmt, part, path, sample, rules, config)
            stop = Event()
            with ThreadPoolExecutor(min(len(reports), 8), "probe") as pool:
                done = [pool.submit(_one, report, export, fmt, path, questions, stop) for report in reports]
                try:
                    for future in done:
                        future.result()
                except BaseException:  # Ctrl-C: else all that waits would still be asked
                    stop.set()
                    raise
            for report in reports:
                _judge(report, db, live, now, grace)
                yield report


def _questions(
    export: Export, fmt: Format, part: str, path: Path, sample: int, rules: Sequence[Rule], config: Config
) -> resolver.Questions:
    options = split.settled(fmt, export.options, part)
    exists = config.verify.control.exists
    if fmt.code != "rpz":
        return listed.questions(fmt, options, path, sample, rules, exists)
    zone = zones.read(path)
    return resolver.questions(zone, str(options["origin"]), str(options["version"]), sample, rules, exists)


def _engines(export: Export) -> list[tuple[str, str]]:
    """What to ask, and as what: the primary, resolvers, proxies, this machine's own sets."""
    found = [(export.primary, "primary")] if export.primary else []
    return [*found, *((engine, _role(engine)) for engine in export.probe)]


def _role(engine: str) -> str:
    if engine in LOCAL_SETS:
        return "firewall"
    return "proxy" if engine.startswith(proxy.SCHEME) else "resolver"


def _live(db: sqlite3.Connection, export: str) -> _Live | None:
    row = db.execute(
        "SELECT id, serial, published FROM release WHERE export = ? AND state = 'live'", (export,)
    ).fetchone()
    if row is None:
        return None
    files = [(part, path) for part, path in split.places(db, row[0]) if part != REASONS]
    return _Live(row[0], row[1], clock.parse(row[2]), files)


def _one(
    report: Report, export: Export, fmt: Format, path: Path, questions: resolver.Questions | None, stop: Event
) -> None:
    """Ask the engine, and write into `report` what it showed."""
    if report.role == "firewall":
        try:
            options = split.settled(fmt, export.options, report.part)
            report.sets = sets.counted(report.engine, options, path)
        except ReleaseError as error:
            report.state, report.note = "silent", error.message
        return
    assert questions is not None
    if report.role == "proxy":
        found = proxy.ask(report.engine, questions, stop)
    else:
        found = resolver.ask(parse_resolver(report.engine), questions, primary=report.role == "primary", stop=stop)
    report.served, report.note, report.seconds = found.serial, found.note, found.seconds
    report.canaries, report.canaries_wrong = found.canaries, found.canaries_wrong
    report.sampled, report.proved = found.sampled, found.proved
    report.missed, report.missed_names = len(found.missed), found.missed[:5]
    report.unanswered = found.unanswered
    if not found.answers:
        report.state = "silent"


def _judge(report: Report, db: sqlite3.Connection, live: _Live, now: datetime, grace: float) -> None:
    """`report.state` by what was found; how far behind, from the releases that the record has."""
    if report.state == "silent":
        return
    if report.served is not None and report.served != live.serial:
        newer = db.execute(
            "SELECT published FROM release WHERE export = ? AND serial > ? AND published IS NOT NULL ORDER BY serial",
            (report.export, report.served),
        ).fetchall()
        report.behind = len(newer)
        if newer:
            report.lag = max((now - clock.parse(newer[0][0])).total_seconds(), 0.0)
        else:
            report.note = f"it has serial {report.served}, which is later than any release"
    wrong = bool(report.canaries_wrong or report.missed or any(have != want for have, want in report.sets.values()))
    since = (now - live.published).total_seconds()
    if report.served is not None and report.served != live.serial:
        report.state = "catching up" if report.behind and report.lag < grace else "stale"
    elif not wrong and report.part and report.served is None and not report.sampled and report.role != "primary":
        report.note = report.note or "it is empty: no answer shows whether it is in use"
    elif wrong or (report.role != "firewall" and report.served is None and not report.sampled):
        report.state = "catching up" if since < grace else "not enforcing"


__all__ = ["FAILED", "Report", "State", "examine"]
