"""TOML tables into typed structs, strictly: every mistake is one line with its place and the nearest right name."""

from __future__ import annotations

import functools
import re
import typing
from collections.abc import Callable, Iterable, Mapping
from types import UnionType
from typing import Any, Literal, TypeVar

import msgspec

T = TypeVar("T")


class Problems:
    """Mistakes found so far, each `place: what is wrong`."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, place: str, text: str) -> None:
        self.lines.append(f"{place}: {text}")

    def check(self, place: str, parse: Callable[[str], object], text: str) -> None:
        """Append the sentence of the ValueError that `parse(text)` raises, if it does."""
        try:
            parse(text)
        except ValueError as error:
            self.add(place, str(error))

    def choose(self, place: str, value: str, choices: Iterable[str], what: str) -> bool:
        """Is `value` one of `choices`? If not, append a line that names the nearest."""
        known = list(choices)
        if value in known:
            return True
        self.add(place, f"unknown {what} {value!r}{nearest(value, known)}")
        return False


def nearest(value: str, choices: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or the choices when they are few, or nothing."""
    import difflib  # for mistakes alone

    known = sorted(choices)
    close = difflib.get_close_matches(value, known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; one of {', '.join(known)}" if 0 < len(known) <= 20 else ""


def decode(table: Mapping[str, Any], struct: type[T], place: str, problems: Problems) -> T | None:
    """`table` as `struct`; None, with a line a mistake in `problems`, when it is not one."""
    try:
        return msgspec.convert(table, struct)
    except msgspec.ValidationError as error:
        before = len(problems.lines)
        _check_table(table, struct, place, problems)
        if len(problems.lines) == before:
            problems.add(place, _plain(str(error)))
        return None


def below(place: str, key: str) -> str:
    """The place of `key` inside `place`: `export.dns.path`; in a file of its own, `feeds.d/x.toml: url`."""
    if not place:
        return key
    return f"{place}: {key}" if place.endswith(".toml") else f"{place}.{key}"


def _check_table(table: Mapping[str, Any], struct: Any, place: str, problems: Problems) -> None:
    """Every key by itself, so that all mistakes of a table are told at once."""
    fields = _fields(struct)
    for key, value in table.items():
        if key in fields:
            _check(value, fields[key].type, below(place, key), problems)
        else:
            problems.add(below(place, key), f"unknown key{nearest(key, fields)}")
    for key, field in fields.items():
        if field.required and key not in table:
            problems.add(place or "the file", f"is missing the key '{key}'")


@functools.cache
def _fields(struct: Any) -> dict[str, msgspec.structs.FieldInfo]:
    return {field.encode_name: field for field in msgspec.structs.fields(struct)}


def _check(value: Any, annotation: Any, place: str, problems: Problems) -> None:
    if isinstance(value, Mapping):
        if (inner := _struct_in(annotation)) is not None:
            return _check_table(value, inner, place, problems)
        if typing.get_origin(annotation) is dict:
            for key, item in value.items():
                _check(item, typing.get_args(annotation)[1], below(place, key), problems)
            return
    if isinstance(value, list) and typing.get_origin(annotation) is list:
        for i, item in enumerate(value, start=1):
            _check(item, typing.get_args(annotation)[0], f"{place}, item {i}", problems)
        return
    try:
        msgspec.convert(value, annotation)
    except msgspec.ValidationError as error:
        choices = _choices(annotation)
        if value in ("true", "false") and bool in typing.get_args(annotation):
            return problems.add(place, f"write {value} without quotes")
        if isinstance(value, str) and choices:
            problems.add(place, f"unknown value {value!r}{nearest(value, choices)}")
        else:
            problems.add(place, _plain(str(error).partition(" - at `$")[0]))


_WORDS = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
    "null": "nothing",
}


def _plain(text: str) -> str:
    """msgspec's sentence in the words of the configuration."""

    def words(match: re.Match[str]) -> str:
        return " or ".join(_WORDS.get(w, w) for w in match[1].split(" | ") if w != "null")

    return re.sub("`([^`]*)`", words, text).replace("Expected", "expected")


def _choices(annotation: Any) -> list[str]:
    """The texts that an annotation takes, when it takes no others."""
    origin = typing.get_origin(annotation)
    if origin is Literal:
        return [a for a in typing.get_args(annotation) if isinstance(a, str)]
    if origin in (typing.Union, UnionType):
        kinds = typing.get_args(annotation)
        return [] if str in kinds else [choice for kind in kinds for choice in _choices(kind)]
    return []


def _struct_in(annotation: Any) -> Any | None:
    """The msgspec struct in a type such as `str | InputFormat`, if there is one."""
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return annotation
    if typing.get_origin(annotation) in (typing.Union, UnionType):
        return next(filter(None, map(_struct_in, typing.get_args(annotation))), None)
    return None
