"""`python -m bench.year make|measure CONFIG`: questions about a year that ended millions of listings.

`make` turns the record of a first `blocklist update` into one of 17 runs, 22 days apart. Each of the 16 turns between
them listed as much as is open now, and other names than the turns beside it. `measure` asks about it.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from itertools import zip_longest
from pathlib import Path
from typing import Any

from bench.child import Ran, blocklist, run
from bench.table import Row, skipped

TURNS = 16
DAYS = 22
# Within odd turns, that list what is listed now, and an even one, that lists the other names.
EIGHT_MONTHS = "243d"
ENDS = ("210d", "10d")
LINES = 1_000_000
# Measured: 75 to 85 bytes an interval, the index and free room of their pages included.
_BYTES = 100

# Another name of the same kind, that stands below or above the others as before. Names that might become too long or
# invalid, and IPv6, of which there is little, stay; so do single networks wider than the first octet.
_SOME_OTHER = "kind = 1 AND length(name) < 64 AND name NOT LIKE '%xn--%'"
_OTHER = f"""CASE
    WHEN {_SOME_OTHER} THEN replace(name, '.', '0.')
    WHEN kind = 2 AND name NOT GLOB '*/[1-7]' THEN
        ((CAST(name AS INTEGER) + 100) % 223 + 1) || substr(name, instr(name, '.'))
    WHEN kind = 4 THEN name || '0'
    ELSE name END"""


def rows(config: Path) -> list[Row]:
    """What is promised of a year's history, over the record that `blocklist update` made; it is changed."""
    with closing(_reading(config)) as db:
        count = TURNS * _open(db)
    free = shutil.disk_usage(config.parent).free
    if free < _BYTES * count:
        lack = f"it takes {_BYTES * count / 1e9:.1f} GB of disk, {free / 1e9:.1f} GB are free (--lines, TMPDIR)"
        return [skipped(f"a year of {count:,} ended listings", lack)]
    _say(f"a year of {count:,} ended listings")
    _child("make", config)
    return _rows(json.loads(_child("measure", config)))


