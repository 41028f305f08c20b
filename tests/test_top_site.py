"""A name becomes a top site, leaves the top, and a person decides: what each day publishes, and what `why` says."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from installation import World

from blocklist import clock
from blocklist.person import whoami

START = datetime(2026, 11, 1, 6, tzinfo=UTC)
TOP = [f"site{i:02}.example" for i in range(30)]


def test_the_day_it_becomes_a_top_site_the_day_it_leaves_and_the_day_a_person_releases_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path)
    screens: dict[int, list[str]] = {}

    def live(number: int, what: str, note: Callable[[], object] = lambda: None) -> list[str]:
        """The day `number`: what happens, an update, what is exported; the screen of `why` is kept."""
        monkeypatch.setattr(clock, "now", lambda: START + timedelta(days=number))
        note()
        assert world.update("--no-verify").code == 0
        screens[number] = world.run("why", what).out.splitlines()
        return world.exported("list")

    world.feed("phish", ["portal.example", "evil.example"], format="wildcard", category="phishing", confidence=80)
    world.feed("top", TOP, category="reference", ranked=True)
    world.export("list", format="domains")
    assert live(0, "portal.example") == ["evil.example", "portal.example"]

    # It enters the top, at place 3: from the same day on it is held.
    def enter() -> None:
        world.lines("top", [*TOP[:2], "portal.example", *TOP[2:]])

    assert live(1, "portal.example", enter) == ["evil.example"]
    assert "rank 3 of top" in world.run("held", "list").out

    # It drops out: it belongs to the top for 30 days more, so that ranks that flap don't block and free it by turns.
    def leave() -> None:
        world.lines("top", TOP)

    assert live(2, "portal.example", leave) == ["evil.example"]
    assert live(31, "portal.example") == ["evil.example"]
    assert live(32, "portal.example") == ["evil.example", "portal.example"]
    assert "0 held" in world.run("held", "list").out

    # It comes back, and a person knows better: released, it is blocked, and stays so, until the release is revoked.
    assert live(33, "portal.example", enter) == ["evil.example"]

    def say(verb: str) -> None:
        assert world.run("held", verb, "portal.example", "--reason", "seen by the CERT", "--now").code == 0

    assert live(34, "portal.example", lambda: say("release")) == ["evil.example", "portal.example"]
    assert live(80, "portal.example") == ["evil.example", "portal.example"]
    assert live(81, "portal.example", lambda: say("revoke")) == ["evil.example"]

    who = whoami()
    listed = [
        "feed   category  confidence  since             until  line",
        "phish  phishing          80  2026-11-01 06:00  –         1  portal.example",
    ]
    confidence = "confidence 80 (policy default asks 50) · not verified · no rules"
    blocked = ["portal.example is blocked in list (domains)", "  because it is listed", *listed]
    allow = "  to let it through: blocklist allow add portal.example --reason '…' --now"
    held = [
        "portal.example is not blocked in any export",
        "  not in list (domains): portal.example is held (reference: named by top, line 3)",
        *listed,
    ]
    ways = [
        "  to let it pass guard reference: blocklist held release portal.example --reason '…' --now",
        "  to block it: blocklist deny add portal.example --reason '…' --now",
    ]
    named, hold = (
        "reference top names it in line 3",
        "hold: portal.example by guard reference: named by top, line 3, since",
    )
    again = f"{named}: portal.example"
    dropped = f"{named}, dropped it 2026-11-03 06:00, counts until 2026-12-03 06:00: portal.example"
    assert screens[0] == screens[32] == [*blocked, f"{confidence} · no holds", allow]
    assert screens[1] == [*held, again, f"{confidence} · 1 hold", f"{hold} 2026-11-02 06:00", *ways]
    assert screens[2] == screens[31] == [*held, dropped, f"{confidence} · 1 hold", f"{hold} 2026-11-02 06:00", *ways]
    assert screens[33] == screens[81] == [*held, again, f"{confidence} · 1 hold", f"{hold} 2026-12-04 06:00", *ways]
    passed = f"{hold} 2026-12-04 06:00; let pass by {who}: seen by the CERT"
    assert screens[34] == screens[80] == [*blocked, again, f"{confidence} · 1 hold", passed, allow]
