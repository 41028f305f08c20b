"""What a target takes, and which entries it gets when there are more: the best ones, by rank.

Most devices cut what is beyond their limit in silence, wherever that falls. Here a release that is too large is held;
with `fit = "rank"` the entries of the highest confidence are kept, of equal ones the newest, then those that answer,
and what was cut is kept with the release. What a person denies comes first, and allows are never cut.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import BinaryIO, cast

import msgspec
import polars as pl
from msgspec.structs import replace

from blocklist.catalog import KINDS
from blocklist.config import Export
from blocklist.names import parents
from blocklist.publish.descriptor import Format
from blocklist.publish.left_out import ALONE, CUT, IN_PIECES, WAYS
from blocklist.publish.render import Rendered
from blocklist.publish.selection import Selection
from blocklist.quantities import parse_size
from blocklist.rules import Rule
from blocklist.select import networks
from blocklist.select.fold import names_between
from blocklist.store.record import Record

# The best verdict first; what was never asked comes after what answers.
_VERDICTS = ("live", "", "unknown", "nodata", "parked", "broken", "sinkholed", "nxdomain")
# A name that a person denied, above every confidence.
_DENIED = 101
# So near to the limit is near enough; a rendering more costs as much as the file.
_NEAR = 0.99
_TRIES = 12
_AREA = ["family", "first", "last"]


class Limits(msgspec.Struct, frozen=True):
    """The most `entries` (lines or records of the target) and `bytes` of one file, and who says so."""

    entries: int | None
    bytes: int | None
    source: str

    def __bool__(self) -> bool:
        return self.entries is not None or self.bytes is not None

    def excess(self, rendered: Rendered) -> str | None:
        """What is too much in `rendered`, in words; None when it fits."""
        if self.entries is not None and rendered.records > self.entries:
            return f"{rendered.records:,} entries are more than the {self.entries:,} that {self.source} takes"
        if self.bytes is not None and rendered.size > self.bytes:
            return f"{rendered.size:,} bytes are more than the {self.bytes:,} that {self.source} takes"
        return None

    def share(self, rendered: Rendered) -> float:
        """How full the target is: above 1 it does not fit."""
        return max(
            rendered.records / self.entries if self.entries else 0.0, rendered.size / self.bytes if self.bytes else 0.0
        )


def limits(export: Export, fmt: Format) -> Limits:
    """Of the export where it says so itself, else of the device's model, else of the format."""
    model = fmt.models.get(export.model) if export.model is not None else None
    source = f"{fmt.name} (model {export.model})" if model is not None else fmt.name
    entries = model.max_entries if model is not None and model.max_entries else fmt.max_entries
    size = model.max_bytes if model is not None and model.max_bytes else fmt.max_bytes
    if export.max_entries is not None or export.max_bytes is not None:
        source = f"export {export.name}"
    own = parse_size(export.max_bytes) if export.max_bytes is not None else None
    return Limits(export.max_entries or entries, own or size, source)


def unlimited(fmt: Format) -> Format:
    """`fmt` for rendering what is then measured here."""
    return msgspec.structs.replace(fmt, max_entries=None, max_bytes=None)


class Fitted(msgspec.Struct, frozen=True):
    """A selection that fits, and what was cut from it: `name`, `why: String`."""

    selection: Selection
    cut: pl.DataFrame


class _Measure:
    """Takes what is written and keeps nothing."""

    def write(self, data: bytes) -> int:
        return len(data)


def fit(
    selection: Selection,
    ranks: pl.DataFrame,
    most: Limits,
    whole: Rendered,
    render: Callable[[Selection, BinaryIO], Rendered],
) -> Fitted | None:
    """The best entries of `selection` that fit into `most`; None when not even what may not be cut does.

    `ranks`: `name: String`, `rank: UInt32` (0 is the best, see `ranked`), of everything that may be cut. `whole` is how
    `selection` renders.
    """
    order = _order(selection, ranks)
    sink = cast(BinaryIO, _Measure())
    fits, over = 0, int(cast(int, order["place"].max() or 0)) + 1
    if most.excess(render(_best(selection, order, 0), sink)) is not None:
        return None
    # Lines are about as long as each other: mostly the second guess is near enough.
    guess = int(over / most.share(whole))
    for _ in range(_TRIES):
        guess = min(max(guess, fits + 1), over - 1)
        if guess <= fits:
            break
        measured = render(_best(selection, order, guess), sink)
        share = most.share(measured)
        if share <= 1:
            fits = guess
            if share >= _NEAR:
                break
        else:
            over = guess
        aim = int(guess / share) if share else over - 1
        guess = aim if fits < aim < over else (fits + over) // 2
    why = f"{CUT}: {most.source} takes {_in_words(most)}"
    kept = _best(selection, order, fits)
    end = pl.when("alone").then(pl.lit(ALONE)).otherwise(pl.lit(""))
    for text, lists in WAYS.items():
        end = pl.when(pl.col("ways") == ",".join(lists)).then(pl.lit(text)).otherwise(end)
    ways = pl.col("way").drop_nulls().unique().sort().str.join(",").alias("ways")
    gone = order.filter(pl.col("place") >= fits).group_by("name", maintain_order=True).agg(pl.col("alone").all(), ways)
    cut = gone.select("name", pl.concat_str(pl.lit(why), end).alias("why"))
    return Fitted(kept, cut)


