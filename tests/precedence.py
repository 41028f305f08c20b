"""The table of precedence: what is listed, ruled, held and asked, and what becomes of it.

`test_precedence.py` proves every row against the columns, the single name, and the model of the written rules;
`make docs` writes docs/precedence.md from it.
"""

# ruff: noqa: E501 - a row of the table is one line
from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from worlds import Line, Word, World

from blocklist.catalog import Feed
from blocklist.config import Policy

MALWARE, PHISHING, TOP, CORE = (
    Feed(id=name, title="Tests", url="file:list", category=category, confidence=confidence)
    for name, category, confidence in (
        ("malware", "malware", 90),
        ("phishing", "phishing", 40),
        ("top", "reference", 50),
        ("core", "reference", 50),
    )
)
COPY, KIN = (
    Feed(id=name, title="Tests", url="file:list", category="malware", confidence=60, family="kin")
    for name in ("copy", "kin")
)
SHADOW = Feed(id="trial", title="Tests", url="file:list", category="malware", confidence=90, mode="shadow")
SECRET = Feed(id="secret", title="Tests", url="file:list", category="malware", confidence=90, tlp="red")
MINE = Feed(id="mine", title="Tests", url="file:list", category="malware", confidence=90, redistribution="forbidden")
FEEDS = [MALWARE, PHISHING, TOP, CORE, COPY, KIN, SHADOW, SECRET, MINE]
NUMBER = {feed.id: i for i, feed in enumerate(FEEDS)}


@dataclass(frozen=True)
class Case:
    """One row: `why` in words, and what becomes of `asked`."""

    why: str
    asked: str
    blocked: bool
    lines: tuple[Line, ...] = ()
    words: tuple[Word, ...] = ()
    holds: tuple[tuple[str, bool], ...] = ()
    released: frozenset[str] = frozenset()
    dead: frozenset[str] = frozenset()
    policy: Policy = field(default_factory=Policy)
    verdicts: frozenset[tuple[str, str]] = frozenset()

    @property
    def world(self) -> World:
        return World(
            FEEDS, self.lines, self.words, self.holds, self.released, self.dead, self.policy, verdicts=self.verdicts
        )


def lists(*texts: str) -> tuple[Line, ...]:
    """`evil.example`, or `*.evil.example` for all below it too, of the feed malware; `phishing:…` of another."""
    out = []
    for text in texts:
        feed, _, name = text.partition(":") if not text.startswith("//") and ":" in text[:9] else ("", "", text)
        out.append(Line(NUMBER[feed or "malware"], name.removeprefix("*."), name.startswith("*.")))
    return tuple(out)


def allow(*names: str) -> tuple[Word, ...]:
    return tuple(Word("allow", n.removeprefix("="), not n.startswith("=")) for n in names)


def deny(*names: str) -> tuple[Word, ...]:
    return tuple(Word("deny", n.removeprefix("="), not n.startswith("=")) for n in names)


WHOLE, BELOW = False, True
EVIL = "evil.example"
EXACT = Policy(widen=False)
ADS = Policy(guards={"malware": ["core"]})

