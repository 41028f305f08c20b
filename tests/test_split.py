"""A file a category: every entry in one of them, all of one release, and the reasons beside them."""

from __future__ import annotations

import json
import re
import time
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from engines import driver
from hypothesis import given
from hypothesis import strategies as st
from installation import World, names

from blocklist.publish import split
from blocklist.publish.descriptor import builtin
from blocklist.publish.selection import Selection
from blocklist.select.fold import fold

CATEGORIES = ["phishing", "malware", "c2"]


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.policies["default"] = {"categories": CATEGORIES}
    world.feed("mal", [*names(30), "both.example", "evil.test"], confidence=70, contact="abuse@publisher.example")
    world.feed("phish", [*names(20, 100), "both.example", "deep.wide.test"], confidence=90, category="phishing")
    world.export("dns", "rpz", path="exports/dns.rpz", split="category", options={"origin": "rpz.example"})
    return world


def file(world: World, category: str) -> str:
    return (world.base / "exports" / f"dns-{category}.rpz").read_text()


def owners(text: str) -> set[str]:
    return {line.split()[0] for line in text.splitlines() if re.match(r"^[*a-z0-9].* CNAME ", line)}


def reasons(world: World) -> dict[str, dict[str, Any]]:
    lines = (world.base / "exports" / "dns-reasons.jsonl").read_text("ascii").splitlines()
    return {row["name"]: row for row in map(json.loads, lines)}


def serials(world: World) -> set[int]:
    return {int(re.search(r" SOA \S+ \S+ (\d+) ", file(world, c))[1]) for c in [*CATEGORIES, "rule"]}  # type: ignore[index]


def test_every_category_has_a_zone_of_its_own_name_and_all_are_one_release(world: World) -> None:
    world.run("deny", "add", "ordered.example", "--reason", "an order", "--ticket", "7 O 12/26")
    world.exports["dns"]["check"] = "auto"
    world.write()
    ran = world.update()
    assert ran.code == 0, ran.text
    assert sorted(p.name for p in (world.base / "exports").iterdir()) == [
        "dns-c2.rpz",
        "dns-malware.rpz",
        "dns-phishing.rpz",
        "dns-reasons.jsonl",
        "dns-rule.rpz",
    ]
    assert len(serials(world)) == 1 and world.rows("SELECT count(*) FROM release") == [(1,)]
    assert ran.export("dns")["entries"] == 54
    found = {c: owners(file(world, c)) for c in [*CATEGORIES, "rule"]}
    assert (
        "both.example" in found["phishing"]
        and "evil.test" in found["malware"]
        and "h00005.evil.example" in found["malware"]
    )
    assert found["rule"] >= {"ordered.example", "*.ordered.example"} and not found["c2"]
    for a in found:
        assert not any(found[a] & found[b] for b in found if b != a)
    assert world.update().export("dns")["outcome"] == "unchanged"
    shown = world.rows("SELECT files FROM release")[0][0]
    assert {f["category"]: f["entries"] for f in json.loads(shown)} == {
        "c2": 0,
        "malware": 31,
        "phishing": 22,
        "rule": 1,
        "reasons": 54,
    }
    assert "named-checkzone (4 files, " in ran.export("dns")["checked"]


