"""`why`: what the screen says at three in the morning, the JSON that scripts read, and how fast both come."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from worlds import FORMATS, Line, Settled, Word, World, exports, indicators, settled

from blocklist import clock
from blocklist.audit import Answer, InExport
from blocklist.catalog import Feed
from blocklist.cli.why import as_json
from blocklist.config import Policy
from blocklist.decisions import add_rule, release_hold, remove_rules
from blocklist.publish import descriptor
from blocklist.suffixes import builtin_rules, builtin_rules_about

MALWARE = Feed(id="malware", title="Tests", url="file:list", category="malware", confidence=90)
SCAN = Feed(id="scans", title="Tests", url="file:list", category="attack-source", confidence=90)
ADS = Feed(id="ads", title="Tests", url="file:list", category="advertising", confidence=90)
TRIAL = Feed(id="trial", title="Tests", url="file:list", category="malware", confidence=90, mode="shadow")
TOP = Feed(id="top", title="Tests", url="file:list", category="reference")
FEEDS = [MALWARE, SCAN, ADS, TRIAL, TOP]
ALL = exports(dns="rpz", fw="nftables", proxy="squid", etc="hosts", masq="dnsmasq", links="urls")


def why(world: World, query: str) -> Answer:
    with settled(world, ALL) as here, here.audit() as audit:
        return audit.why(query)


def of(answer: Answer, export: str) -> InExport:
    return next(e for e in answer.exports if e.name == export)


LISTED = World(FEEDS, [Line(0, "evil.example")])


@pytest.mark.parametrize(
    ("world", "query", "export", "blocked", "because"),
    [
        (LISTED, "evil.example", "dns", True, "it is listed"),
        (LISTED, "a.evil.example", "dns", True, "evil.example and all below it is listed"),
        (
            LISTED,
            "a.evil.example",
            "etc",
            False,
            "evil.example is listed and all below it, but hosts knows single names only",
        ),
        (LISTED, "other.example", "dns", False, "not listed"),
        (LISTED, "evil.example", "fw", False, "nftables holds no domains"),
        (
            World(FEEDS, [Line(0, "www.evil.example")]),
            "a.www.evil.example",
            "dns",
            False,
            "www.evil.example is listed, but not what is below it",
        ),
        (
            World(FEEDS, [Line(0, "www.evil.example")]),
            "a.www.evil.example",
            "masq",
            True,
            "www.evil.example is listed, and dnsmasq blocks whole subtrees only",
        ),
        (
            replace(LISTED, words=[Word("allow", "evil.example")]),
            "a.evil.example",
            "dns",
            False,
            "allowed by rule 1 for evil.example and all below it (ana: tests)",
        ),
        (
            replace(LISTED, words=[Word("allow", "a.evil.example")]),
            "b.evil.example",
            "proxy",
            False,
            "evil.example is listed and all below it, but an allow inside leaves only the name itself in squid, "
            "which knows no exceptions",
        ),
        (
            World(FEEDS, words=[Word("deny", "evil.example")]),
            "a.evil.example",
            "dns",
            True,
            "denied by rule 1 for evil.example and all below it (ana: tests)",
        ),
        (
            replace(LISTED, holds=[("evil.example", False)]),
            "evil.example",
            "dns",
            False,
            "evil.example is held (reference: named by tests)",
        ),
        (
            replace(LISTED, holds=[("evil.example", True)]),
            "a.evil.example",
            "dns",
            False,
            "evil.example is listed, but not what is below it: held as a subtree (reference: named by tests)",
        ),
        (
            World(FEEDS, [Line(0, "evil.example", subtree=True)], holds=[("evil.example", True)]),
            "evil.example",
            "dns",
            False,
            "evil.example is held as a subtree (reference: named by tests)",
        ),
        (
            replace(LISTED, holds=[("evil.example", True)]),
            "evil.example",
            "masq",
            False,
            "evil.example is listed, but dnsmasq knows only whole subtrees, and this one is held (reference)",
        ),
        (
            World(FEEDS, [Line(0, "evil.example", confidence=40)]),
            "evil.example",
            "dns",
            False,
            "evil.example has confidence 40, the policy asks 50",
        ),
        (
            World(FEEDS, [Line(2, "evil.example")]),
            "evil.example",
            "dns",
            False,
            "evil.example is listed, but the policy does not take the category advertising (feed ads)",
        ),
        (
            World(FEEDS, [Line(3, "evil.example")]),
            "evil.example",
            "dns",
            False,
            "evil.example is listed, but feed trial is in shadow mode: recorded, never exported",
        ),
        (World(FEEDS, [Line(1, "192.0.2.0/28")]), "192.0.2.9", "fw", True, "192.0.2.0/28 is listed"),
        (World(FEEDS, [Line(1, "192.0.2.9")]), "192.0.2.0/28", "fw", False, "not listed"),
        (
            World(FEEDS, [Line(1, "192.0.2.0/28"), Line(4, "192.0.2.9")]),
            "192.0.2.9",
            "fw",
            False,
            "192.0.2.0/28 is listed, but the address is cut out: reference feed top names it in line 2",
        ),
        (
            World(FEEDS, [Line(1, "192.0.2.0/28")], protect=["192.0.2.9"]),
            "192.0.2.9",
            "fw",
            False,
            "192.0.2.0/28 is listed, but the address is cut out: [protect], or a resolver of [verify], names it",
        ),
        (World(FEEDS, [Line(0, "//evil.example/x")]), "http://evil.example/x", "links", True, "it is listed"),
        (
            World(FEEDS, [Line(0, "//evil.example/x")]),
            "http://evil.example/x",
            "dns",
            False,
            "rpz holds no URLs; its host evil.example: not listed",
        ),
        (LISTED, "http://evil.example/x", "dns", True, "its host evil.example is blocked: it is listed"),
        (
            World(FEEDS, [Line(0, "//evil.example/x")], [Word("allow", "evil.example")]),
            "https://evil.example/x",
            "links",
            False,
            "its host is allowed by rule 1 for evil.example and all below it (ana: tests)",
        ),
    ],
)
def test_an_answer_names_what_decides(world: World, query: str, export: str, blocked: bool, because: str) -> None:
    said = of(why(world, query), export)
    assert (said.blocked, said.because) == (blocked, because)


def test_the_dead_are_explained_where_the_policy_drops_them() -> None:
    dead = replace(LISTED, dead=frozenset(["evil.example"]))
    assert of(why(dead, "evil.example"), "dns").blocked
    said = of(why(replace(dead, policy=Policy(dead="drop")), "evil.example"), "dns")
    assert not said.blocked and said.because.startswith("evil.example is dead: not registered since ")


def test_the_confidence_is_that_of_the_entry_which_decides() -> None:
    kin = Feed(id="kin", title="Tests", url="file:list", category="phishing", confidence=90)
    lines = [Line(0, "evil.example"), Line(1, "evil.example"), Line(0, "a.evil.example", confidence=60)]
    answer = why(World([MALWARE, kin], lines), "b.evil.example")
    assert (answer.confidence, answer.policy, answer.asks) == (99, "default", 50)


def test_a_network_says_what_lies_inside_it() -> None:
    lines = [Line(1, "192.0.2.9"), Line(1, "192.0.2.16/29"), Line(1, "198.51.100.1"), Line(1, "2001:db8::9")]
    world = World(FEEDS, lines, [Word("allow", "192.0.2.8/30")])
    assert why(world, "192.0.2.0/24").notes == [
        "2 narrower entries inside it are listed; ask for them one by one",
        "rule 1 allows 192.0.2.8/30 inside it",
    ]
    assert why(world, "2001:db8::/64").notes[0].startswith("1 narrower")


# What is recorded but not published


def after(here: Settled, query: str, export: str = "dns") -> InExport:
    with here.audit() as audit:
        return of(audit.why(query), export)


def test_a_rule_added_after_the_release_is_pending_and_the_file_still_blocks() -> None:
    with settled(LISTED, ALL) as here:
        add_rule(here.record, "allow", "evil.example", reason="a customer", author="ana", ticket="OPS-12")
        said = after(here, "evil.example")
        assert said.blocked and said.pending is False
        assert said.because == (
            "it is listed; not yet published: allowed by rule 1 for evil.example and all below it "
            "(ana, ticket OPS-12: a customer); run 'blocklist export dns'"
        )
        here.publish()
        said = after(here, "evil.example")
        assert not said.blocked and said.pending is None


def test_a_rule_removed_after_the_release_still_acts_in_the_file() -> None:
    with settled(replace(LISTED, words=[Word("allow", "evil.example")]), ALL) as here:
        remove_rules(here.record, "allow", [1], reason="over", author="ana")
        said = after(here, "evil.example")
        assert not said.blocked and said.pending is True
        assert said.because.startswith("allowed by rule 1 ") and "not yet published: it is listed" in said.because


def test_a_listing_that_came_or_went_after_the_release_is_pending() -> None:
    with settled(LISTED, ALL) as here:
        record = here.record
        with record.transaction() as db:
            run = record.begin_run(db, clock.text(clock.now()), "update", "tests")
            gone = indicators([Line(0, "evil.example")], [1])
            record.close_listings(db, run, clock.period(clock.now()), gone, "no longer listed")
            record.add_listings(db, run, indicators([Line(0, "new.example")], [1]))
            record.bump(db)
        said = after(here, "new.example")
        assert not said.blocked and said.pending is True
        assert said.because == "not listed; not yet published: it is listed; run 'blocklist export dns'"
        said = after(here, "a.evil.example")
        assert said.blocked and said.pending is False
        with here.audit() as audit:
            assert [x.until is None for x in audit.why("evil.example").listings] == [False]


def test_a_hold_let_pass_after_the_release_is_pending() -> None:
    with settled(replace(LISTED, holds=[("evil.example", False)]), ALL) as here:
        release_hold(here.record, "evil.example", reason="seen", author="ana")
        said = after(here, "evil.example")
        assert not said.blocked and said.pending is True


def test_a_change_elsewhere_leaves_the_answer_alone() -> None:
    with settled(LISTED, ALL) as here:
        add_rule(here.record, "deny", "other.example", reason="tests", author="ana")
        said = after(here, "evil.example")
        assert (said.blocked, said.pending, said.because) == (True, None, "it is listed")


def test_an_export_that_was_never_published_blocks_nothing_yet() -> None:
    with settled(LISTED, ALL) as here:
        here.record.connection.execute("DELETE FROM release")
        said = after(here, "evil.example")
        assert (said.blocked, said.release, said.pending) == (False, None, True)
        assert said.because == "it is listed, but it was never published: run 'blocklist export dns'"


def test_an_export_whose_first_release_is_held_says_which() -> None:
    with settled(LISTED, ALL) as here:
        here.record.connection.execute("UPDATE release SET state = 'held', published = NULL")
        (number,) = here.record.connection.execute("SELECT id FROM release WHERE export = 'dns'").fetchone()
        said = after(here, "evil.example")
        wanted = f"never published: release {number} is held, 'blocklist release show {number}' says why"
        assert said.because == f"it is listed, but it was {wanted}"


# The command


CONFIG = """\
state = "var"
[feeds]
enable = []
[feed.order]
title = "Orders"
url = "file:order.txt"
format = "lines"
category = "malware"
confidence = 90
[export.dns]
format = "rpz"
path = "dns.rpz"
check = false
"""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration with one feed, fetched and published for real; a line tries to paint the terminal."""
    folder = tmp_path_factory.mktemp("house")
    (folder / "blocklist.toml").write_text(CONFIG)
    (folder / "order.txt").write_text("evil.example # \x1b[2J\u202eelpmaxe.doog\nworse.example\n", "utf-8")
    command(folder, "update", "--no-verify", codes=(0, 3, 4))
    return folder


