"""A small list with every meaning that an entry can have, for trying a format: `blocklist formats test`."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from blocklist.publish.check import Checked, check
from blocklist.publish.descriptor import Format
from blocklist.publish.render import Rendered, render
from blocklist.publish.selection import Selection
from blocklist.select.express import Capability, express
from blocklist.select.fold import names_between

# 253 octets, the most that a name may have (RFC 1035 §2.3.4).
LONGEST = ".".join(["l" * 63, "o" * 63, "n" * 63, "g" * 53, "example"])
# Name, with everything below it?, block?
NAMES: tuple[tuple[str, bool, bool], ...] = (
    ("evil.example", True, True),
    ("good.evil.example", True, False),
    ("back.good.evil.example", True, True),
    ("ok.deep.er.evil.example", True, False),
    ("pass.example", True, True),
    ("ok.pass.example", False, False),
    ("exact.example", False, True),
    ("_dmarc.exact.example", False, True),
    ("-dash.example", False, True),
    ("xn--fsqu00a.example", True, True),
    (LONGEST, False, True),
    ("dual.example", True, True),
    ("dual.example", False, False),
)
NETWORKS: tuple[tuple[str, str], ...] = (
    ("192.0.2.0/24", "inbound"),
    ("198.51.100.7", "outbound"),
    ("203.0.113.0/25", "both"),
    ("2001:db8:bad::/48", "outbound"),
    ("2001:db8:a77a::1", "inbound"),
)
URLS = (
    "//evil.example/a/b.php?c=1&d=2",
    "//exact.example:8080/x",
    "//198.51.100.7/payload.exe",
    "//[2001:db8::7]/z",
    "//quote.example/it's",
)


@dataclass(frozen=True)
class Trial:
    """A sample in a format: its bytes, what was lost by reason, and what a checker said (or why it was not asked)."""

    data: bytes
    rendered: Rendered
    lost: dict[str, int]
    checked: Checked
    covers: list[str] = field(default_factory=list)
    cannot: list[str] = field(default_factory=list)


def selection(fmt: Format) -> tuple[Selection, dict[str, int]]:
    """The list above, fitted to `fmt` as an export's would be, and what was lost by that."""
    lost: dict[str, int] = {}
    parts: dict[str, pl.DataFrame] = {}
    if "domain" in fmt.kinds and (fmt.takes_subtree or fmt.takes_exact):
        schema = {"name": pl.String, "subtree": pl.Boolean, "block": pl.Boolean}
        decisions = pl.DataFrame(NAMES, schema=schema, orient="row").with_columns(widenable=pl.lit(False))
        can = Capability(fmt.takes_subtree, fmt.takes_exact, fmt.takes_allow, fold=fmt.fold)
        fitted = express(decisions.sort("name", "subtree"), can)
        lost = dict(fitted.lost)
        parts["domains"], parts["between"] = fitted.entries, names_between(fitted.entries)
    rows = [(cidr, 6 if ":" in cidr else 4, direction) for cidr, direction in NETWORKS]
    schema_of = {"cidr": pl.String, "family": pl.UInt8, "direction": pl.String}
    parts["networks"] = pl.DataFrame(rows, schema=schema_of, orient="row")
    parts["urls"] = pl.DataFrame({"url": list(URLS)})
    if fmt.of_rows:
        parts["rows"] = _rows(parts.pop("domains"))
    return Selection(**parts), lost


def _rows(domains: pl.DataFrame) -> pl.DataFrame:
    made: list[tuple[str, str, str]] = [
        (name, "domain", "subtree" if subtree else "exact") for name, subtree, _ in domains.iter_rows()
    ]
    made += [(cidr, "ipv6" if ":" in cidr else "ipv4", "exact") for cidr, _ in NETWORKS]
    made += [(url, "url", "exact") for url in URLS]
    return pl.DataFrame(made, schema=["indicator", "kind", "scope"], orient="row").with_columns(
        category=pl.lit("malware"),
        confidence=pl.lit(90, pl.Int64),
        feeds=pl.lit("sample"),
        since=pl.lit("2026-11-24T10:00:00Z"),
    )


def trial(fmt: Format, options: Mapping[str, object] | None = None) -> Trial:
    """Render the sample, and have the target's checker judge it. Raises ConfigError or ReleaseError."""
    chosen, lost = selection(fmt)
    given = dict(options or {})
    out = io.BytesIO()
    rendered = render(fmt, chosen, given, out)
    with tempfile.TemporaryDirectory(prefix="blocklist-format-") as folder:
        Path(folder).chmod(0o755)  # a checker may give up root before it reads
        path = Path(folder) / f"sample.{fmt.name}"
        path.write_bytes(out.getvalue())
        checked = check(fmt, path, rendered, given)
    covers, cannot = abilities(fmt)
    every = {**lost, **{reason: lost.get(reason, 0) + n for reason, n in rendered.lost.items()}}
    return Trial(out.getvalue(), rendered, {k: v for k, v in sorted(every.items()) if v}, checked, covers, cannot)


def abilities(fmt: Format) -> tuple[list[str], list[str]]:
    """What the format can say, and what of its kinds it can't, in words."""
    singles = fmt.code is None and not (fmt.network or fmt.network4 or fmt.network6 or fmt.directed)
    meanings = []
    if "domain" in fmt.kinds:
        meanings += [
            ("a name with all below it", fmt.takes_subtree),
            ("a name alone", fmt.takes_exact),
            ("an allow below a block", fmt.takes_allow),
        ]
    for kind, what in (("ipv4", "IPv4"), ("ipv6", "IPv6")):
        if kind in fmt.kinds:
            meanings += [(f"{what} addresses", True), (f"{what} networks", not singles)]
    if {"ipv4", "ipv6"} & set(fmt.kinds):
        meanings.append(("direction", fmt.directed or "direction" in fmt.options))
    if "url" in fmt.kinds:
        meanings.append(("URLs", True))
    return [what for what, can in meanings if can], [what for what, can in meanings if not can]
