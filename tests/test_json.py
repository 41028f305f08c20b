"""What `--json` writes has the shape that docs/json.md promises: every command is run, every object compared."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import pytest
from installation import Ran, World, call_main, names

from blocklist.cli import group
from blocklist.verify.loopback import LoopbackServer, serving

PAGE = Path(__file__).parent.parent / "docs" / "json.md"
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
TOKEN = re.compile(r"[a-z_0-9]+|[^\s]")


@dataclass
class Shapes:
    """The page: shapes with a name, and of each command those of its objects (`each`) and of the last one."""

    named: dict[str, Any] = field(default_factory=dict)
    commands: dict[str, dict[str, Any]] = field(default_factory=dict)

    def trouble(self, value: object, shape: Any, place: str = "") -> Iterator[str]:
        """Where `value` is not what `shape` says."""
        match shape:
            case "maybe", inner:
                if value is not None:
                    yield from self.trouble(value, inner, place)
            case "list", inner:
                if isinstance(value, list):
                    for i, item in enumerate(value):
                        yield from self.trouble(item, inner, f"{place}[{i}]")
                else:
                    yield f"{place}: {value!r} is no list"
            case "object", keys:
                if isinstance(value, dict):
                    yield from self.troubles_of(value, keys, place)
                else:
                    yield f"{place}: {value!r} is no object"
            case "any":
                pass
            case str() if shape in self.named:
                yield from self.trouble(value, self.named[shape], place)
            case str():
                if not IS[shape](value):
                    yield f"{place}: {value!r} is no {shape}"

    def troubles_of(self, value: dict[str, Any], keys: dict[str, tuple[Any, bool]], place: str) -> Iterator[str]:
        others = keys.get("text", (None, True))[0]  # `{ text: x }`: any keys
        for key, (_, may_miss) in keys.items():
            if key != "text" and key not in value and not may_miss:
                yield f"{place}.{key} is missing"
        for key, inner in value.items():
            if key in keys and key != "text":
                yield from self.trouble(inner, keys[key][0], f"{place}.{key}")
            elif others is None:
                yield f"{place}.{key} is not on the page"
            else:
                yield from self.trouble(inner, others, f"{place}.{key}")


IS = {
    "text": lambda v: isinstance(v, str),
    "int": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "number": lambda v: isinstance(v, int | float) and not isinstance(v, bool),
    "bool": lambda v: isinstance(v, bool),
    "time": lambda v: isinstance(v, str) and TIME.fullmatch(v) is not None,
}


def parsed(text: str) -> Any:
    """`{ key: shape, key?: shape }`, `[shape]` or a word, with `?` behind it where it may be null."""
    tokens = TOKEN.findall(text)
    at = 0

    def take(expected: str | None = None) -> str:
        nonlocal at
        token = tokens[at]
        assert expected in (None, token), f"{expected!r} expected in: {' '.join(tokens[: at + 1])}"
        at += 1
        return str(token)

    def shape() -> Any:
        token = take()
        found: Any = token
        if token == "[":
            found = ("list", shape())
            take("]")
        elif token == "{":
            keys = {}
            while tokens[at] != "}":
                key = take()
                may_miss = tokens[at] == "?"
                if may_miss:
                    take()
                take(":")
                keys[key] = (shape(), may_miss)
                if tokens[at] != "}":
                    take(",")
            take("}")
            found = ("object", keys)
        if at < len(tokens) and tokens[at] == "?":
            take()
            found = ("maybe", found)
        return found

    found = shape()
    assert at == len(tokens), f"left over: {tokens[at:]}"
    return found


@pytest.fixture(scope="session")
def shapes() -> Shapes:
    found = Shapes()
    for block in re.findall(r"^```\n(.*?)^```$", PAGE.read_text("utf-8"), re.S | re.M):
        parts = re.split(r"^(?:blocklist (.+)|  (each|last) +|([a-z]+) +(?=\{))", block, flags=re.M)
        commands: list[str] = []
        for command, which, name, text in zip(*(parts[i::4] for i in range(1, 5)), strict=True):
            if command:
                commands = command.removesuffix("\n").split(", blocklist ")
                found.commands |= {c: {} for c in commands}
            elif which:
                for c in commands:
                    found.commands[c][which] = parsed(text)
            else:
                found.named[name] = parsed(text)
    return found


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Feeds of all kinds, a reference, a split and a cut export, a resolver."""
    world = World(tmp_path)
    table = 'domain,order,until\nevil.example,17,2099-01-02\n"*",,\n192.0.2.0/24,,\nwww.top.example,,\nbad..name,,\n'
    fmt = {"name": "csv", "value": "domain", "reason": "order", "expires": "until"}
    world.feed("orders", table, format=fmt)
    world.feed("second", ["evil.example", "shared.example", *names(200)])
    world.feed("shadow", ["only.example"], mode="shadow")
    world.feed("copy", names(150))
    world.feed("top", ["www.top.example"], category="reference")
    world.feed("told", ["shared.example"], category="reference", action="inform")
    world.export("list")
    world.export("dns", "rpz", probe=["127.0.0.1:1"])
    world.export("split", "domains", split="category")
    world.export("small", max_entries=50, fit="rank")
    server = LoopbackServer({"control.example": ["192.0.2.53"], "evil.example": ["192.0.2.1"]})
    with serving(server):
        control = {"exists": ["control.example"], "missing": "example"}
        world.set("verify", resolvers=[f"127.0.0.1:{server.port}"], control=control, timeout=0.5, limit=20)
        yield world


