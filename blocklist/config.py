"""`blocklist.toml` as frozen, validated objects; with no file, defaults that do something useful."""

from __future__ import annotations

import errno
import os
import re
import stat
import tomllib
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from blocklist.catalog import (
    CATEGORIES,
    ESSENTIAL,
    KINDS,
    Audience,
    Catalog,
    Category,
    Feed,
    Kind,
    Percent,
    builtin_ids,
    builtin_table,
    check_proxy,
    decode_feed,
    folder_descriptors,
    local_file,
)
from blocklist.decode import Problems, below, decode
from blocklist.errors import ConfigError
from blocklist.names import RejectedError, normalize_name
from blocklist.person import running_as
from blocklist.quantities import parse_duration, parse_size
from blocklist.regular import NotAFileError, read_regular
from blocklist.select.address import parse_one
from blocklist.sets import expand
from blocklist.verify.endpoint import parse_resolver

FILE = "blocklist.toml"
_SECRET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
# Of a split export: the file of what no feed lists (a person's deny, or what is left of a listed network that a rule
# cut), and the one that says why.
RULE = "rule"
REASONS = "reasons"


_ESSENTIAL_STAYS = "is the built-in list of names that must never be blocked; [protect] essential = false turns it off"


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of the tables below: unknown keys are mistakes."""


class Protect(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The operator's own: never blocked, nor anything that would cover it. `essential`: the built-in list too."""

    domains: list[str] = []
    networks: list[str] = []
    essential: bool = True


