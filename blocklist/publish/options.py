"""Options of a format: declared in its descriptor, given in the configuration, checked so none is syntax."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from blocklist.decode import Problems, nearest
from blocklist.publish.placeholders import ALL_WORDS

Value = str | int | bool

# What an option may hold when its descriptor gives no pattern: nothing here is syntax to any engine.
_PLAIN = r"[A-Za-z0-9._-]*"
# Every format takes it: the number that only rises (RFC 1982), for the targets that carry one.
SERIAL = "serial"
_MAX_SERIAL = 2**32 - 1
_TAKEN = {SERIAL, "file", "wrapper", "path", *ALL_WORDS}


class Option(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """One setting of a format. `pattern` matches the whole text; `minimum` and `maximum` bound a number."""

    type: Literal["text", "integer", "boolean"]
    default: Value
    help: str = ""
    choices: list[str] = []
    pattern: str = _PLAIN
    minimum: int = 0
    maximum: int = 2**31 - 1

    def fault(self, value: object) -> str | None:
        """Why `value` does not fit, as the end of a sentence; None when it does."""
        if self.type == "boolean":
            return None if isinstance(value, bool) else "must be true or false"
        if self.type == "integer":
            if isinstance(value, bool) or not isinstance(value, int):
                return "must be a whole number"
            fits = self.minimum <= value <= self.maximum
            return None if fits else f"must be from {self.minimum} to {self.maximum}"
        if not isinstance(value, str):
            return "must be text"
        if self.choices:
            return None if value in self.choices else f"can't be {value!r}{nearest(value, self.choices)}"
        # Whatever the pattern of a format says: no control character and no byte beyond ASCII gets into a
        # file.
        if not value.isascii() or not (value.isprintable() or not value):
            return "must be printable ASCII"
        return None if re.fullmatch(self.pattern, value) else f"can't be {value!r} (allowed: {self.pattern})"


def declared_faults(name: str, option: Option) -> str | None:
    """What is wrong with the declaration itself: its name, its pattern, its default."""
    if re.fullmatch(r"[a-z][a-z0-9_]*", name) is None or name in _TAKEN:
        return "is not a name for an option"
    try:
        re.compile(option.pattern)
    except re.error as error:
        return f"has a pattern that does not compile: {error}"
    return option.fault(option.default)


def resolve(
    declared: Mapping[str, Option], given: Mapping[str, object], place: str, problems: Problems
) -> dict[str, Any]:
    """Every declared option with its value, and `serial`; a line in `problems` for each that is unfit."""
    values: dict[str, Any] = {name: option.default for name, option in declared.items()}
    values[SERIAL] = 0
    for name, value in given.items():
        if name == SERIAL:
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX_SERIAL:
                problems.add(f"{place}.{name}", f"must be a whole number from 0 to {_MAX_SERIAL}")
        elif name not in declared:
            problems.add(f"{place}.{name}", f"unknown option{nearest(name, declared)}")
            continue
        elif (fault := declared[name].fault(value)) is not None:
            problems.add(f"{place}.{name}", fault)
        values[name] = value
    return values
