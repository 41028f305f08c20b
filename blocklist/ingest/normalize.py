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

import functools
import re
from collections.abc import Collection

import msgspec
import polars as pl

from blocklist.catalog import KINDS, Feed
from blocklist.errors import FeedError
from blocklist.ingest.formats import SUBTREE
from blocklist.ingest.meaning import judge
from blocklist.ingest.refused import Refused
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

NONE = pl.DataFrame(schema=SCHEMA)

# What one mention of a name says, wherever it stands.
OCCURRENCE = tuple(name for name in SCHEMA if name != "line")

_TEXT = pl.col("text")
_NAME = r"^[a-z0-9_-]+(?:\.[a-z0-9_-]+)+$"
_LONG_LABEL = r"[^.]{64}"
_NUMERIC_END = r"(?:^|\.)(?:[0-9]*-?[0-9]*|0x[0-9a-f]*)$"
_SPECIAL = r"(?:^|\.)(?:" + "|".join(sorted(n.replace(".", r"\.") for n in LOCAL_NAMES | ENGINE_LABELS)) + r")$"
_ENGINE = r"\.(?:" + "|".join(sorted(ENGINE_LABELS)) + r")$"
_ADDRESS = r"^(?:[0-9.]+(?:/[0-9]*)?|[0-9a-fA-F.]*:[0-9a-fA-F:.]*(?:%[^/]*)?(?:/[0-9]*)?)$"
_RANGE = r"^(?:[0-9.]+[ \t]*-[ \t]*[0-9.]+|[0-9a-f:.]*:[0-9a-f:.]*[ \t]*-[ \t]*[0-9a-f:.]*:[0-9a-f:.]*)$"
# IPv4 as it is kept, but for a needless /32: all that most lists of addresses hold.
_PLAIN_V4 = networks.plain_v4(24)
# A network of at least 24 bits lies in one of these, which are wider, or beside all of them.
_PLAIN_NOT_GLOBAL = networks.within_v4(NOT_GLOBAL_V4)
# A range is at most 62 networks of IPv4, 254 of IPv6; a block of lines that are all so is no list but an attack.
_MAX_CIDRS = 5_000_000
_FAMILY_KIND = pl.when(pl.col("family") == 4).then(pl.lit(IPV4)).otherwise(pl.lit(IPV6))
_WITH_PORT = r"^[0-9A-Za-z._-]+:[0-9]{1,5}$"
_URL_PARTS = (
    r"^([A-Za-z][A-Za-z0-9+.-]*)://(?:[^/?#@\\]*@)?(\[[0-9A-Fa-f:.]+\]|[^/:?#\[\]]*)(?::([0-9]{0,5}))?([/?#].*)?$"
)
# RFC 3986 §3.3, §3.4: path and query. Quotes, braces, brackets, backslash, space, controls and what is not ASCII
# have no business in an export.
_URL_REST = r"^(?:[A-Za-z0-9._~:/?@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*$"
# What most URLs are: a name or IPv4 address that no other rule can refuse but `_PLAIN_LOCAL`, no default port, a path,
# no fragment. Such a one is kept as it is without its scheme, and need not be taken apart, which costs ten times as
# much.
_PLAIN_URL = (
    rf"^https?://(?:(?:[a-z0-9_-]{{1,63}}\.)+[a-z][a-z0-9_-]{{0,62}}|{networks.QUAD})(?::[1-9][0-9]{{0,3}})?/"
    r"\??(?:[A-Za-z0-9._~:/@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})" + _URL_REST[1:]
)
_PLAIN_LOCAL = (
    r"^https?://(?:"
    + _SPECIAL.replace(r"(?:^|\.)", r"(?:[^/]*\.)?").replace("$", r"(?::[0-9]+)?/")
    + f"|{_PLAIN_NOT_GLOBAL.removeprefix('^')}|[^/]*:(?:80|443)/)"
)
_PLAIN_HOST = r"^https?://([a-z0-9_.-]+)(?::[0-9]{1,4})?/?$"
_PLAIN_LENGTH = len("http://") + MAX_NAME
_HOST_ALONE = r"^/?\??#?$"
_BEYOND_ASCII = _TEXT.str.len_bytes() != _TEXT.str.len_chars()
_CANONICAL = _TEXT.str.to_lowercase().str.strip_suffix(".")
_GOOD = (
    _TEXT.str.contains(_NAME)
    & (_TEXT.str.len_bytes() <= MAX_NAME)
    & ~_TEXT.str.contains(_LONG_LABEL)
    & ~_TEXT.str.contains(_NUMERIC_END)
    & ~_TEXT.str.contains(_SPECIAL)
)
_PLAIN_LINK = (
    _TEXT.str.contains(_PLAIN_URL) & (_TEXT.str.len_bytes() <= _PLAIN_LENGTH) & ~_TEXT.str.contains(_PLAIN_LOCAL)
)
_WITHOUT_SCHEME = _TEXT.str.strip_prefix("https:").str.strip_prefix("http:")
_WITHOUT_LENGTH = _TEXT.str.strip_suffix("/32")
_DEFAULT_PORTS = {"http": 80, "https": 443, "ftp": 21}


