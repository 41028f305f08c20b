"""MISP: an event or many (core format), or a warninglist, the form of reference feeds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec
import polars as pl

from blocklist.catalog import TLP, InputFormat, tlp_level
from blocklist.errors import FeedError
from blocklist.ingest.formats import Rows
from blocklist.ingest.formats.document import Lines, decoded, key_at, placed
from blocklist.ingest.refused import Refused
from blocklist.names import Reject

# Types of attributes that are indicators, and which halves of `a|b` they give (MISP core format, "type").
_TYPES: dict[str, tuple[int, ...]] = {
    "domain": (0,),
    "hostname": (0,),
    "ip-src": (0,),
    "ip-dst": (0,),
    "url": (0,),
    "domain|ip": (0, 1),
    "hostname|port": (0,),
    "ip-src|port": (0,),
    "ip-dst|port": (0,),
}
# MISP taxonomy "misp", version 9: the numerical value of each level.
_CONFIDENCE = {
    "completely-confident": 100,
    "usually-confident": 75,
    "fairly-confident": 50,
    "rarely-confident": 25,
    "unconfident": 0,
    "confidence-cannot-be-evalued": 50,
}
_CONFIDENCE_TAG = re.compile(r'misp:confidence-level="([a-z-]+)"')

SCHEMA = pl.Schema(
    {
        "number": pl.UInt32,
        "text": pl.String,
        "confidence": pl.UInt8,
        "reason": pl.String,
        "reference": pl.String,
        "date": pl.String,
        "tlp": pl.String,
        "tags": pl.String,
    }
)


class _Tag(msgspec.Struct):
    name: str = ""


class _Attribute(msgspec.Struct):
    type: str
    value: str
    to_ids: bool | int | str = False
    deleted: bool | int | str = False
    comment: str | None = None
    timestamp: str | int | None = None
    first_seen: str | None = None
    last_seen: str | None = None
    tags: list[_Tag] = msgspec.field(name="Tag", default_factory=list)


class _Object(msgspec.Struct):
    deleted: bool | int | str = False
    attributes: list[msgspec.Raw] = msgspec.field(name="Attribute", default_factory=list)


class _Event(msgspec.Struct):
    uuid: str = ""
    info: str = ""
    date: str | None = None
    tags: list[_Tag] = msgspec.field(name="Tag", default_factory=list)
    attributes: list[msgspec.Raw] = msgspec.field(name="Attribute", default_factory=list)
    objects: list[msgspec.Raw] = msgspec.field(name="Object", default_factory=list)


class _Wrapped(msgspec.Struct):
    """An event is wrapped by MISP itself; PyMISP writes it bare."""

    event: msgspec.Raw = msgspec.field(name="Event", default=msgspec.Raw())


class _Document(msgspec.Struct):
    """Which of its keys a document has."""

    items: msgspec.Raw = msgspec.field(name="list", default=msgspec.Raw())
    event: msgspec.Raw = msgspec.field(name="Event", default=msgspec.Raw())
    attributes: msgspec.Raw = msgspec.field(name="Attribute", default=msgspec.Raw())
    objects: msgspec.Raw = msgspec.field(name="Object", default=msgspec.Raw())
    response: msgspec.Raw = msgspec.Raw()


class _Warninglist(msgspec.Struct):
    items: list[str] = msgspec.field(name="list")


_attribute = msgspec.json.Decoder(_Attribute)
_object = msgspec.json.Decoder(_Object)
_event = msgspec.json.Decoder(_Event)
_wrapped = msgspec.json.Decoder(_Wrapped)
_DAMAGED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def parse(data: bytes, spec: InputFormat) -> Rows:
    """Rows of what `data` is: a warninglist, `{"Event": …}` or its inside alone, `{"response": [{"Event": …}, …]}`, or
    a list of those.

    Of events: one row an indicator of an attribute, in the event itself or in one of its objects, that is marked for
    detection (`to_ids`, unless the feed's format says `to_ids = false`) and not deleted; the others count as
    comments, and as unsupported when they are of another type (hashes, mail addresses). `date` is when it was last
    seen, else first seen, else last edited. Raises FeedError when the document is something else.
    """
    if data.lstrip()[:1] == b"[":
        return _Events(data, spec).read(decoded(data, list[msgspec.Raw], "a list of MISP events"))
    document = decoded(data, _Document, "a MISP warninglist or event")
    if bytes(document.items):
        return _warninglist(data)
    if any(bytes(part) for part in (document.event, document.attributes, document.objects)):
        return _Events(data, spec).read([msgspec.Raw(data)])
    if bytes(document.response):
        return _Events(data, spec).read(decoded(bytes(document.response), list[msgspec.Raw], "a list of MISP events"))
    raise FeedError(
        "not a MISP warninglist or event: it has none of the keys 'Event', 'Attribute', 'response' and 'list'"
    )


@dataclass
class _About:
    """What an event says for all its attributes."""

    info: str
    reference: str | None
    date: str | None
    tags: Sequence[str]


@dataclass
class _Events:
    """Reads events of `data` into columns."""

    data: bytes
    spec: InputFormat
    rows: list[tuple[object, ...]] = field(default_factory=list)
    damaged: list[int] = field(default_factory=list)
    unsupported: list[int] = field(default_factory=list)
    comments: int = 0
    items: int = 0

    def read(self, events: Iterable[msgspec.Raw]) -> Rows:
        self._lines = Lines(self.data)
        for text, at in placed(self.data, list(events)):
            try:
                wrapped = bytes(_wrapped.decode(text).event)
                inner = msgspec.Raw(wrapped or text)
                event = _event.decode(inner)
                if not (wrapped or event.attributes or event.objects):
                    raise msgspec.DecodeError("not an event")
            except _DAMAGED:
                self.items += 1
                self.damaged.append(self._lines.at(at + key_at(text, "info")))
                continue
            start = self.data.find(bytes(inner), at)
            about = _About(
                event.info.strip(),
                f"urn:uuid:{event.uuid}" if _UUID.fullmatch(event.uuid) else None,
                event.date,
                _names(event.tags),
            )
            self._attributes(event.attributes, about, start)
            self._objects(event.objects, about, start)
        rejects = Refused()
        rejects.refuse(Reject.SYNTAX, pl.Series(self.damaged))
        rejects.refuse(Reject.UNSUPPORTED, pl.Series(self.unsupported))
        rows = pl.DataFrame(self.rows, schema=SCHEMA, orient="row")
        return Rows(rows, rejects, comments=self.comments, items=self.items)

    def _objects(self, objects: Sequence[msgspec.Raw], about: _About, start: int) -> None:
        for text, at in placed(self.data, objects, start):
            try:
                found = _object.decode(text)
            except _DAMAGED:
                self.items += 1
                self.damaged.append(self._lines.at(at + key_at(text, "name")))
                continue
            if _true(found.deleted):
                self.items += len(found.attributes)
                self.comments += len(found.attributes)
            else:
                self._attributes(found.attributes, about, at)

    def _attributes(self, attributes: Sequence[msgspec.Raw], about: _About, start: int) -> None:
        self.items += len(attributes)
        for text, at in placed(self.data, attributes, start):
            line = self._lines.at(at + (key_at(text, "value") or key_at(text, "type")))
            try:
                attribute = _attribute.decode(text)
            except _DAMAGED:
                self.damaged.append(line)
                continue
            if _true(attribute.deleted) or (self.spec.to_ids and not _true(attribute.to_ids)):
                self.comments += 1
                continue
            halves = _TYPES.get(attribute.type)
            if halves is None:
                self.unsupported.append(line)
                continue
            values = attribute.value.split("|")
            row = _row(attribute, about)
            for half in halves:
                self.rows.append((line, values[half].strip() if half < len(values) else "", *row))


_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def _row(attribute: _Attribute, about: _About) -> tuple[object, ...]:
    """confidence, reason, reference, date, tlp, tags."""
    own = _names(attribute.tags)
    tags = [*own, *(tag for tag in about.tags if tag not in own)] if own else about.tags
    comment = (attribute.comment or "").strip()
    reason = ": ".join(part for part in (about.info, comment) if part)
    date = attribute.last_seen or attribute.first_seen or _of_epoch(attribute.timestamp) or about.date
    # What stands at the attribute is more particular than what stands at its event.
    confidence = next((c for tag in tags if (c := _confidence(tag)) is not None), None)
    rest = [tag for tag in tags if not tag.lower().startswith("tlp:")]
    return (confidence, reason or None, about.reference, date, strictest(tags), ", ".join(rest) or None)


def strictest(tags: Iterable[str]) -> str | None:
    """The most restrictive `tlp:` tag, in the words of TLP 2.0; None where there is none."""
    levels = [TLP.index(level) for tag in tags if tag.lower().startswith("tlp:") and (level := tlp_level(tag)) in TLP]
    return TLP[max(levels)] if levels else None


def _confidence(tag: str) -> int | None:
    match = _CONFIDENCE_TAG.fullmatch(tag)
    return _CONFIDENCE.get(match[1]) if match else None


def _names(tags: Iterable[_Tag]) -> list[str]:
    return [tag.name.strip() for tag in tags if tag.name.strip()]


def _true(flag: bool | int | str) -> bool:
    """MISP writes flags as true, 1 and "1", by version and by way of export."""
    return flag not in (False, 0, "", "0", "false")


def _of_epoch(seconds: str | int | None) -> str | None:
    try:
        return datetime.fromtimestamp(int(seconds or 0), UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if seconds else None
    except (ValueError, OverflowError, OSError):
        return None


def _warninglist(data: bytes) -> Rows:
    """One row an item of `list`; `number` is the line of the file on which the item stands.

    Publishers print one item a line; where they do not, the number is the item's position. A leading dot
    (`.dyndns.example`) is dropped, and an item of nothing else is a comment.
    """
    items = decoded(data, _Warninglist, "a MISP warninglist").items
    raw = pl.Series("text", items, dtype=pl.String)
    start = _first_line(data, raw)
    number = pl.int_range(start, start + len(items), dtype=pl.UInt32, eager=True).alias("number")
    rows = pl.DataFrame([number, raw.str.strip_chars().str.strip_prefix(".")])
    empty = rows["text"] == ""
    return Rows(rows.filter(~empty), comments=int(empty.sum()), items=len(items))


def _first_line(data: bytes, items: pl.Series) -> int:
    """The line of the first item where every item has a line of its own, else 1."""
    key = re.search(rb'"list"\s*:\s*\[\s*', data)
    if key is None:
        return 1
    first = data.count(b"\n", 0, key.end()) + 1
    lines = data[key.end() :].decode().split("\n", items.len())[: items.len()]
    if len(lines) < items.len():
        return 1
    shown = pl.Series(lines, dtype=pl.String).str.strip_chars(" \t\r]},").str.strip_prefix('"').str.strip_suffix('"')
    escaped = shown.str.contains("\\", literal=True)
    return first if ((shown == items) | escaped).all() else 1


def canonical(event: dict[str, Any]) -> bytes:
    """An event as text that depends on its content alone: keys and attributes in order, an attribute a line."""
    inner = dict(event["Event"])
    attributes, objects = _taken(inner, "Attribute"), _taken(inner, "Object")
    parts = []
    for found in objects:
        own = dict(found)
        parts.append(_with(own, Attribute=[_encode(a) for a in _taken(own, "Attribute")]))
    body = _with(inner, Attribute=[_encode(a) for a in attributes], Object=parts)
    rest = {key: value for key, value in event.items() if key != "Event"}
    return _with(rest, Event=body)


def _taken(table: dict[str, Any], key: str) -> list[Any]:
    """The list under `key`, out of `table` and in the order of the ids; what is no list of objects stays there."""
    items = table.get(key)
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        return []
    del table[key]
    return sorted(items, key=lambda item: (str(item.get("uuid", "")), _encode(item)))


def _with(table: dict[str, Any], **more: list[bytes] | bytes) -> bytes:
    """`table` encoded, and after its own keys those of `more`: encoded already, a list with an item a line."""
    parts = [_encode(table)[1:-1]] if table else []
    for key, value in more.items():
        if isinstance(value, list):
            if not value:
                continue
            value = b"[\n" + b",\n".join(value) + b"\n]"
        parts.append(b'"%s":%s' % (key.encode(), value))
    return b"{" + b",".join(parts) + b"}"


def _encode(value: object) -> bytes:
    return msgspec.json.encode(value, order="sorted")
