"""`blocklist feeds`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from blocklist.catalog import SCHEMES, Feed, FormatName
from blocklist.cli import complete, feeds_choose, feeds_list, feeds_overlap, feeds_rollback, shapes
from blocklist.cli.screen import ListingGroup, Screen, moment, number, safe, shared_options
from blocklist.cli.setup import configuration
from blocklist.config import Config
from blocklist.decode import nearest

if TYPE_CHECKING:
    from blocklist.store.feed_pins import FeedPin
    from blocklist.trial import Trial


@click.group("feeds", cls=ListingGroup)
def command() -> None:
    """Sources: what the catalogue knows, what each brought, and a trial of a new one.

    \b
    Examples:
      blocklist feeds
      blocklist feeds sets
      blocklist feeds enable set:attack
      blocklist feeds show cert-pl
      blocklist feeds test downloaded.txt
      blocklist feeds overlap
      blocklist feeds rollback cert-pl --reason "it was taken over"
    """


command.add_command(feeds_list.listing)
command.add_command(feeds_list.sets)
command.add_command(feeds_choose.enable)
command.add_command(feeds_choose.disable)
command.add_command(feeds_overlap.command)
command.add_command(feeds_rollback.rollback)
command.add_command(feeds_rollback.unpin)


@command.command("show")
@click.argument("feed", shell_complete=complete.feeds)
@click.option("--gated", is_flag=True, help="The snapshot that waits at the gate: why, and its first lines.")
@click.option(
    "--snapshot",
    "number",
    type=click.IntRange(1),
    metavar="N",
    shell_complete=complete.snapshots,
    help="With -o: an earlier download.",
)
@click.option("--all", "every", is_flag=True, help="All its downloads, a line each: what it can be rolled back to.")
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="Write the bytes of either to this file.")
@shared_options
def show(screen: Screen, feed: str, gated: bool, number: int | None, every: bool, output: str | None) -> int:
    """One feed: its facts, its state, and what became of every line of its snapshots.

    \b
    Examples:
      blocklist feeds show cert-pl
      blocklist feeds show cert-pl --all
      blocklist feeds show openphish --gated -o suspect.txt
      blocklist feeds show openphish --snapshot 15 -o last-good.txt
    """
    config, _ = configuration(screen)
    if feed not in config.catalog:
        raise click.UsageError(f"no feed {feed!r}{nearest(feed, config.catalog)}")
    if (output is not None and not gated and number is None) or (gated and number is not None):
        raise click.UsageError("-o goes with --gated or --snapshot")
    if number is not None and output is None:
        raise click.UsageError("--snapshot needs -o FILE")
    if every:
        if gated or number is not None:
            raise click.UsageError("--all lists every download; leave out --gated and --snapshot")
        return _list_snapshots(screen, config, feed)
    if gated:
        return _show_gated(screen, config, feed, output)
    if number is not None and output is not None:
        return _write_snapshot(screen, config, feed, number, output)
    import msgspec

    facts: dict[str, Any] = msgspec.to_builtins(config.catalog[feed])
    snapshots = _snapshots(config, feed)
    state, pin = _state(config, feed), _pin(config, feed)
    on = {"enabled_here": feed in config.feeds, "pinned": shapes.feed_pin(pin)}
    screen.json({**facts, **on, **state, "snapshots": snapshots})
    for key, value in facts.items():
        screen.line(f"{key:15} {safe(_fact(value))}")
    if state["outcome"] is not None:
        error = f": {state['error']}" if state["error"] else ""
        screen.line(f"{'outcome':15} {safe(state['outcome'] + error)}")
        for key, at in (("asked", "checked"), ("changed", "changed")):
            screen.line(f"{key:15} {moment(state[at])}")
    if pin is not None:
        screen.line(f"{'stands still':15} {safe(pin.said)}")
    for s in snapshots:
        screen.line(f"\nsnapshot {s['id']} ({s['state']}) of {moment(s['fetched'])}, sha256 {s['sha256']}")
        account = s["account"]
        screen.line(
            f"  {s['bytes']:,} bytes read as {account['format']}: {account['lines']:,} lines = "
            + ", ".join(f"{n:,} {k}" for k, n in account["indicators"].items())
            + f", {account['comments']:,} comments, {account['blank']:,} blank"
        )
        if account.get("why"):
            screen.line(f"  chosen because: {safe(account['why'])}")
        for reason, count in account["rejects"].items():
            screen.line(f"  refused: {count:,} {reason}")
        for note, count in account.get("notes", {}).items():
            screen.line(f"  kept without: {count:,} {note}")
        if s["gate"]:
            waits = s["state"] == "gated"
            screen.line(f"  {'waits' if waits else 'came to the gate'}: {safe(s['gate'])}")
            if waits:
                screen.line(f"  {_way_in(feed, pin)}")
    return 0


def _way_in(feed: str, pin: FeedPin | None) -> str:
    """How what waits is let in."""
    if pin is None:
        return f"accept it with 'blocklist update --accept {feed}'"
    return f"'blocklist feeds unpin {feed} --reason … --dry-run' shows what it would change"


def _pin(config: Config, feed: str) -> FeedPin | None:
    """What the feed stands at, where a person put it back."""
    from blocklist.store.database import is_there, reading
    from blocklist.store.feed_pins import feed_pins

    if not is_there(config.state):
        return None
    with reading(config.state) as db:
        return feed_pins(db).get(feed)


def _list_snapshots(screen: Screen, config: Config, feed: str) -> int:
    """Every download of a feed, the newest first: was it taken in, how large, and is it kept?"""
    from blocklist.store.database import is_there, reading

    rows: list[tuple[Any, ...]] = []
    if is_there(config.state):
        with reading(config.state) as db:
            rows = db.execute(
                "SELECT s.id, s.state, s.gate IS NULL, s.fetched, s.entries, s.bytes, s.stored > 0, s.sha256, s.gate "
                "FROM snapshot s JOIN feed f ON f.id = s.feed WHERE f.name = ? ORDER BY s.id DESC",
                (feed,),
            ).fetchall()
    keys = ("id", "state", "taken_in", "fetched", "entries", "bytes", "kept", "sha256", "gate")
    found = [dict(zip(keys, (*r[:2], bool(r[2]), *r[3:6], bool(r[6]), *r[7:]), strict=True)) for r in rows]
    screen.objects(found)
    pin = _pin(config, feed)
    screen.json({"feed": feed, "snapshots": len(found), "pinned": shapes.feed_pin(pin)})
    screen.table(
        ("snapshot", "state", "fetched", "entries", "bytes", "sha256", ""),
        [
            (
                s["id"],
                s["state"],
                moment(s["fetched"]),
                number(s["entries"]),
                number(s["bytes"]),
                s["sha256"][:12],
                "; ".join(
                    filter(
                        None,
                        (
                            "the feed stands at it" if pin is not None and pin.snapshot == s["id"] else "",
                            "" if s["kept"] else "bytes are pruned",
                            s["gate"] and f"not taken in: {s['gate']}",
                        ),
                    )
                ),
            )
            for s in found
        ],
        right=(0, 3, 4),
    )
    if not found:
        screen.line(f"nothing was ever fetched from {feed}")
    taken = [s["id"] for s in found if s["taken_in"]]
    if len(taken) > 1:
        screen.line(f"what one of them changed: blocklist diff --feed {feed} {taken[1]} {taken[0]} --names")
    return 0


def _fact(value: object) -> str:
    """A key's value as the configuration writes it, but for the marks of a bare text."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_inner(inner)}" for key, inner in value.items()) + " }"
    return value if isinstance(value, str) else _inner(value)


