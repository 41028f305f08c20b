"""What logs look like: by which pattern a line says who asked for what, and which form the lines of a file have.

Each pattern has the groups `what` and `client`, and was written against lines that the program itself wrote
(tests/test_match_engines.py starts them). Names in the patterns of one family are in order of preference: a file
that holds queries and replies, or queries and rewrites, tells the same thing twice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import polars as pl

from blocklist.errors import BlocklistError

_CLIENT = r"(?P<client>[0-9A-Fa-f.]+|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*)(?:%[0-9A-Za-z_.-]+)?"
_TYPE = r"[A-Z][A-Z0-9-]*"


class Form(msgspec.Struct, frozen=True):
    """How one program writes. `names`: what it logs are DNS names, else addresses, names or URLs.

    `quick`: patterns that find `what` and `client`, one group each, in a line that `pattern` is known to fit: groups
    of a long pattern cost five times what it takes to see that it fits.
    """

    name: str
    title: str
    family: str
    pattern: str
    names: bool = True
    quick: tuple[str, str] | None = None


FORMS = (
    Form(
        "bind",
        "query log of BIND",
        "bind",
        rf"client (?:@0x[0-9a-f]+ )?{_CLIENT}#[0-9]+(?: \(.*?\))?: (?:view [^ ]+: )?query: (?P<what>[^ ]+) ",
        quick=(r": query: ([^ ]+) ", r"client (?:@0x[0-9a-f]+ )?([0-9A-Fa-f.:]+)[#%]"),
    ),
    Form(
        "bind-rpz",
        "RPZ log of BIND",
        "bind",
        rf"client (?:@0x[0-9a-f]+ )?{_CLIENT}#[0-9]+(?: \(.*?\))?: (?:view [^ ]+: )?(?:disabled )?"
        rf"rpz [A-Z-]+ [A-Za-z-]+ rewrite (?P<what>[^ ]+)/{_TYPE}/[A-Z]+ via ",
    ),
    Form(
        "unbound",
        "query log of Unbound",
        "unbound",
        rf" (?:info|query): {_CLIENT}(?:@[0-9]+)? (?P<what>[^ ]+) {_TYPE} [A-Z]+$",
    ),
    Form(
        "unbound-reply",
        "reply log of Unbound",
        "unbound",
        rf" (?:info|reply): {_CLIENT}(?:@[0-9]+)? (?P<what>[^ ]+) {_TYPE} [A-Z]+ [A-Z]+ [0-9.]+ ",
    ),
    Form(
        "unbound-rpz",
        "RPZ log of Unbound",
        "unbound",
        rf"info: rpz: applied (?:\[[^\]]*\] )?[^ ]+ rpz-[a-z-]+ {_CLIENT}@[0-9]+ (?P<what>[^ ]+) {_TYPE} [A-Z]+",
    ),
    Form(
        "dnsmasq",
        "query log of dnsmasq",
        "dnsmasq",
        rf"dnsmasq\[[0-9]+\]: (?:[0-9]+ [^ ]+ )?query\[[^\]]*\] (?P<what>.+) from {_CLIENT}$",
    ),
    Form(
        "powerdns",
        "query log of PowerDNS Recursor",
        "powerdns",
        r"question for '(?P<what>.+)\|[A-Z0-9]+' from "
        r"(?P<client>[0-9.]+|\[?[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*?\]?)(?::[0-9]+)?$",
    ),
    Form(
        "powerdns-structured",
        "structured query log of PowerDNS Recursor",
        "powerdns",
        r'msg="Question" .*?qname="(?P<what>[^"]*)" .*?remote="(?P<client>[0-9.]+|\[?[0-9A-Fa-f:]+\]?):[0-9]+"',
    ),
    Form(
        "squid",
        "access log of Squid",
        "squid",
        rf"^ *[0-9]+\.[0-9]+ +-?[0-9]+ {_CLIENT} [A-Z_]+/[0-9]+ [0-9]+ [A-Z_]+ (?P<what>[^ ]+) ",
        names=False,
    ),
    Form(
        "squid-common",
        "access log of a proxy in the common form",
        "squid",
        rf'^{_CLIENT} [^ ]+ .*?\[[^\]]+\] "[A-Z_]+ (?P<what>[a-z]+://[^ "]+|[^ "/]+:[0-9]+)(?: [^"]*)?" [0-9]+ ',
        names=False,
    ),
    Form(
        "dnstap-read",
        "dnstap, as dnstap-read prints it",
        "dnstap",
        rf" CQ {_CLIENT}:[0-9]+ -> [^ ]+ [A-Z]+ [0-9]+b (?P<what>[^ ]*)/[A-Z]+/{_TYPE}",
    ),
    Form(
        "dnstap-ldns",
        "dnstap, as dnstap-ldns -q prints it",
        "dnstap",
        rf' CQ {_CLIENT} [A-Z]+ [0-9]+b "(?P<what>[^"]*)" [A-Z]+ {_TYPE}',
    ),
)
JSON = Form("json", "JSON lines", "json", "", names=False)
LINES = Form("lines", "a name, address or URL a line", "lines", "", names=False)
NAMES = tuple(form.name for form in (*FORMS, JSON, LINES))

# Where programs that write JSON lines put it (Suricata, Zeek, packetbeat and ECS, AdGuard Home, dnscollector, ours).
_WHAT = (
    "dns.rrname",
    "dns.question.name",
    "dns.qname",
    "tls.sni",
    "http.url",
    "http.hostname",
    "url.full",
    "qname",
    "query",
    "query_name",
    "QH",
    "rrname",
    "question",
    "url",
    "indicator",
    "domain",
    "hostname",
    "host",
    "name",
    "server_name",
    "dest_ip",
    "id.resp_h",
    "destination.ip",
    "ip",
)
_WHO = (
    "src_ip",
    "source.ip",
    "client.ip",
    "id.orig_h",
    "network.query-ip",
    "client",
    "client_ip",
    "client_addr",
    "clientip",
    "IP",
    "src",
    "remote",
    "remote_addr",
)
# A DNS answer repeats its question (Suricata: `type` answer, in its third version response).
_ANSWERS = ("answer", "response")
_SAMPLE = 2_000
_ALONE = r"^(?:[a-zA-Z][a-zA-Z0-9+.-]*:)?(?://)?[\p{L}\p{N}_*.:\[\]-]*[.:][\p{L}\p{N}_\]:-]*\.?(?:[/?#][^\s]*)?$"


class LogError(BlocklistError):
    """A log can't be read, or nobody knows its form."""

    exit_code = 2


