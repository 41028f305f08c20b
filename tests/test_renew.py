"""What is brought up to date after a change is what would be decided from nothing, for every kind of target."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from blocklist.catalog import Feed
from blocklist.config import Policy
from blocklist.framepatch import FramePatch
from blocklist.picture import Picture
from blocklist.publish import prepare
from blocklist.publish.descriptor import Format
from blocklist.rules import Rule
from blocklist.select.current import CATEGORY, current
from blocklist.select.express import Capability, express
from blocklist.select.fold import group_of
from blocklist.select.policy import Withheld, areas, ruled, select, unruled
from blocklist.select.renew import Touched, refitted, renewed, spoken_of
from blocklist.store import derived, kept
from blocklist.suffixes import SuffixRules
from tests.installation import World

SUFFIXES = SuffixRules(frozenset({"co.uk", "pages.example"}), frozenset(), frozenset(), "test")
LABELS = ["a", "b"]
TOPS = ["evil.example", "co.uk", "evil.co.uk", "pages.example", "x.pages.example"]
NAMES = TOPS + [f"{'.'.join(p)}.{t}" for t in TOPS for n in (1, 2) for p in itertools.product(LABELS, repeat=n)]
NETWORKS = ["192.0.2.0/26", "192.0.2.0/28", "192.0.2.9", "192.0.2.64/26", "2001:db8::/122", "2001:db8::9"]
URLS = ["//a.evil.example/x", "//192.0.2.9/x", "//evil.co.uk/y"]
CAPABILITIES = [
    Capability(subtree, exact, allow, fold)
    for subtree, exact, allow, fold in itertools.product((True, False), repeat=4)
    if subtree or exact
]
FEEDS = {
    1: Feed(title="1", url="file:1", category="malware", confidence=90, direction="inbound"),
    2: Feed(title="2", url="file:2", category="malware", confidence=40, direction="outbound"),
    3: Feed(title="3", url="file:3", category="phishing", confidence=60, direction="both", tlp="amber"),
}

listed = st.tuples(st.sampled_from([*TOPS * 4, *NAMES, *NETWORKS, *URLS]), st.integers(1, 3), st.booleans())
listings = st.lists(listed, max_size=25, unique_by=lambda row: row[:2])
rules = st.lists(
    st.tuples(
        st.sampled_from([*NAMES, "example", "uk", *NETWORKS, *URLS]),
        st.booleans(),
        st.sampled_from(["allow", "deny"]),
    ),
    max_size=5,
)
policies = st.builds(
    Policy,
    categories=st.sampled_from([["malware"], ["malware", "phishing"]]),
    min_confidence=st.sampled_from([0, 50, 70, 95]),
    widen=st.booleans(),
    dead=st.sampled_from(["drop", "keep"]),
    sinkholed=st.sampled_from(["drop", "keep"]),
    audience=st.sampled_from(["house", "house", "partners"]),
)


def kind(name: str) -> int:
    return 4 if name.startswith("//") else 3 if ":" in name else 2 if name[0].isdigit() else 1


def frames(rows: list[tuple[str, int, bool]]) -> dict[int, pl.DataFrame]:
    schema = {"name": pl.String, "kind": pl.UInt8, "subtree": pl.Boolean, "line": pl.UInt32}
    schema |= {"confidence": pl.UInt8, "extra": pl.String}
    return {
        feed: pl.DataFrame(
            sorted((n, kind(n), wide and kind(n) == 1, 1, None, None) for n, f, wide in rows if f == feed),
            schema=schema,
            orient="row",
        )
        for feed in FEEDS
    }


def series(found: list[str]) -> pl.DataFrame:
    return pl.DataFrame({"name": sorted(set(found))}, schema={"name": pl.String})


@settings(max_examples=60, deadline=None)
@given(
    st.data(),
    listings,
    listings,
    rules,
    rules,
    policies,
    st.booleans(),
    *[st.lists(st.sampled_from([*NAMES, *NETWORKS]), max_size=3)] * 2,
    st.sampled_from(CAPABILITIES),
)
def test_what_is_brought_up_to_date_is_what_would_be_decided_from_nothing(
    data: Any,
    rows: list[tuple[str, int, bool]],
    come: list[tuple[str, int, bool]],
    told: list[tuple[str, bool, str]],
    others: list[tuple[str, bool, str]],
    policy: Policy,
    apart: bool,
    held: list[str],
    dead: list[str],
    capability: Capability,
) -> None:
    said, other = (
        [
            Rule(i, action, n, ("domain", "ipv4", "ipv6", "url")[kind(n) - 1], wide, "r", "me", "2026-01-01T00:00:00Z")
            for i, (n, wide, action) in enumerate(words)
        ]
        for words in (told, others)
    )

    def of(rules: list[Rule]) -> pl.Series:
        return pl.Series([rule.name for rule in rules if rule.kind == "domain"], dtype=pl.String)

    none = series([])
    addresses = pl.DataFrame(schema={"family": pl.UInt8, "first": pl.UInt128, "last": pl.UInt128})
    gone = data.draw(st.lists(st.sampled_from(rows), max_size=8)) if rows else []
    left = [row for row in rows if row not in gone]
    after = left + [row for row in come if row[:2] not in {r[:2] for r in left}]

    def guarded(whole: list[str], subtrees: list[str]) -> Withheld:
        """Phishing is held the other way round, where it is `apart`."""
        own = {CATEGORY["phishing"]: Withheld(series(subtrees), series(whole), addresses)} if apart else {}
        return Withheld(series(whole), series(subtrees), addresses, own)

    def verdicts(names: list[str]) -> pl.DataFrame:
        """The first is dead, the others are sinkholed."""
        said = ["dead", *["sinkholed"] * len(names)][: len(names)]
        return pl.DataFrame({"name": names, "verdict": said}, schema={"name": pl.String, "verdict": pl.String})

    states = [
        (frames(rows), guarded(held[:1], held[1:]), verdicts(dead[:1])),
        (frames(after), guarded(held[1:2], held[2:]), verdicts(dead[1:])),
    ]

    def decided(state: Any, asked: Any = None, said: list[Rule] = said) -> Any:
        listings, withheld, dead = state
        if asked is not None:
            listings = {i: f.filter(asked(f["name"])) for i, f in listings.items()}
        return select(current(listings, FEEDS, SUFFIXES), FEEDS, policy, withheld, said, dead)

    before, whole = decided(states[0]), decided(states[1])
    changed = [r[0] for r in {*rows} ^ {*after}] + held + dead + [r.name for r in said]
    touched = Touched.of(pl.Series(changed, dtype=pl.String), none["name"])
    anew = decided(states[1], touched.among)
    made = renewed(before, anew, touched)
    now = made.chosen
    assert_frame_equal(now.decisions, whole.decisions, check_row_order=False)
    assert_frame_equal(now.networks, whole.networks, check_row_order=False)
    assert_frame_equal(now.urls, whole.urls)
    assert_frame_equal(now.kept_back, whole.kept_back, check_row_order=False)
    # Other rules laid over the same listings decide as if they had been there at first.
    laid, ruled_so = ruled(unruled(now, said), other), decided(states[1], said=other)
    assert_frame_equal(laid.decisions, ruled_so.decisions, check_row_order=False)
    assert_frame_equal(laid.urls, ruled_so.urls)
    for direction in ("inbound", "outbound", "both"):
        both = [areas(chosen.networks, [direction], addresses, said) for chosen in (now, whole)]
        assert_frame_equal(*both)
    for field, patch in made.patches.items():
        assert_frame_equal(patch.of(getattr(before, field)), getattr(now, field))
        old = getattr(before, field)
        assert_frame_equal(getattr(made.gone, field), old.filter(pl.col(old.columns[0]).is_in(patch.gone.implode())))
    spoken = made.names
    under_others, by_others = ruled(unruled(before, said), other), decided(states[0], said=other)
    of_rules = spoken_of(before, under_others, (*said, *other))
    was = express(before.decisions, capability)
    fitted, patch, gone = refitted(was, before.decisions, now.decisions, spoken, of(said), capability)
    assert_frame_equal(patch.of(was.entries), fitted.entries)
    assert_frame_equal(gone, was.entries.filter(pl.col("name").is_in(patch.gone.implode())))
    wanted = express(whole.decisions, capability)
    assert_frame_equal(fitted.entries, wanted.entries)
    assert fitted.lost == wanted.lost, capability
    if of_rules is not None:
        was = express(before.decisions, capability)
        fitted, _, _ = refitted(was, before.decisions, under_others.decisions, of_rules, of(other), capability)
        wanted = express(by_others.decisions, capability)
        assert_frame_equal(fitted.entries, wanted.entries)
        assert fitted.lost == wanted.lost, capability


DECISIONS = st.dictionaries(
    st.tuples(st.sampled_from([*NAMES, "example"]), st.booleans()),
    st.sampled_from([(True, True), (True, False), (False, False)]),
    max_size=12,
)


def decisions(rows: dict[tuple[str, bool], tuple[bool, bool]]) -> pl.DataFrame:
    schema = {"name": pl.String, "subtree": pl.Boolean, "block": pl.Boolean, "widenable": pl.Boolean}
    made = pl.DataFrame([(*key, *value) for key, value in rows.items()], schema=schema, orient="row")
    return made.with_columns(group_of(pl.col("name")).alias("group"))


@settings(max_examples=200, deadline=None)
@given(DECISIONS, DECISIONS, st.sets(st.sampled_from(NAMES), max_size=3), st.sampled_from(CAPABILITIES))
# An allow that did not change still narrows the subtree above it, which then covers nothing new either.
@example(
    {("evil.example", True): (True, True), ("a.a.evil.example", False): (False, False)},
    {("b.evil.example", False): (True, True)},
    {"b.evil.example"},
    Capability(True, True, False),
)
@example({("example", True): (True, True)}, {("evil.example", False): (True, True)}, {"evil.example"}, CAPABILITIES[0])
def test_entries_are_fitted_anew_beside_all_rules_that_stay(
    old: dict[tuple[str, bool], tuple[bool, bool]],
    other: dict[tuple[str, bool], tuple[bool, bool]],
    names: set[str],
    capability: Capability,
) -> None:
    """Names of feeds come and go; what is allowed, and single labels, are rules."""

    def by_rule(rows: dict[tuple[str, bool], tuple[bool, bool]]) -> set[str]:
        return {name for (name, _), (block, _) in rows.items() if not block or "." not in name}

    rules = by_rule(old)
    kept = {key: value for key, value in old.items() if key[0] not in names or key[0] in rules}
    come = {key: value for key, value in other.items() if key[0] in names and value[0] and key[0] not in rules}
    before, after = decisions(old), decisions(kept | come)
    was, wanted = express(before, capability), express(after, capability)
    told = pl.Series(sorted(rules), dtype=pl.String)
    fitted, patch, gone = refitted(was, before, after, pl.Series(sorted(names), dtype=pl.String), told, capability)
    assert_frame_equal(fitted.entries, wanted.entries)
    assert fitted.lost == wanted.lost
    assert_frame_equal(patch.of(was.entries), wanted.entries)
    assert_frame_equal(gone, was.entries.filter(pl.col("name").is_in(patch.gone.implode())))


# The files that this takes


FEEDS_OF = ("malware", "phishing")
TARGETS = ["rpz", "squid", "domains", "hosts", "unbound", "nftables", "cidr"]


def lines(turn: int) -> list[str]:
    """Two hundred lines of which each turn changes some: names below others, networks, names of one provider."""
    plain = [f"n{i}.example" for i in range(turn, turn + 150)]
    below = [f"x.n{i}.example" for i in range(0, 40, 3 + turn)] + [f"a.h{i}.pages.test" for i in range(turn, 30)]
    return [*plain, *below, f"198.51.100.{turn}", "203.0.113.0/24", *(f"192.0.2.{i}" for i in range(turn * 2, 30))]


def body(path: Path) -> list[bytes]:
    """The lines without a serial, which is the time of day."""
    return [line for line in path.read_bytes().splitlines() if b" SOA " not in line and b" TXT " not in line]


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    for name in FEEDS_OF:
        world.feed(name, lines(0), category=name)
    for fmt in TARGETS:
        world.export(fmt, fmt)
    world.set("gates", max_change=1.0)
    return world


RULES = (("allow", "n40.example"), ("deny", "pages.test"))


def anew(world: World, folder: Path, rules: Sequence[tuple[str, str]] = RULES) -> dict[str, list[bytes]]:
    """What an installation without a past makes of the same feeds and rules."""
    other = World(folder, dict(world.feeds), dict(world.exports), dict(world.policies), dict(world.tables))
    shutil.copytree(world.base / "feeds", folder / "feeds")
    (folder / "exports").mkdir()
    other.write()
    for action, name in rules:
        assert other.run(action, "add", name, "--reason", "test").code == 0
    assert other.update().code == 0
    return {fmt: body(folder / "exports" / fmt) for fmt in TARGETS}


def refuse(*_: object) -> None:
    raise AssertionError("the whole picture was drawn")


def test_updates_decide_anew_only_what_changed_and_publish_the_same(
    world: World, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    for action, name in (("allow", "n40.example"), ("deny", "pages.test")):
        assert world.run(action, "add", name, "--reason", "test").code == 0
    assert world.update().code == 0
    for turn in (1, 2, 3):
        world.lines("malware", lines(turn))
        with monkeypatch.context() as patched:
            patched.setattr(Picture, "current", refuse)
            ran = world.update()
        assert ran.code == 0 and {e["outcome"] for e in ran.json["exports"]} <= {"published", "unchanged"}
        expected = anew(world, tmp_path_factory.mktemp("anew"))
        for fmt in TARGETS:
            assert body(world.base / "exports" / fmt) == expected[fmt], (fmt, turn)


def test_files_are_made_of_those_in_place_while_it_is_known_what_they_hold(
    world: World, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = prepare.render
    rendered: set[str] = set()

    def counted(fmt: Format, *rest: Any) -> Any:
        rendered.add(fmt.name)
        return whole(fmt, *rest)

    monkeypatch.setattr(prepare, "render", counted)
    assert world.update().code == 0 and rendered == set(TARGETS)
    names = {"rpz", "squid", "domains", "hosts", "unbound"}
    before = {fmt: set(body(world.base / "exports" / fmt)) for fmt in TARGETS}
    for turn, forgotten in ((1, False), (2, True), (3, False)):
        world.lines("malware", lines(turn))
        if forgotten:
            for file in (world.base / "var" / "exports").glob("*.frames"):
                file.unlink()
        rendered.clear()
        ran = world.update()
        assert ran.code == 0 and {e["outcome"] for e in ran.json["exports"]} == {"published"}
        assert not rendered & names or (forgotten and names <= rendered)
        expected = anew(world, tmp_path_factory.mktemp("anew"), ())
        now = {fmt: body(world.base / "exports" / fmt) for fmt in TARGETS}
        assert now == expected
        # The header of both says how many entries there are.
        came, went = ({line for line in a if b"entries" not in line} for a in (now["domains"], before["domains"]))
        told = next(e for e in ran.json["exports"] if e["name"] == "domains")
        if forgotten:  # then only the balance is known
            assert told["added"] - told["removed"] == len(came - went) - len(went - came)
        else:
            assert (told["added"], told["removed"]) == (len(came - went), len(went - came))
        before = {fmt: set(lines_) for fmt, lines_ in now.items()}
    # A file that a person edited is written whole.
    world.lines("malware", lines(4))
    edited = world.base / "exports" / "squid"
    edited.write_bytes(edited.read_bytes().replace(b"n100.", b"n10x."))
    rendered.clear()
    assert world.update().code == 0 and "squid" in rendered and "hosts" not in rendered
    assert body(edited) == anew(world, tmp_path_factory.mktemp("anew"), ())["squid"]
    # So is one of which is said what another one holds, and one that is too large to be in memory whole.
    for file in (world.base / "var" / "exports").glob("*.frames"):
        said = derived.read(file)
        assert said is not None
        derived.write(file, {**said.told, "of": "0" * 64}, said.frames)
    for turn, limit in ((5, kept.MOST_PATCHED), (6, 100)):
        monkeypatch.setattr(kept, "MOST_PATCHED", limit)
        world.lines("malware", lines(turn))
        rendered.clear()
        assert world.update().code == 0 and names <= rendered
    assert world.run("doctor").code == 0


def test_a_rule_decides_anew_only_what_it_speaks_of(
    world: World, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A false positive at three in the morning must not wait until all is decided again."""
    assert world.update().code == 0
    rules: list[tuple[str, str]] = []
    for turn, (action, name) in enumerate(
        [("allow", "n40.example"), ("deny", "pages.test"), ("allow", "x.n30.example"), ("allow", "192.0.2.8")]
    ):
        rules.append((action, name))
        with monkeypatch.context() as patched:
            patched.setattr(Picture, "current", refuse)
            ran = world.run(action, "add", name, "--reason", "test", "--now")
        assert ran.code == 0, ran.text
        expected = anew(world, tmp_path_factory.mktemp("anew"), rules)
        for fmt in TARGETS:
            assert body(world.base / "exports" / fmt) == expected[fmt], (fmt, name)
        # And with news of feeds in the same run as a rule that went.
        if turn == 2:
            assert world.run("deny", "remove", "2", "--reason", "test").code == 0
            rules.remove(("deny", "pages.test"))
            world.lines("malware", lines(1))
            with monkeypatch.context() as patched:
                patched.setattr(Picture, "current", refuse)
                assert world.update().code == 0
            expected = anew(world, tmp_path_factory.mktemp("anew"), rules)
            for fmt in TARGETS:
                assert body(world.base / "exports" / fmt) == expected[fmt], fmt