def _inner(value: object) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(_inner, value)) + "]"
    return _fact(value) if isinstance(value, dict) else json.dumps(value, ensure_ascii=False)


def _state(config: Config, feed: str) -> dict[str, Any]:
    """How the last run went for a feed; None for each when none was."""
    from blocklist.store.database import is_there, reading

    names = ("outcome", "error", "checked", "changed")
    if not is_there(config.state):
        return dict.fromkeys(names)
    with reading(config.state) as db:
        row = db.execute(f"SELECT {', '.join(names)} FROM feed WHERE name = ?", (feed,)).fetchone()
    return dict(zip(names, row, strict=True)) if row is not None else dict.fromkeys(names)


def _show_gated(screen: Screen, config: Config, feed: str, output: str | None) -> int:
    """What waits for a person: the reason, the counts beside those of the current snapshot, the first lines."""
    from blocklist.errors import FeedError
    from blocklist.store.database import reading

    found = _snapshots(config, feed)
    waiting = next((s for s in found if s["state"] == "gated"), None)
    if waiting is None:
        raise FeedError(f"{feed}: no snapshot waits at its gate", hint="'blocklist status' lists those that are gated")
    data = _bytes_of(config, waiting["id"], waiting["sha256"])
    with reading(config.state) as db:
        current = db.execute(
            "SELECT s.entries, s.fetched FROM snapshot s JOIN feed f ON f.id = s.feed "
            "WHERE f.name = ? AND s.state = 'current'",
            (feed,),
        ).fetchone()
    if output is not None:
        _put(output, data)
    lines = [line.decode("utf-8", "replace")[:120] for line in data[:65_536].splitlines()[:20]]
    screen.json({**waiting, "current_entries": current and current[0], "first_lines": lines})
    screen.line(f"{feed}: {safe(waiting['gate'])}")
    screen.line(f"fetched {moment(waiting['fetched'])} from {safe(waiting['url'])}, {waiting['bytes']:,} bytes")
    counts = f"{waiting['entries']:,} entries"
    screen.line(counts + (f"; the current one of {moment(current[1])} has {current[0]:,}" if current else ""))
    for line in lines:
        screen.line(f"  | {safe(line)}")
    screen.line(f"written to {output}" if output else f"all of it: blocklist feeds show {feed} --gated -o FILE")
    screen.line(_way_in(feed, _pin(config, feed)))
    return 0


