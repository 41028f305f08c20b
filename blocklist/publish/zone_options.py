"""The options of a response policy zone, apart from what writes it: every command judges them first."""

from __future__ import annotations

import re
from typing import Any

from blocklist.catalog import CATEGORIES
from blocklist.decode import Problems

# RFC 1035 §2.3.4: 255 octets on the wire are 253 characters of text. One over, and named refuses the whole
# zone.
_MAX_NAME = 253
_NAME = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


def judge(values: dict[str, Any], place: str, problems: Problems) -> None:
    """Check the options that depend on each other, and put the name of the version record in `version`."""
    origin = values["origin"]
    if values["version"] == "auto":
        values["version"] = f"version.{origin}"
    elif values["version"] == "none":
        values["version"] = ""
    for key in ("origin", "version", "target"):
        if values[key] and _NAME.fullmatch(values[key]) is None:
            problems.add(f"{place}.{key}", f"{values[key]!r} is not a name in lower case without a final dot")
    if values["version"] and len(values["version"]) > budget(origin):
        problems.add(f"{place}.version", "is too long: with the origin it must fit into 253 characters")
    if (values["action"] == "cname") != bool(values["target"]):
        problems.add(f"{place}.target", "goes with action = 'cname', and only with it")


def longest_of_split(origin: str) -> str:
    """The longest name of a category's zone. What fits there is what every zone of a split export takes, so that an
    entry does not come and go with its category, and nobody needs to know that to say whether it is in.
    """
    return f"{max(CATEGORIES, key=len)}.{origin}"


def budget(origin: str) -> int:
    """Characters that an owner may have in front of `origin`; its wildcard needs two of them."""
    return _MAX_NAME - len(origin) - 1
