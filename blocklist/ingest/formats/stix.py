"""STIX 2.1 bundles (OASIS, 10 June 2021): indicators whose pattern names domains, addresses or URLs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import polars as pl

from blocklist.catalog import TLP, InputFormat, tlp_level
from blocklist.errors import FeedError
from blocklist.ingest.formats import Rows
from blocklist.ingest.formats.document import Lines, decoded, key_at, placed
from blocklist.ingest.formats.pattern import alternatives
from blocklist.ingest.refused import Refused
from blocklist.names import Reject

_MARKING = "marking-definition--"
# TLP 1.0 (STIX 2.1 §7.2.1.4) and TLP 2.0 (OASIS common objects, tlp-2.0), which need not be in the bundle.
_TLP_MARKINGS = {
    _MARKING + "613f2e26-407d-48c7-9eca-b8e91df99dc9": "clear",
    _MARKING + "34098fce-860f-48ae-8e50-ebd3cc5e41da": "green",
    _MARKING + "f88d31f6-486f-44da-b317-01333bde0b82": "amber",
    _MARKING + "5e57c739-391a-4eb3-b6be-7d15ca92d5ed": "red",
    _MARKING + "94868c89-83c2-464b-929b-a1a8aa3c8487": "clear",
    _MARKING + "bab4a63c-aed9-4cf5-a766-dfca5abac2bb": "green",
    _MARKING + "55d920b0-5e8b-4f79-9ee9-91f868d9b421": "amber",
    _MARKING + "939a9414-2ddd-4d32-a0cd-375ea402b003": "amber+strict",
    _MARKING + "e828b379-4e03-4974-9ac4-e53a884c97c1": "red",
}
# Longer patterns are not parsed: an indicator of one name has some forty characters.
_MAX_PATTERN = 20_000

SCHEMA = pl.Schema(
    {
        "number": pl.UInt32,
        "text": pl.String,
        "confidence": pl.UInt8,
        "category": pl.String,
        "reason": pl.String,
        "reference": pl.String,
        "date": pl.String,
        "expires": pl.String,
        "tlp": pl.String,
        "tags": pl.String,
    }
)


class _Head(msgspec.Struct):
    """What every object says of itself."""

    type: str
    id: str = ""
    modified: str = ""


class _Reference(msgspec.Struct):
    url: str | None = None


class _Indicator(msgspec.Struct):
    pattern: str
    pattern_type: str = "stix"
    revoked: bool = False
    name: str | None = None
    description: str | None = None
    confidence: int | None = None
    valid_from: str | None = None
    valid_until: str | None = None
    indicator_types: list[str] = []
    labels: list[str] = []
    external_references: list[_Reference] = []
    object_marking_refs: list[str] = []


class _Bundle(msgspec.Struct):
    """A bundle, or the envelope in which TAXII sends objects."""

    objects: list[msgspec.Raw] | None = None
    type: str = "bundle"


_head = msgspec.json.Decoder(_Head)
_indicator = msgspec.json.Decoder(_Indicator)
_DAMAGED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def parse(data: bytes, spec: InputFormat) -> Rows:
    """One row an alternative of an indicator's pattern; see `blocklist.ingest.formats.pattern` for which.

    Of several versions of an object the last `modified` counts. Other objects, older versions, revoked indicators and
    those of type `benign` are comments; patterns of another language than STIX are unsupported. Raises FeedError when
    the document is no bundle.
    """
    bundle = decoded(data, _Bundle, "a STIX bundle")
    if bundle.type != "bundle" or bundle.objects is None:
        # An empty envelope of TAXII has no objects, but what has neither key is something else.
        raise FeedError("not a STIX bundle: it has no list 'objects'")
    lines = Lines(data)
    found: dict[str, tuple[str, str, bytes, int]] = {}
    damaged: list[int] = []
    unsupported: list[int] = []
    comments = 0
    for text, at in placed(data, bundle.objects):
        try:
            head = _head.decode(text)
        except _DAMAGED:
            damaged.append(lines.at(at))
            continue
        if (other := found.get(key := head.id or f"\0{at}")) is not None:
            comments += 1
            if _moment(other[0]) >= _moment(head.modified):
                continue
        found[key] = (head.modified, head.type, text, at)
    tlp = _TLP_MARKINGS | _own_markings([text for _, kind, text, _ in found.values() if kind == "marking-definition"])
    rows: list[tuple[object, ...]] = []
    for _, kind, text, at in found.values():
        if kind != "indicator":
            comments += 1
            continue
        line = lines.at(at + key_at(text, "pattern"))
        try:
            indicator = _indicator.decode(text)
        except _DAMAGED:
            damaged.append(line)
            continue
        if indicator.revoked or "benign" in indicator.indicator_types:
            comments += 1
            continue
        if indicator.pattern_type.lower() != "stix" or len(indicator.pattern) > _MAX_PATTERN:
            unsupported.append(line)
            continue
        named = alternatives(indicator.pattern)
        if named is None:
            damaged.append(line)
            continue
        unsupported += [line] * named.unsupported
        about = _about(indicator, tlp)
        rows += ((line, value, *about) for value in named.values)
    rejects = Refused()
    rejects.refuse(Reject.SYNTAX, pl.Series(damaged))
    rejects.refuse(Reject.UNSUPPORTED, pl.Series(unsupported))
    return Rows(pl.DataFrame(rows, schema=SCHEMA, orient="row"), rejects, comments, items=len(bundle.objects))


def _about(indicator: _Indicator, tlp: dict[str, str]) -> tuple[object, ...]:
    """confidence, category, reason, reference, date, expires, tlp, tags."""
    levels = [TLP.index(tlp[ref]) for ref in indicator.object_marking_refs if ref in tlp]
    reason = (indicator.name or indicator.description or "").strip()
    confidence = indicator.confidence
    return (
        min(max(confidence, 0), 100) if confidence is not None else None,
        "anonymizer" if indicator.indicator_types == ["anonymization"] else None,
        reason or None,
        next((ref.url for ref in indicator.external_references if ref.url), None),
        indicator.valid_from,
        indicator.valid_until,
        TLP[max(levels)] if levels else None,
        ", ".join(dict.fromkeys([*indicator.indicator_types, *indicator.labels])) or None,
    )


def _moment(timestamp: str) -> tuple[str, str]:
    """A timestamp (RFC 3339, UTC, any number of decimals) so that later is greater: `…05.2Z` is after `…05Z`."""
    whole, _, fraction = timestamp.rstrip("Zz").partition(".")
    return whole, fraction


def _own_markings(objects: Sequence[bytes]) -> dict[str, str]:
    """TLP levels that the bundle defines itself: `definition` of TLP 1.0, the extension of TLP 2.0."""
    levels = {}
    for text in objects:
        try:
            marking: Any = msgspec.json.decode(text)
        except _DAMAGED:
            continue
        definition, extensions = marking.get("definition"), marking.get("extensions")
        said = [definition.get("tlp")] if isinstance(definition, dict) else []
        if isinstance(extensions, dict):
            said += [e.get("tlp_2_0") for e in extensions.values() if isinstance(e, dict)]
        for level in said:
            if isinstance(level, str) and (word := tlp_level(level)) in TLP:
                levels[str(marking.get("id"))] = word
    return levels


def canonical(objects: Sequence[dict[str, Any]], bundle_id: str) -> bytes:
    """A bundle as text that depends on its objects alone: in the order of their ids, an object a line.

    Of several versions of an object the last `modified` is kept.
    """
    latest: dict[str, dict[str, Any]] = {}
    for item in objects:
        key = str(item.get("id"))
        if key not in latest or _version(latest[key]) <= _version(item):
            latest[key] = item
    lines = [msgspec.json.encode(latest[key], order="sorted") for key in sorted(latest)]
    head = msgspec.json.encode({"id": bundle_id, "type": "bundle"})[:-1]
    return head + b',"objects":[\n' + b",\n".join(lines) + b"\n]}\n"


def _version(item: dict[str, Any]) -> tuple[tuple[str, str], bytes]:
    return _moment(str(item.get("modified", ""))), msgspec.json.encode(item, order="sorted")