def leaves(command: click.Command, *words: str) -> Iterator[str]:
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from leaves(inner, *words, name)
    else:
        yield " ".join(words)


GROUPS = {leaf.split()[0] for leaf in leaves(group) if " " in leaf}


def objects(ran: Ran) -> list[dict[str, Any]]:
    """Standard output, which holds nothing but objects, one a line, each in ASCII."""
    found = [json.loads(line) for line in ran.out.splitlines()]
    assert all(isinstance(o, dict) for o in found) and ran.out.isascii()
    return found


def compare(shapes: Shapes, name: str, ran: Ran) -> None:
    # What an option adds stands beside what the command writes without it.
    shape = shapes.commands[name.split(" -")[0]] | shapes.commands[name]
    found = objects(ran)
    assert found or "last" not in shape, ran.err
    last = found.pop() if "last" in shape else None
    # Objects of each kind that the command and its option have, such as `diff --names`.
    kinds = [s["each"] for n, s in shapes.commands.items() if name.startswith(n) and "each" in s]
    for o in found:
        troubles = [list(shapes.trouble(o, kind)) for kind in kinds]
        assert [] in troubles, (name, o, troubles)
    if last is not None:
        assert list(shapes.trouble(last, shape["last"])) == [], (name, last)


def test_every_command_is_on_the_page(shapes: Shapes) -> None:
    assert sorted(set(leaves(group)) - set(shapes.commands)) == []
    known = {" ".join(w for w in name.split() if w[0] != "-") for name in shapes.commands}
    assert sorted(known - set(leaves(group))) == []


def test_the_shapes_tell_a_difference(shapes: Shapes) -> None:
    rule = {"id": 1, "action": "allow", "what": "x.example", "scope": "exact", "reason": "r", "author": "a"}
    rule |= {"ticket": None, "created": "2026-03-03T14:00:00Z", "until": None}
    assert list(shapes.trouble(rule, "rule")) == []
    assert list(shapes.trouble({**rule, "id": True}, "rule")) == [".id: True is no int"]
    assert list(shapes.trouble({**rule, "created": "2026-03-03 14:00"}, "rule")) == [
        ".created: '2026-03-03 14:00' is no time"
    ]
    assert list(shapes.trouble({**rule, "more": 1}, "rule")) == [".more is not on the page"]
    del rule["until"]
    assert list(shapes.trouble(rule, "rule")) == [".until is missing"]


