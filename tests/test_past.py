"""What was live at a date: the bytes that were kept, or made again and compared with their digest."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from installation import World, digest, names

from blocklist import clock
from blocklist.audit import Audit
from blocklist.config import load
from blocklist.publish.descriptor import abilities
from blocklist.publish.past import PastRecord
from blocklist.store.database import open_for_reading


def backdate(world: World, days: int) -> None:
    """Say that all that was done so far was done so many days earlier."""
    for table, column in (
        *(("run", c) for c in ("started", "finished")),
        *(("release", c) for c in ("created", "published", "judged")),
        *(("rule", c) for c in ("created", "removed")),
        *(("hold_release", c) for c in ("created", "revoked")),
        *(("verdict", c) for c in ("since", "checked")),
        ("event", "at"),
    ):
        text = f"strftime('%Y-%m-%dT%H:%M:%SZ', {column}, '-{days} days')"
        world.change(f"UPDATE {table} SET {column} = {text} WHERE {column} IS NOT NULL")


def days_of(world: World) -> list[dict[str, bytes]]:
    """Six days of updates, each with other listings, rules, holds and settings; what was published on each."""
    exports = {
        name: world.export(name, fmt, **keys)
        for name, fmt, keys in (
            ("dns", "rpz", {}),
            ("fw", "nftables", {}),
            ("flat", "domains", {"policy": "strict"}),
            ("etc", "hosts", {}),
        )
    }
    world.policies["strict"] = {"min_confidence": 80, "dead": "drop"}
    world.feed("alpha", names(300))
    world.feed("beta", ["192.0.2.0/28", "198.51.100.7", "fine.example", *names(50, 250)], confidence=60)
    world.feed("top", ["known.example"], category="reference")
    out = []
    for day in range(6):
        backdate(world, 1) if day else None
        world.lines("alpha", [*names(300 - 3 * day, 2 * day), *(["known.example"] if day > 1 else [])])
        world.lines("beta", ["192.0.2.0/28", *(["198.51.100.7"] if day < 3 else []), *names(50, 250 + day)])
        if day == 2:
            assert world.run("allow", "add", names(1, 100)[0], "--reason", "a customer").code == 0
        if day == 3:
            world.feeds["beta"]["confidence"] = 85
            world.write()
            assert world.run("held", "release", "known.example", "--reason", "seen").code == 0
        if day == 4:
            world.policies["strict"]["categories"] = ["malware", "phishing"]
            world.exports["etc"]["policy"] = "strict"
            world.write()
            assert world.run("allow", "remove", "1", "--reason", "over").code == 0
        if day == 5:
            del world.feeds["beta"]
            world.write()
        assert world.update("--no-verify", "--force").code in (0, 3, 4)
        for held in world.rows("SELECT export FROM release WHERE state = 'held'"):
            world.run("release", "approve", held[0])
        out.append({name: path.read_bytes() for name, path in exports.items()})
    return out


def at(world: World, export: str, day: int, target: Path) -> str:
    moment = f"{(5 - day) * 24}h" if day < 5 else "now"
    ran = world.run("export", export, "--at", moment, "-o", target)
    assert ran.code == 0, ran.text
    return ran.err


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, list[dict[str, bytes]]]:
    world = World(tmp_path_factory.mktemp("lived"))
    return world, days_of(world)


def test_every_day_comes_back_byte_for_byte_from_kept_bytes(
    lived: tuple[World, list[dict[str, bytes]]], tmp_path: Path
) -> None:
    world, days = lived
    assert len({d["dns"] for d in days}) == 6
    for day, published in enumerate(days):
        for export, data in published.items():
            said = at(world, export, day, tmp_path / "then")
            assert (tmp_path / "then").read_bytes() == data, (export, day)
            assert ", kept; SHA-256 " + digest(tmp_path / "then") in said
    world.assert_sound()
    assert world.left_over() == []


@pytest.mark.parametrize(("stay", "come"), [(3, 40), (40, 3), (0, 40)])
def test_few_or_most_of_the_listings_of_then_still_stand(tmp_path: Path, stay: int, come: int) -> None:
    world = World(tmp_path)
    target = world.export("flat", "domains")
    world.feed("alpha", names(50), check_count=False)
    world.feed("beta", names(30, 200))
    assert world.update("--force").code == 0
    then = target.read_bytes()
    backdate(world, 1)
    world.lines("alpha", [*names(50)[:stay], *names(come, 100)])
    assert world.update("--force").code in (0, 3, 4)
    if stay == 0:
        world.lines("beta", names(30, 300))
        assert world.update("--force").code in (0, 3, 4)
    shutil.rmtree(world.state / "kept")
    at_ = world.run("export", "flat", "--at", "24h", "-o", tmp_path / "then")
    assert ", made again; " in at_.err, at_.text
    assert (tmp_path / "then").read_bytes() == then


def test_an_update_meanwhile_is_not_seen(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.feed("alpha", names(50))
    assert world.update("--no-export").code == 0
    world.lines("alpha", names(45))
    assert world.update("--no-export", "--force").code == 0
    with closing(open_for_reading(world.state)) as db:
        past = PastRecord(world.state, db, 1)
        # What ends now is still open to this reader, and ended to those that begin after it.
        world.lines("alpha", names(40))
        assert world.update("--no-export", "--force").code == 0
        (feed,) = db.execute("SELECT id FROM feed WHERE name = 'alpha'").fetchone()
        assert past.indicators(feed, 0)["name"].to_list() == sorted(names(50))


def test_bytes_that_are_gone_are_made_again_from_the_record(
    lived: tuple[World, list[dict[str, bytes]]], tmp_path: Path
) -> None:
    world, days = lived
    (world.state / "kept").rename(world.state / "gone")
    rename = "UPDATE listing_closed SET name = ? WHERE name = ?"
    try:
        for day, published in enumerate(days):
            for export, data in published.items():
                said = at(world, export, day, tmp_path / "then")
                assert (tmp_path / "then").read_bytes() == data, (export, day)
                assert ", made again; " in said
        # Another name in the record, and the digest tells.
        world.change(rename, "other.example", names(1)[0])
        ran = world.run("export", "etc", "--at", "120h", "-o", tmp_path / "tampered")
        assert ran.code == 4 and "differs from its digest" in ran.err and not (tmp_path / "tampered").exists()
    finally:
        world.change(rename, names(1)[0], "other.example")
        (world.state / "gone").rename(world.state / "kept")


def test_rows_with_their_times_are_made_again_too(tmp_path: Path) -> None:
    world = World(tmp_path)
    path = world.export("flat", "csv")
    world.feed("alpha", names(300), max_age="30d")
    assert world.update("--no-verify").code == 0
    first = path.read_bytes()
    # No clock moved: the rows say since when, to the second.
    (published,) = world.rows("SELECT published FROM release")[0]
    time.sleep(1.1)
    world.lines("alpha", names(290, 20))
    assert world.update("--no-verify").code == 0
    shutil.rmtree(world.state / "kept")
    for moment, data in ((published, first), ("now", path.read_bytes())):
        ran = world.run("export", "flat", "--at", moment, "-o", tmp_path / "then")
        assert ran.code == 0, ran.err
        assert "made again" in ran.err and (tmp_path / "then").read_bytes() == data
    assert first != path.read_bytes()


def test_damaged_bytes_are_not_given_out(lived: tuple[World, list[dict[str, bytes]]], tmp_path: Path) -> None:
    world, _ = lived
    (digest_of,) = world.rows("SELECT digest FROM release WHERE export = 'dns' AND state = 'live'")[0]
    path = world.state / "kept" / digest_of[:2] / f"{digest_of}.zst"
    good = path.read_bytes()
    path.write_bytes(good[:-9] + b"x" * 9)
    ran = world.run("export", "dns", "--at", "now", "-o", tmp_path / "then")
    path.write_bytes(good)
    assert ran.code == 1 and str(path) in ran.err and not (tmp_path / "then").exists()


def test_a_list_of_the_past_never_goes_to_the_place_of_a_live_one(
    lived: tuple[World, list[dict[str, bytes]]],
) -> None:
    world, days = lived
    path = world.base / "exports" / "dns"
    ran = world.run("export", "dns", "--at", "3d", "-o", path)
    assert ran.code == 2 and "is the file of export 'dns'" in ran.err
    assert path.read_bytes() == days[-1]["dns"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("dns", "--at", "2020-01-01", "-o", "-"), 4, "nothing was published by 2020-01-01"),
        (("dns", "--at", "2120-01-01", "-o", "-"), 2, "lies in the future"),
        (("dns", "--at", "soon", "-o", "-"), 2, "is no date and no span"),
        (("nosuch", "--at", "1d", "-o", "-"), 4, "it was never published; those that were: dns, "),
        (("dns", "--at", "1d"), 2, "--at takes one export and -o"),
    ],
)
def test_what_can_not_be_answered_says_why(
    lived: tuple[World, list[dict[str, bytes]]], words: tuple[str, ...], code: int, said: str
) -> None:
    ran = lived[0].run("export", *words)
    assert ran.code == code and said in ran.err, ran.err


def test_one_list_of_then_is_what_it_would_have_been(
    lived: tuple[World, list[dict[str, bytes]]], tmp_path: Path
) -> None:
    world, days = lived
    ran = world.run("export", "--format", "hosts", "--at", "120h", "-o", tmp_path / "then")
    assert ran.code == 0, ran.err
    assert (tmp_path / "then").read_bytes() == days[0]["etc"]


def test_why_at_a_date_says_what_the_files_of_that_day_held(lived: tuple[World, list[dict[str, bytes]]]) -> None:
    world, days = lived
    config = load(world.config)
    formats = abilities([e.format for e in config.exports.values()])
    asked = [*names(60), *names(20, 240), *names(12, 290), "known.example", "fine.example", "x.evil.example"]
    for day, published in enumerate(days):
        flat = set(published["flat"].decode().split())
        etc = set(published["etc"].decode().split())
        audit = Audit(config, formats, clock.now() - timedelta(days=5 - day))
        for name in asked:
            said = {e.name: e.blocked for e in audit.why(name, lines=False).exports}
            assert (said["flat"], said["etc"]) == (name in flat, name in etc), (day, name)
        blocks = b"198.51.100.7" in published["fw"]
        assert {e.name: e.blocked for e in audit.why("198.51.100.7").exports}["fw"] == blocks == (day < 3)
        audit.close()


def test_the_screen_of_a_date_tells_rules_confidence_and_settings_of_then(
    lived: tuple[World, list[dict[str, bytes]]],
) -> None:
    world, _ = lived
    ruled = names(1, 100)[0]
    then = world.run("why", ruled, "--at", "72h")
    assert then.out.startswith("as of ") and f"{ruled} is not blocked" in then.out
    assert "allowed by rule 1" in then.out and "1 rule" in then.out
    both = names(1, 260)[0]
    assert {x["feed"] for x in world.run("why", both, "--at", "96h", "--json").json["listings"]} == {"alpha", "beta"}
    assert world.run("why", both, "--at", "96h", "--json").json["confidence"] == 96
    assert world.run("why", both, "--at", "48h", "--json").json["confidence"] == 98
    assert {x["feed"] for x in world.run("why", both, "--json").json["listings"]} == {"alpha"}


@pytest.mark.parametrize(
    ("at", "code", "said"),
    [("2020-01-01", 1, "it begins on "), ("2120-01-01", 2, "in the future"), ("\x1b[2Jx", 2, "is no date")],
)
def test_why_at_a_date_that_can_not_be_answered(
    lived: tuple[World, list[dict[str, bytes]]], at: str, code: int, said: str
) -> None:
    ran = lived[0].run("why", "evil.example", "--at", at)
    assert ran.code == code and said in ran.err and "\x1b" not in ran.err


def test_holds_of_a_date_with_who_let_them_pass_by_then(lived: tuple[World, list[dict[str, bytes]]]) -> None:
    world, _ = lived

    def held(*words: str) -> list[tuple[str, str]]:
        ran = world.run("held", *words, "--json")
        assert ran.code == 0, ran.err
        return [(row["indicator"], row["feeds"]) for row in map(json.loads, ran.out.splitlines())]

    assert held("--at", "120h") == held("--at", "96h") == []
    assert held("--at", "72h") == [("known.example", ["alpha"])]
    assert held("--at", "48h") == held() == []
    assert held("--at", "48h", "--released") == held("--released") == [("known.example", ["alpha"])]
    assert "1 held as of " in world.run("held", "--at", "72h").out


def test_a_split_release_comes_back_into_a_folder(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.feed("alpha", names(20))
    world.feed("beta", names(20, 20), category="phishing")
    world.export("dns", "rpz", split="category")
    assert world.update("--no-verify").code == 0
    folder = world.base / "exports"
    first = {path.name: path.read_bytes() for path in folder.glob("dns-*")}
    backdate(world, 1)
    world.lines("alpha", names(21))
    assert world.update("--no-verify").code == 0
    (then := tmp_path / "then").mkdir()
    ran = world.run("export", "dns", "--at", "24h", "-o", then)
    assert ran.code == 0, ran.err
    assert {path.name: path.read_bytes() for path in then.iterdir()} == first
    assert first != {path.name: path.read_bytes() for path in folder.glob("dns-*")}
    for place, said in (("-", "give an existing folder"), (folder, "a list of the past goes elsewhere")):
        ran = world.run("export", "dns", "--at", "24h", "-o", place)
        assert ran.code == 2 and said in ran.err


def test_what_can_not_be_made_again_is_kept_for_all_of_history(tmp_path: Path) -> None:
    def lines(start: int) -> list[str]:
        # No two lists share anything that a patch could stand on.
        return [f"{hashlib.sha256(str(i).encode()).hexdigest()[:40]}.example" for i in range(start, start + 100)]

    world = World(tmp_path)
    world.feed("alpha", lines(0))
    plain, cut = world.export("plain"), world.export("cut", max_entries=50, fit="rank")
    world.set("keep", releases="7d", history="50d")
    assert world.update("--no-verify").code == 0
    first = {path.name: path.read_bytes() for path in (plain, cut)}
    for ago, kept_ones in ((30, {"cut"}), (60, set())):
        backdate(world, 30)
        world.lines("alpha", lines(ago * 10))
        assert world.update("--no-verify", "--force").code in (0, 4)
        for held in world.rows("SELECT export FROM release WHERE state = 'held'"):
            world.run("release", "approve", held[0])
        digests = dict(world.rows("SELECT export, digest FROM release WHERE id <= 2"))
        kept_now = {name for name, sha in digests.items() if (world.state / "kept" / sha[:2] / f"{sha}.zst").exists()}
        assert kept_now == kept_ones
        # One way or the other, what was published is there.
        ran = world.run("export", "plain", "--at", f"{ago}d", "-o", tmp_path / "then")
        assert ran.code == 0 and (tmp_path / "then").read_bytes() == first["plain"], ran.err


def test_logs_are_replayed_over_the_lists_of_then(lived: tuple[World, list[dict[str, bytes]]], tmp_path: Path) -> None:
    world, days = lived
    blocked = [
        {line.split()[0] for line in day["dns"].decode().splitlines() if line.endswith(" CNAME .") and line[0] != "*"}
        for day in days
    ]
    (log := tmp_path / "names.txt").write_text("".join(f"{name}\n" for name in sorted(set().union(*blocked))))
    counts = []
    for day in range(6):
        ran = world.run("match", log, "--json", "--at", f"{(5 - day) * 24}h" if day < 5 else "now")
        assert ran.code == 0, ran.err
        counts.append(next(row["names"] for row in ran.json["lists"] if row["list"] == "dns"))
    assert counts == [len(names_) for names_ in blocked] and len(set(counts)) > 2
    ran = world.run("match", log, "--at", "2020-01-01")
    assert ran.code == 1 and "the record knows nothing of 2020" in ran.err
