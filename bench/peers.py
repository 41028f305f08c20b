"""What others do in the same time: B, the pipeline that everything is a ratio of."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from bench.child import run

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
