"""The catalogue of feeds: TOML descriptors in the package and in the operator's `feeds.d/`, validated."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import msgspec

from blocklist.decode import Problems, below, decode
from blocklist.quantities import parse_duration, parse_size

Category = Literal[
    "attack-source",
    "c2",
    "malware",
    "phishing",
    "scam",
    "spam",
    "disinformation",
    "sanctioned-media",
    "anonymizer",
    "cryptojacking",
    "stalkerware",
    "advertising",
    "tracking",
    "reference",
    "other",
]
CATEGORIES: tuple[str, ...] = get_args(Category)
Kind = Literal["domain", "ipv4", "ipv6", "url"]
KINDS: tuple[str, ...] = get_args(Kind)
REFERENCE_LINGER = "30d"
Tlp = Literal["clear", "green", "amber", "amber+strict", "red"]
TLP: tuple[str, ...] = get_args(Tlp)
Percent = Annotated[int, msgspec.Meta(ge=0, le=100)]
Share = Annotated[float, msgspec.Meta(gt=0)]
FormatName = Literal[
    "auto",
    "hosts",
    "lines",
    "wildcard",
    "adblock",
    "dnsmasq",
    "unbound",
    "csv",
    "jsonl",
    "scored",
    "misp",
]


class InputFormat(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """How to read a feed: `name` of the wire format, and for tables which columns mean what.

    `value` names the column (by header, or by number from 1) that holds the indicator; `where` keeps only the
    rows whose columns have these values; `skip_if` drops JSON rows that have this key. A row of another kind than its
    `kind` says is refused; `category` to `authority` are what a row may say beyond its feed.
    """

    name: FormatName = "auto"
    value: str | int | None = None
    kind: str | int | None = None
    category: str | int | None = None
    confidence: str | int | None = None
    scope: str | int | None = None
    reason: str | int | None = None
    reference: str | int | None = None
    date: str | int | None = None
    expires: str | int | None = None
    tlp: str | int | None = None
    tags: str | int | None = None
    legal_basis: str | int | None = None
    authority: str | int | None = None
    where: dict[str, str] = {}
    skip_if: str | None = None
    delimiter: str = ","
    header: bool = True


class Feed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """A source: where it is, how to read it, what it says and how far it is trusted. Keys as in docs/feeds.md."""

    id: str = ""
    title: str
    url: str | list[str]
    category: Category
    format: str | InputFormat = "auto"
    publisher: str = ""
    homepage: str = ""
    mirrors: list[str] = []
    past_urls: list[str] = []
    kinds: list[Kind] = []
    scope: Literal["exact", "subtree"] | None = None
    confidence: Percent = 50
    update: str = "1d"
    min_interval: str = "5m"
    licence: str = "unknown"
    commercial_use: str = "unknown"
    auth: str | None = None
    max_size: str = "128MB"
    min_entries: int = 0
    max_shrink: Share = 0.5
    max_growth: Share = 5.0
    max_new_holds: Annotated[int, msgspec.Meta(ge=0)] = 100
    check_count: bool = True
    stale_after: str | None = None
    max_age: str | None = None
    linger: str | None = None
    family: str | None = None
    direction: Literal["inbound", "outbound", "both"] | None = None
    action: Literal["hold", "inform"] = "hold"
    tlp: Tlp | None = None
    status: Literal["active", "discontinued"] = "active"
    successor: str | None = None
    contact: str = ""
    legal_basis: str = ""
    enabled: bool = False
    source: str = ""
    allow_private: bool = False
    url_hosts: bool = False
    first: int | None = None
    mode: Literal["live", "shadow"] = "live"

    @property
    def urls(self) -> tuple[str, ...]:
        """The parts of one snapshot, in order."""
        return (self.url,) if isinstance(self.url, str) else tuple(self.url)

    @property
    def input(self) -> InputFormat:
        """`format` with its options spelled out."""
        if isinstance(self.format, InputFormat):
            return self.format
        return InputFormat(name=self.format)  # type: ignore[arg-type]  # checked in `problems_of`

    @property
    def is_reference(self) -> bool:
        """Must what it names never be blocked?"""
        return self.category == "reference"

    @property
    def keeps_for(self) -> int | None:
        """Seconds for which a listing stays after the feed drops it; None where it does not.

        Names come and go at the end of a ranking: a reference keeps them 30 days, so that holds don't flap.
        """
        linger = self.linger or (REFERENCE_LINGER if self.is_reference else None)
        return parse_duration(linger) if linger else None

    @property
    def matches(self) -> str:
        """`inbound`, `outbound` or `both`: whether packet filters match source or destination.

        An attacker who scans must not cut an office off from a shared host, and a control server is reached
        from inside.
        """
        if self.direction is not None:
            return self.direction
        return {"attack-source": "inbound", "c2": "outbound"}.get(self.category, "both")


def problems_of(feed: Feed, where: str, problems: Problems) -> None:
    """Append what types can't say: durations, sizes, URL schemes, the format's name and needs."""
    for key in ("update", "min_interval", "stale_after", "max_age", "linger"):
        text = getattr(feed, key)
        if text is not None:
            problems.check(below(where, key), parse_duration, text)
    problems.check(below(where, "max_size"), parse_size, feed.max_size)
    if not feed.urls:
        problems.add(below(where, "url"), "is empty; name at least one URL")
    for url in (*feed.urls, *feed.mirrors):
        if not url.startswith(("http://", "https://", "file:")):
            problems.add(below(where, "url"), f"{url!r} is none of https:, http: and file:")
    place = below(where, "format")
    if isinstance(feed.format, str) and not problems.choose(place, feed.format, get_args(FormatName), "format"):
        return
    spec = feed.input
    if spec.name in ("csv", "jsonl") and spec.value is None:
        problems.add(
            place,
            f'{spec.name} needs the column that holds the domain or address: {{ name = "{spec.name}", value = "…" }}',
        )
    if spec.name == "csv" and not spec.header and isinstance(spec.value, str):
        problems.add(f"{place}.value", "names a column, but header = false; give its number, from 1")
    if len(spec.delimiter.encode()) != 1 or spec.delimiter in '"\r\n':
        problems.add(f"{place}.delimiter", "is not one ASCII character that may separate columns")


def builtin_descriptors() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """`(id, file, raw table)` of every feed that the package carries."""
    for entry in sorted(resources.files("blocklist.feeds").iterdir(), key=lambda e: e.name):
        if entry.name.endswith(".toml"):
            yield (
                entry.name.removesuffix(".toml"),
                f"feeds/{entry.name}",
                tomllib.loads(entry.read_text("utf-8")),
            )


def folder_descriptors(folder: Path, problems: Problems) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The same for the operator's `feeds.d/`."""
    if not folder.is_dir():
        return
    for path in sorted(folder.glob("*.toml")):
        try:
            yield path.stem, f"feeds.d/{path.name}", tomllib.loads(path.read_text("utf-8"))
        except UnicodeDecodeError:
            problems.add(f"feeds.d/{path.name}", "is not UTF-8 text")
        except (tomllib.TOMLDecodeError, OSError) as error:
            problems.add(f"feeds.d/{path.name}", f"can't be read: {error}")


def decode_feed(feed_id: str, where: str, raw: Mapping[str, Any], problems: Problems) -> Feed | None:
    """A raw table as a Feed, or None with the problems appended."""
    table = dict(raw)
    if "id" in table:
        problems.add(below(where, "id"), "is given by the file's or table's name; remove the key")
        return None
    feed = decode(table, Feed, where, problems)
    if feed is None:
        return None
    problems_of(feed, where, problems)
    return msgspec.structs.replace(feed, id=feed_id)
