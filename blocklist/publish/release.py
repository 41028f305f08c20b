"""Exports of one run: rendered from one revision, all checked, then recorded, renamed, loaded.

A release is `pending` in the record before its file is renamed and `live` after, so that a run that was killed
between the two is recognised by its digest and finished by the next.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO, Literal

import msgspec
import polars as pl

from blocklist import __version__, clock
from blocklist.catalog import KINDS
from blocklist.config import REASONS, Config, Export, Policy
from blocklist.errors import BlocklistError, ReleaseError
from blocklist.person import whoami
from blocklist.picture import Picture
from blocklist.publish import approved, capacity, left_out, reasons, settings, split
from blocklist.publish.approved import Approved
from blocklist.publish.change import Change, compared_with, listed_in, weekly
from blocklist.publish.check import check
from blocklist.publish.command import end_all
from blocklist.publish.decided import Decided
from blocklist.publish.descriptor import Format
from blocklist.publish.file import Candidate, leftovers, refusal, reload
from blocklist.publish.keeping import Keeping
from blocklist.publish.plan import Plan, plan
from blocklist.publish.render import Rendered, render, written
from blocklist.publish.rollback import Pin, Pinned, pins, text
from blocklist.publish.selection import Selection
from blocklist.quantities import parse_duration
from blocklist.rules import Rule, rules_in_force
from blocklist.select import networks
from blocklist.select.current import Current
from blocklist.select.express import Capability, Expressed, express
from blocklist.select.fold import names_between
from blocklist.select.policy import Chosen, Selected, areas
from blocklist.store import derived, kept
from blocklist.store.record import Record

ExportOutcomeName = Literal["published", "unchanged", "held", "failed", "shadow"]


@dataclass
class ExportOutcome:
    """What became of one export; a line of the screen and an item of `--json`."""

    name: str
    format: str
    outcome: ExportOutcomeName
    entries: int = 0
    added: int = 0
    removed: int = 0
    release: int | None = None
    serial: int | None = None
    lost: dict[str, int] = field(default_factory=dict)
    checked: str = ""
    note: str = ""
    error: str | None = None
    hint: str | None = None
    seconds: float = 0.0
    plan: Plan | None = None


@dataclass(frozen=True)
class Live:
    """The release whose file is in place."""

    id: int
    serial: int
    digest: str
    body_digest: str
    entries: int
    inputs: str
    reloaded: str | None
    path: str
    amends: int | None


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
    ) -> None:
        self._config, self._instead = config, instead
        self._picture, self._record, self._policies, self.rules = picture, record, policies, rules
        self.decided = Decided(picture, record, policies, rules, keep=keep)
        self.pins = pins(record)
        self._pinned: dict[str, Pinned] = {}
        self._texts: dict[str, kept.Bytes] = {}
        self._since: pl.DataFrame | None = None
        self._areas: dict[tuple[object, ...], pl.DataFrame] = {}
        # Exports are prepared side by side; what they share is decided once, by whoever comes first.
        self._deciding = threading.Lock()

    def selection(self, export: Export, fmt: Format) -> tuple[Selection, dict[str, int]]:
        """What `export` holds, fitted to what its format can say, and what is lost by that."""
        with self._deciding:
            return self._selection(export, fmt)

    def approved(self, export: Export, fmt: Format, release: int) -> tuple[Selection, dict[str, int]] | None:
        """What `export` held in `release`, under the rules of now; None where that is not kept."""
        if fmt.of_rows:
            return None
        with self._deciding:
            if (decided := self._approved(release)) is None:
                return None
            others = Selector(self._picture, self._record, self._policies, self.rules, instead=decided)
            return others.selection(export, fmt)

    def approved_text(self, release: int) -> kept.Bytes | None:
        """The same to be kept for a way back."""
        with self._deciding:
            decided = self._approved(release)
            return None if decided is None else kept.Bytes.of(text(decided.chosen(""), self.rules))

    def _approved(self, release: int) -> Approved | None:
        kept_ = approved.read(self._record.state, release)
        return Approved(approved.under(*kept_, self.rules), self.decided.withheld) if kept_ else None

    def keep(self, export: Export, path: Path) -> None:
        """Keep at `path` what `export` is chosen from, for `approved`."""
        with self._deciding:
            decided = self._decided(export)
            if isinstance(decided, Decided):
                decided.keep(export.policy, path)
            else:
                approved.write(path, decided.chosen(export.policy), self.rules)

    def plan(
        self, job: _Job, selection: Selection, old: Selection | None, counts: tuple[int | None, int, int, int]
    ) -> Plan:
        """What a release of `job` with `selection` would change."""
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
                counts=counts,
                gate=job.outcome.error if job.state == "held" else None,
            )

    def _selection(self, export: Export, fmt: Format) -> tuple[Selection, dict[str, int]]:
        kinds = export.kinds if export.kinds is not None else _default_kinds(fmt, export.options)
        lost: dict[str, int] = {}
        parts: dict[str, pl.DataFrame] = {}
        decided = self._decided(export)
        if fmt.of_rows:
            selected = decided.selected(export.policy, kinds)
            fitted = express(selected.decisions, capability_of(fmt, selected))
            return Selection(rows=self._rows(selected, fitted)), {**fitted.lost, "audience": selected.kept_back.height}
        chosen = decided.chosen(export.policy)
        if "domain" in kinds and (fmt.takes_subtree or fmt.takes_exact):
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
            parts["networks"] = pl.concat([self._area(export, chosen, families, way) for way in wanted])
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
            known = reasons.told(current, self._picture.feeds, policy, self._picture.frames, names)
        if shows is not None:
            gone = names.filter(~names.is_in(known["name"].implode())).to_list()
            known = pl.concat([known, reasons.told_then(self._record, gone, shows)])
        wanted = [c for c, _ in split.paths(export, policy, Path()) if c != REASONS]
        return split.parts(selection, known.select("name", "category"), wanted), known

    def listed(self, export: Export) -> pl.DataFrame:
        """`name`, `confidence` of all that `export` was chosen from."""
        with self._deciding:
            return self._decided(export).selected(export.policy, self._policies[export.policy].kinds).listed

    def held_back(self, export: Export) -> pl.DataFrame | None:
        """`name`, `why` of what guards of now withhold from the release that `export` is pinned to, if it is."""
        decided = self._pinned.get(export.name)
        if decided is None:
            return None
        held = decided.held.filter(
            ~pl.col("subtree_only") & pl.col("name").is_in(decided.withheld.names["name"].implode())
        )
        return held.select("name", pl.format("held by the guard {}: {}", "guard", "detail").alias("why"))

    def text(self, export: Export) -> kept.Bytes:
        """What `export` is chosen from, to be kept for a way back."""
        with self._deciding:
            key = export.name if export.name in self._pinned else f"policy {export.policy}"
            if key not in self._texts:
                self._texts[key] = kept.Bytes.of(text(self._decided(export).chosen(export.policy), self.rules))
            return self._texts[key]

    def _area(self, export: Export, chosen: Chosen, families: list[int], direction: str) -> pl.DataFrame:
        decided = self._decided(export)
        key = (export.policy if decided is self.decided else decided, *families, direction)
        if key not in self._areas:
            listed = chosen.networks.filter(pl.col("family").is_in(families))
            self._areas[key] = areas(listed, [direction], decided.withheld.addresses, self.rules)
        return self._areas[key]

    def _rows(self, chosen: Selected, fitted: Expressed) -> pl.DataFrame:
        """The unfolded list for people: what is blocked now, by which feeds, since when; rules included.

        Like every target that can't say 'allow', it never names a scope or a network with an allowed name or
        address inside: `fitted` narrowed the names, and of a cut network the pieces that are left stand alone.
        """
        current = self._picture.current()
        feeds = self._picture.feeds
        names = {i: f.id for i, f in feeds.items()}
        categories = {i: f.category for i, f in feeds.items()}
        domains = fitted.entries.group_by("name").agg(pl.col("subtree").any()).with_columns(kind=pl.lit(1, pl.UInt8))
        urls = chosen.urls.select(
            pl.col("url").alias("name"), pl.lit(False).alias("subtree"), pl.lit(4, pl.UInt8).alias("kind")
        )
        blocked = pl.concat([domains, self._row_networks(chosen), urls]).join(
            chosen.listed.select("name", "gid", "confidence"), on="name", how="left"
        )
        listings = current.listings.filter(~pl.col("expired")).join(blocked.drop_nulls("gid"), on="gid", how="semi")
        by_name = (
            listings.sort("gid", "confidence", "feed")
            .group_by("gid")
            .agg(
                pl.col("feed").replace_strict(names, return_dtype=pl.String).sort().str.join(",").alias("feeds"),
                pl.col("feed").last().replace_strict(categories, return_dtype=pl.String).alias("category"),
            )
        )
        rows = blocked.join(by_name, on="gid", how="left").join(self._since_of(), on="name", how="left")
        return rows.select(
            pl.col("name").alias("indicator"),
            pl.col("kind").replace_strict(dict(enumerate(KINDS, start=1)), return_dtype=pl.String),
            pl.when("subtree").then(pl.lit("subtree")).otherwise(pl.lit("exact")).alias("scope"),
            # What no feed lists by itself stands there by a rule, or is what a rule left of a listed network.
            pl.col("category").fill_null("rule"),
            pl.col("confidence").fill_null(100).cast(pl.Int64),
            pl.col("feeds").fill_null(""),
            pl.col("since").fill_null(""),
        ).sort("kind", "indicator")

    def _row_networks(self, chosen: Selected) -> pl.DataFrame:
        """Listed networks that are blocked whole, and the rest of the blocked area in pieces: as `domains` above."""
        area_of = ["family", "first", "last"]
        listed = chosen.listed.filter(pl.col("kind").is_in([2, 3]))["name"]
        united = areas(chosen.networks, ["both"], self.decided.withheld.addresses, self.rules)
        area = networks.parse(united["cidr"]).select(area_of)
        mine = networks.parse(listed).select(area_of)
        whole = networks.contains(mine, area)
        rest = networks.to_cidrs(networks.subtract(area, mine.filter(whole)))
        texts = pl.concat([listed.filter(whole).alias("name"), networks.text(rest).alias("name")])
        kind = pl.when(pl.col("name").str.contains(":", literal=True)).then(3).otherwise(2).cast(pl.UInt8)
        return texts.to_frame().select("name", pl.lit(False).alias("subtree"), kind.alias("kind"))

    def _since_of(self) -> pl.DataFrame:
        if self._since is None:
            self._since = self._record.first_listed()
        return self._since


def capability_of(fmt: Format, chosen: Chosen) -> Capability:
    """What `fmt` can say; formats that can say the same share the folding."""
    # Where nothing is allowed, a target that can't say 'allow' loses nothing.
    allow = fmt.takes_allow or bool(chosen.decisions["block"].all())
    return Capability(fmt.takes_subtree, fmt.takes_exact, allow, fold=fmt.fold)


def _default_kinds(fmt: Format, options: Mapping[str, object]) -> list[str]:
    # Scanners of SSH are not answer addresses: an RPZ takes domains unless its option asks for more.
    if fmt.code == "rpz" and not options.get("addresses"):
        return ["domain"]
    return list(fmt.kinds)


@dataclass
class _Job:
    export: Export
    fmt: Format
    path: Path
    inputs: str
    live: Live | None
    outcome: ExportOutcome
    paths: list[tuple[str, Path]] = field(default_factory=list)
    candidate: split.Files | None = None
    rendered: Rendered | None = None
    entries: pl.Series | None = None
    chosen: kept.Bytes | None = None
    left_out: kept.Bytes | None = None
    pin: Pin | None = None
    state: str = "pending"
    same_body: bool = False
    amends: int | None = None
    amended: _Job | None = None


def export_all(
    config: Config,
    record: Record,
    picture: Picture,
    formats: Mapping[str, Format],
    *,
    only: Collection[str] = (),
    run: int | None = None,
    dry_run: bool = False,
    on_done: Callable[[ExportOutcome], None] | None = None,
) -> list[ExportOutcome]:
    """Publish the configured exports whose content changed. Failures are outcomes, one export's never another's."""
    now = clock.now()
    rules = rules_in_force(record.connection, now)
    selector = Selector(picture, record, config.policies, rules, keep=not dry_run, config=config)
    shared = _shared_inputs(record, picture, rules)
    judged = clock.text(picture.at)
    _recover(record)
    jobs: list[_Job] = []
    with ExitStack() as stack:
        stack.callback(selector.decided.finish, _asked(config, formats))
        for export in config.exports.values():
            if only and export.name not in only:
                continue
            fmt = formats[export.format]
            job = _Job(
                export,
                fmt,
                config.base / export.path,
                _inputs(shared, export, fmt, config.policies[export.policy], selector.pins.get(export.name)),
                live_release(record, export.name),
                ExportOutcome(export.name, export.format, "unchanged"),
            )
            job.pin = selector.pins.get(export.name)
            job.paths = split.paths(export, config.policies[export.policy], config.base)
            jobs.append(job)
        with ThreadPoolExecutor(2, "export") as pool:
            futures = [pool.submit(_prepared, job, config, selector, record, stack, dry_run) for job in jobs]
            try:
                # Polars' signal handler has the system resume a wait without limit: Ctrl-C would not be heard.
                while wait(futures, timeout=0.2).not_done:
                    pass
                for done in futures:
                    done.result()
            except BaseException:
                for waiting in futures:
                    waiting.cancel()
                while wait(futures, timeout=0.1).not_done:
                    end_all()
                raise
        if dry_run:
            return [job.outcome for job in jobs]
        _renew_inputs(record, jobs)
        # What a person said goes out before what is held, so that the held release stays the newest.
        every = [one for job in jobs for one in (job.amended, job) if one is not None]
        ready = [job for job in every if job.candidate is not None and job.state == "pending"]
        if any(job.state in ("held", "failed") for job in every) or ready:
            _record_releases(record, every, run, clock.text(now), judged, config, picture.suffix_digest)
        keeping = stack.enter_context(Keeping(record.state))
        for job in ready:
            _keep(job, record, keeping)
        for job in ready:
            started = time.perf_counter()
            try:
                _publish(job, record, selector, keeping)
            except BlocklistError as error:
                job.outcome.outcome = "failed"
                job.outcome.error, job.outcome.hint = error.message, error.hint
            job.outcome.seconds += time.perf_counter() - started
        for job in jobs:
            _tell_amended(job)
        if ready:
            _forget_entries(record)
            kept.forget_others(record.state, _wanted_bytes(record, config))
        for job in jobs:
            _reload(job, record, config.base)
            if on_done is not None:
                on_done(job.outcome)
    return [job.outcome for job in jobs]


def _asked(config: Config, formats: Mapping[str, Format]) -> set[tuple[str, Capability | None]]:
    """The policies of all exports, and what their formats can say."""
    asked: set[tuple[str, Capability | None]] = {(export.policy, None) for export in config.exports.values()}
    for export in config.exports.values():
        fmt = formats[export.format]
        if fmt.takes_subtree or fmt.takes_exact:
            for allow in (True, False):
                asked.add((export.policy, Capability(fmt.takes_subtree, fmt.takes_exact, allow, fold=fmt.fold)))
    return asked


def live_release(record: Record, export: str) -> Live | None:
    row = record.connection.execute(
        "SELECT id, serial, digest, body_digest, entries, inputs, reloaded, path, amends FROM release "
        "WHERE export = ? AND state = 'live'",
        (export,),
    ).fetchone()
    return Live(*row) if row else None


def _shared_inputs(record: Record, picture: Picture, rules: Sequence[Rule]) -> list[object]:
    shared: list[object] = [__version__, record.revision(), picture.suffix_digest, [r.id for r in rules]]
    # Only what ended since the last update: what it judged itself is in the revision.
    return [*shared, lapsed] if (lapsed := picture.lapsed()) else shared


def _inputs(shared: list[object], export: Export, fmt: Format, policy: Policy, pin: Pin | None) -> str:
    parts = [shared, msgspec.to_builtins([fmt, policy, export.options, export.kinds, export.path])]
    parts += [export.max_entries, export.max_bytes, export.model, export.fit, export.split]
    if pin is not None:
        parts.append([pin.id, pin.release])
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _file_digest(path: Path) -> str | None:
    if not path.is_file():  # opening a pipe would wait for its writer
        return None
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _recover(record: Record) -> None:
    """Finish what a killed run left between recording and renaming: the file's digest tells which it was."""
    rows = record.connection.execute(
        "SELECT id, export, path, digest, files FROM release WHERE state = 'pending'"
    ).fetchall()
    for number, export, path, digest, files in rows:
        places = [(f["category"], Path(f["path"])) for f in json.loads(files)] if files else [("", Path(path))]
        published = split.in_place(places, _file_digest) == digest
        with record.transaction() as connection:
            if published:
                _make_live(record, connection, number, export)
            else:
                connection.execute(
                    "UPDATE release SET state = 'failed', note = 'interrupted before it was published' WHERE id = ?",
                    (number,),
                )
    _forget_entries(record)


