"""Response policy zones as files: owners are triggers, what they answer is the action (draft-vixie-dnsop-dns-rpz).

Only actions that block list their trigger: NXDOMAIN (`CNAME .`), NODATA (`CNAME *.`), `rpz-drop.`, a null address,
and a walled garden (`CNAME` to any other name). A passthru never does: what it names is taken back wherever the zone
lists it. Other records are local data that redirects, and the triggers `rpz-nsdname`, `rpz-nsip` and `rpz-client-ip`
judge other things than a name or an answer; both are unsupported. `*.name` is the name and everything below it.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from blocklist.catalog import InputFormat
from blocklist.ingest.formats import Rows
from blocklist.ingest.refused import Refused
from blocklist.names import Reject

_NXDOMAIN = " CNAME ."
_COMMENT = r'^((?:[^";]|"[^"]*")*);.*$'
# RFC 1035 §5.1: owner, then TTL and class in either order, type, data.
_RECORD = (
    r"^([^ \t]*)[ \t]+(?:(?:(?:[0-9]+[smhdwSMHDW]?)+|IN|in|In|CH|HS)[ \t]+){0,2}([A-Za-z][A-Za-z0-9-]*)(?:[ \t]+(.*))?$"
)
_OWN = ("SOA", "NS", "DNSKEY", "RRSIG", "NSEC", "NSEC3", "NSEC3PARAM", "DS", "CDS", "CDNSKEY", "ZONEMD", "TYPE65534")
_NULL = ("0.0.0.0", "127.0.0.1", "::", "::1")  # noqa: S104 - answers that block, not sockets
_OUTSIDE = "."
_WHOLE = r"/(?:32|128)$"


@dataclass
class Reader:
    """One zone: origin, apex and the last owner hold from one block of lines to the next."""

    origin: str | None = None
    apex: str | None = None
    owner: str = "@"
    # An open bracket continues a record on the next line: that of the zone itself, or of another.
    bracket: str | None = None

    def parse(self, lines: pl.DataFrame, spec: InputFormat) -> Rows:
        """One row a trigger that blocks. In: lines with the white space before them, which repeats the last owner."""
        rejects = Refused()
        frame, comments = lines.select("number", "line"), 0
        if frame["line"].str.contains(";", literal=True).any():
            frame = frame.with_columns(pl.col("line").str.replace(_COMMENT, "$1").str.strip_chars_end())
            empty = frame["line"].str.strip_chars() == ""
            comments, frame = int(empty.sum()), frame.filter(~empty)
        if self.bracket is not None or frame["line"].str.contains("(", literal=True).any():
            frame, continued = self._records(frame, rejects)
            comments += continued
        usual = frame["line"].str.ends_with(_NXDOMAIN) & ~frame["line"].str.contains(
            r"^[$ \t]|[ \t].* CNAME \.$|\. CNAME"
        )
        if usual.all() and self.origin == self.apex:
            records = frame.select(
                "number",
                pl.col("line").str.strip_suffix(_NXDOMAIN).alias("owner"),
                pl.lit("CNAME").alias("type"),
                pl.lit(".").alias("data"),
            )
            if records.height:
                self.owner = records["owner"][-1].lower()
        else:
            records, ignored = self._fields(frame, rejects)
            comments += ignored
        rows = triggers(records, rejects)
        return Rows(rows.frame, rejects, comments + rows.comments, rows.cancels)

    def _records(self, frame: pl.DataFrame, rejects: Refused) -> tuple[pl.DataFrame, int]:
        """Only the first line of each record; those that go on belong to the zone's own, or are refused."""
        plain = pl.col("line").str.replace_all(r'"[^"]*"', "")
        step = plain.str.count_matches(r"\(").cast(pl.Int64) - plain.str.count_matches(r"\)").cast(pl.Int64)
        # A bracket too many closes nothing.
        depth = frame.select(step.alias("step"))["step"].cum_sum() + (1 if self.bracket else 0)
        inside = (depth.shift(1, fill_value=1 if self.bracket else 0) > 0).alias("inside")
        heads = pl.col("line").str.contains(r"(?i)[ \t]SOA[ \t]")
        kind = frame.with_columns(inside).select(
            pl.when(~pl.col("inside")).then(heads).forward_fill().fill_null(self.bracket == "own").alias("own")
        )["own"]
        comments = int((inside & kind).sum())
        rejects.refuse(Reject.UNSUPPORTED, frame["number"].filter(inside & ~kind))
        self.bracket = ("own" if kind[-1] else "other") if len(depth) and depth[-1] > 0 else None
        return frame.filter(~inside), comments

    def _fields(self, frame: pl.DataFrame, rejects: Refused) -> tuple[pl.DataFrame, int]:
        """`number`, `owner` below the apex, `type`, `data` of records; and how many lines were directives."""
        directive = frame["line"].str.starts_with("$")
        origins, comments = self._directives(frame.filter(directive), rejects)
        parts = pl.col("line").str.extract_groups(_RECORD)
        records = frame.filter(~directive).select(
            "number",
            parts.struct.field("1").str.to_lowercase().alias("owner"),
            parts.struct.field("2").str.to_uppercase().alias("type"),
            parts.struct.field("3").fill_null("").str.strip_chars().alias("data"),
        )
        unread = records["type"].is_null()
        rejects.refuse(Reject.SYNTAX, records["number"].filter(unread))
        records = records.filter(~unread).join_asof(origins, on="number", check_sortedness=False)
        self._find_apex(records)
        if records.is_empty():
            return records.drop("origin"), comments
        owner = pl.when(pl.col("owner") != "").then(self._below_apex()).forward_fill().fill_null(self.owner)
        records = records.select("number", owner.alias("owner"), "type", "data")
        self.owner = records["owner"][-1]
        outside = records["owner"] == _OUTSIDE
        rejects.refuse(Reject.SYNTAX, records["number"].filter(outside))
        return records.filter(~outside), comments

    def _directives(self, lines: pl.DataFrame, rejects: Refused) -> tuple[pl.DataFrame, int]:
        """`number`, `origin` from which line on; and how many were `$ORIGIN` and `$TTL`. Others are unsupported."""
        since: list[tuple[int, str | None]] = [(0, self.origin)]
        known = lines["line"].str.contains(r"(?i)^\$(?:TTL|ORIGIN)[ \t]+\S+$")
        for number, line in lines.filter(known).iter_rows():
            # Not by all that Python calls white space: U+001C is none to the pattern.
            word, name = line.replace("\t", " ").split(" ", 1)
            name = name.lstrip(" ")
            if word.upper() == "$ORIGIN":
                self.origin = name[:-1].lower() if name.endswith(".") else _joined(name.lower(), self.origin)
                since.append((number, self.origin))
        rejects.refuse(Reject.UNSUPPORTED, lines["number"].filter(~known))
        frame = pl.DataFrame(since, schema={"number": pl.UInt32, "origin": pl.String}, orient="row")
        return frame, int(known.sum())

    def _find_apex(self, records: pl.DataFrame) -> None:
        """The zone's own name: the owner of its SOA, else the first origin."""
        for owner, origin in records.filter(pl.col("type") == "SOA").select("owner", "origin").head(1).iter_rows():
            self.apex = origin if owner in ("@", "") else owner[:-1] if owner.endswith(".") else _joined(owner, origin)
        if self.apex is None and records.height:
            self.apex = records["origin"].drop_nulls().first()  # type: ignore[assignment]

    def _below_apex(self) -> pl.Expr:
        """`owner` as a trigger: the name below the apex, empty at it; `_OUTSIDE` where it is not of this zone."""
        owner, origin = pl.col("owner"), pl.col("origin")
        apex = pl.lit(self.apex, dtype=pl.String)
        full = (
            pl.when(owner == "@")
            .then(origin.fill_null(apex).fill_null(""))
            .when(owner.str.ends_with("."))
            .then(owner.str.strip_suffix("."))
            .when(origin.is_not_null())
            .then(owner + "." + origin)
            .when(apex.is_not_null())
            .then(owner + "." + apex)
            .otherwise(owner)
        )
        if self.apex is None:
            # The name of the zone is not in the file: only names relative to it can be told.
            return pl.when(owner.str.ends_with(".")).then(pl.lit(_OUTSIDE)).otherwise(full)
        return (
            pl.when(full == apex)
            .then(pl.lit(""))
            .when(full.str.ends_with("." + self.apex))
            .then(full.str.strip_suffix("." + self.apex))
            .otherwise(pl.lit(_OUTSIDE))
        )


