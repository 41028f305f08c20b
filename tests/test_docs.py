"""What the pages show exists: commands with their options, files that links name, keys of tables."""

from __future__ import annotations

import re
import shlex
import sqlite3
from pathlib import Path

import click
import msgspec
import pytest

from blocklist import config
from blocklist.cli import group
from blocklist.publish.descriptor import Format
from blocklist.store.schema import migrate

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def shown(page: Path) -> list[str]:
    """Commands in code blocks and between backticks, without comment, pipe or redirection."""
    text = page.read_text("utf-8")
    lines = [line.strip() for line in text.splitlines() if line.startswith("    ")]
    lines += re.findall(r"`(blocklist [^`]+)`", text)
    parts = [part.strip() for line in lines for part in re.split(r"\s#\s| && |\s\|\s", line)]
    return [part for part in parts if re.match(r"blocklist [a-z-]", part) and "--version" not in part]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_shown_exists_with_its_options(page: Path) -> None:
    for line in shown(page):
        command: click.Command = group
        for word in shlex.split(line)[1:]:
            if isinstance(command, click.Group) and not word.startswith("-"):
                found = command.get_command(click.Context(command), word)
                if found is None:
                    assert command is not group, f"{line}: no command {word!r}"
                    break
                command = found
            elif word.startswith("--"):
                known = {option for p in (*command.params, *group.params) for option in p.opts}
                assert word in known, f"{line}: no option {word}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)", page.read_text("utf-8"))
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


def test_the_page_of_exporters_names_every_key() -> None:
    page = (ROOT / "docs" / "exporters.md").read_text("utf-8")
    keys = [field.encode_name for field in msgspec.structs.fields(Format) if field.name != "name"]
    assert [key for key in keys if f"`{key}`" not in page and f"`{key}.NAME`" not in page] == []


def test_the_page_of_the_configuration_names_every_key() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text("utf-8")
    structs = (config.Protect, config.Verify, config.Policy, config.Export, config.Gates, config.Keep, config.Fetch)
    keys = [field.encode_name for struct in structs for field in msgspec.structs.fields(struct)]
    assert [key for key in keys if key != "name" and not re.search(rf"\b{key}\b", page)] == []


def test_the_page_of_the_record_names_every_table_and_column() -> None:
    page = (ROOT / "docs" / "record.md").read_text("utf-8")
    db = sqlite3.connect(":memory:", isolation_level=None)
    migrate(db, Path("record.db"))
    tables = [name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type IN ('table', 'view')")]
    names = [
        *tables,
        *(row[1] for table in tables if table[0] != "_" for row in db.execute(f"PRAGMA table_info({table})")),
    ]
    assert [name for name in names if f"`{name}`" not in page and not name.startswith("sqlite_")] == []
