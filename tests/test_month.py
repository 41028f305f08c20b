"""A month in the life of an installation, told twice: by the record, and by a replay that reads raw feeds alone.

`Month` lives it: every day feeds change, fail, shrink or return, references gain and lose names, persons decide,
the configuration changes. `Replay` knows the rules of docs/semantics.md and what was done, and nothing of our code.
"""

from __future__ import annotations

import hashlib
import ipaddress
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from installation import World, names

from blocklist import clock
from blocklist.verify.loopback import LoopbackServer, serving

START = datetime(2026, 3, 1, 6, tzinfo=UTC)
LINGER = 2  # days for which the reference keeps what it dropped
MORNING, UPDATE, NOON = timedelta(hours=-1), timedelta(0), timedelta(hours=6)
DEFAULT = ("malware", "phishing", "c2")


@dataclass(frozen=True)
class Rule:
    """A person's rule; `created` and `ends` are days."""

    action: str
    what: str
    created: int
    ends: float = 1e9


@dataclass(frozen=True)
class Inputs:
    """What a release is chosen from, but for rules: lines by feed, and what stands beside them."""

    lists: Mapping[str, Sequence[str]]
    feeds: Mapping[str, tuple[str, int]]  # category, confidence; those in shadow mode are not among them
    referenced: frozenset[str]
    protected: frozenset[str]
    released: frozenset[str]
    dead: frozenset[str]
    policies: Mapping[str, Mapping[str, Any]]


@dataclass
class Replay:
    """Raw lists by day, decisions by day; answers by the words of docs/semantics.md."""

    raw: dict[str, dict[int, bytes]] = field(default_factory=dict)  # what a feed's file held when it was taken
    since: dict[str, dict[int, dict[str, int]]] = field(default_factory=dict)  # feed, day: name to day of its interval
    rules: dict[int, list[Rule]] = field(default_factory=dict)
    inputs: dict[int, dict[str, Inputs]] = field(default_factory=dict)  # day, export: those of the release in place

    def taken(self, feed: str, day: int) -> int | None:
        """The day whose list of `feed` counts on `day`."""
        return max((d for d in self.raw.get(feed, {}) if d <= day), default=None)

    def lines(self, feed: str, day: int) -> list[str]:
        return self.raw[feed][day].decode().splitlines()

    def blocked(self, export: str, what: str, day: int) -> bool:
        if day not in self.inputs or export not in self.inputs[day]:
            return False
        given = self.inputs[day][export]
        rules = [r for r in self.rules[day] if r.created <= day < r.ends]
        if _is_address(what) or export == "fw":
            return export == "fw" and _is_address(what) and _address(what, given, rules)
        policy = given.policies["strict" if export == "etc" else "default"]
        blocked = _name(what, given, rules, policy)
        if export == "etc" and blocked:
            # A hosts file knows the names in it, and nothing below them.
            own = any(r.action == "deny" and r.what == what for r in rules)
            return own or _scope(what, given, policy) is not None
        return blocked


def _is_address(what: str) -> bool:
    return what.replace(".", "").replace("/", "").isdigit()


def _above(name: str) -> list[str]:
    labels = name.split(".")
    return [".".join(labels[i:]) for i in range(len(labels))]


def _name(name: str, given: Inputs, rules: Sequence[Rule], policy: Mapping[str, Any]) -> bool:
    """The most specific rule, else any entry that is the name or covers it."""
    above = _above(name)
    speaking = [r for r in rules if r.what in above]
    if speaking:
        return max(speaking, key=lambda r: (r.what.count("."), r.action == "allow")).action == "deny"
    return any((scope := _scope(at, given, policy)) is not None and (at == name or scope == "subtree") for at in above)


