"""What an export of a run becomes: rendered, compared, gated and checked, up to a sealed file beside the published one.

Nothing is recorded or renamed here; `blocklist.publish.release` does that when all exports are prepared.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO

import polars as pl
from msgspec.structs import replace

from blocklist import clock
from blocklist.config import REASONS, Config, Export
from blocklist.errors import RecordError
from blocklist.publish import capacity, left_out, reasons, rpz, split, standing
from blocklist.publish.check import check
from blocklist.publish.descriptor import Format
from blocklist.publish.entries import change_of, comes_from, keep_entries
from blocklist.publish.file import Candidate, leftovers
from blocklist.publish.job import ExportOutcome, Job
from blocklist.publish.keeping import Keeping
from blocklist.publish.plan import Wait
from blocklist.publish.recorded import files_of
from blocklist.publish.release_gate import gate, weekly_gate
from blocklist.publish.render import Rendered, render, written
from blocklist.publish.rewrite import rewritten
from blocklist.publish.seen import Seen
from blocklist.publish.selection import Selection
from blocklist.publish.selector import Selector
from blocklist.publish.zone_options import longest_of_split
from blocklist.store import kept
from blocklist.store.record import Record

# What a person can do about a list that is longer than its target takes.
_TOO_MUCH = (
    "narrow the policy (fewer categories or feeds, a higher min_confidence)",
    'keep the best entries with fit = "rank"',
    "if the device takes more, say so with model, max_entries or max_bytes",
)


def prepare(
    job: Job, config: Config, selector: Selector, record: Record, stack: ExitStack, keeping: Keeping | None
) -> None:
    """Render, compare, gate and check; leaves a sealed candidate when there is something to publish.

    `keeping` begins to keep it beside the preparing of others; None is a dry run.
    """
    dry_run = keeping is None
    live, outcome, export = job.live, job.outcome, job.export
    for stray in [stray for _, path in job.paths for stray in leftovers(path)]:
        stray.unlink(missing_ok=True)
    job.seen = {category: Seen.of(path) for category, path in job.paths} if live else {}
    in_place = standing.in_place(job.paths, selector.file_digest) if live else None
    if live is None or in_place != live.digest:
        job.seen = {}
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
        outcome.outcome, outcome.entries = "shadow", len(selection.entries())
        outcome.lost = {k: v for k, v in sorted(lost.items()) if v}
        stays = f"; release {live.id} stays in place" if live is not None else ""
        outcome.note = f"the policy {export.policy} is in shadow mode: decided, not written{stays}"
        return
    left = [held] if (held := selector.held_back(export)) is not None and held.height else []
    job.origin, whole = selector.origin(export, job.fmt), selection
    job.token = None if job.fmt.of_rows else selector.token(export)
    selection, excess = _render(job, config, record, selector, stack, selection, lost, left, least)
    assert job.rendered is not None
    rendered = job.rendered
    if excess is None and live is not None and rendered.body_digest == live.body_digest and in_place == live.digest:
        outcome.entries, outcome.serial = live.entries, live.serial
        job.same_body, job.candidate, job.rendered = True, None, None
        job.left_out = _left_out_too(record, live.id, left)
        return
    if live is not None and in_place != live.digest:
        how = "missing" if in_place is None else "edited by hand"
        how = f"the published file was {how}; written again"
        if ahead:
            how = f"the primary serves a later serial, {served}; written again above it"
        outcome.add_note(how)
    job.selection = selection
    if selection is not whole:
        job.origin = None  # not all that was decided
    change = change_of(job, record, live.id if live else None)
    outcome.added, outcome.removed = change.added, change.removed
    outcome.release = None
    old = None
    if excess is not None:
        wait: Wait | None = Wait(f"{excess}; no approval changes that", _TOO_MUCH)
    else:
        wait = gate(config, job, record, change)
        if wait is None and live is not None:
            wait = weekly_gate(config, job, record, selector)
        if wait is not None and live is not None and (old := selector.approved(export, job.fmt, live.id)) is not None:
            # What a person said since does not count.
            beyond = change.beyond(old[0].entries(), job.entries)
            wait = gate(config, job, record, beyond) if beyond.any else None
            wait = wait or (weekly_gate(config, job, record, selector) if beyond.any else None)
    if live is not None and old is None and (wait is not None or dry_run):
        old = selector.approved(export, job.fmt, live.id)
    if wait is not None:
        job.state, outcome.outcome, outcome.error = "held", "held", wait.reason
        outcome.hint = "; ".join(wait.ways) or (
            f"see 'blocklist export {export.name} --dry-run', publish with 'blocklist release approve {export.name}'"
        )
        if live is not None:
            _amend(job, config, record, selector, stack, old, least)
    if wait is not None or dry_run:
        counts = (live.entries if live else None, outcome.entries, outcome.added, outcome.removed)
        outcome.plan = selector.plan(job, selection, old[0] if old else None, counts, wait)
    if wait is not None:
        return
    _check(job, record, keeping)
    job.chosen = selector.text(export, job.fmt, live.id if live else None)
    if left:
        job.left_out = kept.Bytes.of(left_out.text(pl.concat(left)))
    if keeping is not None:
        keep(job, record, keeping)


def _floor(job: Job, base: Path) -> tuple[int, int, bool]:
    """The serial that the primary serves, the least that a new release may have, and is it ahead of the live one?"""
    if job.export.primary is None:
        return 0, 0, False
    # Not imported with this module: dnspython takes a tenth of the time that a run without news has.
    from blocklist.publish import delivery
    from blocklist.publish.delivery.zone import later

    categories = [category for category, _ in job.paths if category != REASONS]
    served, least = delivery.floor(job.export, job.fmt, base, categories)
    return served, least, job.live is not None and later(served, job.live.serial)


def _left_out_too(record: Record, release: int, left: Sequence[pl.DataFrame]) -> kept.Bytes | None:
    """What `release` left out, with what was `left` of what made the same file now; None where that is nothing new."""
    (digest,) = record.connection.execute("SELECT left_out FROM release WHERE id = ?", (release,)).fetchone()
    if digest is None and not left:
        return None
    try:
        before = kept.read(record.state, digest) if digest is not None else b""
    except RecordError:
        before = b""
    none = pl.DataFrame(schema={"name": pl.String, "why": pl.String})
    made = kept.Bytes.of(left_out.also(before, pl.concat([none, *left])))
    return made if made.digest != digest else None


def _render(
    job: Job,
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
    outcome.serial = serial = _serial(job, record, least)
    if not job.path.parent.is_dir() and config.path is None:
        job.path.parent.mkdir(parents=True, exist_ok=True)
    if job.live is not None and (behind := set(files_of(record, job.live.id)) - {c for c, _ in job.paths} - {""}):
        files = ", ".join(split.path_of(job.path, category).name for category in sorted(behind))
        outcome.add_note(f"{files} is written no more: remove it")
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
            if job.fmt.of_rows:
                left.append(capacity.in_pieces(selector.listed(export), selection))
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
    job: Job, selector: Selector, record: Record, category: str, selection: Selection, serial: int, out: BinaryIO
) -> tuple[Selection, pl.DataFrame, Rendered, str | None]:
    """Write what of `selection` the target takes: that, what was cut (`name`, `why`), and what is too much still."""
    export = job.export
    fmt, limits = capacity.unlimited(job.fmt), capacity.limits(export, job.fmt)
    options = split.options(job.fmt, {**export.options, "serial": serial}, category)
    lost: Counter[str] = Counter()
    if category and fmt.code == "rpz":
        origin = str(fmt.settle({**export.options, "serial": serial})["origin"])
        selection = rpz.within(selection, longest_of_split(origin), lost)

    def rendering(some: Selection, to: BinaryIO) -> Rendered:
        made = render(fmt, some, options, to)
        return replace(made, lost=dict(sorted((lost + Counter(made.lost)).items())))

    rendered = (_rewritten(job, record, fmt, selection, options, out) if not category else None) or rendering(
        selection, out
    )
    excess = limits.excess(rendered)
    if excess is not None and export.fit == "rank":
        ranks = capacity.ranked(selector.listed(export), selection, record, selector.rules)
        fitted = capacity.fit(selection, ranks, limits, rendered, rendering)
        if fitted is not None:
            out.seek(0)
            out.truncate()
            return fitted.selection, fitted.cut, rendering(fitted.selection, out), None
    return selection, pl.DataFrame(schema={"name": pl.String, "why": pl.String}), rendered, excess


def _rewritten(
    job: Job, record: Record, fmt: Format, selection: Selection, options: Mapping[str, object], out: BinaryIO
) -> Rendered | None:
    """Write `selection` from the file in place, if that is the live one and it is known how the two differ."""
    live, (_, path), seen = job.live, job.paths[0], job.seen.get("")
    if live is None or seen is None or job.origin is None or job.origin.step is None or not comes_from(job, record):
        return None
    if seen.size > kept.MOST_PATCHED:
        return None  # one that large is never in memory as a whole
    try:
        old = path.read_bytes()
    except OSError:
        return None
    # Still what it was when its digest was found to be that of the live release?
    if Seen.of(path) != seen:
        return None
    made = rewritten(fmt, selection, options, job.origin.step, old, live.serial, out)
    if made is None:
        return None
    job.splice = made[1]
    return made[0]


def _check(job: Job, record: Record, keeping: Keeping | None) -> None:
    """Seal the candidate and check it; `keeping` begins to keep it, and the disk to take it, meanwhile."""
    assert job.candidate is not None and job.rendered is not None
    sealed = list(job.candidate.seal())
    with ThreadPoolExecutor(1, "synced") as syncing:
        synced = syncing.submit(job.candidate.sync)
        if keeping is not None:
            keep(job, record, keeping)
        for category, file, wrote in sealed:
            if category != REASONS:
                options = split.options(job.fmt, {**job.export.options, "serial": job.outcome.serial}, category)
                checked = check(job.fmt, file, wrote, options, job.export.check)
                job.outcome.checked = checked.by if not checked.detail else f"{checked.by} ({checked.detail})"
    synced.result()
    if job.export.split is not None:
        files, whole = len(job.candidate.made) - 1, job.rendered
        job.outcome.checked = f"{checked.by} ({files} files, {whole.lines:,} lines, {whole.size:,} bytes)"
    job.outcome.outcome = "published"


def _amend(
    job: Job,
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
        other = Job(job.export, job.fmt, job.path, "", live, made, amends=live.amends or live.id)
        other.paths = job.paths
        left: list[pl.DataFrame] = []
        selection, excess = _render(other, config, record, selector, stack, *old, left, least)
        assert other.rendered is not None
        if excess is None:
            if other.rendered.body_digest == live.body_digest and (
                standing.in_place(job.paths, standing.file_digest) == live.digest
            ):
                return
            other.selection = selection
            change = change_of(other, record, live.id)
            made.added, made.removed = change.added, change.removed
            made.note = "the last approved list with the rules of now"
            _check(other, record, None)
            other.chosen = selector.approved_text(job.export, job.fmt, live.id)
            if left:
                other.left_out = kept.Bytes.of(left_out.text(pl.concat(left)))
            job.amended = other
            return
        wait = f"with them the live release would be too much: {excess}"
    outcome.add_note(f"{wait}, so that new rules wait with this one")


def _serial(job: Job, record: Record, least: int) -> int:
    """The time, or one above the last: every one stored, in the file or below `least`.

    After a step back all secondaries stay stale, and what is 2**31 or more ahead of the last one, or beyond 32 bits, is
    a step back to them (RFC 1982 §3.2). So a clock of 2106 and later publishes too.
    """
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
    last = max(int(stored), found, least - 1)
    furthest = min(last + 2**31 if last else 2**32, 2**32) - 1
    now = int(clock.now().timestamp())
    return now if last < now <= furthest else last + 1


def keep(job: Job, record: Record, keeping: Keeping) -> None:
    """Begin to keep the files of a release and what it was chosen from, against those of the live one, if not begun.

    What is kept of a run that ends before its releases are recorded, the next one removes.
    """
    assert job.candidate is not None
    before = files_of(record, job.live.id) if job.live is not None else {}
    places = dict(job.paths)
    for category, candidate, rendered in job.candidate.made:
        # What is in place lies there unpacked.
        base, seen = before.get(category), job.seen.get(category)
        keeping.keep_file(rendered.digest, candidate.new, base, places[category], seen, job.splice)
    if job.chosen is not None:
        last = record.connection.execute("SELECT chosen FROM release WHERE id = ?", (job.live.id,)) if job.live else ()
        keeping.keep(job.chosen, next((row[0] for row in last), None))
    if job.left_out is not None:
        keeping.keep(job.left_out)
    keeping.begin(entries_key(job), partial(keep_entries, job, record))


def entries_key(job: Job) -> str:
    assert job.rendered is not None
    return f"entries of {job.export.name}, {job.rendered.digest}"