def _write_snapshot(screen: Screen, config: Config, feed: str, number: int, output: str) -> int:
    """The bytes of a download of `feed`, to a file: a last good list that a feed can be read from for a while."""
    from blocklist.errors import FeedError
    from blocklist.store.database import is_there, reading

    row = None
    if is_there(config.state):
        with reading(config.state) as db:
            row = db.execute(
                "SELECT s.sha256, s.bytes, s.fetched FROM snapshot s JOIN feed f ON f.id = s.feed "
                "WHERE f.name = ? AND s.id = ?",
                (feed, min(number, 2**63 - 1)),
            ).fetchone()
    if row is None:
        raise FeedError(f"{feed} has no snapshot {number}", hint=f"'blocklist feeds show {feed} --all' lists them")
    _put(output, _bytes_of(config, number, row[0]))
    screen.json({"feed": feed, "snapshot": number, "sha256": row[0], "bytes": row[1], "fetched": row[2]})
    screen.line(f"written to {output}: {row[1]:,} bytes as fetched {moment(row[2])}, sha256 {row[0]}")
    return 0


def _put(output: str, data: bytes) -> None:
    """Write a download to a file of the person's, whole or not at all."""
    from blocklist.publish.file import no_release, replace

    with no_release():
        replace(Path(output), lambda out: out.write(data), lambda path, written: None)


def _bytes_of(config: Config, number: int, sha256: str) -> bytes:
    """The bytes of a kept download. Raises FeedError or RecordError when they are gone or not what they were."""
    from blocklist.store import snapshots as kept
    from blocklist.store.database import reading

    with reading(config.state) as db:
        links = kept.chain(db, number)
    return kept.read(config.state, links, sha256)


def _snapshots(config: Config, feed: str) -> list[dict[str, Any]]:
    """The newest snapshots of a feed; none when there is no record yet."""
    from blocklist.store.database import is_there, reading

    if not is_there(config.state):
        return []
    names = ("id", "state", "sha256", "bytes", "fetched", "entries", "account", "gate", "url")
    with reading(config.state) as db:
        rows = db.execute(
            f"SELECT {', '.join('s.' + n for n in names)} FROM snapshot s JOIN feed f ON f.id = s.feed "
            "WHERE f.name = ? ORDER BY s.id DESC LIMIT 5",
            (feed,),
        ).fetchall()
    return [{**dict(zip(names, row, strict=True)), "account": json.loads(row[6])} for row in rows]