def command(folder: Path, *words: str, codes: Sequence[int] = (0,)) -> str:
    program = [
        sys.executable,
        "-c",
        "from blocklist.cli import main; main()",
        "--config",
        str(folder / "blocklist.toml"),
    ]
    done = subprocess.run([*program, *words], capture_output=True, text=True, check=False)
    assert done.returncode in codes, done.stderr
    return done.stdout


def test_the_screen_shows_the_line_of_the_feed_and_escapes_what_would_paint_the_terminal(house: Path) -> None:
    screen = command(house, "why", "a.evil.example")
    first, second, *rest = screen.splitlines()
    assert first == "a.evil.example is blocked in dns (rpz)"
    assert second == "  because evil.example and all below it is listed"
    assert "\x1b" not in screen and "\u202e" not in screen
    assert any(line.endswith(r"1  evil.example # \x1b[2J\u202eelpmaxe.doog") for line in rest)
    assert rest[-2:] == [
        "confidence 90 (policy default asks 50) · not verified · no rules · no holds",
        "  to let it through: blocklist allow add a.evil.example --reason '…' --now",
    ]


def test_the_json_has_the_keys_that_the_contract_promises(house: Path) -> None:
    told = json.loads(command(house, "--json", "why", "evil.example"))
    promised = {"query", "kind", "at", "blocked", "exports", "listings", "confidence", "holds", "rules", "verdict"}
    assert promised <= set(told)
    assert {"name", "format", "blocked", "by", "because", "release", "since", "pending"} == set(told["exports"][0])
    listing = {
        "indicator",
        "scope",
        "feed",
        "category",
        "confidence",
        "since",
        "until",
        "snapshot",
        "url",
        "line",
        "text",
        "ends",
        "ends_by",
        "expired",
        "dropped",
        "legal_basis",
        "tlp",
    }
    assert listing == set(told["listings"][0])
    assert told["listings"][0]["snapshot"].startswith("sha256:") and told["listings"][0]["line"] == 1