def _scope(name: str, given: Inputs, policy: Mapping[str, Any]) -> str | None:
    """As what `name` stands, if it does: held, dead, of another category or too weak it does not."""
    guarded = given.referenced | given.protected
    free = name in given.released
    whole = not free and any(name in (at, f"www.{at}") for at in guarded)
    below = not free and any(at.endswith(f".{name}") for at in guarded)
    listing: list[tuple[int, bool]] = []
    for feed, (category, confidence) in given.feeds.items():
        lines = given.lists.get(feed, ())
        if category not in policy["categories"]:
            continue
        for subtree, line in ((False, name), (True, f"*.{name}")):
            if line in lines and not whole and not (subtree and below):
                listing.append((confidence, subtree))
    if not listing or (policy.get("dead") == "drop" and name in given.dead):
        return None

    def reaches(some: Sequence[tuple[int, bool]]) -> bool:
        passes = 1.0
        for confidence, _ in some:
            passes *= 1 - confidence / 100
        return bool(some) and int(100 * (1 - passes) + 1e-9) >= policy["min_confidence"]

    registrable = name.count(".") == 1
    wide = [x for x in listing if x[1] or (registrable and not below)]
    return None if not reaches(listing) else "subtree" if reaches(wide) else "exact"


def _address(what: str, given: Inputs, rules: Sequence[Rule]) -> bool:
    asked = ipaddress.ip_network(what)
    policy = given.policies["default"]
    if asked.network_address in {ipaddress.ip_address(r) for r in given.referenced if _is_address(r)}:
        return False
    speaking = [r for r in rules if _is_address(r.what) and asked.subnet_of(ipaddress.ip_network(r.what))]
    if speaking:
        return max(speaking, key=lambda r: ipaddress.ip_network(r.what).prefixlen).action == "deny"
    return any(
        category in policy["categories"]
        and confidence >= policy["min_confidence"]
        and asked.subnet_of(ipaddress.ip_network(line))
        for feed, (category, confidence) in given.feeds.items()
        for line in given.lists.get(feed, ())
        if _is_address(line)
    )


# What happens, by day. Each takes the month, which does it and tells the replay.

Event = Callable[["Month"], None]


