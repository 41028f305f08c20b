"""A file that is made of the one in place is what would be rendered from nothing, or is not made so."""

from __future__ import annotations

import io

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from blocklist.errors import ReleaseError
from blocklist.framepatch import FramePatch
from blocklist.publish import descriptor
from blocklist.publish.render import Rendered, render
from blocklist.publish.rewrite import Step, rewritten
from blocklist.publish.rollback import text, text_of_change
from blocklist.publish.selection import Selection
from blocklist.rules import Rule
from blocklist.select.policy import Chosen
from blocklist.splice import Lines, Splice, Splicing
from blocklist.store import kept

FORMATS = descriptor.builtin()
Entries = dict[str, tuple[bool, ...]]

# Of one name its own entry, the one of its subtree, or both; no entry below another, as folding leaves them.
_SCOPES = st.sampled_from([(False,), (True,), (False, True)])
_NAMES = st.sampled_from(
    [f"{label}.{top}" for top in ("example", "test") for label in "abcdefgh"] + ["xn--fsqu00a.test"]
)
_ENTRIES = st.dictionaries(_NAMES, _SCOPES, max_size=12)


def domains(entries: Entries, fmt: descriptor.Format) -> pl.DataFrame:
    rows = [
        (name, subtree, True)
        for name, scopes in sorted(entries.items())
        for subtree in scopes
        if (fmt.takes_subtree if subtree else fmt.takes_exact)
    ]
    return pl.DataFrame(rows, schema={"name": pl.String, "subtree": pl.Boolean, "block": pl.Boolean}, orient="row")


def step(old: pl.DataFrame, new: pl.DataFrame) -> Step:
    differs = pl.concat([old, new]).unique(keep="none")["name"].unique().implode()
    gone, come = (rows.filter(pl.col("name").is_in(differs)) for rows in (old, new))
    return Step(new, "new", old, "old", FramePatch.between(gone["name"], come), gone)


def whole(fmt: descriptor.Format, selection: Selection, serial: int) -> tuple[bytes, Rendered]:
    return whole_with(fmt, selection, {"serial": serial})


def whole_with(fmt: descriptor.Format, selection: Selection, options: dict[str, object]) -> tuple[bytes, Rendered]:
    out = io.BytesIO()
    rendered = render(fmt, selection, options, out)
    return out.getvalue(), rendered


# Many more stay than change, else nothing is made of what is in place.
STAYS: Entries = {f"n{number:03}.example": (number % 3 > 0,) for number in range(300)}
# One or two lines a name, whatever the others are.
LINES = ("rpz", "squid", "hosts", "domains", "unbound", "dnsmasq", "adblock", "haproxy", "coredns")


@pytest.mark.parametrize("name", sorted(n for n, f in FORMATS.items() if "domain" in f.kinds))
@settings(max_examples=5, deadline=None)
@given(old=_ENTRIES, new=_ENTRIES)
@example(old={}, new={})
@example(old={"a.example": (True,)}, new={"a.example": (False,), "zz.test": (True,)})
def test_what_is_made_of_the_file_in_place_is_what_would_be_written(name: str, old: Entries, new: Entries) -> None:
    fmt = FORMATS[name]
    was, now = domains({**STAYS, **old}, fmt), domains({**STAYS, **new}, fmt)
    before, _ = whole(fmt, Selection(domains=was), 1)
    wanted, rendered = whole(fmt, Selection(domains=now), 2)
    how, out = step(was, now), io.BytesIO()
    made = rewritten(fmt, Selection(domains=now), {"serial": 2}, how, before, 1, out)
    if made is None:
        assert not out.getvalue() and name not in LINES
        return
    assert out.getvalue() == wanted == b"".join(made[1].pieces())
    assert made[0] == rendered
    common = was.join(now, on=was.columns, how="semi").height
    assert how.change() == (now.height - common, was.height - common)
    for other in (b"", before[:-1], before + b"\n"):
        assert rewritten(fmt, Selection(domains=now), {"serial": 2}, how, other, 1, out) is None
    assert out.getvalue() == wanted


