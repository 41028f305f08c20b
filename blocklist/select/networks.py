"""Algebra of addresses in columns: text to ranges, union, difference, overlap, and back to CIDRs.

A *networks* frame has `family: UInt8` (4 or 6), `first: UInt128` and `last: UInt128`, the lowest and highest
address, both inside. Both families fit as they are, without an offset. The highest IPv6 address has no
successor: wherever one is added, this module first makes sure that there is a higher address or drops the
sum. Rows with nulls (text that was no address) belong to no set.
"""

import ipaddress
import socket
from collections.abc import Iterable, Mapping

import polars as pl

from blocklist.select.address import MAPPED

_FAMILY, _FIRST, _LAST = pl.col("family"), pl.col("first"), pl.col("last")
_SCHEMA = {"family": pl.UInt8, "first": pl.UInt128, "last": pl.UInt128}
_AREA = list(_SCHEMA)
# Series, as Polars 2.1 has neither literals above 2**127 nor arithmetic of a UInt128 series with an int.
_HIGHEST = pl.Series([2**128 - 1], dtype=pl.UInt128)
_ONE = pl.Series([1], dtype=pl.UInt128)
_MAPPED = pl.DataFrame({"family": [6], "first": [MAPPED << 32], "last": [(MAPPED + 1 << 32) - 1]}, schema=_SCHEMA)

# What sets of a family are counted in: numbers half as wide take half of the time.
_COUNTED = {4: pl.Int64, 6: pl.UInt128}

_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
QUAD = rf"{_OCTET}\.{_OCTET}\.{_OCTET}\.{_OCTET}"
_IPV4 = rf"^{QUAD}(?:/(?:3[0-2]|[12]?[0-9]))?$"
_RANGE_V4 = rf"^{QUAD}-{QUAD}$"
_IPV6 = r"^[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(?:/(?:12[0-8]|1[01][0-9]|[1-9]?[0-9]))?$"
# Host bits below a prefix, by their number.
_HOSTS_V4 = pl.Series([2**bits - 1 for bits in range(33)], dtype=pl.UInt32)
_HOSTS = pl.Series([2**bits - 1 for bits in range(129)], dtype=pl.UInt128)
_OCTETS = pl.Series([str(octet) for octet in range(256)])
_POWERS = pl.Series([2**bits for bits in range(33)], dtype=pl.Int64)


def parse(text: pl.Series) -> pl.DataFrame:
    """Strict addresses and CIDRs to networks, row by row; what `parse_one` says of each value.

    In: String. Out: `family`, `first`, `last` and `masked: Boolean` (host bits were set, and are cleared), as
    long as the input, all null where the text is no address.
    """
    rows = pl.DataFrame({"text": text}, schema={"text": pl.String})
    quads = rows["text"].str.contains(_IPV4).fill_null(False)
    parsed = _parse_v4(rows if quads.all() else rows.select(pl.when(quads).then("text").alias("text")))
    colons = rows.with_row_index("row").filter(~quads & pl.col("text").str.contains(_IPV6))
    if colons.is_empty():
        return parsed
    found = colons.join(_parse_v6(colons["text"].unique()), on="text")
    return pl.DataFrame([column.scatter(found["row"], found[column.name]) for column in parsed])


def plain_v4(shortest: int) -> str:
    """A pattern of IPv4 text in canonical form, but for a needless /32: an address, or at least `shortest` bits.

    It knows which octets are multiples of the block, so that most text need never become numbers.
    """
    ends = []
    for length in range(shortest, 32):
        whole, bits = divmod(length, 8)
        starts = "|".join(str(octet) for octet in range(0, 256, 1 << (8 - bits)))
        octets = [_OCTET] * whole + [f"(?:{starts})"] + ["0"] * (3 - whole)
        ends.append(r"\.".join(octets) + f"/{length}")
    address = r"\.".join([_OCTET] * 4)
    return f"^(?:{address}(?:/32)?|{'|'.join(ends)})$"


