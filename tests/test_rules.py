"""Which of an operator's rules decides."""

from __future__ import annotations

import pytest

from blocklist.rules import Rule, deciding_network_rule, deciding_rule


def rules(*words: str) -> list[Rule]:
    """`allow evil.example`, `deny =evil.example` (that name alone)."""
    made = []
    for number, word in enumerate(words, start=1):
        action, name = word.split()
        kind = "ipv6" if ":" in name else "ipv4" if name[0].isdigit() else "domain"
        made.append(
            Rule(number, action, name.lstrip("="), kind, name[0] != "=", "tests", "ana", "2026-11-24T10:00:00Z")
        )
    return made


@pytest.mark.parametrize(
    ("name", "words", "decides"),
    [
        ("evil.example", [], None),
        ("evil.example", ["deny evil.example"], 1),
        ("a.evil.example", ["deny evil.example"], 1),
        ("notevil.example", ["deny evil.example"], None),
        ("a.evil.example", ["deny =evil.example"], None),
        ("evil.example", ["deny example", "allow evil.example"], 2),
        ("a.evil.example", ["allow evil.example", "deny a.evil.example"], 2),
        ("evil.example", ["deny evil.example", "allow evil.example"], 2),
        ("evil.example", ["allow evil.example", "deny =evil.example"], 2),
        ("a.evil.example", ["allow evil.example", "deny =evil.example"], 1),
        ("evil.example", ["deny 192.0.2.1"], None),
        ("evil.example", ["deny example"], 1),
    ],
)
def test_the_most_specific_rule_for_a_name_decides_and_allow_wins_a_tie(
    name: str, words: list[str], decides: int | None
) -> None:
    rule = deciding_rule(name, rules(*words))
    assert (rule and rule.id) == decides


@pytest.mark.parametrize(
    ("words", "decides"),
    [
        ([], None),
        (["deny 192.0.2.0/24"], 1),
        (["deny 192.0.2.0/24", "allow 192.0.2.8/30"], 2),
        (["allow 192.0.2.0/24", "deny 192.0.2.9"], 2),
        (["deny 192.0.2.9", "allow 192.0.2.9"], 2),
        (["deny 198.51.100.0/24", "deny =evil.example"], None),
    ],
)
def test_the_longest_prefix_decides_for_an_address(words: list[str], decides: int | None) -> None:
    rule = deciding_network_rule(["192.0.2.9", "192.0.2.8/30", "192.0.2.0/24"], rules(*words))
    assert (rule and rule.id) == decides
