"""Manners of the command line: exit codes, messages that name the way out, and no byte of a feed on a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import click
import pytest
from installation import PROGRAM, World, call_main, names

from blocklist.cli import _COMMANDS, group
from blocklist.demo import _quoted
from blocklist.ingest.loopback import LoopbackServer, Page

HOSTILE = "\x1b]0;owned\x07\x1b[31m\u202egnp.exe\x9b2J\x00\x08"
# What a terminal would act on: C0 but tab and newline, DEL, C1, and what turns the direction of text.
DANGEROUS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.feed("first", ["evil.example", "192.0.2.0/24"])
    world.feed("second", ["evil.example"])
    world.export("list")
    world.export("dns", "rpz")
    assert world.update().code == 0
    return world


def assert_mannered(text: str) -> None:
    assert "Traceback" not in text and "unexpected" not in text and "This is a bug" not in text, text
    assert not DANGEROUS.search(text), text


# Mistakes

MISTAKES = [
    (("updaet",), "did you mean 'update'"),
    (("update", "frist"), "did you mean 'first'"),
    (("update", "--accept", "secnod"), "did you mean 'second'"),
    (("update", "--forse"), "--force"),
    (("export", "dsn"), "did you mean 'dns'"),
    (("export", "--format", "rpzz", "-o", "-"), "did you mean 'rpz'"),
    (("export", "--format", "rpz"), "-o"),
    (("export", "-o", "x"), "--format"),
    (("export", "--format", "domains", "-o", "-", "--policy", "defualt"), "did you mean 'default'"),
    (("export", "--format", "rpz", "-o", "-", "--option", "origin"), "K=V"),
    (("export", "--format", "rpz", "-o", "-", "--option", "orgin=x"), "did you mean 'origin'"),
    (("export", "--format", "rpz", "-o", "-", "--option", "ttl=many"), "ttl"),
    (("why",), "WHAT"),
    (("why", "not a thing!"), "examples:"),
    (("why", ""), "examples:"),
    (("why", "1.2.3.4.5"), "no domain"),
    (("why", "192.0.2.0/33"), "no domain"),
    (("why", "a" * 64 + ".example"), "no domain"),
    (("feeds", "show", "frist"), "did you mean 'first'"),
    (("feeds", "shwo", "first"), "did you mean 'show'"),
    (("formats", "show", "squidd"), "did you mean 'squid'"),
    (("release", "show", "99"), "there is no release 99"),
    (("release", "show", "x"), "not a valid"),
    (("release", "aprove", "dns"), "did you mean 'approve'"),
    (("held", "relese", "x.example"), "did you mean 'release'"),
    (("allow", "ad", "x.example"), "did you mean 'add'"),
    (("allow", "remove", "x", "--reason", "r"), "not a valid"),
    (("--jsn", "status"), "--json"),
]


@pytest.mark.parametrize(("words", "said"), MISTAKES, ids=lambda x: " ".join(x)[:40] if isinstance(x, tuple) else "")
def test_a_mistake_is_answered_with_the_nearest_right_word_and_exit_code_2(
    world: World, words: tuple[str, ...], said: str
) -> None:
    ran = world.run(*words)
    assert ran.code == 2, ran.text
    assert said.lower() in ran.err.lower(), ran.err
    assert ran.out == ""
    assert_mannered(ran.err)


@pytest.mark.parametrize(
    "words",
    [
        ("feeds", "test", "/no/such/file"),
        ("feeds", "test", "http://127.0.0.1:1/list"),
        ("feeds", "test", "ftp://x.example/"),
        ("feeds", "test", "first", "--format", "nonsense"),
        ("export", "--format", "domains", "-o", "/no/such/folder/list"),
        ("export", "--format", "domains", "-o", "/dev/full"),
        ("--config", "/no/such/file.toml", "status"),
        ("why", HOSTILE),
        ("allow", "add", HOSTILE, "--reason", "r"),
        ("update", HOSTILE),
        (HOSTILE,),
        ("export", HOSTILE),
        ("feeds", "show", HOSTILE),
        ("formats", "show", HOSTILE),
        ("release", "approve", HOSTILE),
        ("held", "list", "--guard", HOSTILE),
        ("why", "http://[::1"),
        ("why", "https://"),
        ("why", "//x/y\n\x1b[2J"),
        ("why", "0"),
        ("why", "::ffff:192.0.2.1/20"),
        ("release", "list", "--limit", "-1"),
        ("release", "show", "99999999999999999999999"),
        ("allow", "remove", "99999999999999999999999", "--reason", "r"),
        ("verify", HOSTILE),
    ],
)
def test_no_mistake_ends_in_a_traceback_or_reaches_the_terminal_raw(world: World, words: tuple[str, ...]) -> None:
    ran = world.run(*words)
    assert ran.code in (0, 1, 2, 3, 4)
    assert_mannered(ran.text)


BROKEN = {
    "not TOML": "state = [",
    "unknown key": 'stat = "var"',
    "wrong type": "state = 7",
    "unknown format": '[export.x]\nformat = "rpzz"\npath = "x"',
    "unknown feed": '[feeds]\nenable = ["urlhaus-hots"]',
    "unknown option": '[export.x]\nformat = "rpz"\npath = "x"\noptions = { orgin = "x" }',
    "hostile": '[export.x]\nformat = "\\u001b[31m\\u202e"\npath = "x"',
    "hostile key": '"\\u001b[2J\\u009b" = 1',
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_configuration_is_one_message_with_its_file_and_nothing_is_run(world: World, how: str) -> None:
    world.config.write_text(BROKEN[how])
    for words in (("update",), ("status",), ("why", "evil.example"), ("export",)):
        if words[0] == "why" and how in ("unknown option", "unknown format", "hostile"):
            assert_mannered(world.run(*words).text)
            continue  # it answers from the record, whatever the export would do
        ran = world.run(*words)
        assert ran.code == 1 and str(world.config) in ran.err, ran.err
        assert ran.out == ""
        assert_mannered(ran.err)


# Options and output


@pytest.mark.parametrize(
    "words",
    [
        ("status",),
        ("why", "evil.example"),
        ("feeds",),
        ("feeds", "list"),
        ("feeds", "show", "first"),
        ("formats",),
        ("formats", "show", "rpz"),
        ("formats", "test", "hosts"),
        ("held",),
        ("held", "list"),
        ("allow", "list"),
        ("release",),
        ("release", "list"),
        ("release", "show", "1"),
        ("update",),
        ("export", "--dry-run"),
    ],
    ids=" ".join,
)
def test_options_are_taken_before_and_after_the_command_and_json_is_all_there_is(
    world: World, words: tuple[str, ...]
) -> None:
    world.run("deny", "add", "x.example", "--reason", "r")
    world.run("allow", "add", "y.example", "--reason", "r")
    for asked in (("--json", *words), (*words, "--json"), (words[0], "--json", *words[1:])):
        ran = call_main("--config", world.config, *asked)
        assert ran.code == 0, (asked, ran.err)
        for line in ran.out.splitlines():
            assert isinstance(json.loads(line), dict), asked
    for asked in ((*words, "--config", str(world.config)), (words[0], "--config", str(world.config), *words[1:])):
        assert call_main(*asked).code == 0, asked
    for asked in (("--quiet", *words), (*words, "--quiet")):
        ran = world.run(*asked)
        assert ran.code == 0 and ran.out == "" and ran.err == "", asked


def test_groups_take_the_options_of_their_list(world: World) -> None:
    assert world.run("held", "--guard", "protect").code == 0
    assert world.run("release", "--limit", "1").code == 0


def test_exit_codes_tell_feeds_from_releases_and_the_highest_wins(world: World) -> None:
    world.feeds["second"]["url"] = "file:missing"
    world.write()
    assert world.run("update").code == 3
    world.exports["list"]["path"] = "nowhere/list"
    world.write()
    assert world.run("update").code == 4
    assert world.run("why", "unlisted.example").code == 0
    assert world.run("why", "evil.example").code == 0


def test_errors_and_remarks_go_to_standard_error(world: World) -> None:
    world.feeds["second"]["url"] = "file:missing"
    world.write()
    ran = world.run("update")
    assert "missing" in ran.out and "hint" not in ran.out
    assert world.run("update", "--quiet").out == ""


def on_a_terminal(world: World, *words: str, **environment: str) -> str:
    """What a person at a terminal sees."""
    main, child = pty.openpty()
    process = subprocess.Popen(
        [*PROGRAM, "--config", str(world.config), *words],
        stdout=child,
        stderr=child,
        stdin=subprocess.DEVNULL,
        env={k: v for k, v in os.environ.items() if k != "NO_COLOR"} | {"TERM": "xterm"} | environment,
    )
    os.close(child)
    seen = b""
    while True:
        try:
            piece = os.read(main, 65536)
        except OSError:
            break
        if not piece:
            break
        seen += piece
    os.close(main)
    assert process.wait(30) == 0
    return seen.decode()


def test_colour_is_for_terminals_whose_owner_wants_it(world: World) -> None:
    assert "\x1b[1m" in on_a_terminal(world, "status")
    assert "\x1b" not in on_a_terminal(world, "status", NO_COLOR="1")
    assert "\x1b" not in on_a_terminal(world, "status", "--no-color")
    assert "\x1b" not in world.call("status").text


def test_a_reader_that_leaves_early_is_no_error(world: World) -> None:
    world.feed("first", names(3000))
    world.update()
    for words in (("held",), ("feeds", "list"), ("export", "--format", "csv", "-o", "-"), ("formats", "--json")):
        process = world.start(*words)
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        error = process.stderr.read().decode()
        process.stderr.close()
        assert process.wait(30) in (0, 1, 141), words
        assert "Traceback" not in error and "rror" not in error, (words, error)


def test_a_terminal_that_knows_only_ascii_gets_something_readable(world: World) -> None:
    world.lines("first", ["b.example"])
    ran = world.call("update", env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    assert ran.code == 0, ran.err
    assert "updated" in ran.out
    assert_mannered(ran.text)


# Hostile text (C3)


def test_hostile_lines_urls_and_answers_reach_no_terminal_raw(tmp_path: Path) -> None:
    world = World(tmp_path)
    csv = {"name": "csv", "value": "d", "reason": "r"}
    world.feed("rows", f'd,r\nevil.example,"{HOSTILE}"\n{HOSTILE}.example,x\n'.encode(), format=csv)
    world.feed("text", f"bad.example # {HOSTILE}\n{HOSTILE}\n//files.example/{HOSTILE}\n".encode(), format="lines")
    world.export("list")
    with LoopbackServer({"/x": Page(HOSTILE.encode("utf-8"), 500, {"X-Note": "x"})}) as server:
        world.feed("web", url=server.url("/x"), allow_private=True, title=HOSTILE.replace("\x00", ""))
        world.feed("odd", url="file:" + HOSTILE.replace("\x00", "") + ".txt")
        for words in (
            ("update",),
            ("status",),
            ("feeds",),
            ("feeds", "show", "web"),
            ("feeds", "show", "rows"),
            ("feeds", "show", "text"),
            ("feeds", "test", "text"),
            ("why", "evil.example"),
            ("why", "bad.example"),
            ("held",),
            ("release",),
            ("deny", "add", "x.example", "--reason", HOSTILE, "--ticket", HOSTILE),
            ("deny", "list"),
            ("why", "x.example"),
            ("deny", "remove", "1", "--reason", HOSTILE),
            ("deny", "list", "--all"),
        ):
            for extra in ((), ("--json",)):
                ran = world.run(*words, *extra)
                assert_mannered(ran.text)
                if extra:
                    assert ran.out.isascii()
    assert world.exported("list") == ["bad.example", "evil.example"]


# Screens


def test_status_tells_scripts_numbers_and_utc_and_persons_their_own_time(world: World) -> None:
    world.feed("first", names(1200))
    assert world.update().code == 0
    (told,) = (e for e in world.run("status", "--json").json["exports"] if e["name"] == "list")
    assert told["entries"] == 1201 and isinstance(told["serial"], int)
    published = datetime.fromisoformat(told["published"])
    assert told["published"] == f"{published:%Y-%m-%dT%H:%M:%SZ}"
    for zone, hours in (("UTC", 0), ("EAST-5", 5), ("WEST8", -8)):
        local = f"{published + timedelta(hours=hours):%Y-%m-%d %H:%M}"
        assert re.search(rf"list +domains +live +1,201  {local}  ", world.call("status", env={"TZ": zone}).out)


def test_a_table_without_rows_has_no_header(world: World) -> None:
    assert world.run("allow").out == "0 allow rules\n"
    assert world.run("case").out == "0 cases are open; --all shows the closed ones\n"
    assert world.run("held").out == "0 held\n"


def test_a_decision_that_is_not_published_yet_says_so(world: World) -> None:
    waits = "in force from the next 'blocklist export' or 'update' (or add --now)\n"
    assert world.run("allow", "add", "evil.example", "--reason", "r").out.endswith(f"it covers 1 listed entry\n{waits}")
    assert world.run("allow", "remove", "1", "--reason", "r").out == f"rule 1 (allow evil.example) has ended\n{waits}"
    opened = world.run("case", "open", "evil.example", "--ticket", "INC-7", "--allow", "14d")
    assert opened.code == 0 and opened.out.endswith(waits)
    closed = world.run("case", "close", "1", "--reason", "r", "--end-allow").out
    assert closed.splitlines()[1:] == ["rule 2 (allow evil.example) has ended", waits.strip()]
    assert waits not in world.run("deny", "add", "other.example", "--reason", "r", "--now").out


def test_feeds_show_writes_keys_as_the_configuration_does_and_how_the_last_run_went(world: World) -> None:
    world.feed(
        "first", ["name", "evil.example"], format={"name": "csv", "value": "name", "where": {"name": ["evil.example"]}}
    )
    (world.base / "feeds" / "second.txt").unlink()
    assert world.update().code == 3
    assert (
        'format          { name = "csv", value = "name", where = { name = ["evil.example"] } }'
        in world.run("feeds", "show", "first").out
    )
    shown = world.run("feeds", "show", "second").out
    assert re.search(r"\noutcome +failed: .*there is no file .*; keeping [-0-9]{10} [:0-9]{5} UTC\n", shown)


def test_commands_that_the_demo_shows_can_be_pasted() -> None:
    for word in ("customer's shop", 'a "quoted" word', "30d", "--reason", "plain"):
        assert shlex.split(_quoted(word)) == [word]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("feed",), ["feeds"]),
        (("allow", ""), ["add", "import", "list", "remove"]),
        (("feeds", "show", "cert-p"), ["cert-pl"]),
        (("feeds", "enable", "set:mal"), ["set:malware"]),
        (("update", ""), ["first", "second"]),
        (("export", "d"), ["dns"]),
        (("release", "rollback", ""), ["dns", "list"]),
        (("formats", "show", "unb"), ["unbound"]),
        (("update", "--acc"), ["--accept"]),
        (("feeds", "rollback", "fir"), ["first"]),
        (("feeds", "unpin", ""), []),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, tuple) else "",
)
def test_tab_offers_what_there_is(world: World, words: tuple[str, ...], offered: list[str]) -> None:
    assert tab(world.config, *words) == offered


def test_mistakes_of_usage_speak_as_all_errors_do(world: World) -> None:
    ran = world.run("release", "show", "a\x1b[31m")
    assert_mannered(ran.text)
    error, usage, hint = ran.err.splitlines()
    assert error.startswith("error: invalid value for 'ID'")
    assert usage.startswith("  usage: ") and usage.endswith(" release show [OPTIONS] ID")
    assert hint.startswith("  hint: ") and "release show --help" in hint
    assert world.run("evidence").err.startswith("Usage: ")


def test_tab_is_silent_about_a_broken_configuration(world: World) -> None:
    world.config.write_text("[feeds\n")
    assert tab(world.config, "update", "") == []


def tab(config: Path, *words: str) -> list[str]:
    """What the shell's completion offers after `words`, of which the last is incomplete."""
    typed = shlex.join(("blocklist", *words))
    asked = {"COMP_WORDS": typed, "COMP_CWORD": str(len(words)), "_BLOCKLIST_COMPLETE": "bash_complete"}
    environment = {**os.environ, **asked, "BLOCKLIST_CONFIG": str(config)}
    done = subprocess.run(PROGRAM, env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


# Help


def commands() -> list[tuple[str, ...]]:
    groups: dict[str, tuple[str, ...]] = {"allow": ("add", "list", "remove"), "deny": ("add", "list", "remove")}
    groups |= {"feeds": ("list", "show", "test"), "formats": ("list", "show", "test")}
    groups |= {"held": ("list", "release", "revoke"), "release": ("list", "show", "approve")}
    return [(c,) for c in _COMMANDS] + [(g, s) for g, subs in groups.items() for s in subs]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_explains_itself(words: tuple[str, ...]) -> None:
    ran = call_main(*words, "--help")
    assert ran.code == 0 and ran.err == ""
    assert "Usage: " in ran.out
    body = ran.out.partition("\n\n")[2]
    assert re.search(r"[A-Z][^\n]+[.:]", body), "a sentence"
    if len(words) == 1 and words[0] not in ("status", "demo", "init"):
        assert f"blocklist {words[0]}" in body, "an example"
    assert len(max(ran.out.splitlines(), key=len)) <= 100


def test_the_first_help_teaches_and_lists_every_command() -> None:
    ran = call_main("--help")
    assert ran.code == 0 and all(f"  {name} " in ran.out for name in _COMMANDS)
    assert "Examples:" in ran.out and "Exit codes:" in ran.out


@pytest.mark.parametrize("zone", ["XYZ-25:99", "UTC+30"])
def test_a_time_zone_that_is_none_is_said(world: World, zone: str) -> None:
    words = [sys.executable, "-m", "blocklist", "--config", str(world.config), "status"]
    ran = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "TZ": zone})
    assert ran.returncode == 2 and f"the variable TZ is '{zone}', which is no time zone" in ran.stderr
    assert_mannered(ran.stderr)
    assert subprocess.run(words, capture_output=True, env={**os.environ, "TZ": "Nowhere/None"}).returncode == 0


