"""Choosing feeds: sets, the built-in essential list, `feeds list`, and edits of blocklist.toml that spare the rest."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from installation import World, call_main

from blocklist.choose import disabled, enabled
from blocklist.config import Config, load, parse
from blocklist.errors import ConfigError

COMMENTED = """\
# of the ministry
state = "var"  # beside this file

[feeds]
enable = [
    "cert-pl",      # the national list
    "set:c2",
]

[protect]
domains = ["ministry.example"]  # ours
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    file = tmp_path / "blocklist.toml"
    file.write_text(COMMENTED)
    file.chmod(0o640)
    return file


def on(path: Path) -> set[str]:
    return set(load(path).feeds)


# Enabling and disabling


def test_enabling_keeps_comments_order_and_mode(path: Path) -> None:
    ran = call_main("--config", path, "feeds", "enable", "openphish", "set:phishing")
    assert ran.code == 0, ran.err
    assert "forbid commercial use: openphish" in ran.out
    text = path.read_text()
    for kept in ("# of the ministry", "# beside this file", '"cert-pl",      # the national list', "# ours"):
        assert kept in text
    assert path.stat().st_mode & 0o777 == 0o640
    assert {"openphish", "phishing-army", "feodo-tracker"} <= on(path)


def test_disabling_one_of_a_set_leaves_the_others(path: Path) -> None:
    assert call_main("--config", path, "feeds", "disable", "sslbl", "cert-pl").code == 0
    assert on(path) == {"essential", "feodo-tracker", "c2-intel-domains"}
    assert "cert-pl" not in path.read_text() and 'disable = ["sslbl"]' in path.read_text()
    assert call_main("--config", path, "feeds", "enable", "sslbl").code == 0
    assert "sslbl" in on(path) and "disable" not in path.read_text()


def test_without_a_choice_the_starter_set_stays_when_a_feed_is_added(path: Path) -> None:
    path.write_text("")
    before = on(path)
    assert call_main("--config", path, "feeds", "enable", "cert-pl").code == 0
    assert on(path) == before | {"cert-pl"}
    assert call_main("--config", path, "feeds", "disable", "ipsum-3").code == 0
    assert on(path) == (before | {"cert-pl"}) - {"ipsum-3"}


def test_a_feed_defined_in_the_file_can_be_disabled(path: Path) -> None:
    path.write_text('[feed.orders]\ntitle = "o"\nurl = "file:o.csv"\ncategory = "sanctioned-media"\n')
    assert "orders" in on(path)
    assert call_main("--config", path, "feeds", "disable", "orders").code == 0
    assert "orders" not in on(path)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["enable", "cert-lp"], "did you mean 'cert-pl'?"),
        (["enable", "set:phising"], "did you mean 'phishing'?"),
        (["enable", "phishing"], "write 'set:phishing'"),
        (["disable", "essential"], "[protect] essential = false"),
    ],
)
def test_a_wrong_name_changes_nothing(path: Path, words: list[str], says: str) -> None:
    ran = call_main("--config", path, "feeds", *words)
    assert ran.code == 2 and says in ran.err
    assert path.read_text() == COMMENTED


def test_a_file_with_a_mistake_is_not_edited(path: Path) -> None:
    path.write_text(COMMENTED.replace("domains", "domain"))
    before = path.read_bytes()
    ran = call_main("--config", path, "feeds", "enable", "openphish")
    assert ran.code == 1 and "did you mean 'domains'?" in ran.err
    assert path.read_bytes() == before


