"""Millions of made-up lines through every parser: no crash, every line accounted for, memory flat."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

# In a process of its own, whose peak is its own: argv is the format and the number of lines.
FUZZ = r"""
import json, random, resource, sys
from test_formats import CASES, DOCUMENTS, NAUGHTY, check_account, feed
from test_hostile import SHAPES, SYNTAX
from blocklist.catalog import InputFormat
from blocklist.errors import FeedError
from blocklist.ingest.parse import parse

name, wanted = sys.argv[1], int(sys.argv[2])
chance = random.Random(name)
# Rules and events are read one by one. An open bracket takes the rest of a zone with it, and the first lines of a
# file decide what all of it is guessed to be: many small files then, not few large ones.
PIECE = {"suricata": 10_000, "stix": 10_000, "misp": 10_000, "rpz": 40, "auto": 40}.get(name, 100_000)
SPECS = {"dshield": InputFormat(name="dshield"), "auto": InputFormat(name="auto"), "misp": InputFormat(name="misp"),
         "json": DOCUMENTS["json"][0], "stix": InputFormat(name="stix")}
spec = CASES[name].spec if name in CASES else SPECS[name]
write = CASES[name].write if name in CASES else str
good = [write(f"h{i}.evil.example") for i in range(50)] + [write("192.0.2.7"), write("2001:db8::7"), write("co.uk")]
if name == "dshield":
    good = [f"192.0.2.{i}\t192.0.2.{i}\t32\t9" for i in range(50)]
made = [s.format(x=x) for s in SHAPES for x in SYNTAX] + NAUGHTY + [write(x) for x in NAUGHTY]
made += ["192.0.2.0\t192.0.2.255\t24\t7", "192.0.2.1\t192.0.2.9\t\t1"]


def line():
    # Mostly what the format may be, and parts of it, cut and joined.
    kind = chance.random()
    if kind < 0.3:
        return chance.choice(good)
    if kind < 0.6:
        return chance.choice(made)
    a, b = chance.choice(good), chance.choice(made)
    at, to = chance.randrange(len(a) + 1), chance.randrange(len(b) + 1)
    return a[:at] + b[to:] if kind < 0.8 else b[:to] + a[at:]


def noise(data):
    data = bytearray(data)
    for _ in range(len(data) // 200):
        data[chance.randrange(len(data))] = chance.randrange(256)
    return bytes(data)


def body(count):
    lines = [line() for _ in range(count)]
    if name == "json":
        return json.dumps([{"v": x, "r": x, "c": x} for x in lines], indent=chance.choice([None, 0])).encode()
    if name == "misp":
        kinds = ["domain", "url", "ip-src", "ip-dst|port", "domain|ip", "comment"]
        event = {"info": "x", "Attribute": [{"type": chance.choice(kinds), "value": x, "to_ids": True} for x in lines]}
        return json.dumps({"list": lines} if chance.random() < 0.5 else {"Event": event}).encode()
    if name == "stix":
        fit = [x if chance.random() < 0.1 else "[domain-name:value = '%s']" % x.replace("'", "") for x in lines]
        rows = [{"type": "indicator", "id": str(i), "pattern": x, "pattern_type": "stix"} for i, x in enumerate(fit)]
        return json.dumps({"type": "bundle", "objects": rows}).encode()
    head = (CASES[name].header or "") if name in CASES else ""
    return noise("\n".join([head, *lines]).encode("utf-8", "surrogatepass"))


lines = refused = accepted = failed = 0
first = 0
while lines < wanted:
    count = min(PIECE, wanted - lines)
    data = body(count)
    try:
        out = parse(data, feed(spec))
    except FeedError:
        failed += 1
    else:
        check_account(out, data)
        accepted += out.accepted
        refused += sum(out.rejects.values())
    lines += count
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    if lines >= wanted // 5 and not first:
        first = peak
print(json.dumps([lines, accepted, refused, failed, first, peak]))
"""
FORMATS = (
    *("hosts", "lines", "wildcard", "adblock", "dnsmasq", "unbound", "csv", "csv-by-number", "jsonl", "scored", "urls"),
    *("maltrail", "suricata", "rpz", "dshield", "json", "misp", "stix", "auto"),
)


def fuzz(name: str, lines: int) -> tuple[int, int, int, int, int, int]:
    """Lines, accepted, refused, failed documents; the peak in megabytes after a fifth and at the end."""
    folder = os.path.dirname(__file__)  # noqa: PTH120
    done = subprocess.run(
        [sys.executable, "-c", FUZZ, name, str(lines)], capture_output=True, text=True, cwd=folder, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: tuple[int, int, int, int, int, int] = tuple(json.loads(done.stdout))
    return found


@pytest.mark.parametrize("name", FORMATS)
def test_some_thousand_fuzzed_lines_are_accounted_for(name: str) -> None:
    lines, accepted, refused, failed, _, _ = fuzz(name, 5_000)
    assert lines == 5_000
    assert failed or (accepted and refused), (accepted, refused, failed)


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_ten_million_fuzzed_lines_are_accounted_for_in_flat_memory(name: str) -> None:
    # A share of ten million each; BLOCKLIST_FUZZ_LINES for more or less.
    wanted = int(os.environ.get("BLOCKLIST_FUZZ_LINES", 10_000_000)) // len(FORMATS)
    lines, accepted, refused, failed, first, peak = fuzz(name, wanted)
    print(f"{name}: {lines:,} lines, {accepted:,} accepted, {refused:,} refused, {failed} failed; {first} → {peak} MB")
    assert lines == wanted and accepted and refused
    assert peak <= 1.25 * first + 30, f"{first} MB after a fifth, {peak} MB at the end"
