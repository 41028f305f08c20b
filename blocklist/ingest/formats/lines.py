"""Plain lists: one name, address, network or URL a line, text after white space and `#` or `;` is a comment."""

from __future__ import annotations

import polars as pl

from blocklist.catalog import InputFormat
from blocklist.ingest.formats import Rows

_COMMENT = [" #", "\t#", " ;", "\t;"]
_DOTS = ["[.]", "(.)", "[dot]"]


def parse(lines: pl.DataFrame, spec: InputFormat) -> Rows:
    """The first token of each line; a second one that is no comment is left for the normaliser to refuse."""
    return Rows(lines.select("number", bare(lines["line"], pl.col("line")).alias("text")))


def plain(line: pl.Expr, spec: InputFormat) -> list[pl.Expr]:
    return [line.alias("text")]


def bare(series: pl.Series, line: pl.Expr) -> pl.Expr:
    """`line` without its comment, and `evil[.]example` with its dots; one look tells that no line has either."""
    if not series.str.contains_any([*_COMMENT, *_DOTS]).any():
        return line
    return refanged(without_comment(series, line), series)


def refanged(text: pl.Expr, series: pl.Series) -> pl.Expr:
    """`evil[.]example` as people write it in reports, with its dots; `hxxp:` is left to the normaliser."""
    if not series.str.contains_any(_DOTS).any():
        return text
    return text.str.replace_all(r"\[\.\]|\(\.\)|\[dot\]", ".")


def without_comment(series: pl.Series, line: pl.Expr) -> pl.Expr:
    """`line` up to white space followed by `#` or `;`.

    Most feeds have none: one cheap literal search decides whether the costly replacement runs at all.
    """
    if not series.str.contains_any(_COMMENT).any():
        return line
    return line.str.replace(r"[ \t]+[#;].*$", "")