class Month:
    """Lives day after day. `published` are the files of each day."""

    def __init__(self, base: Path, patch: pytest.MonkeyPatch, server: LoopbackServer) -> None:
        self.world, self.patch, self.replay = World(base), patch, Replay()
        self.day = 0
        self.rng = random.Random(20260301)
        self.files: dict[str, list[str]] = {}
        self.gone: set[str] = set()  # feeds whose file is missing
        self.refused: set[str] = set()  # feeds whose list of today is not taken
        self.accept: list[str] = []
        self.referenced: dict[str, int | None] = {}  # name to the day on which it left the reference
        self.rules: list[Rule] = []
        self.numbers: dict[str, int] = {}
        self.released: set[str] = set()
        self.dead: set[str] = set()
        self.held: set[str] = set()  # exports whose release waits
        self.published: list[dict[str, bytes]] = []
        self.outcomes: list[dict[str, str]] = []
        self.amended: list[set[str]] = []  # exports that showed an older list under newer rules
        self.fresh = 1_000
        self.whole: list[str] = []
        self.server = server
        world = self.world
        world.policies["default"] = {"categories": list(DEFAULT), "min_confidence": 50}
        world.policies["strict"] = {"categories": list(DEFAULT), "min_confidence": 75, "dead": "drop"}
        world.feed("alpha", [])
        world.feed("beta", [], category="phishing", confidence=60)
        world.feed("top", [], category="reference", linger=f"{LINGER}d")
        self.paths = {
            "dns": world.export("dns", "rpz"),
            "etc": world.export("etc", "hosts", policy="strict"),
            "fw": world.export("fw", "cidr"),
        }
        control = {"exists": ["control.example"], "missing": "example"}
        world.set("verify", resolvers=[f"127.0.0.1:{server.port}"], control=control, timeout=0.5, attempts=2)
        world.set("gates", max_change=0.25)
        self.files["alpha"] = [
            *names(150, zone="crowd.test"),
            "evil.example",
            "deep.host.other.example",
            "wide.example",
            "both.example",
        ]
        self.files["beta"] = ["192.0.2.0/26", "198.51.100.7", "203.0.113.0/28", "lame.example", "gone.example"]
        self.files["beta"] += ["both.example", *names(110, 200, zone="crowd.test")]
        self.files["top"] = ["famous.example", "203.0.113.9"]
        self.referenced = dict.fromkeys(self.files["top"])

    # Doing

    def at(self, hour: timedelta) -> None:
        moment = START + timedelta(days=self.day) + hour
        self.patch.setattr(clock, "now", lambda: moment)

    def run(self, *words: object, code: int = 0) -> str:
        ran = self.world.run(*words)
        assert ran.code == code and "Traceback" not in ran.text, ran.text
        return ran.out

    def put(self, feed: str, *lines: str) -> None:
        self.files[feed] += lines

    def drop(self, feed: str, *lines: str) -> None:
        self.files[feed] = [x for x in self.files[feed] if x not in lines]

    def rule(self, action: str, what: str, *words: str, days: int | None = None) -> None:
        until = ("--until", (START + timedelta(days=self.day + days)).strftime("%Y-%m-%dT%H:%MZ")) if days else ()
        self.run(action, "add", what, "--reason", f"day {self.day}", "--ticket", f"T-{self.day}", *words, *until)
        self.numbers[what] = max(n for (n,) in self.world.rows("SELECT max(id) FROM rule"))
        self.rules.append(Rule(action, what, self.day, self.day + days if days else 1e9))

    def unrule(self, what: str) -> None:
        self.run("allow", "remove", self.numbers[what], "--reason", "over")
        self.rules = [replace(r, ends=self.day) if r.what == what else r for r in self.rules]

    def verify(self, dead: Sequence[str] = ()) -> None:
        """Ask about all names; those that the registry denied three times over a week are dead from today on."""
        moment = clock.now()
        listed = {line.removeprefix("*.") for lines in self.files.values() for line in lines}
        known = {name: ["192.0.2.1"] for name in listed - {"gone.example"}}
        self.server.table = {**known, "control.example": ["192.0.2.53"]}
        with self.patch.context() as patch:
            patch.setattr(time, "time_ns", lambda: int(moment.timestamp() * 1e9))
            self.run("verify", "--all")
        self.dead |= set(dead)

    def configure(self, table: str, name: str, **keys: Any) -> None:
        getattr(self.world, table)[name].update(keys)
        self.world.write()

    # Living

    def live(self, happens: Sequence[Event]) -> None:
        world, day = self.world, self.day
        self.at(MORNING)
        if day:
            crowd = [x for x in self.files["alpha"] if x.startswith("h0")]
            for feed, leave in (("alpha", self.rng.sample(crowd, 3)), ("beta", [])):
                self.drop(feed, *leave)
                self.put(feed, *names(3 if feed == "alpha" else 1, self.fresh, zone="crowd.test"))
                self.fresh += 10
        self.accept, self.refused = [], set()
        for event in happens:
            event(self)
        for feed, lines in self.files.items():
            path = world.base / "feeds" / f"{feed}.txt"
            if feed in self.gone:
                path.unlink(missing_ok=True)
            else:
                world.lines(feed, lines)
        self.at(UPDATE)
        ran = world.update("--no-verify", *(w for feed in self.accept for w in ("--accept", feed)))
        assert ran.code in (0, 3, 4), ran.text
        self._tell(ran.json)
        self.published.append({name: path.read_bytes() for name, path in self.paths.items()})
        self.day += 1

    def _tell(self, summary: Mapping[str, Any]) -> None:
        """What the replay may know: raw bytes that were on offer, and what persons did."""
        day, replay = self.day, self.replay
        self.outcomes.append({f["id"]: f["outcome"] for f in summary["feeds"]})
        for feed, lines in self.files.items():
            if feed in self.world.feeds and feed not in self.gone | self.refused:
                replay.raw.setdefault(feed, {})[day] = "".join(f"{x}\n" for x in lines).encode()
        for feed in self.gone | self.refused:
            assert self.outcomes[-1].get(feed) in ("failed", "gated", "unchanged"), (feed, self.outcomes[-1])
        for feed in replay.raw:
            before = replay.since.setdefault(feed, {}).get(day - 1, {})
            counts = feed in self.world.feeds
            at = replay.taken(feed, day)
            now = replay.lines(feed, at) if counts and at is not None else []
            replay.since[feed][day] = {x: before.get(x, day) for x in now}
        for what in self.referenced:
            if what in self.files["top"]:
                self.referenced[what] = None
            elif self.referenced[what] is None:
                self.referenced[what] = day
        self.referenced.update(dict.fromkeys(x for x in self.files["top"] if x not in self.referenced))
        held = frozenset(x for x, left in self.referenced.items() if left is None or day < left + LINGER)
        inputs = Inputs(
            lists={f: tuple(replay.since[f][day]) for f in replay.raw if f != "top" and f in self.world.feeds},
            feeds={
                f: (x["category"], x["confidence"]) for f, x in self.world.feeds.items() if x.get("mode") != "shadow"
            },
            referenced=held,
            protected=frozenset(self.world.tables.get("protect", {}).get("domains", ())),
            released=frozenset(self.released),
            dead=frozenset(self.dead),
            policies=deepcopy(self.world.policies),
        )
        told = {e["name"]: e["outcome"] for e in summary["exports"]}
        print(
            day,
            [
                (e["name"], e["outcome"], e["entries"], e["added"], e["removed"], e["note"], e["error"])
                for e in summary["exports"]
            ],
        )
        for export in self.paths:
            assert (told[export] == "held") == (export in self.held), (day, export, summary["exports"])
        before_ = replay.inputs.get(day - 1, {})
        replay.inputs[day] = {e: before_[e] if e in self.held else inputs for e in self.paths}
        replay.rules[day] = list(self.rules)
        self.amended.append(set(self.held))


