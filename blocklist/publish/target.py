"""What the format of an export can say, told to `blocklist.select.single`: for one entry at a time, without columns.

The writers do the same in columns: `blocklist.publish.compose` and `blocklist.publish.rpz`.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping

from msgspec.structs import replace

from blocklist.config import Export
from blocklist.names import MAX_NAME
from blocklist.publish.descriptor import Format
from blocklist.publish.patterns import DECODED, UNSHARED, URL
from blocklist.publish.placeholders import with_options
from blocklist.publish.zone_options import longest_of_split
from blocklist.select.single import Target

# What Go, PCRE and POSIX expressions give a meaning to; of a name only the dot.
_SYNTAX = re.compile(r"([.?*+()\[\]$^{}|])")


def target(export: Export, fmt: Format) -> Target:
    """What a file of `export` can say."""
    asked = str(export.options.get("direction", "any"))
    directions = [asked, "both"] if asked in ("inbound", "outbound") else ["inbound", "outbound", "both"]
    made = Target(fmt.name, fmt.takes_subtree, fmt.takes_exact, fmt.takes_allow, directions=directions)
    if fmt.code == "rpz":
        return _of_zone(export, fmt, made)
    if fmt.code in ("stix", "misp"):
        unwritable = f"can't be written: {fmt.name} takes no quote or backslash here"
        return replace(made, writes_url=lambda url: re.search(UNSHARED, url) is None, unwritable=unwritable)
    made = replace(made, alone=[kind for kind in ("ipv4", "ipv6") if fmt.takes_addresses_alone(kind)])
    if fmt.unwritable is None and fmt.url is None:
        return made
    odd = re.compile(fmt.unwritable) if fmt.unwritable is not None else None
    values = {key: export.options.get(key, option.default) for key, option in fmt.options.items()}
    pair = f"{fmt.exact}\n{fmt.below}" if fmt.exact and fmt.below else None
    exact, suffix = fmt.exact or fmt.suffix or "", fmt.suffix or pair or fmt.exact or ""

    def writes(name: str, subtree: bool, covered: bool) -> bool:
        return odd is None or not odd.search(_line(suffix if subtree else exact, name, values))

    def writes_url(url: str) -> bool:
        bare = url.removeprefix("//")
        if re.fullmatch(URL, bare) is None:
            return False
        return odd is None or not odd.search(_line(fmt.url or "", bare, values, url=True))

    unwritable = f"can't be written: {fmt.name} would read the line as something else"
    return replace(made, writes=writes, writes_url=writes_url, unwritable=unwritable)


def _of_zone(export: Export, fmt: Format, made: Target) -> Target:
    origin = str(export.options.get("origin") or fmt.options["origin"].default)
    if export.split is not None:
        origin = longest_of_split(origin)
    room = MAX_NAME - len(origin) - 1
    return replace(
        made,
        # An exact entry below a subtree takes its wildcard with it.
        writes=lambda name, subtree, covered: len(name) + 2 * (subtree or covered) <= room,
        unwritable="is too long for the zone",
        directions=["outbound", "both"],  # an answer's address is where clients would go
    )


def _line(template: str, name: str, values: Mapping[str, object], *, url: bool = False) -> str:
    """The line of one entry, as `blocklist.publish.line` makes it of a column."""
    line = with_options(template, values)
    words = {
        "{name}": name,
        "{regex}": _SYNTAX.sub(r"\\\1", name) if url else name.replace(".", r"\."),
        "{unescaped}": re.sub(
            "%[0-9A-Fa-f]{2}", lambda found: DECODED.get(found[0].upper(), found[0]), _SYNTAX.sub(r"\\\1", name)
        ),
        "{base64}": base64.b64encode(name.encode()).decode(),
    }
    return re.sub(r"\{(?:name|regex|unescaped|base64)\}", lambda found: words[found[0]], line)


__all__ = ["target"]