class Normalized(msgspec.Struct):
    """Indicators of a chunk or a feed (`frame`, not yet unique), and what was refused, by reason.

    `kinds` counts accepted rows by kind, before duplicates are joined; `extra` the networks beyond the first that a
    range of addresses became; `notes` what rows say and nobody can read.
    """

    frame: pl.DataFrame
    rejects: Refused = msgspec.field(default_factory=Refused)
    kinds: dict[str, int] = msgspec.field(default_factory=dict)
    masked: int = 0
    extra: int = 0
    notes: dict[str, int] = msgspec.field(default_factory=dict)


def normalize(rows: pl.DataFrame, feed: Feed, format_name: str) -> Normalized:
    """Rows of a format (`number`, `text`, maybe `subtree` and overrides) as indicators of `feed`."""
    meaning = judge(rows)
    subtree = scope_of(feed, format_name, stated="subtree" in rows.columns)
    known = meaning.rows.columns
    said = [name if name in known else pl.lit(None, SCHEMA[name]).alias(name) for name in ("confidence", "extra")]
    rows = meaning.rows.select("number", "text", subtree, *said)
    out = Normalized(NONE, meaning.rejects, notes=meaning.notes)
    # One cheap look decides how a row is read: most feeds are wholly names or wholly addresses.
    look = rows.select(_BEYOND_ASCII.alias("foreign"), _TEXT.str.contains(_ADDRESS).alias("address"))
    if look["foreign"].any():
        damaged = rows["text"].str.contains(DAMAGED, literal=True)
        out.rejects.refuse(Reject.ENCODING, rows["number"].filter(damaged))
        rows, look = rows.filter(~damaged), look.filter(~damaged)
    address = look["address"]
    addresses, names = (rows, rows.clear()) if address.all() else _parted(rows, address)
    links = names.clear()
    if names.height:
        look = names.select(
            _TEXT.str.contains("/", literal=True).alias("slash"), _TEXT.str.contains("://", literal=True).alias("url")
        )
        if look["slash"].any():
            out.rejects.refuse(Reject.UNSUPPORTED, names["number"].filter(look["slash"] & ~look["url"]))
            links, names = names.filter(look["url"]), names.filter(~look["slash"])
    parts: list[pl.DataFrame] = []
    if links.height:
        urls, hosts = _urls(links, feed, out.rejects)
        parts.append(_indicators(urls, URL))
        at = hosts["text"].str.contains(_ADDRESS)
        names, addresses = names.vstack(hosts.filter(~at)), addresses.vstack(hosts.filter(at))
        names, addresses = names.rechunk(), addresses.rechunk()
    if names.height:
        ranges: list[pl.DataFrame] = []
        # A list of ranges is known by its first row, and need not be looked at as names first.
        if re.match(_RANGE, names["text"][0]) and (spans := names["text"].str.contains(_RANGE)).any():
            ranges.append(names.filter(spans))
            names = names.filter(~spans)
        parts.append(_indicators(_names(names, out.rejects, ranges), DOMAIN))
        for found in ranges:
            cidrs, more = _ranges(found, out.rejects)
            out.extra += more
            parts.append(_indicators(cidrs, _FAMILY_KIND))
    if addresses.height:
        judged = _addresses(addresses, out.rejects)
        out.masked += int(judged["masked"].sum())
        parts.append(_indicators(judged, _FAMILY_KIND))
    parts = [part for part in parts if part.height]
    frame = pl.concat(parts) if len(parts) > 1 else parts[0] if parts else NONE
    if feed.kinds:
        wanted = frame["kind"].is_in([KIND[k] for k in feed.kinds])
        out.rejects.refuse(Reject.UNWANTED_KIND, frame["line"].filter(~wanted))
        frame = frame.filter(wanted)
    for kind, count in frame["kind"].value_counts().iter_rows():
        out.kinds[KINDS[kind - 1]] = count
    out.frame = frame
    return out


