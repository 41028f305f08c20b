"""What a person sees: tables, numbers and times; no control character of a feed reaches a terminal."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec
from msgspec.structs import asdict

from blocklist.errors import BlocklistError
from blocklist.plain import safe as safe

F = TypeVar("F", bound=Callable[..., Any])

_SHARED = (
    click.option("--config", metavar="FILE", type=click.Path(path_type=Path), hidden=True),
    click.option("--json", "as_json", is_flag=True, hidden=True),
    click.option("--quiet", is_flag=True, hidden=True),
    click.option("--verbose", is_flag=True, hidden=True),
    click.option("--debug", is_flag=True, hidden=True),
    click.option("--no-color", is_flag=True, hidden=True),
)


# `click.echo` flushes at every call, which takes longer than to make a line.
_AT_ONCE = 1000


class _Outlet:
    """Where a screen goes. While `working`, what can't be written there is kept in `failed` instead of raised."""

    def __init__(self) -> None:
        self.working = False
        self.failed: OSError | None = None
        self.warned: set[str] = set()

    def echo(self, text: str, *, err: bool = False) -> None:
        try:
            click.echo(text, err=err)
        except OSError as error:
            if not self.working:
                raise
            self.failed = self.failed or error

    def echo_all(self, texts: Iterable[str]) -> None:
        waiting = iter(texts)
        while some := list(islice(waiting, _AT_ONCE)):
            self.echo("\n".join(some))


class Screen(msgspec.Struct, frozen=True):
    """How this run speaks: the shared options, given before or after the command."""

    config_path: Path | None
    as_json: bool
    quiet: bool
    verbose: bool
    color: bool
    _out: _Outlet = msgspec.field(default_factory=_Outlet)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """What can't be shown meanwhile, as in a log on a full disk, stops no work; it is raised at the end."""
        self._out.working = True
        try:
            yield
        finally:
            self._out.working = False
        if self._out.failed is not None:
            raise self._out.failed

    def line(self, text: str = "") -> None:
        """A line for a person on standard output; nothing with --json or --quiet."""
        if not self.as_json and not self.quiet:
            self._out.echo(text)

    def lines(self, texts: Iterable[str]) -> None:
        """Lines as `line` writes them, however many: a thousand at a time, which takes a tenth of the time."""
        if not self.as_json and not self.quiet:
            self._out.echo_all(texts)

    def note(self, text: str) -> None:
        """A remark on standard error."""
        if not self.quiet:
            self._out.echo(text, err=True)

    def warn(self, text: str) -> None:
        """A warning on standard error, once however often it is said."""
        if text not in self._out.warned:
            self._out.warned.add(text)
            self.note(f"warning: {text}")

    def json(self, value: object) -> None:
        """One object on one line, only with --json."""
        if self.as_json:
            self._out.echo(_object(value))

    def objects(self, values: Iterable[object]) -> None:
        """Objects as `json` writes them, a thousand at a time."""
        if self.as_json:
            self._out.echo_all(map(_object, values))

    def table(self, header: Sequence[str], rows: Iterable[Sequence[object]], right: Iterable[int] = ()) -> None:
        """Aligned columns; those of `right` (by number) to the right. Without a row nothing, not even the header."""
        if self.as_json or self.quiet:
            return
        cells = [list(header), *([safe(str(c)) for c in row] for row in rows)]
        if len(cells) == 1:
            return
        widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
        turned = set(right)

        def aligned(row: Sequence[str]) -> str:
            return "  ".join(
                cell.rjust(width) if i in turned else cell.ljust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()

        head, *body = cells
        self._out.echo_all(chain([self.style(aligned(head), bold=True)], map(aligned, body)))

    def style(self, text: str, **style: Any) -> str:
        return click.style(text, **style) if self.color else text

    @property
    def lively(self) -> bool:
        """May progress be drawn? Only on a terminal, on standard error."""
        return sys.stderr.isatty() and not self.quiet and not self.as_json


def _plain(value: object) -> object:
    """What JSON itself can't say: the objects within others as tables, all else as text."""
    return asdict(value) if isinstance(value, msgspec.Struct) else str(value)


# One for all: `json.dumps` would make one a call.
_object = json.JSONEncoder(ensure_ascii=True, default=_plain).encode


class WholeGroup(click.Group):
    """A group whose help gives the first sentence of each command whole."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, c.get_short_help_str(limit=1000)) for name, c in sorted(self.commands.items())])


class ListingGroup(WholeGroup):
    """A group whose bare call, also with options, means its `list`: `blocklist held --all`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if ctx.resilient_parsing:
            return super().parse_args(ctx, args)  # Tab asks which commands there are
        at = 0
        args = args or ["list"]
        while at < len(args) and args[at].startswith("-"):
            at += 2 if args[at] in ("--config", "--at") else 1
        if not {"-h", "--help"} & set(args[:at]):
            if at < len(args) and args[at] in self.commands:
                # Options given before the name of the command are its own, as everywhere.
                args = [args[at], *args[:at], *args[at + 1 :]]
            elif at:
                args = ["list", *args]
        return super().parse_args(ctx, args)


def shared_options(function: F) -> F:
    """Give a command the shared options and, as its first argument, a `Screen`."""

    @click.pass_context
    @functools.wraps(function)
    def with_screen(ctx: click.Context, /, *args: Any, **kwargs: Any) -> Any:
        before: dict[str, Any] = ctx.find_root().obj or {}
        got = {
            name: kwargs.pop(name) or before.get(name)
            for name in ("config", "as_json", "quiet", "verbose", "debug", "no_color")
        }
        if got["debug"]:
            _show_tracebacks()
        color = not got["no_color"] and "NO_COLOR" not in os.environ and sys.stdout.isatty()
        screen = Screen(got["config"], bool(got["as_json"]), bool(got["quiet"]), bool(got["verbose"]), color)
        return ctx.invoke(function, screen, *args, **kwargs)

    decorated: Any = with_screen
    for option in reversed(_SHARED):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]


def _show_tracebacks() -> None:
    """On standard error, also those of mistakes that cost only one feed or one export its turn."""
    import logging

    class Safe(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return "\n".join(safe(line) for line in super().format(record).splitlines())

    handler = logging.StreamHandler()
    handler.setFormatter(Safe("%(message)s"))
    logger = logging.getLogger("blocklist")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.DEBUG)


def error_text(error: BlocklistError) -> str:
    """`error: …` with the way out below it."""
    lines = [safe(line) for line in error.message.splitlines()]
    text = "error: " + "\n       ".join(lines)
    return f"{text}\n  hint: {safe(error.hint)}" if error.hint else text


def one_line(text: str) -> str:
    """A message of several lines, such as what a command wrote, for a cell of a table."""
    return "; ".join(filter(None, (line.strip() for line in text.splitlines())))


def number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def change(value: int, sign: str) -> str:
    """`+212`, `−190`, or nothing for none."""
    return f"{sign}{value:,}" if value else "0"


def moment(text: str | None) -> str:
    """`2026-11-24 10:00` of an RFC 3339 time: local, as the dates are that people type."""
    return "" if text is None else datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M")


def second(text: str) -> str:
    """The same to the second, for a moment that is answered for: it means itself when it is typed again."""
    return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def several(count: int, one: str, more: str | None = None) -> str:
    """`1 rule`, `2 rules`."""
    return f"{count:,} {one if count == 1 else more or one + 's'}"
