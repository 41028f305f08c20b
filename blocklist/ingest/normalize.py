"""Text to indicators in columns: the same decisions as `blocklist.names`, a whole feed at a time.

An *indicators* frame, sorted by `name` and unique in it:

| column | dtype | meaning |
|---|---|---|
| name | String | A-label name; network in canonical text, a single address bare; URL as `//host[:port]/path` |
| kind | UInt8 | code of `KIND` |
| subtree | Boolean | scope: the name and everything below, or the name alone |
| line | UInt32 | first line of the snapshot that names it |
| confidence | UInt8 | of the row, null where the feed's holds |
| extra | String | JSON object of the row's other overrides, null where it has none |
"""

from __future__ import annotations

from dataclasses import dataclass, field

import polars as pl

from blocklist.catalog import KINDS, Feed
from blocklist.ingest.formats import OVERRIDES, SUBTREE
from blocklist.names import MAX_NAME, Reject, RejectedError, to_ascii
from blocklist.select import networks
from blocklist.special_use import ENGINE_LABELS, LOCAL_NAMES, NOT_GLOBAL_V4, NOT_GLOBAL_V6

KIND = {kind: code for code, kind in enumerate(KINDS, start=1)}
DOMAIN, IPV4, IPV6, URL = (KIND[kind] for kind in KINDS)

SCHEMA = pl.Schema(
    {
        "name": pl.String,
        "kind": pl.UInt8,
        "subtree": pl.Boolean,
        "line": pl.UInt32,
        "confidence": pl.UInt8,
        "extra": pl.String,
    }
)

_TEXT = pl.col("text")
_NAME = r"^[a-z0-9_-]+(?:\.[a-z0-9_-]+)+$"
_LONG_LABEL = r"[^.]{64}"
_NUMERIC_END = r"(?:^|\.)(?:[0-9]+|0x[0-9a-f]*)$"
_SPECIAL = (
    r"(?:^|\.)(?:" + "|".join(sorted(n.replace(".", r"\.") for n in LOCAL_NAMES | ENGINE_LABELS)) + r")$"
)
_ENGINE = r"\.(?:" + "|".join(sorted(ENGINE_LABELS)) + r")$"
_ADDRESS = r"^(?:[0-9.]+(?:/[0-9]*)?|[0-9a-fA-F.]*:[0-9a-fA-F:.]*(?:%[^/]*)?(?:/[0-9]*)?)$"
_WITH_PORT = r"^[0-9]{1,3}(?:\.[0-9]{1,3}){3}:[0-9]{1,5}$"
# RFC 3986 characters; quotes, angle brackets, backslash, space and controls have no business in an export.
_URL = r"^[!#$%&'()*+,./0-9:;=?@A-Z\[\]_a-z{|}~^-]+$"
_URL_PARTS = r"^([A-Za-z][A-Za-z0-9+.-]*)://(?:[^/?#@]*@)?(\[[0-9A-Fa-f:.]+\]|[^/:?#\[\]]*)(?::([0-9]{0,5}))?([/?#].*)?$"
_DEFAULT_PORTS = {"http": "80", "https": "443", "ftp": "21"}


@dataclass
class Normalized:
    """Indicators of a chunk or a feed (`frame`, not yet unique), and what was refused, by reason.

    `kinds` counts accepted rows by kind, before duplicates are joined.
    """

    frame: pl.DataFrame
    rejects: dict[Reject, int] = field(default_factory=dict)
    kinds: dict[str, int] = field(default_factory=dict)
    masked: int = 0


def normalize(rows: pl.DataFrame, feed: Feed, format_name: str) -> Normalized:
    """Rows of a format (`number`, `text`, maybe `subtree` and overrides) as indicators of `feed`."""
    if "subtree" not in rows.columns or feed.scope is not None:
        subtree = feed.scope == "subtree" if feed.scope else format_name in SUBTREE
        rows = rows.with_columns(pl.lit(subtree).alias("subtree"))
    rows = rows.with_columns(
        *(pl.lit(None, pl.UInt8).alias("confidence") for _ in "x" if "confidence" not in rows.columns),
        _extra(rows).alias("extra"),
    ).select("number", "text", "subtree", "confidence", "extra")
    out = Normalized(pl.DataFrame(schema=SCHEMA))
    # One cheap look decides how a row is read: most feeds are wholly names or wholly addresses.
    slash = rows["text"].str.contains("/", literal=True)
    address = rows["text"].str.contains(_ADDRESS)
    url = slash & ~address & rows["text"].str.contains("://", literal=True)
    path = slash & ~address & ~url
    if path.any():
        _count(out.rejects, Reject.UNSUPPORTED, int(path.sum()))
    parts: list[pl.DataFrame] = []
    names = rows.filter(~(slash | address))
    if url.any():
        urls, hosts = _urls(rows.filter(url), feed, out)
        parts.append(urls)
        at = hosts["text"].str.contains(_ADDRESS)
        names = pl.concat([names, hosts.filter(~at)])
        parts.append(_addresses(hosts.filter(at), out))
    if names.height:
        parts.append(_names(names, out))
    if address.any():
        parts.append(_addresses(rows.filter(address), out))
    frame = pl.concat([p for p in parts if p.height] or [pl.DataFrame(schema=SCHEMA)])
    if feed.kinds:
        wanted = frame["kind"].is_in([KIND[k] for k in feed.kinds])
        _count(out.rejects, Reject.UNWANTED_KIND, frame.height - int(wanted.sum()))
        frame = frame.filter(wanted)
    for kind, count in frame["kind"].value_counts().iter_rows():
        out.kinds[KINDS[kind - 1]] = count
    out.frame = frame
    return out


