"""The catalogue of feeds: TOML descriptors in the package and in the operator's `feeds.d/`, validated."""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import unquote, urlsplit

import msgspec

from blocklist.decode import Problems, below, decode
from blocklist.packaged import folder_of
from blocklist.quantities import parse_duration, parse_size
from blocklist.regular import NotAFileError, read_regular

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
Packing = Literal["auto", "none", "gzip", "zstd", "zip", "tar", "tar.gz", "tar.zst"]
PLACEHOLDER = "{secret}"
REFERENCE_LINGER = "30d"
Tlp = Literal["clear", "green", "amber", "amber+strict", "red"]
TLP: tuple[str, ...] = get_args(Tlp)

# How far each audience may be told (TLP 2.0, first.org/tlp): amber ends at one's own clients, green at the community.
Audience = Literal["house", "clients", "partners", "public"]
REACH: dict[str, str] = {"house": "red", "clients": "amber", "partners": "green", "public": "clear"}
Percent = Annotated[int, msgspec.Meta(ge=0, le=100)]
Share = Annotated[float, msgspec.Meta(gt=0)]
# The reference list that comes with the program; always enabled, unless `[protect] essential = false`.
ESSENTIAL = "essential"
# Names of the feeds that an operator can enable at once; in the folder of the feeds, but no feed.
SETS_FILE = "sets.toml"
FormatName = Literal[
    "auto",
    "hosts",
    "lines",
    "wildcard",
    "adblock",
    "dnsmasq",
    "unbound",
    "csv",
    "json",
    "jsonl",
    "scored",
    "urls",
    "maltrail",
    "dshield",
    "rpz",
    "suricata",
    "misp",
    "stix",
]