def test_of_a_file_whose_lines_are_others_nothing_is_made() -> None:
    fmt = FORMATS["squid"]
    was, now = domains({**STAYS, "evil.example": (True,)}, fmt), domains(STAYS, fmt)
    before, _ = whole(fmt, Selection(domains=was), 1)
    out, how = io.BytesIO(), step(was, now)
    assert rewritten(fmt, Selection(domains=now), {}, how, before, 1, out) is not None
    for other in (before.replace(b"evil", b"good"), before.replace(b".evil.example\n", b"evil.example.\n")):
        assert rewritten(fmt, Selection(domains=now), {}, how, other, 1, io.BytesIO()) is None
    # Nor with another serial, option or header than it has.
    zone = FORMATS["rpz"]
    text_of_zone, _ = whole(zone, Selection(domains=was), 7)
    assert rewritten(zone, Selection(domains=now), {"serial": 8}, how, text_of_zone, 7, out) is not None
    for options, serial in (({"serial": 8}, 6), ({"serial": 8, "ttl": 301}, 7), ({"serial": 8, "action": "drop"}, 7)):
        assert rewritten(zone, Selection(domains=now), options, how, text_of_zone, serial, io.BytesIO()) is None


def test_entries_that_depend_on_others_are_written_anew() -> None:
    zone, out = FORMATS["rpz"], io.BytesIO()
    was, now = domains(STAYS, zone), domains({**STAYS, "a.example": (True,)}, zone)
    before, _ = whole(zone, Selection(domains=was), 1)
    plain, how = Selection(domains=now), step(was, now)
    assert rewritten(zone, plain, {"serial": 2}, how, before, 1, out) is not None
    allowed = now.with_columns(block=pl.col("name") != "a.example")
    others = {
        "an allow": (Selection(domains=allowed), step(was, allowed)),
        "a name between": (replace(plain, between=pl.DataFrame({"name": ["b.example"], "block": [True]})), how),
        "a frame of its own": (Selection(domains=now.clone()), how),
        "most of them": (Selection(domains=now.clear()), step(was, now.clear())),
    }
    for what, (selection, way) in others.items():
        nothing = io.BytesIO()
        assert rewritten(zone, selection, {"serial": 2}, way, before, 1, nothing) is None, what
        assert not nothing.getvalue()
    # Above the version record, which then says again what holds there.
    options = {"serial": 2, "version": "version.a.example"}
    text_of_zone, _ = whole_with(zone, Selection(domains=was), {**options, "serial": 1})
    assert rewritten(zone, plain, options, how, text_of_zone, 1, io.BytesIO()) is None


def test_a_value_that_is_no_name_stops_it_before_anything_is_written() -> None:
    fmt, out = FORMATS["squid"], io.BytesIO()
    was, now = domains(STAYS, fmt), domains({**STAYS, "evil.example\n.com": (True,)}, fmt)
    before, _ = whole(fmt, Selection(domains=was), 1)
    with pytest.raises(ReleaseError, match="is not a domain name"):
        rewritten(fmt, Selection(domains=now), {}, step(was, now), before, 1, out)
    assert not out.getvalue()


# The text that a release is chosen from

_CHOSEN = st.dictionaries(_NAMES, _SCOPES, max_size=8)
_NETWORKS = st.dictionaries(
    st.sampled_from(["192.0.2.1", "192.0.2.0/24", "198.51.100.7", "2001:db8::/32", "2001:db8::1"]),
    st.sampled_from([(True, True), (True, False), (False, True)]),
)
_URLS = st.sets(st.sampled_from([f"//{host}.example/{path}" for host in "ab" for path in ("", "x", "y")]))


def chosen(names: Entries, networks: dict[str, tuple[bool, bool]], urls: set[str]) -> Chosen:
    rows = [(name, subtree, True, True, 1) for name, scopes in sorted(names.items()) for subtree in scopes]
    flags = {"subtree": pl.Boolean, "block": pl.Boolean, "widenable": pl.Boolean, "group": pl.UInt32}
    decisions = pl.DataFrame(rows, schema={"name": pl.String, **flags}, orient="row")
    area = {"first": pl.UInt128, "last": pl.UInt128, "inbound": pl.Boolean, "outbound": pl.Boolean}
    nets = [(name, 6 if ":" in name else 4, 0, 0, *ways) for name, ways in sorted(networks.items())]
    addresses = pl.DataFrame(nets, schema={"name": pl.String, "family": pl.UInt8, **area}, orient="row")
    paths = pl.DataFrame({"url": sorted(urls)}, schema={"url": pl.String})
    back = pl.DataFrame(schema={"name": pl.String, "kind": pl.UInt8})
    return Chosen(decisions, addresses, paths, decisions.clear(), paths.clear(), back)


