"""The zone says the same to engines that read it differently: simulated here, real in test_engines."""

from __future__ import annotations

import pytest
from engines.lists import entries, rendered, select, verdict
from hypothesis import example, given, settings
from hypothesis import strategies as st

from blocklist.errors import ConfigError
from blocklist.names import parents
from blocklist.publish.zone_options import budget

ORIGIN = "rpz.example.net"
ACTIONS = {".": True, "rpz-passthru.": False}


def records(text: bytes) -> dict[str, bool]:
    """Owner → block, of the policy records. Two records of one owner would refuse the zone."""
    found: dict[str, bool] = {}
    for line in text.decode().splitlines():
        owner, *rest = line.split(" ")
        if rest[:1] == ["CNAME"]:
            assert owner not in found, f"{owner} twice"
            found[owner] = ACTIONS[rest[1]]
    return found


def longest_match(zone: dict[str, bool], name: str) -> bool | None:
    """Recursor and Knot Resolver: the name, then every wildcard above it."""
    owners = [name, *(f"*.{parent}" for parent in parents(name))]
    return next((zone[owner] for owner in owners if owner in zone), None)


def closest_encloser(zone: dict[str, bool], name: str) -> bool | None:
    """BIND and Unbound: the name, else the wildcard of the nearest name that exists (RFC 4592 §3.3.1)."""
    existing = {name for owner in zone for name in (owner, *parents(owner))}
    if name in existing:
        return zone.get(name)
    encloser = next((parent for parent in parents(name) if parent in existing), "")
    return zone.get(f"*.{encloser}")


def folded(listed: dict[tuple[str, bool], bool]) -> dict[tuple[str, bool], bool]:
    """Less the entries that repeat what the entry above says."""
    kept = dict(sorted(listed.items(), key=lambda item: (item[0][0].count("."), not item[0][1])))
    for entry in list(kept):
        name, subtree = entry
        # What is below a subtree entry is judged by subtree entries alone.
        others = {other: block for other, block in kept.items() if other != entry and other[1] >= subtree}
        if verdict(others, name) == kept[entry]:
            del kept[entry]
    return kept


def recipe(listed: dict[tuple[str, bool], bool]) -> dict[str, bool | None]:
    """The records that folded entries need: their names and those between one and its cover, and what is below each."""
    owners: set[str] = set()
    for name, _ in listed:
        above = parents(name)
        cover = next((i for i, at in enumerate(above) if (at, True) in listed), 0)
        owners |= {name, *above[:cover]}
    below = {f"*.{name}": verdict(listed, f"z.{name}") for name in owners}
    return {name: verdict(listed, name) for name in owners} | {k: v for k, v in below.items() if v is not None}


LABELS = st.sampled_from(["a", "b", "c"])
NAMES = st.lists(LABELS, min_size=1, max_size=4).map(lambda labels: ".".join([*labels, "example"]))


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.tuples(NAMES, st.booleans()), st.booleans(), max_size=10), st.booleans())
@example({("a.example", True): True, ("c.b.a.example", False): False}, False)
@example({("a.example", True): False, ("a.example", False): True}, False)
def test_both_kinds_of_engine_find_the_verdict_of_the_most_specific_entry(
    listed: dict[tuple[str, bool], bool], versioned: bool
) -> None:
    listed = folded(listed)
    version = "b.a.example" if versioned else "none"
    text, account = rendered("rpz", select(listed), origin=ORIGIN, version=version)
    zone = records(text)
    if versioned:
        assert account.records == len(zone)
        zone[version] = False  # its own data, whatever else is said of the name
    else:
        assert zone == recipe(listed)
    labels = ("a", "b", "c", "d")
    asked = [".".join((*prefix, "example")) for prefix in [(), *((one,) for one in labels)]]
    asked += [f"{one}.{name}" for one in labels for name in asked[1:]]
    asked += [f"{one}.{two}.{name}" for one in labels for two in labels for name in asked[1:5]]
    asked += [f"x.{name}" for name, _ in listed] + [f"x.y.{name}" for name, _ in listed]
    for name in asked:
        if name == version:
            continue
        wanted = verdict(listed, name) is True
        got = {lookup(zone, name) is True for lookup in (longest_match, closest_encloser)}
        assert got == {wanted}, (name, zone)


def test_the_recipe_line_by_line() -> None:
    listed = entries(
        block=["evil.example", "pass.example"],
        exact=["exact.example"],
        allow=["good.deep.evil.example"],
        exact_allow=["ok.pass.example"],
    )
    text, account = rendered("rpz", select(listed), version="none", serial=1795510800)
    assert account.entries == 5 and account.records == 11
    assert text.decode().splitlines()[1:] == [
        "$TTL 300",
        "@ SOA localhost. hostmaster.localhost. 1795510800 900 500 2419200 60",
        "@ NS localhost.",
        "evil.example CNAME .",
        "*.evil.example CNAME .",
        "pass.example CNAME .",
        "*.pass.example CNAME .",
        "exact.example CNAME .",
        "deep.evil.example CNAME .",
        "*.deep.evil.example CNAME .",
        "*.ok.pass.example CNAME .",
        "good.deep.evil.example CNAME rpz-passthru.",
        "*.good.deep.evil.example CNAME rpz-passthru.",
        "ok.pass.example CNAME rpz-passthru.",
    ]