def _prepared(job: _Job, config: Config, selector: Selector, record: Record, stack: ExitStack, dry_run: bool) -> None:
    """`_prepare`; what it raises is the outcome of this export."""
    started = time.perf_counter()
    try:
        _prepare(job, config, selector, record, stack, dry_run)
    except (BlocklistError, OSError) as error:
        told = error if isinstance(error, BlocklistError) else refusal(job.path, job.path.parent, error)
        job.state = "failed"
        job.outcome.outcome = "failed"
        job.outcome.error, job.outcome.hint = told.message, told.hint
    job.outcome.seconds = time.perf_counter() - started


def _floor(job: _Job, base: Path) -> tuple[int, int, bool]:
    """The serial that the primary serves, the least that a new release may have, and is it ahead of the live one?"""
    if job.export.primary is None:
        return 0, 0, False
    # Not imported with this module: dnspython takes a tenth of the time that a run without news has.
    from blocklist.publish import delivery
    from blocklist.publish.delivery.zone import later

    served, least = delivery.floor(job.export, job.fmt, base)
    return served, least, job.live is not None and later(served, job.live.serial)


def _renew_inputs(record: Record, jobs: Sequence[_Job]) -> None:
    """Other inputs that gave the same file: note them, so that the next run need not render it again."""
    renewed = [job for job in jobs if job.same_body and job.live is not None and job.live.inputs != job.inputs]
    if renewed:
        with record.transaction() as connection:
            connection.executemany(
                "UPDATE release SET inputs = ? WHERE id = ?", [(j.inputs, j.live.id) for j in renewed if j.live]
            )


