"""What an update holds: guards look again only where names or references changed, and at the door of references.

A guard looks at one name and at the references. While the references stay, what it said of the other names stays;
where some of them changed, what it says of names far from these stays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING

import msgspec
import polars as pl

from blocklist import __version__, clock
from blocklist.ingest import gate, guard
from blocklist.ingest.gate import ways_out
from blocklist.ingest.intake import Intake
from blocklist.picture import protected_domains
from blocklist.select.current import Current
from blocklist.select.policy import Withheld, taken_by
from blocklist.select.renew import Touched
from blocklist.store.derived import digest

if TYPE_CHECKING:
    from blocklist.gathering import Work
    from blocklist.lapses import Lapse


def inputs_of(work: Work, lapses: Sequence[Lapse]) -> dict[str, str]:
    """Digests of what holds depend on: `references` and `listed` snapshots, and all else (`fixed`)."""
    references, listed = [], []
    # What lingers in a reference belongs to it until its time is over.
    later = {i: w.next_end for i, w in work.intakes.items() if w.gate is None} | {x.feed.id: x.next_end for x in lapses}
    ends = {**work.next_ends, **{work.ids[i]: None if e is None else clock.of_epoch(e) for i, e in later.items()}}
    for feed_id, feed in work.config.feeds.items():
        number = work.ids[feed_id]
        intake = work.intakes.get(feed_id)
        snapshot = work.snapshots[number].id if number in work.snapshots else None
        if intake is not None and intake.gate is None:
            snapshot = intake.snapshot
        if feed.is_reference:
            references.append((feed_id, feed.action, snapshot, ends.get(number)))
        else:
            listed.append((feed_id, snapshot))
    fixed = [
        __version__,
        guard.RULES,
        work.picture.suffix_digest,
        # A feed that becomes a reference, or ceases to be one, changes what all others are compared with.
        sorted((i, action) for i, action, _, _ in references),
        sorted(i for i, _ in listed),
        protected_domains(work.config),
        work.config.protected_networks,
    ]
    return {"fixed": digest(fixed), "references": digest(references), "listed": digest(listed)}


class Concerned(msgspec.Struct, frozen=True):
    """What guards must look at again: `near`, names that a changed reference may concern (String, most of them not
    listed), and `names` (`name: String`, `kind: UInt8`), all that will be listed of these and all that this run adds.
    """

    near: pl.Series
    names: pl.DataFrame


# More names than that are found sooner by going through everything that is listed.
_FEW = 20_000


def concerned(work: Work, taken: Mapping[str, Intake], lapses: Sequence[Lapse]) -> Concerned:
    """What may be held, or held no more, by what this run brought; to be asked before it is recorded."""
    picture = work.picture
    references = [part for w in taken.values() if w.feed.is_reference for part in (w.added, w.removed, w.over)]
    references += [x.over for x in lapses if x.feed.is_reference]
    none = pl.DataFrame(schema={"name": pl.String, "kind": pl.UInt8})
    changed = pl.concat([none, *(part.select("name", "kind") for part in references)]).unique()
    near = none["name"]
    if changed.height:
        near = pl.concat([guard.concerned(changed), guard.overlapping(picture.listings().values(), changed)]).unique()
    added = (w.added.select("name", "kind") for w in taken.values() if not w.feed.is_reference)
    return Concerned(near, pl.concat([_listed(work, taken, lapses, near), *added]).unique("name"))


def _listed(work: Work, taken: Mapping[str, Intake], lapses: Sequence[Lapse], near: pl.Series) -> pl.DataFrame:
    """`name`, `kind` of those of `near` that feeds but references list and will go on to list."""
    picture = work.picture
    if len(near) > _FEW:
        return picture.about(Touched.of(near).among).names.select("name", "kind")
    return _remaining(work, taken, lapses, near)


def _remaining(work: Work, taken: Mapping[str, Intake], lapses: Sequence[Lapse], names: pl.Series) -> pl.DataFrame:
    """`name`, `kind` of those of `names` that feeds but references listed before this run, which ends not all of it."""
    listed = work.record.listed_among(names)
    ending = [(w.feed, rows) for w in taken.values() for rows in (w.removed, w.over)]
    gone = [
        rows.select("name", pl.lit(work.ids[feed.id], pl.UInt16).alias("feed"))
        for feed, rows in [*ending, *((x.feed, x.over) for x in lapses)]
    ]
    numbers = [number for number, feed in work.picture.feeds.items() if not feed.is_reference]
    return (
        listed.filter(pl.col("feed").is_in(numbers))
        .join(pl.concat([listed.select("name", "feed").clear(), *gone]), on=["name", "feed"], how="anti")
        .select("name", "kind")
    )


class Look(msgspec.Struct, frozen=True):
    """What guards have to look at: `holds` gives the holds in force, `no_more` names (String) that none holds any more.

    Without the second the holds are all there are; with it they speak of changed names only. Neither asks the record
    for anything, but the first at its first load.
    """

    holds: Callable[[], pl.DataFrame]
    no_more: Callable[[], pl.Series] | None


def look(
    work: Work,
    taken: Mapping[str, Intake],
    lapses: Sequence[Lapse],
    again: Callable[[], Concerned],
    before: Mapping[str, str],
    inputs: Mapping[str, str],
    *,
    anew: bool,
) -> Look | None:
    """What may be held now, to be asked before it is recorded; None when nothing can have changed.

    `anew`: whatever was known does not hold.
    """
    picture = work.picture
    if anew or before.keys() != inputs.keys() or before["fixed"] != inputs["fixed"]:
        if not work.record.fresh:
            picture.current(), picture.references()
        return Look(lambda: guard.guard(picture.current(), picture.references()), None)
    if before == inputs and not any(x.over.height for x in lapses):
        return None
    concerned_, references = again(), picture.references()
    free_of_feeds = _no_longer_listed(work, taken, lapses)

    @cache
    def holds() -> pl.DataFrame:
        return guard.over(concerned_.names, picture.suffixes, references)

    def no_more() -> pl.Series:
        free = concerned_.near.filter(~concerned_.near.is_in(holds()["name"].implode()))
        return pl.concat([free_of_feeds, free]).unique()

    return Look(holds, no_more)


def _no_longer_listed(work: Work, taken: Mapping[str, Intake], lapses: Sequence[Lapse]) -> pl.Series:
    """Names that this run ends somewhere and that no feed but references will list; to be asked before the removal."""
    parts = [rows["name"] for w in taken.values() for rows in (w.removed, w.over)]
    removed = pl.concat([*parts, *(x.over["name"] for x in lapses), pl.Series("name", [], pl.String)]).unique()
    suspects = removed.filter(removed.is_in(work.record.open_holds()["name"].implode()))
    added = (w.added["name"] for w in taken.values() if not w.feed.is_reference)
    listed = pl.concat([_remaining(work, taken, lapses, suspects)["name"], *added])
    return suspects.filter(~suspects.is_in(listed.implode()))


def gate_overtaken(work: Work, taken: dict[str, Intake]) -> dict[str, Intake]:
    """`taken` without the feeds of which much that is new is what guards hold: was the list taken over?

    To be asked before the picture has what this run brings: the references are those of before.
    """
    added = {
        i: w.added.select("name", "kind").unique("name", maintain_order=True)
        for i, w in taken.items()
        if not w.feed.is_reference
        and i not in work.approved
        and work.ids[i] in work.snapshots
        and w.added.height >= gate.FROM_ENTRIES
    }
    if not added:
        return taken
    # All at once: what they are compared with is a million names.
    every = pl.concat(added.values()).unique("name")
    held = guard.well_known(every, work.picture.references_near(every))
    held = held.filter(~held.is_in(list(work.record.released_names())))
    if len(held) < _MANY_HELD:
        return taken
    overtaken = False
    for feed_id, names in added.items():
        feed, known = taken[feed_id].feed, names.filter(pl.col("name").is_in(held.implode()))["name"]
        if len(known) < _MANY_HELD or len(known) <= feed.max_held * names.height:
            continue
        why = (
            f"{len(known):,} of the {names.height:,} entries that it would add are what guards hold, "
            f"{', '.join(known.head(3))} among them (limit {100 * feed.max_held:.3g} %)"
        )
        _gate(work, taken[feed_id], why, f"has somebody taken the list over? {ways_out(feed_id)}")
        overtaken = True
    return {i: w for i, w in taken.items() if w.gate is None} if overtaken else taken


# Fewer well-known names than that come with any large addition.
_MANY_HELD = 50


def _gate(work: Work, intake: Intake, why: str, hint: str) -> None:
    """Let the intake wait for a person: the feed keeps what it has."""
    now = work.snapshots[work.ids[intake.feed.id]]
    intake.gate, intake.hint = why, hint
    intake.added, intake.removed, intake.over = intake.frame.clear(), intake.frame.clear(), intake.over.clear()
    outcome = work.outcomes[intake.feed.id]
    outcome.outcome, outcome.entries, outcome.error, outcome.hint = "gated", now.entries, why, hint
    outcome.added = outcome.removed = outcome.changed = 0


def gate_references(work: Work, taken: dict[str, Intake], again: Callable[[], Concerned]) -> dict[str, Intake]:
    """`taken` without the references that would suddenly hold much of what is exported: those wait for a person.

    Whoever buys a rank must not unblock (semantics, rule 6). The first snapshot of a reference is the operator's word.
    """
    suspects = [
        w
        for i, w in taken.items()
        if w.feed.is_reference
        and w.feed.action == "hold"
        and w.added.height
        and work.ids[i] in work.snapshots
        and i not in work.approved
    ]
    if not suspects:
        return taken
    picture, record = work.picture, work.record
    released = pl.Series("name", list(record.released_names()), dtype=pl.String)
    passed = pl.concat([released, record.open_holds().filter(~pl.col("subtree_only"))["name"]]).unique().implode()
    near = again().names.filter(pl.col("name").is_in(again().near.implode()))

    def newly_held(some: Sequence[Intake]) -> pl.Series:
        added = {work.ids[w.feed.id]: w.added for w in some}
        known = guard.references(added, picture.feeds, picture.suffixes, (), ())
        held = guard.over(near, picture.suffixes, known)
        held = held.filter(pl.col("guard") == "reference", ~pl.col("name").is_in(passed))
        return held["name"].unique().sort()

    # Mostly all of them together would not be too much.
    if len(newly_held(suspects)) <= min(w.feed.max_new_holds for w in suspects):
        return taken
    exported: pl.Series | None = None
    for intake in suspects:
        number = work.ids[intake.feed.id]
        names = newly_held([intake])
        if len(names) <= intake.feed.max_new_holds:
            continue
        if exported is None:
            exported = _exported(work, picture.current())
        names = names.filter(names.is_in(exported.implode()))
        if len(names) <= intake.feed.max_new_holds:
            continue
        why = (
            f"would newly hold {len(names):,} entries that are exported, {', '.join(names.head(3))} among them "
            f"(limit {intake.feed.max_new_holds:,})"
        )
        _gate(work, intake, why, f"has somebody bought ranks? {ways_out(intake.feed.id)}")
        picture.frames[number] = record.indicators(number, work.snapshots[number].id)
        picture.times.pop(number, None)
        # References are no part of the current listings, which stay drawn.
        picture.forget_references()
    return {i: w for i, w in taken.items() if w.gate is None}


def _exported(work: Work, current_: Current) -> pl.Series:
    """Names that some export takes, as holds were until now."""
    record, feeds, config = work.record, work.picture.feeds, work.config
    none = pl.DataFrame(schema={"family": pl.UInt8, "first": pl.UInt64, "last": pl.UInt64})
    holds = record.open_holds().filter(~pl.col("name").is_in(list(record.released_names())))
    withheld = Withheld(
        names=holds.filter(~pl.col("subtree_only")).select("name").unique(),
        subtrees=holds.filter("subtree_only").select("name").unique(),
        addresses=none,
    )
    parts = [pl.Series("name", [], dtype=pl.String)]
    for policy in {e.policy for e in config.exports.values()}:
        parts.append(taken_by(current_, feeds, config.policies[policy], withheld)["name"])
    return pl.concat(parts).unique()
