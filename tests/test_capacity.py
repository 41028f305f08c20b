"""Lists that are longer than the target takes: held, or the best of them; never cut in silence."""

from __future__ import annotations

import io
import re
from ipaddress import ip_address, ip_network
from pathlib import Path

import msgspec
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from installation import World, names

from blocklist.config import Export
from blocklist.publish import capacity, left_out
from blocklist.publish.descriptor import Model, builtin
from blocklist.publish.render import render
from blocklist.publish.selection import Selection

FORMATS = builtin()


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.feed("sure", names(40), confidence=95)
    world.feed("fair", names(40, 100), confidence=70)
    world.feed("poor", names(40, 200), confidence=55)
    return world


@pytest.mark.parametrize("limit", [{"max_entries": 119}, {"max_bytes": "2kB"}])
def test_a_list_that_is_too_long_is_held_with_the_way_out(world: World, limit: dict[str, object]) -> None:
    world.export("list", **limit)
    world.export("other")
    ran = world.update()
    assert ran.code == 4 and ran.export("list")["outcome"] == "held"
    assert "more than the" in ran.export("list")["error"] and "fit" in ran.export("list")["hint"]
    assert not any("release approve" in way for way in ran.export("list")["plan"]["ways"])
    assert not (world.base / "exports" / "list").exists()
    assert ran.export("other")["outcome"] == "published"
    assert world.run("release", "approve", "list").code == 4
    assert not (world.base / "exports" / "list").exists(), "a person's word makes no device larger"
    world.exports["list"].update(max_entries=120, max_bytes="1MB")
    world.write()
    assert world.update().export("list")["outcome"] == "published"


def test_the_best_are_kept_and_what_was_cut_is_told(world: World) -> None:
    world.export("list", max_entries=60, fit="rank")
    world.export("other")
    world.run("deny", "add", "ordered.example", "--reason", "an order")
    ran = world.update()
    assert ran.code == 0 and ran.export("list")["lost"]["cut"] == 61
    listed = world.exported("list")
    assert len(listed) == 60 and set(names(40)) < set(listed) and "ordered.example" in listed
    assert len(set(names(40, 100)) & set(listed)) == 19 and not set(names(40, 200)) & set(listed)
    assert ran.export("list")["entries"] == 60
    number = ran.export("list")["release"]
    shown = world.run("release", "show", number)
    assert "h00200.evil.example" not in shown.out and "56 more; --left-out names all" in shown.out
    whole = world.run("release", "show", number, "--left-out")
    assert "h00200.evil.example: cut by capacity" in whole.out
    assert world.run("release", "show", number, "--json").json["left_out"] == 61

    mine, theirs = world.why("h00210.evil.example")["exports"]
    assert not mine["blocked"] and "cut by capacity" in mine["because"] and "60 entries" in mine["because"]
    assert theirs["blocked"]
    assert world.why("h00010.evil.example")["exports"][0]["blocked"]
    assert world.update().export("list")["outcome"] == "unchanged"