class Reader(msgspec.Struct, frozen=True):
    """How the lines of one file are read; of JSON lines, by which keys."""

    form: Form
    what: Sequence[str] = ()
    who: Sequence[str] = ()

    def read(self, lines: pl.DataFrame) -> pl.DataFrame:
        """`line: String` to `what: String`, `client: String` (null where none is named), of lines that ask."""
        line = pl.col("line")
        if self.form is JSON:
            return self._json(lines)
        if self.form is LINES:
            first = line.str.extract(r"^\s*([^\s#]\S*)", 1)
            return lines.select(first.alias("what"), pl.lit(None, pl.String).alias("client")).drop_nulls("what")
        if self.form.quick is not None:
            what, who = (line.str.extract(pattern) for pattern in self.form.quick)
            return lines.filter(line.str.contains(self.form.pattern)).select(what=what, client=who)
        found = lines.select(line.str.extract_groups(self.form.pattern).struct.unnest())
        return found.select("what", pl.col("client").str.strip_chars("[]")).drop_nulls("what")

    def _json(self, lines: pl.DataFrame) -> pl.DataFrame:
        line = pl.col("line")
        values = {
            name: pl.coalesce([line.str.json_path_match(_path(key)) for key in keys]) if keys else _NOBODY
            for name, keys in (("what", self.what), ("client", self.who))
        }
        kind = line.str.json_path_match("$.dns.type").is_in(_ANSWERS).fill_null(False)
        found = lines.select(**values, answer=kind if "dns.rrname" in self.what else pl.lit(False))
        return found.filter(~pl.col("answer")).select("what", "client").drop_nulls("what")


_NOBODY = pl.lit(None, pl.String)


def reader(sample: pl.DataFrame, place: str, asked: str | None = None) -> Reader:
    """How to read a file that begins with the lines of `sample` (`line: String`), or as the form `asked`.

    Raises LogError where no form fits.
    """
    lines = sample.head(_SAMPLE) if asked in (None, "json") else sample.head(0)
    if asked is not None and asked != "json":
        return Reader(next(form for form in (*FORMS, LINES) if form.name == asked))
    begins = lines["line"].str.starts_with("{")
    if asked == "json" or (lines.height and begins.mean() > 0.5):  # type: ignore[operator]
        return _json_reader(lines, place)
    found = {form: int(lines["line"].str.contains(form.pattern).sum()) for form in FORMS}
    if best := max(found.values()):
        # Of what one program writes, the first form that is there at all.
        family = next(form.family for form, count in found.items() if count == best)
        return Reader(next(form for form, count in found.items() if form.family == family and count))
    body = lines.filter(~lines["line"].str.contains(r"^\s*(?:#|$)"))
    tokens = body["line"].str.strip_chars().str.contains(_ALONE)
    if not body.height or tokens.mean() >= 0.5:  # type: ignore[operator]
        return Reader(LINES)
    raise LogError(
        f"{place}: its lines are of no form that is known; one of them: {body['line'][0][:120]!r}",
        hint=f"known are {', '.join(NAMES)}; choose one with --form, or cut the names out: one a line",
    )


def _json_reader(lines: pl.DataFrame, place: str) -> Reader:
    seen: dict[str, int] = {}
    for line in lines["line"]:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            for key in (*_WHAT, *_WHO):
                if isinstance(_value(row, key), str):
                    seen[key] = seen.get(key, 0) + 1
    what = [key for key in _WHAT if key in seen]
    if not what:
        raise LogError(
            f"{place}: JSON lines, but none of them has a key that is known to hold what was asked for",
            hint=f"known are {', '.join(_WHAT)}; or pick it out: jq -r .KEY FILE | blocklist match -",
        )
    return Reader(JSON, what, [key for key in _WHO if key in seen])


def _value(row: Mapping[str, Any], key: str) -> object:
    """The value under a dotted path, or under the whole of it as one key (Zeek writes `id.orig_h`)."""
    if key in row:
        return row[key]
    at: object = row
    for part in key.split("."):
        at = at.get(part) if isinstance(at, dict) else None
    return at


def _path(key: str) -> str:
    """JSONPath of a key of ours; Zeek's are keys with dots in them."""
    if key.startswith("id."):
        return f"$['{key}']"
    return "$" + "".join(f"['{part}']" for part in key.split("."))
