"""docs/moving.md brings along what it says: its own commands and tables, on what the other tools keep."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sqlite3
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest
from engines import driver
from installation import World

PAGE = (Path(__file__).parent.parent / "docs" / "moving.md").read_text("utf-8")
TOOLS = ("jq", "sqlite3", "named-compilezone", "awk", "sed")

LISTS = {
    "ads.txt": "! Title: Ads\n||evil.example^\n||banner.example^$third-party\n",
    "rules.txt": "||tracker.example^\n@@||good.evil.example^\n@@||shop.example^|\n@@||x.example^$client=tv\n",
    "config.json": json.dumps(
        {
            "sources": [{"name": 'My "own"', "source": "rules.txt"}, {"source": "https://lists.example/a.txt"}],
            "exclusions": ["bank.example", "*.cdn.example", "/ads[0-9]/"],
        }
    ),
    "old.rpz": "@ 300 SOA localhost. h.localhost. 1 900 500 2419200 60\n@ 300 NS localhost.\n"
    "bad.example 300 CNAME .\nfree.bad.example 300 CNAME rpz-passthru.\n*.free.bad.example 300 CNAME rpz-passthru.\n"
    "one.bad.example 300 CNAME rpz-passthru.\n32.9.2.0.192.rpz-client-ip 300 CNAME rpz-passthru.\n",
    "save": "create f2b-sshd hash:ip\nadd f2b-sshd 192.0.2.77 timeout 3\n",
    "intel.dat": "#fields\tindicator\tindicator_type\tmeta.source\n"
    "intel.example\tIntel::DOMAIN\tcert\nm@x.test\tIntel::EMAIL\tcert\n",
    "attributes.json": json.dumps(
        {
            "response": {
                "Attribute": [{"value": "misp.example", "to_ids": True}, {"value": "no.example", "to_ids": False}]
            }
        }
    ),
    "old-names.txt": "bad.example\ngone.example\n",
}


def blocks() -> list[str]:
    """The indented parts of the page, whole commands and whole tables."""
    parts = re.findall(r"(?:^ {4,}\S.*\n)+", PAGE, re.M)
    return [textwrap.dedent(part) for part in parts]


@pytest.mark.engine
def test_what_other_tools_keep_comes_along(tmp_path: Path) -> None:
    for tool in TOOLS:
        driver.program(tool)
    world = World(tmp_path)
    world.export("dns", "rpz")
    for name, text in LISTS.items():
        (tmp_path / name).write_text(text)
    with contextlib.closing(sqlite3.connect(tmp_path / "gravity.db")) as db, db:
        db.execute("CREATE TABLE adlist (id INTEGER PRIMARY KEY, address TEXT, enabled BOOLEAN, comment TEXT)")
        db.execute("CREATE TABLE domainlist (type INTEGER, domain TEXT, enabled BOOLEAN, comment TEXT)")
        ads = (tmp_path / "ads.txt").as_uri()
        db.executemany(
            "INSERT INTO adlist VALUES (?, ?, ?, ?)", [(1, ads, 1, 'a "list"'), (2, "https://x.example/", 0, None)]
        )
        domains = [
            (0, "school.example", 1, "teachers, pupils"),
            (0, "off.example", 0, ""),
            (1, "denied.example", 1, None),
        ]
        domains += [(3, r"(\.|^)pattern\.example$", 1, ""), (3, "^ad[0-9]+", 1, "")]
        db.executemany("INSERT INTO domainlist VALUES (?, ?, ?, ?)", domains)
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "blocklist"
    program.write_text(f"#!/bin/sh\nexec '{sys.executable}' -m blocklist \"$@\"\n")
    program.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "BLOCKLIST_CONFIG": str(world.config),
    }

    for part in blocks():
        part = part.replace("/var/lib/blocklist/", "").replace("ipset save f2b-sshd", "cat save")
        if part.startswith("["):
            with world.config.open("a") as config:
                config.write(f"\n{part}")
            tomllib.loads(world.config.read_text())
            continue
        if "blocklist update" in part:
            # Nobody serves it; the source was taken over as it should be.
            text = world.config.read_text()
            assert '[feed.compiler-2]\ntitle = "https://lists.example/a.txt"' in text
            world.config.write_text(text.replace('"https://lists.example/a.txt"', '"file:ads.txt"'))
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", part], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, (part, done.stdout, done.stderr)
    assert done.stdout.splitlines()[-1] == "gone.example"

    rules = world.rows("SELECT action, name, subtree, reason FROM rule ORDER BY action, name")
    assert rules == [
        ("allow", "bank.example", 1, "exclusion"),
        ("allow", "free.bad.example", 1, "passthru of the old zone"),
        ("allow", "good.evil.example", 1, "exception"),
        ("allow", "one.bad.example", 0, "passthru of the old zone"),
        ("allow", "school.example", 0, "teachers, pupils"),
        ("allow", "shop.example", 1, "exception"),
        ("deny", "denied.example", 0, "Pi-hole"),
        ("deny", "pattern.example", 1, "Pi-hole"),
    ]
    assert {feed: world.listed(feed) for (feed,) in world.rows("SELECT name FROM feed ORDER BY name")} == {
        "attributes": ["misp.example"],
        "banned": ["192.0.2.1", "192.0.2.77"],
        "compiler-1": ["tracker.example"],
        "compiler-2": ["evil.example"],
        "intel": ["intel.example"],
        "old-zone": ["bad.example"],
        "pihole-1": ["evil.example"],
    }
    assert world.why("evil.example")["blocked"] and not world.why("one.bad.example")["blocked"]