def test_the_reasons_name_authority_legal_basis_contact_and_case(world: World) -> None:
    rows = (
        'name,by,law,ref,why\nlaw.test,"Bundesamt für X",§ 5 TMG,AZ 12/26,"a ""fraud"", says Ω\x7f"\nplain.test,,,,\n'
    )
    world.feed(
        "court",
        rows.encode(),
        format={
            "name": "csv",
            "value": "name",
            "authority": "by",
            "legal_basis": "law",
            "reference": "ref",
            "reason": "why",
        },
        category="c2",
        legal_basis="Art. 5",
        contact="clerk@court.example",
    )
    world.run("deny", "add", "ordered.example", "--reason", "an order", "--ticket", "7 O 12/26")
    assert world.update().code == 0
    found = reasons(world)
    assert found["law.test"] == {
        "name": "law.test",
        "kind": "domain",
        "scope": "subtree",
        "category": "c2",
        "feeds": ["court"],
        "authority": "Bundesamt für X",
        "legal_basis": "§ 5 TMG",
        "contact": "clerk@court.example",
        "case": "AZ 12/26",
        "reason": found["law.test"]["reason"],
    }
    assert "fraud" in found["law.test"]["reason"]
    assert found["plain.test"]["legal_basis"] == "Art. 5" and "authority" not in found["plain.test"]
    assert found["both.example"]["feeds"] == ["mal", "phish"] and found["both.example"]["category"] == "phishing"
    assert found["h00005.evil.example"]["contact"] == "abuse@publisher.example"
    mine = found["ordered.example"]
    assert (mine["category"], mine["case"], mine["reason"]) == ("rule", "7 O 12/26", "an order") and mine["authority"]
    assert len(found) == len({*found})


def test_a_name_is_long_enough_for_every_zone_or_for_none(world: World) -> None:
    """`why` need not know in which zone a name would be: the room in front of the longest zone counts for all."""
    origin = "sanctioned-media.rpz.example"
    room = 253 - len(origin) - 1
    fits, over = (f"{'.'.join(['x' * 52] * 3)}.{'y' * (length - 164)}.test" for length in (room - 2, room - 1))
    assert (len(fits), len(over)) == (room - 2, room - 1)
    world.feed("long", [f"*.{fits}", f"*.{over}"], format="wildcard", category="c2")
    ran = world.update()
    assert ran.export("dns")["lost"] == {"too_long": 1}
    assert fits in file(world, "c2") and over not in file(world, "c2")
    log = world.base / "log"
    log.write_text(f"{fits}\na.{fits}\n{over}\n")
    blocked = {row["what"] for row in world.run("match", log, "--json").json["blocked"]}
    for name in (fits, f"a.{fits}", over):
        assert world.why(name)["blocked"] == (name in blocked) == (name != over)


def test_an_exception_stands_in_the_zone_of_the_block_above_it(world: World) -> None:
    world.feed("wide", ["wide.test"], category="malware", confidence=90)
    world.run("allow", "add", "good.wide.test", "--reason", "x")
    world.run("deny", "add", "bad.good.wide.test", "--reason", "x")
    world.update()
    text = file(world, "malware")
    assert "\ngood.wide.test CNAME rpz-passthru." in text and "\nbad.good.wide.test CNAME ." in text
    for other in ("phishing", "c2", "rule"):
        assert "wide.test" not in file(world, other)


@pytest.mark.parametrize("how", ["removed", "edited"])
def test_a_file_of_a_split_that_was_removed_or_edited_is_written_again(world: World, how: str) -> None:
    world.update()
    path = world.base / "exports" / "dns-malware.rpz"
    before = owners(path.read_text())
    if how == "removed":
        path.unlink()
    else:
        path.write_text("mine\n")
    ran = world.update()
    assert ran.export("dns")["outcome"] == "published" and "written again" in ran.export("dns")["note"]
    assert owners(path.read_text()) == before and len(serials(world)) == 1
    assert world.left_over() == []


def test_the_gate_counts_over_all_files(world: World) -> None:
    world.feed("more", names(200, 500), category="c2")
    world.update()
    world.lines("more", names(110, 500))
    ran = world.update()
    assert ran.code == 4 and ran.export("dns")["outcome"] == "held" and "removed" in ran.export("dns")["error"]
    assert "h00699.evil.example" in file(world, "c2")


def test_an_allow_is_published_in_its_zone_while_the_release_is_held(world: World) -> None:
    world.feed("more", names(200, 500), category="c2")
    world.update()
    world.lines("more", names(110, 500))
    assert world.update().export("dns")["outcome"] == "held"
    world.run("allow", "add", "h00600.evil.example", "--reason", "x", "--now")
    text = owners(file(world, "c2"))
    assert "h00600.evil.example" not in text and {"h00601.evil.example", "h00699.evil.example"} <= text
    assert not owners(file(world, "rule")) and len(serials(world)) == 1


