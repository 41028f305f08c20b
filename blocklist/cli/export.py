"""`blocklist export`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import click

from blocklist.cli.screen import Screen, shared_options
from blocklist.cli.setup import configuration, writing
from blocklist.config import Config, Export
from blocklist.decode import nearest
from blocklist.errors import ConfigError


@click.command("export")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--dry-run", is_flag=True, help="Show what would change; publish nothing.")
@click.option("--format", "fmt", metavar="FORMAT", help="One list in this format, no release kept; needs -o.")
@click.option("-o", "--output", metavar="FILE|-", help="Where the one list goes; - is standard output.")
@click.option("--policy", default="default", show_default=True, help="Policy of the one list.")
@click.option("--option", "options", multiple=True, metavar="K=V", help="Option of the format, as in 'formats show'.")
@shared_options
def command(
    screen: Screen,
    names: tuple[str, ...],
    dry_run: bool,
    fmt: str | None,
    output: str | None,
    policy: str,
    options: tuple[str, ...],
) -> int:
    """Publish the configured exports (or those named) whose content changed.

    A file is written beside the old one, checked by the engine's own checker where there is one, and renamed;
    then the export's reload command is run. A release that changes too much is held for a person; its plan says what
    would come and go, by which feed, and how to go on. Your rules never wait: they go over the last approved list.

    \b
    Examples:
      blocklist export
      blocklist export dns --dry-run
      blocklist export --format hosts -o - | head
      blocklist export --format rpz --option origin=rpz.example.net -o list.rpz
    """
    config, formats = configuration(screen)
    if fmt is not None:
        return _once(screen, config, formats, fmt, output, policy, options)
    if output is not None:
        raise click.UsageError("-o goes with --format")
    for name in names:
        if name not in config.exports:
            raise click.UsageError(f"no export {name!r} is configured{nearest(name, config.exports)}")
    from blocklist.cli.plan import show_plan
    from blocklist.cli.update import exit_code, show_exports
    from blocklist.picture import Picture
    from blocklist.publish.release import export_all

    with writing(config, screen, "export") as record:
        picture = Picture(config, record)
        exports = export_all(config, record, picture, formats, only=names, dry_run=dry_run)
    show_exports(screen, exports, planned=dry_run)
    for export in exports:
        if export.plan is not None:
            show_plan(screen, export.name, export.plan)
    if dry_run:
        screen.line("dry run: nothing was published")
    screen.json({"exports": [asdict(e) for e in exports], "dry_run": dry_run})
    return exit_code([], exports)


def _once(
    screen: Screen,
    config: Config,
    formats: Any,
    fmt: str,
    output: str | None,
    policy: str,
    options: tuple[str, ...],
) -> int:
    if fmt not in formats:
        raise click.UsageError(f"no format {fmt!r}{nearest(fmt, formats)}")
    if output is None:
        raise click.UsageError("--format needs -o FILE, or -o - for standard output")
    if policy not in config.policies:
        raise click.UsageError(f"no policy {policy!r}{nearest(policy, config.policies)}")
    given = given_options(formats[fmt], options)
    try:
        formats[fmt].settle(given, "--option")
    except ConfigError as error:
        raise click.UsageError(error.message) from None
    export = Export(name="once", format=fmt, path="-", policy=policy, options=given)
    from blocklist import clock
    from blocklist.picture import Picture
    from blocklist.publish.release import Selector, render_once
    from blocklist.rules import rules_in_force

    with writing(config, screen, "export") as record:
        picture = Picture(config, record)
        selector = Selector(picture, record, config.policies, rules_in_force(record.connection, clock.now()))

        def write(out: BinaryIO) -> None:
            rendered, lost = render_once(selector, export, formats[fmt], out)
            counted = "".join(f"; {n:,} {what}" for what, n in lost.items())
            screen.note(f"{rendered.entries:,} entries, {rendered.records:,} records{counted}")

        if output == "-":
            write(sys.stdout.buffer)
            sys.stdout.buffer.flush()
        else:
            from blocklist.publish.file import replace

            replace(Path(output), write, lambda path, written: None)
    return 0


def given_options(fmt: Any, given: tuple[str, ...]) -> dict[str, Any]:
    """`K=V` texts in the types that the format declares."""
    out: dict[str, Any] = {}
    for item in given:
        key, equals, text = item.partition("=")
        if not equals:
            raise click.UsageError(f"--option {item!r}: write it as K=V")
        kind = fmt.options[key].type if key in fmt.options else "text"
        if kind == "integer" and text.lstrip("-").isdigit():
            out[key] = int(text)
        elif kind == "boolean" and text in ("true", "false"):
            out[key] = text == "true"
        else:
            out[key] = text
    return out