def scope_of(feed: Feed, format_name: str, *, stated: bool) -> pl.Expr:
    """`subtree` of names: what the feed says, else the row where that is `stated`, else what the format means."""
    if stated and feed.scope is None:
        return pl.col("subtree")
    return pl.lit(feed.scope == "subtree" if feed.scope else format_name in SUBTREE).alias("subtree")


def plain_kind(kinds: Collection[str]) -> pl.Expr:
    """`code`, that of the kind of `text` (String), null where `normalize` must look at it.

    Others are names, addresses and URLs that no rule refuses or alters, but for what `plain_name` takes off. Those of
    other than `kinds` are not looked for.
    """
    kind = pl.lit(None, pl.UInt8)
    if "url" in kinds:
        # What reports write for a dot may stand in a path.
        url = _PLAIN_LINK & ~_TEXT.str.contains("(.)", literal=True)
        kind = pl.when(url).then(pl.lit(URL, pl.UInt8)).otherwise(kind)
    if "ipv4" in kinds:
        address = _TEXT.str.contains(_PLAIN_V4) & ~_TEXT.str.contains(_PLAIN_NOT_GLOBAL)
        kind = pl.when(address).then(pl.lit(IPV4, pl.UInt8)).otherwise(kind)
    if "domain" in kinds:
        kind = pl.when(_GOOD).then(pl.lit(DOMAIN, pl.UInt8)).otherwise(kind)
    return kind.alias("code")


def host_alone() -> pl.Expr:
    """`text`, but of a URL with nothing after its host that host, for which it stands."""
    host = _TEXT.str.replace(_PLAIN_HOST, "$1")
    return pl.when(_TEXT.str.starts_with("http")).then(host).otherwise(_TEXT).alias("text")


def plain_name(kinds: Collection[str]) -> pl.Expr:
    """`name` of plain `text`, whose `code` is one of `kinds`."""
    name = _TEXT
    if "url" in kinds:
        name = pl.when(pl.col("code") == URL).then(_WITHOUT_SCHEME).otherwise(name)
    if "ipv4" in kinds:
        name = pl.when(pl.col("code") == IPV4).then(_WITHOUT_LENGTH).otherwise(name)
    return name.alias("name")


