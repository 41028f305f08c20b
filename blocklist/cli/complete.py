"""What Tab offers besides commands and options: feeds, sets, exports and formats of the configuration in use."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import click

from blocklist.config import Config
from blocklist.errors import BlocklistError

Complete = Callable[[click.Context, click.Parameter, str], list[str]]


def _of(names: Callable[[Config], Iterable[str]]) -> Complete:
    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
        from blocklist.config import load

        try:
            known = names(load(ctx.params.get("config") or ctx.find_root().params.get("config")))
            return sorted(name for name in known if name.startswith(incomplete))
        except BlocklistError:
            return []  # what is wrong with the configuration is said by the command, not by Tab

    return complete


def _formats(config: Config) -> Iterable[str]:
    from blocklist.publish.descriptor import catalogue

    return catalogue(config.formats_folder)


def _with_sets(config: Config) -> Iterable[str]:
    from blocklist.sets import PREFIX, sets_of

    return [*config.catalog, *(f"{PREFIX}{name}" for name in sets_of(config.catalog))]


enabled_feeds = _of(lambda config: config.feeds)
feeds = _of(lambda config: config.catalog)
feeds_and_sets = _of(_with_sets)
exports = _of(lambda config: config.exports)
formats = _of(_formats)