@pytest.mark.parametrize("damage", ["lost", "torn", "flipped", "empty", "stale"])
def test_a_kept_file_that_is_not_whole_or_not_of_the_last_run_is_not_believed(
    world: World, tmp_path_factory: pytest.TempPathFactory, damage: str
) -> None:
    for action, name in (("allow", "n40.example"), ("deny", "pages.test")):
        assert world.run(action, "add", name, "--reason", "test").code == 0
    assert world.update().code == 0
    folder = world.state / "decided"
    old = {path: path.read_bytes() for path in folder.iterdir()}
    assert old
    world.lines("malware", lines(1))
    assert world.update().code == 0
    for path, data in old.items():
        now = path.read_bytes()
        path.write_bytes(
            {
                "lost": b"",
                "torn": now[: len(now) // 2],
                "flipped": now[:-20] + bytes([now[-20] ^ 1]) + now[-19:],
                "empty": b"",
                "stale": data,
            }[damage]
        )
        if damage == "lost":
            path.unlink()
    world.lines("malware", lines(2))
    assert world.update().code == 0
    expected = anew(world, tmp_path_factory.mktemp("anew"))
    assert {fmt: body(world.base / "exports" / fmt) for fmt in TARGETS} == expected


def test_a_dry_run_keeps_nothing_and_files_of_policies_that_are_gone_go(world: World) -> None:
    world.policies["extra"] = {"categories": ["malware"]}
    world.export("more", "domains", policy="extra")
    assert world.update().code == 0
    before = {path.name for path in (world.state / "decided").iterdir()}
    shutil.rmtree(world.state / "decided")
    assert world.run("export", "more", "--dry-run").code == 0
    assert not (world.state / "decided").exists()
    del world.exports["more"]
    world.write()
    world.lines("malware", lines(1))
    assert world.update().code == 0
    assert {path.name for path in (world.state / "decided").iterdir()} < before


def test_kept_frames_come_back_only_as_they_were_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "decided" / "x.frames"
    frame = pl.DataFrame({"first": pl.Series([2**127], dtype=pl.UInt128), "name": ["a.example"]})
    derived.write(path, {"key": 1}, {"frame": frame, "none": frame.clear()})
    found = derived.read(path)
    assert found is not None
    assert found.told == {"key": 1}
    assert_frame_equal(found.frames["frame"], frame)
    assert found.frames["none"].is_empty()
    data = path.read_bytes()
    for place in range(0, len(data), 7):
        path.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
        assert derived.read(path) is None
    path.write_bytes(data)
    monkeypatch.setattr(derived, "__version__", "of another day")
    assert derived.read(path) is None


ROWS = st.dictionaries(st.sampled_from([f"n{i}.example" for i in range(40)]), st.integers(0, 3), max_size=6)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(ROWS, st.lists(st.integers(0, 39), max_size=4)), min_size=1, max_size=6), st.booleans())
def test_a_chain_of_changes_reads_as_the_frame_that_they_made(
    tmp_path_factory: pytest.TempPathFactory, turns: list[tuple[dict[str, int], list[int]]], linked: bool
) -> None:
    """Written as changes of one whole file, or anew when they are many; a link to one of before stays what it was."""
    folder = tmp_path_factory.mktemp("chain")
    path, link = folder / "a" / "0a.frames", folder / "b" / "1.frames"
    schema = {"name": pl.String, "n": pl.Int64}
    rows = {f"n{i}.example": i for i in range(0, 40, 3)} | {f"z{i}.example": i for i in range(200)}
    now = pl.DataFrame(sorted(rows.items()), schema=schema, orient="row")
    derived.write(path, {"turn": 0}, {"frame": now, "whole": now.head(2)})
    for turn, (come, gone) in enumerate(turns, start=1):
        before = derived.read(path)
        assert before is not None
        if linked:
            derived.link_with_base(path, link)
        leave = now["name"].filter(now["name"].is_in([*come, *(f"n{i}.example" for i in gone)]))
        patch = FramePatch.between(leave, pl.DataFrame(sorted(come.items()), schema=schema, orient="row"))
        now = patch.of(before.frames["frame"])
        derived.write_changed(path, {"turn": turn}, {"frame": now, "whole": now.head(turn)}, before, {"frame": patch})
        found = derived.read(path)
        assert found is not None and found.told == {"turn": turn}
        assert_frame_equal(found.frames["frame"], now)
        assert_frame_equal(found.frames["whole"], now.head(turn))
        rows = {name: n for name, n in rows.items() if name not in leave.to_list()} | come
        assert dict(now.iter_rows()) == rows
        if linked:
            then = derived.read(link)
            assert then is not None and then.told == before.told
            assert_frame_equal(then.frames["frame"], before.frames["frame"])


