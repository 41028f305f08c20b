"""Small lists for the tests of exports, and what each name must get: the rule in its plainest form."""

from __future__ import annotations

import io
from collections.abc import Mapping

import polars as pl

from blocklist.names import parents
from blocklist.publish import descriptor
from blocklist.publish.render import Rendered, render
from blocklist.publish.selection import Selection

# (name, subtree?) → block?
Entries = Mapping[tuple[str, bool], bool]


def entries(
    block: list[str] | None = None,
    exact: list[str] | None = None,
    allow: list[str] | None = None,
    exact_allow: list[str] | None = None,
) -> dict[tuple[str, bool], bool]:
    """Entries from lists of names."""
    found = {(name, True): True for name in block or []}
    found |= {(name, False): True for name in exact or []}
    found |= {(name, True): False for name in allow or []}
    return found | {(name, False): False for name in exact_allow or []}


def verdict(listed: Entries, name: str) -> bool | None:
    """Is `name` blocked (True), allowed (False) or not spoken of? The most specific entry decides."""
    name = name.lower()
    if (name, False) in listed:
        return listed[name, False]
    return below(listed, [name, *parents(name)])


def below(listed: Entries, chain: list[str]) -> bool | None:
    return next((listed[name, True] for name in chain if (name, True) in listed), None)


def select(listed: Entries, cidrs: list[tuple[str, str]] | None = None) -> Selection:
    """The selection that the selecting stage would give for entries that are folded already."""
    between: dict[str, bool] = {}
    for name, _ in listed:
        above = parents(name)
        depth = next((depth for depth, top in enumerate(above) if (top, True) in listed), 0)
        for middle in above[:depth]:
            between[middle] = listed[above[depth], True]
    rows = [(name, subtree, block) for (name, subtree), block in sorted(listed.items())]
    return Selection(
        domains=pl.DataFrame(
            rows, schema={"name": pl.String, "subtree": pl.Boolean, "block": pl.Boolean}, orient="row"
        ),
        between=pl.DataFrame(sorted(between.items()), schema={"name": pl.String, "block": pl.Boolean}, orient="row"),
        networks=pl.DataFrame(
            [(cidr, 6 if ":" in cidr else 4, direction) for cidr, direction in cidrs or []],
            schema={"cidr": pl.String, "family": pl.UInt8, "direction": pl.String},
            orient="row",
        ),
    )


def rendered(name: str, selection: Selection, **options: object) -> tuple[bytes, Rendered]:
    """The bytes of `selection` in the format `name` of the package, and the account of it."""
    out = io.BytesIO()
    account = render(descriptor.builtin()[name], selection, options, out)
    return out.getvalue(), account
