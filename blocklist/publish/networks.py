"""Columns of networks as targets need them: of one family and direction, without overlap, as RPZ triggers."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Sequence

import polars as pl

from blocklist.errors import ReleaseError
from blocklist.publish.gate import require_safe
from blocklist.rules import Rule
from blocklist.select.networks import contains, parse, text

_FAMILIES = {"ipv4": 4, "ipv6": 6}


def wanted(networks: pl.DataFrame, kinds: Collection[str], direction: str = "any") -> pl.DataFrame:
    """The rows of `kinds` that speak for `direction`; `both` speaks for each, `any` takes all."""
    families = [family for kind, family in _FAMILIES.items() if kind in kinds]
    rows = networks.filter(pl.col("family").is_in(families))
    return rows if direction == "any" else rows.filter(pl.col("direction").is_in([direction, "both"]))


def disjoint(networks: pl.DataFrame) -> pl.Series:
    """`cidr` of the rows less those that another row covers, by family and number.

    Rows of one direction are collapsed already; only when several meet can one cover another, which drops the
    wider one from a Squid list and makes nft refuse the file.
    """
    if networks["direction"].n_unique() < 2:
        return networks["cidr"]
    cidrs = networks["cidr"].unique(maintain_order=True)
    require(cidrs)
    try:
        parsed = [(ipaddress.ip_network(cidr), cidr) for cidr in cidrs.to_list()]
    except ValueError as error:  # such as 999.0.0.1, or bits behind the prefix, which engines judge differently
        raise ReleaseError(f"networks: {error}; nothing was written") from None
    seen = sorted((net.version, int(net.network_address), net.prefixlen, cidr) for net, cidr in parsed)
    kept: list[str] = []
    end = (0, -1)
    for version, start, length, cidr in seen:
        last = (version, start + (1 << ((32 if version == 4 else 128) - length)) - 1)
        if last > end:
            kept.append(cidr)
            end = last
    return pl.Series("cidr", kept, dtype=pl.String)


def one_by_one(
    area: pl.DataFrame, families: Sequence[int], listed: pl.DataFrame, rules: Sequence[Rule]
) -> tuple[pl.DataFrame, int]:
    """`area` for a target that takes no networks of `families`, and how many of these are lost by that.

    What stays are single addresses that are listed, or denied, by themselves, where `area` blocks them. In: `area` with
    `cidr`, `family`, `direction`; `listed` with `name`, `family` and columns `inbound`, `outbound: Boolean`.
    """
    denied = [r.name for r in rules if r.blocks and r.kind in [f"ipv{family}" for family in families]]
    mine = pl.col("family").is_in(families)
    parts = [area.filter(~mine)]
    lost = 0
    for direction in area["direction"].unique(maintain_order=True):
        spoken = listed.filter(mine) if direction == "both" else listed.filter(mine & pl.col(direction))
        names = pl.concat([spoken["name"], pl.Series("name", denied, dtype=pl.String)]).unique()
        wide = names.str.contains("/", literal=True)
        lost += int(wide.sum())
        addresses = parse(names.filter(~wide)).select("family", "first", "last")
        blocked = parse(area.filter(mine & (pl.col("direction") == direction))["cidr"])
        kept = addresses.filter(contains(addresses, blocked)).sort("family", "first")
        columns = (text(kept).alias("cidr"), pl.col("family"), pl.lit(direction).alias("direction"))
        parts.append(kept.select(columns))
    return pl.concat(parts), lost


def triggers(cidrs: pl.Series) -> pl.Series:
    """`cidr` as owners of rpz-ip records, less the zone: `24.0.2.0.192.rpz-ip`, `48.zz.bad.db8.2001.rpz-ip`.

    The longest run of zeros is `zz`, exactly as RFC 5952 writes `::`; named drops any other spelling and
    named-checkzone does not notice. In: canonical text. Out: String of the same length.
    """
    text = pl.col("cidr")
    address = text.str.split("/").list.first()
    six = text.str.contains(":", literal=True)
    given = pl.when(text.str.contains("/", literal=True)).then(text.str.split("/").list.last())
    length = given.otherwise(pl.when(six).then(pl.lit("128")).otherwise(pl.lit("32")))
    # `2001:db8::1` → `2001:db8:zz:1`; at an end the pair of colons leaves one too many.
    hextets = address.str.replace("::", ":zz:", literal=True).str.strip_chars(":").str.split(":")
    labels = pl.when(six).then(hextets).otherwise(address.str.split(".")).list.reverse().list.join(".")
    return (
        cidrs.alias("cidr").to_frame().select(pl.concat_str(length, pl.lit("."), labels, pl.lit(".rpz-ip"))).to_series()
    )


def require(cidrs: pl.Series) -> None:
    """Raise ReleaseError unless every one is canonical: what is built from it is checked by shape only."""
    require_safe(cidrs, "network", "networks")
