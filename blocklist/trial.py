"""A trial reading: what the bytes of a feed would become, by parser, gate and guards, with nothing recorded."""

from __future__ import annotations

import time
from dataclasses import dataclass

import polars as pl

from blocklist.catalog import Feed
from blocklist.config import Config
from blocklist.errors import BlocklistError, FeedError, FeedGated
from blocklist.ingest import gate, guard
from blocklist.ingest.intake import account_of
from blocklist.ingest.normalize import SCHEMA
from blocklist.ingest.parse import Parsed, parse, text_of
from blocklist.names import Reject
from blocklist.picture import Picture, protected_domains
from blocklist.select.current import current
from blocklist.shortage import shortage_of
from blocklist.store.database import open_for_reading, path_in
from blocklist.store.record import Record
from blocklist.suffixes import builtin_rules

_SHOWN = 300  # characters of a refused line
_SAYS_MOST = {"misp": b'"value":', "stix": b'"pattern":'}


@dataclass(frozen=True)
class Trial:
    """What was read, in `parsed`; `refused`: by reason, `(line, its text)` of the first few.

    `gate`: why an update would not make it current, and the way out. `before`: entries of the current snapshot, None
    without one. `holds`: a holds frame (`blocklist.ingest.guard`), empty for a reference feed.
    """

    feed: Feed
    size: int
    parsed: Parsed
    refused: dict[Reject, list[tuple[int, str]]]
    gate: str | None
    hint: str | None
    before: int | None
    holds: pl.DataFrame
    seconds: float

    @property
    def adds_up(self) -> bool:
        """Is every line accounted for?"""
        p = self.parsed
        return p.accepted + sum(p.rejects.values()) - p.extra + p.comments + p.blank == p.lines


def read(config: Config, feed: Feed, data: bytes, examples: int) -> Trial:
    """`data` as `feed` describes it, judged as an update would. Raises FeedError when it can't be read at all."""
    started = time.perf_counter()
    before, references = _known(config, feed)
    why = hint = None
    parsed = Parsed(pl.DataFrame(schema=SCHEMA), feed.input.name)
    try:
        parsed = parse(data, feed)
        gate.check(feed, parsed, before)
    except FeedGated as gated:
        why, hint = gated.message.removeprefix(f"{feed.id}: "), gated.hint
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        if shortage_of(error) is not None:
            raise  # that is no fault of the feed
        raise FeedError(f"{feed.id}: can't be read as {feed.input.name}: {str(error).splitlines()[0][:200]}") from error
    holds = pl.DataFrame(schema=guard.SCHEMA)
    if parsed.frame.height and not feed.is_reference:
        holds = guard.guard(current({1: parsed.frame}, {1: feed}, builtin_rules()), references)
    return Trial(
        feed=feed,
        size=len(data),
        parsed=parsed,
        refused=_refused_lines(data, parsed, examples),
        gate=why,
        hint=hint,
        before=before,
        holds=holds,
        seconds=time.perf_counter() - started,
    )


def account(trial: Trial) -> dict[str, object]:
    """The trial as plain values, for `--json`."""
    parsed = trial.parsed
    return {
        "feed": trial.feed.id,
        "bytes": trial.size,
        **account_of(parsed),
        "adds_up": trial.adds_up,
        "entries": parsed.frame.height,
        "entries_before": trial.before,
        "refused": {
            reason.value: [{"line": number, "text": text} for number, text in lines]
            for reason, lines in trial.refused.items()
        },
        "examples": parsed.frame.head(5)["name"].to_list() if parsed.frame.height else [],
        "gate": trial.gate,
        "hint": trial.hint,
        "held": dict(trial.holds.group_by("guard").len().sort("guard").iter_rows()),
        "parse_seconds": round(parsed.seconds, 3),
        "seconds": round(trial.seconds, 3),
    }


def _known(config: Config, feed: Feed) -> tuple[int | None, guard.References]:
    """Entries of the feed's current snapshot, and what guards compare with; from the record where there is one."""
    suffixes = builtin_rules()
    own = guard.references({}, {}, suffixes, protected_domains(config), config.protected_networks)
    if not path_in(config.state).exists():
        return None, own
    try:
        record = Record(config.state, open_for_reading(config.state), None)
    except BlocklistError:
        return None, own  # a trial needs no record; `doctor` and `update` say what is wrong with it
    try:
        number = record.feed_ids().get(feed.id)
        now = record.current_snapshots().get(number) if number is not None else None
        return (now.entries if now else None), Picture(config, record, suffixes).references()
    finally:
        record.connection.close()


def _refused_lines(data: bytes, parsed: Parsed, examples: int) -> dict[Reject, list[tuple[int, str]]]:
    """The text of the first refused lines of each reason, by the most frequent reason first."""
    wanted = {reason: sorted(set(numbers))[:examples] for reason, numbers in parsed.rejects.lines.items()}
    numbers = sorted({number for some in wanted.values() for number in some})
    if not numbers:
        return {}
    texts: dict[int, str] = {}
    at, line = 0, 1
    raw = text_of(data)
    for number in numbers:
        while line < number and at >= 0:
            at = raw.find(b"\n", at) + 1 or -1
            line += 1
        if at < 0:
            break
        end = raw.find(b"\n", at)
        texts[number] = _shown(raw[at : end if end >= 0 else len(raw)], parsed.format)
    order = sorted(wanted, key=lambda reason: (-parsed.rejects[reason], reason.value))
    return {reason: [(n, texts.get(n, "")) for n in wanted[reason]] for reason in order if wanted[reason]}


def _shown(line: bytes, format_name: str) -> str:
    """A line, or what of a long one says most: in a document with an item a line, from its value on."""
    key = _SAYS_MOST.get(format_name)
    before = ""
    if key is not None and len(line) > _SHOWN and line.count(key) == 1:
        at = line.index(key)
        before, line = "…" if at else "", line[at:]
    text = line[: 4 * _SHOWN].decode(errors="replace").strip()
    return before + (text if len(text) <= _SHOWN else text[:_SHOWN] + "…")