def test_a_name_with_the_hash_of_another_does_not_take_it_along(monkeypatch: pytest.MonkeyPatch) -> None:
    def hashed(names: pl.Series, *_: object) -> pl.Series:
        return pl.repeat(7, len(names), dtype=pl.UInt64, eager=True)

    before = pl.DataFrame({"name": ["bad.example", "evil.example", "good.example"], "block": [True, True, False]})
    patch = FramePatch.between(before["name"].head(1), before.head(1).with_columns(name=pl.lit("new.example")))
    monkeypatch.setattr(pl.Series, "hash", hashed)
    now = patch.of(before)
    assert now["name"].to_list() == ["evil.example", "good.example", "new.example"]
    again = FramePatch.between(pl.Series(["evil.example"]), before.clear()).after(patch)
    assert again.of(before).equals(now.filter(pl.col("name") != "evil.example"))
    # What is decided anew for nothing comes out as it was, and exact and subtree entries keep their order.
    entries = pl.DataFrame({"name": ["a.test", "a.test", "b.test"], "subtree": [False, True, True]}).with_columns(
        block=pl.lit(True), widenable=pl.lit(True), group=group_of(pl.col("name"))
    )
    new = entries.with_columns(pl.col("name").replace("b.test", "c.test"))
    can = Capability(True, True, True)
    was, wanted = express(entries, can), express(new, can)
    fitted, _, _ = refitted(was, entries, new, pl.Series(["b.test", "c.test"]), pl.Series([], dtype=pl.String), can)
    assert_frame_equal(fitted.entries, wanted.entries)


