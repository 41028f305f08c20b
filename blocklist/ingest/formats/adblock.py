"""Adblock rules that name a host, as AdGuard Home and HostlistCompiler read them.

`||name^` blocks the name and everything below; `|https://name^`, `|name^`, a bare name and the names of a hosts line
are the host alone. Options that do not narrow the rule may follow: `$important`, `$document` and their like, and
`$dnsrewrite` to an answer that blocks. Everything else that such a list may hold (exceptions `@@`, cosmetic rules,
paths, patterns, `$third-party`, `$client`, `$dnstype`, `$denyallow`) means less than "this name is hostile" and is
counted as unsupported: a DNS block for it would block more than its author asked. An exception never blocks, and a
rule that `$badfilter` takes back is left out. White space in what should be a host or an address matches nothing: it
is counted as syntax.
"""

from __future__ import annotations

import polars as pl

from blocklist.catalog import InputFormat
from blocklist.ingest.formats import Rows, hosts
from blocklist.ingest.refused import Refused
from blocklist.names import Reject

_OPTION = (
    r"(?:important|all|document|doc|popup|network|"
    r"dnsrewrite=(?:(?:NXDOMAIN|REFUSED|SERVFAIL|NOERROR)(?:;;)?|NOERROR;(?:A|AAAA);(?:0\.0\.0\.0|::)|0\.0\.0\.0|::))"
)
_HARMLESS = rf"\$(?i:{_OPTION})(?:,(?i:{_OPTION}))*$"
_BADFILTER = r"[$,]badfilter(?:,|$)"
_BELOW = r"^\|\|([^/^*|$@#=?&%,\s]+)\^\|?$"
_ALONE = r"^(?:\|(?:https?://)?|://)([^/^*|$@#=?&%,\s]+)[\^/]$"
_BARE = r"^[^/^*|$@#=?&%,:\s]+$"
_HOSTS = r"^(?:0\.0\.0\.0|127\.0\.0\.1|::1?)[ \t]"
# No host and no address holds white space; options, selectors and regular expressions may.
_BROKEN = r"^(?:\|https?://)?[^$#/@]*\s"
# `##.banner`, `#@#`, `#?#`, `#$#`, `#%#`: rules for pages, where `# text` and `#### text ####` are comments.
_COSMETIC = r"^#[@$%?]{0,3}#[^#\s]"


def parse(lines: pl.DataFrame, spec: InputFormat) -> Rows:
    """Names of the rules that block a host; see the module for what counts as one."""
    frame, comments = lines.select("number", "line"), 0
    marked = frame["line"].str.starts_with("#")
    if marked.any():
        comment = marked & ~frame["line"].str.contains(_COSMETIC)
        comments, frame = int(comment.sum()), frame.filter(~comment)
    cancels: frozenset[str] = frozenset()
    line = pl.col("line")
    if frame["line"].str.contains("$", literal=True).any():
        cancels = _cancelled(frame["line"])
        frame = frame.with_columns(line.str.replace(_HARMLESS, ""))
    refusals = Refused()
    rules = frame["line"].str.starts_with("||")
    parts = [_named(frame.filter(rules), _BELOW, True, refusals)]
    rest = frame.filter(~rules)
    if rest.height:
        table = rest["line"].str.contains(_HOSTS)
        if table.any():
            read = hosts.parse(rest.filter(table), spec)
            parts.append(read.frame.select("number", "text", pl.lit(False).alias("subtree")))
            comments += read.comments
            rest = rest.filter(~table)
        bare = rest["line"].str.contains(_BARE)
        parts.append(rest.filter(bare).select("number", line.alias("text"), pl.lit(False).alias("subtree")))
        parts.append(_named(rest.filter(~bare), _ALONE, False, refusals))
    return Rows(pl.concat(parts), refusals, comments, cancels)


def plain(line: pl.Expr, spec: InputFormat) -> list[pl.Expr]:
    """The name of `||name^`, or of a line that is one or the usual one of a hosts file; nothing with a slash is."""
    rule = line.str.starts_with("||")
    name = pl.when(line.str.ends_with("^")).then(line.str.strip_prefix("||").str.strip_suffix("^"))
    text = pl.when(rule).then(name).otherwise(hosts.without_usual(line))
    return [pl.when(~line.str.contains("/", literal=True)).then(text).alias("text"), rule.alias("subtree")]


def _named(rules: pl.DataFrame, shape: str, subtree: bool, refusals: Refused) -> pl.DataFrame:
    """The names of rules of one shape; the others are refused."""
    rows = rules.select("number", pl.col("line").str.extract(shape).alias("text"), pl.lit(subtree).alias("subtree"))
    other = rows["text"].is_null()
    if not other.any():
        return rows
    broken = rules["line"].str.contains(_BROKEN)
    refusals.refuse(Reject.SYNTAX, rows["number"].filter(other & broken))
    refusals.refuse(Reject.UNSUPPORTED, rows["number"].filter(other & ~broken))
    return rows.filter(~other)


def _cancelled(rules: pl.Series) -> frozenset[str]:
    """Names whose blocking rules `$badfilter` takes back, whatever harmless options they have."""
    rules = rules.filter(rules.str.contains("badfilter", literal=True))
    rules = rules.filter(rules.str.contains(_BADFILTER))
    bare = rules.str.replace(r"([$,])badfilter(,|$)", "$1").str.strip_chars_end("$,").str.replace(_HARMLESS, "")
    names = [bare.str.extract(shape) for shape in (_BELOW, _ALONE, rf"^({_BARE[1:-1]})$")]
    return frozenset(pl.concat(names).drop_nulls().str.to_lowercase().str.strip_suffix(".").to_list())