def _free(what: str) -> Event:
    def happens(month: Month) -> None:
        month.run("held", "release", what, "--reason", "seen by the CERT")
        month.released.add(what)

    return happens


def _revoke(what: str) -> Event:
    def happens(month: Month) -> None:
        month.run("held", "revoke", what, "--reason", "a mistake")
        month.released.discard(what)

    return happens


def _fail(*feeds: str) -> Event:
    return lambda month: month.gone.update(feeds)


def _return(month: Month) -> None:
    month.gone.clear()


def _shrink(month: Month) -> None:
    month.whole = month.files["beta"]
    month.files["beta"] = month.whole[:20]
    _still_small(month)


def _still_small(month: Month) -> None:
    month.refused.add("beta")


def _some_return(month: Month) -> None:
    month.files["beta"] = month.whole[:70]


def _all_return(month: Month) -> None:
    month.files["beta"] = list(month.whole)


def _held(*exports: str) -> Event:
    return lambda month: month.held.update(exports)


def _accept(month: Month) -> None:
    month.accept.append("beta")
    # So many entries leave at once that the gate of releases asks a person too.
    month.held |= {"dns", "etc"}


def _approve(*exports: str) -> Event:
    def happens(month: Month) -> None:
        for export in exports:
            ran = month.world.run("release", "approve", export)
            assert ran.code in (0, 4) and "is approved" in ran.out, ran.text  # 4: another one is still held
            month.held.discard(export)

    return happens


def _new_feed(month: Month) -> None:
    month.files["gamma"] = ["*.tree.example", "*.famous.example", "leaf.tree.example", "evil.example"]
    month.world.feed("gamma", [], format="wildcard", category="c2", confidence=80)