def _child(command: str, config: Path) -> str:
    """In processes of their own, so that the one that measures stays small (see `bench.child.run`)."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    argv = [sys.executable, "-m", "bench.year", command, str(config)]
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"bench.year {command} failed")
    return done.stdout.splitlines()[-1]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _record(config: Path) -> Path:
    return config.parent / "var" / "record.db"


def _reading(config: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{_record(config).as_uri()}?mode=ro", uri=True)


def _open(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT count(*) FROM listing").fetchone()[0])


def make(config: Path) -> int:
    """Give the record its past; the number of ended listings."""
    from blocklist import clock

    with closing(sqlite3.connect(_record(config), isolation_level=None)) as db:
        # Nobody else has it open, and after a crash it is made again.
        for pragma in ("journal_mode = off", "synchronous = off", "cache_size = -400000"):
            db.execute(f"PRAGMA {pragma}")
        ((first, started),) = db.execute("SELECT id, started FROM run").fetchall()
        assert first == 1, "a first update makes one run"
        begun = [clock.parse(started) - timedelta(days=DAYS * (TURNS - turn)) for turn in range(TURNS + 1)]
        times = [(number, clock.text(at)) for number, at in enumerate(begun, start=1)]
        db.execute("BEGIN")
        db.execute("UPDATE run SET started = ?1, finished = ?1", (times[0][1],))
        db.executemany(
            "INSERT INTO run (id, started, finished, command, by, version) "
            "SELECT ?1, ?2, ?2, command, by, version FROM run WHERE id = 1",
            times[1:],
        )
        # The releases stay live all the year.
        db.execute("UPDATE release SET created = ?1, published = ?1, judged = ?1", (times[0][1],))
        count = 0
        for turn in range(1, TURNS + 1):
            count += db.execute(
                "INSERT INTO listing_closed "
                "(period, name, feed, since, until, cause, kind, subtree, line, confidence, extra) "
                f"SELECT ?1, {'name' if turn % 2 else _OTHER}, feed, ?2, ?2 + 1, 'no longer listed', "
                "kind, subtree, line, confidence, extra FROM listing ORDER BY name, feed",
                (clock.period(begun[turn]), turn),
            ).rowcount
        db.execute("UPDATE listing SET since = ?", (TURNS + 1,))
        db.execute("COMMIT")
        db.execute("PRAGMA journal_mode = wal")
    return count


@dataclass
class _Questions:
    """The commands, over one configuration."""

    config: Path

    def ask(self, *argv: str | Path) -> Ran:
        ran = run([blocklist(), "--config", self.config, *argv], cwd=self.config.parent)
        if ran.status:
            raise SystemExit(f"{' '.join(map(str, argv))} failed: {ran.output[-500:]}")
        return ran

    def about(self, names: Iterable[str], command: str, *options: str, good: Callable[[str], bool]) -> dict[str, Any]:
        """Of whole processes the median of seconds and the most of memory; `good` of every answer."""
        answers = [self.ask(command, f"a.b.{name}", *options) for name in names]
        return {
            "seconds": statistics.median(ran.seconds for ran in answers),
            "cpu": statistics.median(ran.cpu for ran in answers),
            "peak": max(ran.peak for ran in answers),
            "good": all(good(ran.output) for ran in answers),
        }

    def undecided(self, *argv: str | Path) -> dict[str, Any]:
        """The same work where no policy was decided before; the columns of the lists are kept."""
        shutil.rmtree(self.config.parent / "var" / "decided", ignore_errors=True)
        ran = self.ask(*argv)
        return {"seconds": ran.seconds, "cpu": ran.cpu, "peak": ran.peak, "said": ran.output.splitlines()[-1]}


def measure(config: Path) -> dict[str, Any]:
    """Seconds and peaks of every question, and whether the answers are right."""
    asked, work = _Questions(config), config.parent
    with closing(_reading(config)) as db:
        out: dict[str, Any] = {
            "listings": _open(db),
            "ended": db.execute("SELECT count(*) FROM listing_closed").fetchone()[0],
        }
        names = _names(db)
        _write_lines(db, work / "names.txt")
    _say("why, history")
    out["why"] = asked.about(names, "why", "--json", good=_listed)
    out["why --at"] = asked.about(names, "why", "--at", EIGHT_MONTHS, "--json", good=_listed)
    out["history"] = asked.about(names, "history", "--json", good=_ended_often)
    _say("export, export --at, diff")
    once = ("export", "--format", "rpz", "-o")
    out |= _interleaved(
        3,
        {
            "export": lambda: asked.undecided(*once, work / "now"),
            "export --at": lambda: asked.undecided(*once, work / "then", "--at", EIGHT_MONTHS),
            "diff": lambda: asked.undecided("diff", *ENDS, "--json"),
        },
    )
    # What is listed now was listed then too.
    out["same"] = _same_zone(work / "now", work / "then")
    _say("report, match, match --at")
    out["report"] = asked.undecided("report", "--since", "365d", "-o", work / "report.html")
    match = ("match", work / "names.txt", "--json")
    out |= _interleaved(
        3,
        {
            "match": lambda: asked.undecided(*match),
            "match --at": lambda: asked.undecided(*match, "--at", EIGHT_MONTHS),
        },
    )
    return out


def _listed(answer: str) -> bool:
    return bool(json.loads(answer.splitlines()[-1])["listings"])


def _ended_often(answer: str) -> bool:
    """At the end of every odd turn."""
    return answer.count('"how": "closed"') >= TURNS // 2


def _same_zone(one: Path, other: Path) -> bool:
    """The same lines but for the records that hold the serial, SOA and TXT."""
    with one.open() as a, other.open() as b:
        return all(x == y or " SOA " in x or " TXT " in x for x, y in zip_longest(a, b, fillvalue=""))


def _names(db: sqlite3.Connection) -> list[str]:
    """Ten listed names from all over the record, that the even turns call otherwise."""
    listed = (
        f"FROM listing WHERE {_SOME_OTHER} AND feed IN (SELECT feed FROM feed_version WHERE category <> 'reference')"
    )
    count = db.execute(f"SELECT count(*) {listed}").fetchone()[0]
    one = f"SELECT name {listed} LIMIT 1 OFFSET ?"
    return [db.execute(one, (count * tenth // 10,)).fetchone()[0] for tenth in range(10)]


def _write_lines(db: sqlite3.Connection, path: Path) -> None:
    """A million lines: every other one is a listed name, the rest is not."""
    count = 0
    with path.open("w") as lines:
        while count < LINES:
            for (name,) in db.execute("SELECT name FROM listing WHERE kind = 1 LIMIT ?", ((LINES - count) // 2,)):
                lines.write(f"{name}\nhost-{count}.example.net\n")
                count += 2


def _interleaved(times: int, works: dict[str, Callable[[], dict[str, Any]]]) -> dict[str, Any]:
    """What each took when it took the median; in turn, so that what slows the machine slows all."""
    taken: dict[str, list[dict[str, Any]]] = {name: [] for name in works}
    for _ in range(times):
        for name, work in works.items():
            taken[name].append(work())
    return {name: sorted(each, key=lambda ran: float(ran["seconds"]))[times // 2] for name, each in taken.items()}


_WRONG = "WRONG ANSWER"


def _rows(got: dict[str, Any]) -> list[Row]:
    ended, today = f"{got['ended']:,} ended listings", got["export"]["seconds"]

    def took(what: str) -> str:
        ran = got[what]
        return f"{ran['seconds']:.1f} s, {ran['cpu']:.1f} s of processor, {ran['peak'] / 1e6:.0f} MB"

    def against(what: str, other: str) -> str:
        return f"{got[what]['seconds'] / got[other]['seconds']:.2f} ×"

    out = []
    for what, work in (("why", f"why, {ended}"), ("why --at", "why --at, 243 days back"), ("history", "history")):
        seconds, peak, right = got[what]["seconds"], got[what]["peak"], got[what]["good"]
        note = f"{got[what]['cpu'] * 1000:.0f} ms of processor"
        out += [
            Row(work, f"{seconds * 1000:.0f} ms", "150 ms", right and seconds <= 0.150, note if right else _WRONG),
            Row("  its memory", f"{peak / 1e6:.0f} MB", "60 MB", peak <= 60e6),
        ]
    diff, match, match_then = (json.loads(got[what]["said"]) for what in ("diff", "match", "match --at"))
    differ = diff["added"] + diff["removed"] + diff["changed"]
    blocked, blocked_then = match["blocked_queries"], match_then["blocked_queries"]
    return [
        *out,
        Row(f"export, {got['listings']:,} listings, nothing decided", f"{today:.1f} s", note=took("export")),
        Row(
            f"export --at, 243 days back, {ended}",
            f"{against('export --at', 'export')} today",
            "2 × today",
            got["same"] and got["export --at"]["seconds"] <= 2 * today,
            f"{took('export --at')}; {got['export --at']['said'] if got['same'] else _WRONG}",
        ),
        Row(
            f"diff of two dates 200 days apart, {ended}",
            f"{against('diff', 'export')} export",
            "2 × export",
            differ > 0 and got["diff"]["seconds"] <= 2 * today,
            f"{took('diff')}; {differ:,} differ",
        ),
        Row(
            f"report --since 365d, {ended}",
            f"{got['report']['seconds']:.1f} s",
            "30 s",
            got["report"]["seconds"] <= 30,
            took("report"),
        ),
        Row(
            f"match --at, {LINES:,} names, {ended}",
            f"{against('match --at', 'match')} today",
            note=f"{took('match --at')}; {f'{blocked:,} blocked' if blocked == blocked_then else _WRONG}",
        ),
    ]


if __name__ == "__main__":
    print(make(Path(sys.argv[2])) if sys.argv[1] == "make" else json.dumps(measure(Path(sys.argv[2]))))