def within_v4(cidrs: Iterable[str]) -> str:
    """A pattern of plain IPv4 text whose lowest address is in one of `cidrs`, none of which is beyond 24 bits."""
    heads = []
    for network in map(ipaddress.IPv4Network, cidrs):
        whole, bits = divmod(network.prefixlen, 8)
        octets = [str(octet) for octet in network.network_address.packed]
        head = octets[:whole]
        if bits:
            first = int(octets[whole])
            head.append("(?:" + "|".join(str(octet) for octet in range(first, first + (1 << (8 - bits)))) + ")")
        heads.append(r"\.".join(head) + r"\.")
    return f"^(?:{'|'.join(heads)})"


def parse_range(text: pl.Series) -> pl.DataFrame:
    """`low-high`, two bare addresses of one family, no blanks, to networks row by row; columns of `parse`."""
    rows = pl.DataFrame({"text": text}, schema={"text": pl.String})
    quads = rows["text"].str.contains(_RANGE_V4)
    if rows.height and quads.all(ignore_nulls=False):
        both = _parse_range_v4(rows)
    else:
        # What is no pair of quads is IPv6, of which there are few, or nothing.
        bare = pl.when(~pl.col("text").str.contains("/", literal=True)).then("text")
        ends = rows.select(bare.str.splitn("-", 2).struct.rename_fields(["low", "high"]).struct.unnest())
        low, high = parse(ends["low"]), parse(ends["high"])
        alike = low["family"] == high["family"]
        both = low.with_columns(high["last"]).select(pl.when(alike).then(pl.all()))
    good = pl.col("first") <= pl.col("last")
    return both.select(pl.when(good).then(pl.all()))


def _parse_range_v4(rows: pl.DataFrame) -> pl.DataFrame:
    """`text`, two dotted quads with a hyphen between them, to the columns of `parse`, in whatever order they stand."""
    dotted = pl.col("text").str.replace("-", ".", literal=True)
    octets = rows.select(dotted.str.split_exact(".", 7).struct.unnest())
    ends = []
    for four in (octets.columns[:4], octets.columns[4:]):
        value = pl.lit(0, dtype=pl.UInt32)
        for column in four:
            value = value * 256 + pl.col(column).cast(pl.UInt32)
        ends.append(value.cast(pl.UInt128))
    return octets.select(
        pl.lit(4, dtype=pl.UInt8).alias("family"),
        ends[0].alias("first"),
        ends[1].alias("last"),
        pl.lit(False).alias("masked"),
    )


def _parse_v4(rows: pl.DataFrame) -> pl.DataFrame:
    """`text`, dotted quads or null, to the columns of `parse`.

    A million: 155 ms to test by a pattern, split and cast, 240 ms to extract by the same pattern with groups.
    """
    slashed = rows.select(pl.col("text").str.split_exact("/", 1).struct.unnest())
    octets = slashed.select(pl.col("field_0").str.split_exact(".", 3).struct.unnest())
    value = pl.lit(0, dtype=pl.UInt32)
    for column in octets.columns:
        value = value * 256 + pl.col(column).cast(pl.UInt32)
    hosts = _HOSTS_V4.gather(32 - slashed["field_1"].cast(pl.UInt32).fill_null(32))
    numbers = octets.select(value.alias("value")).with_columns(hosts.alias("hosts"))
    inside = (pl.col("value") & pl.col("hosts")) != 0
    low = pl.col("value") - (pl.col("value") & pl.col("hosts"))
    return numbers.select(
        pl.when(pl.col("value").is_not_null()).then(pl.lit(4, dtype=pl.UInt8)).alias("family"),
        low.cast(pl.UInt128).alias("first"),
        (low + pl.col("hosts")).cast(pl.UInt128).alias("last"),
        inside.alias("masked"),
    )


