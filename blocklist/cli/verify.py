"""`blocklist verify`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from blocklist.cli.screen import Screen, safe, several, shared_options
from blocklist.cli.setup import configuration, writing
from blocklist.config import Config
from blocklist.errors import BlocklistError

if TYPE_CHECKING:
    from blocklist.picture import Picture
    from blocklist.store.record import Record
    from blocklist.verification import Verified


@click.command("verify")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--due", "due", is_flag=True, help="Names whose time has come (the default).")
@click.option("--all", "everything", is_flag=True, help="Every listed name.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="No more than N names.")
@click.option("--budget", metavar="TIME", help="Stop after this long, such as 10m; the rest stays due.")
@click.option(
    "--resolver", "resolvers", multiple=True, metavar="IP[:PORT]", help="Ask these instead of the configured ones."
)
@click.option("--scheduler", metavar="tcp://HOST:PORT", help="Let the workers of this Dask scheduler ask.")
@click.option(
    "--vantages", type=click.IntRange(1, 9), default=1, metavar="N", help="Workers that must agree on bad news."
)
@click.option("--processes", type=click.IntRange(1, 64), metavar="N", help="Ask in N processes of this machine.")
@shared_options
def command(
    screen: Screen,
    names: tuple[str, ...],
    due: bool,
    everything: bool,
    limit: int | None,
    budget: str | None,
    resolvers: tuple[str, ...],
    scheduler: str | None,
    vantages: int,
    processes: int | None,
) -> int:
    """Ask DNS whether listed names still exist, and keep what it says.

    Resolvers are tested first: names that must exist, random ones that must not. A name counts as dead only by
    the word of its registry, three times over seven days; a policy may then drop it (dead = "drop").
    Interrupt at any time: what was learned is kept.

    \b
    Examples:
      blocklist verify --budget 10m
      blocklist verify evil.example
      blocklist verify --all --resolver 192.0.2.53
      blocklist verify --scheduler tls://192.0.2.7:8786 --vantages 2
    """
    config, _ = configuration(screen)
    from blocklist import clock
    from blocklist.names import RejectedError, normalize_name
    from blocklist.person import whoami
    from blocklist.picture import Picture
    from blocklist.suffixes import builtin_rules
    from blocklist.verification import verify

    if due and (everything or names):
        raise click.UsageError("--due goes with neither --all nor names")
    try:
        wanted = [normalize_name(n) for n in names] or None
    except RejectedError as error:
        raise click.UsageError(f"not a domain name ({error.reason})") from None
    if vantages > 1 and scheduler is None:
        raise click.UsageError("--vantages counts workers: it goes with --scheduler")
    if processes is not None and scheduler is not None:
        raise click.UsageError("--processes is of this machine: it does not go with --scheduler")
    if budget is not None:
        from blocklist.quantities import parse_duration

        try:
            parse_duration(budget)
        except ValueError as error:
            raise click.UsageError(str(error)) from None
    with writing(config, screen, "verify") as record:
        with record.transaction() as db:
            number = record.begin_run(db, clock.text(clock.now()), "verify", whoami())
        verified = verify(
            config,
            record,
            Picture(config, record, builtin_rules()),
            number,
            names=wanted,
            everything=everything,
            limit=limit,
            budget=budget,
            resolvers=resolvers,
            scheduler=scheduler,
            vantages=vantages,
            processes=processes,
            on_progress=_drawn(screen),
        )
        record.finish_run(number)
    show(screen, verified)
    screen.json(asdict(verified))
    return 0


def verify_due(config: Config, record: Record, picture: Picture, number: int, screen: Screen) -> bool:
    """The verification of an update; could it have changed an export? Without resolvers it says so and goes on."""
    if not config.verify.resolvers:
        screen.line("not verified: no resolvers are configured (verify.resolvers)")
        return False
    from blocklist.verification import verify

    try:
        verified = verify(config, record, picture, number, on_progress=_drawn(screen))
    except BlocklistError as error:
        screen.note(f"not verified: {safe(error.message)}" + (f"; {safe(error.hint)}" if error.hint else ""))
        return False
    show(screen, verified)
    return bool(verified.died or verified.revived or verified.turned)


def show(screen: Screen, verified: Verified) -> None:
    """What was learned, in a line or two."""
    counts = ", ".join(f"{n:,} {status}" for status, n in sorted(verified.verdicts.items()) if n)
    screen.line(
        f"verified {several(verified.checked, 'name')}: {counts or 'none was due'}"
        + (f" · {verified.turned:,} turned to or from a sinkhole or parking" if verified.turned else "")
        + (f" · {verified.died:,} died, {verified.revived:,} came back" if verified.died or verified.revived else "")
        + (f" · {verified.queries:,} queries, {verified.rate:,.0f}/s" if verified.queries else "")
    )
    if verified.daily:
        screen.line(f"keeping every verdict fresh takes about {verified.daily:,} queries a day")
    if verified.unfinished:
        screen.line(f"still due: {several(verified.unfinished, 'name')} ({verified.stopped})")
    dropped = [resolver for resolver in verified.resolvers if resolver["dropped"]]
    if verified.short:
        screen.note(f"{safe(verified.short)}; names denied since are unknown, and none of them died")
    elif verified.quorum == 1 and dropped and verified.checked:
        screen.note("one resolver could be asked: its word alone decided")
    for resolver in verified.resolvers:
        if resolver["dropped"]:
            screen.note(f"resolver {resolver['address']} was dropped: {safe(str(resolver['dropped']))}")


def _drawn(screen: Screen) -> Callable[[int, int], None] | None:
    """Progress on a terminal: names, rate, time left."""
    if not screen.lively:
        return None
    started = time.monotonic()

    def draw(done: int, total: int) -> None:
        rate = done / max(time.monotonic() - started, 0.001)
        left = (total - done) / rate if rate else 0
        end = "\r\x1b[K" if done == total else ""
        click.echo(f"\r\x1b[K{done:,}/{total:,} names · {rate:,.0f}/s · {left:.0f} s left{end}", err=True, nl=False)
        sys.stderr.flush()

    return draw