def triggers(records: pl.DataFrame, rejects: Refused) -> Rows:
    """Records of a zone as rows. In: `number`, and Strings `owner` (below the apex, without a dot at its end), `type`
    and `data` in presentation form. What the records refuse is added to `rejects`; `cancels` is what they let pass.
    """
    owner, data = pl.col("owner"), pl.col("data").str.to_lowercase().str.strip_suffix(".")
    kind = pl.col("type")
    usual = (records["type"] == "CNAME") & (records["data"] == ".")
    own = records["owner"].is_in(["", "@"]) | (~usual & records["type"].is_in(_OWN))
    records = records.filter(~own)
    comments = int(own.sum())
    records = records.with_columns(_text(records), owner.str.starts_with("*.").alias("subtree"))
    other = records["text"].is_null()
    rejects.refuse(Reject.UNSUPPORTED, records["number"].filter(other))
    records = records.filter(~other)
    cancels: frozenset[str] = frozenset()
    if not (usual & ~own).all() or records.height:
        action = records.select(
            passes=(kind == "CNAME") & ((data == "rpz-passthru") | (data == owner.str.to_lowercase())),
            blocks=((kind == "CNAME") & ~data.str.contains(r"^rpz-") | (kind == "CNAME") & (data == "rpz-drop"))
            | (kind.is_in(["A", "AAAA"]) & pl.col("data").is_in(_NULL)),
        )
        passes, blocks = action["passes"], action["blocks"] & ~action["passes"]
        if not blocks.all():
            gone = records.filter(passes & ~records["subtree"])["text"].str.to_lowercase().str.replace(_WHOLE, "")
            cancels = frozenset(gone.to_list())
            rejects.refuse(Reject.UNSUPPORTED, records["number"].filter(~blocks))
            records = records.filter(blocks)
    return Rows(records.select("number", "text", "subtree"), comments=comments, cancels=cancels)


