"""`python -m engines.page` (from tests/): docs/conformance.md, the table that the engines are held to."""

from __future__ import annotations

from pathlib import Path

from blocklist.publish import descriptor, sample

from .proxies import READS
from .table import ASKED, LISTED, fitted, given, meant

_PROGRAMS = {
    "named": "BIND",
    "unbound": "Unbound",
    "pdns_recursor": "PowerDNS Recursor",
    "kresd": "Knot Resolver",
    "unbound-local": "Unbound",
    "dnsmasq": "dnsmasq",
    "dnsmasq-conf": "dnsmasq",
    "dnsmasq-hosts": "dnsmasq",
    "dnsdist": "dnsdist",
    "smartdns": "SmartDNS",
    "squid": "Squid",
    "haproxy": "HAProxy",
    "nginx": "nginx",
    "privoxy": "Privoxy",
    "tinyproxy": "tinyproxy",
    "squidguard": "squidGuard",
    "postfix": "postmap",
    "duk": "Duktape",
    "rspamd": "rspamd",
}
# Engines that other tests start: test_engines.py and test_addresses_and_urls.py.
_ELSEWHERE = {
    "nftables": "nftables in a network namespace",
    "ipset": "ipset and iptables in a network namespace",
    "iptables": "iptables in a network namespace",
    "ip6tables": "ip6tables in a network namespace",
    "squid-url": "Squid",
    "squid-dst": "Squid",
    "haproxy-ip": "HAProxy",
    "nginx-geo": "nginx",
    "postfix-cidr": "postmap",
    "rspamd-ip": "rspamd",
}


def page() -> str:
    """The whole page."""
    formats = descriptor.builtin()
    asked = [fmt for fmt in formats.values() if "domain" in fmt.kinds and not fmt.of_rows]
    lines = [
        "# What each target makes of an entry",
        "",
        "Made by `make docs`; `tests/test_conformance.py` starts every engine below with this list and asks it twice.",
        "",
        "The list: " + ", ".join(_entry(*row) for row in LISTED) + ".",
        "",
        "| asked | shows | by the rule |",
        "|---|---|---|",
        *(f"| `{name}` | {shows} | {_word(meant(name))} |" for name, shows in ASKED.items()),
        "",
        "Where a target can't say it, a name passes that the rule blocks; never the other way round. The release",
        "counts it under the reason in the last column (of this list here).",
        "",
        "| format | engine asked | passes, although listed | counted |",
        "|---|---|---|---|",
    ]
    for fmt in asked:
        passing = [name for name in ASKED if given(fmt, name) != meant(name)]
        lost = ", ".join(f"{count} {reason}" for reason, count in fitted(fmt).lost.items())
        names = ", ".join(f"`{name}`" for name in passing)
        lines.append(f"| {fmt.name} | {_engines(fmt.name) or _decides(fmt)} | {names} | {lost} |")
    lines += ["", "Addresses and URLs:", "", "| format | engine asked | says | can't say |", "|---|---|---|---|"]
    for fmt in formats.values():
        if fmt in asked and not {"ipv4", "ipv6", "url"} & set(fmt.kinds):
            continue
        covers, cannot = sample.abilities(fmt)
        about = [[what for what in words if "name" not in what and "allow" not in what] for words in (covers, cannot)]
        lines.append(
            f"| {fmt.name} | {_engines(fmt.name) or _decides(fmt)} | {' · '.join(about[0])} | {' · '.join(about[1])} |"
        )
    return "\n".join(lines) + "\n"


def _entry(name: str, subtree: bool, block: bool) -> str:
    return f"{'block' if block else 'allow'} `{name}`{' and below' if subtree else ''}"


def _word(blocked: bool) -> str:
    return "blocked" if blocked else "passes"


def _engines(name: str) -> str:
    found = [_PROGRAMS[engine] for engine, read in READS.items() if read == name]
    return ", ".join(dict.fromkeys(found)) or _ELSEWHERE.get(name, "")


def _decides(fmt: descriptor.Format) -> str:
    """No engine here: the document that decides instead."""
    return f"none here: [its document]({fmt.document[0]})"


if __name__ == "__main__":
    (Path(__file__).parent.parent.parent / "docs" / "conformance.md").write_text(page(), "utf-8")
