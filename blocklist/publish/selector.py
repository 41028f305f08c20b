"""What each export of a run holds: policies are decided once, however many exports and formats ask."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import msgspec
import polars as pl
from msgspec.structs import asdict

from blocklist import clock
from blocklist.catalog import KINDS
from blocklist.config import REASONS, Config, Export, Policy
from blocklist.errors import RecordError
from blocklist.picture import Picture
from blocklist.publish import approved, reasons, rows, split, standing
from blocklist.publish.approved import Approved
from blocklist.publish.decided import Decided
from blocklist.publish.descriptor import Format
from blocklist.publish.early import Early
from blocklist.publish.entries import chosen_from
from blocklist.publish.job import Job
from blocklist.publish.left_out import HELD, HELD_BELOW
from blocklist.publish.networks import one_by_one
from blocklist.publish.plan import Plan, Wait, plan
from blocklist.publish.render import Rendered, render
from blocklist.publish.rewrite import Origin
from blocklist.publish.rollback import Pinned, listed_in, pins, text, text_of_change, told_in
from blocklist.publish.selection import Selection
from blocklist.rules import Rule
from blocklist.select import networks
from blocklist.select.express import Capability, Expressed, express
from blocklist.select.fold import names_between
from blocklist.select.policy import Chosen, Selected, areas, taken
from blocklist.store import kept
from blocklist.store.record import Record


class Selector:
    """Selections for the exports of a run; a policy is decided once however many formats ask."""

    def __init__(
        self,
        picture: Picture,
        record: Record,
        policies: Mapping[str, Policy],
        rules: Sequence[Rule],
        *,
        keep: bool = False,
        config: Config | None = None,
        instead: Approved | None = None,
        early: Early | None = None,
    ) -> None:
        self._config, self._instead = config, instead
        self._picture, self._record, self._policies, self.rules = picture, record, policies, rules
        ahead = None if early is None else early.ahead
        known = early.decided(picture, rules) if early is not None and keep else None
        self.decided = known or Decided(picture, record, policies, rules, keep=keep, ahead=ahead)
        self.pins = pins(record)
        self._pinned: dict[str, Pinned] = {}
        self._texts: dict[tuple[str, bool], kept.Bytes | kept.Spliced] = {}
        self._tolds: dict[tuple[str, frozenset[str]], pl.DataFrame] = {}
        self._since: dict[tuple[int, ...], pl.DataFrame] = {}
        self._areas: dict[tuple[object, ...], pl.DataFrame] = {}
        # Exports are prepared side by side; what they share is made once, by whoever comes first. What is decided is
        # what all others need; of that, names are fitted while networks are united and the text is made.
        self._deciding, self._fitting = threading.Lock(), threading.Lock()
        self._uniting, self._telling = threading.Lock(), threading.Lock()
        self._ahead = ahead
        self.file_digest = standing.file_digest if ahead is None else ahead.file_digest

    def selection(self, export: Export, fmt: Format) -> tuple[Selection, dict[str, int]]:
        """What `export` holds, fitted to what its format can say, and what is lost by that."""
        with self._deciding:
            decided = self._decided(export)
            if fmt.of_rows:
                return self._selected_rows(export, fmt, decided)
            chosen = decided.chosen(export.policy)
        return self._selection(export, fmt, decided, chosen)

    def origin(self, export: Export, fmt: Format) -> Origin | None:
        """Which decisions of now the names of `export` come from; None where there are none, or they are others."""
        with self._deciding:
            decided = self._decided(export)
            if not isinstance(decided, Decided) or not _takes_names(export, fmt):
                return None
            capability = capability_of(fmt, decided.chosen(export.policy))
            how = [asdict(capability), msgspec.to_builtins(fmt), export.options, kinds_of(export, fmt)]
            return Origin(how, decided.token(export.policy), decided.step(export.policy, capability))

    def decides(self, export: Export) -> Decided | Pinned | Approved:
        """Who decides for `export`: see `_decided`."""
        with self._deciding:
            return self._decided(export)

    def approved(self, export: Export, fmt: Format, release: int) -> tuple[Selection, dict[str, int]] | None:
        """What `export` held in `release`, under the rules of now; None where that is not kept."""
        with self._deciding:
            if (others := self._others(export, fmt, release)) is None:
                return None
            return others.selection(export, fmt)

    def approved_text(self, export: Export, fmt: Format, release: int) -> kept.Bytes | kept.Spliced | None:
        """The same to be kept for a way back."""
        with self._deciding:
            others = self._others(export, fmt, release)
            return None if others is None else others.text(export, fmt, None)

    def _others(self, export: Export, fmt: Format, release: int) -> Selector | None:
        """Selects for `export` from what was decided for its `release`, under the rules of now."""
        if (kept_ := approved.read(self._record.state, release)) is None:
            return None
        decided = Approved(approved.under(*kept_, self.rules), self.decided.withheld)
        if fmt.of_rows:
            if (told := self._told_then(export, decided, release)) is None:
                return None
            decided = Approved(decided.chosen(""), decided.withheld, told)
        others = Selector(self._picture, self._record, self._policies, self.rules, instead=decided)
        others._since = self._since
        return others

    def _told_then(self, export: Export, decided: Approved, release: int) -> pl.DataFrame | None:
        """What `release` said of each name of `decided`; of what a rule kept out of it then, what is said of it now."""
        found: list[pl.DataFrame] = []
        texts = self._record.connection.execute(
            "SELECT id, chosen FROM release WHERE id IN (?1, (SELECT amends FROM release WHERE id = ?1)) "
            "ORDER BY id DESC",
            (release,),
        )
        for number, digest in texts.fetchall():
            try:
                told = told_in(kept.read(self._record.state, digest), number, export.name) if digest else None
            except RecordError:
                told = None
            if told is not None:
                found.append(told.drop_nulls("category"))
        if not found:
            return None
        kinds = self._policies[export.policy].kinds
        listed = decided.selected(export.policy, KINDS).listed["name"]
        known = pl.concat(found).unique("name", keep="first", maintain_order=True)
        if len(missing := listed.filter(~listed.is_in(known["name"].implode()))):
            now = self.decided.selected(export.policy, kinds).listed
            now = now.filter(pl.col("name").is_in(missing.implode()))
            told = self._told_now(export.policy, now)
            known = pl.concat([known, told.select(known.columns)])
        return known

    def keep(self, export: Export, path: Path) -> None:
        """Keep at `path` what `export` is chosen from, for `approved`."""
        with self._deciding:
            decided = self._decided(export)
            if isinstance(decided, Decided):
                # A list for people is made of what was selected: its policy may not have been asked what it decides.
                decided.chosen(export.policy)
                decided.keep(export.policy, path)
            else:
                approved.write(path, decided.chosen(export.policy), self.rules)

    def plan(
        self,
        job: Job,
        selection: Selection,
        old: Selection | None,
        counts: tuple[int | None, int, int, int],
        wait: Wait | None,
    ) -> Plan:
        """What a release of `job` with `selection` would change, and why it waits, if it does."""
        with self._deciding:
            return plan(
                job.export.name,
                old,
                selection,
                picture=self._picture,
                record=self._record,
                rules=self.rules,
                drops=self._policies[job.export.policy].drops,
                since_run=listed_in(self._record, job.live.id) if job.live else None,
                live=job.live.id if job.live else None,
                counts=counts,
                wait=wait,
            )

    def _selected_rows(
        self, export: Export, fmt: Format, decided: Decided | Pinned | Approved
    ) -> tuple[Selection, dict[str, int]]:
        kinds = kinds_of(export, fmt)
        selected = decided.selected(export.policy, kinds)
        fitted = express(selected.decisions, capability_of(fmt, selected))
        return Selection(rows=self._rows(export, selected, fitted, kinds)), {
            **fitted.lost,
            "audience": selected.kept_back.height,
        }

    def _selection(
        self, export: Export, fmt: Format, decided: Decided | Pinned | Approved, chosen: Chosen
    ) -> tuple[Selection, dict[str, int]]:
        kinds = kinds_of(export, fmt)
        lost: dict[str, int] = {}
        parts: dict[str, pl.DataFrame] = {}
        if _takes_names(export, fmt):
            with self._fitting:
                fitted = decided.fitted(export.policy, capability_of(fmt, chosen))
            lost = dict(fitted.lost)
            parts["domains"] = fitted.entries
            if fmt.code == "rpz":
                parts["between"] = names_between(fitted.entries)
        if {"ipv4", "ipv6"} & set(kinds):
            # Packet filters match source or destination; other targets take all networks as one area, unless
            # an option asks for one direction.
            asked = str(export.options.get("direction", "any"))
            wanted = ["both"] if asked == "any" else [asked]
            if fmt.directed:
                wanted = ["inbound", "outbound"]
            families = [family for kind, family in (("ipv4", 4), ("ipv6", 6)) if kind in kinds]
            with self._uniting:
                parts["networks"] = pl.concat([self._area(export, chosen, families, way) for way in wanted])
            if alone := [f for kind, f in (("ipv4", 4), ("ipv6", 6)) if fmt.takes_addresses_alone(kind)]:
                parts["networks"], lost["network"] = one_by_one(parts["networks"], alone, chosen.networks, self.rules)
        if "url" in kinds:
            parts["urls"] = chosen.urls
        codes = [KINDS.index(kind) + 1 for kind in kinds]
        lost["audience"] = int(chosen.kept_back["kind"].is_in(codes).sum())
        return Selection(**parts), lost

    def _decided(self, export: Export) -> Decided | Pinned | Approved:
        """Who decides for `export`: the current picture, or what the release held that it is pinned to."""
        if self._instead is not None:
            return self._instead
        pin = self.pins.get(export.name)
        if pin is None or self._config is None:
            return self.decided
        if export.name not in self._pinned:
            policy = self._policies[export.policy]
            self._pinned[export.name] = Pinned(pin, self._config, self._picture, self._record, policy, self.rules)
        return self._pinned[export.name]

    def parts(
        self, export: Export, selection: Selection, shows: int | None
    ) -> tuple[dict[str, Selection], pl.DataFrame]:
        """`selection` by category, and what is said of its entries; of an export that is not split, whole.

        `shows`: the release whose listings these are, where they are not those of now.
        """
        if export.split is None:
            return {"": selection}, pl.DataFrame()
        policy = self._policies[export.policy]
        with self._deciding:
            listed = self._decided(export).chosen(export.policy).networks["name"]
            texts = (
                selection.domains["name"],
                selection.networks["cidr"],
                selection.urls["url"],
                selection.rows["indicator"],
            )
            names = pl.concat([listed.alias("name"), *(text.alias("name") for text in texts)]).unique()
            current = self._picture.current()
            known = reasons.told(current, self._picture.feeds, policy, self._picture.listings(), names)
        if shows is not None:
            gone = names.filter(~names.is_in(known["name"].implode())).to_list()
            known = pl.concat([known, reasons.told_then(self._record, policy, gone, shows)])
        wanted = [c for c, _ in split.paths(export, policy, Path()) if c != REASONS]
        return split.parts(selection, known.select("name", "category"), wanted), known

    def listed(self, export: Export) -> pl.DataFrame:
        """`name`, `confidence` of all that `export` was chosen from."""
        with self._deciding:
            return self._decided(export).selected(export.policy, self._policies[export.policy].kinds).listed

    def held_back(self, export: Export) -> pl.DataFrame | None:
        """`name`, `why` of what guards of now withhold, wholly or as a subtree, from the release that `export` is
        pinned to, if it is.
        """
        decided = self._pinned.get(export.name)
        if decided is None:
            return None
        # What a person let pass is not withheld.
        whole = pl.col("name").is_in(decided.withheld.names["name"].implode())
        below = pl.col("name").is_in(decided.withheld.subtrees["name"].implode())
        held = decided.held.filter(pl.when("subtree_only").then(below).otherwise(whole))
        how = pl.when("subtree_only").then(pl.lit(HELD_BELOW)).otherwise(pl.lit(HELD))
        return held.select("name", pl.format("{}{}: {}", how, "guard", "detail").alias("why"))

    def token(self, export: Export) -> str | None:
        """What tells the decisions of now that `export` is chosen from; None where they are others."""
        with self._deciding:
            decided = self._decided(export)
            if not isinstance(decided, Decided):
                return None
            decided.chosen(export.policy)
            return decided.token(export.policy)

    def text(self, export: Export, fmt: Format, live: int | None) -> kept.Bytes | kept.Spliced:
        """What `export` is chosen from, to be kept for a way back; for people, with what is told of it. `live`: the
        release in place, of whose text this one may be made.
        """
        key = (export.name if export.name in self._pinned else f"policy {export.policy}", fmt.of_rows)
        with self._telling:
            if key not in self._texts:
                made = self._text_of_change(export, live) if live is not None and not fmt.of_rows else None
                self._texts[key] = made or kept.Bytes.of(self._text(export, fmt))
            return self._texts[key]

    def _text_of_change(self, export: Export, live: int) -> kept.Spliced | None:
        """`text`, made of that of the release `live`, where it is known how the two differ."""
        with self._deciding:
            decided = self._decided(export)
            came = decided.came(export.policy) if isinstance(decided, Decided) else None
        released = "SELECT digest, chosen FROM release WHERE id = ?"
        digest, chosen = self._record.connection.execute(released, (live,)).fetchone()
        if chosen is None or came is None or chosen_from(self._record.state, live, digest) != came[0]:
            return None
        if (old := self._read_chosen(chosen)) is None:
            return None
        _, before, renewed = came
        come = Chosen(**{field: patch.come for field, patch in renewed.patches.items()})
        splice = text_of_change(before, renewed.gone, come, self.rules, old.data)
        return None if splice is None else kept.Spliced.of(splice, chosen)

    def _read_chosen(self, digest: str) -> kept.Bytes | None:
        if self._ahead is not None and (found := self._ahead.chosen(digest)) is not None:
            return found
        with suppress(RecordError):
            return kept.Bytes(kept.read(self._record.state, digest), digest)
        return None

    def _text(self, export: Export, fmt: Format) -> bytes:
        with self._deciding:
            decided = self._decided(export)
            if fmt.of_rows:
                # What was approved was decided by a policy of then, which may have taken more kinds.
                kinds = KINDS if isinstance(decided, Approved) else self._policies[export.policy].kinds
                selected = decided.selected(export.policy, kinds)
                return text(selected, self.rules, self._told(export, selected, kinds))
            chosen = decided.chosen(export.policy)
        return text(chosen, self.rules)

    def _area(self, export: Export, chosen: Chosen, families: list[int], direction: str) -> pl.DataFrame:
        decided = self._decided(export)
        mine = pl.col("family").is_in(families)
        listed = chosen.networks.filter(mine)
        # Most feeds speak for both directions: what is listed for each of them is united once.
        of = "both" if direction == "both" or listed[direction].all() else direction
        key = (export.policy if decided is self.decided else decided, *families, of)
        if key not in self._areas:
            # What a rule denies is of any family.
            self._areas[key] = areas(listed, [of], decided.withheld.addresses, self.rules).filter(mine)
        return self._areas[key].with_columns(pl.lit(direction).alias("direction"))

    def _rows(self, export: Export, chosen: Selected, fitted: Expressed, kinds: Collection[str]) -> pl.DataFrame:
        """The unfolded list for people: what is blocked now, by which feeds, since when; rules included.

        Like every target that can't say 'allow', it never names a scope or a network with an allowed name or
        address inside: `fitted` narrowed the names, and of a cut network the pieces that are left stand alone.
        """
        domains = fitted.entries.group_by("name").agg(pl.col("subtree").any()).with_columns(kind=pl.lit(1, pl.UInt8))
        urls = chosen.urls.select(
            pl.col("url").alias("name"), pl.lit(False).alias("subtree"), pl.lit(4, pl.UInt8).alias("kind")
        )
        blocked = pl.concat([domains, self._row_networks(export, chosen), urls])
        # What a rule denies is of any kind.
        blocked = blocked.filter(pl.col("kind").is_in([KINDS.index(kind) + 1 for kind in kinds]))
        return rows.rows(blocked, self._told(export, chosen, kinds), self._since_of(export.policy))

    def _told(self, export: Export, chosen: Selected, kinds: Collection[str]) -> pl.DataFrame:
        """What is said of each of `kinds`: of a release of before, what was said then."""
        decided = self._decided(export)
        if isinstance(decided, Pinned | Approved) and decided.told is not None:
            return decided.told
        key = (export.name if decided is not self.decided else f"policy {export.policy}", frozenset(kinds))
        if key not in self._tolds:
            listed = chosen.listed
            if decided is not self.decided:
                # Its numbers are those of a picture of its own.
                numbers = self._picture.current().names.select("name").with_row_index("gid")
                listed = listed.drop("gid").join(numbers, on="name", how="left", maintain_order="left")
            self._tolds[key] = self._told_now(export.policy, listed)
        return self._tolds[key]

    def _told_now(self, policy: str, listed: pl.DataFrame) -> pl.DataFrame:
        """What is said of `listed`, by what the policy takes now."""
        current, feeds = self._picture.current(), self._picture.feeds
        return rows.told(current, feeds, self._policies[policy], listed, self._since_of(policy))

    def _row_networks(self, export: Export, chosen: Selected) -> pl.DataFrame:
        """Listed networks that are blocked whole, and the rest of the blocked area in pieces: as `domains` above."""
        area_of = ["family", "first", "last"]
        listed = chosen.listed.filter(pl.col("kind").is_in([2, 3]))["name"]
        united = areas(chosen.networks, ["both"], self._decided(export).withheld.addresses, self.rules)
        area = networks.parse(united["cidr"]).select(area_of)
        mine = networks.parse(listed).select(area_of)
        whole = networks.contains(mine, area)
        rest = networks.writable_cidrs(networks.subtract(area, mine.filter(whole)))
        texts = pl.concat([listed.filter(whole).alias("name"), networks.text(rest).alias("name")])
        kind = pl.when(pl.col("name").str.contains(":", literal=True)).then(3).otherwise(2).cast(pl.UInt8)
        return texts.to_frame().select("name", pl.lit(False).alias("subtree"), kind.alias("kind"))

    def _since_of(self, policy: str) -> pl.DataFrame:
        """Since when each name is listed by the feeds that the policy takes and may tell of."""
        feeds = taken(self._picture.current(), self._picture.feeds, self._policies[policy])["feed"]
        key = tuple(sorted(feeds.unique().to_list()))
        if key not in self._since:
            self._since[key] = self._record.first_listed(key)
        return self._since[key]


def capability_of(fmt: Format, chosen: Chosen) -> Capability:
    """What `fmt` can say; formats that can say the same share the folding."""
    # Where nothing is allowed, a target that can't say 'allow' loses nothing.
    allow = fmt.takes_allow or bool(chosen.decisions["block"].all())
    return Capability(fmt.takes_subtree, fmt.takes_exact, allow, fold=fmt.fold)


def _takes_names(export: Export, fmt: Format) -> bool:
    return not fmt.of_rows and "domain" in kinds_of(export, fmt) and (fmt.takes_subtree or fmt.takes_exact)


def kinds_of(export: Export, fmt: Format) -> list[str]:
    """Which kinds `export` takes of its policy."""
    if export.kinds is not None:
        return list(export.kinds)
    # Scanners of SSH are not answer addresses: an RPZ takes domains unless its option asks for more.
    if fmt.code == "rpz" and not export.options.get("addresses"):
        return ["domain"]
    return list(fmt.kinds)


def render_once(selector: Selector, export: Export, fmt: Format, out: BinaryIO) -> tuple[Rendered, dict[str, int]]:
    """A one-off to a stream, no release kept."""
    selection, lost = selector.selection(export, fmt)
    serial = clock.serial(clock.now())
    rendered = render(fmt, selection, {**export.options, "serial": serial}, out)
    return rendered, {k: v for k, v in {**lost, **rendered.lost}.items() if v}
