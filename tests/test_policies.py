"""Policies for several audiences from one record: who may be told what, which guards count, and shadows."""

from __future__ import annotations

from pathlib import Path

import pytest
from installation import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_each_audience_gets_what_its_sources_allow_and_the_rest_is_counted(world: World) -> None:
    world.feed("open", ["open.example", "both.example"])
    world.feed("close", ["close.example", "both.example"], tlp="amber")
    world.feed("mine", ["mine.example"], redistribution="forbidden")
    rows = ["name,tlp", "told.example,clear", "green.example,TLP:GREEN", "red.example,red"]
    world.feed("rows", rows, format={"name": "csv", "value": "name", "tlp": "tlp"}, tlp="red")
    for audience in ("house", "clients", "partners", "public"):
        world.policies[audience] = {"audience": audience}
        world.export(audience, policy=audience)
    ran = world.update()
    assert ran.code == 0, ran.text
    public = {"open.example", "both.example", "told.example"}
    partners = public | {"green.example"}
    clients = partners | {"close.example"}
    assert set(world.exported("public")) == public
    assert set(world.exported("partners")) == partners
    assert set(world.exported("clients")) == clients
    assert set(world.exported("house")) == clients | {"mine.example", "red.example"}
    assert [ran.export(a)["lost"].get("audience", 0) for a in ("house", "clients", "partners", "public")] == [
        0,
        2,
        3,
        4,
    ]
    told = {e["name"]: e["because"] for e in world.why("close.example")["exports"]}
    assert "marks it TLP:AMBER, and the policy is for partners" in told["partners"]
    told = {e["name"]: e["because"] for e in world.why("mine.example")["exports"]}
    assert "feed mine forbids passing it on, and the policy is for public" in told["public"]


def test_what_is_held_is_not_counted_as_kept_back(world: World) -> None:
    world.feed("close", ["bank.test", "evil.test"], tlp="red")
    world.feed("open", ["open.test"])
    world.feed("top", ["bank.test"], category="reference")
    world.policies["out"] = {"audience": "public"}
    world.export("list", policy="out")
    assert world.update().export("list")["lost"]["audience"] == 1


def test_what_is_counted_stays_right_when_only_changes_are_decided(world: World) -> None:
    world.feed("close", [f"n{i}.example" for i in range(50)], tlp="red")
    world.feed("open", [f"o{i}.example" for i in range(50)])
    world.policies["out"] = {"audience": "public"}
    world.export("list", "hosts", policy="out")
    assert world.update().export("list")["lost"]["audience"] == 50
    world.lines("close", [f"n{i}.example" for i in range(3, 50)])
    world.lines("open", [f"o{i}.example" for i in range(49)])
    assert world.update().export("list")["lost"]["audience"] == 47


def test_guards_of_a_category_are_those_that_the_policy_names(world: World) -> None:
    world.feed("ads", ["tracker.test", "cdn.test", "portal.test"], category="advertising", format="wildcard")
    world.feed("bad", ["tracker.test", "portal.test", "www.shop.test"])
    world.feed("top", ["tracker.test", "x.cdn.test", "shop.test"], category="reference")
    world.feed("core", ["www.portal.test"], category="reference")
    world.set("protect", domains=["mine.test"])
    world.policies["strict"] = {"categories": ["advertising", "malware"]}
    world.policies["lax"] = {"categories": ["advertising", "malware"], "guards": {"advertising": ["core"]}}
    world.policies["none"] = {"categories": ["advertising", "malware"], "guards": {"advertising": [], "malware": []}}
    for name in world.policies:
        world.export(name, "squid", policy=name, allow_empty=True)

    def entries(name: str) -> set[str]:
        return {line for line in world.exported(name) if not line.startswith("#")}

    assert world.update().code == 0
    assert entries("strict") == {"portal.test"}
    # tracker.test stands by its advertising list alone; portal.test would cover www.portal.test of core.
    assert entries("lax") == {".cdn.test", ".tracker.test", "portal.test"}
    assert entries("none") == {".cdn.test", ".tracker.test", ".portal.test", "www.shop.test"}
    told = {e["name"]: e for e in world.why("tracker.test")["exports"]}
    assert not told["strict"]["blocked"] and told["lax"]["blocked"] and told["none"]["blocked"]
    told = {e["name"]: e for e in world.why("x.cdn.test")["exports"]}
    assert not told["strict"]["blocked"] and told["lax"]["blocked"]
    told = {e["name"]: e for e in world.why("z.portal.test")["exports"]}
    assert not told["lax"]["blocked"] and told["none"]["blocked"]
    # A reference that changes acts at the next update, also on what is only brought up to date.
    world.lines("core", ["www.portal.test", "tracker.test"])
    assert world.update().code == 0
    assert entries("lax") == {".cdn.test", "portal.test"} and ".tracker.test" in entries("none")


