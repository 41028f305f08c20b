"""`blocklist release`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from blocklist.cli import complete
from blocklist.cli.rules import publish
from blocklist.cli.screen import ListingGroup, Screen, change, moment, number, one_line, safe, shared_options
from blocklist.cli.setup import configuration, writing
from blocklist.decode import nearest

if TYPE_CHECKING:
    from blocklist.config import Config


@click.group("release", cls=ListingGroup)
def command() -> None:
    """Published versions of each export: what changed, by whose word, and those that wait for a person.

    \b
    Examples:
      blocklist release
      blocklist release show 212
      blocklist release approve dns
      blocklist release rollback dns --reason "the news site is blocked"
    """


_COLUMNS = (
    "id, export, format, state, created, published, serial, entries, added, removed, lost, checked, note, digest, "
    "path, left_out"
)


@command.command("list")
@click.option("--export", "export", metavar="NAME", shell_complete=complete.exports, help="Only this export.")
@click.option(
    "--limit", default=20, show_default=True, type=click.IntRange(1), metavar="N", help="So many, the newest first."
)
@shared_options
def listing(screen: Screen, export: str | None, limit: int) -> int:
    """The newest releases.

    \b
    Examples:
      blocklist release list --export dns
      blocklist release list --limit 100 --json
    """
    rows = _rows(screen, "WHERE ?1 IS NULL OR export = ?1 ORDER BY id DESC LIMIT ?2", (export, limit))
    for row in rows:
        del row["left_out"]
        screen.json(row)
    screen.table(
        ("id", "export", "format", "state", "created", "serial", "entries", "added", "removed", ""),
        [
            (
                r["id"],
                r["export"],
                r["format"],
                r["state"],
                moment(str(r["created"])),
                r["serial"],
                number(r["entries"]),  # type: ignore[arg-type]
                change(r["added"], "+"),  # type: ignore[arg-type]
                change(r["removed"], "−"),  # type: ignore[arg-type]
                one_line(str(r["note"])),
            )
            for r in rows
        ],
        right=(0, 6, 7, 8),
    )
    if not rows:
        screen.line("no release yet: 'blocklist export' makes the first")
    return 0


@command.command("show")
@click.argument("number_", metavar="ID", type=click.IntRange(1, 2**63 - 1))
@click.option("--left-out", "everything", is_flag=True, help="Name all that was chosen and left out, with the reason.")
@shared_options
def show(screen: Screen, number_: int, everything: bool) -> int:
    """Everything that is recorded of one release, what was left out of it, and what a held one would change.

    \b
    Examples:
      blocklist release show 212
      blocklist release show 212 --left-out
    """
    rows = _rows(screen, "WHERE id = ?1", (number_,))
    if not rows:
        raise click.UsageError(f"there is no release {number_}; 'blocklist release' lists them")
    missing, told = _left_out(screen, rows[0].pop("left_out")), _plan(screen, number_)
    if everything:
        screen.objects({"name": name, "because": why} for name, why in missing)
    screen.json({**rows[0], "left_out": len(missing), **({"plan": json.loads(told)} if told else {})})
    for key, value in rows[0].items():
        if value not in (None, "", {}):
            screen.line(f"{key:10} {_fact(key, value)}")
    shown = missing if everything else missing[:5]
    screen.lines(f"left out   {safe(name)}: {safe(why)}" for name, why in shown)
    if len(shown) < len(missing):
        screen.line(f"left out   {len(missing) - len(shown):,} more; --left-out names all")
    if told and not screen.as_json:
        import msgspec

        from blocklist.cli.plan import show_plan
        from blocklist.publish.plan import Plan

        show_plan(screen, f"release {number_} of {rows[0]['export']}", msgspec.json.decode(told, type=Plan))
    return 0


def _fact(key: str, value: object) -> str:
    """A field of a release as a person reads it."""
    if key in ("created", "published"):
        return moment(str(value))
    if isinstance(value, dict):
        from blocklist.cli.update import in_words

        return in_words(value)
    return number(value) if isinstance(value, int) and key in ("entries", "added", "removed") else safe(str(value))


def _plan(screen: Screen, release: int) -> str | None:
    """The plan (JSON) that is kept with a release that was held."""
    config, _ = configuration(screen)
    from blocklist.store.database import reading

    with reading(config.state) as db:
        row = db.execute("SELECT plan FROM plan WHERE release = ?", (release,)).fetchone()
    return str(row[0]) if row else None


@command.command("approve")
@click.argument("export", shell_complete=complete.exports)
@click.argument("number_", metavar="[ID]", type=click.IntRange(1, 2**63 - 1), required=False)
@shared_options
def approve(screen: Screen, export: str, number_: int | None) -> int:
    """Publish the held release of EXPORT: a person has looked at it.

    Without ID, the newest that is held. What is published is built anew, of what the record holds now.

    \b
    Examples:
      blocklist release show 212
      blocklist release approve dns 212
    """
    config, formats = configuration(screen)
    if export not in config.exports:
        raise click.UsageError(f"no export {export!r} is configured{nearest(export, config.exports)}")
    from blocklist.decisions import approve_release
    from blocklist.person import whoami

    with writing(config, screen, "release approve") as record:
        approved = approve_release(record, export, number_, author=whoami())
        screen.line(f"release {approved} of {safe(export)} is approved")
        return publish(screen, config, record, formats)


@command.command("rollback")
@click.argument("export", shell_complete=complete.exports, required=False)
@click.argument("number_", metavar="[ID]", type=click.IntRange(1, 2**63 - 1), required=False)
@click.option("--all", "every", is_flag=True, help="Every export.")
@click.option("--at", metavar="DATE", help="To what was live then: 2026-03-03, 2026-03-03T14:00Z, 7d, yesterday.")
@click.option("--reason", required=True, help="Why; shown wherever the export is.")
@shared_options
def rollback(screen: Screen, export: str | None, number_: int | None, every: bool, at: str | None, reason: str) -> int:
    """Go back to what release ID of EXPORT held; without ID or --at, to the one before the one that is live.

    Guards, holds, allows and denies of now apply to it. EXPORT stays there, whatever feeds and timers do, until
    'blocklist release unpin EXPORT'. The serial rises all the same. With --all, an export that can't go back is told,
    and the others go; the exit code is then 4.

    \b
    Examples:
      blocklist release rollback dns --reason "the news site is blocked"
      blocklist release rollback dns 212 --reason "the last good one"
      blocklist release rollback --all --at yesterday --reason "a feed was taken over"
    """
    config, formats = configuration(screen)
    names = _chosen(config, export, every)
    if number_ is not None and (every or at is not None):
        raise click.UsageError("an ID is of one export, and says more than --at")
    from blocklist import clock
    from blocklist.dates import past
    from blocklist.errors import IndicatorError
    from blocklist.person import whoami
    from blocklist.publish.recorded import recover
    from blocklist.publish.rollback import live_at, roll_back

    moment_ = None if at is None else past(at, clock.now())
    with writing(config, screen, "release rollback") as record:
        recover(record)  # of a run that was killed: what stands in the file is what one goes back from
        gone: list[str] = []
        failed = 0
        for name in names:
            try:
                target = number_ if moment_ is None else live_at(record, name, moment_)
                pin = roll_back(record, name, target, reason=reason, author=whoami())
            except IndicatorError as error:
                if not every:
                    raise
                screen.note(f"{safe(error.message)}" + (f"; {error.hint}" if error.hint else ""))
                failed = 4
                continue
            gone.append(name)
            screen.line(
                f"{safe(name)} goes back to release {pin.release} and stays there "
                f"until 'blocklist release unpin {safe(name)}'"
            )
        return max(failed, publish(screen, config, record, formats, only=gone)) if gone else failed


def _chosen(config: Config, export: str | None, every: bool) -> list[str]:
    """The one export that is named, or all of them."""
    if (export is None) != every:
        raise click.UsageError("name an export, or --all")
    if export is None:
        return list(config.exports)
    if export not in config.exports:
        raise click.UsageError(f"no export {export!r} is configured{nearest(export, config.exports)}")
    return [export]


@command.command("unpin")
@click.argument("export", shell_complete=complete.exports, required=False)
@click.option("--all", "every", is_flag=True, help="Every export that is pinned.")
@shared_options
def unpin(screen: Screen, export: str | None, every: bool) -> int:
    """End a rollback: EXPORT follows its feeds again, at once.

    The gate of large changes applies.

    \b
    Example:
      blocklist release unpin dns
    """
    config, formats = configuration(screen)
    names = _chosen(config, export, every)
    from blocklist.person import whoami
    from blocklist.publish import rollback as ways_back

    with writing(config, screen, "release unpin") as record:
        if every:
            names = [name for name in names if name in ways_back.pins(record)]
        for name in names:
            pin = ways_back.unpin(record, name, author=whoami())
            screen.line(f"{safe(name)} is no longer pinned to release {pin.release}")
        if not names:
            screen.line("no export is pinned")
            return 0
        return publish(screen, config, record, formats, only=names)


def _left_out(screen: Screen, digest: object) -> list[tuple[str, str]]:
    """Names and reasons of what a release left out; nothing when it is not kept any more."""
    if not isinstance(digest, str):
        return []
    config, _ = configuration(screen)
    from blocklist.errors import RecordError
    from blocklist.publish import left_out

    try:
        return list(left_out.entries(config.state, digest))
    except RecordError as error:
        screen.note(error.message)
        return []


def _rows(screen: Screen, where: str, values: tuple[object, ...]) -> list[dict[str, object]]:
    config, _ = configuration(screen)
    from blocklist.store.database import reading

    with reading(config.state) as db:
        found = db.execute(f"SELECT {_COLUMNS} FROM release {where}", values).fetchall()
    names = [c.strip() for c in _COLUMNS.split(",")]
    rows = [dict(zip(names, row, strict=True)) for row in found]
    for row in rows:
        row["lost"] = json.loads(str(row["lost"]))
    return rows
