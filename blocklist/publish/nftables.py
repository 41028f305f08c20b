"""An nftables file: sets by direction and family, replaced in one transaction, with or without chains."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from blocklist.publish import networks
from blocklist.publish.parts import Block, Lines, Part
from blocklist.publish.selection import Selection

if TYPE_CHECKING:
    from blocklist.publish.descriptor import Format

DIRECTIONS = ("inbound", "outbound")
_TYPES = {4: "ipv4_addr", 6: "ipv6_addr"}
_MATCH = {4: "ip", 6: "ip6"}


def parts(fmt: Format, selection: Selection, values: dict[str, Any], lost: Counter[str]) -> list[Part]:
    """The whole file. A set for each direction and family exists even when empty, so that rules can name it.

    Networks for `both` are in either set; nft refuses overlap, so what another network covers is left out.
    """
    return _table(selection, values) if values["chains"] else _sets_only(selection, values)


def _table(selection: Selection, values: dict[str, Any]) -> list[Part]:
    table = f"table inet {values['table']}"
    # An empty declaration first: deleting a table that does not exist yet is an error. All of it is one
    # transaction.
    made: list[Part] = [Block(f"{table}\ndelete {table}\n{table} {{\n")]
    for name, family, lines in _elements(selection, "\t\t\t{name},"):
        made.append(Block(f"\tset {name} {{\n\t\ttype {_TYPES[family]}\n\t\tflags interval\n"))
        if len(lines.values):  # `elements = { }` is a syntax error
            made += [Block("\t\telements = {\n"), lines, Block("\t\t}\n")]
        made.append(Block("\t}\n"))
    made.append(Block(_chains(values) + "}\n"))
    return made


def _sets_only(selection: Selection, values: dict[str, Any]) -> list[Part]:
    """Sets for the operator's own rules, which live in the same table: it is refilled, never deleted."""
    made: list[Part] = []
    for name, family, lines in _elements(selection, "\t{name},"):
        where = f"inet {values['table']}"
        declared = f"\tset {name} {{\n\t\ttype {_TYPES[family]}\n\t\tflags interval\n\t}}\n"
        made.append(Block(f"table {where} {{\n{declared}}}\n"))
        made.append(Block(f"flush set {where} {name}\n"))
        if len(lines.values):
            made += [Block(f"add element {where} {name} {{\n"), lines, Block("}\n")]
    return made


def _elements(selection: Selection, template: str) -> list[tuple[str, int, Lines]]:
    found = []
    for direction in DIRECTIONS:
        for family, kind in ((4, "ipv4"), (6, "ipv6")):
            cidrs = networks.disjoint(networks.wanted(selection.networks, [kind], direction))
            found.append((f"{direction}{family}", family, Lines(cidrs, template, "network", "networks")))
    return found


def _chains(values: dict[str, Any]) -> str:
    """Inbound lists match the source of new connections only, so that replies to our own ones live."""
    action = "drop" if values["action"] == "drop" else "reject with icmpx admin-prohibited"
    counter = "counter " if values["counter"] else ""
    rules = {
        way: "".join(f"\t\t{new}{_MATCH[family]} {address} @{way}{family} {counter}{action}\n" for family in (4, 6))
        for way, new, address in (("inbound", "ct state new ", "saddr"), ("outbound", "", "daddr"))
    }
    chains = ""
    for hook, ways in (
        ("input", ["inbound"]),
        ("forward", ["inbound", "outbound"]),
        ("output", ["outbound"]),
    ):
        # Just before the filter's own chains: a packet that is dropped need not be looked at again.
        chains += f"\tchain {hook} {{\n\t\ttype filter hook {hook} priority filter - 10; policy accept;\n"
        chains += "".join(rules[way] for way in ways) + "\t}\n"
    return chains
