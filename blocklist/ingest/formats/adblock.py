"""Adblock rules that name a host: `||name^`, alone or with `$important`-like options that do not narrow it.

Everything else that such a list may hold (exceptions `@@`, cosmetic rules, paths, patterns, options such as
`$third-party` that narrow the rule to some requests) means less than "this name is hostile" and is counted as
unsupported: a DNS block for it would block more than its author asked.
"""

from __future__ import annotations

import polars as pl

from blocklist.catalog import InputFormat
from blocklist.ingest.formats import Rows
from blocklist.names import Reject

_HARMLESS = r"\$(?:important|all|document|doc|popup)(?:,(?:important|all|document|doc|popup))*$"


def parse(lines: pl.DataFrame, spec: InputFormat) -> Rows:
    """Names of `||name^` rules, each with everything below it; a line without rule syntax is a bare name."""
    line = pl.col("line")
    frame = lines.select("number", line)
    if frame["line"].str.contains("$", literal=True).any():
        frame = frame.with_columns(line.str.replace(_HARMLESS, ""))
    rule = frame["line"].str.starts_with("||") & frame["line"].str.ends_with("^")
    name = line.str.strip_prefix("||").str.strip_suffix("^").alias("text")
    kept = frame.filter(rule).select("number", name, pl.lit(True).alias("subtree"))
    # A rule whose middle is itself a pattern or a path is no host.
    plain = kept["text"].str.contains(r"^[^/^*|$@#=]+$")
    bare = ~rule & frame["line"].str.contains(r"^[^/^*|$@#=?&%,:\s]+$")
    rejected = kept.height - int(plain.sum()) + frame.height - kept.height - int(bare.sum())
    bare_rows = frame.filter(bare).select("number", line.alias("text"), pl.lit(False).alias("subtree"))
    rows = pl.concat([kept.filter(plain), bare_rows])
    return Rows(rows, rejects={Reject.UNSUPPORTED: rejected} if rejected else {})
