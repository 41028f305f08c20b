"""The catalogue of targets: TOML descriptors of the package and of `exporters.d/`, validated."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import msgspec

from blocklist.decode import Problems, decode
from blocklist.errors import ConfigError
from blocklist.publish import options as opts

Kind = Literal["domain", "ipv4", "ipv6", "url"]
Code = Literal["rpz", "nftables", "ipset", "csv", "jsonl"]
CODES: tuple[str, ...] = get_args(Code)

_TEMPLATES = ("suffix", "exact", "allow_suffix", "allow_exact", "network", "url")
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_FILE_NAME = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")


class Format(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """A target syntax. Keys as in docs/exporters.md; `name` is the file's.

    `suffix`, `exact`, `allow_suffix`, `allow_exact`, `network`, `url` are the lines of one entry, with
    `{name}` where it goes. A template that is absent means that the target can't say it; a format written
    in `code` says with `scopes` and `allow` what it can. `header` and `footer` are Jinja frames that see
    `options`, `serial`, `title` and `entries`. `unwritable` is a pattern of names that the target would
    read as something else.
    """

    name: str = ""
    title: str
    kinds: list[Kind]
    suffix: str | None = None
    exact: str | None = None
    allow_suffix: str | None = None
    allow_exact: str | None = None
    network: str | None = None
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

    @property
    def takes_subtree(self) -> bool:
        """Can the target block a name with everything below it in one entry?"""
        return self.suffix is not None or "subtree" in self.scopes

    @property
    def takes_exact(self) -> bool:
        """Can the target block a name and leave what is below it alone?"""
        return self.exact is not None or "exact" in self.scopes

    @property
    def takes_allow(self) -> bool:
        """Can the target let a name through that an entry above it blocks?"""
        if self.allow is not None:
            return self.allow
        return self.allow_suffix is not None or self.allow_exact is not None

    def settle(self, given: Mapping[str, object], place: str = "options") -> dict[str, Any]:
        """`given` with the defaults of the rest. Raises ConfigError with a line for every mistake."""
        problems = Problems()
        values = opts.resolve(self.options, given, place, problems)
        if not problems.lines and self.code == "rpz":
            from blocklist.publish import rpz

            rpz.judge(values, place, problems)
        if problems.lines:
            raise ConfigError(
                "\n".join(problems.lines), hint=f"options of {self.name}: {', '.join(self.options) or 'none'}"
            )
        return values


def load(path: Path) -> Format:
    """The descriptor in a file of the operator's. Raises ConfigError naming the file and the key."""
    return _read(path, str(path))


def builtin() -> dict[str, Format]:
    """Every format of the package by its name, in the order of the names."""
    folder = resources.files("blocklist.exporters")
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".toml")), key=lambda file: file.name)
    return {file.name.removesuffix(".toml"): _read(file, f"exporters/{file.name}") for file in files}


def catalogue(folder: Path | None = None) -> dict[str, Format]:
    """The formats of the package and those of `folder`, which may not take a name of the package."""
    formats = builtin()
    for path in sorted(folder.glob("*.toml")) if folder is not None and folder.is_dir() else ():
        found = load(path)
        if found.name in formats:
            raise ConfigError(f"{path}: {found.name!r} is a format of the package", hint="give the file another name")
        formats[found.name] = found
    return formats


def abilities(names: Collection[str], folder: Path | None = None) -> dict[str, Format]:
    """The formats of `names` that exist, for who asks only what they can say: frames are not compiled.

    With few names and no Jinja it takes a tenth of the time of `catalogue`.
    """
    package = resources.files("blocklist.exporters")
    found = {}
    for name in sorted(set(names)):
        own, ours = folder / f"{name}.toml" if folder is not None else None, package / f"{name}.toml"
        if ours.is_file():
            found[name] = _read(ours, f"exporters/{name}.toml", frames=False)
        elif own is not None and own.is_file():
            found[name] = _read(own, str(own), frames=False)
    return found


def _read(file: Path | Traversable, place: str, *, frames: bool = True) -> Format:
    try:
        text = file.read_text(encoding="utf-8")
        table = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"{place}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{place}: is not TOML: {error}") from error
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
        if _PLACEHOLDER.findall(text).count("name") == 0:
            problems.add(f"{place}: {key}", "has no {name}")
        if unknown := set(_PLACEHOLDER.findall(text)) - {"name"}:
            problems.add(f"{place}: {key}", f"unknown placeholder {{{min(unknown)}}}; the only one is {{name}}")
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
        for word in _PLACEHOLDER.findall(" ".join(words)):
            if word not in known:
                problems.add(f"{place}: {key}", f"unknown placeholder {{{word}}}")
    if found.wrapper and "{wrapper}" not in found.check:
        problems.add(f"{place}: wrapper", "is not used: 'check' has no {wrapper}")
    if found.code is None and not templates:
        problems.add(place, "has neither 'code' nor a line for any kind")
    if found.code is not None and templates:
        problems.add(f"{place}: {min(templates)}", "a format written in code has no lines")
    _judge_pattern(found, place, problems)
    if frames:
        _judge_frames(found, place, problems)


def _judge_pattern(found: Format, place: str, problems: Problems) -> None:
    try:
        re.compile(found.unwritable or "")
    except re.error as error:
        problems.add(f"{place}: unwritable", f"does not compile: {error}")


def _judge_frames(found: Format, place: str, problems: Problems) -> None:
    if not any(mark in found.header + found.footer for mark in ("{{", "{%", "{#")):
        return  # Jinja takes 40 ms to import
    from jinja2 import TemplateError

    from blocklist.publish.frame import compile_frame

    for key in ("header", "footer"):
        try:
            compile_frame(getattr(found, key))
        except TemplateError as error:
            problems.add(f"{place}: {key}", str(error))
