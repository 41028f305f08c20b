"""What the policies of a run decide, from what they decided the last time where that is still known.

Two kinds of files in the folder `decided` of the state, both caches: the decisions of each policy, and what they are
for targets that can say the same. A file is used as it is when all that it was computed from is as it was; it is
brought up to date when only listings, holds, verdicts or rules changed, and the update of this process knows which.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
from msgspec.structs import asdict, replace

from blocklist import clock
from blocklist.catalog import ESSENTIAL
from blocklist.config import Policy
from blocklist.framepatch import FramePatch
from blocklist.grounds import Grounds
from blocklist.ingest import guard
from blocklist.picture import Picture
from blocklist.publish.ahead import Ahead
from blocklist.publish.rewrite import Step
from blocklist.rules import Rule
from blocklist.select.current import CATEGORY, DOMAIN
from blocklist.select.express import Capability, Expressed, express
from blocklist.select.lineage import Lineage
from blocklist.select.policy import Chosen, Selected, Withheld, in_force, ruled, select, unruled
from blocklist.select.renew import Renewed, Touched, no_single_label, refitted, renewed, spoken_of
from blocklist.store import derived
from blocklist.store.record import Record

# Where more of the names are touched, deciding for all is as quick.
_MOST = 0.2
# What a file holds; one of another shape is not read.
_SHAPE = 3


class _Known(msgspec.Struct, frozen=True):
    """Decisions under the name that their file has for them, and what they came from, but for `names`.

    `gids`: the numbers of their names in the whole picture (see `Selected`), where it was made from that. `renewed`:
    how they came from those of `before` under the same rules.
    """

    chosen: Chosen
    token: str
    before: Chosen | None = None
    before_token: str = ""
    names: pl.Series | None = None
    gids: pl.Series | None = None
    renewed: Renewed | None = None


class Decided:
    """Decisions of `policies`, made when first asked for. `keep` writes them down for the next run; end with `finish`.

    `foreseen`: what the record will say; until `go_on` nothing else is asked of it, and nothing written.
    Not for threads side by side: whoever shares it locks it.
    """

    def __init__(
        self,
        picture: Picture,
        record: Record,
        policies: Mapping[str, Policy],
        rules: Sequence[Rule],
        *,
        keep: bool,
        ahead: Ahead | None = None,
        foreseen: Grounds | None = None,
    ) -> None:
        self._picture, self._record, self._policies, self.rules = picture, record, policies, list(rules)
        self._folder = record.state / "decided"
        self._read = derived.read if ahead is None else ahead.decided
        self._grounds = foreseen
        self._waiting: list[Callable[[], None]] | None = None if foreseen is None else []
        self._withheld: Withheld | None = None
        self._apart: dict[tuple[str, ...], Withheld] = {}
        self._lineage: Lineage | None = None
        self._known: dict[str, _Known] = {}
        self._fitted: dict[tuple[str, Capability], Expressed] = {}
        self._steps: dict[tuple[str, Capability], Step] = {}
        # By the identity of decisions, which are kept with it: policies that decide alike share them.
        self._made: dict[tuple[int, Capability], tuple[pl.DataFrame, Expressed]] = {}
        self._selected: dict[tuple[str, tuple[str, ...]], Selected] = {}
        # Written beside the rendering, which waits for nothing in there.
        self._writer = ThreadPoolExecutor(1, "decided") if keep else None
        self._written: list[Future[None]] = []

    def chosen(self, name: str) -> Chosen:
        """What the policy `name` decides."""
        if name not in self._known:
            self._known[name] = self._decide(name)
        return self._known[name].chosen

    @property
    def grounds(self) -> Grounds:
        """What the record says, asked when first needed."""
        if self._grounds is None:
            self._grounds = Grounds.of(self._picture, self._record)
        return self._grounds

    def foresee(self, name: str) -> None:
        """Decide for policy `name` if what is known needs only be brought up to date, which takes little."""
        if name not in self._known and (known := self._brought(name)) is not None:
            self._known[name] = known

    def go_on(self) -> None:
        """It has become as was `foreseen`: what waits to be written is, and the record may be asked."""
        waiting, self._waiting = self._waiting or [], None
        for write in waiting:
            write()

    def fitted(self, name: str, capability: Capability) -> Expressed:
        """The decisions of policy `name` in what `capability` can say."""
        key = (name, capability)
        if key not in self._fitted:
            self._fitted[key] = self._fit(name, capability)
        return self._fitted[key]

    def token(self, name: str) -> str:
        """What tells the decisions of policy `name` from all others, once they are `chosen`."""
        return self._known[name].token

    def step(self, name: str, capability: Capability) -> Step | None:
        """How what is `fitted` came from what was the last time; None where that is not known."""
        return self._steps.get((name, capability))

    def came(self, name: str) -> tuple[str, Chosen, Renewed] | None:
        """How what is `chosen` by policy `name` came from what was the last time: the token of that, itself, and what
        was renewed; None where that is not known.
        """
        known = self._known[name]
        if known.before is None or known.renewed is None:
            return None
        return known.before_token, known.before, known.renewed

    def selected(self, name: str, kinds: Iterable[str]) -> Selected:
        """What the policy `name` takes of `kinds`, from the whole picture, with all names that it took."""
        policy = self._policies[name]
        policy = msgspec.structs.replace(policy, kinds=[kind for kind in policy.kinds if kind in set(kinds)])
        key = (name, tuple(policy.kinds))
        if key not in self._selected:
            self._selected[key] = select(
                self._picture.current(),
                self._picture.feeds,
                policy,
                self.withheld_by(policy),
                self.rules,
                self.grounds.verdicts,
            )
        return self._selected[key]

    @property
    def withheld(self) -> Withheld:
        """The holds in force and the reference addresses."""
        if self._withheld is None:
            addresses = self._picture.references().addresses
            self._withheld = in_force(self.grounds.holds, self.grounds.released, addresses)
        return self._withheld

    def withheld_by(self, policy: Policy) -> Withheld:
        """The same with what `policy` says about the guards of single categories."""
        own: dict[int, Withheld] = {}
        for category, ids in policy.guards.items():
            named = tuple(sorted({*ids, ESSENTIAL}))
            if named not in self._apart:
                holds = guard.again(self.grounds.holds, self._picture.named_by(named))
                self._apart[named] = in_force(holds, self.grounds.released, self.withheld.addresses)
            own[CATEGORY[category]] = self._apart[named]
        return replace(self.withheld, by_category=own)

    def finish(self, asked: Iterable[tuple[str, Capability | None]]) -> None:
        """Wait for what is being written, and forget files of policies and capabilities not among those `asked`."""
        if self._writer is None:
            return
        self._writer.shutdown()
        for written in self._written:
            written.result()
        wanted = {self._file(name, can).name for name, can in asked}
        if wanted:
            derived.remove_others(self._folder, wanted)

    def keep(self, name: str, path: Path) -> None:
        """Keep what the policy `name` decided at `path` too, for `blocklist.publish.approved`: a link, no copy."""
        for written in self._written:
            written.result()
        derived.link_with_base(self._file(name), path)

    def _file(self, name: str, capability: Capability | None = None) -> Path:
        parts = [name, asdict(capability) if capability else None]
        return self._folder / f"{derived.digest(parts)[:16]}.frames"

    def _decide(self, name: str) -> _Known:
        if (known := self._brought(name)) is not None:
            return known
        made = self.selected(name, self._policies[name].kinds)
        return self._keep(name, Chosen(**{f: getattr(made, f) for f in Chosen.__struct_fields__}), gids=made.gids)

    def _brought(self, name: str) -> _Known | None:
        """What is kept for policy `name`, brought up to date; None where that is not known or as much work."""
        policy = self._policies[name]
        fixed, listed, held = self._fixed(policy), self.grounds.listed, self._held(policy)
        kept = self._read(self._file(name))
        if kept is not None and kept.told["fixed"] == fixed and self._holds_still(kept.told):
            told, frames = kept.told, dict(kept.frames)
            then = frames.pop("held")
            before, token = Chosen(**frames), told["token"]
            laid, ruled_names = self._ruled(before, msgspec.convert(told["rules"], list[Rule]))
            touched = self._touched(told["listed"], listed, then, held)
            if touched is not None and ruled_names is not None:
                if not len(touched.hashes) and not len(ruled_names):
                    return _Known(before, token)
                if len(touched.hashes) < _MOST * before.decisions.height:
                    return self._renew(name, kept, before, laid, touched, ruled_names)
        return None

    def _holds_still(self, told: Mapping[str, Any]) -> bool:
        """Has no listing ended since?"""
        now = clock.text(self._picture.at)
        return bool(told["judged"] <= now and (told["until"] is None or now < told["until"]))

    def _ruled(self, before: Chosen, rules: Sequence[Rule]) -> tuple[Chosen, pl.Series | None]:
        """`before` with the rules of now in place of `rules`, and the names of which this speaks; None: of any."""
        if list(rules) == self.rules:
            return before, pl.Series("name", [], dtype=pl.String)
        laid = ruled(unruled(before, rules), self.rules)
        return laid, spoken_of(before, laid, (*rules, *self.rules))

    def _renew(
        self,
        name: str,
        kept: derived.Kept,
        before: Chosen,
        laid: Chosen,
        touched: Touched,
        ruled_names: pl.Series,
    ) -> _Known:
        """`laid`, which is `before` under other rules for `ruled_names`, with what is `touched` decided anew."""
        token = kept.told["token"]
        if not len(touched.hashes):
            return self._keep(name, laid, before=before, before_token=token, names=ruled_names)
        anew = select(
            self._picture.about(touched.among),
            self._picture.feeds,
            self._policies[name],
            self.withheld_by(self._policies[name]),
            self.rules,
            self.grounds.verdicts,
        )
        now = renewed(laid, anew, touched)
        names = pl.concat([now.names, ruled_names]).unique()
        # Rules may change any row: then the whole is written.
        patched = (kept, now.patches) if laid is before else None
        same_rules = now if laid is before else None
        return self._keep(name, now.chosen, patched, before=before, before_token=token, names=names, renewed=same_rules)

    def _keep(
        self,
        name: str,
        chosen: Chosen,
        patched: tuple[derived.Kept, Mapping[str, FramePatch]] | None = None,
        **came_from: Any,
    ) -> _Known:
        known = _Known(chosen, secrets.token_hex(16), **came_from)
        policy = self._policies[name]

        def told() -> dict[str, Any]:
            return {
                "token": known.token,
                "fixed": self._fixed(policy),
                "listed": self.grounds.listed,
                "rules": msgspec.to_builtins(self.rules),
                "judged": clock.text(self._picture.at),
                # Until the first listing ends, none has to be judged again.
                "until": min(self._record.next_ends().values(), default=None),
            }

        frames = {f: getattr(chosen, f) for f in Chosen.__struct_fields__} | {"held": self._held(policy)}
        self._write(self._file(name), told, frames, patched)
        return known

    def _fit(self, name: str, capability: Capability) -> Expressed:
        chosen = self.chosen(name)
        known = self._known[name]
        file = self._file(name, capability)
        kept = self._read(file)
        if kept is not None and kept.told["of"] == known.token:
            same = kept.frames["entries"]
            none = FramePatch.between(same["name"].clear(), same.clear())
            self._steps[name, capability] = Step(same, known.token, same, known.token, none, same.clear())
            return Expressed(same, kept.told["lost"])
        patched = None
        if kept is not None and known.before is not None and kept.told["of"] == known.before_token:
            assert known.names is not None
            before = Expressed(kept.frames["entries"], kept.told["lost"])
            old = known.before.decisions
            rules = pl.Series([rule.name for rule in self.rules if rule.kind == "domain"], dtype=pl.String)
            made, patch, gone = refitted(before, old, chosen.decisions, known.names, rules, capability)
            step = Step(made.entries, known.token, before.entries, known.before_token, patch, gone)
            self._steps[name, capability] = step
            patched = kept, {"entries": patch}
        else:
            alike = (id(chosen.decisions), capability)
            if alike not in self._made:
                made = express(chosen.decisions, capability, self._covers(known))
                self._made[alike] = (chosen.decisions, made)
            made = self._made[alike][1]
        self._write(file, lambda: {"of": known.token, "lost": made.lost}, {"entries": made.entries}, patched)
        return made

    def _covers(self, known: _Known) -> Callable[[], pl.DataFrame] | None:
        """What stands above each decision; for one policy alone, looking at its names is as cheap."""
        if known.gids is None or len(self._policies) < 2:
            return None
        decisions, gids = known.chosen.decisions, known.gids

        def covers() -> pl.DataFrame:
            if self._lineage is None:
                names = self._picture.current().names
                ruled = [rule.name for rule in self.rules if rule.kind == "domain"]
                self._lineage = Lineage.of(names["name"], names["kind"] == DOMAIN, ruled)
            return self._lineage.nearest(decisions, self._lineage.numbers(decisions, gids))

        return covers

    def _write(
        self,
        file: Path,
        told: Callable[[], Mapping[str, Any]],
        frames: Mapping[str, pl.DataFrame],
        patched: tuple[derived.Kept, Mapping[str, FramePatch]] | None,
    ) -> None:
        """`told` may ask the record."""
        if self._writer is None:
            return
        if self._waiting is not None:
            self._waiting.append(partial(self._write, file, told, frames, patched))
        elif patched is None:
            self._written.append(self._writer.submit(derived.write, file, told(), frames))
        else:
            self._written.append(self._writer.submit(derived.write_changed, file, told(), frames, *patched))

    # What decisions are computed from

    def _fixed(self, policy: Policy) -> str:
        """Everything but listings, holds, verdicts and rules."""
        feeds = self._picture.feeds
        parts = [_SHAPE, self._picture.suffix_digest, policy, [(i, feeds[i]) for i in sorted(feeds)]]
        return derived.digest(msgspec.to_builtins(parts))

    def _held(self, policy: Policy) -> pl.DataFrame:
        """`name`, `why: String` of what holds and verdicts say against a name."""
        withheld = self.withheld_by(policy)
        held = {"whole": withheld.names, "subtree": withheld.subtrees}
        for code, own in withheld.by_category.items():
            held |= {f"whole {code}": own.names, f"subtree {code}": own.subtrees}
        if policy.drops:
            verdicts = self.grounds.verdicts
            held |= {verdict: verdicts.filter(pl.col("verdict") == verdict) for verdict in policy.drops}
        return pl.concat([frame.select("name", pl.lit(why).alias("why")) for why, frame in held.items()])

    def _touched(
        self, listed_then: object, listed: object, held_then: pl.DataFrame, held: pl.DataFrame
    ) -> Touched | None:
        """What must be decided anew: nothing where nothing changed, None when nobody knows."""
        changed = []
        if listed_then != listed:
            changes = self._picture.changes
            if changes is None or changes.before != listed_then:
                return None
            changed.append(changes.names)
        key = ["name", "why"]
        changed += [a.join(b, on=key, how="anti")["name"] for a, b in ((held, held_then), (held_then, held))]
        names = pl.concat([series.alias("name") for series in changed])
        if not len(names):
            return Touched.of(names)
        if not no_single_label(names):
            return None
        # All that rules say goes with it: an allow narrows what is above it, a deny covers what is below.
        return Touched.of(names, pl.Series([rule.name for rule in self.rules], dtype=pl.String))
