"""Questions that can't be answered as asked: each ends in words, none in a traceback, none in a wrong answer."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from installation import World, names

HOSTILE = "evil.example # \x1b[31m\u202e<script>alert(1)</script> =HYPERLINK(1)"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World(tmp_path_factory.mktemp("bad"))
    world.feed("alpha", [*names(5), HOSTILE, "192.0.2.0/24", "co.uk"])
    world.export("dns", "rpz")
    world.export("fw", "cidr")
    assert world.update("--no-verify").code == 0
    return world


@pytest.mark.parametrize(
    "words",
    [
        ("why", "evil.example", "--at"),
        ("held", "--at"),
        ("export", "dns", "-o", "-", "--at"),
        ("export", "--format", "domains", "-o", "-", "--at"),
        ("match", "NAMES", "--at"),
        ("diff",),
        ("report", "-o", "REPORT", "--since"),
    ],
    ids=lambda words: " ".join(words),
)
@pytest.mark.parametrize(
    ("date", "said"),
    [
        ("2001-03-03", "begins|begin|nothing|first release|no run"),
        ("2999-01-01", "lies in the future"),
        ("9999-12-31", "lies in the future"),
        ("0999-01-01", "begins|begin|nothing|first release|no run"),
        ("0001-01-01", "begins|begin|nothing|first release|no date"),
        ("2026-02-30", "hint"),
        ("03/03/2026", "hint"),
        ("2026-03-29T02:30", "clock"),  # skipped in Berlin
        ("2025-10-26T02:30", "twice|ambiguous|two"),  # and there twice
        ("", "hint"),
    ],
    ids=["before", "future", "last", "early", "first", "none", "american", "skipped", "twice", "empty"],
)
def test_every_command_refuses_a_date_that_is_no_moment_of_the_record(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], date: str, said: str
) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        (tmp_path / "names").write_text("evil.example\n")
        places = {"NAMES": str(tmp_path / "names"), "REPORT": str(tmp_path / "report.html")}
        ran = world.run(*(places.get(word, word) for word in words), date)
        if words[0] == "report" and date in ("2001-03-03", "0999-01-01"):
            assert ran.code == 0, ran.text  # a report of all there is
            return
        assert ran.code in (1, 2, 4) and "Traceback" not in ran.text, ran.text
        assert any(one in ran.err for one in said.split("|")), ran.err
        assert not (tmp_path / "report.html").exists()
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("what", "code", "said"),
    [
        ("never.seen.example", 0, "no feed lists it, nor a name or network above it"),
        ("192.0.2.77", 0, "because 192.0.2.0/24 is listed"),
        ("198.51.100.1", 0, "is not blocked"),
        ("co.uk", 0, "public-suffix"),
        ("uk", 0, "is not blocked"),
        ("no such name", 2, "is no domain, address, network or URL"),
        ("a..b.example", 2, "is no domain, address, network or URL"),
        ("x" * 64 + ".example", 2, "is no domain, address, network or URL"),
        ("192.0.2.256", 2, "is no domain, address, network or URL"),
        ("http://[::1", 2, "is no domain, address, network or URL"),
        ("\u202eevil.example", 2, "is no domain, address, network or URL"),
        ("", 2, "is no domain, address, network or URL"),
    ],
)
def test_things_that_nobody_listed_or_that_are_none(world: World, what: str, code: int, said: str) -> None:
    for at in ((), ("--at", "now")):
        ran = world.run("why", what, *at)
        assert ran.code == code and said in ran.text, ran.text
        assert "\u202e" not in ran.text and "Traceback" not in ran.text
    assert world.run("history", what).code == code


@pytest.mark.parametrize("words", [("probe", "--grace", "soon"), ("verify", "--budget", "soon")])
def test_a_span_that_is_none_is_refused_in_words(world: World, words: tuple[str, ...]) -> None:
    ran = world.run(*words)
    assert ran.code == 2 and "'soon' is not a duration" in ran.err


def test_a_hostile_line_reaches_no_terminal_page_or_spreadsheet(world: World, tmp_path: Path) -> None:
    for words in (("why", "evil.example"), ("history", "evil.example"), ("report", "-o", tmp_path / "r.html")):
        ran = world.run(*words)
        assert ran.code == 0 and "\x1b" not in ran.text and "\u202e" not in ran.text
    assert "<script>" not in (tmp_path / "r.html").read_text()
    assert "<script>" in world.run("why", "evil.example").out  # text is text on a screen


def test_a_lost_download_leaves_its_digest_and_place(tmp_path: Path) -> None:
    world = World(tmp_path)
    path = world.feed("alpha", ["evil.example"])
    world.export("dns", "rpz")
    assert world.update("--no-verify").code == 0
    ((number, sha256, url),) = world.rows("SELECT id, sha256, url FROM snapshot")
    (world.state / "snapshots" / "00000" / f"{number}.zst").unlink()
    ran = world.run("why", "evil.example")
    assert ran.code == 0 and "evil.example is blocked in dns" in ran.out
    assert f"its download is lost; of the proof are left sha256:{sha256}, {url}" in ran.out
    assert world.why("evil.example")["listings"][0]["text"] is None and path.exists()


@pytest.mark.parametrize(
    "words",
    [
        ("allow", "add", "evil.example", "--reason", "r\udcff"),
        ("allow", "add", "evil.example", "--reason", "r", "--ticket", "\udcff\x1b[31m"),
        ("held", "release", "co.uk", "--reason", "\udcff"),
    ],
    ids=["reason", "ticket", "hold"],
)
def test_words_that_are_no_utf_8_are_not_recorded(world: World, words: tuple[str, ...]) -> None:
    before = world.rows("SELECT count(*) FROM rule"), world.rows("SELECT count(*) FROM event")
    ran = world.run(*words)
    assert ran.code == 2 and "\x1b" not in ran.text and "Traceback" not in ran.text, ran.text
    assert "is no UTF-8" in ran.err, ran.err
    assert before == (world.rows("SELECT count(*) FROM rule"), world.rows("SELECT count(*) FROM event"))
