"""Input of `ipset restore`: fill a new set beside the live one, swap the two, destroy the old."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from blocklist.errors import ReleaseError
from blocklist.publish import networks
from blocklist.publish.nftables import DIRECTIONS
from blocklist.publish.parts import Block, Lines, Part
from blocklist.publish.selection import Selection

if TYPE_CHECKING:
    from blocklist.publish.descriptor import Format

_FAMILIES = {"ipv4": ("4", "inet"), "ipv6": ("6", "inet6")}


def parts(fmt: Format, selection: Selection, values: dict[str, Any], lost: Counter[str]) -> list[Part]:
    """The whole file: four sets, named for the direction and family.

    `maxelem` is the same at every release, since `create -exist` fails on a live set that has another one
    and a set that rules use can't be made anew. It reserves nothing; `hashsize` does, and need not match.
    """
    made: list[Part] = []
    for direction in DIRECTIONS:
        for kind, (digit, family) in _FAMILIES.items():
            cidrs = networks.disjoint(networks.wanted(selection.networks, [kind], direction))
            made += _set(
                f"{values['prefix']}-{direction}{digit}",
                family,
                Lines(cidrs, "", "network", "networks"),
                values,
            )
    return made


def _set(name: str, family: str, lines: Lines, values: dict[str, Any]) -> list[Part]:
    count, most = len(lines.values), values["maxelem"]
    if count > most:
        raise ReleaseError(
            f"ipset {name}: {count:,} networks are more than maxelem = {most:,}; ipset would stop there",
            hint="raise the option 'maxelem', and destroy the old sets once, with the rules that use them",
        )
    new = f"{name}-new"  # 31 characters at most: the pattern of `prefix` sees to it
    size = max(1024, 1 << (count - 1).bit_length()) if count else 1024
    create = f"hash:net family {family} hashsize {size} maxelem {most} -exist\n"
    return [
        # A restore that was cut short has left the second set behind: take it over, empty.
        Block(f"create {name} {create}create {new} {create}flush {new}\n"),
        Lines(lines.values, f"add {new} {{name}}", lines.gate, lines.place),
        Block(f"swap {name} {new}\ndestroy {new}\n"),
    ]