@settings(max_examples=50, deadline=None)
@given(
    states=st.lists(st.tuples(_CHOSEN, _NETWORKS, _URLS), min_size=2, max_size=2),
    ruled=st.lists(_NAMES, max_size=3),
    more=st.sets(_NAMES, max_size=4),
)
def test_a_text_that_is_made_of_the_last_one_is_what_it_would_be(
    tmp_path_factory: pytest.TempPathFactory,
    states: list[tuple[Entries, dict[str, tuple[bool, bool]], set[str]]],
    ruled: list[str],
    more: set[str],
) -> None:
    rules = [
        Rule(id=number, action="deny", kind="domain", name=name, subtree=True, reason="r", author="a", created="2026")
        for number, name in enumerate(ruled)
    ]
    before, now = (chosen(*state) for state in states)
    parts: list[Chosen] = []
    for mine, other in ((before, now), (now, before)):
        frames = {}
        for field in Chosen.__struct_fields__:
            rows, others = getattr(mine, field), getattr(other, field)
            key = rows.columns[0]
            differs = pl.concat([rows, others]).unique(keep="none")[key]
            # Some are decided anew for nothing.
            these = pl.concat([differs, pl.Series(key, sorted(more), dtype=pl.String)])
            frames[field] = rows.filter(pl.col(key).is_in(these.implode()))
        parts.append(Chosen(**frames))
    old, wanted = text(before, rules), text(now, rules)
    splice = text_of_change(before, *parts, rules, old)
    assert splice is not None and b"".join(splice.pieces()) == wanted
    assert all(splice.old[h.gone : h.gone_end] != splice.come[h.come : h.come_end] for h in splice.hunks)
    assert text_of_change(before, *parts, rules, old + b"x\t1\t0\t0\n") is None
    # Kept as a patch or whole, it reads as what it is.
    state = tmp_path_factory.mktemp("state")
    first = kept.Bytes.of(old)
    kept.keep(state, first.digest, first.data)
    some = kept.Spliced.of(splice, first.digest)
    if not kept.keep_splice(state, some.digest, splice, some.base):
        kept.keep(state, some.digest, wanted)
    assert kept.read(state, some.digest) == wanted


def test_pieces_are_put_together_across_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blocklist.splice._PIECE", 7)
    names = pl.Series("name", [f"n{number:03}" for number in range(100)])
    old = "".join(f"{name}\n" for name in names).encode()
    sizes = names.str.len_bytes() + 1
    for gone, come in (([], ["n0505"]), (["n000", "n050", "n099"], []), (["n050"], ["a", "n0501", "zzzzzzzzzzzzzzz"])):
        splicing = Splicing(old)
        less, more = (
            Lines(series, series.str.len_bytes() + 1, "".join(f"{name}\n" for name in series).encode())
            for series in (pl.Series("name", some, dtype=pl.String) for some in (gone, come))
        )
        assert splicing.lines(names, sizes, less, more)
        splice = splicing.end()
        assert isinstance(splice, Splice)
        wanted = "".join(f"{name}\n" for name in sorted({*names} - {*gone} | {*come})).encode()
        assert b"".join(splice.pieces()) == wanted
    # Not all that its key has, or a key that is not there, is none of it.
    twice = pl.Series("name", ["a", "a", "b"])
    for keys in (["a"], ["c"]):
        wrong = pl.Series("name", keys)
        lines = Lines(wrong, wrong.str.len_bytes() + 1, "".join(f"{key}\n" for key in keys).encode())
        none = Lines(wrong.clear(), (wrong.str.len_bytes() + 1).clear(), b"")
        assert not Splicing(b"a\na\nb\n").lines(twice, twice.str.len_bytes() + 1, lines, none)