def unique(frame: pl.DataFrame) -> pl.DataFrame:
    """Indicators sorted by name, duplicates joined: first line, widest scope, highest confidence, first overrides."""
    frame = frame.sort("name", "line")
    again = frame["name"] == frame["name"].shift(1)
    if not again.fill_null(False).any():
        return frame
    joined = frame.group_by("name", maintain_order=True).agg(
        pl.col("kind").first(),
        pl.col("subtree").any(),
        pl.col("line").first(),
        pl.col("confidence").max(),
        pl.col("extra").drop_nulls().first(),
    )
    return joined.cast(dict(SCHEMA))  # type: ignore[arg-type]


def _extra(rows: pl.DataFrame) -> pl.Expr:
    present = [name for name in OVERRIDES if name in rows.columns and name != "confidence"]
    if not present:
        return pl.lit(None, pl.String)
    return (
        pl.when(pl.any_horizontal(pl.col(name).is_not_null() for name in present))
        .then(pl.struct(present).struct.json_encode())
        .otherwise(None)
    )


def _count(rejects: dict[Reject, int], reason: Reject, count: int) -> None:
    if count:
        rejects[reason] = rejects.get(reason, 0) + count


def _names(rows: pl.DataFrame, out: Normalized) -> pl.DataFrame:
    """Domain names; reasons of refusal in the order of `blocklist.names.normalize_name`."""
    foreign = rows["text"].str.len_bytes() != rows["text"].str.len_chars()
    if foreign.any():
        rows = _idn(rows, foreign, out)
    rows = rows.with_columns(_TEXT.str.to_lowercase().str.strip_suffix("."))
    text = rows["text"]
    good = (
        text.str.contains(_NAME)
        & (text.str.len_bytes() <= MAX_NAME)
        & ~text.str.contains(_LONG_LABEL)
        & ~text.str.contains(_NUMERIC_END)
        & ~text.str.contains(_SPECIAL)
    )
    if not good.all():
        _count_refused_names(rows.filter(~good), out)
        rows = rows.filter(good)
    return _indicators(rows, DOMAIN)


def _idn(rows: pl.DataFrame, foreign: pl.Series, out: Normalized) -> pl.DataFrame:
    """Rows with names beyond ASCII as A-labels; the few distinct ones go one by one through the definition."""
    texts = rows.filter(foreign)["text"].unique()
    encoded: list[str | None] = []
    for text in texts:
        try:
            encoded.append(to_ascii(text.removesuffix(".")))
        except RejectedError:
            encoded.append(None)
    table = pl.DataFrame({"text": texts, "ascii": pl.Series(encoded, dtype=pl.String)})
    done = rows.filter(foreign).join(table, on="text", how="left", maintain_order="left")
    _count(out.rejects, Reject.IDN, done["ascii"].null_count())
    done = done.drop_nulls("ascii").with_columns(pl.col("ascii").alias("text")).drop("ascii")
    return pl.concat([rows.filter(~foreign), done])


def _count_refused_names(rows: pl.DataFrame, out: Normalized) -> None:
    reason = (
        pl.when(_TEXT.str.contains("\ufffd", literal=True))
        .then(pl.lit(Reject.ENCODING.value))
        .when(_TEXT.str.len_bytes() > MAX_NAME)
        .then(pl.lit(Reject.TOO_LONG.value))
        .when(~_TEXT.str.contains(r"^[a-z0-9_-]+(?:\.[a-z0-9_-]+)*$"))
        .then(pl.lit(Reject.SYNTAX.value))
        .when(~_TEXT.str.contains(".", literal=True))
        .then(pl.lit(Reject.SINGLE_LABEL.value))
        .when(_TEXT.str.contains(_LONG_LABEL))
        .then(pl.lit(Reject.TOO_LONG.value))
        .when(_TEXT.str.contains(_NUMERIC_END))
        .then(pl.lit(Reject.LOOKALIKE.value))
        .when(_TEXT.str.contains(_ENGINE))
        .then(pl.lit(Reject.ENGINE_SYNTAX.value))
        .otherwise(pl.lit(Reject.LOCAL_NAME.value))
        .alias("reason")
    )
    for value, count in rows.select(reason)["reason"].value_counts().iter_rows():
        _count(out.rejects, Reject(value), count)