def test_what_any_category_withholds_is_not_said_wider_for_another(world: World) -> None:
    # The target knows subtrees alone: x.shop.test stands by its advertising list, all below it by nobody.
    world.feed("ads", ["x.shop.test", "y.shop.test"], category="advertising")
    world.feed("bad", ["x.shop.test"])
    world.feed("top", ["x.shop.test"], category="reference")
    world.policies["lax"] = {"categories": ["advertising", "malware"], "guards": {"advertising": []}}
    world.export("masq", "dnsmasq", policy="lax")
    world.export("list", "domains", policy="lax")
    assert world.update().code == 0
    assert world.exported("list") == ["x.shop.test", "y.shop.test"]
    text = "\n".join(world.exported("masq"))
    assert "y.shop.test" in text and "x.shop.test" not in text
    told = {e["name"]: e["blocked"] for e in world.why("x.shop.test")["exports"]}
    assert told == {"list": True, "masq": False}


@pytest.mark.parametrize(
    ("guards", "said"),
    [
        ({"advertising": ["nothing"]}, "policy.default.guards.advertising"),
        ({"advertising": ["bad"]}, "bad is no reference feed, so it guards nothing"),
        ({"advertisin": []}, "advertising"),
    ],
)
def test_guards_that_can_not_be_meant_are_refused(world: World, guards: dict[str, list[str]], said: str) -> None:
    world.feed("bad", ["a.example"])
    world.policies["default"] = {"guards": guards}
    world.write()
    ran = world.run("status")
    assert ran.code != 0 and said in ran.err


def test_a_shadow_policy_decides_and_explains_and_writes_nothing(world: World) -> None:
    world.feed("bad", ["evil.example", "other.example"])
    world.policies["trial"] = {"mode": "shadow"}
    path = world.export("list", policy="trial")
    ran = world.update()
    assert ran.code == 0 and not path.exists()
    assert ran.export("list")["outcome"] == "shadow" and ran.export("list")["entries"] == 2
    assert "in shadow mode: decided, not written" in ran.export("list")["note"]
    assert "shadow" in world.run("status").out
    (told,) = world.why("evil.example")["exports"]
    assert not told["blocked"] and told["pending"] is None
    assert "it would block it, and writes nothing" in told["because"]
    (told,) = world.why("good.example")["exports"]
    assert "it would not block it" in told["because"]
    assert world.rows("SELECT count(*) FROM release") == [(0,)]
    # What was published before stays in place, and why still speaks of the file.
    world.policies["trial"] = {}
    world.write()
    assert world.update().code == 0 and len(world.exported("list")) == 2
    world.policies["trial"] = {"mode": "shadow"}
    world.lines("bad", ["evil.example"])
    world.write()
    ran = world.update()
    assert "stays in place" in ran.export("list")["note"] and len(world.exported("list")) == 2
    (told,) = world.why("other.example")["exports"]
    assert told["blocked"] and "in shadow mode" in told["because"]


def test_logs_are_replayed_over_a_policy_in_shadow_and_the_guards_that_it_names(world: World) -> None:
    world.feed("ads", ["tracker.test"], category="advertising")
    world.feed("top", ["tracker.test"], category="reference")
    world.policies["trial"] = {"categories": ["advertising"], "guards": {"advertising": []}, "mode": "shadow"}
    world.policies["strict"] = {"categories": ["advertising"]}
    for name in ("trial", "strict"):
        world.export(name, "hosts", policy=name, allow_empty=True)
    world.update()
    log = world.base / "log"
    log.write_text("tracker.test\nother.test\n")
    ran = world.run("match", log, "--form", "lines", "--json")
    lists = {row["list"]: (row["kind"], row["names"]) for row in ran.json["lists"]}
    assert lists["trial"] == ("shadow", 1) and lists["strict"][1] == 0 and ran.json["blocked_names"] == 0


@pytest.mark.parametrize("fmt", ["csv", "jsonl"])
def test_a_list_for_partners_tells_nothing_of_listings_that_are_not_for_them(world: World, fmt: str) -> None:
    world.feeds.clear()
    world.exports.clear()
    table = {"name": "csv", "value": "domain", "category": "kind"}
    world.feed("open", "domain,kind\nevil.example,phishing\n", format=table, tlp="clear")
    world.feed("secret", ["evil.example"], category="c2", confidence=95, tlp="red")
    world.feed("trial", ["evil.example"], mode="shadow", confidence=95)
    world.policies["given"] = {"categories": ["phishing", "c2", "malware"], "audience": "partners"}
    world.export("given", fmt, policy="given")
    world.update()
    text = "\n".join(world.exported("given"))
    assert "evil.example" in text and "phishing" in text and "open" in text
    assert not any(word in text for word in ("secret", "c2", "trial", "malware"))
