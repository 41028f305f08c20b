"""`python -m bench.trust make|measure WORK`: guards over millions of listings, and selection for ten policies.

`make` writes lists with a reference among them into WORK/lists and prints where the configuration is. `measure`
prints the seconds that guards and selection take over the record that `blocklist update` made of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import lists, peers
from bench.child import blocklist, run
from bench.lists import SEED, List
from bench.table import Row

if TYPE_CHECKING:
    import polars as pl

    from blocklist.rules import Rule

LINES = 4_000_000
NAMES = 1_200_000
NETWORKS = 100_000
# What the ten audiences of one house differ in; most of them take most of all listings, which is the dear case.
POLICIES = {
    "default": "",
    "sure": "min_confidence = 90",
    "doubted": "min_confidence = 10",
    "narrow": "widen = false",
    "alive": 'dead = "drop"',
    "names": 'kinds = ["domain"]',
    "mail": 'categories = ["malware", "phishing", "scam"]',
    "browsers": 'categories = ["phishing", "scam"]\nmin_confidence = 60',
    "partners": 'audience = "partners"',
    "lenient": 'guards = { scam = ["ranges"] }',
}


def make(work: Path) -> Path:
    """Lists of some four million lines, with references of 1.2 M names and 100,000 networks; the configuration."""
    folder = work / "lists"
    folder.mkdir()
    made = [entry for entry in lists.generate(folder, LINES) if entry.category != "reference"]
    (folder / "top.txt").write_text("".join(f"{name}\n" for name in _reference_names(folder / "lines-a.txt")))
    (folder / "ranges.txt").write_text("".join(f"{cidr}\n" for cidr in _ranges(random.Random(SEED))))
    made += [List("top.txt", '"lines"', "reference"), List("ranges.txt", '"lines"', "reference")]
    count, size = lists.count(folder, made)
    config = lists.configuration(work / "state", made, f"file:{folder}")
    text = config.read_text().split("[export.")[0].replace(f"[feed.f{len(made) - 1:03}]", "[feed.ranges]")
    default = next(line for line in text.splitlines() if line.startswith("categories"))
    for name, key in POLICIES.items():
        if name != "default":
            text += f"[policy.{name}]\n" + ("" if "categories" in key else f"{default}\n") + f"{key}\n"
    config.write_text(text)
    (work / "made.json").write_text(json.dumps({"lists": [asdict(m) for m in made], "lines": count, "bytes": size}))
    return config


def _reference_names(listed: Path) -> list[str]:
    """One in forty is listed, or stands below a listed name, as in the real lists."""
    rng = random.Random(SEED + 1)
    known = [line for line in listed.read_text().splitlines() if line[0] != "#"]
    some = rng.sample(known, NAMES // 40)
    below = [f"www{i % 7}.{name}" for i, name in enumerate(some[::2])]
    fresh = (f"{rng.choice(lists._WORDS)}{rng.getrandbits(40):x}.{rng.choice(lists._ENDINGS)}" for _ in range(NAMES))
    names = list(dict.fromkeys([*some[1::2], *below, *fresh]))[:NAMES]
    rng.shuffle(names)
    return names


def _ranges(rng: random.Random) -> list[str]:
    """Networks of a cloud's sizes and single resolvers, one in twenty where the lists' addresses are."""
    out: dict[str, None] = {}
    while len(out) < NETWORKS:
        first = rng.randrange(11, 100) if rng.random() < 0.05 else rng.choice((*range(130, 169), *range(173, 190)))
        size = rng.choice((20, 22, 24, 32))
        number = (first << 24 | rng.getrandbits(24)) & -(1 << 32 - size)
        out[f"{number >> 24}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}/{size}"] = None
    return list(out)


def rows(work: Path) -> list[Row]:
    """What is promised of guards and policies, measured in processes of their own."""
    work.mkdir()
    config = Path(_child("make", work))
    ran = run([blocklist(), "--config", config, "update", "--no-verify", "--no-export"], cwd=config.parent)
    if ran.status:
        raise SystemExit(f"update failed with {ran.status}: {ran.output[-2000:]}")
    made = json.loads((work / "made.json").read_text())
    files = [work / "lists" / entry["file"] for entry in made["lists"] if entry["category"] != "reference"]
    pipelines = [peers.pipeline(files, work) for _ in range(3)]
    got = json.loads(_child("measure", config))
    b = statistics.median([*pipelines, peers.pipeline(files, work)])
    several = got["ten"] / got["one"]
    return [
        Row(
            f"guards, {got['listings']:,} listings",
            f"{got['guard'] / b:.2f} B",
            "1 B",
            got["guard"] <= b,
            f"{got['guard']:.2f} s, B {b:.2f} s; {got['names']:,} reference names, {got['networks']:,} networks, "
            f"{got['held']:,} held",
        ),
        Row(
            f"selection for {len(POLICIES)} policies",
            f"{several:.2f} × one",
            "2 × one",
            several <= 2,
            f"{got['ten']:.2f} s against {got['one']:.2f} s",
        ),
    ]


def _child(command: str, argument: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run(
        [sys.executable, "-m", "bench.trust", command, str(argument)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    if done.returncode:
        raise SystemExit(f"bench.trust {command} failed: {done.stderr[-2000:]}")
    return done.stdout.splitlines()[-1]


def measure(config_file: Path) -> dict[str, Any]:
    """Seconds of guards over everything, of selection for one policy and for ten, in this process."""
    from blocklist.config import load
    from blocklist.ingest import guard
    from blocklist.picture import Picture
    from blocklist.publish.decided import Decided
    from blocklist.select.express import Capability
    from blocklist.store.record import Record

    config = load(config_file)
    can = Capability(subtree=True, exact=True, allow=True)
    with contextlib.closing(Record.open(config.state)) as record:
        picture = Picture(config, record)
        current, known = picture.current(), picture.references()
        rules = _rules(current.names)
        took = []
        for _ in range(3):
            started = time.perf_counter()
            holds = guard.guard(current, known)
            took.append(time.perf_counter() - started)
        out: dict[str, Any] = {
            "listings": current.listings.height,
            "names": known.domains.height,
            "networks": known.networks.height,
            "held": holds.height,
            "guard": min(took),
        }
        for label, names in (("one", ["default"]), ("ten", list(POLICIES))):
            took = []
            for _ in range(3):
                # A picture of its own: what policies share is kept with it.
                picture = Picture(config, record)
                picture.current(), picture.references()
                decided = Decided(picture, record, {name: config.policies[name] for name in names}, rules, keep=False)
                started = time.perf_counter()
                counts = {name: decided.fitted(name, can).entries.height for name in names}
                took.append(time.perf_counter() - started)
            out |= {label: min(took), f"{label} entries": counts}
        return out


def _rules(names: pl.DataFrame) -> list[Rule]:
    """A hundred rules for listed names or their `www.`; one in ten denies."""
    from blocklist.rules import Rule

    some = names.filter(names["kind"] == 1)["name"].gather_every(names.height // 100).to_list()
    return [
        Rule(
            id=i,
            action="allow" if i % 10 else "deny",
            name=("", "www.")[i % 2] + name,
            kind="domain",
            subtree=i % 4 != 0,
            reason="a customer",
            author="bench",
            created="2026-01-01T00:00:00Z",
        )
        for i, name in enumerate(some)
    ]


if __name__ == "__main__":
    if sys.argv[1] == "make":
        print(make(Path(sys.argv[2])))
    else:
        print(json.dumps(measure(Path(sys.argv[2]))))