@command.command("test")
@click.argument("what", metavar="ID|FILE|URL")
@click.option(
    "--format", "fmt", default=None, metavar="FORMAT", help="Read it so; otherwise as configured, or by its looks."
)
@click.option(
    "--as",
    "as_feed",
    default=None,
    metavar="FEED",
    shell_complete=complete.feeds,
    help="Read a file or URL as if this feed had brought it.",
)
@click.option(
    "--examples",
    default=3,
    show_default=True,
    type=click.IntRange(0, 100),
    metavar="N",
    help="Show so many refused lines of each reason.",
)
@shared_options
def test(screen: Screen, what: str, fmt: str | None, as_feed: str | None, examples: int) -> int:
    """Read a feed, file or URL and say what every line becomes. Nothing is recorded.

    Shows which format was chosen and why, how many lines are indicators, comments, blank or refused, some of the
    refused with their line numbers, and what gate and guards would say. Exit status 3 where the gate would stop it.

    \b
    Examples:
      blocklist feeds test downloaded.txt
      blocklist feeds test https://feeds.example/list.csv --examples 10
      blocklist feeds test saved.txt --as cert-pl
    """
    config, _ = configuration(screen)
    import msgspec

    from blocklist import trial

    known = as_feed if as_feed is not None else what
    if as_feed is not None and as_feed not in config.catalog:
        raise click.UsageError(f"no feed {as_feed!r}{nearest(as_feed, config.catalog)}")
    url = what if what.startswith(SCHEMES) else f"file:{Path(what).absolute()}"
    if known in config.catalog:
        feed = config.catalog[known]
        if as_feed is not None:
            feed = msgspec.structs.replace(feed, url=url, mirrors=[], allow_private=True)
    elif not what.startswith(SCHEMES) and not Path(what).exists():
        near = nearest(what, config.catalog)
        raise click.UsageError(f"no feed, file or URL {what!r}{near if 'did you mean' in near else ''}")
    else:
        feed = Feed(id=Path(what).name or "test", title=what, url=url, category="other", allow_private=True)
    if fmt is not None:
        if fmt not in get_args(FormatName):
            raise click.UsageError(f"no format {fmt!r}{nearest(fmt, get_args(FormatName))}")
        feed = msgspec.structs.replace(feed, format=msgspec.structs.replace(feed.input, name=fmt))
    done = trial.read(config, feed, _bytes(config, feed), examples)
    result = trial.account(done)
    screen.json(result)
    _show_trial(screen, done, result)
    return 3 if done.gate else 0


def _show_trial(screen: Screen, done: Trial, result: dict[str, Any]) -> None:
    parsed = done.parsed
    unit = "items" if parsed.format in ("json", "misp") else "lines"
    screen.line(f"read as {parsed.format}: {safe(parsed.why)}")
    for count, word in [
        *((n, k) for k, n in sorted(parsed.kinds.items())),
        (parsed.comments, "comments"),
        (parsed.blank, "blank"),
    ]:
        if count:
            screen.line(f"  {number(count):>12} {word}")
    lines = {reason.value: some for reason, some in done.refused.items()}
    for reason, count in sorted(parsed.rejects.items(), key=lambda item: -item[1]):
        screen.line(f"  {number(count):>12} refused: {reason.value}")
        for line, text in lines.get(reason.value, ()):
            screen.line(f"  {'':12}   line {line:,}: {safe(text)}")
    for note, count in parsed.notes.items():
        screen.line(f"  {number(count):>12} kept without: {note}")
    if parsed.extra:
        screen.line(f"  {'−' + number(parsed.extra):>12} as some {unit} hold several")
    ending = f"{unit} in all" if done.adds_up else f"{unit} in all, WHICH IS NOT THE SUM: please report this"
    screen.line(f"  {number(parsed.lines):>12} {ending}")
    names = ", ".join(map(safe, result["examples"])) or "none"
    screen.line(f"{parsed.frame.height:,} different indicators, such as {names}")
    for name, count in result["held"].items():
        screen.line(f"guards would hold {count:,}: {safe(name)}")
    if done.gate:
        screen.line(f"the gate would stop it: {safe(done.gate)}")
    else:
        compared = (
            f"with the {done.before:,} entries of now" if done.before is not None else "no snapshot to compare with"
        )
        screen.line(f"the gate would let it pass ({compared})")
    screen.line(f"{done.size:,} bytes read in {parsed.seconds:.2f} s")


def _bytes(config: Config, feed: Feed) -> bytes:
    """The feed's bytes, fetched as an update would."""
    import tempfile

    from blocklist.asking import limits_of, request_for
    from blocklist.errors import FeedError
    from blocklist.ingest.fetch import fetch

    with tempfile.TemporaryDirectory(prefix="blocklist-test-") as folder:
        request = request_for(feed, config)
        done = fetch([request], into=Path(folder), limits=limits_of(config))[0]
        if done.path is None:
            raise FeedError(f"{feed.id}: {done.error}", hint=done.hint)
        return done.path.read_bytes()