def test_changes_without_the_file_that_they_change_are_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "0a.frames"
    now = pl.DataFrame({"name": [f"n{i:03}.example" for i in range(500)]})
    derived.write(path, {}, {"frame": now})
    patch = FramePatch.between(now["name"].head(1), pl.DataFrame({"name": ["x.example"]}))
    before = derived.read(path)
    assert before is not None
    derived.write_changed(path, {}, {"frame": patch.of(now)}, before, {"frame": patch})
    base = path.with_suffix(".base")
    data = base.read_bytes()
    assert path.stat().st_size < len(data) and derived.read(path) is not None
    for other in (data[:-1], data[:100] + b"?" + data[101:], b"", path.read_bytes()):
        base.write_bytes(other)
        assert derived.read(path) is None
    base.unlink()
    assert derived.read(path) is None
    # What lies there is not what was read: then the whole is written.
    derived.write_changed(path, {}, {"frame": now}, before, {"frame": patch})
    found = derived.read(path)
    assert found is not None and not found.patches and not base.exists()


def test_what_a_name_of_two_labels_covered_comes_back_when_it_goes() -> None:
    below = [("c.a.evil.example", 1, False), ("z.pages.example", 1, False)]
    everything = frames([("evil.example", 1, True), *below])
    policy, none = Policy(categories=["malware"], min_confidence=0), series([])
    withheld = Withheld(none, none, pl.DataFrame(schema={"family": pl.UInt8, "first": pl.UInt128, "last": pl.UInt128}))
    old, new = (
        select(current(f, FEEDS, SUFFIXES), FEEDS, policy, withheld, [], none) for f in (everything, frames(below))
    )
    can = Capability(subtree=True, exact=True, allow=True)
    gone = pl.Series("name", ["evil.example"])
    was, no_rules = express(old.decisions, can), pl.Series([], dtype=pl.String)
    fitted, _, _ = refitted(was, old.decisions, new.decisions, gone, no_rules, can)
    assert fitted.entries["name"].to_list() == ["c.a.evil.example", "z.pages.example"]


def test_a_network_of_ipv6_is_no_single_label(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.lines("malware", [*lines(0), "2001:db8::1"])
    assert world.update().code == 0
    world.lines("malware", [*lines(0), "2001:db8::2"])
    with monkeypatch.context() as patched:
        patched.setattr(Picture, "current", refuse)
        assert world.update().code == 0
    assert b"2001:db8::2" in body(world.base / "exports" / "cidr")
