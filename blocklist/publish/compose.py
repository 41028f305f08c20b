"""A selection as the lines of a descriptor: what each entry needs, and a count of what the target can't say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl
from msgspec.structs import replace

from blocklist.names import parents
from blocklist.publish import networks
from blocklist.publish.gate import Gate, writable_urls
from blocklist.publish.line import expression
from blocklist.publish.parts import Lines, Part
from blocklist.publish.placeholders import with_options
from blocklist.publish.selection import Selection

if TYPE_CHECKING:
    from blocklist.publish.descriptor import Format


def parts(fmt: Format, selection: Selection, values: Mapping[str, Any], lost: Counter[str]) -> list[Part]:
    """The lines of `fmt`: domains, then networks, then URLs.

    Adds to `lost`: `exact`, `subtree`, `allow` (no line for that), `narrowed` (a block over an allow that can't be
    written), `network` (a prefix where the target takes single addresses), `inbound` or `outbound` (a direction
    that the target has no line for) and `unwritable`.
    """
    made: list[Part] = []
    if "domain" in fmt.kinds:
        made += _domains(fmt, selection.domains, values, lost)
    if "ipv4" in fmt.kinds or "ipv6" in fmt.kinds:
        made += _networks(fmt, selection.networks, values, lost)
    if fmt.url is not None and "url" in fmt.kinds:
        made.append(_urls(fmt, selection.urls["url"], values, lost))
    return made


def written(fmt: Format, selection: Selection, values: Mapping[str, Any]) -> Selection:
    """`selection`, fitted to what `fmt` can say, without the domains and URLs that `parts` leaves out."""
    domains, urls = selection.domains, selection.urls
    if "domain" in fmt.kinds and fmt.unwritable is not None:
        said = _said(fmt, domains, values, Counter())
        if sum(len(entries.names) for entries in said) < domains.height:
            rows = [
                entries.names.alias("name").to_frame().with_columns(subtree=entries.subtree, block=entries.block)
                for entries in said
            ]
            domains = domains.join(
                pl.concat([domains.clear(), *rows]), on=["name", "subtree", "block"], how="semi", maintain_order="left"
            )
    if fmt.url is not None and "url" in fmt.kinds:
        urls = urls.filter(_fine_urls(fmt, urls["url"].str.strip_prefix("//"), values))
    return replace(selection, domains=domains, urls=urls)


class _Said(msgspec.Struct, frozen=True):
    """Names that one line says, with its template: of entries that all have the same `block` and `subtree`."""

    names: pl.Series
    line: str
    block: bool
    subtree: bool


def _domains(fmt: Format, domains: pl.DataFrame, values: Mapping[str, Any], lost: Counter[str]) -> list[Part]:
    return [_lines(entries.names, entries.line, "name", "domains") for entries in _said(fmt, domains, values, lost)]


def _said(fmt: Format, domains: pl.DataFrame, values: Mapping[str, Any], lost: Counter[str]) -> list[_Said]:
    """Blocks before allows: where the order of a list counts, the later line is the one that frees."""
    made: list[_Said] = []
    found = [
        (block, *entry)
        for block in (True, False)
        for entry in _by_line(fmt, domains.filter(pl.col("block") == block), _twice(domains), block)
    ]
    freed: set[str] = set()
    # Allows first: one that can't be written takes the blocks above it along, so that it is not blocked.
    for block, names, template, reason, below in reversed(found):
        if template is None:
            lost[reason] += len(names)
            continue
        line = with_options(template, values)
        if fmt.unwritable is not None:
            odd = names.to_frame().select(expression(line, "name").str.contains(fmt.unwritable)).to_series()
            lost["unwritable"] += int(odd.sum())
            if not block:
                freed |= {at for name in names.filter(odd) for at in (name, *parents(name))}
            names = names.filter(~odd)
        if block and below and freed:
            over = names.is_in(list(freed))
            lost["narrowed"] += int(over.sum())
            names = names.filter(~over)
        made.append(_Said(names, line, block, below))
    return made[::-1]


def _twice(domains: pl.DataFrame) -> pl.Series:
    """Names with an entry for themselves and another for all below them, which then never do the same."""
    if domains["block"].all():
        return domains["name"].clear()
    return domains.filter(pl.col("name").is_duplicated())["name"].unique()


def _by_line(
    fmt: Format, entries: pl.DataFrame, twice: pl.Series, block: bool
) -> list[tuple[pl.Series, str | None, str, bool]]:
    """Names by the line that they need, as what they count where there is none, and does it say what is below them?"""
    suffix, below, exact = (
        (fmt.suffix, fmt.below, fmt.exact) if block else (fmt.allow_suffix, fmt.allow_below, fmt.allow_exact)
    )
    pair = f"{exact}\n{below}" if exact is not None and below is not None else None
    whole = entries.filter("subtree")["name"]
    alone = entries.filter(~pl.col("subtree"))["name"]
    reasons = ("subtree", "exact") if block else ("allow", "allow")
    found: list[tuple[pl.Series, str | None, str, bool]] = []
    if len(twice) and below is not None:
        # The line of its own entry has the name: here only what is below it is left to say.
        both = whole.is_in(twice.to_list())
        found.append((whole.filter(both), below, reasons[0], True))
        whole = whole.filter(~both)
    return [
        (whole, suffix if suffix is not None else pair, reasons[0], True),
        *found,
        (alone, exact, reasons[1], False),
    ]


def _networks(fmt: Format, rows: pl.DataFrame, values: Mapping[str, Any], lost: Counter[str]) -> list[Part]:
    if not fmt.directed:
        direction = str(values.get("direction", "any"))
        cidrs = networks.disjoint(networks.wanted(rows, fmt.kinds, direction))
        return _families(fmt, cidrs, values, lost)
    made: list[Part] = []
    for direction, template in (("inbound", fmt.inbound), ("outbound", fmt.outbound)):
        wanted = networks.wanted(rows, fmt.kinds, direction)
        if template is None:
            lost[direction] += int((wanted["direction"] == direction).sum())
            continue
        made.append(_lines(networks.disjoint(wanted), with_options(template, values), "network", "networks"))
    return made


def _families(fmt: Format, cidrs: pl.Series, values: Mapping[str, Any], lost: Counter[str]) -> list[Part]:
    """IPv4 before IPv6, and in each single addresses after networks where they have a line of their own."""
    made: list[Part] = []
    six = cidrs.str.contains(":", literal=True)
    single = ~cidrs.str.contains("/", literal=True)
    if fmt.network4 is None and fmt.network6 is None:
        groups = [(cidrs, fmt.network, single)]
    else:
        groups = [
            (cidrs.filter(~six), fmt.network4 or fmt.network, single.filter(~six)),
            (cidrs.filter(six), fmt.network6 or fmt.network, single.filter(six)),
        ]
    for members, template, alone in groups:
        rest = members
        if fmt.address is not None:
            made.append(_lines(members.filter(alone), with_options(fmt.address, values), "network", "networks"))
            rest = members.filter(~alone)
        if template is None:
            lost["network"] += len(rest)
        else:
            made.append(_lines(rest, with_options(template, values), "network", "networks"))
    return made


def _urls(fmt: Format, urls: pl.Series, values: Mapping[str, Any], lost: Counter[str]) -> Lines:
    """The record has `//host[:port]/path`, since comparison ignores the scheme: the line says which ones it adds."""
    assert fmt.url is not None
    bare = urls.str.strip_prefix("//")
    fine = _fine_urls(fmt, bare, values)
    lost["unwritable"] += len(bare) - int(fine.sum())
    return _lines(bare.filter(fine), with_options(fmt.url, values), "url", "urls")


def _fine_urls(fmt: Format, bare: pl.Series, values: Mapping[str, Any]) -> pl.Series:
    """Boolean: which URLs, without scheme and slashes, have a line."""
    assert fmt.url is not None
    fine = writable_urls(bare)
    if fmt.unwritable is not None:
        line = expression(with_options(fmt.url, values), bare.name, url=True)
        fine &= ~bare.to_frame().select(line.str.contains(fmt.unwritable)).to_series()
    return fine


def _lines(values: pl.Series, template: str, gate: Gate, place: str) -> Lines:
    return Lines(values, template, gate, place, records=template.count("\n") + 1)
