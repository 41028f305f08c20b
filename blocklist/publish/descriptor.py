"""The catalogue of targets: TOML descriptors of the package and of `exporters.d/`, validated."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import msgspec

from blocklist.catalog import Kind
from blocklist.decode import Problems, decode
from blocklist.errors import ConfigError
from blocklist.packaged import folder_of
from blocklist.publish import options as opts
from blocklist.publish import zone_options
from blocklist.publish.frame import compile_frame, is_plain
from blocklist.publish.placeholders import PLACEHOLDER, WORDS
from blocklist.regular import NotAFileError, read_regular

Code = Literal["rpz", "nftables", "ipset", "csv", "jsonl", "stix", "misp", "parquet"]
Group = Literal["dns", "firewall", "proxy", "sensor", "mail", "cloud", "data", "own"]
GROUPS: tuple[Group, ...] = get_args(Group)

# Formats made of the unfolded rows, not of folded entries.
_OF_ROWS = ("csv", "jsonl", "stix", "misp", "parquet")
# The lines of a descriptor, and the kind of value that each is made of.
_TEMPLATES = {
    **dict.fromkeys(("suffix", "below", "exact", "allow_suffix", "allow_below", "allow_exact"), "domain"),
    **dict.fromkeys(("network", "network4", "network6", "address", "inbound", "outbound"), "network"),
    "url": "url",
}
_FILE_NAME = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")


class Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """What devices of one range take; `title` says which these are."""

    title: str = ""
    max_entries: Annotated[int, msgspec.Meta(ge=1)] | None = None
    max_bytes: Annotated[int, msgspec.Meta(ge=1)] | None = None


class Format(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """A target syntax. Keys as in docs/exporters.md; `name` is the file's.

    `suffix`, `below`, `exact` and so on to `url` are the lines of one entry, with `{name}` where it goes (and
    what else `blocklist.publish.placeholders` names). A template that is absent means that the target can't say
    it; a format written in `code` says with `scopes` and `allow` what it can. `header` and `footer` are Jinja
    frames that see `options`, `serial`, `title` and `entries`. `unwritable` is a pattern of lines that the
    target would read as something else. `document` are the addresses of the pages that decide the syntax;
    `max_entries` and `max_bytes` are the least that any device of the target takes, `models` what those of a range do.
    `load` shows how the target is made to read the file, `limits` what it takes.
    """

    name: str = ""
    title: str
    group: Group = "own"
    kinds: list[Kind]
    suffix: str | None = None
    below: str | None = None
    exact: str | None = None
    allow_suffix: str | None = None
    allow_below: str | None = None
    allow_exact: str | None = None
    network: str | None = None
    network4: str | None = None
    network6: str | None = None
    address: str | None = None
    inbound: str | None = None
    outbound: str | None = None
    url: str | None = None
    scopes: list[Literal["subtree", "exact"]] = []
    allow: bool | None = None
    fold: bool = False
    unwritable: str | None = None
    header: str = ""
    footer: str = ""
    comment: str = ""
    options: dict[str, opts.Option] = {}
    code: Code | None = None
    check: list[str] = []
    check_counts: str = ""
    check_cannot: list[str] = []
    wrapper: str = ""
    reload: list[str] = []
    max_entries: Annotated[int, msgspec.Meta(ge=1)] | None = None
    max_bytes: Annotated[int, msgspec.Meta(ge=1)] | None = None
    models: dict[str, Model] = {}
    load: str = ""
    limits: str = ""
    document: list[str] = []

    @property
    def of_rows(self) -> bool:
        """Is the file made of the unfolded rows for people and tools of analysis?"""
        return self.code in _OF_ROWS

    @property
    def directed(self) -> bool:
        """Does the file keep inbound and outbound networks apart by itself?"""
        return self.code in ("nftables", "ipset", "rpz") or self.inbound is not None or self.outbound is not None

    @property
    def binary(self) -> bool:
        """Is the file no text?"""
        return self.code == "parquet"

    @property
    def takes_subtree(self) -> bool:
        """Can the target block a name with everything below it?"""
        pair = self.below is not None and self.exact is not None
        return self.suffix is not None or pair or "subtree" in self.scopes

    @property
    def takes_exact(self) -> bool:
        """Can the target block a name and leave what is below it alone?"""
        return self.exact is not None or "exact" in self.scopes

    @property
    def takes_allow(self) -> bool:
        """Can the target let a name through that an entry above it blocks?"""
        if self.allow is not None:
            return self.allow
        return (self.allow_suffix or self.allow_below or self.allow_exact) is not None

    def takes_addresses_alone(self, kind: str) -> bool:
        """Can the target say single addresses of `kind` (`ipv4`, `ipv6`) and no networks?"""
        network = (self.network4 if kind == "ipv4" else self.network6) or self.network
        return kind in self.kinds and self.address is not None and network is None and not self.directed

    def settle(self, given: Mapping[str, object], place: str = "options") -> dict[str, Any]:
        """`given` with the defaults of the rest. Raises ConfigError with a line for every mistake."""
        problems = Problems()
        values = opts.resolve(self.options, given, place, problems)
        if not problems.lines and self.code == "rpz":
            zone_options.judge(values, place, problems)
        if problems.lines:
            raise ConfigError(
                "\n".join(problems.lines), hint=f"options of {self.name}: {', '.join(self.options) or 'none'}"
            )
        return values


def load(path: Path) -> Format:
    """The descriptor in a file of the operator's. Raises ConfigError naming the file and the key."""
    return _read(path, str(path))


