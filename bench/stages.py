"""`python -m bench.stages NAME WORK`: one stage alone, in a process of its own; prints a JSON object of figures."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from bench.lists import SEED, _names
from bench.lossy import ADDRESSES, lossy
from bench.nameserver import nsd
from bench.peers import found


def best(times: int, work: Callable[[], object]) -> float:
    """The least of `times` measurements: what the work costs when nothing else runs."""
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return min(taken)


def fold(_: Path) -> dict[str, Any]:
    """A million names, two in five below another."""
    from blocklist.select.fold import fold as folded

    names = pl.Series("name", _names(random.Random(SEED), 1_000_000))
    decisions = names.to_frame().with_columns(
        pl.lit(True).alias("subtree"), pl.lit(True).alias("block"), pl.lit(True).alias("widenable")
    )
    return {"seconds": best(3, lambda: folded(decisions)), "left": folded(decisions).height}


def cidr(work: Path) -> dict[str, Any]:
    """Text to text: the union of 300,000 networks less 30,000 others, and the same by `iprange`."""
    from blocklist.select import networks

    rng = random.Random(SEED)

    def made(count: int) -> list[str]:
        return [
            f"{a >> 24}.{a >> 16 & 255}.{a >> 8 & 255}.{a & 255 & -(1 << 32 - p)}/{p}"
            for a, p in (
                (rng.randrange(1 << 24, 224 << 24), rng.choice((24, 28, 30, 32, 32, 32))) for _ in range(count)
            )
        ]

    listed, taken_out = made(300_000), made(30_000)
    a, b = pl.Series(listed), pl.Series(taken_out)

    def ours() -> pl.Series:
        left = networks.subtract(networks.union(networks.parse(a)), networks.parse(b))
        return networks.text(networks.to_cidrs(left))

    out: dict[str, Any] = {"seconds": best(3, ours), "left": len(ours())}
    program = found("iprange")
    if program is not None:
        (work / "a").write_text("\n".join(listed) + "\n")
        (work / "b").write_text("\n".join(taken_out) + "\n")

        def theirs() -> bytes:
            command = [program, str(work / "a"), "--except", str(work / "b")]
            return subprocess.run(command, capture_output=True, check=True).stdout

        out["iprange"] = best(3, theirs)
        out["iprange_left"] = theirs().count(b"\n")
    return out


def render(_: Path) -> dict[str, Any]:
    """A million names in each format that takes them, into memory: megabytes a second."""
    from blocklist.publish import descriptor
    from blocklist.publish.render import render as rendered
    from blocklist.publish.selection import Selection

    names = pl.Series("name", sorted(_names(random.Random(SEED), 1_000_000)))
    rates = {}
    for name in ("rpz", "dnsmasq", "squid", "hosts", "unbound", "haproxy", "adblock", "tinyproxy", "suricata-domain"):
        fmt = descriptor.builtin()[name]
        whole = pl.lit(fmt.takes_subtree)
        domains = names.to_frame().with_columns(whole.alias("subtree"), pl.lit(True).alias("block"))
        selection = Selection(domains=domains)

        def work(fmt: descriptor.Format = fmt, selection: Selection = selection) -> int:
            return rendered(fmt, selection, {"serial": 1}, io.BytesIO()).size

        size = work()
        rates[name] = size / 1e6 / best(3, work)
    return {"rates": rates}


def write_query_log(path: Path, lines: int, listed: list[str]) -> None:
    """A query log of BIND: few names asked for often, many once, some of them in `listed`."""
    rng = random.Random(SEED)
    names = [*_names(rng, lines // 5), *listed]
    rng.shuffle(names)
    weights = [1 / (rank + 1) for rank in range(len(names))]
    asked = rng.choices(names, weights, k=lines // 2) + rng.choices(names, k=lines - lines // 2)
    with path.open("w") as log:
        for i, name in enumerate(asked):
            client = f"192.0.2.{i % 251}#{1024 + i % 60_000} ({name})"
            log.write(
                f"24-Nov-2026 22:54:03.{i % 1000:03} queries: info: client @0x7f5d0c00a168 {client}: "
                f"query: {name} IN A +E(0)K (192.0.2.53)\n"
            )


def verify(work: Path) -> dict[str, Any]:
    """Names of one zone, half of them there, asked of NSD on loopback; dnsperf and dnspython ask it too."""
    from blocklist.verify.control import Control
    from blocklist.verify.endpoint import Resolver
    from blocklist.verify.known import Known
    from blocklist.verify.loop import run
    from blocklist.verify.processes import resolve_in
    from blocklist.verify.resolver import resolve_all
    from blocklist.verify.task import Task

    names = [f"h{i:06}.example" for i in range(50_000)]
    random.Random(SEED).shuffle(names)
    with nsd(work, names[::2]) as port:
        resolvers = [Resolver("127.0.0.1", port), Resolver("127.0.0.2", port)]
        found_out = run(resolve_all(names, resolvers, rate=0, window=400, keep_case=resolvers))
        there = set(names[::2])
        frame, summary = found_out.frame, found_out.summary
        wrong = sum(
            status != ("live" if name in there else "nxdomain")
            for name, status in zip(frame["name"], frame["status"], strict=True)
        )
        out: dict[str, Any] = {"rate": summary.rate, "wrong": wrong, "checked": summary.checked}
        task = Task(tuple(resolvers), 0, 2.0, 3, Known(), Control(("h000000.example",), "example"), zones=False)
        shared = resolve_in(2, names, replace(task, window=800, keep_case=frozenset(resolvers)))
        out["two"] = shared.summary.rate
        out["dnspython"] = asyncio.run(_dnspython(names[:2_000], port))
        dnsperf = found("dnsperf")
        if dnsperf is not None:
            (work / "queries").write_text("".join(f"{name} {kind}\n" for name in names for kind in ("A", "AAAA")))
            command = [dnsperf, "-s", "127.0.0.1", "-p", str(port), "-d", str(work / "queries"), "-l", "3", "-q", "400"]
            text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            out["dnsperf"] = next(float(line.split()[-1]) for line in text.splitlines() if "Queries per second" in line)
    return out


def verify_lossy(work: Path) -> dict[str, Any]:
    """A million names, half of them there, asked of NSD through a path that loses 2 % each way and jitters by 50 ms.

    The same through the same proxy without loss, and dnsperf through it with loss: what it loses, it counts as lost.
    """
    from blocklist.verify.endpoint import Resolver
    from blocklist.verify.loop import run
    from blocklist.verify.resolver import resolve_all

    names = [f"h{i:07}.example" for i in range(1_000_000)]
    random.Random(SEED).shuffle(names)
    there = names[::2]
    out: dict[str, Any] = {"names": len(names)}
    with nsd(work, there) as port:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for loss, jitter, what in ((0.02, 0.05, "lossy"), (0.0, 0.0, "clean")):
            with lossy(port, loss, jitter) as proxy:
                resolvers = [Resolver(address, proxy) for address in ADDRESSES]
                asking = resolve_all(
                    names, resolvers, rate=0, window=2000, timeout=1.0, attempts=5, keep_case=resolvers
                )
                found_out = run(asking)
                frame, summary = found_out.frame, found_out.summary
                if what == "lossy":
                    out["memory"] = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / len(names)
                    out["dnspython"] = asyncio.run(_dnspython(names[:2_000], proxy, next(iter(ADDRESSES))))
                out[what] = {
                    "seconds": summary.seconds,
                    "rate": summary.rate,
                    "queries": summary.queries,
                    "lost": sum(report.lost for report in summary.resolvers),
                    "dropped": [report.dropped for report in summary.resolvers if report.dropped],
                    "matrix": _matrix(frame, there),
                }
                if (dnsperf := found("dnsperf")) is not None:
                    (work / "queries").write_text("".join(f"{n} {k}\n" for n in names[:200_000] for k in ("A", "AAAA")))
                    asked = ["-s", next(iter(ADDRESSES)), "-p", str(proxy), "-d", str(work / "queries"), "-l", "10"]
                    text = subprocess.run(
                        [dnsperf, *asked, "-q", "4000", "-t", "1"], capture_output=True, text=True, check=True
                    ).stdout
                    line = next(line for line in text.splitlines() if "Queries per second" in line)
                    out[what]["dnsperf"] = float(line.split()[-1])
            del found_out, frame
    return out


def _matrix(frame: pl.DataFrame, there: list[str]) -> dict[str, int]:
    """How many names of which truth got which verdict."""
    truth = pl.when(pl.col("name").is_in(pl.Series(there).implode())).then(pl.lit("live")).otherwise(pl.lit("gone"))
    counted = frame.select(truth.alias("truth"), "status").group_by("truth", "status").len().sort("truth", "status")
    return {f"{truth} said {status}": count for truth, status, count in counted.iter_rows()}


async def _dnspython(names: list[str], port: int, address: str = "127.0.0.1") -> float:
    """Queries a second by `dns.asyncresolver`, a hundred at a time."""
    import dns.asyncresolver
    import dns.resolver

    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers, resolver.port = [address], port
    resolver.timeout, resolver.lifetime = 1.0, 10.0
    turns = asyncio.Semaphore(100)

    async def ask(name: str, kind: str) -> None:
        async with turns:
            with contextlib.suppress(dns.resolver.NXDOMAIN):
                await resolver.resolve(name, kind, raise_on_no_answer=False)

    started = time.perf_counter()
    await asyncio.gather(*(ask(name, kind) for name in names for kind in ("A", "AAAA")))
    return 2 * len(names) / (time.perf_counter() - started)


def parsers(work: Path) -> dict[str, Any]:
    """A million lines of every input format; and B over those of `hosts`."""
    from bench import formats, peers

    names = _names(random.Random(SEED), formats.LINES)
    (work / "hosts").write_text(formats.FORMATS["hosts"][1](names))
    b = min(peers.pipeline([work / "hosts"], work) for _ in range(2))
    return {"rates": formats.rates(), "b": b}


STAGES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "fold": fold,
    "cidr": cidr,
    "parsers": parsers,
    "render": render,
    "verify": verify,
    "verify_lossy": verify_lossy,
}

if __name__ == "__main__":
    print(json.dumps(STAGES[sys.argv[1]](Path(sys.argv[2]))))
