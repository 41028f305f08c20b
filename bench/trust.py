"""`python -m bench.trust make|measure WORK`: guards over millions of listings, and selection for ten policies.

`make` writes lists with a reference among them into WORK/lists and prints where the configuration is. `measure`
prints the seconds that guards and selection take over the record that `blocklist update` made of them.
"""

from __future__ import annotations

import contextlib
import json
import random
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import lists
from bench.lists import SEED, List

LINES = 4_000_000
NAMES = 1_200_000
NETWORKS = 100_000
# What the ten audiences of one house differ in. Each of them takes most of all listings, which is the dear case.
POLICIES = {
    "default": "",
    "sure": "min_confidence = 90",
    "doubted": "min_confidence = 10",
    "narrow": "widen = false",
    "alive": 'dead = "drop"',
    "names": 'kinds = ["domain"]',
    "addresses": 'kinds = ["domain", "ipv4"]',
    "partners": 'audience = "partners"',
    "public": 'audience = "public"',
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
            text += f"[policy.{name}]\n{default}\n{key}\n"
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
    """Networks of a cloud's sizes and single resolvers, a third of them where the lists' addresses are."""
    out = []
    for _ in range(NETWORKS):
        first = rng.randrange(11, 100) if rng.random() < 0.05 else rng.randrange(130, 190)
        size = rng.choice((20, 22, 24, 32))
        number = (first << 24 | rng.getrandbits(24)) & -(1 << 32 - size)
        out.append(f"{number >> 24}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}/{size}")
    return out


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
                decided = Decided(picture, record, config.policies, [], keep=False)
                started = time.perf_counter()
                counts = {name: decided.fitted(name, can).entries.height for name in names}
                took.append(time.perf_counter() - started)
            out |= {label: min(took), f"{label} entries": counts}
        return out


if __name__ == "__main__":
    if sys.argv[1] == "make":
        print(make(Path(sys.argv[2])))
    else:
        print(json.dumps(measure(Path(sys.argv[2]))))
