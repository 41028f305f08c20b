"""Rules in bulk as CSV, and an allow that also frees what a name stands for in the DNS."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from dnsserver import HostileServer, Manner
from engines import driver
from installation import World

from blocklist.errors import IndicatorError
from blocklist.rule_table import read, write
from blocklist.verify.loopback import serving


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.feed("a", ["evil.example", "cdn.example", "bad.other.example", "192.0.2.0/24"])
    world.export("list")
    world.export("nets", "cidr")
    assert world.update().code == 0
    return world


def test_rules_are_imported_all_at_once_and_again_without_harm(world: World) -> None:
    table = world.base / "rules.csv"
    table.write_text(
        "What,Reason,Ticket,Until,Scope,seen\n"
        "Evil.Example.,customer,INC-7,30d,,x\n"
        '"192.0.2.0/28","own, scanners",,,\n'
        "\n"
        "other.example,,,,exact\n"
    )
    ran = world.run("allow", "import", table, "--reason", "moved from the old list", "--now")
    assert ran.code == 0, ran.err
    assert "3 allow rules recorded (1 to 3)" in ran.out
    assert world.exported("list") == ["bad.other.example", "cdn.example"]
    rules = world.rows("SELECT name, subtree, reason, ticket, expires IS NULL FROM rule ORDER BY id")
    assert rules == [
        ("evil.example", 1, "customer", "INC-7", 0),
        ("192.0.2.0/28", 0, "own, scanners", None, 1),
        ("other.example", 0, "moved from the old list", None, 1),
    ]
    again = world.run("allow", "import", table, "--reason", "again")
    assert again.code == 0 and "0 allow rules recorded; 3 stood already" in again.out


def test_a_plain_list_is_imported_with_its_comments_as_reasons(world: World) -> None:
    table = world.base / "whitelist.txt"
    table.write_bytes(
        b"\xef\xbb\xbf# ours\r\nEvil.Example\t# customer, since May\r\n\r\n  192.0.2.0/28\r\n#192.0.2.9\r\n"
    )
    ran = world.run("allow", "import", table, "--reason", "old whitelist")
    assert ran.code == 0 and "2 allow rules recorded (1 to 2)" in ran.out, ran.err
    rules = world.rows("SELECT name, subtree, reason FROM rule ORDER BY id")
    assert rules == [("evil.example", 1, "customer, since May"), ("192.0.2.0/28", 0, "old whitelist")]


def test_a_list_with_a_wrong_line_or_without_reason_names_the_line(world: World) -> None:
    table = world.base / "whitelist.txt"
    table.write_text("# ours\nfine.example # because\n*.cdn.example # all below\nother.example\nx.example,y\n")
    ran = world.run("allow", "import", table)
    assert ran.code == 2 and world.rows("SELECT count(*) FROM rule") == [(0,)]
    for said in (":3: '*.cdn.example' is no domain", ":4: --reason is empty", ":5: 'x.example,y' is no domain"):
        assert f"whitelist.txt{said}" in ran.err, ran.err
    assert ":2:" not in ran.err


def test_one_wrong_row_refuses_the_whole_file_and_names_every_place(world: World) -> None:
    table = world.base / "rules.csv"
    table.write_text("what,reason\nfine.example,r\n0.0.0.0/0,r\nno name!,r\nempty.example,\n")
    ran = world.run("deny", "import", table)
    assert ran.code == 2 and world.rows("SELECT count(*) FROM rule") == [(0,)]
    for said in (
        ":3: 0.0.0.0/0: a rule for the whole Internet",
        ":4: 'no name!' is no domain",
        ":5: --reason is empty",
    ):
        assert f"rules.csv{said}" in ran.err, ran.err
    assert "nothing was recorded" in ran.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("evil.example,r\n", "names no column what"),
        ("what\nevil.example\n", "names no column reason"),
        ("", "names no column what"),
        ('what,reason\n"evil.example,r\n', "not CSV"),
        ("what,reason,scope\nevil.example,r,wide\n", "scope 'wide'"),
        ("what,reason,until\nevil.example,r,yesterday\n", ""),
    ],
)
def test_a_table_that_can_not_be_read_says_why(text: str, said: str) -> None:
    if said:
        with pytest.raises(IndicatorError, match=said):
            read(text, "rules.csv")
    else:
        assert read(text, "rules.csv")[0][1].until == "yesterday"


def test_foreign_spreadsheets_semicolons_marks_and_formulas() -> None:
    rows = read("\ufeffwhat;reason\r\nevil.example;'=cmd|' /C calc'!A0\r\n", "x.csv")
    assert rows[0][1].what == "evil.example" and rows[0][1].reason.startswith("=cmd")
    text = write([("evil.example", "", "=HYPERLINK(1)\x1b[2J", None, None, 1, "ana", "2026-11-24T00:00:00Z")])
    assert "'=HYPERLINK(1) [2J" in text and "\x1b" not in text
    assert read(text, "x.csv")[0][1].reason == "=HYPERLINK(1) [2J"


def test_what_list_writes_import_reads(world: World, tmp_path: Path) -> None:
    world.run("allow", "add", "evil.example", "--exact", "--reason", "a, 'b' \"c\"", "--until", "2d")
    text = world.run("allow", "list", "--csv").out
    other = World(tmp_path / "other")
    other.base.mkdir()
    other.feed("a", ["evil.example"])
    other.update()
    table = tmp_path / "moved.csv"
    table.write_text(text)
    assert other.run("allow", "import", table).code == 0
    query = "SELECT name, subtree, reason, expires FROM rule"
    assert other.rows(query) == world.rows(query)


def test_ticket_and_end_of_the_command_are_for_rows_that_say_none(world: World) -> None:
    table = world.base / "order.csv"
    table.write_text("what;ticket;until\none.example;;\ntwo.example;T-9;2999-01-02\n")
    ran = world.run("deny", "import", table, "--reason", "order", "--ticket", "T-1", "--until", "2999-05-06")
    assert ran.code == 0, ran.err
    rules = world.rows("SELECT name, ticket, substr(expires, 1, 7) FROM rule ORDER BY id")
    assert rules == [("one.example", "T-1", "2999-05"), ("two.example", "T-9", "2999-01")]


def test_an_import_that_asks_for_another_end_says_that_it_changes_none(world: World) -> None:
    table = world.base / "order.csv"
    table.write_text("what\none.example\ntwo.example\n")
    assert world.run("deny", "import", table, "--reason", "order", "--until", "2999-01-02").code == 0
    assert "another end" not in world.run("deny", "import", table, "--reason", "r", "--until", "2999-01-02").err
    assert "another end" not in world.run("deny", "import", table, "--reason", "r", "--until", "30d").err
    again = world.run("deny", "import", table, "--reason", "prolonged", "--until", "2999-05-06")
    assert again.code == 0 and "2 stood already" in again.out
    assert "2 with another end" in again.err and "rule 1 (one.example)" in again.err
    # The way out that it names.
    assert world.run("deny", "remove", "--file", table, "--reason", "prolonged").code == 0
    assert world.run("deny", "import", table, "--reason", "prolonged", "--until", "2999-05-06").code == 0
    assert world.rows("SELECT DISTINCT substr(expires, 1, 7) FROM rule WHERE until IS NULL") == [("2999-05",)]


def test_an_order_is_lifted_in_part_by_a_file_and_then_by_its_ticket(world: World) -> None:
    table = world.base / "order.csv"
    table.write_text("what\n" + "".join(f"n{i}.example\n" for i in range(5)))
    world.run("deny", "add", "n1.example", "--exact", "--reason", "seen in mail")
    world.run("deny", "import", table, "--reason", "order", "--ticket", "T-1")
    lifted = world.base / "lifted.txt"
    lifted.write_text("N1.example.\nn3.example\nstranger.example\n")
    ran = world.run("deny", "remove", "--file", lifted, "--ticket", "T-1", "--reason", "lifted in part", "--now")
    assert ran.code == 0 and "2 deny rules have ended" in ran.out, ran.text
    assert "stranger.example" in ran.err and "n3.example" not in ran.err
    assert {f"n{i}.example" for i in (0, 2, 4)} < set(world.exported("list"))
    assert "n3.example" not in world.exported("list") and "n1.example" in world.exported("list")
    ran = world.run("deny", "remove", "--ticket", "T-1", "--reason", "lifted", "--json")
    assert [json.loads(line) for line in ran.out.splitlines()] == [{"rule": i, "removed": True} for i in (2, 4, 6)]
    assert world.rows("SELECT name FROM rule WHERE until IS NULL") == [("n1.example",)]
    assert world.run("events", "verify").code == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "name either IDs"),
        (("1", "--ticket", "T-1"), "name either IDs"),
        (("1", "99"), "no deny rule 99"),
        (("--ticket", "T-2"), "no deny rule in force is meant"),
        (("--file", "wrong.txt"), "wrong.txt:1: 'no name!'"),
    ],
)
def test_what_ends_no_rule_ends_nothing(world: World, words: tuple[str, ...], said: str) -> None:
    (world.base / "wrong.txt").write_text("no name!\n")
    world.run("deny", "add", "x.example", "--reason", "r", "--ticket", "T-1")
    words = tuple(str(world.base / word) if word.endswith(".txt") else word for word in words)
    ran = world.run("deny", "remove", *words, "--reason", "r")
    assert ran.code == 2 and said in ran.err, ran.text
    assert world.rows("SELECT count(*) FROM rule WHERE until IS NULL") == [(1,)]


def test_a_deny_says_which_guards_it_overrules(world: World) -> None:
    world.set("protect", domains=["ministry.example"], networks=["198.51.100.0/24"])
    world.feed("top", ["well-known.example", "cdn.deep.example"], category="reference", confidence=100)
    world.write()
    world.update()
    table = world.base / "order.txt"
    table.write_text("portal.ministry.example\n198.51.100.7\nwell-known.example\ndeep.example\nfree.example\n")
    ran = world.run("deny", "import", table, "--reason", "order")
    assert ran.code == 0 and "5 deny rules recorded" in ran.out
    assert "guards would hold" in ran.err and "and 1 more" in ran.err and "free.example" not in ran.err
    ran = world.run("deny", "add", "deep.example", "--exact", "--reason", "the name alone covers nothing")
    assert ran.code == 0 and "guards" not in ran.err
    ran = world.run("deny", "add", "a.well-known.example", "--reason", "r")
    assert "below the listed" not in ran.out  # a reference lists nothing


def test_a_rule_that_no_export_holds_or_another_rule_overrules_says_so(world: World) -> None:
    ran = world.run("deny", "add", "https://files.example/x", "--reason", "order")
    assert ran.code == 0 and "no export holds URLs" in ran.err and "files.example/x" in ran.err
    assert "no export" not in world.run("deny", "add", "198.51.100.7", "--reason", "r").err
    world.run("allow", "add", "shop.example", "--reason", "customer")
    ran = world.run("deny", "add", "shop.example", "--reason", "order")
    assert "allowed by a rule too, which decides: shop.example (rule 3)" in ran.err
    assert not world.why("shop.example")["blocked"]
    world.run("deny", "add", "evil.example", "--reason", "order", "--ticket", "T-1")
    ran = world.run("allow", "add", "evil.example", "--reason", "customer")
    assert "denied by a rule too, which this overrules: evil.example (rule 5, T-1)" in ran.err


@pytest.fixture
def server() -> Iterator[HostileServer]:
    table = {"portal.example": ["192.0.2.9", "2001:db8::9"], "alone.example": ["198.51.100.1"]}
    server = HostileServer(table, {"shop.example": Manner("alias"), "old.example": Manner("dangling")})
    with serving(server):
        yield server


def test_an_allow_with_its_chain_frees_the_alias_and_the_address(world: World, server: HostileServer) -> None:
    world.set("verify", resolvers=[f"127.0.0.1:{server.port}"])
    world.write()
    # shop.example is an alias of cdn.example, whose address 192.0.2.7 lies in a listed network.
    ran = world.run("allow", "add", "shop.example", "--reason", "customer", "--chain", "--now", "--json")
    assert ran.code == 0, ran.err
    rules = world.rows("SELECT name, subtree, reason FROM rule ORDER BY id")
    assert rules == [
        ("shop.example", 1, "customer"),
        ("cdn.example", 0, "customer (behind shop.example)"),
        ("192.0.2.7", 0, "customer (behind shop.example)"),
    ]
    assert not world.why("cdn.example")["blocked"] and not world.why("192.0.2.7")["blocked"]
    assert world.why("192.0.2.8")["blocked"]
    assert "cdn.example" not in world.exported("list")


def test_a_chain_that_nothing_blocks_adds_the_rule_alone(world: World, server: HostileServer) -> None:
    world.set("verify", resolvers=[f"127.0.0.1:{server.port}"])
    world.write()
    for name in ("alone.example", "old.example", "missing.example"):
        ran = world.run("allow", "add", name, "--reason", "r", "--chain")
        assert ran.code == 0 and "nothing that" in ran.out, ran.err
    assert world.rows("SELECT count(*) FROM rule") == [(3,)]


def test_a_chain_without_an_answer_records_nothing(world: World) -> None:
    ran = world.run("allow", "add", "shop.example", "--reason", "r", "--chain")
    assert ran.code == 2 and "no resolvers are configured" in ran.err and "[verify] resolvers" in ran.err
    world.set("verify", resolvers=[f"127.0.0.1:{driver.free_port()}"])
    world.write()
    ran = world.run("allow", "add", "shop.example", "--reason", "r", "--chain")
    assert ran.code == 2 and "no resolver answered" in ran.err
    ran = world.run("allow", "add", "192.0.2.1", "--reason", "r", "--chain")
    assert ran.code == 2 and "only a name has a chain" in ran.err
    assert world.rows("SELECT count(*) FROM rule") == [(0,)]