def _parse_v6(text: pl.Series) -> pl.DataFrame:
    """Text that may be IPv6 to `text` and the columns of `parse`, without the rows that are not.

    Value by value, as the columns have no word for it: lists hold few IPv6 networks, and inet_pton takes a
    tenth of what ipaddress takes.
    """
    found: list[tuple[str, int, int, int, bool]] = []
    for line in text:
        address, slash, prefix = line.partition("/")
        try:
            value = int.from_bytes(socket.inet_pton(socket.AF_INET6, address), "big")
        except OSError:
            continue
        family, bits, length = 6, 128, int(prefix) if slash else 128
        if value >> 32 == MAPPED:
            if length < 96:
                continue
            family, bits, value, length = 4, 32, value & 0xFFFF_FFFF, length - 96
        hosts = (1 << (bits - length)) - 1
        found.append((line, family, value & ~hosts, value | hosts, value & hosts != 0))
    schema = {"text": pl.String, **_SCHEMA, "masked": pl.Boolean}
    return pl.DataFrame(found, schema=schema, orient="row")


def text(frame: pl.DataFrame) -> pl.Series:
    """The canonical text of networks that are CIDRs, row by row; a single address is bare.

    In: a networks frame, each row a prefix (`to_cidrs`). Out: String, null for null rows: `192.0.2.1`,
    `192.0.2.0/24`, IPv6 compressed (RFC 5952).
    """
    quads = (frame["family"] == 4).fill_null(False)
    written = _text_v4(frame if quads.all() else frame.select(pl.when(quads).then(pl.col(_AREA))))
    rest = frame.with_row_index("row").filter(_FAMILY == 6).select("row", "first", "last")
    lines = [
        str(ipaddress.IPv6Address(low)) + (f"/{128 - (high - low).bit_count()}" if high > low else "")
        for _, low, high in rest.rows()
    ]
    return written.scatter(rest["row"], pl.Series(lines, dtype=pl.String)) if lines else written


