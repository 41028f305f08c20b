"""Exports of one run: rendered from one revision, all checked, then recorded, renamed, loaded.

A release is `pending` in the record before its file is renamed and `live` after, so that a run that was killed
between the two is recognised by its digest and finished by the next.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import msgspec

from blocklist import clock
from blocklist.config import REASONS, Config, Export, Policy
from blocklist.errors import BlocklistError, RecordError, ReleaseError
from blocklist.picture import Picture
from blocklist.publish import approved, failures, settings, split
from blocklist.publish.command import end_all
from blocklist.publish.descriptor import Format
from blocklist.publish.early import Early
from blocklist.publish.entries import forget_entries, place_entries
from blocklist.publish.file import refusal, reload
from blocklist.publish.job import ExportOutcome, Job, Live
from blocklist.publish.keeping import Keeping
from blocklist.publish.prepare import entries_key, keep, prepare
from blocklist.publish.recorded import live_release, make_live, record_releases, recover, renew, wanted_bytes
from blocklist.publish.rollback import Pin
from blocklist.publish.seen import Seen
from blocklist.publish.selector import Selector
from blocklist.quantities import parse_duration
from blocklist.rules import Rule, rules_in_force
from blocklist.select.express import Capability
from blocklist.shortage import shortage_of
from blocklist.store import derived, kept
from blocklist.store.record import Record

# Exports that are prepared at once: one that waits for what another one makes must not stand in the way of a third.
_SIDE_BY_SIDE = 3


def export_all(
    config: Config,
    record: Record,
    picture: Picture,
    formats: Mapping[str, Format],
    *,
    only: Collection[str] = (),
    run: int | None = None,
    dry_run: bool = False,
    load_again: bool = False,
    early: Early | None = None,
) -> list[ExportOutcome]:
    """Publish the configured exports whose content changed. Failures are outcomes, one export's never another's.

    `load_again`: also load what is in place and was loaded before, as an engine needs that lost it. `early`: what was
    begun while the record was written.
    """
    now = clock.now()
    rules = rules_in_force(record.connection, now)
    selector = Selector(picture, record, config.policies, rules, keep=not dry_run, config=config, early=early)
    shared = _shared_inputs(config, record, picture, rules)
    judged = clock.text(picture.at)
    recover(record)
    jobs: list[Job] = []
    with ExitStack() as stack:
        stack.callback(selector.decided.finish, _asked(config, formats))
        if not dry_run:
            stack.push(partial(_forget_unrecorded, config, record))
        keeping = None if dry_run else stack.enter_context(Keeping(record.state, early.ahead if early else None))
        for export in config.exports.values():
            if only and export.name not in only:
                continue
            fmt = formats[export.format]
            job = Job(
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
        with ThreadPoolExecutor(_SIDE_BY_SIDE, "export") as pool:
            # The longest first, so that it is not alone at the end.
            turns = sorted(jobs, key=_size, reverse=True)
            futures = [pool.submit(_prepared, job, config, selector, record, stack, keeping) for job in turns]
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
        if keeping is None:
            return [job.outcome for job in jobs]
        renewed = [job for job in jobs if job.same_body and job.left_out is not None]
        for job in renewed:
            assert job.left_out is not None
            keeping.keep(job.left_out)
            try:
                keeping.wait(job.left_out.digest)
            except Exception as error:
                job.same_body = False
                _failed(job, error)
        renew(record, jobs)
        # What a person said goes out before what is held, so that the held release stays the newest.
        every = [one for job in jobs for one in (job.amended, job) if one is not None]
        ready = [job for job in every if job.candidate is not None and job.state == "pending"]
        if any(job.state == "held" for job in every) or ready:
            record_releases(record, every, run, clock.text(now), judged, config, picture.suffix_digest)
        for job in ready:
            keep(job, record, keeping)
        for job in ready:
            started = time.perf_counter()
            try:
                _publish(job, record, selector, keeping)
            except Exception as error:
                _failed(job, error)
            job.outcome.seconds += time.perf_counter() - started
        for job in jobs:
            _tell_amended(job)
        if ready:
            forget_entries(record)
        if ready or renewed or any(job.state == "failed" for job in every):
            keeping.settle()
            kept.forget_others(record.state, wanted_bytes(record, config))
        for job in jobs:
            try:
                _reload(job, record, config.base, load_again)
            except Exception as error:
                _failed(job, error)
        _note_failures(record, [job.outcome for job in jobs], config.exports, run)
    return [job.outcome for job in jobs]


def _size(job: Job) -> int:
    """Bytes of the files that are in place."""
    return sum(seen.size for _, path in job.paths if (seen := Seen.of(path)) is not None)


def _forget_unrecorded(
    config: Config, record: Record, kind: type[BaseException] | None, error: BaseException | None, trace: object
) -> None:
    """Where a run was ended, what it kept of releases that it did not come to record goes."""
    if error is not None:
        with suppress(BlocklistError, OSError):
            kept.forget_others(record.state, wanted_bytes(record, config))


def _asked(config: Config, formats: Mapping[str, Format]) -> set[tuple[str, Capability | None]]:
    """The policies of all exports, and what their formats can say."""
    asked: set[tuple[str, Capability | None]] = {(export.policy, None) for export in config.exports.values()}
    for export in config.exports.values():
        fmt = formats[export.format]
        if fmt.takes_subtree or fmt.takes_exact:
            for allow in (True, False):
                asked.add((export.policy, Capability(fmt.takes_subtree, fmt.takes_exact, allow, fold=fmt.fold)))
    return asked


def _shared_inputs(config: Config, record: Record, picture: Picture, rules: Sequence[Rule]) -> list[object]:
    # Feeds and `[protect]` count as they are configured now, which no update may have seen yet.
    made_by = msgspec.to_builtins(settings.common_of(config, picture.suffix_digest))
    shared: list[object] = [made_by, record.revision(), [r.id for r in rules]]
    # Only what ended since the last update: what it judged itself is in the revision.
    return [*shared, lapsed] if (lapsed := picture.lapsed()) else shared


def _inputs(shared: list[object], export: Export, fmt: Format, policy: Policy, pin: Pin | None) -> str:
    parts = [shared, msgspec.to_builtins([fmt, policy, export.options, export.kinds, export.path])]
    parts += [export.max_entries, export.max_bytes, export.model, export.fit, export.split]
    if pin is not None:
        parts.append([pin.id, pin.release])
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _prepared(
    job: Job, config: Config, selector: Selector, record: Record, stack: ExitStack, keeping: Keeping | None
) -> None:
    """`prepare`; what it raises is the outcome of this export."""
    started = time.perf_counter()
    try:
        prepare(job, config, selector, record, stack, keeping)
    except Exception as error:
        job.state = "failed"
        _failed(job, error)
    job.outcome.seconds = time.perf_counter() - started


def _failed(job: Job, error: Exception) -> None:
    """What `error` says is the outcome of this export: no mistake, even one of ours, costs the others their list."""
    told: BlocklistError
    if isinstance(error, BlocklistError):
        told = error
    elif isinstance(error, OSError):
        told = refusal(job.path, job.path.parent, error)
    elif shortage_of(error) is not None:
        raise error  # the others would have no more of it
    else:
        logging.getLogger(__name__).debug("export %s", job.export.name, exc_info=True)
        told = ReleaseError(
            f"unexpected {type(error).__name__}: {str(error)[:200]}",
            hint=f"this is a bug; please report what 'blocklist --debug export {job.export.name}' prints",
        )
    job.outcome.outcome = "failed"
    job.outcome.error, job.outcome.hint = told.message, told.hint


def _note_failures(record: Record, outcomes: Sequence[ExportOutcome], names: Collection[str], run: int | None) -> None:
    """What failed, for those who look later; where the record takes no note, the outcomes are told all the same."""
    try:
        failures.note(record, outcomes, names, run)
    except RecordError as error:
        for outcome in outcomes:
            if outcome.outcome == "failed":
                outcome.add_note(f"'blocklist status' will not tell: {error.message}")


def _tell_amended(job: Job) -> None:
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
    outcome.add_note(said)


def _publish(job: Job, record: Record, selector: Selector, keeping: Keeping) -> None:
    assert job.candidate is not None and job.outcome.release is not None
    base = approved.file_of(record.state, job.outcome.release)
    if job.amends is not None and job.live is not None:
        derived.link_with_base(approved.file_of(record.state, job.live.id), base)
    else:
        selector.keep(job.export, base)
    for digest in [made.digest for _, _, made in job.candidate.made] + [
        some.digest for some in (job.chosen, job.left_out) if some is not None
    ]:
        keeping.wait(digest)
    keeping.wait(entries_key(job))
    place_entries(job, record)
    job.candidate.publish()
    with record.transaction() as connection:
        make_live(record, connection, job.outcome.release, job.export.name)


def _reload(job: Job, record: Record, base: Path, again: bool) -> None:
    """Load what is in place, if the export says how and it was not loaded yet or is to be loaded `again`."""
    export = job.export
    live = live_release(record, export.name)
    if live is not None and export.primary is not None:
        return _deliver(job, record, live, base)
    if not export.reload or live is None or job.outcome.outcome == "failed":
        return
    if live.reloaded is not None and not again:
        return
    try:
        reload(export.reload, float(parse_duration(export.reload_timeout)), f"export {export.name}: reload")
    except ReleaseError as error:
        job.outcome.outcome = "failed"
        job.outcome.error, job.outcome.hint = error.message, error.hint
        return
    with record.transaction() as connection:
        connection.execute("UPDATE release SET reloaded = ? WHERE id = ?", (clock.text(clock.now()), live.id))
    job.outcome.add_note("reloaded")


def _deliver(job: Job, record: Record, live: Live, base: Path) -> None:
    """Have the primary serve what is in place; asked at every run, so that drift is found."""
    if job.outcome.outcome == "failed":
        return
    from blocklist.publish import delivery

    places = [(c, path) for c, path in split.places(record.connection, live.id) if c != REASONS]
    parts = [delivery.Consignment(job.export, job.fmt, path, live.serial, base, record.state, c) for c, path in places]
    try:
        note = delivery.deliver_all(parts, loaded=live.reloaded is not None)
    except ReleaseError as error:
        job.outcome.outcome, job.outcome.error, job.outcome.hint = "failed", error.message, error.hint
        return
    if note is not None:
        with record.transaction() as connection:
            connection.execute("UPDATE release SET reloaded = ? WHERE id = ?", (clock.text(clock.now()), live.id))
        job.outcome.add_note(note)