def _prepare(job: _Job, config: Config, selector: Selector, record: Record, stack: ExitStack, dry_run: bool) -> None:
    """Render, compare, gate and check; leaves a sealed candidate when there is something to publish."""
    live, outcome, export = job.live, job.outcome, job.export
    for stray in [stray for _, path in job.paths for stray in leftovers(path)]:
        stray.unlink(missing_ok=True)
    in_place = split.in_place(job.paths, _file_digest) if live else None
    if job.pin is not None:
        outcome.note = f"pinned to release {job.pin.release} by {job.pin.author}: {job.pin.reason}"
    served, least, ahead = _floor(job, config.base)
    if ahead:
        in_place = None  # the primary is ahead of us: only a file with a higher serial mends that
    if live is not None:
        outcome.entries, outcome.release, outcome.serial = live.entries, live.id, live.serial
        if live.inputs == job.inputs and in_place == live.digest and live.path == str(job.path.absolute()):
            return
    selection, lost = selector.selection(export, job.fmt)
    if config.policies[export.policy].mode == "shadow":
        outcome.outcome, outcome.entries = "shadow", len(_entries(selection))
        outcome.lost = {k: v for k, v in sorted(lost.items()) if v}
        stays = f"; release {live.id} stays in place" if live is not None else ""
        outcome.note = f"the policy {export.policy} is in shadow mode: decided, not written{stays}"
        return
    left = [held] if (held := selector.held_back(export)) is not None and held.height else []
    selection, excess = _render(job, config, record, selector, stack, selection, lost, left, least)
    assert job.rendered is not None
    rendered = job.rendered
    if excess is None and live is not None and rendered.body_digest == live.body_digest and in_place == live.digest:
        outcome.entries, outcome.serial = live.entries, live.serial
        job.same_body, job.candidate, job.rendered = True, None, None
        return
    if live is not None and in_place != live.digest:
        how = "missing" if in_place is None else "edited by hand"
        how = f"the published file was {how}; written again"
        if ahead:
            how = f"the primary serves a later serial, {served}; written again above it"
        outcome.note = "; ".join(filter(None, (outcome.note, how)))
    job.entries = _entries(selection)
    change = _change(job, record, live.id if live else None)
    outcome.added, outcome.removed = change.added, change.removed
    outcome.release = None
    old = None
    if excess is not None:
        reason: str | None = f"{excess}; no approval changes that"
    else:
        reason = _gate(config, job, record, change)
        if reason is None and live is not None:
            reason = _weekly_gate(config, job, record, selector)
        if reason is not None and live is not None and (old := selector.approved(export, job.fmt, live.id)) is not None:
            # What a person said since does not count.
            beyond = change.beyond(_entries(old[0]), job.entries)
            reason = _gate(config, job, record, beyond) if beyond.any else None
            reason = reason or (_weekly_gate(config, job, record, selector) if beyond.any else None)
    if live is not None and old is None and (reason is not None or dry_run):
        old = selector.approved(export, job.fmt, live.id)
    if reason is not None:
        job.state, outcome.outcome, outcome.error = "held", "held", reason
        outcome.hint = (
            f"see 'blocklist export {export.name} --dry-run', publish with 'blocklist release approve {export.name}'"
            if excess is None
            else "narrow the policy (fewer categories or feeds, a higher min_confidence), or keep the best entries "
            'with fit = "rank"; if the device takes more, say so with model, max_entries or max_bytes'
        )
        if live is not None:
            _amend(job, config, record, selector, stack, old, least)
    if reason is not None or dry_run:
        counts = (live.entries if live else None, outcome.entries, outcome.added, outcome.removed)
        outcome.plan = selector.plan(job, selection, old[0] if old else None, counts)
    if reason is not None:
        return
    _check(job)
    if not job.fmt.of_rows:
        job.chosen = selector.text(export)
    if left:
        job.left_out = kept.Bytes.of(left_out.text(pl.concat(left).unique("name", keep="first")))


