"""The command line: each command is a module, imported when it is called."""

from __future__ import annotations

import errno
import gc
import os
import signal
import sys
import time
from contextlib import suppress
from importlib import import_module
from typing import Any, NoReturn, TextIO

import click

from blocklist import __version__, heap, interruption

# name → (module, attribute, the line that `--help` shows), so that help imports nothing.
_COMMANDS: dict[str, tuple[str, str]] = {
    "init": ("init", "Write a commented blocklist.toml and its folders."),
    "update": ("update", "Fetch, parse, guard, record, verify what is due, publish what changed."),
    "status": ("status", "One screen: every feed, gate, hold and export; exit code for monitoring."),
    "verify": ("verify", "Ask DNS about listed names."),
    "export": ("export", "Publish configured exports, or write one list to a file."),
    "why": ("why", "Why a domain, address, network or URL is blocked, or not."),
    "history": ("history", "What became of a domain, address, network or URL, in order."),
    "diff": ("diff", "What changed between two dates or releases, by feed and category."),
    "match": ("match", "Replay logs: what would be blocked, thanks to which feed."),
    "report": ("report", "The situational picture as one page: HTML, Markdown or JSON."),
    "feeds": ("feeds", "List, show and try feeds."),
    "formats": ("formats", "List, show and try export formats."),
    "allow": ("allow", "Rules that free a name or network."),
    "deny": ("deny", "Rules that block a name or network."),
    "held": ("held", "What guards withhold; let it pass, or take that back."),
    "release": ("release", "Published versions of each export; approve a held one."),
    "probe": ("probe", "Ask the engines themselves what they enforce."),
    "events": ("events", "The chained log of decisions and releases: list, head, verify."),
    "evidence": ("evidence", "Check a bundle of evidence, without the record."),
    "case": ("case", "A complaint: freeze the evidence, write to the publisher, wait for the feed."),
    "prune": ("prune", "Forget what [keep] no longer asks for; digests and decisions stay."),
    "doctor": ("doctor", "What is wrong with this installation, and the way out."),
    "demo": ("demo", "The whole tour on this machine, no network."),
}

_EPILOG = """\
\b
Examples:
  blocklist init                            start a configuration here
  blocklist update                          bring lists up to date and publish
  blocklist why evil.example                which feed, which line, since when
  blocklist allow add good.example --reason "customer"
  blocklist export --format hosts -o -      one list to the screen

\b
Exit codes: 0 all well · 1 the run failed · 2 usage · 3 a feed failed or was gated
            4 a release was held or a check failed (the highest wins)
"""


# The shared options are hidden in each command's list, which they would only make longer.
_SHARED = """\
\b
Everywhere: --config FILE, --json, --quiet, --verbose, --debug, --no-color ('blocklist --help')
"""


def _tell_shared(command: click.Command) -> None:
    command.epilog = _SHARED
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            _tell_shared(inner)