@pytest.mark.parametrize(
    ("action", "target"),
    [
        ("nxdomain", "."),
        ("nodata", "*."),
        ("drop", "rpz-drop."),
        ("tcp-only", "rpz-tcp-only."),
        ("passthru", "rpz-passthru."),
        ("cname", "garden.example.net."),
    ],
)
def test_every_action_is_the_target_of_the_cname(action: str, target: str) -> None:
    options = {"target": "garden.example.net"} if action == "cname" else {}
    text, _ = rendered("rpz", select(entries(block=["evil.example"])), action=action, **options)
    assert f"\nevil.example CNAME {target}\n*.evil.example CNAME {target}\n".encode() in text


def test_the_serial_changes_the_file_and_not_the_digest_of_its_body() -> None:
    selection = select(entries(block=["evil.example"]))
    one, first = rendered("rpz", selection, origin=ORIGIN, serial=1)
    two, second = rendered("rpz", selection, origin=ORIGIN, serial=2)
    assert one != two and first.body_digest == second.body_digest and first.digest != second.digest
    assert b'\nversion.rpz.example.net 5 TXT "2"\n' in two
    _, other = rendered("rpz", selection, origin=ORIGIN, serial=2, ttl=60)
    assert other.body_digest != second.body_digest


def long_name(length: int) -> str:
    """A name of exactly `length` characters in labels of at most 63."""
    text = ("x" * 60 + ".") * 5
    return text[: length - len(".example")].rstrip(".").ljust(length - len(".example"), "y") + ".example"


def test_names_that_do_not_fit_in_front_of_the_origin_are_left_out_and_counted() -> None:
    room = budget(ORIGIN)
    assert room == 253 - 1 - len(ORIGIN)
    subtree = {(long_name(room - 2), True): True, (long_name(room - 1), True): True}
    exact = {(long_name(room), False): True, (long_name(room + 1), False): True}
    text, account = rendered("rpz", select(subtree | exact), origin=ORIGIN)
    assert account.lost == {"too_long": 2} and account.entries == 2
    assert set(records(text)) == {long_name(room - 2), f"*.{long_name(room - 2)}", long_name(room)}


def test_an_exact_entry_below_a_subtree_needs_room_for_its_wildcard() -> None:
    room = budget(ORIGIN)
    listed = {("example", True): True, (long_name(room - 1), False): False}
    text, account = rendered("rpz", select(listed), origin=ORIGIN)
    assert account.lost == {"too_long": 1, "narrowed": 1}
    # Without the block above it the allow needs no wildcard, and stands alone.
    assert records(text) == {long_name(room - 1): False}


def test_an_allow_that_does_not_fit_is_not_blocked_by_what_is_above_it() -> None:
    allowed = long_name(budget(ORIGIN) + 1)
    mid = allowed.partition(".")[2]
    for scope in (True, False):
        listed = {("example", True): True, (mid, True): True, (allowed, scope): False, ("other.test", True): True}
        text, account = rendered("rpz", select(listed), origin=ORIGIN)
        zone = records(text)
        assert longest_match(zone, allowed) is None and closest_encloser(zone, allowed) is None
        assert longest_match(zone, "x.other.test") is True
        assert account.lost["too_long"] == 1 and account.lost["narrowed"] >= 1


def test_addresses_are_triggers_in_the_one_spelling_that_named_takes() -> None:
    networks = [
        ("10.0.0.0/8", "outbound"),
        ("192.0.2.1", "both"),
        ("1::", "both"),
        ("2001:db7::/32", "outbound"),
        ("2001:db8:0:1:1:1:1:1", "outbound"),
        ("2001:db8:0:1::9", "outbound"),
        ("203.0.113.9", "inbound"),
    ]
    text, account = rendered("rpz", select({}, networks), addresses=True)
    assert account.lost == {"inbound": 1} and account.entries == 6
    assert [line.split()[0] for line in text.decode().splitlines() if "rpz-ip" in line] == [
        "8.0.0.0.10.rpz-ip",
        "32.1.2.0.192.rpz-ip",
        "128.zz.1.rpz-ip",
        "32.zz.db7.2001.rpz-ip",
        "128.9.zz.1.0.db8.2001.rpz-ip",
        "128.1.1.1.1.1.0.db8.2001.rpz-ip",
    ]
    plain, _ = rendered("rpz", select({}, networks))
    assert b"rpz-ip" not in plain


@pytest.mark.parametrize(
    ("options", "place"),
    [
        ({"action": "cname"}, "options.target"),
        ({"action": "nxdomain", "target": "garden.example"}, "options.target"),
        ({"origin": "rpz..example"}, "options.origin"),
        ({"origin": "rpz.example."}, "options.origin"),
        ({"origin": "rpz.example\n$INCLUDE /etc/passwd"}, "options.origin"),
        ({"origin": "x" * 64}, "options.origin"),
        ({"ns": "a b"}, "options.ns"),
        ({"version": "version." + long_name(240)}, "options.version"),
        ({"ttl": -1}, "options.ttl"),
        ({"ttl": "300"}, "options.ttl"),
        ({"serial": 2**32}, "options.serial"),
        ({"orgin": "rpz.example"}, "did you mean 'origin'"),
    ],
)
def test_an_option_that_could_spoil_the_zone_is_refused_by_name(options: dict[str, object], place: str) -> None:
    with pytest.raises(ConfigError, match=place.replace(".", r"\.")):
        rendered("rpz", select(entries(block=["evil.example"])), **options)
