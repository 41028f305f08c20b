"""TOML tables into typed structs, strictly: every mistake is one line with its place and the nearest right name."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Callable, Iterable, Mapping
from types import UnionType
from typing import Any, TypeVar

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
    known = sorted(choices)
    close = difflib.get_close_matches(value, known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; one of {', '.join(known)}" if 0 < len(known) <= 20 else ""


def decode(table: Mapping[str, Any], struct: type[T], place: str, problems: Problems) -> T | None:
    """`table` as `struct`; None, with a line a mistake in `problems`, when it is not one."""
    before = len(problems.lines)
    _unknown_keys(table, struct, place, problems)
    if len(problems.lines) > before:
        return None
    try:
        return msgspec.convert(table, struct)
    except msgspec.ValidationError as error:
        text, _, path = str(error).partition(" - at `$")
        path = path.rstrip("`").lstrip(".")
        problems.add(f"{place}.{path}" if path else place, _plain(text))
        return None


def _plain(text: str) -> str:
    """msgspec's sentence in the words of the configuration."""
    for theirs, ours in (
        ("Object missing required field", "is missing the key"),
        ("`str`", "text"),
        ("`int`", "a whole number"),
        ("`float`", "a number"),
        ("`bool`", "true or false"),
        ("`array`", "a list"),
        ("`object`", "a table"),
        ("`null`", "nothing"),
        ("Expected", "expected"),
        ("Invalid enum value", "unknown value"),
    ):
        text = text.replace(theirs, ours)
    return text


def _unknown_keys(table: Mapping[str, Any], struct: Any, place: str, problems: Problems) -> None:
    fields = {field.encode_name: field.type for field in msgspec.structs.fields(struct)}
    for key, value in table.items():
        if key not in fields:
            problems.add(f"{place}.{key}" if place else key, f"unknown key{nearest(key, fields)}")
            continue
        inner = _struct_in(fields[key])
        if inner is not None and isinstance(value, Mapping):
            _unknown_keys(value, inner, f"{place}.{key}" if place else key, problems)


def _struct_in(annotation: Any) -> Any | None:
    """The msgspec struct in a type such as `str | InputFormat`, if there is one."""
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return annotation
    if typing.get_origin(annotation) in (typing.Union, UnionType):
        return next(filter(None, map(_struct_in, typing.get_args(annotation))), None)
    return None
