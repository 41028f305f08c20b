"""Delivery to a real primary: by difference, by file, after drift; and the words when it can't be done."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import dns.name
import dns.query
import dns.tsig
import dns.update
import pytest
from engines import driver, primaries
from engines.primaries import EMPTY, SECRET, TSIG, ZONE, Served
from installation import World, names

from blocklist.errors import ReleaseError
from blocklist.publish.delivery import knot, rfc2136
from blocklist.publish.delivery import zone as zones
from blocklist.publish.delivery.primary import Primary
from blocklist.verify.endpoint import parse_resolver

pytestmark = pytest.mark.engine
MANY = names(3_000)


@pytest.fixture
def lab() -> Iterator[driver.Lab]:
    with driver.lab() as lab:
        yield lab


@pytest.fixture
def world(tmp_path: Path) -> World:
    tmp_path.chmod(0o755)
    world = World(tmp_path)
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "rpz-key").write_text(TSIG)
    (tmp_path / "secrets" / "rpz-key").chmod(0o600)
    world.feed("a", MANY)
    return world


def delivered(world: World, served: Served, **keys: object) -> None:
    made = {"options": {"origin": ZONE}, "primary": served.address, "delivery_timeout": "20s"}
    world.export("dns", "rpz", **{**made, **keys})


def in_file(world: World, name: str = "dns") -> set[str]:
    """The records of the published file as a secondary must have them, without the SOA."""
    zone = zones.read(world.base / "exports" / name)
    found = {zones.record(line, zone.ttl) for line in zone.lines}
    return {f"{item.owner} {item.kind} {item.data}" for item in found}


def update(world: World) -> dict[str, object]:
    ran = world.update()
    assert ran.code == 0, ran.text
    return ran.export("dns")


@pytest.fixture(params=["rfc2136", "knot"])
def pair(request: pytest.FixtureRequest, world: World, lab: driver.Lab) -> tuple[World, Served]:
    """An installation, and the primary that it feeds by differences."""
    if request.param == "rfc2136":
        own = lab.folder / "own.zone"
        own.write_text(EMPTY)
        served = primaries.bind(lab, own, 'allow-update { key "rpz-key"; };')
        delivered(world, served, delivery="rfc2136", tsig="rpz-key")
        return world, served
    path = world.base / "exports" / "dns"
    path.parent.mkdir(exist_ok=True)
    path.write_text(EMPTY)
    served = primaries.knot(lab, path)
    delivered(world, served, delivery="knot", socket=str(served.socket))
    return world, served


def test_the_primary_gets_the_whole_then_only_what_changed(pair: tuple[World, Served]) -> None:
    world, served = pair
    first = update(world)
    assert served.serial() == first["serial"] and served.records() == in_file(world)
    assert "h00001.evil.example CNAME ." in served.records()
    world.lines("a", [*MANY[30:], "new.example"])
    world.run("allow", "add", "good.new.example", "--reason", "customer")
    second = update(world)
    # 30 names and an entry of two records that came, an allow of two, the version record changed.
    assert "changed records in" in str(second["note"]) and "whole" not in str(second["note"]), second
    assert served.serial() == second["serial"] and served.records() == in_file(world)
    assert "good.new.example CNAME rpz-passthru." in served.records()
    # A block that becomes an allow: the one CNAME of a name is replaced.
    world.run("allow", "add", "new.example", "--reason", "customer")
    third = update(world)
    assert "whole" not in str(third["note"])
    assert "new.example CNAME ." not in served.records() and served.records() == in_file(world)
    assert update(world)["note"] == ""


@pytest.mark.parametrize("way", ["rfc2136", "knot", "file"])
def test_the_zones_of_a_split_export_are_delivered_each_and_have_one_serial(
    world: World, lab: driver.Lab, way: str
) -> None:
    categories = ["phishing", "malware", "rule"]
    world.policies["default"] = {"categories": categories[:2]}
    world.feed("p", ["phish.example", *names(50, zone="phish.test")], category="phishing")
    origins = {category: f"{category}.{ZONE}" for category in categories}
    exports = world.base / "exports"
    exports.mkdir()
    own = lab.folder if way == "rfc2136" else exports
    files = {origin: own / f"dns-{category}" for category, origin in origins.items()}
    for path in (own / "other", *files.values()):
        path.write_text(EMPTY)
    keys: dict[str, object] = {"split": "category", "options": {"origin": ZONE, "version": "none"}}
    if way == "knot":
        more = "".join(
            f'  - domain: {origin}\n    file: "{path}"\n    zonefile-sync: -1\n    zonefile-load: difference\n'
            f"    journal-content: changes\n    acl: resolvers\n"
            for origin, path in files.items()
        )
        served = primaries.knot(lab, own / "other", driver.CONF.joinpath("primary-knot.conf").read_text() + more)
        keys |= {"delivery": "knot", "socket": str(served.socket)}
    elif way == "rfc2136":
        served = primaries.bind(lab, own / "other", 'allow-update { key "rpz-key"; };', files)
        keys |= {"delivery": "rfc2136", "tsig": "rpz-key"}
    else:
        served = primaries.bind(lab, own / "other", "ixfr-from-differences yes;", files)
        keys |= {"reload": [*served.rndc(), "reload", "{origin}"]}
    delivered(world, served, **keys)
    world.run("deny", "add", "ordered.example", "--reason", "an order")
    first = update(world)
    assert "3 of 3 zones delivered" in str(first["note"])
    for category, origin in origins.items():
        assert served.serial(origin) == first["serial"]
        assert served.records(origin) == in_file(world, f"dns-{category}")
    assert "phish.example CNAME ." in served.records(origins["phishing"])
    assert "ordered.example CNAME ." in served.records(origins["rule"])
    assert update(world)["note"] == ""

    world.lines("a", [*MANY[5:], "new.example"])
    second = update(world)
    assert "3 of 3 zones delivered" in str(second["note"]) and "drifted" not in str(second["note"])
    assert served.records(origins["malware"]) == in_file(world, "dns-malware")
    probed = world.run("probe", "--json")
    assert probed.code == 0, probed.text
    reports = [json.loads(line) for line in probed.out.splitlines()][:-1]
    assert [(r["part"], r["served"], r["state"]) for r in reports] == [
        (category, second["serial"], "ok") for category in ("malware", "phishing", "rule")
    ]
    if way == "file":
        return
    # One that drifted is mended alone.
    kept = next(p for p in (world.state / "delivery").iterdir() if len(zones.read(p).lines) > 2_900)
    assert set(zones.read(kept).lines) == set(zones.read(exports / "dns-malware").lines)
    if way == "rfc2136":
        message = dns.update.UpdateMessage(origins["malware"])
        message.use_tsig(dns.tsig.Key("rpz-key", SECRET, "hmac-sha256"))
        message.add("stray", 300, "CNAME", ".")
        dns.query.tcp(message, "127.0.0.1", 5, served.port)
        ran = world.update()
        assert ran.code == 0 and "stray CNAME ." not in served.records(origins["malware"])
        assert len({served.serial(origin) for origin in origins.values()}) == 1


def test_a_primary_that_drifted_is_mended(pair: tuple[World, Served]) -> None:
    world, served = pair
    release = update(world)
    tamper(served, remove="h00007.evil.example", serial=int(str(release["serial"])) + 5)
    assert "h00007.evil.example CNAME ." not in served.records()
    # Nothing changed in the feeds: the run finds the later serial and writes above it.
    mended = update(world)
    assert "the primary serves a later serial" in str(mended["note"]) and "whole" in str(mended["note"]), mended
    assert served.serial() == mended["serial"] and served.records() == in_file(world)


def tamper(served: Served, *, remove: str, serial: int) -> None:
    """Somebody else's change on the primary."""
    soa = "localhost. hostmaster.localhost. {} 900 500 2419200 60"
    if served.control:
        change = dns.update.UpdateMessage(ZONE, keyring=dns.tsig.Key("rpz-key", SECRET, "hmac-sha256"))
        change.delete(remove)
        change.add("@", 300, "SOA", soa.format(serial))
        assert dns.query.tcp(change, "127.0.0.1", 5, served.port).rcode() == 0
        return
    # Knot 3.4 takes no change that leaves the serial: all the way around (RFC 1982) it only rises.
    around = [(serial + 2**31 - 1) % 2**32, (serial - 2) % 2**32] if serial == served.serial() else []
    with knot.Control(served.socket, "test", time.monotonic() + 5) as control:
        for step in (*around, serial):
            control.run("zone-begin", zone=ZONE)
            if step == serial:
                control.run("zone-unset", zone=ZONE, owner=remove)
            control.run("zone-set", zone=ZONE, owner="@", ttl="300", type="SOA", data=soa.format(step))
            control.run("zone-commit", zone=ZONE)