def unique(frame: pl.DataFrame, confidence: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Indicators sorted by name, duplicates joined: first line, widest scope, highest confidence, first overrides.

    With them the rows whose name stands more than once, as they were. `confidence` is the feed's, which a row
    without one of its own has.
    """
    frame = frame.sort("name", "line")
    name = pl.col("name")
    again = frame.select((name == name.shift(1)).fill_null(False)).to_series()
    if not again.any():
        return frame, frame.clear()
    # Joining costs as much as all else together, so only what is there to be joined goes that way.
    several = again | again.shift(-1, fill_value=False)
    once, repeated = frame.filter(~several), frame.filter(several)
    own = pl.col("confidence")
    highest = pl.when(own.has_nulls() & (own.max() <= confidence)).then(None).otherwise(own.max())
    joined = repeated.group_by("name", maintain_order=True).agg(
        pl.col("kind").first(),
        pl.col("subtree").any(),
        pl.col("line").first(),
        highest.alias("confidence") if repeated["confidence"].null_count() < repeated.height else own.first(),
        pl.col("extra").drop_nulls().first(),
    )
    joined = joined.cast(dict(SCHEMA))  # type: ignore[arg-type]
    return merged(once, joined), repeated


def merged(rows: pl.DataFrame, more: pl.DataFrame) -> pl.DataFrame:
    """Indicators of two frames that share no name, sorted by name as each is.

    To sort what is in order but for one place takes half of the time of Polars' `merge_sorted`.
    """
    return pl.concat([rows, more]).sort("name")


def occurrences(repeated: pl.DataFrame) -> pl.DataFrame:
    """What is said of the names that stand more than once (of `unique`): indicators without `line`, not unique.

    With `count: UInt32`, how often just that is said; sorted by name.
    """
    return repeated.group_by(OCCURRENCE).agg(pl.len().cast(pl.UInt32).alias("count")).sort("name")


def _parted(rows: pl.DataFrame, mask: pl.Series) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows where `mask` is true, and the others."""
    return (rows.filter(mask), rows.filter(~mask)) if mask.any() else (rows.clear(), rows)


def _names(rows: pl.DataFrame, rejects: Refused, ranges: list[pl.DataFrame] | None = None) -> pl.DataFrame:
    """Rows whose `text` is a domain name, in canonical form; reasons in the order of `names.normalize_name`.

    Ranges of addresses are no names; with `ranges` they are put there, where only what is refused anyway pays for it.
    """
    shown = rows.select(_CANONICAL, _BEYOND_ASCII.alias("foreign"))
    if (foreign := shown["foreign"]).any():
        rows = _idn(rows, foreign, rejects)
        shown = rows.select(_CANONICAL)
    rows = rows.with_columns(shown["text"])
    good = shown.select(_GOOD).to_series()
    if not good.all():
        bad = rows.filter(~good)
        if ranges is not None and (spans := bad["text"].str.contains(_RANGE)).any():
            ranges.append(bad.filter(spans))
            bad = bad.filter(~spans)
        _refuse_names(bad, rejects)
        rows = rows.filter(good)
    return rows


def _idn(rows: pl.DataFrame, foreign: pl.Series, rejects: Refused) -> pl.DataFrame:
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
    rejects.refuse(Reject.IDN, done["number"].filter(done["ascii"].is_null()))
    done = done.drop_nulls("ascii").with_columns(pl.col("ascii").alias("text")).drop("ascii")
    return pl.concat([rows.filter(~foreign), done], rechunk=True)


def _refuse_names(rows: pl.DataFrame, rejects: Refused) -> None:
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
    for (value,), group in rows.select("number", reason).group_by("reason", maintain_order=True):
        rejects.refuse(Reject(value), group["number"])


@functools.cache
def _not_global() -> networks.United:
    return networks.united(networks.parse(pl.Series([*NOT_GLOBAL_V4, *NOT_GLOBAL_V6])))


def _addresses(rows: pl.DataFrame, rejects: Refused) -> pl.DataFrame:
    """Rows whose `text` is an address or network of global unicast, in canonical form, with `family` and `masked`."""
    if rows.is_empty():
        return rows.with_columns(pl.lit(4, pl.UInt8).alias("family"), pl.lit(False).alias("masked"))
    plain = rows["text"].str.contains(_PLAIN_V4)
    if not plain.any():
        return _odd_addresses(rows, rejects)
    odd = rows.clear()
    if not plain.all():
        odd, rows = rows.filter(~plain), rows.filter(plain)
    local = rows["text"].str.contains(_PLAIN_NOT_GLOBAL)
    if local.any():
        rejects.refuse(Reject.NOT_GLOBAL, rows["number"].filter(local))
        rows = rows.filter(~local)
    rows = rows.with_columns(_WITHOUT_LENGTH, pl.lit(4, pl.UInt8).alias("family"), pl.lit(False).alias("masked"))
    return pl.concat([rows, _odd_addresses(odd, rejects).select(rows.columns)]) if odd.height else rows


def _odd_addresses(rows: pl.DataFrame, rejects: Refused) -> pl.DataFrame:
    """`_addresses` by the numbers, whatever the text."""
    rows = pl.concat([rows, networks.parse(rows["text"])], how="horizontal")
    bad = rows["family"].is_null()
    port = bad & rows["text"].str.contains(_WITH_PORT)
    rejects.refuse(Reject.UNSUPPORTED, rows["number"].filter(port))
    rejects.refuse(Reject.BAD_ADDRESS, rows["number"].filter(bad & ~port))
    rows = rows.filter(~bad)
    # `::ffff:0.0.0.0/96` is all of IPv4 as well.
    whole = rows["text"].str.ends_with("/0") | (rows["text"].str.ends_with("/96") & (rows["family"] == 4))
    rejects.refuse(Reject.WHOLE_INTERNET, rows["number"].filter(whole))
    rows = rows.filter(~whole)
    area = rows.select("family", "first", "last")
    local = networks.overlaps(area, _not_global())
    rejects.refuse(Reject.NOT_GLOBAL, rows["number"].filter(local))
    return rows.with_columns(networks.text(area).alias("text")).filter(~local)


def _ranges(rows: pl.DataFrame, rejects: Refused) -> tuple[pl.DataFrame, int]:
    """Rows whose `text` is `low-high` as the fewest CIDRs each, and how many more rows that makes."""
    if rows["text"].str.contains_any([" ", "\t"]).any():
        rows = rows.with_columns(_TEXT.str.replace_all(r"[ \t]", ""))
    rows = pl.concat([rows, networks.parse_range(rows["text"]).drop("masked")], how="horizontal")
    bad = rows["family"].is_null()
    rejects.refuse(Reject.BAD_ADDRESS, rows["number"].filter(bad))
    rows = rows.filter(~bad)
    whole = (rows["family"] == 4) & (rows["last"] - rows["first"] == pl.Series([2**32 - 1], dtype=pl.UInt128))
    rejects.refuse(Reject.WHOLE_INTERNET, rows["number"].filter(whole))
    rows = rows.filter(~whole)
    area = rows.select("family", "first", "last")
    local = networks.overlaps(area, _not_global())
    rejects.refuse(Reject.NOT_GLOBAL, rows["number"].filter(local))
    rows = rows.filter(~local).with_row_index("row")
    parts, count = [], 0
    for some in rows.iter_slices(20_000):
        parts.append(networks.to_cidrs(some, keep=("row",)))
        count += parts[-1].height
        if count > _MAX_CIDRS:
            raise FeedError(
                f"its {rows.height:,} ranges of addresses fall apart into more than {_MAX_CIDRS:,} networks"
            )
    if not parts:
        return rows, 0
    cidrs = pl.concat(parts)
    known = rows.select("number", "subtree", "confidence", "extra")[cidrs["row"]]
    return known.with_columns(cidrs["family"], networks.text(cidrs.drop("row")).alias("text")), count - rows.height


def _urls(rows: pl.DataFrame, feed: Feed, rejects: Refused) -> tuple[pl.DataFrame, pl.DataFrame]:
    """URL indicators (`number`, `text`, overrides), and the rows whose URL stands for its host."""
    if feed.url_hosts:
        return _odd_urls(rows, feed, rejects)
    plain = rows.select(_PLAIN_LINK).to_series()
    urls = rows.filter(plain).with_columns(_WITHOUT_SCHEME)
    if plain.all():
        return urls, rows.clear()
    odd, hosts = _odd_urls(rows.filter(~plain), feed, rejects)
    return pl.concat([urls.select(odd.columns), odd], rechunk=True), hosts


def _odd_urls(rows: pl.DataFrame, feed: Feed, rejects: Refused) -> tuple[pl.DataFrame, pl.DataFrame]:
    """URL indicators, and the rows whose URL stands for its host (nothing after it, or the feed says so).

    Comparison ignores scheme and default port (semantics), so the canonical form begins with `//`; a fragment
    never reaches a server or proxy. `blocklist.audit.thing.recognise` does the same for one value.
    """
    groups = _TEXT.str.extract_groups(_URL_PARTS)
    scheme, port, rest = pl.col("scheme"), pl.col("port"), pl.col("rest")
    columns = ["number", "text", "subtree", "confidence", "extra"]
    every = rows["number"]
    rows = rows.with_columns(
        groups.struct.field("1").str.to_lowercase().str.replace("^hxxp", "http").alias("scheme"),
        groups.struct.field("2").str.strip_chars("[]").alias("text"),
        groups.struct.field("3").cast(pl.UInt32, strict=False).alias("port"),
        groups.struct.field("4").fill_null("").alias("rest"),
    )
    known = (rows["text"] != "") & rows["scheme"].is_in(list(_DEFAULT_PORTS)) & (rows["port"] <= 65_535).fill_null(True)
    known = known.fill_null(False)
    rejects.refuse(Reject.BAD_URL, every.filter(~known))
    rows = rows.filter(known)
    alone = rows["rest"].str.contains(_HOST_ALONE) | feed.url_hosts
    hosts = rows.filter(alone).select(columns)
    urls = rows.filter(~alone).with_columns(rest.str.replace(r"#.*$", ""))
    clean = urls["rest"].str.contains(_URL_REST)
    rejects.refuse(Reject.BAD_URL, urls["number"].filter(~clean))
    urls = urls.filter(clean)
    # The host is judged as a name or address of its own, so that a URL can't smuggle in what those refuse.
    refused = Refused()
    at = urls["text"].str.contains(_ADDRESS)
    parts = [_names(urls.filter(~at), refused), _addresses(urls.filter(at), refused).select(urls.columns)]
    # In one piece: over columns in unlike pieces, Polars 2.1 panics below (`i < self.len()`).
    urls = pl.concat(parts, rechunk=True)
    if refused:
        as_url = Refused({Reject.BAD_URL: sum(refused.values())})
        as_url.lines[Reject.BAD_URL] = [number for numbers in refused.lines.values() for number in numbers]
        rejects.add(as_url)
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