class Control(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Names for the pre-flight: these must exist; a random name below `missing` must not.

    `canaries` exist as well, and this list blocks them: a resolver that denies one loads this very list.
    """

    exists: list[str] = msgspec.field(default_factory=lambda: ["example.com"])
    missing: str = "com"
    canaries: list[str] = []


class Verify(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """DNS verification. `rate` is queries a second, each resolver, over all `processes`.

    Without resolvers nothing is asked.
    """

    resolvers: list[str] = []
    rate: Annotated[int, msgspec.Meta(gt=0)] = 2000
    timeout: Annotated[float, msgspec.Meta(gt=0, le=60)] = 2.0
    attempts: Annotated[int, msgspec.Meta(ge=1, le=10)] = 3
    budget: str = "10m"
    limit: int | None = None
    processes: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    control: Control = Control()


class Policy(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which listings an export takes.

    `guards`: for listings of a category, the only reference feeds whose names hold them, besides the essential list.
    `dead`, `sinkholed`, `parked`: what becomes of names with such a verdict. `audience`: beyond the house, what a
    source forbids to pass on is left out. `mode`: a shadow decides, and writes nothing.
    """

    categories: list[Category] = msgspec.field(
        default_factory=lambda: [
            "attack-source",
            "c2",
            "malware",
            "phishing",
            "scam",
            "disinformation",
            "sanctioned-media",
            "cryptojacking",
            "stalkerware",
        ]
    )
    feeds: list[str] | None = None
    kinds: list[Kind] = msgspec.field(default_factory=lambda: ["domain", "ipv4", "ipv6", "url"])
    min_confidence: Percent = 50
    dead: Literal["keep", "drop"] = "keep"
    sinkholed: Literal["keep", "drop"] = "keep"
    parked: Literal["keep", "drop"] = "keep"
    widen: bool = True
    guards: dict[str, list[str]] = {}
    audience: Audience = "house"
    mode: Literal["live", "shadow"] = "live"

    @property
    def drops(self) -> tuple[str, ...]:
        """Verdicts whose names are left out: of `dead`, `sinkholed`, `parked`."""
        asked = {"dead": self.dead, "sinkholed": self.sinkholed, "parked": self.parked}
        return tuple(verdict for verdict, what in asked.items() if what == "drop")


class Export(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One configured output: a format, a policy, a path, options, how to check and load it, how it is delivered.

    `primary`: the name server that serves the zone; `tsig` names a secret, `hmac-sha256:NAME:SECRET`; `probe`: engines.
    """

    name: str = ""
    format: str
    path: str
    policy: str = "default"
    kinds: list[Kind] | None = None
    options: dict[str, str | int | float | bool | list[str]] = {}
    check: Literal["auto"] | bool = "auto"
    reload: list[str] = []
    reload_timeout: str = "60s"
    allow_empty: bool = False
    min_entries: int = 0
    max_entries: Annotated[int, msgspec.Meta(ge=1)] | None = None
    max_bytes: str | None = None
    model: str | None = None
    fit: Literal["hold", "rank"] = "hold"
    split: Literal["category"] | None = None
    mode: str | None = None
    owner: str | None = None
    group: str | None = None
    follow_link: bool = False
    delivery: Literal["file", "rfc2136", "knot"] = "file"
    primary: str | None = None
    tsig: str | None = None
    socket: str = "/run/knot/knot.sock"
    notify: list[str] = []
    delivery_timeout: str = "120s"
    probe: list[str] = []


class Gates(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a new release is held for a person: it would change more than this share of so many entries."""

    max_change: Annotated[float, msgspec.Meta(gt=0)] = 0.30
    min_size: int = 100


class Keep(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Retention."""

    snapshots: str = "90d"
    history: str = "400d"
    releases: str = "90d"


class Fetch(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Manners of the fetcher. `contact` goes into the User-Agent, so that a publisher can write to you.

    `proxy`: "direct", "environment" (HTTPS_PROXY, HTTP_PROXY, NO_PROXY) or a URL; `proxy_auth` names the secret
    `user:password`. `ca_file` is trusted besides the public authorities.
    """

    contact: str = ""
    proxy: str = "direct"
    proxy_auth: str | None = None
    ca_file: str | None = None
    per_host: Annotated[int, msgspec.Meta(ge=1, le=16)] = 2
    at_once: Annotated[int, msgspec.Meta(ge=1, le=64)] = 16
    connect: str = "10s"
    idle: str = "20s"
    total: str = "300s"


class _Feeds(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ids and `set:NAME`; what `disable` names is not used, whatever enables it."""

    enable: list[str] | None = None
    disable: list[str] = []


class _File(_Table, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file, as typed; tables of free names are decoded one by one."""

    state: str = "var"
    feeds: _Feeds = _Feeds()
    feed: dict[str, dict[str, Any]] = {}
    protect: Protect = Protect()
    verify: Verify = Verify()
    policy: dict[str, dict[str, Any]] = {}
    export: dict[str, dict[str, Any]] = {}
    gates: Gates = Gates()
    keep: Keep = Keep()
    fetch: Fetch = Fetch()


class Config(msgspec.Struct, frozen=True):
    """Everything a run needs to know. `feeds` holds the enabled ones; `catalog` all that are known."""

    path: Path | None
    base: Path
    state: Path
    feeds: Mapping[str, Feed]
    catalog: Catalog
    protect: Protect
    verify: Verify
    policies: Mapping[str, Policy]
    exports: Mapping[str, Export]
    gates: Gates
    keep: Keep
    fetch: Fetch

    @property
    def formats_folder(self) -> Path:
        return self.base / "exporters.d"

    @property
    def protected_networks(self) -> list[str]:
        """`[protect]` and the resolvers that this tool itself asks."""
        own = list(self.protect.networks)
        for resolver in self.verify.resolvers:
            host = resolver[1:].partition("]")[0] if resolver.startswith("[") else resolver
            own.append(host.partition(":")[0] if host.count(":") == 1 else host)
        return own


def find(explicit: Path | None = None) -> Path | None:
    """The file to use: `explicit`, `$BLOCKLIST_CONFIG`, `./blocklist.toml`, the user's, the system's; or None."""
    named = explicit or (Path(p) if (p := os.environ.get("BLOCKLIST_CONFIG")) else None)
    if named is not None:
        path = named / FILE if named.is_dir() else named
        if not path.exists():
            raise ConfigError(f"{path}: no such file", hint="write one with 'blocklist init'")
        return path
    user = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "blocklist" / FILE
    return next((p for p in (Path(FILE), user, Path("/etc/blocklist") / FILE) if p.exists()), None)


def load(explicit: Path | None = None) -> Config:
    """The configuration in force. Raises ConfigError with every mistake found, a line each."""
    path = find(explicit)
    if path is None:
        base = _data_home() / "blocklist"
        _refuse_strangers(base)
        return _resolve(_defaults(), None, base, Problems())
    _refuse_strangers(path, path.parent)
    return parse(read(path), path)


def read(path: Path) -> str:
    """The text of a configuration. Raises ConfigError."""
    try:
        return read_regular(path).decode("utf-8-sig")  # editors of Windows put a mark at its beginning
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text") from None
    except NotAFileError as error:
        raise ConfigError(f"{path} {error.what}", hint="move it away, or write one with 'blocklist init'") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None


def parse(text: str, path: Path) -> Config:
    """The configuration that `text` would be at `path`. Raises ConfigError with every mistake found."""
    problems = Problems()
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}", hint="TOML syntax: https://toml.io") from None
    except RecursionError:
        raise ConfigError(f"{path}: can't be read: too many brackets within brackets") from None
    _refuse_nul(raw, "", problems)
    if problems.lines:
        raise _error(path, problems)
    decoded = decode(raw, _File, "", problems)
    if decoded is None:
        # Go on with the tables that are sound, so that the mistakes in the others are told in the same breath.
        sound = {key: value for key, value in raw.items() if decode({key: value}, _File, "", Problems()) is not None}
        decoded = msgspec.convert(sound, _File)
    return _resolve(decoded, path, path.parent.resolve(), problems)


def _refuse_nul(value: object, place: str, problems: Problems) -> None:
    """No text of a configuration may hold a NUL: it ends paths and words of commands for the system."""
    if isinstance(value, dict):
        for key, item in value.items():
            _refuse_nul(key, below(place, "a key"), problems)
            _refuse_nul(item, below(place, key), problems)
    elif isinstance(value, list):
        for item in value:
            _refuse_nul(item, place, problems)
    elif isinstance(value, str) and "\0" in value:
        problems.add(place, "holds a NUL character")


def _data_home() -> Path:
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")


def _defaults() -> _File:
    """What runs with no file: the starter feeds, and three exports beside the record."""
    return _File(
        state=".",
        export={
            "dns": {"format": "rpz", "path": "exports/blocklist.rpz"},
            "fw": {"format": "nftables", "path": "exports/blocklist.nft"},
            "proxy": {"format": "squid", "path": "exports/blocklist.squid"},
        },
    )


def _error(path: Path | None, problems: Problems) -> ConfigError:
    where = str(path) if path else "built-in defaults"
    # A file of `feeds.d/` is its own place.
    lines = [
        str(path.parent / line) if path and line.startswith("feeds.d/") else f"{where}: {line}"
        for line in problems.lines
    ]
    return ConfigError("\n".join(lines), hint="nothing was run; mend these and run the command again")


def _refuse_strangers(*paths: Path) -> None:
    """Refuse what another user could have written: configuration names commands that will be run.

    Each of `paths`, the folder that really holds it, and the descriptors beside it.
    """
    items = [item for path in paths for item in (path, path.resolve(), path.resolve().parent)]
    for folder in (paths[-1] / "feeds.d", paths[-1] / "exporters.d"):
        items += (folder, *folder.glob("*.toml"))
    for item in dict.fromkeys(items):
        try:
            status = item.stat()
        except OSError:
            continue
        if status.st_uid not in (0, os.geteuid()):
            raise ConfigError(
                f"{item} belongs to user {status.st_uid}, not to you or root; its commands are not run",
                hint=f"inspect it, then 'chown {running_as()} {item}'",
            )
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not status.st_mode & stat.S_ISVTX:
            raise ConfigError(
                f"{item} may be written by others (mode {stat.S_IMODE(status.st_mode):o}); its commands are not run",
                hint=f"inspect it, then 'chmod go-w {item}'",
            )


def _resolve(file: _File, path: Path | None, base: Path, problems: Problems) -> Config:
    # Of what the package carries, only what is overridden; the catalogue reads the others when they are asked for.
    raw: dict[str, tuple[str, Mapping[str, Any]]] = {}
    builtin = builtin_ids()
    for feed_id, place, table in folder_descriptors(base / "feeds.d", problems):
        if feed_id == ESSENTIAL:
            problems.add(place, _ESSENTIAL_STAYS)
        else:
            raw[feed_id] = (place, table)
    own = set(file.feed) - set(raw) - set(builtin)
    for feed_id, table in file.feed.items():
        if feed_id == ESSENTIAL:
            problems.add(f"feed.{feed_id}", _ESSENTIAL_STAYS)
        elif feed_id in raw:
            raw[feed_id] = (f"feed.{feed_id}", {**raw[feed_id][1], **table})
        elif feed_id in builtin:
            raw[feed_id] = (f"feed.{feed_id}", {**builtin_table(feed_id), **table})
        else:
            raw[feed_id] = (f"feed.{feed_id}", {"title": feed_id, "min_interval": "0", **table})
    known = list(dict.fromkeys([*builtin, *raw]))
    decoded = {i: decode_feed(i, *raw[i], problems) for i in known if i in raw}
    sound = {feed_id: feed for feed_id, feed in decoded.items() if feed is not None}
    catalog = Catalog(sound, decoded.keys() - sound.keys())
    for feed_id in raw:
        if not feed_id.replace("-", "").replace("_", "").isalnum() or not feed_id.isascii():
            problems.add(f"feed.{feed_id}", "a feed's id has only letters, digits, '-' and '_'")
    enable = ["set:starter"] if file.feeds.enable is None else file.feeds.enable
    enabled = expand(enable, catalog, known, "feeds.enable", problems)
    disabled = set(expand(file.feeds.disable, catalog, known, "feeds.disable", problems))
    if ESSENTIAL in disabled:
        problems.add("feeds.disable", f"{ESSENTIAL} {_ESSENTIAL_STAYS}")
    if file.protect.essential:
        enabled.insert(0, ESSENTIAL)
    else:
        disabled.add(ESSENTIAL)
    wanted = [i for i in dict.fromkeys([*enabled, *sorted(own)]) if i in catalog and i not in disabled]

    policies: dict[str, Policy] = {}
    for name, table in ({"default": {}} | file.policy).items():
        if (policy := decode(table, Policy, f"policy.{name}", problems)) is not None:
            policies[name] = policy
            for feed_id in policy.feeds or ():
                problems.choose(f"policy.{name}.feeds", feed_id, known, "feed")
            for category, ids in policy.guards.items():
                problems.choose(f"policy.{name}.guards", category, CATEGORIES, "category")
                _check_guards(f"policy.{name}.guards.{category}", ids, known, catalog, problems)
    exports: dict[str, Export] = {}
    for name, table in file.export.items():
        if (export := decode(table, Export, f"export.{name}", problems)) is not None:
            exports[name] = msgspec.structs.replace(export, name=name)
            problems.choose(f"export.{name}.policy", export.policy, {"default", *file.policy}, "policy")
            problems.check(f"export.{name}.reload_timeout", parse_duration, export.reload_timeout)
            if export.max_bytes is not None:
                problems.check(f"export.{name}.max_bytes", parse_size, export.max_bytes)
            if export.mode is not None and (len(export.mode) not in (3, 4) or set(export.mode) - set("01234567")):
                problems.add(f"export.{name}.mode", "is not an octal mode such as '0644'")
            _check_delivery(export, f"export.{name}", problems)
    state = _real(base / file.state, "state", problems)
    places = _places(path, base, state, sound.values())
    _check_paths(exports, policies, base, state, places, problems)
    _check_values(file, problems)
    if problems.lines:
        raise _error(path, problems)
    return Config(
        path=path,
        base=base,
        state=state,
        feeds={i: catalog[i] for i in wanted},
        catalog=catalog,
        protect=Protect(
            domains=[normalize_name(d) for d in file.protect.domains],
            networks=list(file.protect.networks),
            essential=file.protect.essential,
        ),
        verify=file.verify,
        policies=policies,
        exports=exports,
        gates=file.gates,
        keep=file.keep,
        fetch=file.fetch,
    )


def _check_guards(place: str, ids: list[str], known: Collection[str], catalog: Catalog, problems: Problems) -> None:
    for feed_id in ids:
        if problems.choose(place, feed_id, known, "feed") and feed_id in catalog and not catalog[feed_id].is_reference:
            problems.add(place, f"{feed_id} is no reference feed, so it guards nothing")


LOCAL_SETS = ("nftables", "ipset")
_PROXY = re.compile(r"http://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}/?")


def _check_delivery(export: Export, place: str, problems: Problems) -> None:
    problems.check(f"{place}.delivery_timeout", parse_duration, export.delivery_timeout)
    asked = [("primary", [export.primary] if export.primary else []), ("notify", export.notify)]
    others = [engine for engine in export.probe if engine not in LOCAL_SETS]
    asked.append(("probe", [engine for engine in others if not engine.startswith("http:")]))
    for proxy in others:
        if proxy.startswith("http:") and not _PROXY.fullmatch(proxy):
            problems.add(f"{place}.probe", f"{proxy!r} is no proxy; write 'http://192.0.2.7:3128'")
    for key, texts in asked:
        for text in texts:
            try:
                parse_resolver(text)
            except ConfigError as error:
                problems.add(f"{place}.{key}", error.message)
    if export.delivery != "file" and export.primary is None:
        problems.add(f"{place}.primary", f"is missing: delivery = {export.delivery!r} asks it which serial it serves")
    if export.tsig is not None and not _SECRET_NAME.fullmatch(export.tsig):
        problems.add(f"{place}.tsig", "names a secret by letters, digits, '-' and '_', and never holds it")
    for key in ("tsig", "notify"):
        if getattr(export, key) and export.primary is None:
            problems.add(f"{place}.{key}", "goes with 'primary'")


def split_names(path: Path, categories: Collection[str]) -> dict[str, Path]:
    """The files of a split export by category: `lists/dns.rpz` gives `lists/dns-malware.rpz`, and the reasons.

    Every category has one, in the order of the catalogue, then what no feed lists.
    """
    found = {
        c: path.with_name(f"{path.stem}-{c}{path.suffix}") for c in (*CATEGORIES, RULE) if c in (*categories, RULE)
    }
    return {**found, REASONS: path.with_name(f"{path.stem}-{REASONS}.jsonl")}


def _real(path: Path, place: str, problems: Problems) -> Path:
    """Where `path` leads through links; a line in `problems` where that is nowhere."""
    try:
        return path.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        # Up to Python 3.12 a loop is a RuntimeError; from 3.13 on it is one for `strict` alone, and with its number.
        if isinstance(error, OSError) and error.errno != errno.ELOOP:
            return path.resolve()
    problems.add(place, f"{path} is a link that leads to itself")
    return path


# What the record keeps beside itself (docs/record.md); of `exports` the names of its own files alone, since published
# files may lie in there too.
_OF_STATE = ("snapshots", "columns", "kept", "decided", "approved", "cases", "delivery", "incoming", "lock")


def _places(path: Path | None, base: Path, state: Path, own: Iterable[Feed]) -> dict[Path, str]:
    """Files and folders that no published file may replace or lie in, and what each is.

    `own`: feeds that may be read from a file, as none of the package is.
    """
    places = {(base / name).resolve(): f"in {name}/" for name in ("feeds.d", "exporters.d", "secrets")}
    places |= {state / name: f"in {state}, among what the record keeps there" for name in _OF_STATE}
    if path is not None:
        places[path.resolve()] = "this configuration"
    for feed in own:
        for url in (*feed.urls, *feed.mirrors):
            if (source := local_file(url, base)) is not None:
                with suppress(OSError, RuntimeError):
                    places[source.resolve()] = f"what the feed {feed.id} is read from"
    return places


def _in_the_way(target: Path, state: Path, places: Mapping[Path, str]) -> str | None:
    """What a published file at `target` would replace or mix with."""
    if target.parent == state and target.name.startswith("record"):
        return "the record, or a copy of it"
    if target.parent == state / "exports" and target.suffix in (".frames", ".base"):
        return f"in {state}, among what the record keeps there"
    return next((what for at in (target, *target.parents) if (what := places.get(at)) is not None), None)


def _check_paths(
    exports: Mapping[str, Export],
    policies: Mapping[str, Policy],
    base: Path,
    state: Path,
    places: Mapping[Path, str],
    problems: Problems,
) -> None:
    seen: dict[Path, str] = {}
    for name, export in exports.items():
        policy = policies.get(export.policy)
        path = base / export.path
        files = [path] if export.split is None or policy is None else split_names(path, policy.categories).values()
        for target in files:
            real = _real(target, f"export.{name}.path", problems)
            whose = "is" if target == path else f"gives {target.name}, which is"
            if (other := seen.setdefault(real, name)) != name:
                problems.add(f"export.{name}.path", f"{whose} the path of export {other!r} too")
                break
            if (what := _in_the_way(real, state, places)) is not None:
                problems.add(f"export.{name}.path", f"{whose} {what}")
                break


def _check_values(file: _File, problems: Problems) -> None:
    for i, domain in enumerate(file.protect.domains):
        try:
            normalize_name(domain)
        except RejectedError as error:
            problems.add(f"protect.domains[{i}]", f"{domain!r} is not a domain ({error.reason})")
    for i, network in enumerate(file.protect.networks):
        if parse_one(network) is None:
            problems.add(f"protect.networks[{i}]", f"{network!r} is not an address or network")
    for i, resolver in enumerate(file.verify.resolvers):
        try:
            parse_resolver(resolver)
        except ConfigError as error:
            problems.add(f"verify.resolvers[{i}]", error.message)
    for key in ("snapshots", "history", "releases"):
        problems.check(f"keep.{key}", parse_duration, getattr(file.keep, key))
    for key in ("connect", "idle", "total"):
        problems.check(f"fetch.{key}", parse_duration, getattr(file.fetch, key))
    problems.check("fetch.proxy", check_proxy, file.fetch.proxy)
    problems.check("verify.budget", parse_duration, file.verify.budget)


__all__ = [
    "CATEGORIES",
    "FILE",
    "KINDS",
    "LOCAL_SETS",
    "Config",
    "Control",
    "Export",
    "Policy",
    "Protect",
    "Verify",
    "load",
    "parse",
    "read",
]