def test_what_a_cut_entry_covered_is_told_too(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.feed("sure", names(3), confidence=95)
    world.feed("poor", ["wide.example", "deep.wide.example"], confidence=55)
    world.feed("nets", ["192.0.2.0/25", "192.0.2.128/25", "203.0.113.0/24"], confidence=60)
    world.export("list", "unbound", max_entries=3, fit="rank")
    world.export("fw", "cidr", max_entries=1, fit="rank")
    world.update()
    for name in ("wide.example", "a.wide.example", "deep.wide.example"):
        export = world.why(name)["exports"][0]
        assert not export["blocked"] and "cut by capacity" in export["because"], name
    (kept,) = [line for line in world.exported("fw") if not line.startswith("#")]
    assert kept == "192.0.2.0/24"
    gone = world.why("203.0.113.9")["exports"][1]
    assert not gone["blocked"] and "cut by capacity" in gone["because"]
    assert world.why("192.0.2.200")["exports"][1]["blocked"]


def test_of_networks_that_lie_in_each_other_what_was_not_cut_still_blocks(tmp_path: Path) -> None:
    """By list of each direction, by piece that an allow left, by row of a list for people."""
    world = World(tmp_path)
    world.feed("in", ["192.0.2.0/24"], confidence=60, direction="inbound")
    world.feed("out", ["192.0.2.64/26"], confidence=95, direction="outbound")
    world.feed("all", ["203.0.113.7", "203.0.113.128/25"], confidence=99, direction="both")
    world.feed("poor", ["203.0.113.0/24", "198.51.100.0/24"], confidence=55, direction="both")
    world.run("allow", "add", "198.51.100.77", "--reason", "x")
    world.export("fw", "nftables", max_entries=1, fit="rank")
    world.export("sets", "ipset", max_entries=7, fit="rank")
    world.export("nets", "cidr", max_entries=6, fit="rank")
    world.export("people", "csv", max_entries=2, fit="rank")
    world.export("more", "csv", max_entries=5, fit="rank")
    assert world.update().code == 0
    asked = [f"{net}.{i}" for net in ("192.0.2", "198.51.100", "203.0.113") for i in (1, 7, 70, 76, 77, 78, 127, 129)]
    for what in asked:
        told = {e["name"]: e["blocked"] for e in world.why(what)["exports"]}
        for export in world.exports:
            found = re.findall(r"\d+\.\d+\.\d+\.\d+(?:/\d+)?", "\n".join(world.exported(export)))
            within = any(ip_address(what) in ip_network(text) for text in found)
            assert told[export] == within, (what, export, world.exported(export))
    release = world.rows("SELECT id FROM release WHERE export = 'fw'")[0][0]
    text = world.run("release", "show", release, "--left-out").out
    assert re.search(r"192\.0\.2\.0/24: cut by capacity: .* 1 entries, inbound\n", text)
    assert re.search(r"198\.51\.100\.128/25: cut by capacity: .* 1 entries, both ways\n", text)


def test_of_equal_confidence_the_newest_stay_then_those_that_answer(world: World) -> None:
    world.feed("fair", names(40, 100), confidence=95)
    world.feed("poor", [], confidence=95)
    world.update("--no-export")
    world.lines("sure", [*names(40), "zz-new.evil.example"])
    world.update("--no-export")
    world.change(
        "INSERT INTO verdict (name, status, since, checked, run) VALUES (?, 'live', '', '', 1)", "h00139.evil.example"
    )
    world.change(
        "INSERT INTO verdict (name, status, since, checked, run) VALUES (?, 'nxdomain', '', '', 1)",
        "h00000.evil.example",
    )
    world.export("list", max_entries=80, fit="rank")
    ran = world.run("export", "--json")
    assert ran.export("list")["lost"] == {"cut": 1}, ran.text
    assert "zz-new.evil.example" in world.exported("list") and "h00000.evil.example" not in world.exported("list")
    world.exports["list"]["max_entries"] = 2
    world.write()
    world.set("gates", max_change=2.0)
    world.run("export")
    assert world.exported("list") == ["h00139.evil.example", "zz-new.evil.example"]


def test_allows_are_never_cut_and_where_only_they_are_too_many_it_is_held(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.feed("a", names(10))
    world.feed("wide", ["evil.example"], confidence=99)
    for i in range(3):
        world.run("allow", "add", f"good{i}.evil.example", "--reason", "x")
    world.export("dns", "rpz", max_entries=8, fit="rank", options={"version": "none"})
    assert world.update().code == 0
    text = "\n".join(world.exported("dns"))
    assert text.count("rpz-passthru") == 6 and "\nevil.example CNAME ." in text
    world.exports["dns"]["max_entries"] = 5
    world.write()
    ran = world.update()
    assert ran.code == 4 and ran.export("dns")["outcome"] == "held"


def test_the_model_of_a_device_says_how_much_it_takes(world: World) -> None:
    text = 'title = "x"\nkinds = ["domain"]\nexact = "{name}"\nmax_entries = 50\n'
    world.exporter("mine", text + "[models.big]\nmax_entries = 200\n[models.tiny]\nmax_bytes = 100\n")
    world.export("plain", "mine")
    world.export("big", "mine", model="big")
    world.export("tiny", "mine", model="tiny")
    world.export("own", "mine", model="tiny", max_entries=500, max_bytes="1MB")
    ran = world.update()
    assert {e["name"]: e["outcome"] for e in ran.json["exports"]} == {
        "plain": "held",
        "big": "published",
        "tiny": "held",
        "own": "published",
    }
    assert "mine (model tiny)" in ran.export("tiny")["error"] and "50" in ran.export("plain")["error"]
    assert "model     big: 200 entries" in world.run("formats", "show", "mine").out
    world.exports["big"]["model"] = "bigg"
    world.write()
    ran = world.run("update")
    assert ran.code == 1 and "bigg" in ran.err and "did you mean 'big'" in ran.err


def test_every_model_of_the_package_is_within_reach() -> None:
    models = {(f.name, name): model for f in FORMATS.values() for name, model in f.models.items()}
    assert models
    for (name, model), takes in models.items():
        limits = capacity.limits(Export(format=name, path="-", model=model), FORMATS[name])
        assert limits.entries == (takes.max_entries or FORMATS[name].max_entries)
        assert limits.source == f"{name} (model {model})"


@given(
    st.lists(st.integers(1, 60), min_size=2, max_size=60, unique=True),
    st.integers(1, 80),
    st.integers(10, 2000),
)
def test_what_is_kept_fits_is_the_best_and_nearly_fills(sizes: list[int], most: int, size: int) -> None:
    entries = [f"{'x' * n}.example" for n in sorted(sizes)]
    domains = pl.DataFrame({"name": entries}).with_columns(subtree=pl.lit(False), block=pl.lit(True)).sort("name")
    ranks = pl.DataFrame({"name": entries}).with_row_index("rank")
    fmt = FORMATS["domains"]
    limits = capacity.Limits(most, size, "it")

    def draw(selection: Selection, out: object) -> capacity.Rendered:
        return render(fmt, selection, {}, out)  # type: ignore[arg-type]

    whole = Selection(domains=domains)
    rendered = draw(whole, io.BytesIO())
    if limits.excess(rendered) is None:
        return
    fitted = capacity.fit(whole, ranks, limits, rendered, draw)
    assert fitted is not None
    stay = fitted.selection.domains["name"].to_list()
    assert sorted(stay) == stay and set(stay) | set(fitted.cut["name"]) == set(entries)
    assert set(stay) == set(entries[: len(stay)])
    assert limits.excess(draw(fitted.selection, io.BytesIO())) is None
    more = Selection(domains=domains.filter(pl.col("name").is_in(entries[: len(stay) + 1])))
    near = limits.share(draw(fitted.selection, io.BytesIO())) >= 0.99
    assert near or limits.excess(draw(more, io.BytesIO())) is not None


def test_reasons_are_found_by_whole_names_only() -> None:
    frame = pl.DataFrame({"name": ["b.example", "a.b.example", "192.0.2.0/24"], "why": ["x", "y\tz\n", "w"]})
    data = left_out.text(frame)
    assert left_out.said(data, "b.example") == ["x"] and left_out.said(data, "192.0.2.0/24") == ["w"]
    assert left_out.said(data, "a.b.example") == ["y?z?"]
    assert left_out.said(data, "example") == [] and left_out.said(data, ".example") == []


def test_a_model_is_a_table_of_known_keys() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"max_entrys": 1}, Model)