def _not_global() -> pl.DataFrame:
    return networks.parse(pl.Series([*NOT_GLOBAL_V4, *NOT_GLOBAL_V6]))


def _addresses(rows: pl.DataFrame, out: Normalized) -> pl.DataFrame:
    """Addresses and networks, masked to their prefix; what is not global unicast is refused."""
    parsed = networks.parse(rows["text"])
    rows = pl.concat([rows, parsed], how="horizontal")
    bad = rows["family"].is_null()
    # An address with a port is a good indicator of a kind that this format can't express.
    port = bad & rows["text"].str.contains(_WITH_PORT)
    _count(out.rejects, Reject.UNSUPPORTED, int(port.sum()))
    _count(out.rejects, Reject.BAD_ADDRESS, int(bad.sum()) - int(port.sum()))
    rows = rows.filter(~bad)
    whole = rows["text"].str.ends_with("/0")
    _count(out.rejects, Reject.WHOLE_INTERNET, int(whole.sum()))
    rows = rows.filter(~whole)
    local = networks.overlaps(rows.select("family", "first", "last"), _not_global())
    _count(out.rejects, Reject.NOT_GLOBAL, int(local.sum()))
    rows = rows.filter(~local)
    out.masked += int(rows["masked"].sum())
    canonical = networks.text(rows.select("family", "first", "last"))
    return _indicators(
        rows.with_columns(canonical.alias("text")),
        pl.when(pl.col("family") == 4).then(pl.lit(IPV4)).otherwise(pl.lit(IPV6)),
    )


def _urls(rows: pl.DataFrame, feed: Feed, out: Normalized) -> tuple[pl.DataFrame, pl.DataFrame]:
    """URL indicators, and the rows whose URL stands for its host (nothing after it, or the feed says so).

    Comparison ignores scheme and default port (semantics), so the canonical form begins with `//`.
    """
    groups = _TEXT.str.extract_groups(_URL_PARTS)
    rows = rows.with_columns(
        groups.struct.field("1").str.to_lowercase().alias("scheme"),
        groups.struct.field("2").str.strip_chars("[]").alias("host"),
        groups.struct.field("3").alias("port"),
        groups.struct.field("4").fill_null("").str.replace(r"#.*$", "").alias("rest"),
    )
    good = (
        rows["host"].is_not_null()
        & (rows["host"] != "")
        & rows["scheme"].is_in([*_DEFAULT_PORTS, "hxxp", "hxxps"])
    )
    default = pl.col("scheme").str.replace("hxxp", "http").replace_strict(_DEFAULT_PORTS, default=None)
    rows = rows.with_columns(
        pl.when((pl.col("port") == "") | (pl.col("port") == default))
        .then(None)
        .otherwise(pl.col("port"))
        .alias("port")
    )
    bare = rows["rest"].is_in(["", "/"])
    as_host = good & (bare | feed.url_hosts)
    hosts = rows.filter(as_host).with_columns(pl.col("host").alias("text"))
    hosts = hosts.select("number", "text", "subtree", "confidence", "extra")
    urls = rows.filter(good & ~as_host)
    # The host is judged as a name or address of its own, so that a URL can't smuggle in what those refuse.
    urls = urls.with_columns(urls["host"].str.to_lowercase().str.strip_suffix(".").alias("host"))
    host = urls["host"]
    address = networks.parse(host)
    host_good = (
        (
            host.str.contains(_NAME)
            & (host.str.len_bytes() <= MAX_NAME)
            & ~host.str.contains(_LONG_LABEL)
            & ~host.str.contains(_NUMERIC_END)
            & ~host.str.contains(_SPECIAL)
        )
        | address["family"].is_not_null()
    ) & urls["rest"].str.contains(_URL)
    _count(out.rejects, Reject.BAD_URL, rows.height - int(as_host.sum()) - int(host_good.sum()))
    urls = urls.filter(host_good)
    shown = (
        pl.when(pl.col("host").str.contains(":", literal=True))
        .then("[" + pl.col("host") + "]")
        .otherwise(pl.col("host"))
    )
    rest = pl.when(pl.col("rest").str.starts_with("/")).then(pl.col("rest")).otherwise("/" + pl.col("rest"))
    port = pl.when(pl.col("port").is_null()).then(pl.lit("")).otherwise(":" + pl.col("port"))
    urls = urls.with_columns(("//" + shown + port + rest).alias("text"))
    return _indicators(urls, URL), hosts


def _indicators(rows: pl.DataFrame, kind: int | pl.Expr) -> pl.DataFrame:
    """Rows as indicators; scope is a property of names only."""
    names = isinstance(kind, int) and kind == DOMAIN
    code = pl.lit(kind) if isinstance(kind, int) else kind
    subtree = pl.col("subtree") if names else pl.lit(False)
    return rows.select(
        _TEXT.alias("name"),
        code.cast(pl.UInt8).alias("kind"),
        subtree.alias("subtree"),
        pl.col("number").cast(pl.UInt32).alias("line"),
        "confidence",
        "extra",
    )
