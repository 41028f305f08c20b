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

from blocklist.catalog import CATEGORIES, KINDS, Feed
from blocklist.ingest.formats import OVERRIDES, SUBTREE
from blocklist.names import DAMAGED, MAX_NAME, Reject, RejectedError, to_ascii
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

# What one mention of a name says, wherever it stands.
OCCURRENCE = tuple(name for name in SCHEMA if name != "line")

_TEXT = pl.col("text")
_NAME = r"^[a-z0-9_-]+(?:\.[a-z0-9_-]+)+$"
_LONG_LABEL = r"[^.]{64}"
_NUMERIC_END = r"(?:^|\.)(?:[0-9]+|0x[0-9a-f]*)$"
_SPECIAL = r"(?:^|\.)(?:" + "|".join(sorted(n.replace(".", r"\.") for n in LOCAL_NAMES | ENGINE_LABELS)) + r")$"
_ENGINE = r"\.(?:" + "|".join(sorted(ENGINE_LABELS)) + r")$"
_ADDRESS = r"^(?:[0-9.]+(?:/[0-9]*)?|[0-9a-fA-F.]*:[0-9a-fA-F:.]*(?:%[^/]*)?(?:/[0-9]*)?)$"
_WITH_PORT = r"^[0-9A-Za-z._-]+:[0-9]{1,5}$"
_URL_PARTS = (
    r"^([A-Za-z][A-Za-z0-9+.-]*)://(?:[^/?#@\\]*@)?(\[[0-9A-Fa-f:.]+\]|[^/:?#\[\]]*)(?::([0-9]{0,5}))?([/?#].*)?$"
)
# RFC 3986 §3.3, §3.4: path and query. Quotes, braces, brackets, backslash, space, controls and what is not ASCII
# have no business in an export.
_URL_REST = r"^(?:[A-Za-z0-9._~:/?@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*$"
_HOST_ALONE = r"^/?\??#?$"
_DEFAULT_PORTS = {"http": 80, "https": 443, "ftp": 21}


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
    if "confidence" not in rows.columns:
        rows = rows.with_columns(pl.lit(None, pl.UInt8).alias("confidence"))
    if "category" in rows.columns:
        category = pl.col("category").str.to_lowercase()
        rows = rows.with_columns(pl.when(category.is_in(CATEGORIES)).then(category).alias("category"))
    rows = rows.with_columns(_extra(rows).alias("extra")).select("number", "text", "subtree", "confidence", "extra")
    out = Normalized(pl.DataFrame(schema=SCHEMA))
    if _beyond_ascii(rows["text"]).any():
        damaged = rows["text"].str.contains(DAMAGED, literal=True)
        _count(out.rejects, Reject.ENCODING, int(damaged.sum()))
        rows = rows.filter(~damaged)
    # One cheap look decides how a row is read: most feeds are wholly names or wholly addresses.
    slash = rows["text"].str.contains("/", literal=True)
    address = rows["text"].str.contains(_ADDRESS)
    url = slash & ~address & rows["text"].str.contains("://", literal=True)
    path = slash & ~address & ~url
    if path.any():
        _count(out.rejects, Reject.UNSUPPORTED, int(path.sum()))
    parts: list[pl.DataFrame] = []
    names, addresses = rows.filter(~(slash | address)), rows.filter(address)
    if url.any():
        urls, hosts = _urls(rows.filter(url), feed)
        _count(out.rejects, Reject.BAD_URL, int(url.sum()) - urls.height - hosts.height)
        parts.append(_indicators(urls, URL))
        at = hosts["text"].str.contains(_ADDRESS)
        names, addresses = names.vstack(hosts.filter(~at)), addresses.vstack(hosts.filter(at))
        names, addresses = names.rechunk(), addresses.rechunk()
    if names.height:
        parts.append(_indicators(_names(names, out.rejects), DOMAIN))
    if addresses.height:
        judged = _addresses(addresses, out.rejects)
        out.masked += int(judged["masked"].sum())
        kind = pl.when(pl.col("family") == 4).then(pl.lit(IPV4)).otherwise(pl.lit(IPV6))
        parts.append(_indicators(judged, kind))
    frame = pl.concat([p for p in parts if p.height] or [pl.DataFrame(schema=SCHEMA)])
    if feed.kinds:
        wanted = frame["kind"].is_in([KIND[k] for k in feed.kinds])
        _count(out.rejects, Reject.UNWANTED_KIND, frame.height - int(wanted.sum()))
        frame = frame.filter(wanted)
    for kind, count in frame["kind"].value_counts().iter_rows():
        out.kinds[KINDS[kind - 1]] = count
    out.frame = frame
    return out


def unique(frame: pl.DataFrame, confidence: int) -> pl.DataFrame:
    """Indicators sorted by name, duplicates joined: first line, widest scope, highest confidence, first overrides.

    `confidence` is the feed's, which a row without one of its own has.
    """
    frame = frame.sort("name", "line")
    again = frame["name"] == frame["name"].shift(1)
    if not again.fill_null(False).any():
        return frame
    own = pl.col("confidence")
    highest = pl.when(own.has_nulls() & (own.max() <= confidence)).then(None).otherwise(own.max())
    joined = frame.group_by("name", maintain_order=True).agg(
        pl.col("kind").first(),
        pl.col("subtree").any(),
        pl.col("line").first(),
        highest.alias("confidence") if frame["confidence"].null_count() < frame.height else own.first(),
        pl.col("extra").drop_nulls().first(),
    )
    return joined.cast(dict(SCHEMA))  # type: ignore[arg-type]


