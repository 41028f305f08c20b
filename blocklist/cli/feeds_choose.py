"""`blocklist feeds enable` and `blocklist feeds disable`: the two lists of `[feeds]`, edited in place."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import click

from blocklist.catalog import ESSENTIAL
from blocklist.cli import complete
from blocklist.cli.screen import Screen, shared_options
from blocklist.cli.setup import configuration
from blocklist.config import Config
from blocklist.decode import Problems
from blocklist.errors import ConfigError
from blocklist.sets import consequences, expand


@click.command("enable")
@click.argument("what", nargs=-1, required=True, metavar="ID|set:NAME...", shell_complete=complete.feeds_and_sets)
@shared_options
def enable(screen: Screen, what: tuple[str, ...]) -> int:
    """Enable feeds, in blocklist.toml; its comments and order stay.

    \b
    Examples:
      blocklist feeds enable cert-pl openphish
      blocklist feeds enable set:attack set:reference
    """
    from blocklist.choose import enabled

    return _edit(screen, what, enabled)


@click.command("disable")
@click.argument("what", nargs=-1, required=True, metavar="ID|set:NAME...", shell_complete=complete.feeds_and_sets)
@shared_options
def disable(screen: Screen, what: tuple[str, ...]) -> int:
    """Disable feeds, in blocklist.toml; their listings are closed by the next update.

    \b
    Examples:
      blocklist feeds disable greensnow
      blocklist feeds disable set:disinformation
    """
    from blocklist.choose import disabled

    return _edit(screen, what, disabled)


def _edit(screen: Screen, what: Sequence[str], change: Callable[[str, Config, Sequence[str]], str]) -> int:
    from blocklist.choose import replace
    from blocklist.config import read

    config, _ = configuration(screen)
    if config.path is None:
        raise ConfigError(
            "there is no blocklist.toml to change; the built-in defaults are used",
            hint="write one with 'blocklist init'",
        )
    problems = Problems()
    expand(what, config.catalog, config.catalog, "feeds", problems)
    if problems.lines:
        raise click.UsageError("\n".join(line.removeprefix("feeds: ") for line in problems.lines))
    if change.__name__ == "disabled" and ESSENTIAL in what:
        raise click.UsageError(
            f"{ESSENTIAL} is the built-in list of what must never be blocked; "
            "only [protect] essential = false in blocklist.toml turns it off"
        )
    before = read(config.path)
    text = change(before, config, what)
    after = replace(config.path, before, text)
    new = [after.feeds[i] for i in after.feeds if i not in config.feeds]
    gone = [i for i in config.feeds if i not in after.feeds]
    asks = consequences(new)
    screen.json(
        {
            "file": str(config.path),
            "enabled": [f.id for f in new],
            "disabled": gone,
            "licences": asks,
            "now": len(after.feeds),
        }
    )
    for word, ids in (("enabled", [f.id for f in new]), ("disabled", gone)):
        if ids:
            screen.line(f"{word} {', '.join(ids)}")
    for sentence in asks:
        screen.line(f"  {sentence}")
    screen.line("next: blocklist update" if new or gone else "nothing to change")
    return 0