_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class LazyGroup(click.Group):
    """A group that knows its commands' names and summaries without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = import_module(f"blocklist.cli.{_COMMANDS[cmd_name][0]}").command
        _tell_shared(command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            from blocklist.decode import nearest

            ctx.fail(f"no such command {args[0]!r}{nearest(args[0], _COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in _COMMANDS.items()])


class _File(click.Path):
    """A path, for which `--help` need not load pathlib."""

    def coerce_path_result(self, value: Any) -> Any:
        from pathlib import Path

        return Path(os.fsdecode(value))


@click.group(cls=LazyGroup, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="blocklist")
@click.option("--config", "config", metavar="FILE", type=_File(), help="Configuration file to use.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line on standard output, the summary last.")
@click.option("--quiet", is_flag=True, help="Only errors.")
@click.option("--verbose", is_flag=True, help="More detail.")
@click.option("--debug", is_flag=True, help="Tracebacks for errors.")
@click.option("--no-color", is_flag=True, help="Plain text (also the variable NO_COLOR).")
@click.pass_context
def group(ctx: click.Context, /, **options: Any) -> None:
    """Lists of hostile domains and addresses: aggregated from feeds, verified, exported, explained to the line."""
    ctx.obj = {k: v for k, v in options.items() if v}
    if abs(time.localtime().tm_gmtoff) >= 86_400:  # which the C library takes, and no date of ours can say
        zone = ascii(os.environ.get("TZ", "")[:80])
        raise click.UsageError(f"the variable TZ is {zone}, which is no time zone; write UTC, or one like Asia/Tokyo")


def main(argv: list[str] | None = None) -> NoReturn:
    """Entry point: errors become a message and an exit code, never a traceback (but with --debug)."""
    try:
        _main(argv)
    except SystemExit as end:
        if argv is None and heap.large:
            _leave(end.code)
        raise
    finally:
        try:
            sys.stderr.flush()
        except OSError:
            # The terminal is closed: at its end Python would try once more, and end with 120 instead.
            _let_go(sys.stderr)


def _leave(status: object) -> None:
    """End the process now: all is written and closed, and to take a gigabyte of objects apart first takes 60 ms.

    Where standard output or error can't be written to, Python's own end says so.
    """
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status if isinstance(status, int) else 0 if status is None else 1)


def _main(argv: list[str] | None) -> NoReturn:
    # A thread a core is enough for the column library, and the operator may lower it.
    os.environ.setdefault("POLARS_VERBOSE", "0")
    debug = "--debug" in (argv if argv is not None else sys.argv[1:])
    if argv is None:  # else the process is our caller's, and so are its signals
        interruption.listen()
        # Hardly any garbage here is in cycles: to look for it at every 700 objects makes each start 25 ms longer, and
        # to look through the column library once, 36 ms.
        gc.set_threshold(200_000)
    try:
        status = group.main(args=argv, standalone_mode=False)
    except click.exceptions.Exit as stop:
        raise SystemExit(stop.exit_code) from None
    except click.UsageError as error:
        # Of click 8.2 on, a group without a command raises its help.
        if isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):
            error.show()
        else:
            _say(_usage_text(error))
        raise SystemExit(2) from None
    except (click.Abort, KeyboardInterrupt):
        _interrupted()
    except click.ClickException as error:
        error.show()
        raise SystemExit(error.exit_code) from None
    except BrokenPipeError:
        # The reader of our output went away (`| head`).
        _let_go()
        raise SystemExit(1) from None
    except SystemExit:
        raise
    except BaseException as error:  # a panic of the column library is no Exception
        from blocklist.errors import BlocklistError

        if isinstance(error, OSError) and isinstance(error.__context__, KeyboardInterrupt):
            _interrupted()  # and the terminal is closed, to which click would have told it
        if debug:
            raise
        from blocklist.cli.screen import error_text, safe
        from blocklist.shortage import shortage_of

        if isinstance(error, BlocklistError):
            _say(error_text(error))
            raise SystemExit(error.exit_code) from None
        if (told := shortage_of(error)) is not None:
            _let_go()
            _say(error_text(told))
            raise SystemExit(told.exit_code) from None
        if isinstance(error, UnicodeEncodeError) and "surrogates" in error.reason:
            # Words of the command line, and names of files, that are no UTF-8 come so.
            _say(f"error: '{safe(error.object[:200])}' is no UTF-8, and the record keeps no other text")
            raise SystemExit(2) from None
        if isinstance(error, OSError) and error.filename is not None and error.strerror:
            # A disk, a folder or a file that refuses is nothing that we could have done better.
            _say(f"error: {safe(str(error.filename))}: {safe(error.strerror.lower())}")
            raise SystemExit(1) from None
        if isinstance(error, OSError) and error.errno in _DISK and error.strerror:
            # Of a write the system says no name: what is open is standard output, or the file that was asked for.
            _let_go()
            _say(f"error: {safe(error.strerror.lower())}: what was asked for is not written, or not to its end")
            raise SystemExit(1) from None
        _say(
            f"error: unexpected {type(error).__name__}: {safe(str(error)[:500])}\n"
            "This is a bug; run the command again with --debug and report what it prints."
        )
        raise SystemExit(1) from None
    raise SystemExit(status if isinstance(status, int) else 0)


def _interrupted() -> NoReturn:
    _let_go()
    number = interruption.heard()
    how = "interrupted" if number == signal.SIGINT else f"ended by {number.name}"
    with suppress(OSError):
        _say(f"{how}; what was recorded is kept, nothing is half written")
    raise SystemExit(128 + number) from None


def _let_go(stream: TextIO | None = None) -> None:
    """Leave what standard output has not taken: at the end Python would wait for a reader that takes no more."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), (stream or sys.stdout).fileno())


def _usage_text(error: click.UsageError) -> str:
    """A mistake in the words of a command, in the manner of all other errors."""
    from blocklist.cli.screen import safe

    message = error.format_message().removesuffix(".")
    text = f"error: {safe(message[:1].lower() + message[1:])}"
    if error.ctx is None:
        return text
    usage = error.ctx.get_usage().removeprefix("Usage: ")
    return f"{text}\n  usage: {safe(usage)}\n  hint: '{error.ctx.command_path} --help' has examples"


def _say(text: str) -> None:
    click.echo(text, err=True)


__all__ = ["LazyGroup", "main"]