def _text(records: pl.DataFrame) -> pl.Expr:
    """What the trigger names: a name, or a network for `rpz-ip`; null for triggers on other things."""
    owner = pl.col("owner")
    if not records["owner"].str.contains(r"(?i)rpz-[a-z-]+$").any():
        return owner.str.strip_prefix("*.").alias("text")
    labels = owner.str.replace(r"(?i)\.rpz-ip$", "").str.split(".")
    length, groups = labels.list.first(), labels.list.slice(1).list.reverse()
    four = groups.list.len() == 4
    # `zz` stands for `::`: 128.1.zz.db8.2001 is 2001:db8::1.
    quad = groups.list.join(".")
    colons = groups.list.join(":").str.to_lowercase().str.replace(r":?zz:?", "::")
    network = pl.when(four & ~quad.str.contains("(?i)zz")).then(quad).otherwise(colons) + "/" + length
    return (
        pl.when(owner.str.contains(r"(?i)\.rpz-ip$"))
        .then(network)
        .when(owner.str.contains(r"(?i)(?:^|\.)rpz-[a-z-]+$"))
        .then(None)
        .otherwise(owner.str.strip_prefix("*."))
        .alias("text")
    )


def _joined(name: str, origin: str | None) -> str:
    return f"{name}.{origin}" if origin else name