def _render(
    job: _Job,
    config: Config,
    record: Record,
    selector: Selector,
    stack: ExitStack,
    selection: Selection,
    lost: Mapping[str, int],
    left: list[pl.DataFrame],
    least: int,
) -> tuple[Selection, str | None]:
    """Write `selection` into a candidate beside the published file; what of it was written, and what is too much.

    What does not fit, and is left out for that, is appended to `left`. The serial is `least` or more.
    """
    export, outcome = job.export, job.outcome
    outcome.serial = serial = max(_serial(job, record), least)
    if not job.path.parent.is_dir() and config.path is None:
        job.path.parent.mkdir(parents=True, exist_ok=True)
    if job.live is not None and (behind := set(_files_of(record, job.live.id)) - {c for c, _ in job.paths} - {""}):
        files = ", ".join(split.path_of(job.path, category).name for category in sorted(behind))
        outcome.note = "; ".join(filter(None, (outcome.note, f"{files} is written no more: remove it")))
    job.candidate = made = split.Files()
    parts, known = selector.parts(export, selection, job.pin.release if job.pin is not None else job.amends)
    excess: str | None = None
    for category, path in job.paths:
        candidate = stack.enter_context(_candidate(export, path))
        if category == REASONS:
            lines = reasons.lines(parts, known, selector.rules)
            made.add(category, candidate, written(lines, candidate.stream))
            continue
        part, cut, rendered, over = _fitted(job, selector, record, category, parts[category], serial, candidate.stream)
        parts[category] = part
        if over is not None:
            excess = excess or (f"{path.name}: {over}" if category else over)
        if cut.height:
            left.append(cut)
            lost = {**lost, "cut": lost.get("cut", 0) + cut.height}
        made.add(category, candidate, rendered)
    rendered, selection = made.rendered(), split.united(parts)
    job.rendered = rendered
    outcome.lost = {k: v for k, v in sorted({**lost, **rendered.lost}.items()) if v}
    outcome.entries = rendered.entries
    return selection, excess