def test_knot_that_lacks_a_record_gets_the_file_and_keeps_no_open_transaction(world: World, lab: driver.Lab) -> None:
    """The serial is ours, the content is not: only the records themselves show it."""
    path = world.base / "exports" / "dns"
    path.parent.mkdir(exist_ok=True)
    path.write_text(EMPTY)
    served = primaries.knot(lab, path)
    delivered(world, served, delivery="knot", socket=str(served.socket))
    serial = int(str(update(world)["serial"]))
    zone = dns.name.from_text(ZONE).to_text()
    change = zones.OwnerChange("no.example", [zones.Record("no.example", 300, "CNAME", ".")], [])
    soa = zones.with_serial(zones.read(path).soa, serial + 1)
    with knot.Control(served.socket, "test", time.monotonic() + 5) as control:
        for held, word in ((serial, "no such record"), (serial - 1, "another serial")):
            with pytest.raises(knot.Drifted, match=word):
                knot.send(control, zone, [change], held, soa, 300)
        assert any(u["type"] == "transaction" and u["data"] == "-" for u in control.run("zone-status", zone=zone))
    assert served.serial() == serial
    tamper(served, remove="h00002.evil.example", serial=serial)
    world.lines("a", MANY[5:])
    assert "loaded the whole file" in str(update(world)["note"])
    assert served.records() == in_file(world)


