"""Public suffixes and registrable domains, by the Public Suffix List (publicsuffix.org/list, private section included).

The rules come from the `publicsuffixlist` package, or from a file the operator keeps fresher. This module
reads the rules themselves, since guards need the question "is this name a suffix, and by which kind of rule?".
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from blocklist.names import MAX_LABEL, MAX_NAME, RejectedError, is_local, normalize_name
from blocklist.packaged import folder_of
from blocklist.special_use import ENGINE_LABELS

if TYPE_CHECKING:
    import polars as pl


class SuffixRules(msgspec.Struct, frozen=True, dict=True):
    """The list as three sets of A-label names.

    `exact` holds `co.uk`; `wildcard` holds `ck` for the rule `*.ck`; `exception` holds `www.ck` for `!www.ck`.
    """

    exact: frozenset[str]
    wildcard: frozenset[str]
    exception: frozenset[str]
    digest: str

    @cached_property
    def _columns(self) -> tuple[pl.Series, pl.Series, pl.Series]:
        """`exact`, `wildcard` and `exception`, each as one list in one row, which is what `is_in` looks into."""
        import polars as pl

        exact, wildcard, exception = (
            pl.Series(list(rules), dtype=pl.String).implode() for rules in (self.exact, self.wildcard, self.exception)
        )
        return exact, wildcard, exception

    def is_suffix(self, name: str) -> bool:
        """Is `name` itself a public suffix? A single label always is (the list's default rule `*`).

        A wildcard's own name is one too, as libpsl and publicsuffixlist have it: below `dweb.link`, named by
        `*.dweb.link` alone, everything belongs to others.
        """
        if "." not in name:
            return True
        if name in self.exception:
            return False
        return name in self.exact or name in self.wildcard or name.partition(".")[2] in self.wildcard

    def is_wildcard_suffix(self, name: str) -> bool:
        """Is `name` a suffix only because a wildcard rule says so? Such names are held as subtrees only."""
        return "." in name and name not in self.exact and self.is_suffix(name)

    def is_registrable(self, name: str) -> bool:
        """Is `name` one label below a public suffix?"""
        parent = name.partition(".")[2]
        return bool(parent) and not self.is_suffix(name) and (name in self.exception or self.is_suffix(parent))

    def registrable(self, name: str) -> str | None:
        """The registrable domain at or above `name`; None for a public suffix."""
        while name:
            if self.is_registrable(name):
                return name
            if self.is_suffix(name):
                return None
            name = name.partition(".")[2]
        return None

    def columns(self, names: pl.Series) -> pl.DataFrame:
        """The same answers for a column.

        In: String, A-label names. Out, aligned: `suffix: Boolean`, `wildcard_suffix: Boolean`,
        `registrable: Boolean`.
        """
        import polars as pl

        exact, wildcard, exception = self._columns
        name = pl.col("name")
        parent = pl.col("parent")
        frame = pl.DataFrame({"name": names}).with_columns(
            name.str.splitn(".", 2).struct.field("field_1").alias("parent")
        )
        frame = frame.with_columns(parent.str.splitn(".", 2).struct.field("field_1").alias("grand"))
        by_rule = frame.select(
            name.is_in(exact).alias("exact"),
            name.is_in(exception).alias("exception"),
            (name.is_in(wildcard) | parent.is_in(wildcard).fill_null(False)).alias("wildcard"),
            parent.is_null().alias("single"),
            (
                parent.is_not_null()
                & (
                    pl.col("grand").is_null()
                    | (
                        ~parent.is_in(exception)
                        & (
                            parent.is_in(exact)
                            | parent.is_in(wildcard)
                            | pl.col("grand").is_in(wildcard).fill_null(False)
                        )
                    )
                )
            )
            .fill_null(False)
            .alias("below_suffix"),
        )
        suffix = pl.col("single") | (~pl.col("exception") & (pl.col("exact") | pl.col("wildcard")))
        return by_rule.select(
            suffix.alias("suffix"),
            (suffix & ~pl.col("single") & ~pl.col("exact")).alias("wildcard_suffix"),
            (~suffix & (pl.col("exception") | pl.col("below_suffix"))).alias("registrable"),
        )


# Rules that are names already, nine of ten: what `normalize_name` returns as it is, but for the ends asked about below.
_LABEL = rf"[a-z0-9](?:[a-z0-9-]{{0,{MAX_LABEL - 2}}}[a-z0-9])?"
_PLAIN = re.compile(rf"^(?=.{{1,{MAX_NAME}}}$)(?:{_LABEL}\.)*[a-z]{{2,{MAX_LABEL}}}$", re.ASCII | re.MULTILINE)


def parse_rules(text: str, digest: str | None = None) -> SuffixRules:
    """Rules of a list in the format of publicsuffix.org: one a line, `//` comments, `*.` and `!` prefixes.

    A line that is no name is skipped: a damaged list must make guards stricter or leave them, never crash them.
    `digest` tells the list from others; without it, the rules do.
    """
    exact = {line for line in _PLAIN.findall(text) if _ends_well(line)}
    wildcard: set[str] = set()
    exception: set[str] = set()
    for line in text.splitlines():
        if not line or line.startswith("//") or line in exact:
            continue
        rule = line.strip()
        if not rule or rule.startswith("//"):
            continue
        rule = rule.split()[0]
        target = exact
        if rule.startswith("!"):
            rule, target = rule[1:], exception
        elif rule.startswith("*."):
            rule, target = rule[2:], wildcard
        try:
            target.add(normalize_name(rule, allow_single=True))
        except RejectedError:
            continue
    if digest is None:
        digest = hashlib.sha256("\n".join(sorted(exact) + sorted(wildcard) + sorted(exception)).encode()).hexdigest()
    return SuffixRules(frozenset(exact), frozenset(wildcard), frozenset(exception), digest)


def _ends_well(name: str) -> bool:
    return name.rpartition(".")[2] not in ENGINE_LABELS and not is_local(name)


def builtin_digest() -> str:
    """What tells the built-in list from others, without reading its rules: most runs change nothing and need none."""
    return hashlib.sha256(_builtin_list().read_bytes()).hexdigest()


@cache
def builtin_rules() -> SuffixRules:
    """The rules that the installed `publicsuffixlist` package carries."""
    return parse_rules(_builtin_list().read_text(encoding="utf-8"), builtin_digest())


def builtin_rules_about(names: Iterable[str]) -> SuffixRules:
    """The built-in rules for `names` alone: enough to ask about them, in 2 ms where the whole list takes 70.

    Whoever asks whether a name is registrable needs it, its parent and the one above that here.
    """
    text = b"\n" + _builtin_list().read_bytes()
    wanted = {name: [name] for name in names}
    for name in wanted:
        if "xn--" in name:
            wanted[name].append(_to_unicode(name))
    exact, wildcard, exception = (
        frozenset(n for n, spellings in wanted.items() if any(_has_line(text, mark + s) for s in spellings))
        for mark in ("", "*.", "!")
    )
    return SuffixRules(exact, wildcard, exception, digest="")


def _builtin_list() -> Path:
    return folder_of("publicsuffixlist") / "public_suffix_list.dat"


def _has_line(text: bytes, rule: str) -> bool:
    """Is there a line that begins with the word `rule`?"""
    word = b"\n" + rule.encode()
    at = text.find(word)
    while at >= 0:
        if not text[at + len(word) : at + len(word) + 1].strip():
            return True
        at = text.find(word, at + 1)
    return False


def _to_unicode(name: str) -> str:
    import idna

    try:
        return idna.decode(name)
    except (idna.IDNAError, UnicodeError):
        return name