def test_without_a_file_there_is_nothing_to_edit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.delenv("BLOCKLIST_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    ran = call_main("feeds", "enable", "openphish")
    assert ran.code == 1 and "blocklist init" in ran.err


ENTRIES = st.lists(
    st.sampled_from(["cert-pl", "sslbl", "openphish", "ipsum-3", "set:c2", "set:starter", "set:phishing"]),
    min_size=1,
    max_size=3,
)


@settings(deadline=None, max_examples=60)
@given(ENTRIES, ENTRIES, st.none() | ENTRIES)
def test_what_is_disabled_is_off_and_what_is_enabled_is_on(add: list[str], take: list[str], first: list[str]) -> None:
    def read(text: str) -> Config:
        return parse(text, Path("/nonexistent/blocklist.toml"))

    def members(entries: list[str]) -> set[str]:
        chosen = read(f"[feeds]\nenable = {entries!r}\n".replace("'", '"'))
        return set(chosen.feeds) - {"essential"}

    text = "" if first is None else f"[feeds]\nenable = {first!r}\n".replace("'", '"')
    before = read(text)
    after = disabled(text, before, take)
    assert set(read(after).feeds) == set(before.feeds) - members(take)
    again = enabled(after, read(after), add)
    assert set(read(again).feeds) == set(read(after).feeds) | members(add)


# The essential list


def test_the_essential_list_guards_where_nothing_else_does(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.set("protect", essential=True)
    world.feed("bad", ["evil.example", "github.com", "www.google.com", "8.8.8.8", "time.windows.com", "windows.com"])
    world.export("out", "domains", kinds=["domain"])
    ran = world.update()
    assert ran.code == 0, ran.err
    assert "besides the built-in essential list" in ran.err
    assert ran.feed("essential")["entries"] > 700
    assert world.exported("out") == ["evil.example"]
    assert world.why("github.com")["references"][0]["feed"] == "essential"
    again = world.update()
    assert again.feed("essential")["outcome"] == "unchanged" and "besides the built-in" in again.err


def test_a_first_run_over_one_feed_takes_the_essential_list_too(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.set("protect", essential=True)
    world.feed("bad", ["evil.example", "github.com"])
    world.feed("other", ["other.example"])
    world.export("out", "domains")
    assert [f["id"] for f in world.update("bad").json["feeds"]] == ["essential", "bad"]
    assert world.exported("out") == ["evil.example"]
    assert [f["id"] for f in world.update("other").json["feeds"]] == ["other"]


def test_only_its_own_key_turns_the_essential_list_off(path: Path) -> None:
    for text in (
        '[feeds]\ndisable = ["essential"]\n',
        '[feed.essential]\naction = "inform"\n',
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=r"\[protect\] essential = false"):
            load(path)
    path.write_text("[feeds]\nenable = []\n")
    assert on(path) == {"essential"}
    path.write_text("[feeds]\nenable = []\n[protect]\nessential = false\n")
    assert on(path) == set()


def test_a_package_url_is_for_the_essential_list_alone(path: Path) -> None:
    path.write_text('[feed.x]\ntitle = "x"\nurl = "package:essential.txt"\ncategory = "other"\n')
    with pytest.raises(ConfigError, match="none of https:, http:, file:"):
        load(path)


# Sets and screens


def test_contested_lists_are_on_only_when_they_are_named(path: Path) -> None:
    path.write_text("")
    contested = {"disinformation", "sanctioned-media", "anonymizer"}
    assert not {f.category for f in load(path).feeds.values()} & contested
    path.write_text('[feeds]\nenable = ["set:disinformation"]\n')
    assert {f.category for f in load(path).feeds.values()} == {"disinformation", "reference"}


@pytest.mark.parametrize("width", [80, 120])
def test_the_list_fits_the_terminal(path: Path, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    ran = call_main("--config", path, "feeds")
    assert ran.code == 0 and max(map(len, ran.out.splitlines())) <= width
    assert re.search(r"^c2 \([0-9]+, 3 enabled\)$", ran.out, re.MULTILINE) and "* cert-pl" in ran.out
    assert any(line.startswith("  openphish") and "!own terms" in line for line in ran.out.splitlines())
    assert ("CERT Polska" in ran.out) == (width == 120)


def test_the_filters_of_the_list(path: Path) -> None:
    def ids(*words: str) -> set[str]:
        ran = call_main("--config", path, "feeds", "list", "--json", *words)
        assert ran.code == 0, ran.err
        import json

        return {json.loads(line)["id"] for line in ran.out.splitlines()}

    assert ids("--enabled") == on(path)
    assert ids("--category", "stalkerware") == {"stalkerware"}
    assert ids("--set", "c2") == {"feodo-tracker", "sslbl", "c2-intel-domains"}
    assert ids("--set", "phishing", "--enabled") == {"cert-pl"}
    assert call_main("--config", path, "feeds", "list", "--set", "phising").code == 2
    assert call_main("--config", path, "feeds", "list", "--category", "phising").code == 2


def test_the_list_shows_what_the_last_run_brought(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.feed("bad", ["evil.example", "worse.example"])
    world.update()
    ran = world.run("feeds", "list", "--enabled")
    assert "updated 2" in ran.out


def test_sets_say_what_their_licences_ask(path: Path) -> None:
    ran = call_main("--config", path, "feeds", "sets")
    assert ran.code == 0
    assert "set:phishing" in ran.out and "2 of 6 forbid commercial use: openphish, phishing-army" in ran.out


def test_an_update_says_once_what_the_licences_of_new_feeds_ask(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.feed("bad", ["evil.example"], licence="CC-BY-NC-4.0", commercial_use="no")
    assert "1 of 1 forbids commercial use: bad" in world.update().err
    assert "commercial" not in world.update().err