def _candidate(export: Export, path: Path) -> Candidate:
    mode = int(export.mode, 8) if export.mode else None
    return Candidate(path, follow=export.follow_link, mode=mode, owner=export.owner, group=export.group)


def _fitted(
    job: _Job, selector: Selector, record: Record, category: str, selection: Selection, serial: int, out: BinaryIO
) -> tuple[Selection, pl.DataFrame, Rendered, str | None]:
    """Write what of `selection` the target takes: that, what was cut (`name`, `why`), and what is too much still."""
    export = job.export
    fmt, limits = capacity.unlimited(job.fmt), capacity.limits(export, job.fmt)
    options = split.options(job.fmt, {**export.options, "serial": serial}, category)
    rendered = render(fmt, selection, options, out)
    excess = limits.excess(rendered)
    if excess is not None and export.fit == "rank":
        ranks = capacity.ranked(selector.listed(export), selection, record, selector.rules)
        fitted = capacity.fit(selection, ranks, limits, rendered, lambda some, to: render(fmt, some, options, to))
        if fitted is not None:
            out.seek(0)
            out.truncate()
            return fitted.selection, fitted.cut, render(fmt, fitted.selection, options, out), None
    return selection, pl.DataFrame(schema={"name": pl.String, "why": pl.String}), rendered, excess


def _check(job: _Job) -> None:
    assert job.candidate is not None and job.rendered is not None
    for category, file, wrote in job.candidate.seal():
        if category != REASONS:
            options = split.options(job.fmt, {**job.export.options, "serial": job.outcome.serial}, category)
            checked = check(job.fmt, file, wrote, options, job.export.check)
            job.outcome.checked = checked.by if not checked.detail else f"{checked.by} ({checked.detail})"
    if job.export.split is not None:
        files, whole = len(job.candidate.made) - 1, job.rendered
        job.outcome.checked = f"{checked.by} ({files} files, {whole.lines:,} lines, {whole.size:,} bytes)"
    job.outcome.outcome = "published"


