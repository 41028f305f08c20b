"""The one place where decisions are fitted to what a target can say.

Targets differ in three ways: whether an entry can cover a subtree, whether one can mean a single name, and
whether one can pass what a wider entry blocks. What a target can't say is left out, never said wider, with
one exception: an exact block may widen where the guards let its whole subtree be blocked (`widenable`).
Whatever the target, a name that the decisions allow is not blocked.
"""

from collections.abc import Callable

import msgspec
import polars as pl

from blocklist.select.fold import fold, nearest, parents, roots_of

_BLOCK = pl.col("block")
_SUBTREE = pl.col("subtree")
_COLUMNS = ("name", "subtree", "block")


class Capability(msgspec.Struct, frozen=True):
    """What a target's entries can mean: a subtree, a single name, an exception; whether to fold them."""

    subtree: bool
    exact: bool
    allow: bool
    fold: bool = True

    def __post_init__(self) -> None:
        if not (self.subtree or self.exact):
            raise ValueError("a target must know subtrees or exact names")


class Expressed(msgspec.Struct, frozen=True):
    """What a target is given, and how many entries lost something on the way.

    `entries`: `name: String`, `subtree: Boolean`, `block: Boolean`, unique by (name, subtree), sorted so.
    `lost` has no zero counts. Its keys:
    - `narrowed`: subtree blocks that an allow below them reduced to their own name, or to nothing where the
      target knows no exact names or the own name is allowed;
    - `exact`: blocks that are left out where the target knows only subtrees: an exact one whose subtree may
      not be blocked, and either scope where an exact allow of the same name had to win;
    - `allow_widened`: exact allows that, as subtree allows, pass names below them that should be blocked;
    - `subtree`: subtree blocks of which only the name itself is blocked, because the target knows no
      subtrees.
    """

    entries: pl.DataFrame
    lost: dict[str, int] = msgspec.field(default_factory=dict)


def express(
    decisions: pl.DataFrame, capability: Capability, covers: Callable[[], pl.DataFrame] | None = None
) -> Expressed:
    """Fit decisions to a target.

    In: a decisions frame (see `fold`): `name`, `subtree`, `block`, `widenable`, unique by (name, subtree). `covers`
    gives what `blocklist.select.fold.nearest` says of them and their own roots, where that is known in a cheaper way.
    """
    if not capability.subtree:
        entries, lost = _exact_only(decisions)
    elif capability.exact:
        entries, lost = (decisions, {}) if capability.allow else _without_allows(decisions)
    elif capability.allow:
        entries, lost = _subtrees_with_allows(decisions)
    else:
        entries, lost = _subtrees_only(decisions)
    entries = entries.select(_COLUMNS)
    # Exact names alone have nothing above them that could make them redundant.
    if capability.fold and capability.subtree:
        unchanged = capability.exact and entries.height == decisions.height
        entries = fold(entries, covers() if covers is not None and unchanged else None)
    else:
        entries = entries.sort("name", "subtree")
    return Expressed(entries, {reason: count for reason, count in lost.items() if count})


def _exact_only(decisions: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, int]]:
    """Every listed name that is blocked itself. An entry on the name decides it, so no ancestor matters."""
    blocks = decisions.filter("block")
    subtrees = blocks.filter("subtree")
    if subtrees.height < decisions.height:
        own = decisions.filter(~_SUBTREE)
        names = pl.concat(
            [own.filter("block").select("name"), subtrees.join(own, on="name", how="anti").select("name")]
        )
    else:
        names = subtrees.select("name")
    return (
        names.select("name", subtree=pl.lit(False), block=pl.lit(True)),
        {"subtree": subtrees.height},
    )


