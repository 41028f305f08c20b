"""What was published last under other rules: a person's word is not delayed by a gate (docs/semantics.md, Gates).

Beside each live release lies what its policy had decided, a link to the file that `Decided` wrote. When the next
release is held, the rules in force are laid over it instead of those of then, and that is published.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import msgspec
import polars as pl

from blocklist.catalog import KINDS
from blocklist.rules import Rule
from blocklist.select.current import DOMAIN
from blocklist.select.express import Capability, Expressed, express
from blocklist.select.policy import URL, Chosen, Selected, Withheld, ruled, unruled
from blocklist.store import derived


def file_of(state: Path, release: int) -> Path:
    return state / "approved" / f"{release}.frames"


class Approved:
    """Decisions of a live release under `rules`; stands where `Decided` does, for the one policy of its export.

    `told`: what a list for people says of its names (see `blocklist.publish.rows`), where it is for one.
    """

    def __init__(self, chosen: Chosen, withheld: Withheld, told: pl.DataFrame | None = None) -> None:
        self._chosen, self.withheld, self.told = chosen, withheld, told

    def chosen(self, name: str) -> Chosen:
        """What stands, whatever the policy is called."""
        return self._chosen

    def fitted(self, name: str, capability: Capability) -> Expressed:
        """The decisions in what `capability` can say."""
        return express(self._chosen.decisions, capability)

    def selected(self, name: str, kinds: Collection[str]) -> Selected:
        """What stands of `kinds`. Its `listed` has `name` and `kind` alone: numbers in the picture are of now."""
        codes = [KINDS.index(kind) + 1 for kind in kinds]
        whole = {f: getattr(self._chosen, f) for f in Chosen.__struct_fields__}
        for kind, fields in ((DOMAIN, ("decisions", "yielded")), (URL, ("urls", "yielded_urls"))):
            if kind not in codes:
                whole |= {field: whole[field].clear() for field in fields}
        network = pl.when(pl.col("family") == 4).then(2).otherwise(3).cast(pl.UInt8)
        whole["networks"] = whole["networks"].filter(network.is_in(codes))
        whole["kept_back"] = whole["kept_back"].filter(pl.col("kind").is_in(codes))
        listed = [
            whole["decisions"].filter("block").select("name", pl.lit(DOMAIN, pl.UInt8).alias("kind")),
            whole["networks"].select("name", network.alias("kind")),
            whole["urls"].select(pl.col("url").alias("name"), pl.lit(URL, pl.UInt8).alias("kind")),
        ]
        gids = pl.Series("gid", [None], dtype=pl.UInt32).new_from_index(0, whole["decisions"].height)
        return Selected(**whole, listed=pl.concat(listed).unique("name"), gids=gids)


def read(state: Path, release: int) -> tuple[Chosen, list[Rule]] | None:
    """What was decided for the live `release`, and the rules of then; None when it is not kept."""
    kept = derived.read(file_of(state, release))
    if kept is None or "rules" not in kept.told:
        return None
    frames = {name: frame for name, frame in kept.frames.items() if name != "held"}
    try:
        chosen = Chosen(**frames)
    except TypeError:  # of an earlier shape
        return None
    return chosen, msgspec.convert(kept.told["rules"], list[Rule])


def write(path: Path, chosen: Chosen, rules: Sequence[Rule]) -> None:
    """Keep what was decided with `rules` where no other file holds it."""
    frames = {f: getattr(chosen, f) for f in Chosen.__struct_fields__}
    derived.write(path, {"rules": msgspec.to_builtins(list(rules))}, frames)


def under(chosen: Chosen, before: Sequence[Rule], rules: Sequence[Rule]) -> Chosen:
    """`chosen`, which was decided with the rules `before`, with `rules` instead."""
    return ruled(unruled(chosen, before), rules)
