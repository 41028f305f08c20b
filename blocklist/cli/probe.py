"""`blocklist probe`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from blocklist.cli import complete
from blocklist.cli.screen import Screen, shared_options
from blocklist.cli.setup import configuration
from blocklist.decode import nearest

if TYPE_CHECKING:
    from blocklist.config import Config
    from blocklist.probe import Report


@click.command("probe")
@click.argument("names", nargs=-1, metavar="[EXPORT]...", shell_complete=complete.exports)
@click.option(
    "--sample",
    default=100,
    show_default=True,
    type=click.IntRange(0, 10_000),
    metavar="N",
    help="Entries at random.",
)
@click.option(
    "--grace", metavar="TIME", default="5m", show_default=True, help="How long a new release may be on its way."
)
@click.option("--metrics", is_flag=True, help="Prometheus text on standard output.")
@shared_options
def command(screen: Screen, names: tuple[str, ...], sample: int, grace: str, metrics: bool) -> int:
    """Ask the engines themselves what they enforce.

    The primary of an export is asked for its serial; every resolver in its 'probe' for the version record, for
    canaries (twice: fresh, and from its cache) and for a random sample of the published zone or list; a Squid
    ("http://ADDRESS:PORT") for the same, through itself and without fetching anything; "nftables" and "ipset" there
    count the sets of this machine. The exit code is for monitoring: 0 when all of them enforce the
    live release or are on their way to it, 4 when one is silent, stale or does not act on what it should.

    \b
    Examples:
      blocklist probe
      blocklist probe dns --sample 1000
      blocklist probe --metrics > /var/lib/node_exporter/blocklist.prom
    """
    config, formats = configuration(screen)
    for name in names:
        if name not in config.exports:
            raise click.UsageError(f"no export {name!r} is configured{nearest(name, config.exports)}")
    from blocklist.quantities import parse_duration

    try:
        seconds = float(parse_duration(grace))
    except ValueError as error:
        raise click.UsageError(f"--grace: {error}") from None
    from blocklist.probe import FAILED, examine
    from blocklist.probe.metrics import text
    from blocklist.store.database import reading

    with reading(config.state, follow=True) as db:
        reports = list(examine(config, formats, db, only=names, sample=sample, grace=seconds))
    status = 4 if any(report.state in FAILED for report in reports) else 0
    if metrics:
        click.echo(text(reports), nl=False)
        return status
    if not reports:
        screen.note("no export has 'primary' or 'probe': name the engines to ask there")
    rows = []
    for r in reports:
        screen.json({**asdict(r), "seconds": round(r.seconds, 3), "lag": round(r.lag, 3)})
        notes = [r.note] if r.note else []
        notes += [f"{name}: {have:,} of {want:,} elements" for name, (have, want) in r.sets.items() if have != want]
        notes += [f"canary {name}" for name in dict.fromkeys(r.canaries_wrong)]
        notes += [f"missed {', '.join(r.missed_names)}"] if r.missed else []
        rows.append(
            (
                f"{r.export}, {r.part}" if r.part else r.export,
                r.engine,
                r.role,
                r.state,
                r.served if r.served is not None else "",
                f"{r.behind} (for {r.lag:.0f} s)" if r.behind else "",
                f"{r.canaries - len(r.canaries_wrong)}/{r.canaries}" if r.canaries else "",
                f"{r.sampled - r.missed}/{r.sampled}" if r.sampled else "",
                "; ".join(notes) or (f"{sum(h for h, _ in r.sets.values()):,} elements" if r.sets else ""),
            )
        )
    screen.table(("export", "engine", "role", "state", "serial", "behind", "canaries", "sample", ""), rows)
    for way in dict.fromkeys(_way(r, config) for r in reports if r.state in FAILED):
        screen.note(way)
    screen.json({"engines": len(reports), "failed": sum(r.state in FAILED for r in reports)})
    return status


def _way(report: Report, config: Config) -> str:
    """What to do about an engine that does not enforce the live release."""
    export, where = config.exports[report.export], f"{report.export}: {report.engine}"
    if report.state == "silent":
        return f"{where}: does it run, and may this machine and user ask it?"
    if report.role == "resolver" and export.primary is not None:
        return (
            f"{where}: was the transfer refused? look into its log and that of the primary, then have it take the zone "
            "again ('rndc retransfer ZONE', 'unbound-control auth_zone_transfer ZONE'); 'blocklist doctor' says more"
        )
    if report.role == "primary":
        return f"{where}: 'blocklist export {report.export}' delivers what it lacks"
    return f"{where}: 'blocklist export {report.export} --reload' loads the published list again"