def _text_v4(frame: pl.DataFrame) -> pl.Series:
    low = frame["first"].cast(pl.UInt32)
    hosts = (frame["last"].cast(pl.UInt32) - low).bitwise_count_ones()
    lengths = pl.Series([f"/{32 - bits}" if bits else "" for bits in range(33)])
    parts = [_OCTETS.gather(low // 2**shift % 256).alias(str(shift)) for shift in (24, 16, 8, 0)]
    dotted = pl.concat_str([pl.col(part.name) for part in parts], separator=".")
    return pl.DataFrame([*parts, lengths.gather(hosts).alias("length")]).select(
        pl.concat_str([dotted, "length"]).alias("text")
    )["text"]


def union(frame: pl.DataFrame) -> pl.DataFrame:
    """The same addresses in the fewest ranges, disjoint and not adjacent, sorted. In and out: networks."""
    return pl.concat([_networks(_union(frame, family), family) for family in (4, 6)])


def _networks(ranges: pl.DataFrame, family: int, keep: tuple[str, ...] = ()) -> pl.DataFrame:
    """`first`, `last` as a family counts them, as networks, with the columns `keep`."""
    mine = pl.lit(family, dtype=pl.UInt8).alias("family")
    return ranges.select(mine, pl.col("first", "last").cast(pl.UInt128), *keep)


def _union(frame: pl.DataFrame, family: int) -> pl.DataFrame:
    """`union` of one family's rows: `first`, `last` as the family counts them."""
    mine = frame.filter(family == _FAMILY)
    ranges = mine.select(pl.col("first", "last").cast(_COUNTED[family])).sort("first")
    reach = ranges["last"].cum_max()
    before = reach.shift(1)
    # No sum, so nothing can wrap: the difference only counts where `first` lies beyond what came before.
    opens = ((ranges["first"] > before) & (ranges["first"] - before > _one(family))).fill_null(True)
    closes = opens.shift(-1, fill_value=True)
    return pl.DataFrame({"first": ranges["first"].filter(opens), "last": reach.filter(closes)})


def _one(family: int) -> pl.Series:
    return _ONE.cast(_COUNTED[family])


def subtract(a: pl.DataFrame, b: pl.DataFrame) -> pl.DataFrame:
    """The addresses of `a` that are not in `b`, in the fewest ranges, sorted. In and out: networks."""
    return pl.concat([_networks(_subtract(_union(a, f), _union(b, f), f), f) for f in (4, 6)])


def _subtract(a: pl.DataFrame, b: pl.DataFrame, family: int) -> pl.DataFrame:
    """Sweep over the boundaries: `a` counts 1, `b` counts 2, so that a sum of 1 is `a` alone.

    In and out: what `_union` gives.
    """
    if a.is_empty() or b.is_empty():
        return a
    highest = _HIGHEST if family == 6 else pl.Series([2**32 - 1], dtype=pl.Int64)
    edges = []
    for ranges, weight in ((a, 1), (b, 2)):
        ends = ranges.filter(ranges["last"] < highest)  # what lasts to the highest address never ends
        edges.append(ranges.select(at="first", step=pl.lit(weight, dtype=pl.Int8)))
        edges.append(ends.select(at=_LAST + 1, step=pl.lit(-weight, dtype=pl.Int8)))
    swept = pl.concat(edges).sort("at")
    at, alone = swept["at"], swept["step"].cum_sum() == 1
    # Up to the next boundary; after the last one, only an end that was dropped is still open.
    until = pl.concat([at.slice(1) - _one(family), highest])
    keep = alone & (at.shift(-1) > at).fill_null(True)
    return pl.DataFrame({"first": at.filter(keep), "last": until.filter(keep)})


# What `united` gives: the `union` of each family, as it counts.
United = Mapping[int, pl.DataFrame]


def united(frame: pl.DataFrame) -> United:
    """Networks in which many are looked for, prepared for that once."""
    return {family: _union(frame, family) for family in (4, 6)}


def overlaps(a: pl.DataFrame, b: pl.DataFrame | United) -> pl.Series:
    """Whether each row of `a` shares an address with any of `b`: Boolean, as long as `a`; null rows don't."""
    return _meets(a, b, begun_by="last", reaches="first")


def contains(a: pl.DataFrame, b: pl.DataFrame) -> pl.Series:
    """Whether all addresses of each row of `a` are in `b`: Boolean, as long as `a`; null rows are not."""
    return _meets(a, b, begun_by="first", reaches="last")


def _meets(a: pl.DataFrame, b: pl.DataFrame | United, begun_by: str, reaches: str) -> pl.Series:
    """Whether the last range of `b` that begins by one end of a row reaches the other end."""
    met = pl.repeat(False, a.height, dtype=pl.Boolean, eager=True)
    for family in (4, 6):
        mine = (a["family"] == family).fill_null(False)
        if not mine.any():
            continue
        ranges = _union(b, family) if isinstance(b, pl.DataFrame) else b[family]
        if ranges.is_empty():
            continue
        # Rows of the other family are looked up in vain; cheaper than taking them apart and back together.
        begins, ends = (a[side].cast(_COUNTED[family], strict=False) for side in (begun_by, reaches))
        begun = ranges["first"].search_sorted(begins.fill_null(strategy="zero"), side="right").cast(pl.Int64)
        reach = ranges["last"].gather((begun - 1).clip(lower_bound=0))
        met = met | (mine & (begun > 0) & (reach >= ends).fill_null(False))
    return met


def to_cidrs(frame: pl.DataFrame, keep: tuple[str, ...] = ()) -> pl.DataFrame:
    """Ranges to the fewest CIDRs each, sorted. In and out: networks, and the columns `keep` of each range.

    For the fewest over all rows, take the `union` first.
    """
    rows = frame.select(*_AREA, *keep).drop_nulls(_AREA)
    v4 = rows.filter(_FAMILY == 4).with_columns(pl.col("first", "last").cast(_COUNTED[4]))
    families = ((4, _cidrs_v4(v4, keep)), (6, _cidrs_v6(rows.filter(_FAMILY == 6), keep)))
    # A million: 0.1 s to sort by one column, 0.5 s by two.
    parts = (_networks(pl.concat(found).sort("first"), family, keep) for family, found in families if found)
    return pl.concat([rows.clear(), *parts])


def writable_cidrs(area: pl.DataFrame) -> pl.DataFrame:
    """`to_cidrs` of a `union` for a file, without what targets would read as something else.

    - ipset and policy zones know no /0: all of IPv4 becomes two halves, each of which a rule may deny.
    - ::ffff:0:0/96 is left out of IPv6. HAProxy and rspamd look IPv4 addresses up there too, so that a deny of ::/8
      would block all of IPv4; what lists or rules say of mapped addresses is IPv4 already.
    """
    low = area.filter((_FAMILY == 6) & (pl.col("first") <= _MAPPED["last"]))
    if low.height and overlaps(low, _MAPPED).any():
        area = subtract(area, _MAPPED)
    cidrs = to_cidrs(area)
    four = cidrs.filter(_FAMILY == 4)
    if four.height == 1 and text(four).item() == "0.0.0.0/0":
        halves = parse(pl.Series(["0.0.0.0/1", "128.0.0.0/1"])).select(_AREA)
        return pl.concat([halves, cidrs.filter(_FAMILY == 6)])
    return cidrs


def _cidrs_v4(rows: pl.DataFrame, keep: tuple[str, ...]) -> list[pl.DataFrame]:
    """`to_cidrs` of IPv4, a frame a size of block, unsorted; `first`, `last` as the family counts them.

    `middle` is the address of the range, or the one behind it, with the most zeros at its end. What lies before and
    behind it are sums of powers of two, a block each: before it they grow towards it, behind it they shrink.
    """
    alone = rows["first"] == rows["last"]  # as most are
    found = [rows.filter(alone).select("first", "last", *keep)]
    rows = rows.filter(~alone)
    first, end = rows["first"], rows["last"] + 1
    highest = _POWERS.gather(63 - (first ^ end).bitwise_leading_zeros())  # the highest bit in which they differ
    middle = end - (end & (highest - 1))
    before, behind = middle - first, end - middle
    for bits in range(33):
        block = 1 << bits
        for part, begin in (
            (before, first + (before & (block - 1))),
            (behind, end - (behind & (2 * block - 1))),
        ):
            has = (part & block) != 0
            if not has.any():
                continue
            low = begin.filter(has)
            ranges = (low.alias("first"), (low + (block - 1)).alias("last"))
            found.append(rows.filter(has).select(*ranges, *keep))
    return found


def _cidrs_v6(rows: pl.DataFrame, keep: tuple[str, ...]) -> list[pl.DataFrame]:
    """`to_cidrs` of IPv6, a frame a turn, unsorted.

    Every turn cuts the largest block off the front of what is left of each range, so there are at most two turns a
    bit of the address, most with few rows.
    """
    found = []
    while rows.height:
        length = rows["last"] - rows["first"]  # the number of addresses less one, which can't overflow
        fits = 127 - (length + _ONE).bitwise_leading_zeros().cast(pl.Int16)
        fits = fits.zip_with(length < _HIGHEST, pl.Series([128], dtype=pl.Int16))
        aligned = rows["first"].bitwise_trailing_zeros().cast(pl.Int16)
        bits = pl.DataFrame({"fits": fits, "aligned": aligned}).select(pl.min_horizontal("fits", "aligned"))
        end = (rows["first"] + _HOSTS.gather(bits.to_series())).alias("end")
        cut = rows.with_columns(end)
        found.append(cut.select("first", pl.col("end").alias("last"), *keep))
        rows = cut.filter(pl.col("end") < _LAST).select((pl.col("end") + 1).alias("first"), "last", *keep)
    return found


def singles(frame: pl.DataFrame) -> pl.DataFrame:
    """Every address of `frame` by itself, in its order. In and out: networks; as many rows as there are addresses."""
    if (frame["first"] == frame["last"]).all():
        return frame.select(_AREA)
    size = (frame["last"] - frame["first"]).cast(pl.Int64) + 1
    spread = frame.select("family", "first", pl.int_ranges(0, size).alias("step")).explode("step")
    first = spread["first"] + spread["step"].cast(pl.UInt128)
    return spread.select("family", first.alias("first"), first.alias("last"))