def _no_feed(month: Month) -> None:
    del month.world.feeds["gamma"]
    del month.files["gamma"]
    month.world.write()


def _verify(*dead: str) -> Event:
    return lambda month: month.verify(dead)


HAPPENS: dict[int, Sequence[Event]] = {
    1: [lambda m: m.put("alpha", "famous.example", "www.famous.example"), _verify()],
    2: [
        lambda m: m.rule("allow", "evil.example"),
        lambda m: m.rule("deny", "denied.example", days=3),
        lambda m: m.rule("allow", "192.0.2.7"),
        _fail("alpha"),
    ],
    3: [_return, _free("famous.example"), _new_feed],
    4: [
        lambda m: m.put("top", "safe.wide.example", "deep.host.other.example"),
        lambda m: m.rule("deny", "worse.evil.example"),
        _verify(),
    ],
    5: [
        lambda m: m.configure("feeds", "beta", confidence=85),
        lambda m: m.unrule("evil.example"),
        lambda m: m.drop("alpha", "both.example"),
        _held("etc"),  # a hundred names of beta are strong enough for the strict policy now
    ],
    6: [_approve("etc"), lambda m: m.drop("top", "deep.host.other.example"), _revoke("famous.example")],
    7: [lambda m: m.put("alpha", "both.example"), lambda m: m.world.set("protect", domains=["lame.example"])],
    9: [lambda m: m.configure("policies", "strict", min_confidence=60), _verify("gone.example")],
    10: [_shrink],
    11: [_still_small, lambda m: m.rule("allow", "both.example")],
    12: [_accept, lambda m: m.rule("deny", "while.held.example")],
    13: [_approve("dns", "etc")],
    14: [lambda m: m.configure("policies", "strict", categories=["malware", "c2"])],
    15: [lambda m: m.configure("feeds", "beta", mode="shadow"), _held("fw")],  # no address would be left
    17: [lambda m: m.configure("feeds", "beta", mode="live"), lambda m: m.held.discard("fw")],
    18: [_some_return, _held("dns")],
    19: [_all_return, _approve("dns"), _held("dns")],
    20: [_approve("dns"), _no_feed],
    21: [lambda m: m.configure("policies", "default", min_confidence=88), _held("dns", "fw")],
    22: [
        lambda m: m.configure("policies", "default", min_confidence=50),
        lambda m: m.held.clear(),
        _held("etc"),
    ],  # too much in a week
    23: [_approve("etc"), _fail("alpha", "top")],
    25: [_return, lambda m: m.put("alpha", "*.not.read.as.wildcard.example")],
    26: [_new_feed, lambda m: m.unrule("both.example")],
    28: [lambda m: m.drop("top", "203.0.113.9")],
}
DAYS, SHORT = 30, 9
ASKED = (
    "evil.example", "x.evil.example", "worse.evil.example", "a.worse.evil.example", "denied.example",
    "x.denied.example", "famous.example", "www.famous.example", "x.famous.example", "tree.example",
    "leaf.tree.example", "a.b.tree.example", "wide.example", "x.wide.example", "safe.wide.example", "both.example",
    "x.both.example", "lame.example", "www.lame.example", "gone.example", "deep.host.other.example",
    "x.deep.host.other.example", "other.example", "while.held.example", "never.example", "192.0.2.7", "192.0.2.8",
    "198.51.100.7", "203.0.113.9", "203.0.113.10", "192.0.2.64",
)  # fmt: skip


@pytest.fixture(
    scope="module", params=[pytest.param(SHORT, id="days"), pytest.param(DAYS, id="month", marks=pytest.mark.slow)]
)
def month(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Month]:
    server = LoopbackServer({"control.example": ["192.0.2.53"]})
    with pytest.MonkeyPatch.context() as patch, serving(server):
        month = Month(tmp_path_factory.mktemp("month"), patch, server)
        for day in range(request.param):
            month.live(HAPPENS.get(day, ()))
        month.at(NOON)  # of the day after the last
        yield month


