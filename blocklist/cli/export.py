"""`blocklist export`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import click

from blocklist.cli import complete, shapes
from blocklist.cli.screen import Screen, shared_options
from blocklist.cli.setup import configuration, writing
from blocklist.config import Config, Export
from blocklist.decode import nearest
from blocklist.errors import ConfigError


@click.command("export")
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=complete.exports)
@click.option("--dry-run", is_flag=True, help="Show what would change; publish nothing.")
@click.option("--reload", "load_again", is_flag=True, help="Load the lists again, those too that did not change.")
@click.option(
    "--format",
    "fmt",
    metavar="FORMAT",
    shell_complete=complete.formats,
    help="One list in this format, no release kept; needs -o.",
)
@click.option("-o", "--output", metavar="FILE|-", help="Where the one list goes; - is standard output.")
@click.option("--policy", metavar="NAME", default="default", show_default=True, help="Policy of the one list.")
@click.option("--option", "options", multiple=True, metavar="K=V", help="Option of the format, as in 'formats show'.")
@click.option("--at", metavar="DATE", help="What was live then, to -o: 2026-03-03, 2026-03-03T14:00Z, 7d, yesterday.")
@shared_options
def command(
    screen: Screen,
    names: tuple[str, ...],
    dry_run: bool,
    load_again: bool,
    fmt: str | None,
    output: str | None,
    policy: str,
    options: tuple[str, ...],
    at: str | None,
) -> int:
    """Publish the configured exports (or those named) whose content changed.

    A file is written beside the old one, checked by the engine's own checker where there is one, and renamed;
    then the export's reload command is run. A release that changes too much is held for a person; its plan says what
    would come and go, by which feed, and how to go on. Your rules never wait: they go over the last approved list.

    \b
    Examples:
      blocklist export
      blocklist export dns --dry-run
      blocklist export fw --reload               the firewall was restarted
      blocklist export --format hosts -o - | head
      blocklist export --format rpz --option origin=rpz.example.net -o list.rpz
      blocklist export dns --at 2026-03-03 -o dns-of-then.rpz
    """
    config, formats = configuration(screen)
    if load_again and (dry_run or fmt is not None or at is not None):
        raise click.UsageError("--reload goes with nothing but names of exports")
    if fmt is not None:
        return _once(screen, config, formats, fmt, output, policy, options, at)
    if at is not None:
        if len(names) != 1 or output is None or dry_run:
            raise click.UsageError("--at takes one export and -o FILE, or -o - for standard output")
        return _then(screen, config, names[0], at, output)
    if output is not None:
        raise click.UsageError("-o goes with --format or --at")
    for name in names:
        if name not in config.exports:
            raise click.UsageError(f"no export {name!r} is configured{nearest(name, config.exports)}")
    from blocklist.cli.plan import show_plan
    from blocklist.cli.update import exit_code, show_exports
    from blocklist.picture import Picture
    from blocklist.publish.release import export_all

    with writing(config, screen, "export") as record:
        picture = Picture(config, record)
        exports = export_all(config, record, picture, formats, only=names, dry_run=dry_run, load_again=load_again)
    for silent in config.exports.values():
        if load_again and not silent.reload and silent.primary is None and (not names or silent.name in names):
            screen.note(f"{silent.name} has no reload command: tell its engine yourself")
    show_exports(screen, exports, planned=dry_run)
    for export in exports:
        if export.plan is not None:
            show_plan(screen, export.name, export.plan)
    if dry_run:
        screen.line("dry run: nothing was published")
    screen.json({"exports": [shapes.export(e) for e in exports], "dry_run": dry_run})
    return exit_code([], exports)


def _once(
    screen: Screen,
    config: Config,
    formats: Any,
    fmt: str,
    output: str | None,
    policy: str,
    options: tuple[str, ...],
    at: str | None,
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
    if at is not None:
        return _once_then(screen, config, export, formats[fmt], at, output)
    from blocklist import clock
    from blocklist.picture import Picture
    from blocklist.publish.selector import Selector, render_once
    from blocklist.rules import rules_in_force

    with writing(config, screen, "export") as record:
        picture = Picture(config, record)
        selector = Selector(picture, record, config.policies, rules_in_force(record.connection, clock.now()))

        def write(out: BinaryIO) -> None:
            _said(screen, fmt, output, *render_once(selector, export, formats[fmt], out))

        _put(output, write)
    return 0


def _said(screen: Screen, fmt: str, output: str, rendered: Any, lost: dict[str, int]) -> None:
    counted = "".join(f"; {n:,} {what}" for what, n in lost.items())
    screen.note(f"{rendered.entries:,} entries, {rendered.records:,} records{counted}")
    if output != "-":  # standard output is the list itself, else
        screen.json(
            {"format": fmt, "file": output, "entries": rendered.entries, "records": rendered.records, "lost": lost}
        )


def _put(output: str, write: Callable[[BinaryIO], None]) -> None:
    if output == "-":
        write(sys.stdout.buffer)
        sys.stdout.buffer.flush()
    else:
        from blocklist.publish.file import no_release, replace

        with no_release():
            replace(Path(output), write, lambda path, written: None)


def _then(screen: Screen, config: Config, name: str, at: str, output: str) -> int:
    """The bytes of a release of the past; never to the place of a list that is loaded."""
    from blocklist import clock
    from blocklist.dates import past
    from blocklist.publish.past import published
    from blocklist.store.database import reading

    moment = past(at, clock.now())
    with reading(config.state) as db:
        found = published(config, db, name, moment)
    files = _places(found.files, name, output)
    _refuse_configured(config, files)
    for place, data in files.items():
        _put(place, partial(_write, data=data))
    screen.note(f"release {found.release} of {name}, live since {found.published}, {found.how}; SHA-256 {found.digest}")
    if output != "-":
        told = {"release": found.release, "export": name, "published": found.published, "digest": found.digest}
        told |= {"bytes": sum(map(len, files.values())), "how": found.how}
        screen.json({**told, "files": sorted(files)})
    return 0


def _places(files: dict[str, bytes], name: str, output: str) -> dict[str, bytes]:
    """Where the files of one release go: the only one to `output`, those of a split export into that folder."""
    if len(files) == 1:
        return {output: next(iter(files.values()))}
    if output == "-" or not Path(output).is_dir():
        raise click.UsageError(f"{name} was split into {len(files)} files then: give an existing folder with -o FOLDER")
    return {str(Path(output) / file): data for file, data in files.items()}


def _once_then(screen: Screen, config: Config, export: Export, fmt: Any, at: str, output: str) -> int:
    """One list from the record of then."""
    from blocklist import clock
    from blocklist.dates import past
    from blocklist.publish.past import render_at
    from blocklist.store.database import reading
    from blocklist.store.moment import run_at
    from blocklist.suffixes import builtin_rules

    _refuse_configured(config, [output])
    moment = past(at, clock.now())
    with reading(config.state) as db:
        run = run_at(db, moment)
        _put(
            output,
            lambda out: _said(
                screen, export.format, output, *render_at(config, db, run, moment, builtin_rules(), export, fmt, out)
            ),
        )
    return 0


def _write(out: BinaryIO, *, data: bytes) -> None:
    out.write(data)


def _refuse_configured(config: Config, outputs: Iterable[str]) -> None:
    """A list of the past goes to no place where an engine finds the one of now."""
    from blocklist.publish.split import paths

    taken = {
        path.resolve(): export.name
        for export in config.exports.values()
        for _, path in paths(export, config.policies[export.policy], config.base)
    }
    for output in outputs:
        if output != "-" and (export := taken.get(Path(output).resolve())) is not None:
            raise click.UsageError(f"{output} is the file of export {export!r}: a list of the past goes elsewhere")


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
