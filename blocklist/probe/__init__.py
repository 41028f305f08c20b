"""What the engines enforce, by their own answers: nobody's reload command and no file is believed."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal

from blocklist import clock
from blocklist.config import LOCAL_SETS, Config, Export
from blocklist.errors import ReleaseError
from blocklist.probe import resolver, sets
from blocklist.publish.delivery import zone as zones
from blocklist.publish.descriptor import Format
from blocklist.rules import rules_in_force
from blocklist.verify.endpoint import parse_resolver

State = Literal["ok", "catching up", "stale", "not enforcing", "silent"]
FAILED: tuple[State, ...] = ("stale", "not enforcing", "silent")


@dataclass
class Report:
    """One engine and one export. `lag` is in seconds, since the first release that the engine does not have yet.

    `proved`: sampled blocks whose answer names this very zone; another NXDOMAIN may be the name's own.
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
    sets: dict[str, tuple[int, int]] = field(default_factory=dict)
    note: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class _Live:
    id: int
    serial: int
    published: datetime
    path: Path


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
        questions = None
        if any(role != "firewall" for _, role in engines):
            origin = str(fmt.settle({**export.options, "serial": 1})["origin"])
            version = str(fmt.settle({**export.options, "serial": 1})["version"])
            zone = zones.read(live.path)
            questions = resolver.questions(zone, origin, version, sample, rules, config.verify.control.exists)
        reports = [Report(export.name, engine, role, "ok", live.id, live.serial) for engine, role in engines]
        with ThreadPoolExecutor(min(len(reports), 8), "probe") as pool:
            done = [pool.submit(_one, report, export, fmt, live, questions) for report in reports]
        for report, future in zip(reports, done, strict=True):
            future.result()
            _judge(report, db, live, now, grace)
            yield report


def _engines(export: Export) -> list[tuple[str, str]]:
    """What to ask, and as what: the primary, resolvers, this machine's own sets."""
    found = [(export.primary, "primary")] if export.primary else []
    return [*found, *((engine, "firewall" if engine in LOCAL_SETS else "resolver") for engine in export.probe)]


def _live(db: sqlite3.Connection, export: str) -> _Live | None:
    row = db.execute(
        "SELECT id, serial, published, path FROM release WHERE export = ? AND state = 'live'", (export,)
    ).fetchone()
    return _Live(row[0], row[1], clock.parse(row[2]), Path(row[3])) if row else None


def _one(report: Report, export: Export, fmt: Format, live: _Live, questions: resolver.Questions | None) -> None:
    """Ask the engine, and write into `report` what it showed."""
    if report.role == "firewall":
        try:
            report.sets = sets.counted(report.engine, fmt.settle({**export.options, "serial": 1}), live.path)
        except ReleaseError as error:
            report.state, report.note = "silent", error.message
        return
    assert questions is not None
    found = resolver.ask(parse_resolver(report.engine), questions, primary=report.role == "primary")
    report.served, report.note, report.seconds = found.serial, found.note, found.seconds
    report.canaries, report.canaries_wrong = found.canaries, found.canaries_wrong
    report.sampled, report.proved = found.sampled, found.proved
    report.missed, report.missed_names = len(found.missed), found.missed[:5]
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
    elif wrong or (report.role != "firewall" and report.served is None and not report.sampled):
        report.state = "catching up" if since < grace else "not enforcing"


__all__ = ["FAILED", "Report", "State", "examine"]