def _in_words(most: Limits) -> str:
    parts = [f"{most.entries:,} entries"] if most.entries is not None else []
    return " and ".join(parts + ([f"{most.bytes:,} bytes"] if most.bytes is not None else []))


def _blocks(selection: Selection) -> list[tuple[str, pl.DataFrame]]:
    """Each part of a selection with the names of its rows, may they be cut, do they stand for a name alone, and for
    which direction where the target has a list for each.
    """
    any_, no, none = pl.lit(True).alias("cuttable"), pl.lit(False).alias("alone"), pl.lit(None, pl.String).alias("way")
    way = pl.when(pl.col("direction").is_in(["inbound", "outbound"])).then("direction").alias("way")
    domains = selection.domains.select(
        "name", pl.col("block").alias("cuttable"), (~pl.col("subtree")).alias("alone"), none
    )
    return [
        ("domains", domains),
        ("networks", selection.networks.select(pl.col("cidr").alias("name"), any_, no, way)),
        ("urls", selection.urls.select(pl.col("url").alias("name"), any_, no, none)),
        ("rows", selection.rows.select(pl.col("indicator").alias("name"), any_, no, none)),
    ]


def _order(selection: Selection, ranks: pl.DataFrame) -> pl.DataFrame:
    """`part`, `row`, `name`, `alone`, `way`, `place` (0 is kept first) of all that may be cut.

    Rows of one name have one place: what is said to be cut is in no list of the file.
    """
    rows = pl.concat(
        [
            frame.with_row_index("row").select(pl.lit(part).alias("part"), "row", "name", "cuttable", "alone", "way")
            for part, frame in _blocks(selection)
        ]
    ).filter("cuttable")
    placed = rows.join(ranks.unique("name"), on="name", how="left", maintain_order="left")
    placed = placed.sort(pl.col("rank").fill_null(2**32 - 1), "name", "part", "row")
    return placed.select("part", "row", "name", "alone", "way", pl.col("name").rle_id().alias("place"))


def _best(selection: Selection, order: pl.DataFrame, count: int) -> Selection:
    """`selection` with the first `count` of `order`, and with all that may not be cut."""
    out: dict[str, pl.DataFrame] = {}
    cut = order.filter(pl.col("place") >= count)
    for part, _ in _blocks(selection):
        frame: pl.DataFrame = getattr(selection, part)
        gone = cut.filter(pl.col("part") == part)["row"]
        out[part] = frame.filter(~pl.int_range(pl.len(), dtype=pl.UInt32).is_in(gone.implode())) if len(gone) else frame
    if selection.between.height:
        out["between"] = names_between(out["domains"])
    return replace(selection, **out)


def ranked(listed: pl.DataFrame, selection: Selection, record: Record, rules: Sequence[Rule]) -> pl.DataFrame:
    """`name: String`, `rank: UInt32` of the entries of `selection`: by confidence, then newest, then verdict.

    `listed`: `name: String`, `confidence: UInt8` of what was taken. Networks that were united or cut stand
    where the best listed one does that they touch.
    """
    denied = _denied(selection, rules).to_frame().with_columns(pl.lit(_DENIED, pl.UInt8).alias("confidence"))
    scores = pl.concat([denied, listed.select("name", pl.col("confidence").cast(pl.UInt8))]).unique(
        "name", keep="first"
    )
    rows = record.connection.execute("SELECT name, max(since) FROM listing GROUP BY name")
    since = pl.DataFrame(rows.fetchall(), schema={"name": pl.String, "since": pl.Int64}, orient="row")
    rows = record.connection.execute("SELECT name, CASE dead WHEN 1 THEN 'nxdomain' ELSE status END FROM verdict")
    verdicts = pl.DataFrame(rows.fetchall(), schema={"name": pl.String, "verdict": pl.String}, orient="row")
    worth = {status: i for i, status in enumerate(_VERDICTS)}
    ranks = (
        scores.join(since, on="name", how="left")
        .join(verdicts, on="name", how="left")
        .with_columns(pl.col("verdict").fill_null("").replace_strict(worth, default=2, return_dtype=pl.UInt8))
        .sort(
            pl.col("confidence"),
            pl.col("since").fill_null(0),
            pl.col("verdict"),
            pl.col("name"),
            descending=[True, True, False, False],
        )
        .select("name", pl.int_range(pl.len(), dtype=pl.UInt32).alias("rank"))
    )
    return pl.concat([ranks, _of_networks(_networks(selection), ranks)])


