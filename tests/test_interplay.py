"""Features against each other: what feeds, operators and the clock may do, in any order, and what must hold all along.

The machine drives the real commands over a small installation. After every step the files are read as their targets
read them, and compared with `why`, with the record, and with what an installation without caches would write.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from installation import World

from blocklist import clock, config
from blocklist.audit import Audit
from blocklist.config import Config
from blocklist.ingest.guard import guard
from blocklist.picture import Picture
from blocklist.publish.capacity import unlimited
from blocklist.publish.descriptor import catalogue
from blocklist.publish.render import render
from blocklist.publish.selector import Selector
from blocklist.rules import rules_in_force
from blocklist.store.record import Record

DOMAINS = ["evil.example", "a.evil.example", "b.a.evil.example", "other.test", "www.other.test", "x.y.other.test"]
DOMAINS += ["evil.co.uk", "a.evil.co.uk", "co.uk", "third.example", "fourth.example", "fifth.example"]
NETWORKS = ["192.0.2.0/28", "192.0.2.8/30", "192.0.2.9", "198.51.100.7", "2001:db8::/126", "2001:db8::1"]
ASKED = [*DOMAINS, "z.evil.example", "z.co.uk", "z.y.other.test"]
ASKED += ["192.0.2.1", "192.0.2.8", "192.0.2.9", "192.0.2.10", "198.51.100.7", "2001:db8::1", "2001:db8::2"]
FEEDS = ("plain", "wild", "rows", "nets")
START = datetime(2026, 3, 1, 6, tzinfo=UTC)

some = st.lists(st.sampled_from(DOMAINS), max_size=8, unique=True)
a_domain, a_network = st.sampled_from(DOMAINS), st.sampled_from(NETWORKS)
anything = st.one_of(a_domain, a_network)
export_names = st.sampled_from(["dns", "names", "masq", "few", "fw", "people", "zones"])


# How each target reads its file: does it block?


def _names(text: str, asked: str) -> bool:
    return asked in text.splitlines()


def _masq(text: str, asked: str) -> bool:
    """dnsmasq: the longest matching domain decides; `#` is the usual servers."""
    said = {}
    for line in text.splitlines():
        if line.startswith("server=/"):
            _, name, server = line.split("/")
            said[name] = server != "#"
    above = [asked.split(".", i)[-1] for i in range(asked.count(".") + 1)]
    return next((said[name] for name in above if name in said), False)


def _zone(text: str, asked: str) -> bool:
    return _said(text, asked) or False


def _said(text: str, asked: str) -> bool | None:
    """RFC 1034 §4.3.3, RFC 4592: the owner itself, else the wildcard of the closest encloser."""
    owners = {}
    for line in text.splitlines():
        if " CNAME " in line:
            owner, target = line.split(" CNAME ")
            owners[owner] = target == "."
    if asked in owners:
        return owners[asked]
    above = [asked.split(".", i)[-1] for i in range(1, asked.count(".") + 1)]
    for name in above:
        if name in owners or any(owner.endswith(f".{name}") for owner in owners):
            return owners.get(f"*.{name}")
    return None


def _area(text: str, asked: str) -> bool:
    lines = [ip_network(line) for line in text.splitlines() if line and line[0] != "#"]
    wanted = ip_network(asked)
    return any(wanted.version == line.version and wanted.subnet_of(line) for line in lines)  # type: ignore[arg-type]


def _squid(text: str, asked: str) -> bool:
    lines = set(text.splitlines())
    above = [asked.split(".", i)[-1] for i in range(asked.count(".") + 1)]
    return asked in lines or any(f".{name}" in lines for name in above)


def _zones(text: str, asked: str) -> bool:
    """Policy zones are asked one after the other; the first that says anything decides."""
    said = (_said(part, asked) for part in text.split("\f"))
    return next((word for word in said if word is not None), False)


def _rows(text: str, asked: str) -> bool:
    rows = list(csv.DictReader(io.StringIO(text)))
    if asked[0].isdigit() or ":" in asked:
        return any(_area(row["indicator"], asked) for row in rows if row["kind"] in ("ipv4", "ipv6"))
    return any(
        row["indicator"] == asked or (row["scope"] == "subtree" and asked.endswith("." + row["indicator"]))
        for row in rows
    )


READ: dict[str, Callable[[str, str], bool]] = {
    "dns": _zone, "names": _names, "masq": _masq, "few": _squid, "fw": _area, "people": _rows, "zones": _zones,
}  # fmt: skip


class Interplay(RuleBasedStateMachine):
    """`tampered`: files that somebody removed or edited since; they say nothing until they are written again."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.mkdtemp()
        self.patch = pytest.MonkeyPatch()
        self.now = START
        self.went_back = False
        self.patch.setattr(clock, "now", lambda: self.now)
        self.world = world = World(Path(self.folder))
        self.shadowed: dict[str, dict[str, Any]] = {}
        self.serials: dict[str, int] = {}
        self.lived: dict[str, list[tuple[datetime, str]]] = {}
        self.tampered: set[str] = set()
        world.feed("plain", DOMAINS[:3])
        world.feed("wild", ["*.other.test"], format="wildcard", category="phishing", confidence=60, linger="2d")
        world.feed("rows", b"domain,cat,conf,until,tlp\n", format={
            "name": "csv", "value": "domain", "category": "cat", "confidence": "conf", "expires": "until", "tlp": "tlp"
        })  # fmt: skip
        world.feed("nets", NETWORKS[:2], category="c2", direction="both")
        world.feed("top", ["famous.example"], category="reference", linger="2d", max_new_holds=1)
        world.policies["default"] = {"categories": ["malware", "phishing", "c2"], "min_confidence": 50}
        world.policies["strict"] = {"categories": ["malware", "phishing", "c2"], "min_confidence": 70, "widen": False}
        world.policies["strict"]["audience"] = "partners"
        world.export("dns", "rpz")
        world.export("names", "domains")
        world.export("masq", "dnsmasq", policy="strict")
        world.export("few", "squid", max_entries=3, fit="rank")
        world.export("zones", "rpz", split="category", options={"origin": "rpz.example"})
        world.export("fw", "cidr")
        world.export("people", "csv", policy="strict")
        world.set("gates", max_change=0.5, min_size=4)
        self.run("update", "--no-verify")

    def teardown(self) -> None:
        try:
            self._look_back()
        finally:
            self.patch.undo()
            shutil.rmtree(self.folder)

    def run(self, *words: object, codes: tuple[int, ...] = (0, 3, 4)) -> str:
        ran = self.world.run(*words)
        assert ran.code in codes and "Traceback" not in ran.text and "unexpected" not in ran.text, (words, ran.text)
        return ran.text

    def paths(self, export: str) -> list[Path]:
        """Where the files of an export lie, in the order in which an engine is told of them."""
        rows = self.world.rows("SELECT path, files FROM release WHERE export = ? AND state = 'live'", export)
        if not rows:
            return []
        return [Path(file["path"]) for file in json.loads(rows[0][1])] if rows[0][1] else [Path(rows[0][0])]

    def text(self, export: str) -> str | None:
        """All files of an export, a form feed between them; None where one is missing."""
        paths = [path for path in self.paths(export) if path.suffix != ".jsonl"]
        if not paths or not all(path.exists() for path in paths):
            return None
        return "\f".join(path.read_text("ascii") for path in paths)

    def forget_tampering(self) -> None:
        self.tampered = {e for e in self.tampered if not self._in_place(e)}

    def _in_place(self, export: str) -> bool:
        rows = self.world.rows("SELECT digest, files FROM release WHERE export = ? AND state = 'live'", export)
        if not rows:
            return False
        known = [file["digest"] for file in json.loads(rows[0][1])] if rows[0][1] else [rows[0][0]]
        found = [hashlib.sha256(p.read_bytes()).hexdigest() if p.exists() else "" for p in self.paths(export)]
        return found == known

    # What feeds do

    @rule(names=some)
    def plain_lists(self, names: list[str]) -> None:
        self.world.lines("plain", [*names, "always.example"])

    @rule(names=some, wide=st.booleans())
    def wild_lists(self, names: list[str], wide: bool) -> None:
        self.world.lines("wild", [*(f"*.{n}" if wide else n for n in names), "*.always.example"])

    @rule(
        rows=st.lists(
            st.tuples(
                a_domain,
                st.sampled_from(["malware", "phishing", "advertising", ""]),
                st.sampled_from(["", "30", "80"]),
                st.sampled_from([None, 3600, 7200, 86_400]),
                st.sampled_from(["", "red", "amber"]),
            ),
            max_size=5,
        )
    )
    def rows_list(self, rows: list[tuple[str, str, str, int | None, str]]) -> None:
        def text(after: int | None) -> str:
            return "" if after is None else clock.text(self.now + timedelta(seconds=after))

        lines = [f"{n},{category},{conf},{text(after)},{tlp}" for n, category, conf, after, tlp in rows]
        self.world.lines("rows", ["domain,cat,conf,until,tlp", *lines, "always.example,malware,,,"])

    @rule(nets=st.lists(a_network, max_size=4, unique=True))
    def nets_list(self, nets: list[str]) -> None:
        self.world.lines("nets", [*nets, "203.0.113.77"])

    @rule(names=st.lists(anything, max_size=3, unique=True))
    def reference_lists(self, names: list[str]) -> None:
        self.world.lines("top", [*names, "famous.example"])

    # What operators configure

    @rule(feed=st.sampled_from(FEEDS[1:]))
    def switch_feed(self, feed: str) -> None:
        if feed in self.shadowed:
            self.world.feeds[feed] = self.shadowed.pop(feed)
        elif len(self.world.feeds) > 3:
            self.shadowed[feed] = self.world.feeds.pop(feed)
        self.world.write()

    @rule(
        feed=st.sampled_from(FEEDS),
        keys=st.sampled_from(
            [
                {"confidence": 40}, {"confidence": 95}, {"category": "phishing"}, {"mode": "shadow"}, {"mode": "live"},
                {"linger": "1d"}, {"linger": "0d"}, {"max_age": "1d"}, {"max_age": "30d"}, {"tlp": "red"},
                {"tlp": "clear"}, {"direction": "inbound"}, {"family": "one"}, {"scope": "subtree"},
            ]
        ),
    )  # fmt: skip
    def configure_feed(self, feed: str, keys: dict[str, Any]) -> None:
        if feed in self.world.feeds:
            self.world.feeds[feed].update(keys)
            self.world.write()

    @rule(
        policy=st.sampled_from(["default", "strict"]),
        keys=st.sampled_from(
            [
                {"min_confidence": 50}, {"min_confidence": 95}, {"widen": False}, {"widen": True}, {"feeds": ["plain"]},
                {"categories": ["malware"]}, {"categories": ["malware", "phishing", "c2"]}, {"audience": "house"},
                {"audience": "public"}, {"guards": {"phishing": []}}, {"guards": {}}, {"kinds": ["domain"]},
            ]
        ),
    )  # fmt: skip
    def configure_policy(self, policy: str, keys: dict[str, Any]) -> None:
        self.world.policies[policy].update(keys)
        self.world.write()

    @rule(policy=st.sampled_from(["default", "strict"]), export=export_names)
    def move_export(self, policy: str, export: str) -> None:
        self.world.exports[export]["policy"] = policy
        self.world.write()

    @rule(nets=st.lists(a_network, max_size=2, unique=True), names=st.lists(a_domain, max_size=1))
    def protect(self, nets: list[str], names: list[str]) -> None:
        self.world.set("protect", networks=nets, domains=names)

    # What operators say

    @rule(
        action=st.sampled_from(["allow", "deny"]),
        what=anything,
        exact=st.booleans(),
        until=st.sampled_from([None, 1800, 3600, 86_400]),
        now=st.booleans(),
    )
    def add_rule(self, action: str, what: str, exact: bool, until: int | None, now: bool) -> None:
        words = ["--exact"] if exact and what in DOMAINS else []
        words += ["--until", clock.text(self.now + timedelta(seconds=until))] if until else []
        self.run(action, "add", what, "--reason", "r", *words, *(["--now"] if now else []), codes=(0, 2, 3, 4))

    @rule(number=st.integers(1, 4))
    def remove_rule(self, number: int) -> None:
        for action in ("allow", "deny"):
            self.run(action, "remove", number, "--reason", "r", codes=(0, 2, 4))

    @rule(what=anything, word=st.sampled_from(["release", "revoke"]))
    def let_pass(self, what: str, word: str) -> None:
        self.run("held", word, what, "--reason", "r", codes=(0, 2, 4))

    @rule(export=export_names)
    def approve(self, export: str) -> None:
        self.run("release", "approve", export, codes=(0, 2, 4))
        self.forget_tampering()

    @rule(export=export_names, which=st.one_of(st.none(), st.integers(0, 9)))
    def roll_back(self, export: str, which: int | None) -> None:
        known = self.world.rows("SELECT id FROM release WHERE export = ? AND published IS NOT NULL", export)
        words = [] if which is None or not known else [known[which % len(known)][0]]
        self.run("release", "rollback", export, *words, "--reason", "r", codes=(0, 2, 4))
        self.forget_tampering()

    @rule(export=export_names)
    def unpin(self, export: str) -> None:
        self.run("release", "unpin", export, codes=(0, 2, 4))
        self.forget_tampering()

    # What happens by itself

    @rule(seconds=st.sampled_from([1, 1799, 1800, 3600, 43_200, 86_400, 172_800]))
    def time_goes_on(self, seconds: int) -> None:
        self.time_passes(seconds)

    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(seconds=st.sampled_from([1, 3600, 90_000]))
    def clock_goes_back(self, seconds: int) -> None:
        self.now -= timedelta(seconds=seconds)
        self.went_back = True

    @rule(which=st.sampled_from(["columns", "decided"]))
    def caches_are_lost(self, which: str) -> None:
        shutil.rmtree(self.world.state / which, ignore_errors=True)

    @rule(export=export_names, how=st.sampled_from(["removed", "edited"]))
    def file_is_tampered_with(self, export: str, how: str) -> None:
        for path in self.paths(export)[-1:]:
            if path.exists():
                self.tampered.add(export)
                path.unlink() if how == "removed" else path.write_bytes(b"edited.example\n")

    # Runs

    # What changes is of no matter until something runs: half of the steps do.
    @rule(accept=st.booleans(), minutes=st.integers(0, 90))
    def update(self, accept: bool, minutes: int) -> None:
        self.time_passes(minutes * 60)
        words = ["--accept", "top"] if accept and self._waits("top") else []
        self.run("update", "--no-verify", *words)
        self.forget_tampering()
        self._as_from_nothing()

    def _waits(self, feed: str) -> bool:
        """Does a snapshot wait at the gate of `feed`? `--accept` is refused where none does."""
        gated = "SELECT 1 FROM snapshot s JOIN feed f ON f.id = s.feed WHERE s.state = 'gated' AND f.name = ?"
        return bool(self.world.rows(gated, feed))

    update_again = update
    update_once_more = update
    update_at_last = update

    @rule(feed=st.sampled_from([*FEEDS, "top"]))
    def update_one(self, feed: str) -> None:
        if feed in self.world.feeds:
            self.run("update", "--no-verify", feed)
            self.forget_tampering()
            self._as_from_nothing()

    @rule()
    def update_alone(self) -> None:
        self.run("update", "--no-verify", "--no-export")

    @rule(export=st.one_of(st.none(), export_names))
    def export(self, export: str | None) -> None:
        self.run("export", *([export] if export else []))
        self.forget_tampering()
        if export is None:
            self._twice()

    # What must hold

    @invariant()
    def why_says_what_the_files_do(self) -> None:
        if not self.world.database.exists():
            return
        settled, formats = self._settled()
        audit = Audit(settled, formats)
        texts = {export: self.text(export) for export in READ}
        try:
            for asked in ASKED:
                for said in audit.why(asked, lines=False).exports:
                    text = texts[said.name]
                    if said.excluded or said.name in self.tampered or text is None:
                        continue
                    does = READ[said.name](text, asked)
                    assert said.blocked == does, f"{asked} in {said.name}: blocked {does}, and why says {said}"
        finally:
            audit.close()

    @invariant()
    def what_is_recorded_was_published_and_serials_rise(self) -> None:
        for export, serial in self.world.rows("SELECT export, serial FROM release WHERE state = 'live'"):
            assert serial >= self.serials.get(export, 0), export
            self.serials[export] = serial
            if export not in self.tampered:
                assert self._in_place(export), export
                lived = self.lived.setdefault(export, [])
                text = self.text(export) or ""
                if not lived or lived[-1][1] != text:
                    lived.append((self.now, text))
        assert self.world.rows("SELECT 1 FROM release WHERE state = 'pending'") == []

    def _settled(self) -> tuple[Config, Any]:
        settled = config.load(self.world.config)
        return settled, catalogue(settled.formats_folder)

    def _twice(self) -> None:
        """What was just published is not published again."""
        before = {export: self.text(export) for export in READ}
        told = self.run("export")
        assert {export: self.text(export) for export in READ} == before, told

    def _as_from_nothing(self) -> None:
        """Files and holds are those of the same record without caches, where nothing waits for a person."""
        self._twice()
        settled, formats = self._settled()
        with tempfile.TemporaryDirectory() as folder:
            state = Path(folder) / "var"
            shutil.copytree(self.world.state, state, ignore=shutil.ignore_patterns("columns", "decided"))
            record = Record.open(state)
            try:
                picture = Picture(settled, record)
                rules = rules_in_force(record.connection, clock.now())
                selector = Selector(picture, record, settled.policies, rules, config=settled)
                wanted = guard(picture.current(), picture.references()).select("name", "guard", "subtree_only")
                kept = record.open_holds().select("name", "guard", "subtree_only")
                assert sorted(kept.rows()) == sorted(wanted.rows()), "holds"
                for name, export in settled.exports.items():
                    fmt = formats[export.format]
                    newest = "SELECT state FROM release WHERE export = ? ORDER BY id DESC LIMIT 1"
                    if (
                        name in self.tampered
                        or export.fit
                        or export.split
                        or self.world.rows(newest, name) != [("live",)]
                    ):
                        continue
                    selection, _ = selector.selection(export, fmt)
                    out = io.BytesIO()
                    render(unlimited(fmt), selection, {**export.options, "serial": self.serials_of(name)}, out)
                    written = self.text(name)
                    assert out.getvalue().decode() == written, f"{name}: {written!r}, not {out.getvalue()!r}"
            finally:
                record.close()

    def serials_of(self, export: str) -> int:
        return int(self.world.rows("SELECT serial FROM release WHERE export = ? AND state = 'live'", export)[0][0])

    def _look_back(self) -> None:
        """Some files of then, as they were."""
        if self.went_back:
            return
        for export, lived in self.lived.items():
            if export == "zones":
                continue
            for begin, _ in lived[-2:]:
                ran = self.world.run("export", export, "--at", clock.text(begin), "-o", "-")
                same = [t for at, t in lived if at == begin]
                assert ran.code == 0 and ran.out == same[-1], (export, begin, ran.text)


def _hold(machine: type[Interplay], **keys: Any) -> None:
    # Shrinking takes minutes, and the steps that failed are few: they are printed as they were found.
    checks, phases = list(HealthCheck), [Phase.generate]
    chosen = settings(deadline=None, suppress_health_check=checks, phases=phases, **keys)
    run_state_machine_as_test(machine, settings=chosen)  # type: ignore[no-untyped-call]


def test_features_hold_together_in_any_order() -> None:
    _hold(seed(6)(type("Seeded", (Interplay,), {})), max_examples=5, stateful_step_count=14)


@pytest.mark.slow
def test_features_hold_together_in_many_orders() -> None:
    _hold(Interplay, max_examples=60, stateful_step_count=25)
