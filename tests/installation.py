"""A small installation for the tests: a folder with blocklist.toml, feeds, exports; and the command line in it.

Nothing of our own is replaced: `run` calls the entry point in this process, `start` and `call` a process of
their own.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blocklist.cli import main

PROGRAM = (sys.executable, "-c", "import sys; from blocklist.cli import main; sys.argv[0] = 'blocklist'; main()")

# Stops itself as by kill -9 before its n-th writing, renaming or removing of a file below a folder.
KILLER = """
import os, signal, sys
left, folder = int(sys.argv.pop(1)), sys.argv.pop(1)

def hook(event, given):
    global left
    touches = event in ("os.rename", "os.remove", "sqlite3.connect") or (
        event == "open" and isinstance(given[2], int) and given[2] & 3)
    if touches and folder in str(given[0]) and not str(given[0]).endswith("/lock"):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(hook)
from blocklist.cli import main
main()
"""


@dataclass(frozen=True)
class Ran:
    """How a command ended: exit code, and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The summary: the last object on standard output, which holds nothing else than objects."""
        objects = [json.loads(line) for line in self.out.splitlines()]
        assert objects, f"no JSON on standard output; on standard error: {self.err}"
        last: dict[str, Any] = objects[-1]
        return last

    @property
    def text(self) -> str:
        return self.out + self.err

    def feed(self, name: str) -> dict[str, Any]:
        return next(f for f in self.json["feeds"] if f["id"] == name)

    def export(self, name: str) -> dict[str, Any]:
        return next(e for e in self.json["exports"] if e["name"] == name)


def call_main(*words: object) -> Ran:
    """The entry point in this process, as a shell would call it."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    code: object = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(w) for w in words])
        except SystemExit as stop:
            code = stop.code
    texts = [stream.buffer.getvalue().decode("utf-8") for stream in (out, err)]
    assert isinstance(code, int)
    return Ran(code, *texts)


