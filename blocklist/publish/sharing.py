"""Lists for other people's tools: STIX 2.1 indicators and a MISP event, from the unfolded rows.

Identifiers are derived from what they name (RFC 9562 §5.5), so that the same entry has the same one at every release.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid5

import polars as pl

from blocklist.publish.parts import Part, Stream
from blocklist.publish.patterns import UNSHARED
from blocklist.publish.selection import Selection

if TYPE_CHECKING:
    from blocklist.publish.descriptor import Format

Row = Mapping[str, Any]

# A namespace of our own: uuid5 of the DNS namespace and "blocklist".
_SPACE = uuid5(UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8"), "blocklist")
# What a rule blocks has no date of listing; STIX wants one, and the same at every release.
_ALWAYS = "1970-01-01T00:00:00Z"
# STIX 2.1 §4.7 knows few types of indicators; what has no counterpart is a malicious activity.
_STIX_TYPES = {"c2": "malicious-activity", "tor": "anonymization"}


def parts(fmt: Format, selection: Selection, values: dict[str, Any], lost: Counter[str]) -> list[Part]:
    """One JSON document, an object a line. Rows with quotes, or what is not plain ASCII, count as `unwritable`."""
    rows = selection.rows.filter(pl.col("kind").is_in(list(fmt.kinds)))
    plain = shared(rows["indicator"])
    lost["unwritable"] += rows.height - int(plain.sum())
    rows = rows.filter(plain)
    make = _stix if fmt.code == "stix" else _misp
    return [Stream(partial(make, rows, values), records=rows.height, entries=rows.height)]


def shared(indicators: pl.Series) -> pl.Series:
    """Boolean: which of `indicators` (String) can be written."""
    return ~indicators.str.contains(UNSHARED)


def _dump(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _listed(rows: pl.DataFrame, make: Callable[[Row], object]) -> Iterator[str]:
    """Objects of an array, each on its line, with commas between."""
    for chunk in range(0, rows.height, 4096):
        texts = [_dump(make(row)) for row in rows.slice(chunk, 4096).iter_rows(named=True)]
        yield (",\n" if chunk else "") + ",\n".join(texts)
    if rows.height:
        yield "\n"


def _stix(rows: pl.DataFrame, values: Mapping[str, Any]) -> Iterator[str]:
    author = {
        "type": "identity",
        "spec_version": "2.1",
        "id": f"identity--{uuid5(_SPACE, values['author'])}",
        "created": "1970-01-01T00:00:00.000Z",
        "modified": "1970-01-01T00:00:00.000Z",
        "name": values["author"],
        "identity_class": "organization",
    }
    bundle = f"bundle--{uuid5(_SPACE, 'bundle ' + values['author'])}"
    comma = "," if rows.height else ""
    yield f'{{"type":"bundle","id":"{bundle}","objects":[\n{_dump(author)}{comma}\n'
    yield from _listed(rows, partial(_indicator, author["id"]))
    yield "]}\n"


def _indicator(author: str, row: Row) -> object:
    since = _milliseconds(row["since"] or _ALWAYS)
    return {
        "type": "indicator",
        "spec_version": "2.1",
        "id": f"indicator--{uuid5(_SPACE, row['kind'] + ' ' + row['scope'] + ' ' + row['indicator'])}",
        "created_by_ref": author,
        "created": since,
        "modified": since,
        "valid_from": since,
        "pattern_type": "stix",
        "pattern": _pattern(row),
        "indicator_types": [_STIX_TYPES.get(row["category"] or "", "malicious-activity")],
        "labels": [row["category"] or "rule"],
        "confidence": row["confidence"],
    }


def _pattern(row: Row) -> str:
    """STIX patterning (§9); nothing needs escaping, since quotes and backslashes never get here."""
    value, kind = row["indicator"], row["kind"]
    if kind == "url":
        rest = value.removeprefix("//")
        # Comparison ignores the scheme.
        return f"[url:value = 'http://{rest}' OR url:value = 'https://{rest}']"
    if kind == "domain":
        own = f"domain-name:value = '{value}'"
        # There is no operator for subdomains: a text that ends in the name is one.
        return f"[{own} OR domain-name:value LIKE '%.{value}']" if row["scope"] == "subtree" else f"[{own}]"
    operator = "ISSUBSET" if "/" in value else "="
    return f"[{kind}-addr:value {operator} '{value}']"


def _milliseconds(moment: str) -> str:
    return moment[:-1] + ".000Z" if moment.endswith("Z") and "." not in moment else moment


def _misp(rows: pl.DataFrame, values: Mapping[str, Any]) -> Iterator[str]:
    event = uuid5(_SPACE, "event " + values["author"])
    yield (
        f'{{"Event":{{"uuid":"{event}","info":{_dump(values["info"])},"date":"1970-01-01",'
        f'"threat_level_id":"2","analysis":"2","distribution":"0","published":false,'
        f'"Orgc":{{"name":{_dump(values["author"])},"uuid":"{uuid5(_SPACE, values["author"])}"}},"Attribute":[\n'
    )
    yield from _listed(rows, _attribute)
    yield "]}}\n"


def _attribute(row: Row) -> object:
    """`domain` covers what is below it and `hostname` does not, as in MISP's own export of a zone."""
    kind = row["kind"]
    what = "ip-src" if row.get("direction") == "inbound" else "ip-dst"
    if kind == "domain":
        what = "domain" if row["scope"] == "subtree" else "hostname"
    elif kind == "url":
        what = "url"
    value = "http://" + row["indicator"].removeprefix("//") if kind == "url" else row["indicator"]
    return {
        "uuid": str(uuid5(_SPACE, f"attribute {what} {value}")),
        "type": what,
        "category": "Network activity",
        "value": value,
        "to_ids": True,
        "comment": f"{row['category'] or 'rule'}, confidence {row['confidence']}",
    }