def test_the_json_of_holds_rules_and_verdicts_has_the_keys_of_the_contract() -> None:
    words = [Word("deny", "evil.example")]
    held = replace(LISTED, words=words, holds=[("evil.example", True)], dead=frozenset(["evil.example"]))
    told = as_json(why(held, "evil.example"))
    assert set(told["holds"][0]) == {"indicator", "guard", "detail", "scope", "since", "released"}
    rule = {"id", "action", "what", "scope", "reason", "author", "ticket", "created", "until"}
    assert set(told["rules"][0]) == rule
    assert set(told["verdict"]) == {"name", "status", "since", "checked", "dead", "detail"}


def test_a_name_that_no_feed_lists_is_said_to_be_unlisted(house: Path) -> None:
    assert command(house, "why", "other.example").splitlines() == [
        "other.example is not blocked in any export",
        "  not in dns (rpz): not listed",
        "no feed lists it, nor a name or network above it",
        "no rules · no holds",
        "  to block it: blocklist deny add other.example --reason '…' --now",
    ]


def test_an_answer_loads_none_of_the_heavy_libraries(house: Path) -> None:
    program = (
        "import sys; from blocklist.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print(sorted({'polars', 'sqlite_utils', 'httpx', 'jinja2', 'dns'} & set(sys.modules)))"
    )
    asked = [sys.executable, "-c", program, "--config", str(house / "blocklist.toml"), "why", "evil.example"]
    done = subprocess.run(asked, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_rules_about_a_few_names_are_those_of_the_whole_suffix_list() -> None:
    whole = builtin_rules()
    every = sorted(whole.exact | whole.wildcard | whole.exception)
    international = [n for n in every if "xn--" in n]
    some = [*every[::97], *international[::9], "evil.example", "co.uk", "www.ck"]
    few = builtin_rules_about(some)
    for mine, theirs in ((few.exact, whole.exact), (few.wildcard, whole.wildcard), (few.exception, whole.exception)):
        assert mine == theirs & set(some)


def test_the_abilities_of_formats_are_those_of_the_catalogue() -> None:
    found = descriptor.abilities([*descriptor.builtin(), "no-such-format"])
    assert found == descriptor.builtin()
    assert set(found) == set(FORMATS) - {"blunt"}
