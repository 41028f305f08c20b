"""Feeds that are documents: MISP events and feeds, STIX bundles, TAXII collections; each through `update` and `why`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engines import driver
from feedserver import FeedServer, Talk
from installation import World

from blocklist.catalog import Feed, InputFormat
from blocklist.errors import FeedError
from blocklist.ingest.formats.pattern import Alternatives, alternatives
from blocklist.ingest.loopback import LoopbackServer, Page
from blocklist.ingest.parse import Parsed, parse
from blocklist.names import Reject

DEEP = b"[" * 100_000
HUGE = "x" * 5_000_000


def uuid(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012x}"


def attribute(kind: str, value: str, **keys: Any) -> dict[str, Any]:
    return {"uuid": uuid(hash((kind, value)) & 0xFFFF), "type": kind, "value": value, "to_ids": True, **keys}


def event(number: int, *attributes: dict[str, Any], timestamp: int = 1, **keys: Any) -> dict[str, Any]:
    inside = {"uuid": uuid(number), "info": f"Campaign {number}", "date": "2026-11-01", "timestamp": str(timestamp)}
    return {"Event": {**inside, "Attribute": list(attributes), **keys}}


def indicator(number: int, pattern: str, **keys: Any) -> dict[str, Any]:
    return {
        "type": "indicator",
        "spec_version": "2.1",
        "id": f"indicator--{uuid(number)}",
        "created": "2026-11-01T00:00:00.000Z",
        "modified": "2026-11-01T00:00:00.000Z",
        "pattern": pattern,
        "pattern_type": "stix",
        "valid_from": "2026-11-01T00:00:00Z",
        **keys,
    }


def bundle(*objects: object) -> dict[str, Any]:
    return {"type": "bundle", "id": f"bundle--{uuid(1)}", "objects": list(objects)}


def read(document: object, name: str = "misp", **options: Any) -> Parsed:
    data = document if isinstance(document, bytes) else json.dumps(document, indent=1).encode()
    feed = Feed(id="f", title="f", url="file:f", category="malware", format=InputFormat(name=name, **options))
    parsed = parse(data, feed)
    assert sum(parsed.kinds.values()) + sum(parsed.rejects.values()) - parsed.extra + parsed.comments == parsed.lines
    return parsed


def named(parsed: Parsed) -> list[str]:
    return parsed.frame["name"].to_list()


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.export("list", allow_empty=True)
    return made


# MISP


def test_a_misp_event_lists_what_is_marked_for_detection() -> None:
    parsed = read(
        event(
            1,
            attribute("domain", "evil.example"),
            attribute("hostname", "host.evil.example"),
            attribute("ip-src", "192.0.2.1"),
            attribute("ip-dst", "2001:db8::1"),
            attribute("ip-dst|port", "192.0.2.2|443"),
            attribute("domain|ip", "both.example|192.0.2.3"),
            attribute("hostname|port", "c2.example|8080"),
            attribute("url", "http://evil.example/path"),
            attribute("domain", "unmarked.example", to_ids=False),
            attribute("domain", "deleted.example", deleted=True),
            attribute("domain", "deleted-as-text.example", deleted="1"),
            attribute("md5", "d41d8cd98f00b204e9800998ecf8427e"),
            {"type": "domain", "value": {"not": "text"}, "to_ids": True},
            Object=[
                {"name": "domain-ip", "Attribute": [attribute("domain", "object.example")]},
                {"name": "gone", "deleted": True, "Attribute": [attribute("domain", "gone.example")]},
            ],
        )
    )
    assert named(parsed) == sorted(
        [
            "//evil.example/path",
            "192.0.2.1",
            "192.0.2.2",
            "192.0.2.3",
            "2001:db8::1",
            *("both.example", "c2.example", "evil.example", "host.evil.example", "object.example"),
        ]
    )
    assert parsed.comments == 4 and parsed.rejects == {Reject.SYNTAX: 1, Reject.UNSUPPORTED: 1}
    # Fifteen attributes, of which one names two things.
    assert (parsed.lines, parsed.extra, parsed.accepted) == (15, 1, 10)


def test_to_ids_may_be_ignored() -> None:
    document = event(1, attribute("domain", "unmarked.example", to_ids=False))
    assert named(read(document)) == [] and named(read(document, to_ids=False)) == ["unmarked.example"]


def test_every_listing_leads_to_the_line_of_its_attribute() -> None:
    document = event(1, *(attribute("domain", f"h{i}.example", comment='says "value": "x"') for i in range(50)))
    for data in (json.dumps(document, indent=2).encode(), json.dumps(document).replace("}, {", "},\n{").encode()):
        lines = data.decode().split("\n")
        frame = read(data).frame
        assert frame.height == 50
        for name, line in frame.select("name", "line").iter_rows():
            assert f'"value": "{name}"' in lines[line - 1]


def test_a_row_of_misp_keeps_what_the_event_and_its_tags_say() -> None:
    tags = [{"name": "tlp:green"}, {"name": 'misp:confidence-level="usually-confident"'}]
    own = attribute(
        "domain", "evil.example", comment="lure", last_seen="2026-11-20T00:00:00Z", Tag=[{"name": "tlp:amber"}]
    )
    from blocklist.ingest.formats import misp

    rows = misp.parse(json.dumps(event(7, own, Tag=tags)).encode(), InputFormat(name="misp")).frame.to_dicts()
    assert rows[0] | {"number": 1} == {
        "number": 1,
        "text": "evil.example",
        "confidence": 75,
        "reason": "Campaign 7: lure",
        "reference": f"urn:uuid:{uuid(7)}",
        "date": "2026-11-20T00:00:00Z",
        "tlp": "amber",
        "tags": 'misp:confidence-level="usually-confident"',
    }


@pytest.mark.parametrize(
    "data",
    [
        *(
            b"{",
            b"[]x",
            b"null",
            b"[1",
            b'{"Event":1}x',
            b'{"list": 5}',
            b'{"response": {}}',
            b'{"a": 1}',
            b"\xff\xfe{",
        ),
        DEEP,
        b'{"Event":' + DEEP,
        b'{"Event":' + b'{"a":' * 100_000,
        json.dumps(event(1, attribute("domain", "a.example"))).encode()[:-20],
    ],
    ids=lambda data: data[:12],
)
@pytest.mark.parametrize("name", ["misp", "stix"])
def test_a_damaged_document_is_an_error_in_words(data: bytes, name: str) -> None:
    with pytest.raises(FeedError) as caught:
        read(data, name)
    assert len(caught.value.message) < 300


def test_an_event_may_stand_without_its_wrapper() -> None:
    whole = event(1, attribute("domain", "evil.example"))
    bare = json.dumps(whole["Event"], indent=1).encode()
    assert named(read(bare)) == named(read(whole)) == ["evil.example"]
    assert read(bare).frame["line"][0] == bare[: bare.index(b"evil.example")].count(b"\n") + 1
    auto = parse(bare, Feed(id="f", title="f", url="file:f", category="malware"))
    assert auto.format == "misp" and named(auto) == ["evil.example"]


def test_a_damaged_event_costs_itself_alone() -> None:
    good = json.dumps(event(1, attribute("domain", "evil.example"), attribute("domain", HUGE)))
    parsed = read(f'[{good}, {{"Event": {{"Attribute": 5}}}}, {{}}, 7]'.encode())
    assert named(parsed) == ["evil.example"]
    assert parsed.rejects[Reject.SYNTAX] >= 3 and parsed.rejects[Reject.TOO_LONG] == 1


def test_a_misp_event_through_update_and_why(world: World) -> None:
    with LoopbackServer({"/event.json": json.dumps(event(7, attribute("domain", "evil.example"))).encode()}) as server:
        world.feed("misp", url=server.url("/event.json"), format="misp", allow_private=True)
        assert world.update().code == 0
    assert world.exported("list")[-1] == "evil.example"
    listing = world.why("evil.example")["listings"][0]
    assert listing["feed"] == "misp" and '"value": "evil.example"' in listing["text"]
    assert listing["row"]["reason"] == "Campaign 7" and listing["row"]["reference"] == f"urn:uuid:{uuid(7)}"


def test_what_misp_refuses_is_shown_by_its_value(world: World) -> None:
    attributes = [attribute("md5", "0" * 32), attribute("domain", "bad name"), {"type": "domain", "to_ids": True}]
    document = event(7, attribute("domain", "evil.example"), *attributes, {"type": "url", "value": {"no": "text"}})
    text = json.dumps(document, indent=1)
    world.feed("misp", text, format="misp")
    refused = json.loads(world.run("feeds", "test", "misp", "--json").out)["refused"]
    shown = {reason: [line["text"] for line in lines] for reason, lines in refused.items()}
    assert shown == {
        "unsupported": [f'"value": "{"0" * 32}",'],
        "syntax": ['"value": "bad name",', '"type": "domain",', '"value": {'],
    }
    rows = text.splitlines()
    assert all(rows[x["line"] - 1].strip() == x["text"] for lines in refused.values() for x in lines)


def test_a_misp_attribute_on_a_long_line_is_shown_by_its_value(world: World) -> None:
    more = {"Tag": [{"name": f"campaign-{i}"} for i in range(40)]}
    document = event(7, attribute("domain", "evil.example", **more), attribute("md5", "0" * 32, **more))
    with LoopbackServer(misp_feed(document)) as server:
        world.feed("misp", url=server.url("/feed/manifest.json"), format="misp", allow_private=True)
        assert world.update().code == 0
        refused = json.loads(world.run("feeds", "test", "misp", "--json").out)["refused"]
    assert '"value":"evil.example"' in world.run("why", "evil.example").out
    [line] = refused["unsupported"]
    assert line["text"].startswith(f'…"value":"{"0" * 32}"')


def misp_feed(*events: dict[str, Any]) -> dict[str, Page | bytes]:
    """Pages of a MISP feed."""
    pages: dict[str, Page | bytes] = {}
    manifest = {}
    for document in events:
        inside = document["Event"]
        manifest[inside["uuid"]] = {"info": inside["info"], "timestamp": inside["timestamp"]}
        pages[f"/feed/{inside['uuid']}.json"] = json.dumps(document).encode()
    return {"/feed/manifest.json": json.dumps(manifest).encode(), **pages}


def test_a_misp_feed_fetches_only_the_events_that_changed(world: World) -> None:
    first, second = (event(i, attribute("domain", f"e{i}.example")) for i in (1, 2))
    with LoopbackServer(misp_feed(first, second)) as server:
        world.feed("misp", url=server.url("/feed/manifest.json"), format="misp", allow_private=True)
        assert world.update().feed("misp")["outcome"] == "updated"
        assert world.listed("misp") == ["e1.example", "e2.example"]
        assert '"value":"e1.example"' in world.why("e1.example")["listings"][0]["text"]
        before = world.rows("SELECT sha256 FROM snapshot")
        server.requests.clear()
        assert world.update().feed("misp")["outcome"] == "unchanged"
        assert server.requests == [("/feed/manifest.json", 304)]
        # Other white space and another order say nothing new.
        server.pages = misp_feed(second, first)
        server.pages["/feed/manifest.json"] = json.dumps(
            json.loads(server.pages["/feed/manifest.json"]), indent=3
        ).encode()  # type: ignore[arg-type]
        assert world.update("--force").feed("misp")["outcome"] == "unchanged"
        assert world.rows("SELECT sha256 FROM snapshot") == before
        third = event(2, attribute("domain", "e3.example"), timestamp=2)
        server.pages = misp_feed(first, third)
        server.requests.clear()
        assert world.update().feed("misp")["outcome"] == "updated"
        assert [path for path, _ in server.requests] == ["/feed/manifest.json", f"/feed/{uuid(2)}.json"]
        assert world.listed("misp") == ["e1.example", "e3.example"]


@pytest.mark.parametrize(
    ("page", "body", "words"),
    [
        (f"/feed/{uuid(2)}.json", None, "though the manifest names that event"),
        (f"/feed/{uuid(2)}.json", b'{"Event": {"uu', "not JSON"),
        (f"/feed/{uuid(2)}.json", b"[]", "a JSON object was expected"),
        (f"/feed/{uuid(2)}.json", json.dumps(event(9)).encode(), "not the MISP event"),
        (f"/feed/{uuid(2)}.json", DEEP, "not JSON"),
        (f"/feed/{uuid(2)}.json", json.dumps(event(2, attribute("domain", HUGE))).encode(), "larger than max_size"),
        ("/feed/manifest.json", b"<html>", "not JSON"),
        ("/feed/manifest.json", b'{"../../etc/passwd": {}}', "not the manifest of a MISP feed"),
        ("/feed/manifest.json", json.dumps({uuid(i): {} for i in range(50_001)}).encode(), "more than 50,000"),
    ],
)
def test_a_broken_misp_feed_keeps_what_we_have(world: World, page: str, body: bytes | None, words: str) -> None:
    events = [event(i, attribute("domain", f"e{i}.example")) for i in (1, 2)]
    with LoopbackServer(misp_feed(*events)) as server:
        url = server.url("/feed/manifest.json")
        world.feed("misp", url=url, format="misp", allow_private=True, max_size="4MB")
        assert world.update().code == 0
        if body is None:
            del server.pages[page]
        else:
            server.pages[page] = body
        ran = world.update("--force")
        assert ran.code == 3 and words in ran.feed("misp")["error"], ran.feed("misp")
        assert world.listed("misp") == ["e1.example", "e2.example"] and world.left_over() == []


# STIX


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("[domain-name:value = 'a.example']", Alternatives(("a.example",), 0)),
        (
            "[domain-name:value = 'a' OR ipv4-addr:value IN ('b', 'c')] OR [url:value = 'd']",
            Alternatives(tuple("abcd"), 0),
        ),
        (r"[url:value = 'http://a.example/it\'s\\']", Alternatives(("http://a.example/it's\\",), 0)),
        ("[ipv4-addr:value ISSUBSET '198.51.100.0/24']", Alternatives(("198.51.100.0/24",), 0)),
        ("[file:hashes.MD5 = 'x' OR domain-name:value = 'a']", Alternatives(("a",), 1)),
        ("[(domain-name:value = 'a') OR (domain-name:value = 'b' AND url:value = 'c')]", Alternatives(("a",), 1)),
        ("[domain-name:value = 'a'] AND [domain-name:value = 'b']", Alternatives((), 1)),
        ("[domain-name:value = 'a'] FOLLOWEDBY [domain-name:value = 'b']", Alternatives((), 1)),
        ("[domain-name:value = 'a'] REPEATS 5 TIMES", Alternatives((), 1)),
        ("[domain-name:value NOT = 'a']", Alternatives((), 1)),
        ("[domain-name:value NOT IN ('a')]", Alternatives((), 1)),
        ("[domain-name:value != 'a']", Alternatives((), 1)),
        ("[domain-name:value LIKE 'a%']", Alternatives((), 1)),
        ("[domain-name:value = 5]", Alternatives((), 1)),
        ("[domain-name:value = 'a", None),
        ("[" + "(" * 50_000 + "domain-name:value = 'a'" + ")" * 50_000 + "]", None),
        ("", None),
    ],
)
def test_a_pattern_names_what_alone_is_enough(pattern: str, expected: Alternatives | None) -> None:
    assert alternatives(pattern) == expected


def test_a_stix_bundle_lists_live_indicators() -> None:
    parsed = read(
        bundle(
            indicator(1, "[domain-name:value IN ('a.example', 'b.example')]"),
            indicator(2, "[domain-name:value = 'revoked.example']", revoked=True),
            indicator(3, "[domain-name:value = 'benign.example']", indicator_types=["benign"]),
            indicator(4, "alert dns any any -> any any", pattern_type="suricata"),
            indicator(5, "[domain-name:value = 'old.example']"),
            indicator(5, "[domain-name:value = 'new.example']", modified="2026-11-01T00:00:00.1Z"),
            indicator(6, "[domain-name:value"),
            {"type": "identity", "id": f"identity--{uuid(1)}"},
            {"type": "indicator", "pattern": 5},
            7,
        ),
        "stix",
    )
    assert named(parsed) == ["a.example", "b.example", "new.example"]
    # Ten objects, of which one names two.
    assert (parsed.lines, parsed.extra) == (10, 1)
    assert parsed.comments == 4 and parsed.rejects == {Reject.UNSUPPORTED: 1, Reject.SYNTAX: 3}


def test_a_stix_bundle_through_update_and_why(world: World) -> None:
    about = {
        "name": "Dropper",
        "confidence": 80,
        "valid_until": "2099-01-01T00:00:00Z",
        "external_references": [{"source_name": "x", "url": "https://report.example/1"}],
    }
    document = bundle(indicator(1, "[domain-name:value = 'evil.example' OR ipv4-addr:value = '198.51.100.7']", **about))
    world.feed("stix", json.dumps(document, indent=1), format="stix")
    assert world.update().code == 0
    listing = world.why("198.51.100.7")["listings"][0]
    assert listing["confidence"] == 80 and "pattern" in listing["text"]
    extra = listing["row"]
    assert extra["reason"] == "Dropper" and extra["reference"] == "https://report.example/1"
    assert extra["expires"] == "2099-01-01T00:00:00Z" and extra["date"] == "2026-11-01T00:00:00Z"


# TAXII


class Medallion:
    """OASIS's TAXII 2.1 server with one collection, of three objects a page."""

    root = "/root/collections/91a7b528-80eb-42ed-a74d-c6fbd5a26116/"

    def __init__(self, lab: driver.Lab) -> None:
        pytest.importorskip("medallion")
        self.lab, self.port = lab, driver.free_port()
        self.url = f"taxii+http://127.0.0.1:{self.port}{self.root}"

    def serve(self, *objects: dict[str, Any]) -> None:
        data = self.lab.folder / "data.json"
        collection = {"id": self.root.split("/")[3], "title": "x", "can_read": True, "can_write": True}
        manifest = [
            {"id": o["id"], "date_added": f"2026-11-01T00:00:{i:02}.000000Z", "version": o["modified"],
             "media_type": "application/stix+json;version=2.1"}
            for i, o in enumerate(objects)
        ]  # fmt: skip
        collection |= {"media_types": ["application/stix+json;version=2.1"], "objects": objects, "manifest": manifest}
        about = {"title": "x", "versions": ["application/taxii+json;version=2.1"], "max_content_length": 10_000_000}
        data.write_text(
            json.dumps({"/discovery": {}, "root": {"information": about, "status": [], "collections": [collection]}})
        )
        backend = {
            "module": "medallion.backends.memory_backend",
            "module_class": "MemoryBackend",
            "filename": str(data),
        }
        settings = {"backend": backend, "users": {"user": "secret-word"}, "taxii": {"max_page_size": 3}}
        (self.lab.folder / "medallion.json").write_text(json.dumps(settings))
        self.lab.end()
        words = ["-m", "medallion.scripts.run", "--port", str(self.port), str(self.lab.folder / "medallion.json")]
        self.lab.start([sys.executable, "-c", "from medallion.scripts.run import main; main()", *words[2:]], self.port)

    @property
    def asked(self) -> list[str]:
        log = (self.lab.folder / f"{Path(sys.executable).name}.log").read_text()
        return [line.split('"')[1] for line in log.splitlines() if '"GET' in line]