def test_two_exports_to_one_file_are_refused_also_where_a_split_gives_it(world: World) -> None:
    world.export("other", path="exports/dns-malware.rpz")
    ran = world.run("update")
    assert ran.code == 1 and "export.other.path: is the path of export 'dns' too" in ran.err
    world.exports = {"other": world.exports["other"], "dns": world.exports["dns"]}
    world.write()
    assert "export.dns.path: gives dns-malware.rpz, which is the path of export 'other' too" in world.run("update").err


def test_other_formats_split_too(world: World) -> None:
    world.feed("scan", ["192.0.2.0/24", "198.51.100.7"], category="c2", confidence=80)
    world.feed("host", ["192.0.2.66", "203.0.113.0/24"], category="malware", confidence=95)
    world.run("allow", "add", "192.0.2.5", "--reason", "x")
    world.export("ips", "cidr", path="exports/ips.txt", split="category")
    world.export("fw", "nftables", path="exports/fw.nft", split="category")
    world.export("people", "csv", path="exports/people.csv", split="category")
    ran = world.update()
    assert ran.code == 0, ran.text
    read = lambda name: (world.base / "exports" / name).read_text()  # noqa: E731
    malware, c2 = read("ips-malware.txt").split(), read("ips-c2.txt").split()
    # An address that two categories list is in the first of them, as the catalogue orders them.
    assert malware == ["203.0.113.0/24"] and "198.51.100.7" in c2
    area = [ip_network(cidr) for cidr in c2]
    assert [any(ip_address(f"192.0.2.{n}") in net for net in area) for n in (4, 5, 66)] == [True, False, True]
    tables = {re.search(r"table inet (\S+)", read(f"fw-{c}.nft"))[1] for c in CATEGORIES}  # type: ignore[index]
    assert len(tables) == 3
    assert "both.example" in read("people-phishing.csv") and "both.example" not in read("people-malware.csv")


def test_a_limit_is_that_of_each_file(world: World) -> None:
    world.exports["dns"].update(max_entries=50, fit="rank")
    world.write()
    ran = world.update()
    assert ran.code == 0
    assert ran.export("dns")["entries"] == 53, "50 records a file are enough for each"
    world.exports["dns"].update(max_entries=20, fit="hold")
    world.write()
    ran = world.update()
    assert ran.code == 4 and "dns-malware.rpz" in ran.export("dns")["error"]


@given(
    st.lists(
        st.tuples(st.lists(st.sampled_from("abc"), min_size=1, max_size=4), st.booleans(), st.booleans()),
        max_size=12,
        unique_by=lambda t: (tuple(t[0]), t[1]),
    ),
    st.data(),
)
def test_every_entry_is_in_one_part_and_below_its_cover(entries: list[tuple[list[str], bool, bool]], data: Any) -> None:
    rows = [(".".join([*labels, "test"]), subtree, block) for labels, subtree, block in entries]
    frame = fold(
        pl.DataFrame(rows, schema={"name": pl.String, "subtree": pl.Boolean, "block": pl.Boolean}, orient="row")
    )
    known = pl.DataFrame(
        {
            "name": (every := sorted({r[0] for r in rows})),
            "category": [data.draw(st.sampled_from(CATEGORIES)) for _ in every],
        },
        schema={"name": pl.String, "category": pl.String},
    )
    parts = split.parts(Selection(domains=frame), known, [*CATEGORIES, "rule"])
    back = pl.concat([p.domains for p in parts.values()]).sort("name", "subtree")
    assert back.equals(frame)
    home = {(n, s): c for c, p in parts.items() for n, s, _ in p.domains.iter_rows()}
    for name, subtree in home:
        for above, wide in home:
            if wide and name.endswith("." + above):
                assert home[name, subtree] == home[above, wide]