class Catalogue(Mapping[str, Format]):
    """Formats by name, in the order of the names; those of the package are read when first asked for."""

    def __init__(self, own: Mapping[str, Format]) -> None:
        folder = folder_of("blocklist.exporters")
        self._files = {f.name.removesuffix(".toml"): f for f in folder.iterdir() if f.name.endswith(".toml")}
        self._read = dict(own)
        self._names = sorted({*self._files, *own})

    def __getitem__(self, name: str) -> Format:
        if name not in self._read:
            self._read[name] = _read(self._files[name], f"exporters/{name}.toml")
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._read or name in self._files


def builtin() -> dict[str, Format]:
    """Every format of the package by its name, in the order of the names."""
    return dict(Catalogue({}))


def catalogue(folder: Path | None = None) -> Mapping[str, Format]:
    """The formats of the package and those of `folder`, which may not take a name of the package."""
    ours = Catalogue({})
    own: dict[str, Format] = {}
    for path in sorted(folder.glob("*.toml")) if folder is not None and folder.is_dir() else ():
        found = load(path)
        if found.name in ours:
            raise ConfigError(f"{path}: {found.name!r} is a format of the package", hint="give the file another name")
        own[found.name] = found
    return Catalogue(own) if own else ours


def abilities(names: Collection[str], folder: Path | None = None) -> dict[str, Format]:
    """The formats of `names` that exist, for who asks only what they can say: frames are not compiled.

    With few names and no Jinja it takes a tenth of the time of `catalogue`.
    """
    package = folder_of("blocklist.exporters")
    found = {}
    for name in sorted(set(names)):
        own, ours = folder / f"{name}.toml" if folder is not None else None, package / f"{name}.toml"
        if ours.is_file():
            found[name] = _read(ours, f"exporters/{name}.toml", frames=False)
        elif own is not None and own.is_file():
            found[name] = _read(own, str(own), frames=False)
    return found


def _read(file: Path, place: str, *, frames: bool = True) -> Format:
    try:
        table = tomllib.loads(read_regular(file).decode())
    except NotAFileError as error:
        raise ConfigError(f"{place} {error.what}", hint="move it away") from None
    except OSError as error:
        raise ConfigError(f"{place}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{place}: is not TOML: {error}") from error
    except RecursionError:
        raise ConfigError(f"{place}: can't be read: too many brackets within brackets") from None
    problems = Problems()
    name = file.name.removesuffix(".toml")
    if "name" in table:
        problems.add(f"{place}: name", "is not a key here: the name of a format is the name of its file")
    if _FILE_NAME.fullmatch(name) is None:
        problems.add(place, "a format's file is named in lower-case letters, digits and hyphens, and ends in .toml")
    found = decode(table, Format, place, problems)
    if found is not None:
        _judge(found, place, problems, frames=frames)
    if problems.lines or found is None:
        raise ConfigError("\n".join(problems.lines))
    return msgspec.structs.replace(found, name=name)


def _judge(found: Format, place: str, problems: Problems, *, frames: bool) -> None:
    templates = {key: text for key in _TEMPLATES if (text := getattr(found, key)) is not None}
    for key, text in templates.items():
        columns = WORDS[_TEMPLATES[key]]
        used = set(PLACEHOLDER.findall(text))
        if not used & set(columns):
            problems.add(f"{place}: {key}", "has no {name}")
        if unknown := used - set(columns) - set(found.options):
            there = ", ".join(f"{{{word}}}" for word in (*columns, *found.options))
            problems.add(f"{place}: {key}", f"unknown placeholder {{{min(unknown)}}}; there are {there}")
        if (
            not text.isascii()
            or not all(char.isprintable() or char in "\t\n" for char in text)
            or text != text.strip("\n")
        ):
            problems.add(f"{place}: {key}", "must be printable ASCII, with newlines between lines only")
    for option, declared in found.options.items():
        if (fault := opts.declared_faults(option, declared)) is not None:
            problems.add(f"{place}: options.{option}", fault)
    known = {"file", *found.options, *(["wrapper"] if found.wrapper else [])}
    for key, words in (("check", found.check), ("reload", found.reload)):
        for word in PLACEHOLDER.findall(" ".join(words)):
            if word not in known:
                problems.add(f"{place}: {key}", f"unknown placeholder {{{word}}}")
    if found.wrapper and "{wrapper}" not in found.check:
        problems.add(f"{place}: wrapper", "is not used: 'check' has no {wrapper}")
    if found.code is None and not templates:
        problems.add(place, "has neither 'code' nor a line for any kind")
    if found.code is not None and templates:
        problems.add(f"{place}: {min(templates)}", "a format written in code has no lines")
    for own, whole, alone in (("below", "suffix", "exact"), ("allow_below", "allow_suffix", "allow_exact")):
        if getattr(found, own) is not None and getattr(found, whole) is None and getattr(found, alone) is None:
            problems.add(
                f"{place}: {own}", f"covers what is below a name; the name itself needs {whole!r} or {alone!r}"
            )
    _judge_pattern(found, place, problems)
    if frames:
        _judge_frames(found, place, problems)


def _judge_pattern(found: Format, place: str, problems: Problems) -> None:
    try:
        re.compile(found.unwritable or "")
    except re.error as error:
        problems.add(f"{place}: unwritable", f"does not compile: {error}")


def _judge_frames(found: Format, place: str, problems: Problems) -> None:
    frames = {key: text for key in ("header", "footer") if not is_plain(text := getattr(found, key))}
    if not frames:
        return
    from jinja2 import TemplateError

    for key, text in frames.items():
        try:
            compile_frame(text)
        except TemplateError as error:
            problems.add(f"{place}: {key}", str(error))