def _amend(
    job: _Job,
    config: Config,
    record: Record,
    selector: Selector,
    stack: ExitStack,
    old: tuple[Selection, dict[str, int]] | None,
    least: int,
) -> None:
    """Prepare what is published in place of a held release: the live one under the rules of now, where they differ."""
    live, outcome = job.live, job.outcome
    assert live is not None
    wait = "no copy of the live release is at hand"
    if old is not None:
        made = ExportOutcome(job.export.name, job.export.format, "unchanged")
        other = _Job(job.export, job.fmt, job.path, "", live, made, amends=live.amends or live.id)
        other.paths = job.paths
        left: list[pl.DataFrame] = []
        selection, excess = _render(other, config, record, selector, stack, *old, left, least)
        assert other.rendered is not None
        if excess is None:
            if other.rendered.body_digest == live.body_digest and (
                split.in_place(job.paths, _file_digest) == live.digest
            ):
                return
            other.entries = _entries(selection)
            change = _change(other, record, live.id)
            made.added, made.removed = change.added, change.removed
            made.note = "the last approved list with the rules of now"
            _check(other)
            other.chosen = selector.approved_text(live.id)
            if left:
                other.left_out = kept.Bytes.of(left_out.text(pl.concat(left).unique("name", keep="first")))
            job.amended = other
            return
        wait = f"with them the live release would be too much: {excess}"
    outcome.note = "; ".join(filter(None, (outcome.note, f"{wait}, so that new rules wait with this one")))


def _tell_amended(job: _Job) -> None:
    """Say with a held release what went out in its place."""
    if (other := job.amended) is None:
        return
    outcome, made = job.outcome, other.outcome
    if made.outcome == "failed":
        outcome.outcome, outcome.error, outcome.hint = "failed", made.error, made.hint
        return
    said = (
        f"your rules are published with the last approved list: release {made.release}, serial {made.serial} "
        f"(+{made.added:,} −{made.removed:,})"
    )
    outcome.note = "; ".join(filter(None, (outcome.note, said)))


def _change(job: _Job, record: Record, release: int | None) -> Change:
    """How the entries of `job` differ from those of a `release`."""
    assert job.entries is not None and job.rendered is not None
    if release is None:
        return Change(None, job.rendered.entries, len(job.entries), 0)
    (count,) = record.connection.execute("SELECT entries FROM release WHERE id = ?", (release,)).fetchone()
    before = _entries_before(record.state, release)
    if before is None:
        # The cache of entries is gone: of the difference only the balance is known.
        balance = len(job.entries) - count
        return Change(count, job.rendered.entries, max(balance, 0), max(-balance, 0))
    added, removed = _difference(before, job.entries)
    return Change(count, job.rendered.entries, added, removed)


def _weekly_gate(config: Config, job: _Job, record: Record, selector: Selector) -> str | None:
    """Why the change since a week ago waits for a person, or None; what persons said since does not count."""
    assert job.entries is not None and job.rendered is not None
    week = weekly(record, job.export.name)
    if week is None or job.live is None or week.id == job.live.id or job.pin is not None:
        return None
    if _approved(record, job.export.name, job.rendered.body_digest):
        return None
    change = _change(job, record, week.id)
    if (reason := _too_much(config, job, change)) is None:
        return None
    if (old := selector.approved(job.export, job.fmt, week.id)) is not None:
        reason = _too_much(config, job, change.beyond(_entries(old[0]), job.entries))
    return f"since {week.published[:10]}, {reason}" if reason is not None else None


def _serial(job: _Job, record: Record) -> int:
    """Above every serial ever stored or in the file: after a step back all secondaries stay stale."""
    found = 0
    for _, path in job.paths if job.fmt.code == "rpz" else ():
        with suppress(OSError):
            if path.is_file():
                with path.open("rb") as file:
                    match = re.search(rb"\bSOA\s+\S+\s+\S+\s+\(?\s*([0-9]{1,10})\b", file.read(4096))
                found = max(found, int(match[1]) if match else 0)
    stored = record.connection.execute(
        "SELECT coalesce(max(serial), 0) FROM release WHERE export = ?", (job.export.name,)
    ).fetchone()[0]
    return max(int(clock.now().timestamp()), int(stored) + 1, found + 1)


def _gate(config: Config, job: _Job, record: Record, change: Change) -> str | None:
    """Why the release waits for a person, or None."""
    assert job.rendered is not None
    entries, export = job.rendered.entries, job.export
    if _approved(record, export.name, job.rendered.body_digest):
        return None
    if missing := _references_never_loaded(config, record):
        shown = ", ".join(missing) if len(missing) < 4 else f"{missing[0]} and {len(missing) - 1} more"
        return (
            f"the reference {shown} never loaded, so nothing tells a well-known name from a hostile one; "
            "mend or disable it"
        )
    if not change.any:
        return None
    if entries == 0 and not export.allow_empty:
        return (
            "nothing is left to block after filtering; an empty list blocks nothing (allow_empty = true to publish it)"
        )
    if change.after < export.min_entries:
        return f"{entries:,} entries, fewer than min_entries = {export.min_entries:,}"
    if job.pin is not None:
        return None  # a person chose this release, whatever it changes
    return _too_much(config, job, change)


def _too_much(config: Config, job: _Job, change: Change) -> str | None:
    """Does more than a share of the entries change?"""
    before = change.before
    if before is None or before < config.gates.min_size or not job.paths[0][1].exists():
        return None
    for count, what in ((change.removed, "removed"), (change.added, "added")):
        share = count / before
        if share > config.gates.max_change:
            return f"{count:,} of {before:,} entries would be {what}, {share:.0%} (limit {config.gates.max_change:.0%})"
    return None


def _references_never_loaded(config: Config, record: Record) -> list[str]:
    ids, loaded = record.feed_ids(), record.current_snapshots()
    return [
        feed.id
        for feed in config.feeds.values()
        if feed.is_reference and feed.action == "hold" and ids.get(feed.id) not in loaded
    ]


