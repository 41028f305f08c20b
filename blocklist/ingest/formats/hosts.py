"""Hosts files: `address name [name…] [# comment]` (hosts(5)); a bare name is taken as one."""

from __future__ import annotations

import polars as pl

from blocklist.catalog import InputFormat
from blocklist.ingest.formats import Rows
from blocklist.ingest.formats.lines import without_comment

# The machine's own lines that real hosts lists carry along (StevenBlack/hosts and its children).
_OWN = (
    "localhost",
    "localhost.localdomain",
    "local",
    "broadcasthost",
    "ip6-localhost",
    "ip6-loopback",
    "ip6-localnet",
    "ip6-mcastprefix",
    "ip6-allnodes",
    "ip6-allrouters",
    "ip6-allhosts",
    "0.0.0.0",  # noqa: S104 - a name here, not a socket
)
_ADDRESS = r"^(?:[0-9]{1,3}(?:\.[0-9]{1,3}){3}|[0-9a-fA-F:]*:[0-9a-fA-F:.]*(?:%\w+)?)[ \t]"


def parse(lines: pl.DataFrame, spec: InputFormat) -> Rows:
    """One row a name; the address itself is not an indicator. Lines of the machine's own names are comments."""
    frame = lines.select("number", without_usual(without_comment(lines["line"], pl.col("line"))).alias("text"))
    text = pl.col("text")
    rest = frame["text"].str.contains(r"[ \t]")
    if rest.any():
        spaced = frame.filter(rest).with_columns(
            text.str.replace(_ADDRESS, "").str.replace_all("\t", " ", literal=True).str.strip_chars(" ")
        )
        # An address with nothing but odd white space after it keeps its one empty name, to be refused.
        spaced = spaced.filter(text == "").vstack(
            spaced.with_columns(text.str.split(" ")).explode("text").filter(text != "")
        )
        frame = pl.concat([frame.filter(~rest), spaced])
    own = frame["text"].is_in(_OWN)
    if not own.any():
        return Rows(frame)
    return Rows(frame.filter(~own), comments=frame.filter(own)["number"].n_unique())


def plain(line: pl.Expr, spec: InputFormat) -> list[pl.Expr]:
    """The one name of a line. None of the machine's own is a good one."""
    return [without_usual(line).str.replace(_ADDRESS, "").str.strip_chars(" \t").alias("text")]


def without_usual(line: pl.Expr) -> pl.Expr:
    """`line` without the address that nearly all begin with."""
    for usual in ("0.0.0.0 ", "127.0.0.1 "):
        line = line.str.strip_prefix(usual)
    return line
