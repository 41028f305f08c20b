"""Rules that end within the week, said before they do: an allow that lapses blocks a customer again."""

from __future__ import annotations

from collections.abc import Sequence

from blocklist.cli.screen import Screen, moment, safe
from blocklist.rules import Rule

_SHOWN = 5


def show_ending(screen: Screen, rules: Sequence[Rule]) -> None:
    """A line a rule, the soonest first."""
    for rule in rules[:_SHOWN]:
        screen.line(
            f"rule {rule.id} ends {moment(rule.expires)}: {rule.action} {safe(rule.name)} ({safe(rule.reason)})"
        )
    if len(rules) > _SHOWN:
        screen.line(f"and {len(rules) - _SHOWN:,} more rules end within a week")
