"""A million lines of every input format, and what each parser takes for them."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator

from bench.lists import SEED, _addresses, _names
from blocklist.catalog import Feed, InputFormat
from blocklist.ingest.parse import parse

LINES = 1_000_000
# Rules are read one by one, for they are few and long.
SLOW = frozenset({"misp", "stix", "suricata"})

Writer = Callable[[list[str]], str]


def _each(shape: str) -> Writer:
    return lambda names: "".join(map(shape.format, names))


def _json(names: list[str]) -> str:
    return json.dumps([{"id": i, "domain": n, "threat": "malware"} for i, n in enumerate(names)], indent=0)


def _rules(names: list[str]) -> str:
    return "".join(
        f'alert dns $HOME_NET any -> any any (msg:"seen"; dns.query; content:"{n}"; bsize:{len(n)}; nocase; sid:{i};)\n'
        for i, n in enumerate(names)
    )


def _trails(names: list[str]) -> str:
    """Ten trails under a reference, in the four shapes that publishers write."""
    shapes = ("{}\n", "{}\n", "{}:8080\n", "{}/gate.php\n")
    heads = (f"\n# Reference: https://report.example/{i}\n\n" for i in range(len(names)))
    return "".join((next(heads) if i % 10 == 0 else "") + shapes[i % 4].format(n) for i, n in enumerate(names))


FORMATS: dict[str, tuple[InputFormat, Writer]] = {
    "hosts": (InputFormat(name="hosts"), _each("0.0.0.0 {}\n")),
    "lines": (InputFormat(name="lines"), _each("{}\n")),
    "wildcard": (InputFormat(name="wildcard"), _each("*.{}\n")),
    "adblock": (InputFormat(name="adblock"), _each("||{}^\n")),
    "dnsmasq": (InputFormat(name="dnsmasq"), _each("address=/{}/#\n")),
    "unbound": (InputFormat(name="unbound"), _each('local-zone: "{}." always_null\n')),
    "csv": (InputFormat(name="csv", value="domain"), lambda n: "id,domain,why\n" + _each("7,{},seen\n")(n)),
    "csv, quoted": (
        InputFormat(name="csv", value=2, header=False),
        _each('"2026-01-01 10:00:00","{}","malware, seen"\n'),
    ),
    "jsonl": (InputFormat(name="jsonl", value="domain"), _each('{{"domain":"{}","id":7}}\n')),
    "json": (InputFormat(name="json", value="domain"), _json),
    "scored": (InputFormat(name="scored"), _each("{}\t7\n")),
    "urls": (InputFormat(name="urls"), _each("https://{}/a/b.php?c=d\n")),
    "maltrail": (InputFormat(name="maltrail"), _trails),
    "rpz": (InputFormat(name="rpz"), _each("{} CNAME .\n")),
    "rpz, with TTL and class": (InputFormat(name="rpz"), _each("{}\t60\tIN\tCNAME\t.\n")),
    "suricata": (InputFormat(name="suricata"), _rules),
    "misp": (InputFormat(name="misp"), lambda names: json.dumps({"list": names}, indent=1)),
}


def _networks(rng: random.Random) -> Iterator[str]:
    for address in _addresses(rng, LINES):
        base = address.partition("/")[0].rpartition(".")[0]
        yield f"{base}.0\t{base}.255\t24\t99\tEXAMPLE\tXX\n"


def rates() -> dict[str, dict[str, float]]:
    """By format: megabytes and lines, and seconds of processor for parsing them, the least of three."""
    rng = random.Random(SEED)
    names = _names(rng, LINES)
    out = {}
    for name, (spec, write) in FORMATS.items():
        out[name] = _rate(write(names).encode(), spec)
    addresses = list(_addresses(rng, LINES))
    out["lines, addresses"] = _rate("".join(f"{a}\n" for a in addresses).encode(), InputFormat(name="lines"))
    single = [a.rpartition(".")[::2] for a in addresses if "/" not in a]
    whole = (f"{head}.{int(last) & 240}-{head}.{int(last) | 15}\n" for head, last in single)
    out["lines, ranges of one network"] = _rate("".join(whole).encode(), InputFormat(name="lines"))
    odd = (f"{head}.{last}-{head}.255\n" for head, last in single)
    out["lines, ranges of four networks"] = _rate("".join(odd).encode(), InputFormat(name="lines"))
    out["dshield"] = _rate("".join(_networks(rng)).encode(), InputFormat(name="dshield"))
    return out


def _rate(data: bytes, spec: InputFormat) -> dict[str, float]:
    feed = Feed(id="bench", title="bench", url="file:bench", category="malware", format=spec)
    taken = []
    for _ in range(1 if spec.name in SLOW else 3):
        started = time.perf_counter()
        parsed = parse(data, feed)
        taken.append(time.perf_counter() - started)
    assert parsed.accepted, spec
    return {"mb": len(data) / 1e6, "seconds": min(taken), "lines": parsed.lines}