def test_every_command_writes_what_the_page_says(world: World, shapes: Shapes, tmp_path: Path) -> None:
    seen: set[str] = set()

    def check(name: str, *words: object, code: int = 0) -> Ran:
        ran = world.run(*name.split()[: 2 if name.split()[0] in GROUPS else 1], *words, "--json")
        assert ran.code == code, (name, words, ran.code, ran.err)
        if "--now" in words:
            *lines, last = ran.out.splitlines(keepends=True)
            assert list(shapes.trouble(json.loads(last), parsed("{ exports: [export] }"))) == []
            ran = Ran(ran.code, "".join(lines), ran.err)
        compare(shapes, name, ran)
        seen.add(name)
        return ran

    check("init", tmp_path / "other")
    check("update")
    check("status")
    check("verify", "--all")
    check("export", "--dry-run")
    check("export --at", "list", "--at", "now", "-o", tmp_path / "then")
    check("export --format", "--format", "csv", "-o", tmp_path / "once")
    check("export --format", "--format", "csv", "-o", tmp_path / "once-then", "--at", "now")
    (tmp_path / "log").write_text("evil.example\nok.example\nonly.example\n")
    check("match", tmp_path / "log")
    check("report")
    check("report -o", "-o", tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")

    check("feeds list")
    check("feeds sets")
    check("feeds show", "orders")
    check("feeds show", "abuseipdb")
    check("feeds test", "orders")
    check("feeds test", tmp_path / "feeds" / "second.txt")
    check("feeds overlap")
    check("feeds enable", "tor-exit")
    check("feeds disable", "tor-exit")
    check("formats list")
    check("formats show", "nftables")
    check("formats test", "hosts")

    check("allow add", "good.evil.example", "--reason", "r", "--until", "3d", "--ticket", "T")
    check("allow add", "evil.example", "--reason", "r", "--chain", "--now")
    check("deny add", "x.example", "--reason", "r", "--now")
    check("deny add", "192.0.2.0/28", "--reason", "r")
    check("deny remove", "3", "--reason", "r", "--now")
    (tmp_path / "rules.csv").write_text("what,reason\nq.example,because\n")
    check("deny import", tmp_path / "rules.csv", "--now")
    check("allow import", tmp_path / "rules.csv")
    check("allow remove", "1", "--reason", "r")
    check("allow add", "a.example", "--reason", "r", "--until", "3d")
    check("allow list", "--all")
    check("deny list", "--all")
    check("held list")
    check("held list --inform", "--inform")
    check("held release", "www.top.example", "--reason", "r", "--now")
    check("held list", "--released")
    check("held revoke", "www.top.example", "--reason", "r")
    check("why", "evil.example", "--resolve")
    check("why", "www.top.example")
    check("why", "a.example", "--at", "now")
    check("why", "192.0.2.9", "--evidence", "-o", tmp_path / "e.zip")
    check("evidence check", tmp_path / "e.zip")
    check("history", "evil.example")

    before = world.rows("SELECT max(s.id) FROM snapshot s JOIN feed f ON f.id = s.feed WHERE f.name = 'second'")[0][0]
    world.lines("second", ["evil.example", "shared.example", *names(190)])
    world.update()
    check("feeds show --all", "second", "--all")
    check("diff --feed", "--feed", "second", before)
    check("feeds rollback", "second", "--reason", "r", "--dry-run")
    check("feeds rollback", "second", "--reason", "r", "--ticket", "T", "--now")
    check("update")
    check("status")
    check("feeds list")
    check("feeds show", "second")
    check("feeds unpin", "second", "--reason", "r", "--dry-run")
    check("feeds unpin", "second", "--reason", "r")

    check("release list")
    number = world.rows("SELECT max(id) FROM release WHERE export = 'small'")[0][0]
    check("release show", number)
    check("release show --left-out", number, "--left-out")
    check("release rollback", "list", "--reason", "r")
    check("match", tmp_path / "log")
    check("release unpin", "list")
    world.lines("second", names(10))
    check("update", code=3)
    check("status", code=3)
    check("feeds show --gated", "second", "--gated")
    waiting = world.run("feeds", "show", "second", "--json").json["snapshots"][0]["id"]
    check("feeds show --snapshot", "second", "--snapshot", waiting, "-o", tmp_path / "second.txt")
    check("update", "--accept", "second", code=4)
    check("export", "--dry-run", code=4)
    check("status", code=4)
    check("release show", world.rows("SELECT max(id) FROM release WHERE state = 'held'")[0][0])
    check("release approve", "list", code=4)
    check("diff")
    check("diff --names", "--names")

    check("case open", "h00001.evil.example", "--reason", "r", "--ticket", "T", "--allow", "3d", "--now", code=4)
    check("case list")
    check("case show", "1")
    check("case close", "1", "--reason", "r")
    check("probe", code=4)
    check("events list")
    check("events head")
    check("events verify")
    check("prune", "--dry-run")
    check("doctor")
    check("doctor", "--repair")
    world.change("UPDATE event SET who = 'nobody' WHERE id = 2")
    check("events verify", code=1)
    assert sorted(set(shapes.commands) - seen) == ["demo"]


def test_the_demo_keeps_its_words_off_standard_output(shapes: Shapes, tmp_path: Path) -> None:
    ran = call_main("demo", tmp_path / "tour", "--json")
    compare(shapes, "demo", ran)
    assert ran.json == {"missed": []} and "$ blocklist update" in ran.err


@pytest.mark.parametrize(
    ("words", "code"),
    [(("why", "no thing"), 2), (("update", "third"), 2), (("--config", "missing.toml", "status"), 1)],
    ids=lambda x: str(x),
)
def test_an_error_leaves_standard_output_empty(world: World, words: tuple[str, ...], code: int) -> None:
    world.update()
    ran = call_main("--config", world.config, *words, "--json")
    assert (ran.code, ran.out) == (code, "") and ran.err.startswith("error: ")