def test_options_that_name_what_a_file_makes_differ_by_category() -> None:
    formats = builtin()
    assert split.options(formats["rpz"], {}, "attack-source")["origin"].startswith("attack-source.")
    made = {split.options(formats["nftables"], {}, c)["table"] for c in ("c2", "attack-source")}
    assert len(made) == 2


def test_a_run_that_was_killed_between_two_of_the_files_is_finished_by_the_next(world: World) -> None:
    world.update()
    old = {p.name: p.read_bytes() for p in (world.base / "exports").iterdir()}
    world.lines("phish", [*names(21, 100), "both.example"])
    world.lines("mal", [*names(31), "both.example", "evil.test"])
    world.update()
    new = {name: (world.base / "exports" / name).read_bytes() for name in old}
    # As it stands when some of the files are renamed and the record says "pending".
    world.change("UPDATE release SET state = 'pending', published = NULL WHERE id = 2")
    world.change("UPDATE release SET state = 'live' WHERE id = 1")
    assert world.update().export("dns")["outcome"] == "unchanged", "all were renamed"
    world.change("UPDATE release SET state = 'pending', published = NULL WHERE id = 2")
    world.change("UPDATE release SET state = 'live' WHERE id = 1")
    (world.base / "exports" / "dns-malware.rpz").write_bytes(old["dns-malware.rpz"])
    assert world.update().export("dns")["outcome"] == "published"
    assert {c: owners(file(world, c)) for c in CATEGORIES} == {
        c: owners(new[f"dns-{c}.rpz"].decode()) for c in CATEGORIES
    }
    assert len(serials(world)) == 1
    assert [row[0] for row in world.rows("SELECT state FROM release ORDER BY id")] == ["superseded", "failed", "live"]


def test_a_rollback_puts_names_where_they_were_though_nobody_lists_them_now(world: World) -> None:
    world.set("gates", max_change=2.0)
    world.update()
    world.lines("mal", names(20))
    world.update()
    assert "evil.test" not in owners(file(world, "malware"))
    assert world.run("release", "rollback", "dns", "--reason", "x").code == 0
    assert "evil.test" in owners(file(world, "malware")) and "h00025.evil.example" in owners(file(world, "malware"))
    assert reasons(world)["evil.test"]["feeds"] == ["mal"] and not owners(file(world, "rule"))


def test_a_category_that_leaves_the_policy_is_said_to_leave_its_file_behind(world: World) -> None:
    world.update()
    world.policies["default"]["categories"] = ["phishing", "malware"]
    world.write()
    ran = world.update()
    assert "dns-c2.rpz is written no more" in ran.export("dns")["note"]
    assert "written no more" not in world.update().export("dns")["note"]


def test_the_doctor_looks_at_every_file_and_at_the_way_to_it(world: World) -> None:
    world.update()
    rows = [json.loads(line) for line in world.run("doctor", "--json").out.splitlines()]
    assert sum(str(world.base / "exports" / "dns-") in json.dumps(row) for row in rows) == 5
    (world.base / "exports").chmod(0o750)
    (world.base / "exports" / "dns-c2.rpz").unlink()
    text = world.run("doctor").out
    assert "dns-c2.rpz" in text and "the published file is gone" in text
    assert f"only the owner and group of {world.base / 'exports'} can reach it" in text
    (world.base / "exports").chmod(0o755)
    (world.base / "exports" / "dns-malware.rpz").chmod(0o640)
    assert "only its owner and group can read it" in world.run("doctor").out


_NAMED = """
options {{
  directory "{run}"; pid-file "{run}/named.pid"; session-keyfile "{run}/session.key"; managed-keys-directory "{run}";
  listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};
  forwarders {{ 127.0.0.1 port {upstream}; }}; forward only; recursion yes; allow-query {{ 127.0.0.1; }};
  dnssec-validation no; empty-zones-enable no; notify no;
  response-policy {{ {policy} }} break-dnssec yes qname-wait-recurse no min-update-interval 1;
}};
controls {{ }};
{zones}
"""


