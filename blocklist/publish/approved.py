"""What was published last under other rules: a person's word is not delayed by a gate (docs/semantics.md, Gates).

Beside each live release lies what its policy had decided, a link to the file that `Decided` wrote. When the next
release is held, the rules in force are laid over it instead of those of then, and that is published.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from blocklist.rules import Rule
from blocklist.select.express import Capability, Expressed, express
from blocklist.select.policy import Chosen, Selected, Withheld, ruled, unruled
from blocklist.store import derived


def file_of(state: Path, release: int) -> Path:
    return state / "approved" / f"{release}.frames"


class Approved:
    """Decisions of a live release under `rules`; stands where `Decided` does, for the one policy of its export."""

    def __init__(self, chosen: Chosen, withheld: Withheld) -> None:
        self._chosen, self.withheld = chosen, withheld

    def chosen(self, name: str) -> Chosen:
        """What stands, whatever the policy is called."""
        return self._chosen

    def fitted(self, name: str, capability: Capability) -> Expressed:
        """The decisions in what `capability` can say."""
        return express(self._chosen.decisions, capability)

    def selected(self, name: str, kinds: Sequence[str]) -> Selected:
        """Lists for people name feeds and dates, which are not kept."""
        raise NotImplementedError("a list for people is not made from what was approved")


def read(state: Path, release: int) -> tuple[Chosen, list[Rule]] | None:
    """What was decided for the live `release`, and the rules of then; None when it is not kept."""
    kept = derived.read(file_of(state, release))
    if kept is None or "rules" not in kept[0]:
        return None
    told, frames = kept
    frames.pop("held", None)
    try:
        chosen = Chosen(**frames)
    except TypeError:  # of an earlier shape
        return None
    return chosen, msgspec.convert(told["rules"], list[Rule])


def write(path: Path, chosen: Chosen, rules: Sequence[Rule]) -> None:
    """Keep what was decided with `rules` where no other file holds it."""
    frames = {f: getattr(chosen, f) for f in Chosen.__dataclass_fields__}
    derived.write(path, {"rules": msgspec.to_builtins(list(rules))}, frames)


def under(chosen: Chosen, before: Sequence[Rule], rules: Sequence[Rule]) -> Chosen:
    """`chosen`, which was decided with the rules `before`, with `rules` instead."""
    return ruled(unruled(chosen, before), rules)
