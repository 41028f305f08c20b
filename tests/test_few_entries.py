"""Lists of nothing, of one entry and of IPv6 alone, published in every format and read back by other readers than ours.

Formats with a reader of their own are read by it: JSON, CSV, Parquet, a STIX grammar, dnspython. Of the others every
name, address and URL that stands in the file counts, less what stands in the empty file.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any

import dns.rdatatype
import dns.zone
import polars as pl
import pytest
from installation import World
from stix2patterns.v21.pattern import Pattern

from blocklist.publish import descriptor

FORMATS = descriptor.builtin()
# Addresses go into a policy zone where its export says so.
RPZ = {"kinds": ["domain", "ipv4", "ipv6"], "options": {"addresses": True}}
NAME, URL, FOUR, SIX = "evil.example", "//evil.example/a?b=1", ip_network("192.0.2.7"), ip_network("2001:db8:6::7")
SIX_WIDE = ip_network("2001:db8:66::/48")
Thing = str | IPv4Network | IPv6Network


@dataclass
class Lists:
    """Every format as published by one update."""

    world: World
    exports: dict[str, dict[str, Any]]

    def data(self, name: str) -> bytes:
        return (self.world.base / "exports" / name).read_bytes()


def published(base: Path, listed: str, **policy: Any) -> Lists:
    world = World(base)
    world.feed("feed", listed)
    if policy:
        world.policies["default"] = policy
    for name in FORMATS:
        world.export(name, name, allow_empty=True, **(RPZ if name == "rpz" else {}))
    ran = world.update()
    assert ran.code == 0, ran.text
    return Lists(world, {told["name"]: told for told in ran.json["exports"]})


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Lists:
    return published(tmp_path_factory.mktemp("empty"), f"{NAME}\n", categories=["phishing"])


@pytest.fixture(scope="module")
def one_name(tmp_path_factory: pytest.TempPathFactory) -> Lists:
    return published(tmp_path_factory.mktemp("name"), f"{NAME}\n")


@pytest.fixture(scope="module")
def one_address(tmp_path_factory: pytest.TempPathFactory) -> Lists:
    return published(tmp_path_factory.mktemp("address"), "192.0.2.7\n")


@pytest.fixture(scope="module")
def one_url(tmp_path_factory: pytest.TempPathFactory) -> Lists:
    return published(tmp_path_factory.mktemp("url"), f"http:{URL}\n")


@pytest.fixture(scope="module")
def ipv6_only(tmp_path_factory: pytest.TempPathFactory) -> Lists:
    return published(tmp_path_factory.mktemp("six"), f"{SIX}\n{SIX_WIDE}\n")


# Readers


def thing(text: str) -> Thing:
    try:
        return ip_network(text)
    except ValueError:
        return text


def in_csv(data: bytes) -> list[Thing]:
    return [thing(row["indicator"]) for row in csv.DictReader(io.StringIO(data.decode("ascii"), newline=""))]


def in_jsonl(data: bytes) -> list[Thing]:
    return [thing(json.loads(line)["indicator"]) for line in data.decode("ascii").splitlines()]


def in_parquet(data: bytes) -> list[Thing]:
    return [thing(text) for text in pl.read_parquet(io.BytesIO(data))["indicator"]]


def in_misp(data: bytes) -> list[Thing]:
    attributes = json.loads(data)["Event"]["Attribute"]
    types = {"domain": str, "hostname": str, "url": str, "ip-dst": ip_network, "ip-src": ip_network}
    return [types[a["type"]](a["value"].removeprefix("http:")) for a in attributes if a["to_ids"]]


def in_stix(data: bytes) -> list[Thing]:
    """What the patterns compare with, each path alone; an expression for what is below a name is no thing more."""
    found: list[Thing] = []
    for item in json.loads(data)["objects"]:
        if item["type"] != "indicator":
            continue
        for kind, comparisons in Pattern(item["pattern"]).inspect().comparisons.items():
            for _, operator, value in comparisons:
                text = str(value).strip("'")
                if kind == "domain-name" and operator == "LIKE":
                    assert text == f"%.{NAME}"
                elif kind.endswith("-addr"):
                    found.append(ip_network(text))
                elif not text.startswith("https:"):
                    found.append(text.removeprefix("http:"))
    return found


def in_rpz(data: bytes) -> list[Thing]:
    """Owners with a CNAME to the root; `rpz-ip` triggers as networks (draft-vixie-dnsop-dns-rpz-00 §4.1.1)."""
    zone = dns.zone.from_text(data.decode("ascii"), "rpz.blocklist.internal.", relativize=True)
    found: list[Thing] = []
    for owner, _, record in zone.iterate_rdatas(dns.rdatatype.CNAME):
        assert record.target == dns.name.root
        labels = owner.to_text().split(".")
        if labels[-1] == "rpz-ip":
            length, *parts = labels[:-1]
            text = ".".join(reversed(parts)) if len(parts) == 4 and "zz" not in parts else ":".join(reversed(parts))
            # `zz` is the longest run of zeros, that is `::`.
            text = re.sub(r"(^|:)zz(:|$)", "::", text)
            found.append(ip_network(f"{text}/{length}"))
        elif labels[0] == "*":
            assert labels[1:] == NAME.split(".")
        else:
            found.append(".".join(labels))
    return found


_NUMBER = re.compile(
    r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9a-f]{1,4}(?::[0-9a-f]{0,4}){2,7})(?:/\d{1,3})?(?![\w.:/])"
)
_NAME = re.compile(r"(?:[a-z0-9_-]+\.)+[a-z]{2,}(?!\w)")


def in_text(fmt: str, data: bytes) -> list[Thing]:
    """Every name, address and URL of a file of lines, in its order; `*.` and a leading dot are the same name."""
    # Patterns escape dots and end in more than a name; a name of the file's own stands before that of the entry.
    text = data.decode("ascii").replace("\\", "").replace("blocklist-", "").replace(".?$", "")
    if fmt == "suricata-domain":
        text = "\n".join(base64.b64decode(line, validate=True).decode("ascii") for line in text.splitlines())
    if fmt == "cisco-asa":
        text = re.sub(r"([0-9.]+) (255\.[0-9.]+)", r"\1/32", text) if "255.255.255.255" in text else text
    if fmt == "envoy":
        text = re.sub(r'", prefix_len: ', "/", text).replace('"', " ")
    found: list[Thing] = []
    for line in text.splitlines():
        if URL.removeprefix("//") in line.replace("$", "\n"):
            found.append(URL)
            continue
        for token in _NUMBER.findall(line):
            found.append(ip_network(token))
        found += _NAME.findall(line.removeprefix("."))
    return found


READERS: dict[str, Callable[[bytes], list[Thing]]] = {
    "csv": in_csv,
    "jsonl": in_jsonl,
    "parquet": in_parquet,
    "misp": in_misp,
    "stix": in_stix,
    "rpz": in_rpz,
}


def read(name: str, lists: Lists, empty: Lists) -> set[Thing]:
    """What stands in the file; nothing stands there twice in a format that is read by a reader of its own."""
    if (reader := READERS.get(name)) is not None:
        found = reader(lists.data(name))
        assert len(found) == len(set(found)), found
        return set(found)
    # Null addresses of hosts files, loopback names of frames and the like are in both.
    return set(in_text(name, lists.data(name))) - set(in_text(name, empty.data(name))) - NULL


NULL = {ip_network("0.0.0.0"), ip_network("::")}


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_an_empty_list_is_published_and_holds_nothing(name: str, empty: Lists) -> None:
    told = empty.exports[name]
    assert (told["outcome"], told["entries"], told["lost"]) == ("published", 0, {})
    if name in READERS:
        assert READERS[name](empty.data(name)) == []
    else:
        assert not {NAME, URL, FOUR, SIX, SIX_WIDE} & set(in_text(name, empty.data(name)))


@pytest.mark.parametrize("name", sorted(FORMATS))
@pytest.mark.parametrize(("kind", "only"), [("domain", NAME), ("ipv4", FOUR), ("url", URL)])
def test_a_list_of_one_entry_holds_that_entry(
    name: str, kind: str, only: Thing, empty: Lists, request: pytest.FixtureRequest
) -> None:
    lists = request.getfixturevalue({"domain": "one_name", "ipv4": "one_address", "url": "one_url"}[kind])
    wanted = {only} if kind in FORMATS[name].kinds else set()
    assert read(name, lists, empty) == wanted
    told = lists.exports[name]
    # A target of exact names says what it loses of a registrable domain.
    narrow = kind == "domain" and wanted and not FORMATS[name].takes_subtree
    assert told["lost"] == ({"subtree": 1} if narrow else {})
    # Targets with a set for each direction have an entry in both.
    assert told["entries"] in ((1, 2) if wanted else (0,))


# What these can't say, and count: a network beside single addresses.
ALONE = {"defender", "suricata-ip"}


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_a_list_of_ipv6_alone_holds_that(name: str, empty: Lists, ipv6_only: Lists) -> None:
    told = ipv6_only.exports[name]
    if "ipv6" not in FORMATS[name].kinds:
        assert read(name, ipv6_only, empty) == set() and told["entries"] == 0
    elif name in ALONE:
        assert read(name, ipv6_only, empty) == {SIX} and told["lost"] == {"network": 1}
    else:
        assert read(name, ipv6_only, empty) == {SIX, SIX_WIDE} and told["lost"] == {}


def test_a_policy_zone_without_the_option_takes_no_addresses_and_an_inbound_one_is_counted(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.feed("out", "2001:db8:6::7\n")
    world.feed("in", "2001:db8:66::/48\n", direction="inbound")
    world.export("plain", "rpz", allow_empty=True)
    world.export("zone", "rpz", **RPZ)
    ran = world.update()
    assert (ran.export("plain")["entries"], ran.export("plain")["lost"]) == (0, {})
    assert in_rpz((tmp_path / "exports/plain").read_bytes()) == []
    assert in_rpz((tmp_path / "exports/zone").read_bytes()) == [SIX]
    assert ran.export("zone")["lost"] == {"inbound": 1}


@pytest.mark.parametrize("name", ["cidr", "pf", "csv", "jsonl", "parquet", "misp", "stix"])
def test_what_a_rule_denies_stands_only_where_its_kind_does(name: str, tmp_path: Path) -> None:
    world = World(tmp_path)
    world.feed("feed", f"{NAME}\n192.0.2.7\n")
    world.export(name, name, kinds=["ipv4"])
    assert world.update().code == 0
    for what in (str(SIX_WIDE), "worse.example", "192.0.2.9"):
        assert world.run("deny", "add", what, "--reason", "x").code == 0
    assert world.run("export").code == 0
    data = (tmp_path / "exports" / name).read_bytes()
    found = READERS[name](data) if name in READERS else in_text(name, data)
    assert set(found) == {FOUR, ip_network("192.0.2.9")}
    assert not world.why(str(SIX_WIDE))["blocked"] and not world.why("worse.example")["blocked"]
