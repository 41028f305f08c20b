"""The lists that are measured: made up, the same bytes at every run, or a folder of real ones."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

SEED = 20
_ENDINGS = ("com", "net", "org", "info", "top", "xyz", "shop", "de", "pl", "co.uk", "com.br", "online", "site")
_WORDS = ("login", "secure", "track", "ads", "cdn", "mail", "shop", "bank", "pay", "update", "news", "portal", "app")
# Files beside real lists that are no lists of names, addresses or URLs.
_NO_LISTS = (".md", ".tsv", ".dat", ".rules", ".yar", ".yara")
_NO_REFERENCE = ("sinkhole", "parking", "dynamic-dns", "falsepositive")
_NAME = re.compile(rb"(?<![\w./-])([a-z0-9][a-z0-9-]*\.(?:[a-z0-9-]+\.)*[a-z]{2,})(?![\w-])", re.IGNORECASE)
_ADDRESS = re.compile(rb"(?<![\d.])(\d{1,3}\.\d{1,3}\.)(\d{1,3})(\.\d{1,3})(?![\d.])")


@dataclass(frozen=True)
class List:
    """One list as a feed: the file, and its keys in the configuration."""

    file: str
    format: str  # as TOML
    category: str


def generate(folder: Path, lines: int = 2_500_000) -> list[List]:
    """Write lists of some `lines` lines in all into `folder`: names in six syntaxes that overlap, and networks."""
    rng = random.Random(SEED)
    names = _names(rng, lines * 5 // 10)
    shares = {
        "hosts-a.txt": ("hosts", 0.18, "0.0.0.0 {}\n", "malware"),
        "hosts-b.txt": ("hosts", 0.10, "127.0.0.1\t{} # seen\n", "malware"),
        "lines-a.txt": ("lines", 0.24, "{}\n", "phishing"),
        "lines-b.txt": ("lines", 0.10, "{}\r\n", "scam"),
        "adblock.txt": ("adblock", 0.10, "||{}^\n", "malware"),
        "dnsmasq.conf": ("dnsmasq", 0.06, "address=/{}/0.0.0.0\n", "phishing"),
        "unbound.conf": ("unbound", 0.04, 'local-zone: "{}." always_nxdomain\n', "scam"),
        "wildcard.txt": ("wildcard", 0.04, "*.{}\n", "malware"),
    }
    lists = []
    for file, (format_, share, shape, category) in shares.items():
        # A stretch that begins anywhere, so that any two lists share some names and not others.
        count, start = int(lines * share), rng.randrange(len(names))
        chosen = [names[(start + i) % len(names)] for i in range(min(count, len(names)))]
        comment = "!" if format_ == "adblock" else "#"
        body = f"{comment} {file}, made up for measuring\n" + "".join(map(shape.format, chosen))
        (folder / file).write_text(body, newline="")
        lists.append(List(file, f'"{format_}"', category))
    for file, share in (("addresses-a.txt", 0.08), ("addresses-b.txt", 0.06)):
        (folder / file).write_text("".join(f"{a}\n" for a in _addresses(rng, int(lines * share))))
        lists.append(List(file, '"lines"', "attack-source"))
    top = {"list": sorted(rng.sample(names, 2_000)), "type": "hostname"}
    (folder / "top.json").write_text(json.dumps(top, indent=1))
    lists.append(List("top.json", '"misp"', "reference"))
    return lists


def _names(rng: random.Random, count: int) -> list[str]:
    """Different names in no order; two in five stand below another one."""
    made: list[str] = []
    seen: set[str] = set()
    while len(made) < count:
        if made and rng.random() < 0.4:
            name = f"{rng.choice(_WORDS)}{rng.randrange(100)}.{made[rng.randrange(len(made))]}"
        else:
            name = f"{rng.choice(_WORDS)}-{rng.getrandbits(34):x}.{rng.choice(_ENDINGS)}"
        if name not in seen and name.count(".") < 8:
            seen.add(name)
            made.append(name)
    rng.shuffle(made)
    return made


def _addresses(rng: random.Random, count: int) -> Iterator[str]:
    for _ in range(count):
        prefix = f"{rng.randrange(11, 100)}.{rng.randrange(256)}.{rng.randrange(256)}."
        yield f"{prefix}0/24" if rng.random() < 0.05 else f"{prefix}{rng.randrange(256)}"


def adopt(corpus: Path, folder: Path) -> list[List]:
    """Copy the lists of a folder of real ones into `folder`, with the format each looks like."""
    lists = []
    for path in sorted(corpus.iterdir()):
        if not path.is_file() or path.suffix in _NO_LISTS or path.stat().st_size == 0:
            continue
        found = _look(path)
        if found is not None:
            shutil.copyfile(path, folder / path.name)
            lists.append(found)
    if not lists:
        raise SystemExit(f"{corpus}: no lists in this folder")
    return lists


def _look(path: Path) -> List | None:
    with path.open("rb") as file:
        head = file.read(65_536)
    if path.suffix == ".json":
        if b'"list"' not in path.read_bytes() or any(word in path.name for word in _NO_REFERENCE):
            return None
        return List(path.name, '"misp"', "reference")
    first = head.split(b"\n", 1)[0].decode("utf-8", "replace").strip().lower()
    columns = [cell.strip('" ') for cell in first.split(",")]
    value = next((name for name in ("indicator", "domain", "url", "ip") if name in columns), None)
    if len(columns) > 1 and value is not None:
        return List(path.name, f'{{ name = "csv", value = "{value}" }}', "malware")
    return List(path.name, '"auto"', "malware")


def configuration(folder: Path, lists: list[List], base: str, checks: str = "false") -> Path:
    """A blocklist.toml in `folder` whose feeds are `lists` below the URL `base`; three exports."""
    (folder / "exports").mkdir(parents=True, exist_ok=True)
    taken = sorted({entry.category for entry in lists} - {"reference"})
    text = ['state = "var"', "[feeds]", "enable = []", "[policy.default]", f"categories = {json.dumps(taken)}"]
    for number, entry in enumerate(lists):
        text += [
            f"[feed.f{number:03}]",
            f'url = "{base}/{entry.file}"',
            f"format = {entry.format}",
            f'category = "{entry.category}"',
            'confidence = 70\nallow_private = true\nmin_interval = "0"',
        ]
    for name, format_ in (("dns", "rpz"), ("proxy", "squid"), ("fw", "nftables")):
        text += [f"[export.{name}]", f'format = "{format_}"', f'path = "exports/{name}"', f"check = {checks}"]
    path = folder / "blocklist.toml"
    path.write_text("\n".join(text) + "\n")
    return path


def change(folder: Path, lists: list[List], every: int = 100) -> int:
    """Change the indicator of one line in `every` of each list, in place; the number of lines changed."""
    changed = 0
    for entry in lists:
        path = folder / entry.file
        lines = path.read_bytes().split(b"\n")
        for number in range(every // 2, len(lines), every):
            new, times = _ADDRESS.subn(_other_address, lines[number], count=1)
            if not times:
                new, times = _NAME.subn(rb"b%d.\1" % (number % 7), lines[number], count=1)
            changed += times
            lines[number] = new
        beside = path.with_name(path.name + ".new")
        beside.write_bytes(b"\n".join(lines))
        # Servers tell the time of a file in whole seconds; this one must look newer.
        later = path.stat().st_mtime + 60
        os.utime(beside, (later, later))
        beside.replace(path)
    return changed


def _other_address(match: re.Match[bytes]) -> bytes:
    return match[1] + b"%d" % ((int(match[2]) + 97) % 256) + match[3]


def count(folder: Path, lists: list[List]) -> tuple[int, int]:
    """Lines and bytes in all."""
    blobs = [(folder / entry.file).read_bytes() for entry in lists]
    return sum(blob.count(b"\n") for blob in blobs), sum(map(len, blobs))


def main(command: str, folder: Path, argument: str) -> None:
    """`python -m bench.lists generate FOLDER LINES`, `adopt FOLDER CORPUS`, `change FOLDER LISTS`; prints JSON.

    In a process of its own, so that the one that measures stays small (see `bench.child.run`).
    """
    if command == "change":
        print(json.dumps(change(folder, [List(**entry) for entry in json.loads(argument)])))
        return
    made = adopt(Path(argument), folder) if command == "adopt" else generate(folder, int(argument))
    lines, size = count(folder, made)
    print(json.dumps({"lists": [asdict(entry) for entry in made], "lines": lines, "bytes": size}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
