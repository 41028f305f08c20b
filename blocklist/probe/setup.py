"""What to know of the primaries and resolvers that serve and load a zone, each by its own answers.

`probe` says whether they enforce a release; this says why they might not, now or after the next restart. The traits of
the engines were measured: docs/distribution.md.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path

import dns.exception
import dns.flags
import dns.message
import dns.rdataclass
import dns.rdatatype

from blocklist import clock
from blocklist.config import LOCAL_SETS, REASONS, Config, Export
from blocklist.errors import ReleaseError
from blocklist.finding import Finding
from blocklist.probe.proxy import SCHEME
from blocklist.publish import split
from blocklist.publish.delivery import Consignment, knot
from blocklist.publish.descriptor import Format
from blocklist.quantities import parse_duration
from blocklist.verify.endpoint import Resolver, parse_resolver
from blocklist.verify.exchange import udp

_PATIENCE = 2.0
# How long a release may be on its way to a resolver.
_GRACE = timedelta(minutes=5)
# Entries from which a first load by updates, or by Knot's own limits, needs more than what is set by itself.
_LARGE = 200_000
_SLOW_LOAD = 600.0
_KNOT_JOURNAL = 500_000
_COPY = "keep a copy of the zone there: without one, what starts while the primary is down passes everything"
_TRAITS = {
    "BIND": f"after a restart it answers unfiltered until a large zone is loaded; {_COPY} (file)",
    "Unbound": f"a query may wait for seconds while a large zone is taken in; {_COPY} (zonefile)",
    "PowerDNS Recursor": (
        f"it polls at 'refresh' and keeps cached answers until they expire; {_COPY} (dumpFile writes it, and only "
        "seedFile reads it)"
    ),
}


@dataclass(frozen=True)
class _Zone:
    """One zone of an export, as its live release has it."""

    export: Export
    part: str
    origin: str
    version: str
    serial: int
    published: datetime
    entries: int
    path: Path

    @property
    def name(self) -> str:
        return f"{self.export.name}, {self.part}" if self.part else self.export.name


def findings(config: Config, formats: Mapping[str, Format], db: sqlite3.Connection) -> Iterator[Finding]:
    """A finding or more for every primary and every resolver of every published zone."""
    known: dict[str, str | None] = {}
    for export in config.exports.values():
        fmt = formats[export.format]
        resolvers = [e for e in export.probe if e not in LOCAL_SETS and not e.startswith(SCHEME)]
        if fmt.code != "rpz" or not (export.primary or resolvers):
            continue
        for zone in _zones(export, fmt, db):
            if export.primary is not None:
                yield from _primary(zone, fmt, config)
        for engine in resolvers:
            if engine not in known:
                known[engine] = _program(parse_resolver(engine))
            for zone in islice(_zones(export, fmt, db), 1):
                yield from _resolver(zone, engine, known[engine])


def _zones(export: Export, fmt: Format, db: sqlite3.Connection) -> Iterator[_Zone]:
    row = db.execute(
        "SELECT id, serial, published, entries FROM release WHERE export = ? AND state = 'live'", (export.name,)
    ).fetchone()
    if row is None:
        return
    for part, path in split.places(db, row[0]):
        if part != REASONS:
            options = split.settled(fmt, export.options, part)
            names = str(options["origin"]), str(options["version"])
            yield _Zone(export, part, *names, row[1], clock.parse(row[2]), row[3], path)


# Primaries


def _primary(zone: _Zone, fmt: Format, config: Config) -> Iterator[Finding]:
    export = zone.export
    what = Consignment(export, fmt, zone.path, zone.serial, config.base, config.state, zone.part)
    place = f"{zone.name}: {export.primary}"
    try:
        served = what.primary().serial(attempts=1)
    except ReleaseError as error:
        yield Finding("primaries", "fail", place, error.message, error.hint)
        return
    if served != zone.serial:
        text = f"serves serial {served} of {zone.origin}, and release serial {zone.serial} is published"
        yield Finding("primaries", "warn", place, text, f"'blocklist export {export.name}' delivers it")
    else:
        yield Finding("primaries", "ok", place, f"serves serial {served} of {zone.origin}")
    slow = export.delivery == "rfc2136" and not export.reload and zone.entries >= _LARGE
    if slow and parse_duration(export.delivery_timeout) < _SLOW_LOAD:
        text = f"{zone.entries:,} entries by updates need minutes where the whole zone must be sent"
        hint = "set 'reload' to a command that loads the whole file, or raise delivery_timeout"
        yield Finding("primaries", "warn", place, text, hint)
    if export.delivery == "knot":
        yield from _knot(zone, config.base / export.socket, place)


def _knot(zone: _Zone, path: Path, place: str) -> Iterator[Finding]:
    """Does Knot leave the file alone, load it as a difference, and have room for a large one?"""
    try:
        with knot.Control(path, place, time.monotonic() + 5) as control:
            has = {
                item: knot.setting(control, zone.origin + ".", item)
                for item in ("file", "zonefile-sync", "zonefile-load", "journal-max-usage")
            }
    except ReleaseError as error:
        yield Finding("primaries", "fail", place, error.message, error.hint)
        return
    except knot.Refused as error:
        yield Finding("primaries", "warn", place, f"knotd does not tell its configuration: {error}")
        return
    if has["file"] is not None and Path(has["file"]).absolute() != zone.path.absolute():
        text = f"its file is {has['file']}, and {zone.path} is what would mend a drift"
        yield Finding("primaries", "warn", place, text, f"file: {zone.path}")
    if has["zonefile-sync"] != "-1":
        text = "Knot writes its zone over the published file, which is then taken for edited by hand"
        yield Finding("primaries", "warn", place, text, "zonefile-sync: -1")
    if has["zonefile-load"] not in ("difference", "difference-no-serial"):
        text = "a file that Knot loads whole has no difference for secondaries: they take all of it"
        yield Finding("primaries", "warn", place, text, "zonefile-load: difference")
    if has["journal-max-usage"] is None and zone.entries >= _KNOT_JOURNAL:
        text = f"its journal of 100 MB has no room for {zone.entries:,} entries: later differences are refused"
        yield Finding("primaries", "warn", place, text, "journal-max-usage: 1G")


# Resolvers


def _resolver(zone: _Zone, engine: str, program: str | None) -> Iterator[Finding]:
    place = f"{zone.export.name}: {engine}"
    if program is None:
        yield Finding("resolvers", "warn", place, "does not answer", "'blocklist probe' says what it enforces")
        return
    who = next((name for name in _TRAITS if program.startswith(name)), program)
    serial = _serial(parse_resolver(engine), zone.version) if zone.version else None
    hint = _TRAITS.get(who)
    if zone.version and serial is None:
        yield Finding("resolvers", "warn", place, f"{program} has no version record {zone.version}", _why(zone, who))
    elif serial is not None and serial != zone.serial and clock.now() - zone.published > _GRACE:
        text = f"{program} has serial {serial}, and release serial {zone.serial} is published"
        yield Finding("resolvers", "warn", place, text, "'blocklist probe' says since when; see its log for transfers")
    else:
        told = f"has serial {serial}" if serial is not None else "answers"
        yield Finding("resolvers", "ok", place, f"{program} {told}", hint)
    if who == "PowerDNS Recursor" and engine in zone.export.notify:
        text = "takes no NOTIFY: a new release waits for its next poll"
        yield Finding("resolvers", "warn", place, text, "set refresh in rpzPrimary, and take it out of 'notify'")


def _why(zone: _Zone, who: str) -> str:
    """What most often keeps an engine from having the record."""
    inside = zone.version == zone.origin or zone.version.endswith("." + zone.origin)
    if who == "BIND" and inside:
        return (
            f"BIND refuses names in {zone.origin} where it has allow-query {{ none; }}: set options.version to a name "
            "outside of it"
        )
    if who == "Unbound" and zone.version.endswith(".test"):
        return "Unbound answers nothing below .test: set options.version to another name"
    if who == "Unbound":
        return (
            "Unbound signs no transfer of a policy zone: a primary that asks for a key leaves it unfiltered without a "
            "word; let it in by its address"
        )
    return "'blocklist probe' says what it enforces; see its log for transfers that were refused"


def _program(server: Resolver) -> str | None:
    """What the engine calls itself (`version.bind`, RFC 4892), None when it does not answer."""
    query = dns.message.make_query("version.bind", dns.rdatatype.TXT, dns.rdataclass.CH)
    text = _text(server, query)
    if text is None:
        return None
    found = re.sub(r"[^ -~]", "?", text)[:60]
    if re.match(r"\d+\.\d+", found):
        return f"BIND {found}"
    return re.sub(r"^unbound\b", "Unbound", found) or "an engine that does not tell its name"


def _serial(server: Resolver, version: str) -> int | None:
    text = _text(server, dns.message.make_query(version, dns.rdatatype.TXT, flags=dns.flags.RD))
    return int(text) if text and text.isascii() and text.isdigit() and len(text) <= 10 else None


def _text(server: Resolver, query: dns.message.QueryMessage) -> str | None:
    """The TXT record that answers `query`: empty where there is none, None without an answer."""
    try:
        reply = udp(query, server, _PATIENCE)
    except (dns.exception.DNSException, OSError):
        return None
    for rrset in reply.answer:
        if rrset.rdtype == dns.rdatatype.TXT:
            return b"".join(rrset[0].strings).decode("utf-8", "replace")
    return ""


__all__ = ["findings"]