def test_questions_import_nothing_slow(world: World) -> None:
    code = (
        "import sys\nfrom blocklist.cli import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "slow = {'polars', 'httpx', 'sqlite_utils', 'dns', 'jinja2', 'zstandard'}\n"
        "print(sorted(slow & set(sys.modules)), file=sys.stderr)"
    )
    for words, allowed in (
        (["--help"], "[]"),
        (["--version"], "[]"),
        (["--config", str(world.config), "why", "evil.example"], "['zstandard']"),
        (["--config", str(world.config), "status"], "[]"),
        (["--config", str(world.config), "allow", "list"], "[]"),
        (["--config", str(world.config), "release", "list"], "[]"),
        (["--config", str(world.config), "feeds", "list"], "[]"),
    ):
        ran = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
        assert ran.stderr.strip() == allowed, words


def test_a_format_is_tried_by_name_or_file_and_says_what_it_covers(world: World, tmp_path: Path) -> None:
    ran = world.call("formats", "test", "hosts")
    assert ran.code == 0 and "0.0.0.0 exact.example" in ran.out and "can't    a name with all below it" in ran.out
    assert "lost     5 subtree" in ran.out and "checked  by structure" in ran.out
    mine = tmp_path / "mine.toml"
    mine.write_text('title = "Mine"\nkinds = ["domain"]\nsuffix = "||{name}^"\ncheck = ["false"]\n')
    ran = world.call("formats", "test", str(mine))
    assert ran.code == 4 and "false rejects it" in ran.err
    mine.write_text('title = "Mine"\nkinds = ["domain"]\nsuffix = "||{nam}^"\n')
    ran = world.call("formats", "test", str(mine))
    assert ran.code != 0 and "mine.toml: suffix: has no {name}" in ran.err


