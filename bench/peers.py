"""What others do in the same time: B, the pipeline that everything is a ratio of, and a compiler of lists."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from bench.child import Ran, run

# Six syntaxes stripped, lower case, one a line. It knows nothing of IDN, special names, provenance or folding.
_STRIP = r"""
{ sub(/\r$/, ""); sub(/[ \t]*#.*$/, "") }
$0 == "" || /^!/ { next }
/^(0\.0\.0\.0|127\.0\.0\.1)[ \t]/ { $0 = $2 }
/^\|\|/ { sub(/^\|\|/, ""); sub(/\^.*$/, "") }
/^(address|server|local)=\// { sub(/^[a-z]+=\//, ""); sub(/\/.*$/, "") }
/^local-zone:/ { gsub(/"/, ""); $0 = $2; sub(/\.$/, "") }
/^\*\./ { sub(/^\*\./, "") }
{ print tolower($0) }
"""


def found(program: str) -> str | None:
    """Where a program is, the administrator's folders included."""
    return shutil.which(program) or shutil.which(program, path="/usr/local/sbin:/usr/sbin:/sbin")


def pipeline(files: Sequence[Path], work: Path) -> float:
    """B in seconds: `mawk … | LC_ALL=C sort -u` over `files`."""
    script = work / "strip.awk"
    script.write_text(_STRIP)
    command = 'awk=$1; script=$2; out=$3; shift 3; cat "$@" | "$awk" -f "$script" | LC_ALL=C sort -u > "$out"'
    ran = run(["sh", "-c", command, "sh", found("mawk") or "awk", script, work / "B.out", *files])
    if ran.status:
        raise SystemExit(f"the pipeline B failed: {ran.output[-500:]}")
    return ran.seconds


# What a line of such a list is: a comment or nothing, `0.0.0.0 name`, `name`, `||name^`.
_COMMON = re.compile(
    rb"\s*(?:[#!].*|(?:(?:0\.0\.0\.0|127\.0\.0\.1)\s+)?[\w.-]*[a-z][\w.-]*\s*(?:#.*)?|\|\|[\w.-]+\^)?\r?"
)


def common(path: Path) -> bool:
    """Does `path` hold names alone, in a syntax that every compiler of lists reads?"""
    lines = path.read_bytes().splitlines()
    return bool(lines) and sum(_COMMON.fullmatch(line) is not None for line in lines) > 0.95 * len(lines)


def hostlist_compiler(files: Sequence[Path], work: Path) -> tuple[str, Ran, int] | None:
    """AdGuard's HostlistCompiler over `files`: its version, its run, the rules left; None where it is not there.

    With the transformations that make of lists one without repetitions, as its documentation recommends them.
    """
    program = found("hostlist-compiler")
    if program is None:
        return None
    config, out = work / "compiler.json", work / "compiled.txt"
    steps = ["RemoveComments", "Compress", "Validate", "Deduplicate"]
    sources = [{"source": str(file), "type": "hosts"} for file in files]
    config.write_text(json.dumps({"name": "all", "sources": sources, "transformations": steps}))
    version = run([program, "--version"]).output.split()[-1]
    ran = run([program, "-c", config, "-o", out], cwd=work)
    if ran.status or not out.exists():
        raise SystemExit(f"hostlist-compiler failed: {ran.output[-500:]}")
    with out.open("rb") as file:
        rules = sum(not line.startswith(b"!") for line in file)
    return version, ran, rules