def _without_allows(decisions: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, int]]:
    """Blocks alone, subtree or exact: a subtree with an allowed name inside keeps only its own name.

    This comes before folding: listed names below a narrowed entry lose the cover that made them redundant.
    """
    allows = decisions.filter(~_BLOCK)
    blocks = decisions.filter("block")
    if allows.is_empty():
        return blocks, {}
    around = _at_or_above(allows)
    hit = _SUBTREE & _within(around)
    narrowed = blocks.filter(hit)
    allowed = allows.filter(~_SUBTREE)
    own = narrowed.join(allowed, on="name", how="anti").with_columns(pl.lit(False).alias("subtree"))
    entries = pl.concat([blocks.filter(~hit), own]).unique(["name", "subtree"])
    return entries, {"narrowed": narrowed.height}


def _subtrees_with_allows(decisions: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, int]]:
    """Every entry as a subtree; where two meet on a name, allow wins."""
    widened = _widen(decisions)
    allows = decisions.filter(~_BLOCK).select("name").unique()
    blocks = widened.join(allows, on="name", how="anti")
    entries = pl.concat(
        [
            blocks.with_columns(pl.lit(True).alias("subtree")).select(_COLUMNS),
            allows.select("name", subtree=pl.lit(True), block=pl.lit(False)),
        ]
    ).unique("name")
    clashes = widened.filter("subtree").join(allows, on="name", how="semi").height
    return entries, {
        "exact": clashes + _unsaid(decisions, entries),
        "allow_widened": _widened_allows(decisions),
    }


def _subtrees_only(decisions: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, int]]:
    """Subtree blocks alone: any block with an allowed name inside is left out."""
    around = _at_or_above(decisions.filter(~_BLOCK))
    widened = _widen(decisions)
    whole = widened.filter(~_within(around))
    entries = whole.select("name", subtree=pl.lit(True), block=pl.lit(True)).unique("name")
    narrowed = widened.filter(_SUBTREE & _within(around)).height
    return entries, {"narrowed": narrowed, "exact": _unsaid(decisions, entries)}


def _widen(decisions: pl.DataFrame) -> pl.DataFrame:
    """The blocks that may stand as subtrees: subtree ones, and exact ones that widening does no harm to.

    What lies below an exact block is decided from above. Where that is an allow, widening would block allowed
    names; where it is a block, widening says nothing new; where it is nothing, the guards decide.
    """
    exact = decisions.filter(_BLOCK & ~_SUBTREE)
    covers = nearest(exact, roots_of(decisions))
    row = pl.int_range(pl.len(), dtype=pl.UInt32)
    blocked = row.is_in(covers.filter("cover")["row"].implode())
    covered = row.is_in(covers["row"].implode())
    return pl.concat(
        [
            decisions.filter(_BLOCK & _SUBTREE).select(_COLUMNS),
            exact.filter(blocked | (~covered & pl.col("widenable"))).select(_COLUMNS),
        ]
    )


def _unsaid(decisions: pl.DataFrame, entries: pl.DataFrame) -> int:
    """How many exact blocks name something that the subtree entries don't block."""
    exact = decisions.filter(_BLOCK & ~_SUBTREE)
    covers = nearest(exact, roots_of(entries))
    return exact.height - covers.filter("cover").height


def _widened_allows(decisions: pl.DataFrame) -> int:
    """How many exact allows stand below a block and have no subtree entry of their own name (those clash)."""
    exact = decisions.filter(~_BLOCK & ~_SUBTREE)
    roots = roots_of(decisions)
    alone = exact.join(roots, on="name", how="anti")
    return nearest(alone, roots).filter("cover").height


def _within(names: pl.DataFrame) -> pl.Expr:
    return pl.col("name").is_in(names["name"].implode())


def _at_or_above(allows: pl.DataFrame) -> pl.DataFrame:
    """The names of allow entries and of everything above them: `name`, unique."""
    level = allows.select("name").unique()
    found = [level]
    while level.height:
        level = level.select(parents(pl.col("name"))).drop_nulls().unique()
        found.append(level)
    return pl.concat(found).unique()