def _every_command() -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        assert found is not None
        yield name, found
        if isinstance(found, click.Group):
            for inner, command in found.commands.items():
                yield f"{name} {inner}", command


@pytest.mark.parametrize(("name", "command"), [pytest.param(*c, id=c[0]) for c in _every_command()])
def test_every_help_has_an_example_says_what_each_option_is_and_is_not_cut_off(
    name: str, command: click.Command
) -> None:
    said = call_main(*name.split(), "--help").out
    assert re.search(r"Examples?:\n    \S", said)
    assert "Everywhere: --config FILE, --json" in said
    assert not re.search(r"[a-z]\.\.\.", said)  # click shortens so; `NAME...` is something else
    for option in command.params:
        if isinstance(option, click.Option) and not option.hidden:
            assert option.help, option.name
            assert not re.search("RANGE|INTEGER|PATH", option.make_metavar(click.Context(command))), option.name


def test_what_a_reload_said_stays_on_its_line(world: World) -> None:
    world.exports["list"]["reload"] = world.script("reload", "echo first >&2; echo second >&2; exit 1")
    world.write()
    world.run("deny", "add", "x.example", "--reason", "r")
    for words in (("export",), ("status",), ("release",)):
        ran = world.run(*words)
        assert "\\n" not in ran.out, ran.out
    assert "failed (status 1); first; second" in world.run("export").out


def test_a_file_that_is_no_release_and_can_not_be_written_is_no_failed_release(world: World) -> None:
    for words in (("report", "-o", "nowhere/x.html"), ("export", "--format", "csv", "-o", "nowhere/x.csv")):
        ran = world.run(*words)
        assert ran.code == 1 and "there is no folder nowhere" in ran.err, ran.err
