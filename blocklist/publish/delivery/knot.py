"""Differences through the control socket of Knot DNS: one transaction, one serial, 40,000 records in seconds.

The protocol is that of libknot (control.h): units of a type octet; a data unit has items of an index octet, a length
of two octets and text. Debian's python3-libknot is for the system's Python alone and waits for an answer after every
record; this client needs no library and sends a few hundred at a time.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from types import TracebackType

from blocklist.errors import ReleaseError
from blocklist.publish.delivery.rfc2136 import Drifted
from blocklist.publish.delivery.zone import OwnerChange

_END, _DATA, _EXTRA, _BLOCK = range(4)
_FIRST_ITEM = 16
_ITEMS = ("command", "flags", "error", "section", "item", "id", "zone", "owner", "ttl", "type", "data", "filter")
# Commands sent before their answers are read: these fit into the socket's buffers, so neither side waits for the other.
_AHEAD = 400


class Refused(Exception):
    """Knot's own words for why it did not do something."""


class Control:
    """A connection to knotd. Raises ReleaseError when there is none, Refused when a command is."""

    def __init__(self, path: Path, place: str, deadline: float) -> None:
        self._path, self._place, self._deadline = path, place, deadline
        self._buffer = b""
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(max(deadline - time.monotonic(), 1))
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise ReleaseError(
                f"{place}: {path}: {(error.strerror or str(error)).lower()}",
                hint="is knotd running, and may this user use its control socket (group knot)?",
            ) from None

    def __enter__(self) -> Control:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def run(self, command: str, **items: str) -> list[Mapping[str, str]]:
        """One command; the data units of its answer."""
        return self.run_all([{"command": command, **items}])[0]

    def run_all(self, commands: Sequence[Mapping[str, str]]) -> list[list[Mapping[str, str]]]:
        """Many commands; their answers in order. The first refusal is raised when all have been answered."""
        answers: list[list[Mapping[str, str]]] = []
        waiting = iter(commands)
        while some := list(islice(waiting, _AHEAD)):
            self._send(b"".join(map(_unit, some)))
            answers += [self._answer() for _ in some]
        for answer in answers:
            for unit in answer:
                if "error" in unit:
                    raise Refused(unit["error"])
        return answers

    def _answer(self) -> list[Mapping[str, str]]:
        units: list[dict[str, str]] = []
        while True:
            code = self._take(1)[0]
            if code in (_END, _BLOCK):
                return list(units)
            if code in (_DATA, _EXTRA):
                units.append({})
            elif _FIRST_ITEM <= code < _FIRST_ITEM + len(_ITEMS) and units:
                (length,) = struct.unpack("!H", self._take(2))
                units[-1][_ITEMS[code - _FIRST_ITEM]] = self._take(length).decode("utf-8", "replace")
            else:
                raise ReleaseError(f"{self._place}: {self._path}: not the control socket of a Knot DNS that we know")

    def _send(self, data: bytes) -> None:
        try:
            self._socket.settimeout(max(self._deadline - time.monotonic(), 0.1))
            self._socket.sendall(data)
        except OSError as error:
            raise self._broken(error) from None

    def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            try:
                self._socket.settimeout(max(self._deadline - time.monotonic(), 0.1))
                piece = self._socket.recv(1 << 16)
            except OSError as error:
                raise self._broken(error) from None
            if not piece:
                raise self._broken(ConnectionError(0, "closed by knotd"))
            self._buffer += piece
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    def _broken(self, error: OSError) -> ReleaseError:
        text = "not finished in time" if isinstance(error, TimeoutError) else (error.strerror or str(error)).lower()
        return ReleaseError(
            f"{self._place}: {self._path}: {text}",
            hint="see the log of knotd; a transaction that was left open ends with 'knotc zone-abort ZONE'",
        )


def _unit(items: Mapping[str, str]) -> bytes:
    parts = [bytes([_DATA])]
    for name, text in items.items():
        data = text.encode()
        parts.append(struct.pack("!BH", _FIRST_ITEM + _ITEMS.index(name), len(data)) + data)
    return b"".join([*parts, bytes([_BLOCK])])


def send(control: Control, zone: str, changes: Sequence[OwnerChange], served: int, soa: str, ttl: int) -> None:
    """Bring `zone` from the serial `served` to `soa` in one transaction.

    Raises Drifted when Knot holds another serial, lacks what is to go or has what is to come, and ReleaseError when it
    can't commit. Then all of it is undone.
    """
    try:
        control.run("zone-begin", zone=zone)
    except Refused as error:
        raise ReleaseError(
            f"knotd begins no transaction on {zone}: {error}",
            hint=f"one that was left open ends with 'knotc zone-abort {zone}'",
        ) from None
    try:
        held = control.run("zone-get", zone=zone, owner="@", type="SOA")
        if not any(unit.get("data", "").split()[2:3] == [str(served)] for unit in held):
            raise Drifted("it holds another serial")
        try:
            control.run_all(list(_commands(zone, changes, soa, ttl)))
        except Refused as error:
            raise Drifted(str(error)) from None
        control.run("zone-commit", zone=zone)
    except Refused as error:
        raise ReleaseError(
            f"knotd does not commit the change of {zone}: {error}",
            hint="'not enough space': raise the zone's journal-max-usage; 'not exists': make its database folder",
        ) from None
    finally:
        # After a commit there is nothing to abort, and knotd says so.
        with suppress(Refused, ReleaseError):
            control.run("zone-abort", zone=zone)


def _commands(zone: str, changes: Sequence[OwnerChange], soa: str, ttl: int) -> Iterator[dict[str, str]]:
    yield {"command": "zone-set", "zone": zone, "owner": "@", "ttl": str(ttl), "type": "SOA", "data": soa}
    for change in changes:
        for item in change.removed:
            yield {"command": "zone-unset", "zone": zone, "owner": item.owner, "type": item.kind, "data": item.data}
        for item in change.added:
            yield {
                "command": "zone-set",
                "zone": zone,
                "owner": item.owner,
                "ttl": str(item.ttl),
                "type": item.kind,
                "data": item.data,
            }


def setting(control: Control, zone: str, item: str) -> str | None:
    """What knotd is configured to do with `zone`, by itself or by its template; None where that is Knot's default."""
    templates = _read(control, "zone", zone, "template") or ["default"]
    for section, name in (("zone", zone), *(("template", template) for template in templates)):
        if found := _read(control, section, name, item):
            return found[0]
    return None


def _read(control: Control, section: str, name: str, item: str) -> list[str]:
    try:
        units = control.run("conf-read", section=section, id=name, item=item)
    except Refused:
        return []  # there is no such section
    return [unit["data"] for unit in units if "data" in unit]


def load_file(control: Control, zone: str) -> None:
    """Have Knot read the zone's file, from which it makes the difference itself. Raises ReleaseError."""
    try:
        control.run("zone-reload", zone=zone)
    except Refused as error:
        raise ReleaseError(
            f"knotd does not reload {zone}: {error}", hint="see its log, and 'knotc conf-check'"
        ) from None