def _approved(record: Record, export: str, body_digest: str) -> bool:
    row = record.connection.execute(
        "SELECT 1 FROM release WHERE export = ? AND body_digest = ? AND state = 'held' "
        "AND note LIKE 'approved%' LIMIT 1",
        (export, body_digest),
    ).fetchone()
    return row is not None


def _entries(selection: Selection) -> pl.Series:
    """A number an entry (UInt64), for counting what came and went.

    A collision of hashes would be one in 10^7 releases, and a count off by one.
    """
    frames = (
        selection.domains.select("name", "subtree", "block"),
        selection.networks.select("direction", "cidr"),
        selection.urls.select("url"),
        selection.rows.select("indicator"),
    )
    return pl.concat([frame.hash_rows().alias("entry") for frame in frames])


def _entries_file(state: Path, release: int) -> Path:
    return state / "exports" / f"{release}.frames"


def _keep_entries(state: Path, release: int, entries: pl.Series) -> None:
    """A cache for the next difference, on disk before its release is live; without it only the balance is known."""
    derived.write(_entries_file(state, release), {"release": release}, {"entries": entries.to_frame()})


def _forget_entries(record: Record) -> None:
    """Remove what is kept of releases that nothing is compared with any more, and what a killed run left."""
    wanted = compared_with(record)
    derived.remove_others(record.state / "exports", {_entries_file(record.state, number).name for number in wanted})
    derived.remove_others(record.state / "approved", {approved.file_of(record.state, n).name for n in wanted})


def _files_of(record: Record, release: int) -> dict[str, str]:
    """The digests of the files of a release by category; of one that is not split, its own."""
    row = record.connection.execute("SELECT digest, files FROM release WHERE id = ?", (release,)).fetchone()
    if row is None:
        return {}
    return {"": row[0]} if row[1] is None else {file["category"]: file["digest"] for file in json.loads(row[1])}


def _wanted_bytes(record: Record, config: Config) -> set[str]:
    """Digests of the releases that were published in the time of `[keep] releases`, and of those that count now."""
    since = clock.text(clock.now() - timedelta(seconds=parse_duration(config.keep.releases)))
    rows = record.connection.execute(
        "SELECT digest, chosen, left_out, files FROM release WHERE state IN ('live', 'pending') OR published >= ? "
        "OR id IN (SELECT release FROM pin WHERE until IS NULL)",
        (since,),
    )
    wanted: set[str] = set()
    for digest, chosen, missing, files in rows:
        wanted |= {known for known in (digest, chosen, missing) if known is not None}
        wanted |= {file["digest"] for file in json.loads(files or "[]")}
    return wanted


def _entries_before(state: Path, release: int) -> pl.Series | None:
    kept = derived.read(_entries_file(state, release))
    return kept[1]["entries"]["entry"] if kept is not None and kept[0]["release"] == release else None


def _difference(before: pl.Series | None, now: pl.Series) -> tuple[int, int]:
    if before is None:
        return len(now), 0
    added = len(now) - int(now.is_in(before.implode()).sum())
    return added, len(before) - (len(now) - added)


def _record_releases(
    record: Record, jobs: Sequence[_Job], run: int | None, at: str, judged: str, config: Config, suffixes: str
) -> None:
    common = settings.common_of(config, suffixes)
    with record.transaction() as connection:
        number = run
        if number is None:
            number = record.begin_run(connection, at, "export", whoami(), __version__)
        for name in {job.export.name for job in jobs if job.rendered is not None and job.state != "failed"}:
            connection.execute("DELETE FROM release WHERE export = ? AND state = 'pending'", (name,))
        for job in jobs:
            if job.rendered is None or job.state == "failed":
                continue
            rendered, outcome = job.rendered, job.outcome
            # Another one that was published in between leaves this one the newest only when it is recorded again.
            if job.state == "held" and job.amended is None and _same_held(record, job):
                continue
            cursor = connection.execute(
                """
                INSERT INTO release (export, format, policy, path, run, revision, state, created, serial, digest,
                    body_digest, bytes, entries, added, removed, lost, inputs, checked, note, judged, chosen,
                    left_out, amends, files)
                VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
                """,
                (
                    job.export.name,
                    job.export.format,
                    job.export.policy,
                    str(job.path.absolute()),
                    number,
                    record.revision(),
                    job.state,
                    at,
                    outcome.serial,
                    rendered.digest,
                    rendered.body_digest,
                    rendered.size,
                    rendered.entries,
                    outcome.added,
                    outcome.removed,
                    json.dumps(outcome.lost, sort_keys=True),
                    job.inputs,
                    outcome.checked,
                    outcome.error or outcome.note,
                    judged,
                    job.chosen.digest if job.chosen is not None else None,
                    job.left_out.digest if job.left_out is not None else None,
                    job.amends,
                    msgspec.json.encode(job.candidate.files).decode()
                    if job.candidate is not None and job.export.split is not None
                    else None,
                ),
            )
            outcome.release = cursor.lastrowid
            assert cursor.lastrowid is not None
            own = settings.Own(export=job.export, policy=config.policies[job.export.policy], format=job.fmt)
            settings.note(connection, cursor.lastrowid, common, own)
            if job.state == "held" and outcome.plan is not None:
                connection.execute(
                    "INSERT INTO plan (release, plan) VALUES (?, ?)",
                    (outcome.release, msgspec.json.encode(outcome.plan).decode()),
                )
            if job.state == "held" and cursor.lastrowid is not None:
                _tell(record, connection, cursor.lastrowid, "release held")