def test_bind_asks_the_zones_in_turn_and_means_what_one_zone_would(world: World) -> None:
    """Whatever the order: an exception, and what is denied below it, stand where the block above them does."""
    world.feed("wide", ["wide.test"], category="malware", confidence=90)
    world.run("allow", "add", "good.wide.test", "--reason", "x")
    world.run("deny", "add", "bad.good.wide.test", "--reason", "x")
    world.update()
    categories = ["rule", "c2", "phishing", "malware"]
    for order in (categories, categories[::-1]):
        upstream = driver.Upstream()
        try:
            with driver.lab() as place:
                for category in order:
                    (place.folder / f"{category}.rpz").write_text(file(world, category))
                zones = {c: f"{c}.rpz.example" for c in order}
                port = driver.free_port()
                conf = place.folder / "named.conf"
                conf.write_text(
                    _NAMED.format(
                        run=place.folder,
                        port=port,
                        upstream=upstream.port,
                        policy=" ".join(f'zone "{zone}";' for zone in zones.values()),
                        zones="\n".join(
                            f'zone "{zone}" {{ type primary; file "{c}.rpz"; allow-query {{ none; }}; }};'
                            for c, zone in zones.items()
                        ),
                    )
                )
                process, log = place.start([driver.program("named"), "-g", "-n", "1", "-c", str(conf)], port)
                engine = driver.Engine("named", port, process, log)
                until = time.monotonic() + 15
                while not all(driver._acts(engine, name) for name in ("evil.test", "both.example")):
                    assert time.monotonic() < until, log.read_text()[-2000:]
                    time.sleep(0.1)
                said = {
                    name: engine.blocks(name)
                    for name in (
                        "a.wide.test",
                        "good.wide.test",
                        "x.good.wide.test",
                        "bad.good.wide.test",
                        "ok.example",
                    )
                }
        finally:
            upstream.close()
        assert said == {
            "a.wide.test": True,
            "good.wide.test": False,
            "x.good.wide.test": False,
            "bad.good.wide.test": True,
            "ok.example": False,
        }


def test_a_way_back_tells_its_audience_of_no_more_than_it_did_then(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.feed("open", ["evil.example", "z.example"], category="phishing", confidence=60)
    world.feed("secret", ["evil.example"], confidence=95, tlp="red")
    world.feed("kept", ["evil.example"], category="advertising", confidence=95)
    world.policies["given"] = {"categories": ["malware", "phishing"], "audience": "partners"}
    world.export("given", "rpz", policy="given", path="exports/given.rpz", split="category")
    world.update()
    for feed in ("open", "secret", "kept"):
        world.lines(feed, ["another.example", "z.example"])
    world.update()
    assert world.run("release", "rollback", "given", "--reason", "r").code == 0
    text = (world.base / "exports" / "given-reasons.jsonl").read_text("ascii")
    told = {row["name"]: (row["category"], row["feeds"]) for row in map(json.loads, text.splitlines())}
    assert told["evil.example"] == ("phishing", ["open"])


def test_an_audience_is_told_of_no_feed_that_is_not_for_it(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.feed("open", ["evil.example"], category="phishing", confidence=60)
    world.feed("secret", ["evil.example"], confidence=95, tlp="red", legal_basis="a secret order")
    world.feed("kept", ["evil.example"], confidence=90, redistribution="forbidden", contact="them@kept.example")
    world.policies["given"] = {"categories": ["malware", "phishing"], "audience": "partners"}
    world.export("given", "rpz", policy="given", path="exports/given.rpz", split="category")
    assert world.update().code == 0
    text = (world.base / "exports" / "given-reasons.jsonl").read_text("ascii")
    assert json.loads(text) == {
        "name": "evil.example",
        "kind": "domain",
        "scope": "subtree",
        "category": "phishing",
        "feeds": ["open"],
    }
    assert "evil.example CNAME" in (world.base / "exports" / "given-phishing.rpz").read_text("ascii")
    assert "evil.example" not in (world.base / "exports" / "given-malware.rpz").read_text("ascii")
