"""Sets of this machine's packet filter: how many elements the kernel has, and how many the published file gave."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blocklist.errors import ReleaseError
from blocklist.publish.check import fill
from blocklist.publish.command import run
from blocklist.publish.nftables import DIRECTIONS

_SECONDS = 60.0
_NAMES = [f"{direction}{digit}" for direction in DIRECTIONS for digit in "46"]


def counted(engine: str, options: Mapping[str, Any], path: Path) -> dict[str, tuple[int, int]]:
    """`{set: (in the kernel, in the file)}`. Raises ReleaseError when the sets can't be read."""
    if engine == "nftables":
        table = str(options["table"])
        wanted = _nftables_file(path)
        return {name: (_nftables(table, name), wanted[name]) for name in _NAMES}
    prefix = str(options["prefix"])
    wanted = _ipset_file(path)
    return {f"{prefix}-{name}": (_ipset(f"{prefix}-{name}"), wanted[f"{prefix}-{name}"]) for name in _NAMES}


def _output(argv: list[str]) -> bytes:
    pieces: list[bytes] = []
    try:
        outcome = run(fill(argv, {}), seconds=_SECONDS, take=pieces.append)
    except OSError as error:
        raise ReleaseError(f"{argv[0]} could not be started: {error.strerror or error}") from None
    if outcome.status != 0:
        how = "did not end in time" if outcome.status is None else outcome.shown().strip() or f"status {outcome.status}"
        raise ReleaseError(f"{' '.join(argv)}: {how}", hint="root, or CAP_NET_ADMIN, may read the sets")
    return b"".join(pieces)


def _nftables(table: str, name: str) -> int:
    found = json.loads(_output(["nft", "-j", "list", "set", "inet", table, name]))
    return sum(len(item["set"].get("elem", ())) for item in found["nftables"] if "set" in item)


def _ipset(name: str) -> int:
    found = re.search(rb"^Number of entries: (\d+)$", _output(["ipset", "list", name, "-terse"]), re.MULTILINE)
    if found is None:
        raise ReleaseError(f"ipset {name}: its number of entries is not told")
    return int(found[1])


def _nftables_file(path: Path) -> Counter[str]:
    counts: Counter[str] = Counter()
    name = ""
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b",\n"):
                counts[name] += 1
            elif (found := re.match(rb"\s*(?:set|add element inet \S+) (\w+) \{", line)) is not None:
                name = found[1].decode()
    return counts


def _ipset_file(path: Path) -> Counter[str]:
    counts: Counter[str] = Counter()
    with path.open("rb") as file:
        for line in file:
            if line.startswith(b"add "):
                counts[line.split(b" ", 2)[1].decode().removesuffix("-new")] += 1
    return counts
