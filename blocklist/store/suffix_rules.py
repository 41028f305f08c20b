"""The built-in rules of public suffixes as columns, kept for the next run: a cache that may be deleted at any time.

Every update that brings something new asks for them, and to read their list takes 80 ms, most of it IDNA.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from blocklist.store import derived
from blocklist.suffixes import SuffixRules, builtin_digest

_KINDS = ("exact", "wildcard", "exception")


def file_of(state: Path) -> Path:
    # Not `.frames`, as what policies decided is: that is read for exports while the record is written.
    return state / "decided" / "suffixes.rules"


def kept_rules(state: Path) -> SuffixRules | None:
    """`builtin_rules`, from what an earlier run kept in `state` where the list is still the same."""
    digest = builtin_digest()
    kept = derived.read(file_of(state))
    if kept is None or kept.told != {"list": digest}:
        return None
    exact, wildcard, exception = (frozenset(kept.frames[kind]["name"].to_list()) for kind in _KINDS)
    return SuffixRules(exact, wildcard, exception, digest)


def keep_rules(state: Path, rules: SuffixRules) -> None:
    """Keep the built-in rules for the next run; only where there is a record, whose trace this is (`store.lost`)."""
    frames = {kind: pl.DataFrame({"name": sorted(getattr(rules, kind))}, {"name": pl.String}) for kind in _KINDS}
    derived.write(file_of(state), {"list": rules.digest}, frames)
