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


def _in_record(sql: str) -> Complete:
    """First columns of the rows of `sql`, whose parameter `:feed` is the feed that was typed before."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
        from blocklist.config import load
        from blocklist.store.database import reading

        try:
            config = load(ctx.params.get("config") or ctx.find_root().params.get("config"))
            with reading(config.state) as db:
                # Behind an option whose value is still missing click has parsed no argument yet.
                feed = ctx.params.get("feed") or next(iter(ctx.args), None)
                found = [str(row[0]) for row in db.execute(sql, {"feed": feed})]
        except BlocklistError:
            return []
        return [text for text in found if text.startswith(incomplete)]

    return complete


enabled_feeds = _of(lambda config: config.feeds)
feeds = _of(lambda config: config.catalog)
feeds_and_sets = _of(_with_sets)
exports = _of(lambda config: config.exports)
formats = _of(_formats)
pinned_feeds = _in_record("SELECT f.name FROM feed_pin p JOIN feed f ON f.id = p.feed WHERE p.until IS NULL ORDER BY 1")
snapshots = _in_record(
    "SELECT s.id FROM snapshot s JOIN feed f ON f.id = s.feed WHERE f.name = :feed AND s.stored > 0 ORDER BY 1 DESC"
)
taken_snapshots = _in_record(
    "SELECT s.id FROM snapshot s JOIN feed f ON f.id = s.feed WHERE f.name = :feed AND s.stored > 0 AND s.gate IS NULL "
    "ORDER BY 1 DESC",
)
