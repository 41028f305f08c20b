"""The table of meanings: names, what must become of each by the rule, and what a target makes of it."""

from __future__ import annotations

from functools import cache

import polars as pl

from blocklist.publish.descriptor import Format
from blocklist.publish.sample import LONGEST, NAMES
from blocklist.publish.selection import Selection
from blocklist.select.express import Capability, Expressed, express
from blocklist.select.fold import names_between

from .lists import Entries, verdict

LISTED = [row for row in NAMES if row[0] != LONGEST]
DECIDED: Entries = {(name, subtree): block for name, subtree, block in LISTED}
# What is asked, and what it shows.
ASKED = {
    "ok.example": "not listed",
    "notevil.example": "ends in the letters of a listed name",
    "evil.example.ok.example": "begins with a listed name",
    "evil.example": "subtree, the name itself",
    "www.evil.example": "subtree, child",
    "a.b.www.evil.example": "subtree, far below",
    "EVIL.Example": "upper case",
    "evil.example.": "trailing dot",
    "good.evil.example": "allow below a block",
    "sub.good.evil.example": "child of an allow",
    "back.good.evil.example": "block below an allow",
    "a.back.good.evil.example": "child of a block below an allow",
    "deep.er.evil.example": "between an allow and its block",
    "x.deep.er.evil.example": "below a name between",
    "sub.ok.deep.er.evil.example": "child of a deep allow",
    "exact.example": "name alone",
    "www.exact.example": "child of a name alone",
    "_dmarc.exact.example": "underscore",
    "-dash.example": "leading hyphen",
    "pass.example": "subtree over an exact allow",
    "a.pass.example": "its other child",
    "ok.pass.example": "exact allow",
    "xn--fsqu00a.example": "IDN",
    "a.xn--fsqu00a.example": "IDN, child",
    "dual.example": "allowed alone, blocked below",
    "a.dual.example": "child of that",
}


def fitted(fmt: Format) -> Expressed:
    """The list in what `fmt` can say, by the stage that fits every export."""
    return _fitted(Capability(fmt.takes_subtree, fmt.takes_exact, fmt.takes_allow, fold=fmt.fold))


@cache
def _fitted(can: Capability) -> Expressed:
    schema = {"name": pl.String, "subtree": pl.Boolean, "block": pl.Boolean}
    decisions = pl.DataFrame(LISTED, schema=schema, orient="row").with_columns(widenable=pl.lit(False))
    return express(decisions.sort("name", "subtree"), can)


def selected(fmt: Format) -> Selection:
    entries = fitted(fmt).entries
    return Selection(domains=entries, between=names_between(entries))


def meant(name: str) -> bool:
    """Must `name` be blocked, by the rule: the most specific entry decides?"""
    return verdict(DECIDED, name.rstrip(".")) is True


def given(fmt: Format, name: str) -> bool:
    """Is `name` blocked by what `fmt` is given? Where it differs from `meant`, the release counts a loss."""
    entries: Entries = {(n, s): b for n, s, b in fitted(fmt).entries.iter_rows()}
    return verdict(entries, name.rstrip(".")) is True
