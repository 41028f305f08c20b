"""What a person should hear of rules just made: what they overrule, what overrules them, and what no export holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from blocklist import clock
from blocklist.catalog import KINDS
from blocklist.rules import Rule, rules_in_force

if TYPE_CHECKING:
    from blocklist.config import Config
    from blocklist.publish.descriptor import Format
    from blocklist.store.record import Record

_SHOWN = 3


def cautions(
    config: Config, record: Record, formats: Mapping[str, Format], action: str, numbers: Sequence[int]
) -> list[str]:
    """One line each for a person. `numbers`: rules of `action` that are in force."""
    wanted = set(numbers)
    rules = rules_in_force(record.connection, clock.now())
    made = [rule for rule in rules if rule.id in wanted]
    others = [rule for rule in rules if rule.action != action]
    return [
        *_tied(made, others, action),
        *(_guarded(config, record, made) if action == "deny" else ()),
        *_held_by_none(config, formats, made, action),
    ]


def _tied(made: Sequence[Rule], others: Sequence[Rule], action: str) -> list[str]:
    """Rules that name the very same with the other action: the allow decides."""
    same = {(rule.name, rule.subtree): rule for rule in others}
    ties = [(rule, same[key]) for rule in made if (key := (rule.name, rule.subtree)) in same]
    if not ties:
        return []
    said = [f"{mine.name} (rule {other.id}{_ticket(other)})" for mine, other in ties]
    if action == "deny":
        return [f"allowed by a rule too, which decides: {_some(said)}; 'blocklist allow remove ID --reason …' ends it"]
    return [f"denied by a rule too, which this overrules: {_some(said)}"]


def _ticket(rule: Rule) -> str:
    return f", {rule.ticket}" if rule.ticket else ""


def _guarded(config: Config, record: Record, made: Sequence[Rule]) -> list[str]:
    """What guards would hold if a feed listed it; a person's rule outranks them."""
    import polars as pl

    from blocklist.ingest import guard
    from blocklist.picture import Picture

    names = pl.DataFrame(
        {"name": [rule.name for rule in made], "kind": [KINDS.index(rule.kind) + 1 for rule in made]},
        schema={"name": pl.String, "kind": pl.UInt8},
    ).unique(maintain_order=True)
    if names.is_empty():
        return []
    picture = Picture(config, record)
    wide = {rule.name for rule in made if rule.subtree}
    held = guard.over(names, picture.suffixes, picture.references())
    held = held.filter(~pl.col("subtree_only") | pl.col("name").is_in(wide)).unique("name", keep="first").sort("name")
    if held.is_empty():
        return []
    said = [f"{name} ({detail})" for name, detail in held.select("name", "detail").iter_rows()]
    return [f"guards would hold, and your rule outranks them: {_some(said)}; 'blocklist deny remove' takes it back"]


def _held_by_none(config: Config, formats: Mapping[str, Format], made: Sequence[Rule], action: str) -> list[str]:
    """Kinds that no export takes: such a rule changes no file."""
    from blocklist.publish.selector import kinds_of

    taken = {
        kind
        for export in config.exports.values()
        for kind in kinds_of(export, formats[export.format])
        if kind in config.policies[export.policy].kinds
    }
    lost = [rule for rule in made if rule.kind not in taken]
    if not config.exports or not lost:
        return []
    does, kinds = {"deny": "blocks", "allow": "frees"}[action], sorted({_KINDS[rule.kind] for rule in lost})
    way = "; name its host instead, or add an export for URLs" if kinds == ["URLs"] else ""
    return [f"no export holds {' and '.join(kinds)}, so that this {does} nothing: {_some([r.name for r in lost])}{way}"]


_KINDS = {"domain": "domains", "ipv4": "IPv4 addresses", "ipv6": "IPv6 addresses", "url": "URLs"}


def _some(said: Sequence[str]) -> str:
    more = f" and {len(said) - _SHOWN:,} more" if len(said) > _SHOWN else ""
    return ", ".join(said[:_SHOWN]) + more