def occurrences(rows: pl.DataFrame) -> pl.DataFrame:
    """What is said of the names that stand more than once in `rows`: indicators without `line`, not unique.

    With `count: UInt32`, how often just that is said; sorted by name.
    """
    rows = rows.filter(pl.col("name").is_duplicated())
    return rows.group_by(OCCURRENCE).agg(pl.len().cast(pl.UInt32).alias("count")).sort("name")


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


def _beyond_ascii(text: pl.Series) -> pl.Series:
    return text.str.len_bytes() != text.str.len_chars()


def _names(rows: pl.DataFrame, rejects: dict[Reject, int]) -> pl.DataFrame:
    """Rows whose `text` is a domain name, in canonical form; reasons in the order of `names.normalize_name`."""
    foreign = _beyond_ascii(rows["text"])
    if foreign.any():
        rows = _idn(rows, foreign, rejects)
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
        _count_refused_names(rows.filter(~good), rejects)
        rows = rows.filter(good)
    return rows


def _idn(rows: pl.DataFrame, foreign: pl.Series, rejects: dict[Reject, int]) -> pl.DataFrame:
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
    _count(rejects, Reject.IDN, done["ascii"].null_count())
    done = done.drop_nulls("ascii").with_columns(pl.col("ascii").alias("text")).drop("ascii")
    return pl.concat([rows.filter(~foreign), done], rechunk=True)


def _count_refused_names(rows: pl.DataFrame, rejects: dict[Reject, int]) -> None:
    reason = (
        # A name with a port is a good indicator of a kind that no format can express yet.
        pl.when(_TEXT.str.contains(_WITH_PORT))
        .then(pl.lit(Reject.UNSUPPORTED.value))
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
        _count(rejects, Reject(value), count)


def _not_global() -> pl.DataFrame:
    return networks.parse(pl.Series([*NOT_GLOBAL_V4, *NOT_GLOBAL_V6]))


def _addresses(rows: pl.DataFrame, rejects: dict[Reject, int]) -> pl.DataFrame:
    """Rows whose `text` is an address or network of global unicast, in canonical form, with `family` and `masked`."""
    rows = pl.concat([rows, networks.parse(rows["text"])], how="horizontal")
    bad = rows["family"].is_null()
    port = bad & rows["text"].str.contains(_WITH_PORT)
    _count(rejects, Reject.UNSUPPORTED, int(port.sum()))
    _count(rejects, Reject.BAD_ADDRESS, int(bad.sum()) - int(port.sum()))
    rows = rows.filter(~bad)
    # `::ffff:0.0.0.0/96` is all of IPv4 as well.
    whole = rows["text"].str.ends_with("/0") | (rows["text"].str.ends_with("/96") & (rows["family"] == 4))
    _count(rejects, Reject.WHOLE_INTERNET, int(whole.sum()))
    rows = rows.filter(~whole)
    area = rows.select("family", "first", "last")
    local = networks.overlaps(area, _not_global())
    _count(rejects, Reject.NOT_GLOBAL, int(local.sum()))
    return rows.with_columns(networks.text(area).alias("text")).filter(~local)


def _urls(rows: pl.DataFrame, feed: Feed) -> tuple[pl.DataFrame, pl.DataFrame]:
    """URL indicators, and the rows whose URL stands for its host (nothing after it, or the feed says so).

    Comparison ignores scheme and default port (semantics), so the canonical form begins with `//`; a fragment
    never reaches a server or proxy. `blocklist.audit.recognise` does the same for one value.
    """
    groups = _TEXT.str.extract_groups(_URL_PARTS)
    scheme, port, rest = pl.col("scheme"), pl.col("port"), pl.col("rest")
    columns = ["number", "text", "subtree", "confidence", "extra"]
    rows = rows.with_columns(
        groups.struct.field("1").str.to_lowercase().str.replace("^hxxp", "http").alias("scheme"),
        groups.struct.field("2").str.strip_chars("[]").alias("text"),
        groups.struct.field("3").cast(pl.UInt32, strict=False).alias("port"),
        groups.struct.field("4").fill_null("").alias("rest"),
    ).filter(_TEXT != "", scheme.is_in(list(_DEFAULT_PORTS)), (port <= 65_535).fill_null(True))
    alone = rows["rest"].str.contains(_HOST_ALONE) | feed.url_hosts
    hosts = rows.filter(alone).select(columns)
    urls = rows.filter(~alone).with_columns(rest.str.replace(r"#.*$", ""))
    urls = urls.filter(rest.str.contains(_URL_REST))
    # The host is judged as a name or address of its own, so that a URL can't smuggle in what those refuse.
    refused: dict[Reject, int] = {}
    at = urls["text"].str.contains(_ADDRESS)
    parts = [_names(urls.filter(~at), refused), _addresses(urls.filter(at), refused).select(urls.columns)]
    # In one piece: over columns in unlike pieces, Polars 2.1 panics below (`i < self.len()`).
    urls = pl.concat(parts, rechunk=True)
    host = pl.when(_TEXT.str.contains(":", literal=True)).then("[" + _TEXT + "]").otherwise(_TEXT)
    default = scheme.replace_strict(_DEFAULT_PORTS, return_dtype=pl.UInt32)
    shown = pl.when(port != default).then(pl.format(":{}", port)).otherwise(pl.lit(""))
    slash = pl.when(rest.str.starts_with("/")).then(pl.lit("")).otherwise(pl.lit("/"))
    return urls.select(
        "number", pl.concat_str(pl.lit("//"), host, shown, slash, rest).alias("text"), *columns[2:]
    ), hosts


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