@dataclass
class World:
    """A configuration and its folder. `feed`, `export`, `set` change it; after changing the tables by hand, `write`."""

    base: Path
    feeds: dict[str, dict[str, Any]] = field(default_factory=dict)
    exports: dict[str, dict[str, Any]] = field(default_factory=dict)
    policies: dict[str, dict[str, Any]] = field(default_factory=dict)
    tables: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def config(self) -> Path:
        return self.base / "blocklist.toml"

    @property
    def state(self) -> Path:
        return self.base / "var"

    @property
    def database(self) -> Path:
        return self.state / "record.db"

    # Building

    def feed(self, name: str, content: str | bytes | Iterable[str] = (), **keys: Any) -> Path:
        """Define the feed `name` with the file that holds `content`; malware of confidence 90 unless `keys` say."""
        path = self.lines(name, content)
        self.feeds[name] = {
            "title": name,
            "url": f"file:feeds/{name}.txt",
            "format": "lines",
            "category": "malware",
            "confidence": 90,
            **keys,
        }
        self.write()
        return path

    def lines(self, name: str, content: str | bytes | Iterable[str]) -> Path:
        """New content of a feed's file, renamed into place as a careful publisher does."""
        path = self.base / "feeds" / f"{name}.txt"
        path.parent.mkdir(exist_ok=True)
        if isinstance(content, str):
            content = content.encode()
        elif not isinstance(content, bytes):
            content = "".join(f"{line}\n" for line in content).encode()
        beside = path.with_suffix(".part")
        beside.write_bytes(content)
        beside.rename(path)
        return path

    def export(self, name: str, fmt: str = "domains", **keys: Any) -> Path:
        """Define an export to `exports/NAME`; its path."""
        (self.base / "exports").mkdir(exist_ok=True)
        self.exports[name] = {"format": fmt, "path": f"exports/{name}", "check": False, **keys}
        self.write()
        return self.base / str(self.exports[name]["path"])

    def set(self, table: str, **keys: Any) -> None:
        """Set keys of a table such as `protect`."""
        self.tables.setdefault(table, {}).update(keys)
        self.write()

    def exporter(self, name: str, text: str) -> None:
        """A format of the operator's in exporters.d."""
        folder = self.base / "exporters.d"
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)
        (folder / f"{name}.toml").write_text(text)

    def checker(self, name: str, body: str) -> None:
        """A format of bare names that is checked by a shell script; `$1` is the candidate."""
        words = [*self.script(f"check-{name}", body), "{file}"]
        self.exporter(name, f'title = "x"\nkinds = ["domain"]\nexact = "{{name}}"\ncheck = {json.dumps(words)}\n')

    def script(self, name: str, body: str) -> list[str]:
        """An executable shell script; the words that run it."""
        path = self.base / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        return [str(path)]

    def write(self) -> None:
        self.base.chmod(0o755)
        parts: list[str] = ["[feeds]", "enable = []"]
        # Counts of feeds and listings in the tests are of what a test defines; `set("protect", essential=True)`.
        for table, keys in {**self.tables, "protect": {"essential": False, **self.tables.get("protect", {})}}.items():
            parts += _table(table, keys)
        for kind, tables in (("feed", self.feeds), ("export", self.exports), ("policy", self.policies)):
            for name, keys in tables.items():
                parts += _table(f"{kind}.{name}", keys)
        self.config.write_text("\n".join(parts) + "\n")
        self.config.chmod(0o644)

    # Running

    def run(self, *words: object) -> Ran:
        """The CLI in this process."""
        return call_main("--config", self.config, *words)

    def update(self, *words: object) -> Ran:
        """`update --json`; no traceback and nothing unexpected, whatever comes out."""
        ran = self.run("update", "--json", *words)
        assert "Traceback" not in ran.text and "unexpected" not in ran.err, ran.text
        assert "this is a bug" not in ran.text, ran.text
        return ran

    def start(self, *words: object, under: Sequence[str] = (), **keys: Any) -> subprocess.Popen[bytes]:
        """The CLI in a process of its own, with pipes."""
        return subprocess.Popen(
            [*under, *PROGRAM, "--config", str(self.config), *map(str, words)],
            stdout=keys.pop("stdout", subprocess.PIPE),
            stderr=keys.pop("stderr", subprocess.PIPE),
            stdin=subprocess.DEVNULL,
            **keys,
        )

    def call(self, *words: object, **keys: Any) -> Ran:
        """The CLI in a process of its own, to its end."""
        process = self.start(*words, **keys)
        out, err = process.communicate(timeout=60)
        return Ran(process.returncode, out.decode("utf-8", "replace"), err.decode("utf-8", "replace"))

    # Looking

    def rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Rows of the record, read by SQLite alone."""
        try:
            with contextlib.closing(sqlite3.connect(f"{self.database.as_uri()}?mode=ro", uri=True)) as db:
                return db.execute(sql, values).fetchall()
        except sqlite3.OperationalError as error:
            if "readonly" not in str(error):
                raise
        # Of a journal that a kill left half begun, only who may write can read (sqlite.org/wal.html, read-only).
        with contextlib.closing(sqlite3.connect(f"{self.database.as_uri()}?mode=rw", uri=True)) as db:
            return db.execute(sql, values).fetchall()

    def change(self, sql: str, *values: object) -> None:
        """Move time, or do harm, in the record itself."""
        with contextlib.closing(sqlite3.connect(self.database)) as db, db:
            db.execute(sql, values)

    def listed(self, feed: str | None = None) -> list[str]:
        """Names of the open listings."""
        sql = "SELECT l.name FROM listing l JOIN feed f ON f.id = l.feed WHERE ?1 IS NULL OR f.name = ?1 ORDER BY 1"
        return [row[0] for row in self.rows(sql, feed)]

    def closed(self) -> list[tuple[Any, ...]]:
        """`(name, since, until, cause)` of the closed listings."""
        return self.rows("SELECT name, since, until, cause FROM listing_closed ORDER BY name, since")

    def exported(self, name: str) -> list[str]:
        """Lines of a published file."""
        return (self.base / str(self.exports[name]["path"])).read_text("ascii").splitlines()

    def why(self, what: str) -> dict[str, Any]:
        ran = self.run("why", what, "--json")
        assert ran.code == 0, ran.err
        return ran.json

    def assert_sound(self) -> None:
        """The record is whole, by SQLite's word and by our own rules."""
        assert self.rows("PRAGMA integrity_check") == [("ok",)]
        assert self.rows("PRAGMA foreign_key_check") == []
        for (view,) in self.rows("SELECT name FROM sqlite_schema WHERE type = 'view'"):
            self.rows(f"SELECT * FROM {view} LIMIT 5")
        assert self.rows("SELECT 1 FROM listing_closed WHERE since >= until") == []
        overlap = "SELECT 1 FROM listing_closed c JOIN listing l USING (name, feed) WHERE l.since < c.until"
        assert self.rows(overlap) == []
        assert self.rows("SELECT feed FROM snapshot WHERE state = 'gated' GROUP BY feed HAVING count(*) > 1") == []

    def left_over(self) -> list[str]:
        """Files that a finished run would not leave."""
        known = {
            f"{row[0]}.zst"
            for row in self.rows(
                "SELECT id FROM snapshot UNION SELECT digest FROM release UNION SELECT chosen FROM release "
                "UNION SELECT left_out FROM release UNION "
                "SELECT value ->> 'digest' FROM release, json_each(coalesce(files, '[]'))"
            )
        }
        found = [p for p in self.state.rglob("*") if p.is_file()]
        odd = [p for p in found if p.name.endswith((".new", ".new-journal")) or p.parent.name == "incoming"]
        odd += [p for p in found if p.suffix == ".zst" and p.name not in known]
        odd += list((self.base / "exports").glob(".*")) if (self.base / "exports").is_dir() else []
        return sorted(str(p.relative_to(self.base)) for p in odd)


def _table(name: str, keys: dict[str, Any]) -> list[str]:
    return ["", f"[{name}]", *(f"{key} = {_value(value)}" for key, value in keys.items())]


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{k} = {_value(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value)


def names(count: int, start: int = 0, zone: str = "evil.example") -> list[str]:
    """`count` different names, none above another."""
    return [f"h{i:05d}.{zone}" for i in range(start, start + count)]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def obeying_modes() -> tuple[str, ...]:
    """Words to put before a command so that file modes apply to it: root is above them while it has capabilities.

    A change of user instead would lose the Python interpreter, which may live in a home that only root can enter.
    """
    return ("setpriv", "--bounding-set=-all", "--inh-caps=-all") if os.geteuid() == 0 else ()
