"""From the published file to the primary that serves the zone: the file, or the difference to what was delivered.

The file is the truth. A primary that holds something else than what was delivered last is given the whole of it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import dns.name

from blocklist.config import Export
from blocklist.errors import ReleaseError
from blocklist.ingest import transfer
from blocklist.ingest.reasons import Failure
from blocklist.ingest.tsig import load_key
from blocklist.publish import split
from blocklist.publish.delivery import knot, rfc2136
from blocklist.publish.delivery import zone as zones
from blocklist.publish.delivery.primary import Primary, Silent
from blocklist.publish.delivery.rfc2136 import Drifted
from blocklist.publish.descriptor import Format
from blocklist.publish.file import reload
from blocklist.quantities import parse_duration
from blocklist.store import folders
from blocklist.verify.endpoint import parse_resolver

_AXFR_LARGEST = 4 << 30


@dataclass(frozen=True)
class Consignment:
    """What is to be delivered: the published file of an export, whose serial is `serial`.

    `category`: of a split export, whose files are zones of their own.
    """

    export: Export
    fmt: Format
    path: Path
    serial: int
    base: Path
    state: Path
    category: str = ""

    @property
    def place(self) -> str:
        return f"export {self.export.name}" + (f" ({self.category})" if self.category else "")

    @property
    def origin(self) -> str:
        return str(split.settled(self.fmt, self.export.options, self.category)["origin"])

    @property
    def reload(self) -> list[str]:
        """The command of the export, with the name of this zone where it asks for that."""
        return [word.replace("{origin}", self.origin) for word in self.export.reload]

    def primary(self) -> Primary:
        """Raises ReleaseError when the key can't be had."""
        assert self.export.primary is not None
        try:
            key = load_key(f"secret:{self.export.tsig}", self.base) if self.export.tsig else None
        except Failure as error:
            raise ReleaseError(f"{self.place}: {error.message}", hint=error.hint) from None
        return Primary(parse_resolver(self.export.primary), dns.name.from_text(self.origin), self.place, key)


def floor(export: Export, fmt: Format, base: Path, categories: Sequence[str] = ("",)) -> tuple[int, int]:
    """The serial that the primary serves, and the least that a new release may have; zeros when it can't be asked.

    Of the zones of a split export, the highest. Raises ReleaseError when no serial is left above the one served.
    """
    served = 0
    for category in categories:
        try:
            primary = Consignment(export, fmt, Path(), 0, base, Path(), category).primary()
            served = max(served, primary.serial(attempts=1))
        except Silent:
            break
        except ReleaseError:
            continue  # delivery will say why, when the file is in place
    if not served:
        return 0, 0
    least = served + (rfc2136.ROOM if export.delivery == "rfc2136" else 1)
    if least >= 2**32:
        raise ReleaseError(
            f"{primary} serves serial {served}, and there is no room above it",
            hint="begin the zone anew there with serial 1, and remove the copies of the secondaries",
        )
    return served, least


def deliver_all(parts: Sequence[Consignment], *, loaded: bool) -> str | None:
    """`deliver` for every zone of a release. Raises ReleaseError when all were tried and some failed."""
    if len(parts) == 1:
        return deliver(parts[0], loaded=loaded)
    started = time.perf_counter()
    notes: dict[str, str] = {}
    failed: list[ReleaseError] = []
    for what in parts:
        try:
            note = deliver(what, loaded=loaded)
        except Silent as error:
            failed.append(error)
            break  # the others are served by nobody else
        except ReleaseError as error:
            failed.append(error)
        else:
            if note is not None:
                notes[what.category] = note
    if failed:
        more = f"; {len(failed) - 1} more zones failed too" if len(failed) > 1 else ""
        raise ReleaseError(f"{failed[0].message}{more}", hint=failed[0].hint)
    if not notes:
        return None
    odd = [f"{c}: {note}" for c, note in notes.items() if "drifted" in note or "not acknowledged" in note]
    told = f"{len(notes)} of {len(parts)} zones delivered, served after {time.perf_counter() - started:.1f} s"
    return "; ".join([told, *odd])


def deliver(what: Consignment, *, loaded: bool) -> str | None:
    """Bring the primary to the serial of the file; what was done, or None when it has it.

    `loaded`: this release reached it before, so a primary that serves another serial has drifted. Raises ReleaseError:
    the file stays, and the next run tries again.
    """
    primary = what.primary()
    deadline = time.monotonic() + float(parse_duration(what.export.delivery_timeout))
    served = primary.soa()
    if int(served.split()[2]) == what.serial:
        if not loaded:
            _keep(what)
        return None if loaded else "the primary serves it"
    started = time.perf_counter()
    note = _whole(what, primary, served, deadline) if what.export.delivery == "file" else None
    if note is None:
        note = _difference(what, primary, served, deadline)
    primary.wait(what.serial, deadline)
    _keep(what)
    if what.export.notify:
        secondaries = [parse_resolver(text) for text in what.export.notify]
        if silent := primary.notify(secondaries, primary.soa()):
            note += f"; not acknowledged by {', '.join(silent)}"
    drift = "the primary had drifted; " if loaded else ""
    return f"{drift}{note}, served after {time.perf_counter() - started:.1f} s"


