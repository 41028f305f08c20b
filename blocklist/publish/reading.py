"""Patterns that find the entries of a format in its lines again. No columns here."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from blocklist.publish.descriptor import Format
from blocklist.publish.placeholders import with_options

# By what a value is: the pattern of what the line has there.
_NAME = r"([a-z0-9_-][a-z0-9._-]*)"
_NETWORK = r"([0-9a-f][0-9a-f:./]*)"
_URL = r"(\S+)"


def readable(fmt: Format) -> bool:
    """Can entries of `fmt` be found in its lines again?"""
    return any(pattern_of(template, {}, value) is not None for _, template, value in templates(fmt))


def templates(fmt: Format) -> Iterator[tuple[str, str, str]]:
    """What a line says, its template, and the pattern of its value; the narrower template first."""
    for what, template in (("subtree", fmt.suffix), ("subtree", fmt.below), ("exact", fmt.exact)):
        if template is not None:
            yield what, template, _NAME
    if fmt.url is not None:
        yield "url", fmt.url, _URL
    for template in (fmt.network, fmt.address):
        if template is not None:
            yield "network", template, _NETWORK


def pattern_of(template: str, options: Mapping[str, object], value: str) -> str | None:
    """A pattern of the first line of `template`; None where its value is written in a way that hides it."""
    line = with_options(template, options).split("\n")[0]
    before, placeholder, after = line.partition("{name}")
    if not placeholder:
        before, placeholder, after = line.partition("{regex}")
        value = _URL
    if not placeholder:
        before, placeholder, after = line.partition("{unescaped}")
        value = "(.+)"
    if not placeholder or "{" in before + after:
        return None
    return f"^{re.escape(before)}{value}{re.escape(after)}$"
