"""The tour of `blocklist demo`: real servers on loopback, the real commands, and what to notice in them."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from blocklist.ingest.loopback import LoopbackServer as WebServer
from blocklist.ingest.loopback import Page
from blocklist.verify.loopback import LoopbackServer as NameServer
from blocklist.verify.loopback import serving

_CONFIG = """\
# Written by 'blocklist demo'. All names and networks in it are reserved for documentation.
state = "var"

[feeds]
enable = []

[feed.malware]
title = "Malware hosts"
url = "{web}/malware.hosts"
format = "hosts"
category = "malware"
confidence = 90
allow_private = true            # the demo's web server is on loopback

[feed.phishing]
title = "Phishing domains"
url = "{web}/phishing.txt"
format = "lines"
category = "phishing"
confidence = 80
allow_private = true

[feed.scanners]
title = "Attack sources"
url = "{web}/scanners.txt"
format = "lines"
category = "attack-source"
confidence = 75
allow_private = true

[feed.orders]
title = "Orders of a regulator"
url = "file:orders.csv"
format = {{ name = "csv", value = "domain", reason = "order", date = "date" }}
category = "sanctioned-media"
confidence = 100

[feed.top-sites]
title = "Sites that must not be blocked"
url = "{web}/top.txt"
format = "lines"
category = "reference"
allow_private = true

[protect]
domains = ["ministry.example"]

[verify]
resolvers = ["127.0.0.1:{dns}"]
control = {{ exists = ["control.test"], missing = "test" }}

[export.dns]
format = "rpz"
path = "exports/blocklist.rpz"
options = {{ origin = "rpz.demo.example" }}

[export.fw]
format = "nftables"
path = "exports/blocklist.nft"