def test_an_update_that_lacks_its_serial_is_refused_by_bind(world: World, lab: driver.Lab) -> None:
    own = lab.folder / "own.zone"
    own.write_text(EMPTY)
    served = primaries.bind(lab, own, 'allow-update { key "rpz-key"; };')
    key = dns.tsig.Key("rpz-key", SECRET, "hmac-sha256")
    primary = Primary(parse_resolver(served.address), dns.name.from_text(ZONE), "test", key)
    change = zones.OwnerChange("evil.example", [], [zones.Record("evil.example", 300, "CNAME", ".")])
    soa = primary.soa()
    with pytest.raises(rfc2136.Drifted):
        rfc2136.send(primary, [change], zones.with_serial(soa, 7), zones.with_serial(soa, 9), time.monotonic() + 5)
    assert served.serial() == 1 and "evil.example CNAME ." not in served.records()
    assert rfc2136.send(primary, [change], soa, zones.with_serial(soa, 9), time.monotonic() + 5) == 1
    assert served.serial() == 9 and "evil.example CNAME ." in served.records()


def test_a_file_is_served_before_the_run_ends(world: World, lab: driver.Lab) -> None:
    path = world.base / "exports" / "dns"
    path.parent.mkdir(exist_ok=True)
    path.write_text(EMPTY)
    served = primaries.bind(lab, path, "ixfr-from-differences yes;")
    delivered(world, served, reload=[*served.rndc(), "reload", ZONE])
    first = update(world)
    assert served.serial() == first["serial"] and "loaded the whole file, served after" in str(first["note"])
    assert update(world)["note"] == ""
    # rndc says 0 for a zone that is refused; the serial tells.
    world.export("dns", "rpz", **{**world.exports["dns"], "reload": ["true"], "delivery_timeout": "1s"})
    world.lines("a", MANY[1:])
    ran = world.update()
    assert ran.code == 4 and f"still serves serial {first['serial']}, not" in ran.export("dns")["error"]
    assert world.run("status", "--json").json["exports"][0]["state"] == "not loaded"
    world.export("dns", "rpz", **{**world.exports["dns"], "reload": [*served.rndc(), "reload", ZONE]})
    assert update(world)["outcome"] != "failed" and served.records() == in_file(world)


def test_a_primary_that_is_silent_while_it_loads_is_waited_for(world: World, lab: driver.Lab) -> None:
    path = world.base / "exports" / "dns"
    path.parent.mkdir(exist_ok=True)
    path.write_text(EMPTY)
    served = primaries.bind(lab, path, "ixfr-from-differences yes;")
    pid, rndc = lab.processes[0].pid, " ".join([*served.rndc(), "reload", ZONE])
    later = f"sleep 7; kill -CONT {pid}; {rndc}"
    words = world.script("load", f"kill -STOP {pid}; setsid sh -c '{later}' >/dev/null 2>&1 &")
    delivered(world, served, reload=words)
    first = update(world)
    assert served.serial() == first["serial"] and "served after" in str(first["note"])