TABLE: dict[str, list[Case]] = {
    "Scope": [
        Case("a name alone says nothing of what is below it", "a.b.evil.example", False, lists("b.evil.example")),
        Case("a subtree covers all below it", "a.b.evil.example", True, lists("*.b.evil.example")),
        Case("a registrable domain widens to its subtree", "a.evil.example", True, lists(EVIL)),
        Case("unless the policy does not widen", "a.evil.example", False, lists(EVIL), policy=EXACT),
        Case("a name below it is no registrable domain", "z.a.evil.example", False, lists("a.evil.example")),
        Case("nothing covers upwards", EVIL, False, lists("*.a.evil.example")),
    ],
    "Rules against listings": [
        Case("a rule outranks the listing that it covers", "a.evil.example", False, lists("a.evil.example"), allow(EVIL)),
        Case("an exact rule covers its own name alone", "a.evil.example", True, lists(EVIL), allow(f"={EVIL}")),
        Case("and there it decides", EVIL, False, lists(EVIL), allow(f"={EVIL}")),
        Case("an allow inside a listed subtree", "a.evil.example", False, lists(f"*.{EVIL}"), allow("a.evil.example")),
        Case("leaves the rest of it blocked", "b.evil.example", True, lists(f"*.{EVIL}"), allow("a.evil.example")),
        Case("a deny needs no listing", "z.other.example", True, words=deny("other.example")),
        Case("a deny may name a suffix", "z.evil.co.uk", True, words=deny("co.uk")),
        Case("or a top-level domain", "z.evil.co.uk", True, words=deny("uk")),
        Case("an allow for what is listed above", "a.evil.example", False, lists(EVIL), allow("example")),
    ],
    "Rules against rules": [
        Case("the most specific name wins: deny below allow", "a.evil.example", True, (), allow(EVIL) + deny("a.evil.example")),
        Case("allow below deny", "a.evil.example", False, (), deny(EVIL) + allow("a.evil.example")),
        Case("allow wins a tie", EVIL, False, (), deny(EVIL) + allow(EVIL)),
        Case("exact is more specific than a subtree", EVIL, True, (), allow(EVIL) + deny(f"={EVIL}")),
        Case("at its own name alone", "a.evil.example", False, (), allow(EVIL) + deny(f"={EVIL}")),
    ],
    "Holds": [
        Case("a hold withholds what it names", EVIL, False, lists(EVIL), holds=((EVIL, WHOLE),)),
        Case("not what is listed below it", "a.evil.example", True, lists(EVIL, "a.evil.example"), holds=((EVIL, WHOLE),)),
        Case("a hold of the subtree leaves the name", EVIL, True, lists(EVIL), holds=((EVIL, BELOW),)),
        Case("without what is below it", "a.evil.example", False, lists(EVIL), holds=((EVIL, BELOW),)),
        Case("what claims the subtree does not stand at all", EVIL, False, lists(f"*.{EVIL}"), holds=((EVIL, BELOW),)),
        Case("a person's release lasts", EVIL, True, lists(EVIL), holds=((EVIL, WHOLE),), released=frozenset([EVIL])),
        Case("a deny outranks a hold", EVIL, True, lists(EVIL), deny(EVIL), ((EVIL, WHOLE),)),
        Case("an allow outranks a release", EVIL, False, lists(EVIL), allow(EVIL), ((EVIL, WHOLE),), frozenset([EVIL])),
    ],
    "The policy": [
        Case("a feed below its confidence does not count", EVIL, False, lists(f"phishing:{EVIL}")),
        Case("feeds that agree count together", EVIL, True, lists(f"phishing:{EVIL}", f"malware:{EVIL}")),
        Case("those of one family once", EVIL, False, lists(f"copy:{EVIL}", f"kin:{EVIL}"), policy=Policy(min_confidence=70)),
        Case("a subtree must reach the confidence by itself", "z.a.evil.example", False, lists("a.evil.example", "phishing:*.a.evil.example")),
        Case("a category that it does not take", EVIL, False, lists(EVIL), policy=Policy(categories=["phishing"])),
        Case("a feed in shadow", EVIL, False, lists(f"trial:{EVIL}")),
        Case("the dead, where they are dropped", EVIL, False, lists(EVIL), dead=frozenset([EVIL]), policy=Policy(dead="drop")),
        Case("the dead, where they are kept", EVIL, True, lists(EVIL), dead=frozenset([EVIL])),
        Case("the sinkholed, where they are dropped", EVIL, False, lists(EVIL), verdicts=frozenset([(EVIL, "sinkholed")]), policy=Policy(sinkholed="drop")),
        Case("the sinkholed, where they are kept", EVIL, True, lists(EVIL), verdicts=frozenset([(EVIL, "sinkholed")]), policy=Policy(dead="drop", parked="drop")),
        Case("the parked, where they are dropped", EVIL, False, lists(EVIL), verdicts=frozenset([(EVIL, "parked")]), policy=Policy(parked="drop")),
        Case("the parked, where they are kept", EVIL, True, lists(EVIL), verdicts=frozenset([(EVIL, "parked")]), policy=Policy(dead="drop", sinkholed="drop")),
        Case("what is listed below the parked stands", "a.evil.example", True, lists(EVIL, "a.evil.example"), verdicts=frozenset([(EVIL, "parked")]), policy=Policy(parked="drop")),
        Case("a deny is never dead", EVIL, True, lists(EVIL), deny(EVIL), dead=frozenset([EVIL]), policy=Policy(dead="drop")),
        Case("what its source keeps in the house", EVIL, False, lists(f"secret:{EVIL}"), policy=Policy(audience="clients")),
        Case("is taken in the house", EVIL, True, lists(f"secret:{EVIL}")),
        Case("what a publisher forbids to pass on", EVIL, False, lists(f"mine:{EVIL}"), policy=Policy(audience="public")),
        Case("unless another may be told", EVIL, True, lists(f"mine:{EVIL}", EVIL), policy=Policy(audience="public")),
        Case("a rule is for every audience", EVIL, True, lists(f"mine:{EVIL}"), deny(EVIL), policy=Policy(audience="public")),
        Case("a reference that guards the category not", EVIL, True, lists(EVIL, f"top:{EVIL}"), holds=((EVIL, WHOLE),), policy=ADS),
        Case("one that does", EVIL, False, lists(EVIL, f"core:{EVIL}"), holds=((EVIL, WHOLE),), policy=ADS),
        Case("one that names something below", "z.evil.example", False, lists(EVIL, "core:a.evil.example"), holds=((EVIL, WHOLE),), policy=ADS),
    ],
    "Addresses": [
        Case("a network covers its addresses", "192.0.2.9", True, lists("192.0.2.0/28")),
        Case("an allow is cut out", "192.0.2.9", False, lists("192.0.2.0/28"), allow("192.0.2.8/30")),
        Case("the longest prefix wins", "192.0.2.9", True, lists("192.0.2.0/28"), allow("192.0.2.8/30") + deny("192.0.2.9")),
        Case("allow wins a tie", "192.0.2.9", False, (), deny("192.0.2.9") + allow("192.0.2.9")),
        Case("a held network", "192.0.2.9", False, lists("192.0.2.0/28"), holds=(("192.0.2.0/28", WHOLE),)),
        Case("does not hold one inside it", "192.0.2.9", True, lists("192.0.2.0/28", "192.0.2.9"), holds=(("192.0.2.0/28", WHOLE),)),
        Case("a single reference address is cut out", "192.0.2.9", False, lists("192.0.2.0/28", "top:192.0.2.9")),
        Case("unless a deny names it", "192.0.2.9", True, lists("192.0.2.0/28", "top:192.0.2.9"), deny("192.0.2.9")),
    ],
    "URLs": [
        Case("an allow for its host", "//a.evil.example/x", False, lists("//a.evil.example/x"), allow(EVIL)),
        Case("a deny for the URL itself outranks it", "//a.evil.example/x", True, lists("//a.evil.example/x"), allow(EVIL) + deny("//a.evil.example/x")),
        Case("an allow for the URL", "//a.evil.example/x", False, lists("//a.evil.example/x"), allow("//a.evil.example/x")),
        Case("an allow for a network around its host", "//192.0.2.9/x", False, lists("//192.0.2.9/x"), allow("192.0.2.8/30")),
    ],
}  # fmt: skip
CASES = [case for cases in TABLE.values() for case in cases]

