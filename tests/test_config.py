"""The configuration: mistakes told all at once, with place and nearest right name; strangers' files refused."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from installation import World, call_main, names

from blocklist.cli.screen import Screen
from blocklist.cli.setup import configuration
from blocklist.config import Config, load
from blocklist.errors import ConfigError
from blocklist.regular import NotAFileError, read_regular


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No configuration of the machine's or the user's own, and a folder that only we write."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    monkeypatch.setenv("HOME", str(home))
    for variable in ("BLOCKLIST_CONFIG", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(home)
    mask = os.umask(0o022)
    yield
    os.umask(mask)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "etc"
    folder.mkdir(mode=0o755)
    return folder / "blocklist.toml"


def written(path: Path, text: str) -> Config:
    path.write_text(text, "utf-8")
    return load(path)


def mistakes(path: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        written(path, text)
    assert error.value.exit_code == 1 and error.value.hint
    return [line.removeprefix(f"{path}: ") for line in error.value.message.splitlines()]


def add_feed(path: Path, name: str, text: str) -> Path:
    folder = path.parent / "feeds.d"
    folder.mkdir(exist_ok=True)
    file = folder / name
    file.write_text(text)
    return file


# What is right


def test_without_a_file_the_defaults_do_something_useful() -> None:
    config = load()
    assert config.path is None
    assert config.state == (Path.home() / ".local/share/blocklist").resolve()
    assert {e.format for e in config.exports.values()} == {"rpz", "nftables", "squid"}
    assert set(config.policies) == {"default"} and set(config.feeds) <= set(config.catalog)


def test_what_the_defaults_publish_beside_the_record_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    # No feed can be fetched here, so the first lists wait for a person, and hold a rule alone.
    assert call_main("deny", "add", "evil.test", "--reason", "r", "--now").code == 4
    assert "published" in call_main("release", "approve", "dns").out
    published = tmp_path / "blocklist" / "exports" / "blocklist.rpz"
    assert "evil.test" in published.read_text()
    assert call_main("export", "dns", "--json").export("dns")["outcome"] == "unchanged"


def test_files_of_the_operator_in_folders_of_the_state_stay(tmp_path: Path) -> None:
    world = World(tmp_path)
    (tmp_path / "incoming").mkdir()
    theirs = [tmp_path / "incoming" / "orders.csv", tmp_path / "incoming" / "more", tmp_path / "exports" / "notes.txt"]
    world.export("list", kinds=["domain"])
    world.feed("a", names(3), url="file:incoming/orders.csv")
    for path in theirs:
        path.write_text("evil.example\n")
    world.config.write_text('state = "."\n' + world.config.read_text())
    assert world.update().code == 0
    assert world.update("--force").export("list")["outcome"] == "unchanged"
    assert world.run("doctor", "--repair").code == 0
    assert world.exported("list") == ["evil.example"] and all(path.exists() for path in theirs)


def test_an_empty_file_is_a_configuration(path: Path) -> None:
    config = written(path, "")
    assert config.state == path.parent / "var" and not config.exports


def test_files_are_found_by_option_variable_and_place(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text("")
    assert load(path).path == load(path.parent).path == path
    monkeypatch.setenv("BLOCKLIST_CONFIG", str(path))
    assert load().path == path
    monkeypatch.delenv("BLOCKLIST_CONFIG")
    monkeypatch.chdir(path.parent)
    assert load().path == Path("blocklist.toml")


def test_a_feed_of_ones_own_is_enabled_and_an_override_is_not(path: Path) -> None:
    add_feed(path, "catalogued.toml", 'title = "C"\nurl = "https://lists.example/c"\ncategory = "malware"\n')
    config = written(
        path,
        """
        [feeds]
        enable = []
        [feed.catalogued]
        confidence = 90
        [feed.orders]
        url = "file:orders.csv"
        category = "sanctioned-media"
        format = { name = "csv", value = "domain" }
        """,
    )
    assert list(config.feeds) == ["essential", "orders"]
    assert (config.feeds["orders"].title, config.feeds["orders"].min_interval) == ("orders", "0")
    assert (config.catalog["catalogued"].confidence, config.catalog["catalogued"].title) == (90, "C")


def test_feeds_of_a_folder_are_enabled_by_name(path: Path) -> None:
    add_feed(path, "mine.toml", 'title = "M"\nurl = ["https://a.example/1", "https://a.example/2"]\ncategory = "c2"\n')
    config = written(path, '[feeds]\nenable = ["mine"]\n')
    assert list(config.feeds) == ["essential", "mine"] and len(config.feeds["mine"].urls) == 2


def test_protected_names_are_kept_in_canonical_form(path: Path) -> None:
    config = written(
        path, '[protect]\ndomains = ["Ministry.Example.", "bücher.example"]\nnetworks = ["192.0.2.0/24"]\n'
    )
    assert config.protect.domains == ["ministry.example", "xn--bcher-kva.example"]


# C1: what is wrong


def test_a_missing_file_says_how_to_write_one(path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        load(path)
    assert error.value.message == f"{path}: no such file" and "blocklist init" in (error.value.hint or "")


def test_broken_toml_says_the_line(path: Path) -> None:
    path.write_text("state = 'var'\n\nkeep = \n")
    with pytest.raises(ConfigError, match=r"blocklist\.toml: .*line 3"):
        load(path)


def test_the_mark_that_some_editors_put_first_is_no_mistake(path: Path) -> None:
    path.write_bytes(b"\xef\xbb\xbf" + b'state = "there"\r\n')
    assert load(path).state == path.parent / "there"


@pytest.mark.parametrize("place", ["blocklist.toml", "feeds.d/x.toml", "exporters.d/x.toml"])
def test_brackets_without_end_are_a_sentence(tmp_path: Path, place: str) -> None:
    world = World(tmp_path)
    world.write()
    (tmp_path / place).parent.mkdir(exist_ok=True, mode=0o755)
    (tmp_path / place).write_text(f"x = {'[' * 3000}")
    ran = world.run("status")
    assert ran.code == 1 and f"{place}: can't be read: too many brackets" in ran.err, ran.err


def test_a_nul_is_told_wherever_it_is(path: Path) -> None:
    text = 'state = "a\\u0000b"\n[export.x]\nformat = "domains"\npath = "x"\nreload = ["a", "\\u0000"]\n'
    assert mistakes(path, text) == ["state: holds a NUL character", "export.x.reload: holds a NUL character"]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("blocklist.toml", "is this configuration"),
        ("etc/../blocklist.toml", "is this configuration"),
        ("link", "is this configuration"),
        ("lists/orders.txt", "is what the feed orders is read from"),
        ("var/record.db", "is the record, or a copy of it"),
        ("var/record.db-wal", "is the record, or a copy of it"),
        ("var/kept/00/x", "is in {state}, among what the record keeps there"),
        ("var/columns/x", "is in {state}, among what the record keeps there"),
        ("var/lock", "is in {state}, among what the record keeps there"),
        ("var/exports/3.frames", "is in {state}, among what the record keeps there"),
        ("var/exports/3.base", "is in {state}, among what the record keeps there"),
        ("feeds.d/x.toml", "is in feeds.d/"),
        ("secrets/key", "is in secrets/"),
        ("loop", "{base}/loop is a link that leads to itself"),
    ],
)
def test_a_list_is_not_published_over_what_is_needed(path: Path, target: str, message: str) -> None:
    (path.parent / "etc").mkdir()
    (path.parent / "link").symlink_to(path)
    (path.parent / "loop").symlink_to("loop")
    text = (
        '[feed.orders]\nurl = "file:lists/orders.txt"\nformat = "lines"\ncategory = "other"\n'
        f'[export.x]\nformat = "domains"\npath = "{target}"\n'
    )
    wanted = message.format(base=path.parent, state=path.parent / "var")
    assert mistakes(path, text) == [f"export.x.path: {wanted}"]


def test_lists_may_lie_in_the_folder_of_the_state(path: Path) -> None:
    for state, target in (("var", "var/exports/list"), ("var", "var/list"), (".", "exports/list"), (".", "list")):
        assert written(path, f'state = "{state}"\n[export.x]\nformat = "domains"\npath = "{target}"\n').exports


def test_what_the_disk_refuses_is_no_bug(path: Path) -> None:
    path.write_text(f'state = "{"x" * 300}"\n')
    ran = call_main("--config", path, "status")
    assert ran.code == 1 and "file name too long" in ran.err and "bug" not in ran.err


def test_text_that_is_not_utf_8_is_told(path: Path) -> None:
    path.write_bytes(b"state = '\xff'\n")
    with pytest.raises(ConfigError, match="not UTF-8 text"):
        load(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sate = 'x'", "sate: unknown key; did you mean 'state'?"),
        ("[gates]\nmax_chnge = 0.5", "gates.max_chnge: unknown key; did you mean 'max_change'?"),
        ("[verify]\nrate = 'fast'", "verify.rate: expected a whole number, got text"),
        ("[verify]\nrate = 0", "verify.rate: expected a whole number >= 1"),
        ("[verify]\nresolvers = '192.0.2.53'", "verify.resolvers: expected a list, got text"),
        ("[verify]\nresolvers = ['192.0.2.53', 53]", "verify.resolvers, item 2: expected text, got a whole number"),
        ("[verify.control]\nexist = []", "verify.control.exist: unknown key; did you mean 'exists'?"),
        ("protect = 'x'", "protect: expected a table, got text"),
        (
            "[feeds]\nenable = ['urlhaus-host']",
            "feeds.enable: unknown feed 'urlhaus-host'; did you mean 'urlhaus-hosts'?",
        ),
        (
            "[feed.x]\nurl = 'file:x'\ncategory = 'malwar'",
            "feed.x.category: unknown value 'malwar'; did you mean 'malware'?",
        ),
        (
            "[feed.x]\nurl = 'file:x'\ncategory = 'c2'\nformat = 'host'",
            "feed.x.format: unknown format 'host'; did you mean 'hosts'?",
        ),
        (
            "[feed.x]\nurl = 'file:x'\ncategory = 'c2'\nformat = { name = 'jsnl', value = 'a' }",
            "feed.x.format.name: unknown value 'jsnl'; did you mean 'jsonl'?",
        ),
        (
            "[feed.x]\nurl = 'file:x'\ncategory = 'c2'\nkinds = ['domian']",
            "feed.x.kinds, item 1: unknown value 'domian'; did you mean 'domain'?",
        ),
        (
            "[feed.x]\nurl = 'file:x'\ncategory = 'c2'\nconfidence = 101",
            "feed.x.confidence: expected a whole number <= 100",
        ),
        ("[feed.x]\nurl = 5\ncategory = 'c2'", "feed.x.url: expected text or a list, got a whole number"),
        ("[feed.x]\nurl = []\ncategory = 'c2'", "feed.x.url: is empty; name at least one URL"),
        (
            "[feed.x]\nurl = 'gopher://x'\ncategory = 'c2'",
            "feed.x.url: 'gopher://x' is none of https:, http:, file:, taxii+https: and axfr:",
        ),
        ("[feed.x]\ncategory = 'c2'", "feed.x: is missing the key 'url'"),
        (
            "[feed.x]\nid = 'y'\nurl = 'file:x'\ncategory = 'c2'",
            "feed.x.id: is given by the file's or table's name; remove the key",
        ),
        (
            "[feed.'a b']\nurl = 'file:x'\ncategory = 'c2'",
            "feed.a b: a feed's id has only letters, digits, '-' and '_'",
        ),
        (
            "[feed.x]\nurl = 'file:x'\ncategory = 'c2'\nupdate = 'daily'",
            "feed.x.update: 'daily' is not a duration; write a number and s, m, h, d, w or y, such as '90d'",
        ),
        (
            "[feed.x]\nurl = 'file:x'\ncategory = 'c2'\nmax_size = '1 TB'",
            "feed.x.max_size: '1 TB' is not a size; write a number and kB, MB or GB, such as '64MB'",
        ),
        (
            "[feed.x]\nurl = 'file:x'\ncategory = 'c2'\nformat = 'csv'",
            'feed.x.format: csv needs the column that holds the domain or address: { name = "csv", value = "…" }',
        ),
        (
            "[feed.x]\nurl = 'file:x'\ncategory = 'c2'\nformat = { name = 'csv', value = 'a', header = false }",
            "feed.x.format.value: names a column, but header = false; give its number, from 1",
        ),
        (
            "[feed.x]\nurl = 'file:x'\ncategory = 'c2'\nformat = { name = 'csv', value = 1, delimiter = '||' }",
            "feed.x.format.delimiter: is not one ASCII character that may separate columns",
        ),
        ("[feed]\nx = 5", "feed.x: expected a table, got a whole number"),
        (
            "[policy.strict]\nmin_confidnce = 9",
            "policy.strict.min_confidnce: unknown key; did you mean 'min_confidence'?",
        ),
        ("[policy.strict]\ndead = 'delete'", "policy.strict.dead: unknown value 'delete'; one of drop, keep"),
        ("[policy.strict]\nfeeds = ['nonesuch-feed']", "policy.strict.feeds: unknown feed 'nonesuch-feed'"),
        ("[export.dns]\npath = 'x'", "export.dns: is missing the key 'format'"),
        (
            "[export.dns]\nformat = 'rpz'\npath = 'x'\npolicy = 'defualt'",
            "export.dns.policy: unknown policy 'defualt'; did you mean 'default'?",
        ),
        (
            "[export.dns]\nformat = 'rpz'\npath = 'x'\nmode = 'rw'",
            "export.dns.mode: is not an octal mode such as '0644'",
        ),
        (
            "[export.dns]\nformat = 'rpz'\npath = 'x'\nreload = 'rndc reload'",
            "export.dns.reload: expected a list, got text",
        ),
        (
            "[export.dns]\nformat = 'rpz'\npath = 'x'\ncheck = 'maybe'",
            "export.dns.check: unknown value 'maybe'; one of auto",
        ),
        ("[export.dns]\nformat = 'rpz'\npath = 'x'\ncheck = 'true'", "export.dns.check: write true without quotes"),
        ("[protect]\ndomains = ['a.example', 'no name']", "protect.domains[1]: 'no name' is not a domain (syntax)"),
        ("[protect]\nnetworks = ['10.0.0.0/33']", "protect.networks[0]: '10.0.0.0/33' is not an address or network"),
        ("[keep]\nhistory = 'ever'", "keep.history: 'ever' is not a duration"),
    ],
)
def test_a_mistake_is_told_with_its_place_and_the_nearest_right_name(path: Path, text: str, message: str) -> None:
    (told,) = mistakes(path, text)
    assert told.startswith(message)


def test_several_mistakes_are_told_at_once_a_line_each(path: Path) -> None:
    add_feed(path, "broken.toml", "title = \n")
    add_feed(path, "typo.toml", 'title = "T"\nurl = "https://lists.example/t"\ncategory = "malware"\nconfidance = 5\n')
    told = mistakes(
        path,
        """
        [protect]
        domains = ["no name"]
        [feed.x]
        url = 5
        category = "malwar"
        colour = "red"
        [export.dns]
        format = "rpz"
        path = "exports/list"
        [export.copy]
        format = "hosts"
        path = "exports/../exports/list"
        """,
    )
    folder = path.parent / "feeds.d"
    assert sorted(told) == sorted(
        [
            "protect.domains[0]: 'no name' is not a domain (syntax)",
            "feed.x.url: expected text or a list, got a whole number",
            "feed.x.category: unknown value 'malwar'; did you mean 'malware'?",
            "feed.x.colour: unknown key",
            "export.copy.path: is the path of export 'dns' too",
            f"{folder}/broken.toml: can't be read: Invalid value (at line 1, column 9)",
            f"{folder}/typo.toml: confidance: unknown key; did you mean 'confidence'?",
        ]
    )


def test_mistakes_of_every_table_are_told_together(path: Path) -> None:
    assert len(mistakes(path, "sate = 1\n[verify]\nrate = 'x'\ntimout = 1\n[gates]\nmin_size = 1.5\n")) == 4


def from_command(path: Path, text: str) -> list[str]:
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        configuration(Screen(path, as_json=False, quiet=False, verbose=False, color=False))
    return [line.removeprefix(f"{path}: ") for line in error.value.message.splitlines()]


def test_an_unknown_format_and_an_unknown_option_of_a_known_one_are_told(path: Path) -> None:
    told = from_command(
        path,
        "[export.a]\nformat = 'rpzz'\npath = 'a'\n"
        "[export.b]\nformat = 'rpz'\npath = 'b'\noptions = { orign = 'rpz.example' }\n",
    )
    assert told[0] == "export.a.format: unknown format 'rpzz'; did you mean 'rpz'?"
    assert told[1].startswith("export.b.options.orign: ") and "origin" in told[1]


# C4: files that someone else could have written


def refused(path: Path) -> ConfigError:
    with pytest.raises(ConfigError) as error:
        load(path)
    return error.value


@pytest.mark.parametrize("mode", [0o666, 0o664, 0o646])
def test_a_file_that_others_may_write_is_refused(path: Path, mode: int) -> None:
    path.write_text("")
    path.chmod(mode)
    error = refused(path)
    assert error.message == f"{path} may be written by others (mode {mode:o}); its commands are not run"
    assert error.hint == f"inspect it, then 'chmod go-w {path}'"


def test_a_folder_that_others_may_write_is_refused(path: Path) -> None:
    path.write_text("")
    path.parent.chmod(0o777)
    assert f"{path.parent} may be written by others" in refused(path).message


def test_a_sticky_folder_is_not_refused_for_its_mode(path: Path) -> None:
    path.write_text("")
    path.parent.chmod(0o1777)
    assert load(path).path == path


@pytest.mark.parametrize("name", ["feeds.d", "exporters.d"])
def test_descriptors_that_others_may_write_are_refused(path: Path, name: str) -> None:
    path.write_text("")
    folder = path.parent / name
    folder.mkdir()
    folder.chmod(0o775)
    assert f"{folder} may be written by others" in refused(path).message
    folder.chmod(0o755)
    file = folder / "x.toml"
    file.write_text("")
    file.chmod(0o666)
    assert f"{file} may be written by others" in refused(path).message


def test_a_link_is_judged_by_the_folder_it_leads_to(path: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "real.toml").write_text("")
    path.symlink_to(elsewhere / "real.toml")
    assert load(path).path == path
    elsewhere.chmod(0o777)
    assert f"{elsewhere} may be written by others" in refused(path).message


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("target", ["file", "folder"])
def test_a_strangers_file_or_folder_is_refused(path: Path, target: str) -> None:
    path.write_text("")
    item = path if target == "file" else path.parent
    os.chown(item, 12_345, -1)
    assert f"{item} belongs to user 12345, not to you or root" in refused(path).message


def test_a_misspelt_table_does_not_hide_the_mistakes_in_the_others(tmp_path: Path) -> None:
    file = tmp_path / "blocklist.toml"
    file.write_text('[polcy.default]\n\n[export.q]\nformat = "rpz"\npath = "q"\npolicy = "defalt"\n')
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert len(caught.value.message.splitlines()) == 2
    assert "polcy: unknown key; did you mean 'policy'?" in caught.value.message
    assert "export.q.policy: unknown policy 'defalt'; did you mean 'default'?" in caught.value.message


def _make(path: Path, kind: str) -> None:
    """Something at `path` that is no file."""
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    if kind == "a pipe":
        os.mkfifo(path, 0o600)
    elif kind == "a folder":
        path.mkdir()
    else:
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as listening:
            os.chdir(path.parent)  # the path of a socket has 107 bytes at most
            listening.bind(path.name)
        path.chmod(0o600)


@pytest.mark.parametrize("kind", ["a pipe", "a folder", "a socket"])
@pytest.mark.parametrize("place", ["feeds.d/mine.toml", "exporters.d/mine.toml", "blocklist.toml", "feeds/a.txt"])
def test_what_is_no_file_is_refused_in_words(tmp_path: Path, place: str, kind: str) -> None:
    world = World(tmp_path)
    world.feed("a", ["evil.example"])
    _make(tmp_path / place, kind)
    # In a process of its own: one that waited for the writer of a pipe would not end.
    ran = world.call("update", "--no-verify")
    if (place, kind) == ("blocklist.toml", "a folder"):  # `--config FOLDER` is the file in it
        assert ran.code == 1 and "blocklist.toml/blocklist.toml: no such file" in ran.err
        return
    assert f"{place} is {kind}, not a file" in ran.text.replace("feeds.d/mine.toml: ", "feeds.d/mine.toml "), ran.text
    assert ran.code == (3 if place == "feeds/a.txt" else 1)


def test_a_configuration_that_is_no_file_is_not_passed_over() -> None:
    os.mkfifo("blocklist.toml", 0o600)
    ran = call_main("status")
    assert ran.code == 1 and "blocklist.toml is a pipe, not a file" in ran.err


def test_a_device_among_the_descriptors_is_refused(tmp_path: Path) -> None:
    """It may be written by everybody; and whose mode was right would be refused as what it is."""
    world = World(tmp_path)
    world.feed("a", ["evil.example"])
    (tmp_path / "feeds.d").mkdir()
    (tmp_path / "feeds.d" / "zero.toml").symlink_to("/dev/zero")
    assert "may be written by others" in world.call("status").err
    with pytest.raises(NotAFileError, match="is a device, not a file"):
        read_regular(Path("/dev/zero"))
