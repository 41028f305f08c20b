"""`blocklist init`: a first configuration that loads, and nothing of anyone's overwritten."""

from __future__ import annotations

import json
import os
import stat
import tomllib
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from blocklist.cli import group
from blocklist.config import load
from blocklist.errors import ConfigError


def init(*arguments: str) -> Result:
    return CliRunner().invoke(group, ["init", *arguments])


@pytest.fixture(params=[0o022, 0o000, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_what_init_writes_loads_without_a_change(tmp_path: Path, umask: int) -> None:
    result = init(str(tmp_path / "new" / "blocklist"))
    assert result.exception is None and result.exit_code == 0, result.output
    folder = tmp_path / "new" / "blocklist"
    config = load(folder / "blocklist.toml")
    assert set(config.exports) == {"dns", "fw", "proxy"}
    assert config.feeds and all(feed.enabled for feed in config.feeds.values())
    assert config.verify.resolvers == []
    assert config.state == (folder / "var").resolve()
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {"blocklist.toml": 0o644, "feeds.d": 0o755, "exporters.d": 0o755, "exports": 0o755}


def test_init_never_overwrites(tmp_path: Path) -> None:
    mine = "# mine\n"
    (tmp_path / "blocklist.toml").write_text(mine)
    (tmp_path / "exports").mkdir()
    result = init(str(tmp_path))
    assert result.exit_code == 0
    assert (tmp_path / "blocklist.toml").read_text() == mine
    assert "left as they were: exports/, blocklist.toml" in result.output
    assert "wrote feeds.d/, exporters.d/ in" in result.output


def test_init_does_not_follow_a_link(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / "blocklist.toml").symlink_to(elsewhere)
    assert init(str(tmp_path)).exit_code == 0
    assert not elsewhere.exists()


def test_init_where_a_file_is_in_the_way_says_so(tmp_path: Path) -> None:
    (tmp_path / "exports").write_text("")
    result = init(str(tmp_path))
    assert isinstance(result.exception, ConfigError)
    assert "exports: File exists" in result.exception.message


def test_init_says_as_json_what_it_did(tmp_path: Path) -> None:
    result = init(str(tmp_path), "--json")
    assert json.loads(result.output) == {
        "folder": str(tmp_path),
        "wrote": ["feeds.d/", "exporters.d/", "exports/", "blocklist.toml"],
        "kept": [],
    }


def test_every_default_shown_in_the_template_is_the_default(tmp_path: Path) -> None:
    """With every commented line that is no example switched on, the configuration means the same."""
    template = resources.files("blocklist").joinpath("template.toml").read_text("utf-8")
    plain = tmp_path / "plain.toml"
    plain.write_text(template)
    shown = []
    own = False  # inside the commented [feed.*] tables, which are examples
    for line in template.splitlines():
        own = (own and not line.startswith("[")) or line.startswith("# [feed.")
        key = line.startswith("# ") and line[2:].partition(" ")[2].lstrip().startswith("= ")
        shown.append(line[2:] if key and not own and "example" not in _remark(line) else line)
    full = tmp_path / "full.toml"
    full.write_text("\n".join(shown) + "\n")
    assert len(tomllib.loads(full.read_text())["verify"]) >= 5
    before, after = load(plain), load(full)
    assert before.policies == after.policies and before.verify == after.verify
    assert (before.gates, before.keep, before.fetch) == (after.gates, after.keep, after.fetch)
    assert after.exports["dns"].options == {"origin": "rpz.blocklist.internal", "action": "nxdomain"}
    assert before.protect == after.protect
    assert list(before.feeds) == list(after.feeds)


def test_every_example_in_the_template_is_accepted(tmp_path: Path) -> None:
    template = resources.files("blocklist").joinpath("template.toml").read_text("utf-8")
    lines = []
    for line in template.splitlines():
        bare = line.removeprefix("# ")
        entry = bare.startswith("[feed.") or bare.partition(" ")[2].lstrip().startswith("= ")
        lines.append(bare if entry else line)
    (tmp_path / "blocklist.toml").write_text("\n".join(lines) + "\n")
    config = load(tmp_path / "blocklist.toml")
    assert config.catalog["orders"].confidence == 100 and config.catalog["urlhaus-hosts"].confidence == 95
    assert config.verify.resolvers and config.exports["dns"].reload[0] == "rndc"


def _remark(line: str) -> str:
    """The comment behind a value, or nothing."""
    return line[2:].partition(" # ")[2]