def _same_held(record: Record, job: _Job) -> bool:
    """Is the newest release of this export the same one, still held? Then it is reported, not recorded again."""
    assert job.rendered is not None
    row = record.connection.execute(
        "SELECT id, state, body_digest FROM release WHERE export = ? ORDER BY id DESC LIMIT 1",
        (job.export.name,),
    ).fetchone()
    if row and row[1] == "held" and row[2] == job.rendered.body_digest:
        job.outcome.release = row[0]
        return True
    return False


def _make_live(record: Record, connection: sqlite3.Connection, number: int, export: str) -> None:
    connection.execute(
        # A held one that is newer waits on: this one only carries a person's rules.
        "UPDATE release SET state = 'superseded' WHERE export = ? AND state IN ('live', 'held') AND id <= ?",
        (export, number),
    )
    connection.execute(
        "UPDATE release SET state = 'live', published = ? WHERE id = ?", (clock.text(clock.now()), number)
    )
    _tell(record, connection, number, "release published")


def _tell(record: Record, connection: sqlite3.Connection, number: int, what: str) -> None:
    """An event of a release: which file it is, by its digest."""
    columns = ("run", "export", "format", "serial", "digest", "entries", "added", "removed", "note")
    row = connection.execute(f"SELECT {', '.join(columns)} FROM release WHERE id = ?", (number,)).fetchone()
    run, *told = row
    at = clock.text(clock.now())
    record.event(connection, at, run, what, whoami(), release=number, **dict(zip(columns[1:], told, strict=True)))


def _keep(job: _Job, record: Record, keeping: Keeping) -> None:
    """Begin to keep the files of a release and what it was chosen from, against those of the live one."""
    assert job.candidate is not None
    before = _files_of(record, job.live.id) if job.live is not None else {}
    places = dict(job.paths)
    for category, candidate, rendered in job.candidate.made:
        # What is in place lies there unpacked.
        keeping.keep(rendered.digest, candidate.new.read_bytes, before.get(category), places[category].read_bytes)
    if job.chosen is not None:
        last = record.connection.execute("SELECT chosen FROM release WHERE id = ?", (job.live.id,)) if job.live else ()
        keeping.keep_bytes(job.chosen, next((row[0] for row in last), None))
    if job.left_out is not None:
        keeping.keep_bytes(job.left_out)


def _publish(job: _Job, record: Record, selector: Selector, keeping: Keeping) -> None:
    assert job.candidate is not None and job.entries is not None and job.outcome.release is not None
    _keep_entries(record.state, job.outcome.release, job.entries)
    base = approved.file_of(record.state, job.outcome.release)
    if job.amends is not None and job.live is not None:
        derived.link(approved.file_of(record.state, job.live.id), base)
    else:
        selector.keep(job.export, base)
    for digest in [made.digest for _, _, made in job.candidate.made] + [
        some.digest for some in (job.chosen, job.left_out) if some is not None
    ]:
        keeping.wait(digest)
    job.candidate.publish()
    with record.transaction() as connection:
        _make_live(record, connection, job.outcome.release, job.export.name)


def _reload(job: _Job, record: Record, base: Path) -> None:
    """Load what is in place, if the export says how and it was not loaded yet."""
    export = job.export
    live = live_release(record, export.name)
    if live is not None and export.primary is not None:
        return _deliver(job, record, live, base)
    if not export.reload or live is None or live.reloaded is not None or job.outcome.outcome == "failed":
        return
    try:
        reload(export.reload, float(parse_duration(export.reload_timeout)), f"export {export.name}: reload")
    except ReleaseError as error:
        job.outcome.outcome = "failed"
        job.outcome.error, job.outcome.hint = error.message, error.hint
        return
    with record.transaction() as connection:
        connection.execute("UPDATE release SET reloaded = ? WHERE id = ?", (clock.text(clock.now()), live.id))
    job.outcome.note = (job.outcome.note + "; " if job.outcome.note else "") + "reloaded"


def _deliver(job: _Job, record: Record, live: Live, base: Path) -> None:
    """Have the primary serve what is in place; asked at every run, so that drift is found."""
    if job.outcome.outcome == "failed":
        return
    from blocklist.publish import delivery

    what = delivery.Consignment(job.export, job.fmt, Path(live.path), live.serial, base, record.state)
    try:
        note = delivery.deliver(what, loaded=live.reloaded is not None)
    except ReleaseError as error:
        job.outcome.outcome, job.outcome.error, job.outcome.hint = "failed", error.message, error.hint
        return
    if note is not None:
        with record.transaction() as connection:
            connection.execute("UPDATE release SET reloaded = ? WHERE id = ?", (clock.text(clock.now()), live.id))
        job.outcome.note = (job.outcome.note + "; " if job.outcome.note else "") + note


def render_once(selector: Selector, export: Export, fmt: Format, out: BinaryIO) -> tuple[Rendered, dict[str, int]]:
    """A one-off to a stream, no release kept."""
    selection, lost = selector.selection(export, fmt)
    serial = int(clock.now().timestamp())
    rendered = render(fmt, selection, {**export.options, "serial": serial}, out)
    return rendered, {k: v for k, v in {**lost, **rendered.lost}.items() if v}


__all__ = [
    "Current",
    "ExportOutcome",
    "Selector",
    "export_all",
    "live_release",
    "render_once",
]