class InputFormat(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """How to read a feed: `name` of the wire format, and for tables which columns mean what.

    `value` names the column (by header, or by number from 1) that holds the indicator; of several the first that is
    filled. `where` keeps only the rows whose columns have these values; `skip_if` drops JSON rows that have this key.
    `pointer` (RFC 6901) leads to the list in a JSON document; several lead to several lists. `ports`: an indicator may
    carry a port, which is dropped. `quote` is what cells of a table may stand in, empty for nothing.
    `to_ids`: of MISP events only what is marked for detection. A row of another kind than its `kind` says is refused;
    `category` to `authority` are what a row may say beyond its feed.
    """

    name: FormatName = "auto"
    value: str | int | list[str | int] | None = None
    pointer: str | list[str] = ""
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
    where: dict[str, str | list[str]] = {}
    skip_if: str | None = None
    ports: bool = False
    to_ids: bool = True
    delimiter: str = ","
    quote: str = '"'
    header: bool = True

    @property
    def values(self) -> tuple[str | int, ...]:
        """The columns or keys of `value`, in order."""
        if self.value is None:
            return ()
        return tuple(self.value) if isinstance(self.value, list) else (self.value,)

    @property
    def pointers(self) -> tuple[str, ...]:
        """`pointer`, one or several; the whole document where there is none."""
        return tuple(self.pointer) if isinstance(self.pointer, list) else (self.pointer,)

    def accepted(self, column: str) -> list[str]:
        """The values of `column` that `where` asks for."""
        wanted = self.where[column]
        return wanted if isinstance(wanted, list) else [wanted]


class Auth(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """Which secret a feed needs (`name`; the value is never in the configuration), and how it is sent.

    In the request header `header`; as `Authorization: Bearer`; as `Authorization: Basic`, the secret then being
    `user:password`; as the value of `query` in the URL; or, with none of these, where the URL says `{secret}`.
    """

    name: str
    header: str | None = None
    bearer: bool = False
    basic: bool = False
    query: str | None = None


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
    packed: Packing = "auto"
    member: str | None = None
    auth: Auth | None = None
    tsig: str | None = None
    proxy: str | None = None
    ca_file: str | None = None
    client_cert: str | None = None
    max_size: str = "128MB"
    min_entries: int = 0
    allow_empty: bool = False
    max_shrink: Share = 0.5
    max_growth: Share = 5.0
    max_held: Share = 0.2
    max_new_holds: Annotated[int, msgspec.Meta(ge=0)] = 100
    check_count: bool = True
    stale_after: str | None = None
    max_age: str | None = None
    linger: str | None = None
    family: str | None = None
    direction: Literal["inbound", "outbound", "both"] | None = None
    action: Literal["hold", "inform", "sinkhole", "parking"] = "hold"
    tlp: Tlp | None = None
    redistribution: Literal["allowed", "forbidden", "unknown"] = "unknown"
    status: Literal["active", "discontinued"] = "active"
    successor: str | None = None
    contact: str = ""
    legal_basis: str = ""
    enabled: bool = False
    source: str = ""
    allow_private: bool = False
    url_hosts: bool = False
    first: int | None = None
    ranked: bool = False
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


def retired(feed: Feed) -> tuple[str, str] | None:
    """What to say of an enabled feed that its publisher has given up, and the edit; None when it is not."""
    if feed.status != "discontinued":
        return None
    text = "its publisher has discontinued it"
    if feed.successor is None:
        return text, f"take '{feed.id}' out of [feeds] enable"
    return text, f"in [feeds] enable, write '{feed.successor}' instead of '{feed.id}'"


def local_file(url: str, base: Path) -> Path | None:
    """Where the file of a `file:` URL (RFC 8089) lies, a relative one below `base`; None where it names none here."""
    if url[:5].lower() != "file:":
        return None
    rest = url[5:]
    if rest.startswith("//"):
        host, slash, rest = rest[2:].partition("/")
        if host not in ("", "localhost"):
            return None
        rest = slash + rest
    name = unquote(rest)
    return base / name if name and "\0" not in name else None


SCHEMES = ("http://", "https://", "file:", "taxii+http://", "taxii+https://", "axfr://")


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
        if url.startswith("package:") and feed.id == ESSENTIAL:
            continue
        if not url.startswith(SCHEMES):
            problems.add(below(where, "url"), f"{url!r} is none of https:, http:, file:, taxii+https: and axfr:")
        for scheme, fmt in (("taxii+", "stix"), ("axfr:", "rpz")):
            if url.startswith(scheme) and feed.input.name != fmt:
                problems.add(below(where, "format"), f"must be {fmt!r}: that is what {scheme.rstrip('+')} gives")
    _connection_problems(feed, where, problems)
    if feed.tsig is not None and not feed.tsig.startswith(("env:", "file:")):
        problems.add(below(where, "tsig"), "names a key by env:VARIABLE or file:PATH, and never holds it")
    place = below(where, "format")
    if isinstance(feed.format, str) and not problems.choose(place, feed.format, get_args(FormatName), "format"):
        return
    spec = feed.input
    if spec.name in ("csv", "jsonl") and spec.value is None:
        problems.add(
            place,
            f'{spec.name} needs the column that holds the domain or address: {{ name = "{spec.name}", value = "…" }}',
        )
    if spec.name == "csv" and not spec.header and any(isinstance(value, str) for value in spec.values):
        problems.add(f"{place}.value", "names a column, but header = false; give its number, from 1")
    if len(spec.delimiter.encode()) != 1 or spec.delimiter in '"\r\n' or spec.delimiter == spec.quote:
        problems.add(f"{place}.delimiter", "is not one ASCII character that may separate columns")
    if spec.quote and (len(spec.quote.encode()) != 1 or spec.quote in " \t\r\n"):
        problems.add(f"{place}.quote", "is neither empty nor one ASCII character")
    for pointer in spec.pointers:
        if pointer and not pointer.startswith("/"):
            problems.add(f"{place}.pointer", f"{pointer!r} is no pointer into JSON (RFC 6901): it begins with a slash")


def _connection_problems(feed: Feed, where: str, problems: Problems) -> None:
    for url in (*feed.urls, *feed.mirrors):
        if secret := _secret_in(url):
            problems.add(
                below(where, "url"),
                f"holds a secret ({secret}), and this file is no place for one; name it: "
                'auth = { name = "…", basic = true } or { name = "…", query = "…" }',
            )
    if any(PLACEHOLDER in url for url in feed.mirrors):
        problems.add(below(where, "mirrors"), f"holds {PLACEHOLDER}; a key goes to the feed's own URL only")
    if feed.proxy is not None:
        problems.check(below(where, "proxy"), check_proxy, feed.proxy)
    if feed.member is not None and feed.packed in ("none", "gzip", "zstd"):
        problems.add(below(where, "member"), f'names a file of an archive, and packed = "{feed.packed}" is none')
    place = below(where, "auth")
    placed = any(PLACEHOLDER in url for url in feed.urls)
    if feed.auth is None:
        if placed:
            problems.add(place, f'is missing, and the URL holds {PLACEHOLDER}: auth = {{ name = "…" }}')
        return
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,63}", feed.auth.name):
        problems.add(below(place, "name"), "is not a secret's name: lower-case letters, digits, '-' and '_'")
    ways = [feed.auth.header is not None, feed.auth.bearer, feed.auth.basic, feed.auth.query is not None, placed]
    if sum(ways) != 1:
        problems.add(
            place,
            f"must say how the secret is sent, in one way: header, bearer, basic, query, or {PLACEHOLDER} in the URL",
        )
    if feed.auth.header is not None and not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", feed.auth.header):
        problems.add(below(place, "header"), "is not the name of a header")


# Names of query fields that hold keys in the URLs that publishers hand out.
_KEY_FIELD = re.compile(r"(?:(?:api|auth|access|private|download)[-_]?)?(?:key|token|secret|password|passwd)")


def _secret_in(url: str) -> str | None:
    """What in `url` is a secret, in words that do not hold it; None when nothing is."""
    try:
        parts = urlsplit(url)
        if parts.password and parts.password != PLACEHOLDER:
            return "a password"
    except ValueError:
        return None
    for field in parts.query.split("&"):
        name, _, value = field.partition("=")
        if _KEY_FIELD.fullmatch(name.lower()) and value not in ("", PLACEHOLDER):
            return f"the value of '{name}'"
    return None


def check_proxy(text: str) -> None:
    """Raises ValueError with a sentence for the user when `text` is not a proxy setting."""
    if text in ("direct", "environment"):
        return
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        plain = parts.path in ("", "/") and not parts.query and not parts.fragment
    except ValueError:
        good = plain = False
    if "@" in text:
        raise ValueError("holds a user; name the secret user:password with proxy_auth in [fetch]")
    if not good or not plain:
        raise ValueError(f'{text!r} is not a proxy: "direct", "environment" or http://proxy.example:3128')


@functools.cache
def _builtin_files() -> dict[str, Path]:
    files = sorted(folder_of("blocklist.feeds").glob("*.toml"), key=lambda file: file.name)
    return {file.stem: file for file in files if file.name != SETS_FILE}


def _builtin_place(feed_id: str) -> str:
    return f"feeds/{feed_id}.toml"


@functools.cache
def builtin_table(feed_id: str) -> Mapping[str, Any]:
    """The raw table of a feed that the package carries."""
    return tomllib.loads(_builtin_files()[feed_id].read_text("utf-8"))


def builtin_ids() -> Collection[str]:
    """Ids of the feeds that the package carries, in the order of their files."""
    return _builtin_files().keys()


def builtin_descriptors() -> tuple[tuple[str, str, Mapping[str, Any]], ...]:
    """`(id, file, raw table)` of every feed that the package carries."""
    return tuple((feed_id, _builtin_place(feed_id), builtin_table(feed_id)) for feed_id in _builtin_files())


class Catalog(Mapping[str, Feed]):
    """All feeds by id: those of the package, read when first asked for (of 130, few are in use), and `own`.

    `own` are the operator's, and those of the package in which he overrides something; `broken` are left out.
    """

    def __init__(self, own: Mapping[str, Feed], broken: Collection[str] = ()) -> None:
        self.own = own
        self._read = dict(own)
        self._ids = dict.fromkeys(feed_id for feed_id in (*_builtin_files(), *own) if feed_id not in broken)

    def __getitem__(self, feed_id: str) -> Feed:
        if feed_id not in self._read:
            if feed_id not in self._ids:
                raise KeyError(feed_id)
            problems = Problems()
            feed = decode_feed(feed_id, _builtin_place(feed_id), builtin_table(feed_id), problems)
            assert feed is not None and not problems.lines, problems.lines
            self._read[feed_id] = feed
        return self._read[feed_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, feed_id: object) -> bool:
        return feed_id in self._ids

    def starters(self) -> list[str]:
        """Ids of the feeds that say they are `enabled` where nothing is chosen; others are not decoded for it."""
        return [i for i in self._ids if (i in self._read or _may_start(i)) and self[i].enabled]


_ENABLED = re.compile(rb"^enabled *= *true", re.MULTILINE)


def _may_start(feed_id: str) -> bool:
    return _ENABLED.search(_builtin_files()[feed_id].read_bytes()) is not None


def folder_descriptors(folder: Path, problems: Problems) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The same for the operator's `feeds.d/`."""
    if not folder.is_dir():
        return
    for path in sorted(folder.glob("*.toml")):
        try:
            yield path.stem, f"feeds.d/{path.name}", tomllib.loads(read_regular(path).decode())
        except UnicodeDecodeError:
            problems.add(f"feeds.d/{path.name}", "is not UTF-8 text")
        except NotAFileError as error:
            problems.add(f"feeds.d/{path.name}", error.what)
        except OSError as error:
            problems.add(f"feeds.d/{path.name}", f"can't be read: {(error.strerror or str(error)).lower()}")
        except tomllib.TOMLDecodeError as error:
            problems.add(f"feeds.d/{path.name}", f"can't be read: {error}")
        except RecursionError:
            problems.add(f"feeds.d/{path.name}", "can't be read: too many brackets within brackets")


def tlp_level(text: str) -> str:
    """A marking in the words of TLP 2.0, which calls clear what TLP 1.0 called white; other text as it is."""
    level = text.strip().lower().removeprefix("tlp:").strip()
    return "clear" if level == "white" else level


def decode_feed(feed_id: str, where: str, raw: Mapping[str, Any], problems: Problems) -> Feed | None:
    """A raw table as a Feed, or None with the problems appended."""
    table = dict(raw)
    if isinstance(tlp := table.get("tlp"), str):
        table["tlp"] = tlp_level(tlp)
    if "id" in table:
        problems.add(below(where, "id"), "is given by the file's or table's name; remove the key")
        return None
    feed = decode(table, Feed, where, problems)
    if feed is None:
        return None
    feed = msgspec.structs.replace(feed, id=feed_id)
    problems_of(feed, where, problems)
    return feed