def _noon(day: int) -> str:
    return clock.text(START + timedelta(days=day) + NOON)


def _of_file(name: str, data: bytes, what: str) -> bool:
    """Does the file block it, by the words of its format?"""
    lines = data.decode().splitlines()
    if name == "fw":
        return any(ipaddress.ip_address(what) in ipaddress.ip_network(x) for x in lines)
    if name == "etc":
        return f"0.0.0.0 {what}" in lines
    actions = {}
    for line in lines:
        words = line.split()
        if len(words) == 3 and words[1] == "CNAME":
            actions[words[0]] = words[2]
    for at in (what, *(f"*.{x}" for x in _above(what)[1:])):
        if at in actions:
            return actions[at] == "."
    return False


def test_files_and_answers_of_every_day_are_those_of_the_replay(month: Month) -> None:
    replay, rng = month.replay, random.Random(7)
    everything = sorted({x for days in replay.since["alpha"].values() for x in days if x.startswith("h")})
    wrong = []
    for day, files in enumerate(month.published):
        for what in (*ASKED, *rng.sample(everything, 12)):
            ran = month.world.run("why", what, "--at", _noon(day), "--json")
            assert ran.code == 0, ran.text
            said = {e["name"]: e for e in ran.json["exports"]}
            for export, data in files.items():
                expected = replay.blocked(export, what, day)
                if (export == "fw") == _is_address(what):
                    in_file = _of_file(export, data, what)
                    wrong += [("file", day, export, what, in_file)] if in_file != expected else []
                if said[export]["blocked"] != expected:
                    wrong.append(("why", day, export, what, expected, said[export]["because"]))
            found = {
                (x["feed"], x["since"], x["line"], x["text"], x["snapshot"])
                for x in (*ran.json["listings"], *ran.json["references"])
                # What stands in an older file, or counts for some days after it left, is shown too, with its end.
                if x["indicator"] == what and x["dropped"] is None and (x["until"] or "9") > _noon(day)
            }
            if found != _listings(month, what, day):
                wrong.append(("listing", day, what, found, _listings(month, what, day)))
    assert not wrong, "\n".join(map(str, wrong[:20]))


def _listings(month: Month, what: str, day: int) -> set[tuple[str, str, int, str, str]]:
    """Who lists exactly that, since when, in which line of which bytes."""
    out = set()
    for feed, days in month.replay.since.items():
        for line in (what, f"*.{what}"):
            if line in days.get(day, {}):
                since = days[day][line]
                raw = month.replay.raw[feed][since]
                number = raw.decode().splitlines().index(line) + 1
                sha = f"sha256:{hashlib.sha256(raw).hexdigest()}"
                out.add((feed, clock.text(START + timedelta(days=since)), number, line, sha))
    return out


def test_every_day_comes_back_byte_for_byte(month: Month, tmp_path: Path) -> None:
    def exported(export: str, day: int) -> tuple[bytes, str]:
        ran = month.world.run("export", export, "--at", _noon(day), "-o", tmp_path / "then", "--json")
        assert ran.code == 0, ran.text
        return (tmp_path / "then").read_bytes(), ran.json["how"]

    for day, files in enumerate(month.published):
        for export, data in files.items():
            assert exported(export, day) == (data, "kept"), (day, export)
    # Without kept bytes all but what stood under newer rules than its listings is made again.
    month.world.state.joinpath("kept").rename(month.world.state / "gone")
    try:
        for day, files in enumerate(month.published):
            for export, data in files.items():
                if export not in month.amended[day]:
                    assert exported(export, day) == (data, "made again"), (day, export)
    finally:
        month.world.state.joinpath("gone").rename(month.world.state / "kept")


def test_the_record_and_its_chain_hold(month: Month) -> None:
    month.world.assert_sound()
    assert month.world.left_over() == []
    assert month.world.run("events", "verify").code == 0