def _difference(what: Consignment, primary: Primary, served: str, deadline: float) -> str:
    """The difference to what was delivered last where the primary still has that, else the whole."""
    kept = _kept(what)
    if kept is None:
        return _whole(what, primary, served, deadline)
    before = zones.read(kept)
    if before.serial != int(served.split()[2]):
        return _whole(what, primary, served, deadline)
    now = zones.read(what.path)
    try:
        return _send(what, primary, zones.difference(before, now), served, now, deadline)
    except Drifted as error:
        why = f" (the difference was refused: {error})" if str(error) else ""
        return _whole(what, primary, primary.soa(), deadline) + why


def _send(
    what: Consignment,
    primary: Primary,
    changes: list[zones.OwnerChange],
    served: str,
    now: zones.Zone,
    deadline: float,
) -> str:
    records = sum(len(change.removed) + len(change.added) for change in changes)
    if what.export.delivery == "rfc2136":
        messages = rfc2136.send(primary, changes, served, now.soa, deadline)
        return f"delivered {records:,} changed records in {messages:,} updates"
    with _control(what, deadline) as control:
        knot.send(control, primary.zone.to_text(), changes, int(served.split()[2]), now.soa, now.ttl)
    return f"delivered {records:,} changed records in one transaction"


def _whole(what: Consignment, primary: Primary, served: str, deadline: float) -> str:
    """The whole of the file: by the export's `reload`, by Knot's, or by comparing with what the primary gives."""
    export = what.export
    if export.reload:
        reload(what.reload, float(parse_duration(export.reload_timeout)), f"{what.place}: reload")
        return "loaded the whole file"
    if export.delivery == "knot":
        with _control(what, deadline) as control:
            knot.load_file(control, primary.zone.to_text())
        return "loaded the whole file"
    if export.delivery == "file":
        return "waited for the primary to load the file"
    return _compare(what, primary, served, deadline)


def _control(what: Consignment, deadline: float) -> knot.Control:
    return knot.Control(what.base / what.export.socket, what.place, deadline)


def _compare(what: Consignment, primary: Primary, served: str, deadline: float) -> str:
    """Take the zone from the primary, and send what differs from the file."""
    text = f"axfr://{primary.server}/{primary.zone.to_text(omit_final_dot=True)}"
    asked = transfer.Transfer(
        primary=transfer.primary_of(text),
        feed=what.export.name,
        tsig=f"secret:{what.export.tsig}" if what.export.tsig else None,
        base=what.base,
        max_size=_AXFR_LARGEST,
        allow_private=True,
        connect=10.0,
        idle=20.0,
        deadline=deadline,
        stop=threading.Event(),
    )
    try:
        theirs = asked.fetch(None, lambda: None)
    except Failure as error:
        raise ReleaseError(f"{what.place}: {error.message}", hint=error.hint) from None
    if theirs.serial != int(served.split()[2]):
        raise ReleaseError(f"{primary}: its zone changed meanwhile", hint="it is tried again at the next run")
    now = zones.read(what.path)
    suffix = f".{primary.zone.to_text()}"
    held = {_relative(line, suffix) for line in (theirs.data or b"").decode("ascii").splitlines()[1:]}
    wanted = {zones.record(line, now.ttl) for line in now.lines}
    changes = zones.ordered(sorted(held - wanted), sorted(wanted - held))
    return _send(what, primary, changes, served, now, deadline) + " after comparing the whole zone"


def _relative(line: str, suffix: str) -> zones.Record:
    """`OWNER. TTL IN TYPE DATA` of a transfer as a record of the file."""
    owner, ttl, _, kind, data = line.split(" ", 4)
    return zones.Record("@" if owner == suffix[1:] else owner.removesuffix(suffix), int(ttl), kind, data)


def _folder(what: Consignment) -> Path:
    return what.state / "delivery"


def _stem(what: Consignment) -> str:
    # An export may be named with any letters, a file may not.
    whose = what.export.name + (f"\0{what.category}" if what.category else "")
    return hashlib.sha256(whose.encode()).hexdigest()[:16]


def _kept(what: Consignment) -> Path | None:
    """The zone that was delivered last, if it is still what it was; else None."""
    for path in _folder(what).glob(f"{_stem(what)}.*.zone"):
        with suppress(OSError):
            if path.name == f"{_stem(what)}.{_digest(path)}.zone":
                return path
    return None


def _keep(what: Consignment) -> None:
    """Keep the delivered zone, for the next difference: as a link, since a published file is never written to."""
    if what.export.delivery == "file":
        return
    folder = _folder(what)
    folders.make(folder)
    path = folder / f"{_stem(what)}.{_digest(what.path)}.zone"
    if not path.exists():
        _copy(what.path, path)
    for other in folder.glob(f"{_stem(what)}.*"):
        if other != path:
            other.unlink(missing_ok=True)


def _copy(source: Path, path: Path) -> None:
    try:
        os.link(source, path)
    except OSError:
        new = path.with_suffix(".new")
        shutil.copyfile(source, new)
        new.replace(path)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]


__all__ = ["Consignment", "deliver", "deliver_all", "floor"]