INTRO = """\
# Precedence

Made by `make docs` from the table of the tests. `tests/test_precedence.py` proves every row three times: against what
exports write, against what `why` says, and against a model of the [written rules](semantics.md) that knows one name at a
time. `tests/test_policy.py` compares the same three over random feeds, listings, rules, holds and policies.

`*.evil.example` is the name and all below it. In a rule that is meant always, but for `=evil.example`, the name alone
(`--exact`). The feed `malware` has confidence 90, `phishing` 40, `copy` and `kin`, of one family, 60 each; `top` and `core`
are references, `trial` is in shadow, `secret` is TLP red, `mine` may not be passed on. The policy asks for 50 unless it says
otherwise. A hold is of the name, or `as a subtree`: of the name with all below it.
"""


def page() -> str:
    """docs/precedence.md."""
    out = [INTRO]
    for title, cases in TABLE.items():
        out += [
            f"## {title}\n",
            "| | listed | rules | holds and verdicts | policy | asked | |",
            "|---|---|---|---|---|---|---|",
        ]
        for case in cases:
            cells = (case.why, _lines(case), _words(case), _holds(case), _policy(case.policy), f"`{case.asked}`")
            out.append(f"| {' | '.join(cells)} | {'**blocked**' if case.blocked else 'passes'} |")
        out.append("")
    return "\n".join(out)


def _lines(case: Case) -> str:
    return ", ".join(f"`{'*.' if x.subtree else ''}{x.name}` ({FEEDS[x.feed].id})" for x in case.lines)


def _words(case: Case) -> str:
    exact = {False: "=", True: ""}
    said = ((w.action, "" if w.name[0] in "/0123456789" else exact[w.subtree], w.name) for w in case.words)
    return ", ".join(f"{action} `{mark}{name}`" for action, mark, name in said)


def _holds(case: Case) -> str:
    out = [f"`{name}`{' as a subtree' if only else ''}" for name, only in case.holds]
    out += [f"`{name}` let pass" for name in sorted(case.released)] + [f"`{name}` dead" for name in sorted(case.dead)]
    out += [f"`{name}` {status}" for name, status in sorted(case.verdicts)]
    return ", ".join(out)


def _policy(policy: Policy) -> str:
    default = Policy()
    changed = {k: getattr(policy, k) for k in policy.__struct_fields__ if getattr(policy, k) != getattr(default, k)}
    return ", ".join(f"`{key} = {_toml(value)}`" for key, value in changed.items())


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(of)}" for key, of in value.items()) + " }"
    return json.dumps(value)


if __name__ == "__main__":
    (Path(__file__).parent.parent / "docs" / "precedence.md").write_text(page(), "utf-8")
