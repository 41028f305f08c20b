"""What a row says beyond its feed, judged: category, dates, marking, tags, legal basis; and the kind it claims.

An override that can't be read costs itself and is counted, never the row.
"""

from __future__ import annotations

import msgspec
import polars as pl

from blocklist.catalog import CATEGORIES, KINDS, TLP
from blocklist.ingest.dates import read_dates
from blocklist.ingest.formats import OVERRIDES
from blocklist.ingest.refused import Refused
from blocklist.names import Reject

# Longer reasons are cut: a feed may not fill the record with prose.
MAX_TEXT = 500
_MAX_TAGS = 20
_SAID = tuple(name for name in OVERRIDES if name != "confidence")

# What publishers call our kinds; a bit each. MISP and STIX type names among them.
_BIT = {kind: 1 << i for i, kind in enumerate(KINDS)}
_NAME, _V4, _V6, _URL = (_BIT[kind] for kind in KINDS)
_CLAIMS = {
    **dict.fromkeys(("domain", "hostname", "host", "fqdn", "domain-name", "name", "dns"), _NAME),
    **dict.fromkeys(("ip", "address", "cidr", "network", "netblock", "ip-src", "ip-dst", "ip_address"), _V4 | _V6),
    **dict.fromkeys(("ipv4", "ip4", "ipv4-addr", "ipv4addr"), _V4),
    **dict.fromkeys(("ipv6", "ip6", "ipv6-addr", "ipv6addr"), _V6),
    **dict.fromkeys(("url", "uri", "link"), _URL),
    **dict.fromkeys(("domain|ip", "any"), _NAME | _V4 | _V6 | _URL),
}


class Meaning(msgspec.Struct):
    """`rows` with `extra` (JSON of what each says, null where nothing), where they have columns of `OVERRIDES`.

    `notes` counts overrides that could not be read, by what they should have been.
    """

    rows: pl.DataFrame
    rejects: Refused = msgspec.field(default_factory=Refused)
    notes: dict[str, int] = msgspec.field(default_factory=dict)


def judge(rows: pl.DataFrame) -> Meaning:
    """Rows of a format (`text`, maybe `kind` and overrides) with their overrides validated and packed into `extra`."""
    out = Meaning(rows)
    if "kind" in rows.columns:
        out.rows = _claimed(rows, out.rejects)
    present = [name for name in _SAID if name in rows.columns]
    if not present:
        return out
    said = pl.DataFrame([_said(name, out.rows[name], out.notes).alias(name) for name in present])
    extra = said.select(
        pl.when(pl.any_horizontal(pl.all().is_not_null()))
        .then(pl.struct(pl.all()).struct.json_encode())
        .otherwise(None)
    ).to_series()
    out.rows = out.rows.with_columns(extra.alias("extra"))
    return out


def _claimed(rows: pl.DataFrame, rejects: Refused) -> pl.DataFrame:
    """Rows whose text has the shape of the kind they claim; a claim of what no format can express is unsupported."""
    told = rows["kind"].str.strip_chars().str.to_lowercase().replace("", None)
    claim = told.replace_strict(_CLAIMS, default=0, return_dtype=pl.UInt8).fill_null(0xFF)
    claim = pl.select(pl.when(told.is_null()).then(pl.lit(0xFF, pl.UInt8)).otherwise(claim)).to_series()
    text = pl.col("text")
    colon = text.str.contains(":", literal=True)
    shape = (
        pl.when(text.str.contains("://", literal=True))
        .then(pl.lit(_URL))
        # `::ffff:192.0.2.1` is written as one family and is the other.
        .when(text.str.contains(r"^[0-9a-fA-F.]*:[0-9a-fA-F:]*\.[0-9.]+(?:/[0-9]+)?$"))
        .then(pl.lit(_V4 | _V6))
        .when(text.str.contains(r"^[0-9a-fA-F:]+(?:%[^/]*)?(?:/[0-9]+)?$") & colon)
        .then(pl.lit(_V6))
        .when(text.str.contains(r"^[0-9.]+(?:[/:-][0-9./-]*)?$"))
        .then(pl.lit(_V4))
        .otherwise(pl.lit(_NAME))
    )
    shapes = rows.select(shape.cast(pl.UInt8)).to_series()
    unknown = claim == 0
    other = ~unknown & ((claim & shapes) == 0)
    for reason, refused in ((Reject.UNSUPPORTED, unknown), (Reject.OTHER_KIND, other)):
        rejects.refuse(reason, rows["number"].filter(refused))
    return rows.filter(~(unknown | other))


def _said(name: str, values: pl.Series, notes: dict[str, int]) -> pl.Series:
    if name == "tags":
        return _tags(values)
    given = values.cast(pl.String).str.strip_chars().replace("", None)
    if name in ("date", "expires"):
        read = read_dates(given)
    elif name == "category":
        folded = given.str.to_lowercase()
        # A publisher's own word for a category is no mistake: the feed's holds then.
        return pl.select(pl.when(folded.is_in(CATEGORIES)).then(folded)).to_series()
    elif name == "tlp":
        # TLP 2.0 calls clear what TLP 1.0 called white (first.org/tlp).
        folded = given.str.to_lowercase().str.strip_prefix("tlp:").str.strip_chars().replace("white", "clear")
        read = pl.select(pl.when(folded.is_in(TLP)).then(folded)).to_series()
    else:
        return given.str.slice(0, MAX_TEXT)
    if lost := read.null_count() - given.null_count():
        notes[f"unreadable {name}"] = notes.get(f"unreadable {name}", 0) + lost
    return read


def _tags(values: pl.Series) -> pl.Series:
    """List(String): without empty ones and repetitions, null where none is left."""
    if values.dtype == pl.String:
        values = values.str.replace_all(r"[;|]", ",").str.split(",")
    lists = values.cast(pl.List(pl.String)).list.eval(
        pl.element().str.strip_chars().str.slice(0, 64).filter(pl.element().str.strip_chars() != "")
    )
    lists = lists.list.unique(maintain_order=True).list.head(_MAX_TAGS)
    return pl.select(pl.when(lists.list.len() > 0).then(lists)).to_series()