def _networks(selection: Selection) -> pl.Series:
    """`name: String` of the networks of a file or the rows of a list, each once."""
    rows = selection.rows.filter(pl.col("kind").is_in(["ipv4", "ipv6"]))["indicator"]
    return pl.concat([selection.networks["cidr"].alias("name"), rows.alias("name")]).unique()


def in_pieces(listed: pl.DataFrame, selection: Selection) -> pl.DataFrame:
    """`name`, `why` of the `listed` networks (`name`, `kind`) that have no row in the list of `selection`.

    `why` must tell them from those that have one: what is left of them is in rows of its own.
    """
    kinds = [KINDS.index(kind) + 1 for kind in ("ipv4", "ipv6") if kind in selection.rows["kind"]]
    names = listed.filter(pl.col("kind").is_in(kinds))["name"]
    names = names.filter(~names.is_in(selection.rows["indicator"].implode()))
    return names.to_frame().with_columns(why=pl.lit(IN_PIECES))


def _denied(selection: Selection, rules: Sequence[Rule]) -> pl.Series:
    """`name: String` of what a person denies, and of the wider entries into which it was folded or united."""
    said = [rule for rule in rules if rule.blocks]
    apart = {rule.name for rule in rules if not rule.blocks and rule.subtree}
    above = {
        name
        for rule in said
        if rule.kind == "domain"
        for name in takewhile(lambda name: name not in apart, parents(rule.name))
    }
    wide = selection.domains.filter(pl.col("block") & pl.col("subtree") & pl.col("name").is_in(list(above)))["name"]
    cidrs = _networks(selection)
    nets = networks.parse(pl.Series([rule.name for rule in said if rule.kind in ("ipv4", "ipv6")], dtype=pl.String))
    if nets.height and len(cidrs):
        cidrs = cidrs.filter(networks.overlaps(networks.parse(cidrs).select(_AREA), nets.select(_AREA)))
    else:
        cidrs = cidrs.clear()
    return pl.concat([pl.Series("name", [rule.name for rule in said], dtype=pl.String), wide, cidrs]).unique()


def _of_networks(cidrs: pl.Series, ranks: pl.DataFrame) -> pl.DataFrame:
    """`name`, `rank` of those `cidrs` that are not listed as they stand: the best of those that they touch."""
    odd = cidrs.filter(~cidrs.is_in(ranks["name"].implode())).alias("name")
    if not len(odd):
        return ranks.clear()
    spans = networks.parse(odd).select(_AREA).with_columns(odd)
    texts = ranks.filter(pl.col("name").str.contains(r"^[0-9a-f.:]+(/[0-9]+)?$"))
    listed = pl.concat([networks.parse(texts["name"]).select(_AREA), texts.select("rank")], how="horizontal")
    listed = listed.drop_nulls("family")
    # Two networks touch where one lies in the other.
    touching = pl.concat([_inside(listed, spans), _inside(spans, listed)])
    return touching.group_by("name").agg(pl.col("rank").min())


def _inside(narrow: pl.DataFrame, wide: pl.DataFrame) -> pl.DataFrame:
    """`name`, `rank` of each pair of a `narrow` network within a `wide` one: a look-up for each length of prefix."""
    hosts = pl.col("last") - pl.col("first")
    found = [pl.DataFrame(schema={"name": pl.String, "rank": pl.UInt32})]
    for family, size in wide.select("family", hosts.alias("hosts")).unique().rows():
        bits = pl.lit(size, pl.UInt128)
        at = wide.filter((pl.col("family") == family) & (hosts == bits)).drop("family", "last")
        probes = narrow.filter((pl.col("family") == family) & (hosts <= bits))
        probes = probes.with_columns(pl.col("first") - (pl.col("first") & bits)).drop("family", "last")
        found.append(probes.join(at, on="first").select("name", "rank"))
    return pl.concat(found)