def test_what_can_not_be_delivered_is_told_and_tried_again(world: World, lab: driver.Lab) -> None:
    port = driver.free_port()
    world.export(
        "dns",
        "rpz",
        options={"origin": ZONE},
        delivery="rfc2136",
        primary=f"127.0.0.1:{port}",
        tsig="rpz-key",
        delivery_timeout="5s",
    )
    ran = world.update()
    assert ran.code == 4 and f"primary 127.0.0.1:{port}" in ran.export("dns")["error"]
    assert (world.base / "exports" / "dns").exists()
    own = lab.folder / "own.zone"
    own.write_text(EMPTY)
    served = primaries.bind(lab, own, 'allow-update { key "rpz-key"; };')
    world.export("dns", "rpz", **{**world.exports["dns"], "primary": served.address})
    key = world.base / "secrets" / "rpz-key"
    for text, words in (
        (TSIG.replace("rpz-key", "other"), "does not know the TSIG key"),
        (TSIG[:-8] + "AAAAAAA=", "signatures do not match"),
        ("nonsense", "not of the form"),
    ):
        key.write_text(text)
        ran = world.update()
        assert ran.code == 4 and words in ran.export("dns")["error"], ran.text
        assert SECRET not in ran.text
    key.write_text(TSIG)
    assert "delivered" in str(update(world)["note"]) and served.records() == in_file(world)
    world.export("dns", "rpz", **{**world.exports["dns"], "delivery": "knot", "socket": "nowhere.sock"})
    world.lines("a", MANY[1:])
    ran = world.update()
    assert ran.code == 4 and "nowhere.sock: no such file" in ran.export("dns")["error"]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"delivery": "knot"}, "export.dns.primary: is missing"),
        ({"delivery": "rsync"}, "export.dns.delivery"),
        ({"primary": "ns.example"}, "'ns.example' is not an IP address"),
        ({"primary": "192.0.2.53", "tsig": "hmac-sha256:a:b"}, "names a secret"),
        ({"tsig": "rpz-key"}, "goes with 'primary'"),
        ({"probe": ["everything"]}, "'everything' is not an IP address"),
        ({"primary": "192.0.2.53", "format": "hosts"}, "are for zones"),
    ],
)
def test_a_mistake_in_the_keys_of_delivery_is_told(world: World, keys: dict[str, object], words: str) -> None:
    world.export("dns", **{"fmt": "rpz", **keys} if "format" not in keys else keys)  # type: ignore[arg-type]
    ran = world.run("export")
    assert ran.code == 1 and words in ran.err, ran.text


def test_the_order_of_a_difference_never_blocks_what_stays_allowed() -> None:
    def of(owner: str, data: str, kind: str = "CNAME") -> zones.Record:
        return zones.Record(owner, 300, kind, data)

    order = zones.ordered(
        [of("old-allow", "rpz-passthru."), of("old-block", "."), of("version", '"1"', "TXT")],
        [of("version", '"2"', "TXT"), of("block", "."), of("allow", "rpz-passthru.")],
    )
    assert [change.owner for change in order] == ["allow", "block", "old-block", "old-allow", "version"]


@pytest.mark.parametrize(
    ("one", "other", "is_later"), [(2, 1, True), (1, 2, False), (5, 2**32 - 5, True), (7, 7, False)]
)
def test_serials_are_compared_in_a_circle(one: int, other: int, is_later: bool) -> None:
    assert zones.later(one, other) is is_later


def test_more_messages_than_serials_are_left_are_refused_before_anything_is_sent() -> None:
    primary = Primary(parse_resolver("192.0.2.1"), dns.name.from_text(ZONE), "export dns")
    changes = [zones.OwnerChange(f"h{i}", [], [zones.Record(f"h{i}", 300, "CNAME", ".")]) for i in range(9_000)]
    soa = "localhost. hostmaster.localhost. {} 900 500 2419200 60"
    with pytest.raises(ReleaseError, match="from 10 to 11 there are fewer"):
        rfc2136.send(primary, changes, soa.format(10), soa.format(11), time.monotonic() + 5)


def test_a_primary_at_the_last_serial_is_told_before_anything_is_written(world: World, lab: driver.Lab) -> None:
    own = lab.folder / "own.zone"
    own.write_text(EMPTY.replace(" 1 900", f" {2**32 - 2} 900"))
    served = primaries.bind(lab, own, 'allow-update { key "rpz-key"; };')
    delivered(world, served, delivery="rfc2136", tsig="rpz-key")
    ran = world.update()
    assert ran.code == 4 and "there is no room above it" in ran.export("dns")["error"], ran.text
    assert not (world.base / "exports" / "dns").exists()


def test_a_knot_whose_journal_is_full_is_told_and_served_again_when_there_is_room(
    world: World, lab: driver.Lab
) -> None:
    path = world.base / "exports" / "dns"
    path.parent.mkdir(exist_ok=True)
    path.write_text(EMPTY)
    conf = (driver.CONF / "primary-knot.conf").read_text() + "    journal-max-usage: 300K\n"
    served = primaries.knot(lab, path, conf)
    delivered(world, served, delivery="knot", socket=str(served.socket))
    first = update(world)
    world.set("gates", max_change=5.0)
    world.lines("a", names(12_000, zone="other.example"))
    ran = world.update()
    assert ran.code == 4 and "not enough space" in ran.export("dns")["error"], ran.text
    assert "journal-max-usage" in ran.export("dns")["hint"]
    assert served.serial() == first["serial"]  # the old zone, whole
    file = lab.folder / "primary-knot.conf"
    file.write_text(file.read_text().replace("300K", "100M"))
    with knot.Control(served.socket, "test", time.monotonic() + 5) as control:
        control.run("reload")  # of the configuration, and with it of the file
    deadline = time.monotonic() + 15
    while served.serial() != ran.export("dns")["serial"] and time.monotonic() < deadline:
        time.sleep(0.2)
    assert update(world)["serial"] == served.serial() and served.records() == in_file(world)
