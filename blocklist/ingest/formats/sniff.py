"""`format = "auto"`: which format do these lines look like?"""

from __future__ import annotations

import polars as pl

# In the order of trial: the more particular syntax first.
_SHAPES = (
    ("unbound", r"^(?:local-zone|local-data):\s"),
    ("dnsmasq", r"^(?:address|server|local)=/"),
    ("adblock", r"^(?:\|\||@@)"),
    ("hosts", r"^(?:0\.0\.0\.0|127\.0\.0\.1|::1?)[ \t]+\S"),
    ("wildcard", r"^\*?\.[^\s/]+$"),
    ("scored", r"^[0-9a-zA-Z.:/_-]+[ \t]+[0-9]+$"),
    ("jsonl", r"^\{.*\}$"),
)
_SAMPLE = 2_000


def sniff(lines: pl.Series) -> str:
    """The name of a line format: the first whose shape more than half of a sample has; else `lines`.

    In: String, lines that are neither blank nor begin with `#`, `!` or `;`.
    """
    sample = lines.head(_SAMPLE)
    for name, shape in _SHAPES:
        if sample.len() and sample.str.contains(shape).sum() * 2 > sample.len():
            return name
    return "lines"