def test_what_a_person_denies_is_not_cut_with_the_wider_entry_that_covers_it(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.feed("sure", [*names(3), *(f"198.51.100.{i}" for i in (1, 3, 5))], confidence=95)
    world.feed("poor", ["wide.example", "poor.example", "192.0.2.0/24", "203.0.113.0/24"], confidence=55)
    world.export("list", "squid", max_entries=2, fit="rank")
    world.export("fw", "cidr", max_entries=2, fit="rank")
    for what in ("deep.wide.example", "192.0.2.9"):
        assert world.run("deny", "add", what, "--reason", "an order").code == 0
    world.update()
    assert ".wide.example" in world.exported("list") and "192.0.2.0/24" in world.exported("fw")
    assert world.why("deep.wide.example")["exports"][0]["blocked"] and world.why("192.0.2.9")["exports"][1]["blocked"]


def test_an_entry_stands_by_itself_beside_a_cut_name_alone_and_below_an_allow(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.feed("sure", ["a.wide.example"], confidence=95)
    world.feed("poor", ["wide.example", "other.example"], confidence=55)
    for action, what in (("allow", "x.wide.example"), ("allow", "b.other.example"), ("deny", "c.b.other.example")):
        assert world.run(action, "add", what, "--reason", "seen").code == 0
    world.export("list", "squid", max_entries=2, fit="rank")
    world.export("dns", "rpz", max_entries=7, fit="rank")
    world.update()
    assert world.exported("list")[1:] == [".c.b.other.example", "a.wide.example"]
    owners = [line.split()[0] for line in world.exported("dns") if " CNAME " in line]
    assert "c.b.other.example" in owners and "other.example" not in owners
    assert world.why("a.wide.example")["exports"][0]["blocked"]
    assert all(said["blocked"] for said in world.why("z.c.b.other.example")["exports"])
    assert not any(said["blocked"] for said in world.why("other.example")["exports"])


def test_of_networks_in_each_other_of_which_parts_are_cut_out_why_knows_which_rows_are_left(tmp_path: Path) -> None:
    """A listed network has a row; of one with a hole the pieces have; a piece is as good as what it is a piece of."""
    world = World(tmp_path)
    world.feed("top", ["192.0.2.77"], category="reference")
    world.feed("sure", ["192.0.2.64/26", "192.0.2.32/28", "198.51.100.1"], confidence=95, direction="both")
    world.feed("fair", ["192.0.2.0/25", "192.0.2.80/29", "192.0.2.96/28"], confidence=80, direction="both")
    world.feed("poor", ["192.0.2.0/24", "192.0.2.40/29", "192.0.2.104/30"], confidence=60, direction="both")
    world.run("allow", "add", "192.0.2.200", "--reason", "x")
    for most in range(1, 16):
        world.export(f"people{most}", "csv", max_entries=most, fit="rank")
        world.export(f"nets{most}", "cidr", max_entries=most, fit="rank")
    assert world.update().code == 0
    files = {}
    for export in world.exports:
        found = re.findall(r"\d+\.\d+\.\d+\.\d+(?:/\d+)?", "\n".join(world.exported(export)))
        files[export] = [ip_network(text) for text in found]
    assert ip_network("192.0.2.78/31") in files["people6"] and ip_network("192.0.2.104/30") not in files["people6"]
    for last in (1, 33, 41, 65, 76, 77, 78, 81, 97, 105, 111, 127, 130, 199, 200, 201):
        what = f"192.0.2.{last}"
        for said in world.why(what)["exports"]:
            within = any(ip_address(what) in network for network in files[said["name"]])
            assert said["blocked"] == within, (what, said, files[said["name"]])


def test_what_a_person_denies_is_not_cut_with_the_row_that_covers_it(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.feed("sure", [f"198.51.100.{i}" for i in (1, 3, 5)], confidence=95)
    world.feed("poor", ["192.0.2.0/24", "203.0.113.0/24"], confidence=55)
    world.export("people", "csv", max_entries=2, fit="rank")
    assert world.run("deny", "add", "192.0.2.9", "--reason", "an order").code == 0
    world.update()
    assert any(line.startswith("192.0.2.0/24,") for line in world.exported("people"))
    assert world.why("192.0.2.9")["exports"][0]["blocked"]


def test_what_is_cut_of_a_file_that_stays_as_it_is_waits_for_no_release(tmp_path: Path) -> None:
    """What comes behind the best changes no file; the release knows what it left out all the same."""
    world = World(tmp_path)
    world.feed("sure", ["best.example", "192.0.2.1"], confidence=95)
    world.feed("poor", [], confidence=55)
    for name, fmt in (("list", "domains"), ("fw", "cidr"), ("people", "csv")):
        world.export(name, fmt, max_entries=2 if fmt == "csv" else 1, fit="rank")
    assert world.update().code in (0, 3)
    for later in (["late.example", "192.0.2.9"], ["later.example", "198.51.100.0/28"]):
        world.lines("poor", later)
        ran = world.update()
        assert ran.code == 0 and {e["outcome"] for e in ran.json["exports"]} == {"unchanged"}, ran.text
        for what in later:
            for said in world.why(what)["exports"]:
                assert not said["blocked"] and said["pending"] is None, (what, said)
                assert "cut by capacity" in said["because"] or "holds no" in said["because"], (what, said)
        names = world.base / "names.txt"
        names.write_text("\n".join(["best.example", "192.0.2.1", later[0], "192.0.2.9"]) + "\n")
        lists = {x["list"]: x["names"] for x in world.run("match", names, "--json").json["lists"]}
        assert lists == {"list": 1, "fw": 1, "people": 2}, lists
    assert world.left_over() == []
    assert len(world.rows("SELECT 1 FROM release")) == 3


def test_what_was_cut_wide_and_is_cut_alone_of_the_same_file_covered_what_is_below_it(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.feed("sure", ["best.test"], confidence=95)
    world.feed("poor", ["evil.example", "*.www.evil.example"], confidence=55, format="wildcard")
    world.export("list", "squid", max_entries=1, fit="rank")
    assert world.update().code == 0 and world.exported("list")[1:] == [".best.test"]
    assert world.run("allow", "add", "www.evil.example", "--reason", "r").code == 0
    assert world.update().export("list")["outcome"] == "unchanged"
    for what in ("evil.example", "www.evil.example", "z.www.evil.example"):
        said = world.why(what)["exports"][0]
        assert not said["blocked"] and said["pending"] is None, (what, said)
    (number,) = world.rows("SELECT id FROM release")[0]
    assert world.run("release", "show", number, "--json").json["left_out"] == 1


def test_below_an_allow_that_a_target_can_only_say_wider_an_entry_stands_by_itself(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.feed("sure", ["c.b.a.evil.example"], confidence=95)
    world.feed("poor", ["evil.example", "other.test"], confidence=55)
    assert world.run("allow", "add", "a.evil.example", "--exact", "--reason", "r").code == 0
    world.export("list", "unbound", max_entries=2, fit="rank")
    assert world.update().code == 0
    assert sum('"c.b.a.evil.example."' in line for line in world.exported("list")) == 1
    assert world.why("c.b.a.evil.example")["exports"][0]["blocked"]
    assert not world.why("evil.example")["exports"][0]["blocked"]