[export.proxy]
format = "squid"
path = "exports/blocklist.squid"
"""

_MALWARE = [
    "# Malware hosts, a feed of the demo",
    "0.0.0.0 evil.example",
    "0.0.0.0 gone.example            # its owner has let it lapse",
    "0.0.0.0 portal.ministry.example # somebody's mistake",
    "0.0.0.0 bank.test               # somebody's mistake, too",
    "0.0.0.0 co.uk                   # and a dangerous one",
    "0.0.0.0 \x1b[31mnot a name\x1b[0m",
    *(f"127.0.0.1 host{i:03d}.malware.test" for i in range(120)),
]
_PHISHING = ["evil.example", "http://login.phish.test/", "https://files.shared.test/kit/login.php"]
_PHISHING += [f"account{i:03d}.phish.test" for i in range(150)]
_SCANNERS = ["192.0.2.0/24", "198.51.100.7", "203.0.113.0/25", "10.0.0.1", "010.1.1.1", "0.0.0.0/0"]
_ORDERS = 'domain,order,date\nrumours.example,"Order 7/2026 of the regulator",2026-11-02\n'
_TOP = ["bank.test", "news.test", "203.0.113.53"]


@dataclass
class _Tour:
    place: Path
    say: Callable[[str], None]
    missed: list[str] = field(default_factory=list)

    def run(self, *words: str, code: int = 0, shows: tuple[str, ...] = ()) -> str:
        """Run a real command, show it and its output, and note what did not come as expected."""
        self.say(f"\n$ blocklist {' '.join(_quoted(w) for w in words)}")
        done = subprocess.run(
            [sys.executable, "-m", "blocklist", *words, "--config", str(self.place / "blocklist.toml")],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        text = done.stdout + done.stderr
        self.say("\n".join("  " + line for line in text.rstrip().splitlines()))
        if done.returncode != code:
            self.missed.append(f"'{' '.join(words)}' ended with {done.returncode} instead of {code}")
        self.missed += [f"'{' '.join(words)}' did not show {what!r}" for what in shows if what not in text]
        return text

    def file(self, name: str, has: tuple[str, ...], lacks: tuple[str, ...]) -> None:
        """Look into a published file."""
        text = (self.place / "exports" / name).read_text()
        self.missed += [f"{name} lacks {line!r}" for line in has if line not in text]
        self.missed += [f"{name} holds {line!r}" for line in lacks if line in text]

    def notice(self, *lines: str) -> None:
        self.say("")
        for line in lines:
            self.say(f"» {line}")


def _quoted(word: str) -> str:
    return word if word.startswith("-") or not re.search(r"[\s'\"]", word) else '"' + word.replace('"', r"\"") + '"'


def tour(place: Path, say: Callable[[str], None]) -> list[str]:
    """Run the tour in the empty folder `place`; what did not go as it should, nothing when all is well."""
    names = {"control.test": ["192.0.2.80"], "evil.example": ["192.0.2.66"], "rumours.example": ["198.51.100.9"]}
    names |= {f"host{i:03d}.malware.test": ["192.0.2.67"] for i in range(120)}
    resolver = NameServer(names)
    with WebServer(_pages(_MALWARE, _PHISHING, _SCANNERS)) as web, serving(resolver):
        (place / "exports").mkdir()
        (place / "orders.csv").write_text(_ORDERS)
        (place / "blocklist.toml").write_text(_CONFIG.format(web=web.url(""), dns=resolver.port))
        tour = _Tour(place, say)
        _first_day(tour)
        _a_false_positive(tour)
        web.pages.update(_pages([*_MALWARE[:1], *_MALWARE[2:], "0.0.0.0 new.malware.test"], _PHISHING[:3], _SCANNERS))
        web.pages["/scanners.txt"] = Page(b"internal error\n", 500)
        _a_bad_day(tour)
    return tour.missed


def _pages(malware: list[str], phishing: list[str], scanners: list[str]) -> dict[str, Page | bytes]:
    texts = {"/malware.hosts": malware, "/phishing.txt": phishing, "/scanners.txt": scanners, "/top.txt": _TOP}
    return {path: ("\n".join(lines) + "\n").encode() for path, lines in texts.items()}


def _first_day(tour: _Tour) -> None:
    tour.notice("Four feeds and a reference list come in, are guarded, asked about in DNS, and published.")
    tour.run("update", shows=("published", "held", "checked by"))
    tour.notice(
        "Every line is accounted for: what is no name or address (an octal one, 10.0.0.1, 0.0.0.0/0, a",
        "line with terminal colours) is 'rejected'; what a person should see first is 'held':",
    )
    tour.run("held", shows=("bank.test", "co.uk", "portal.ministry.example"))
    tour.file(
        "blocklist.rpz",
        has=("*.evil.example CNAME .", "host001.malware.test CNAME ."),
        lacks=("bank.test CNAME", "ministry.example CNAME", "co.uk CNAME", "shared.test CNAME"),
    )
    tour.run("why", "a.b.evil.example", shows=("is blocked in dns (rpz), proxy (squid)", "phishing"))
    tour.notice("Two feeds name it; the raw line and its number come out of the kept bytes.")
    tour.run("why", "203.0.113.53", shows=("is not blocked", "203.0.113.0/25 is listed, but the address is cut out"))
    tour.notice("A public resolver inside a listed network is cut out of it, not blocked with it.")
    tour.run("why", "gone.example", shows=("nxdomain",))
    tour.notice(
        "It does not exist today. It counts as dead, and a policy may drop it, only when its registry says so",
        "three times over seven days.",
    )


def _a_false_positive(tour: _Tour) -> None:
    tour.notice("Three in the morning: good.evil.example is a customer's shop. One command frees it everywhere.")
    why = ("--reason", "customer's shop", "--ticket", "INC-7", "--until", "30d")
    tour.run("allow", "add", "good.evil.example", *why, "--now", shows=("published",))
    tour.run("why", "good.evil.example", shows=("is not blocked", "INC-7"))
    tour.file(
        "blocklist.rpz",
        has=("good.evil.example CNAME rpz-passthru.", "*.evil.example CNAME ."),
        lacks=("\ngood.evil.example CNAME .\n",),
    )
    tour.notice(
        "The zone passes it and what is below it; Squid can't say 'all but one', so there the entry shrinks to its",
        "own name, and the release says so. The rule ends by itself.",
    )


def _a_bad_day(tour: _Tour) -> None:
    tour.notice("The next day one feed answers 500, and another has lost 98 % of its entries.")
    tour.run("update", "--force", code=3, shows=("gated", "failed", "500"))
    tour.notice(
        "Neither harms a list: the last good entries stay. Exit code 3 tells the monitoring; 'status' shows it.",
    )
    tour.file("blocklist.rpz", has=("account001.phish.test CNAME .", "new.malware.test CNAME ."), lacks=())
    tour.file("blocklist.nft", has=("192.0.2.0/24",), lacks=("203.0.113.53",))
    tour.run("status", code=3, shows=("gated", "failed"))
    tour.run("update", "--accept", "phishing", code=4, shows=("held", "would be removed"))
    tour.notice(
        "A person accepts the small feed; but now more than 30 % of the published list would go, and the release",
        "waits for a person as well: 'blocklist export dns --dry-run' shows it, 'release approve dns' publishes it.",
    )
    tour.run("release", "approve", "dns", code=4, shows=("published",))
    tour.run("why", "evil.example", shows=("is blocked in dns (rpz)",))