@pytest.fixture
def taxii() -> Iterator[Medallion]:
    with driver.lab() as lab:
        yield Medallion(lab)


@pytest.mark.engine
def test_a_taxii_collection_through_update_and_why(
    world: World, taxii: Medallion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BLOCKLIST_SECRET_PARTNER", "user:secret-word")
    objects = [indicator(i, f"[domain-name:value = 'h{i}.example']") for i in range(8)]
    taxii.serve(*objects)
    key = {"name": "partner", "basic": True}
    world.feed("taxii", url=taxii.url, format="stix", allow_private=True, auth=key)
    ran = world.update()
    assert ran.feed("taxii")["outcome"] == "updated", ran.text
    assert world.listed("taxii") == [f"h{i}.example" for i in range(8)]
    assert sum("next=" in line for line in taxii.asked) == 2
    assert "h3.example" in world.why("h3.example")["listings"][0]["text"]
    assert world.update().feed("taxii")["outcome"] == "unchanged"
    assert "added_after=" in taxii.asked[-1]
    newer = indicator(3, "[domain-name:value = 'h3.example']", revoked=True, modified="2026-11-02T00:00:00.000Z")
    taxii.serve(*objects, newer, indicator(9, "[domain-name:value = 'h9.example']"))
    assert world.update().feed("taxii")["outcome"] == "updated"
    assert "added_after=" in taxii.asked[-1]
    assert world.listed("taxii") == [f"h{i}.example" for i in (0, 1, 2, 4, 5, 6, 7, 9)]
    assert b"secret-word" not in b"".join(p.read_bytes() for p in world.state.rglob("*") if p.is_file())
    assert "secret-word" not in ran.text


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda talk: {"more": True, "next": "same", "objects": [indicator(1, "x")]}, "go round in a loop"),
        (lambda talk: {"more": True, "next": str(len(talk.path)), "objects": []}, "go round in a loop"),
        (lambda talk: {"more": True, "objects": [indicator(1, "x")]}, "but not where"),
        (lambda talk: {"objects": {"a": 1}}, "is no list of STIX objects"),
        (lambda talk: {"title": "a collection", "id": "x"}, "not an envelope of TAXII"),
        (lambda talk: [], "a JSON object was expected"),
        (lambda talk: DEEP, "not JSON"),
        (lambda talk: b'{"objects": [{"id"', "not JSON"),
        (lambda talk: {"objects": [indicator(1, HUGE)]}, "larger than max_size"),
    ],
)
def test_a_broken_taxii_server_fails_the_feed(world: World, answer: Any, words: str) -> None:
    def reply(talk: Talk) -> None:
        found = answer(talk)
        talk.reply(body=found if isinstance(found, bytes) else json.dumps(found).encode())

    server = FeedServer()
    try:
        server.routes["/root/collections/x/objects/"] = reply
        url = server.url("/root/collections/x/")
        world.feed("taxii", url=f"taxii+{url}", format="stix", allow_private=True, max_size="4MB")
        ran = world.update()
        assert ran.code == 3 and words in ran.feed("taxii")["error"], ran.text
        assert server.asked("/root/collections/x/objects/") <= 2
        assert server.talks[0].headers["accept"] == "application/taxii+json;version=2.1"
    finally:
        server.close()


@pytest.mark.parametrize(
    "url", ["taxii+http://127.0.0.1:9/c/", "http://127.0.0.1:9/manifest.json", "axfr://127.0.0.1:9/z.example"]
)
def test_private_addresses_need_permission(world: World, url: str) -> None:
    fmt = {"t": "stix", "h": "misp", "a": "rpz"}[url[0]]
    world.feed("f", url=url, format=fmt)
    ran = world.update()
    assert ran.code == 3 and "refused to connect: 127.0.0.1 is a loopback address" in ran.feed("f")["error"], ran.text
