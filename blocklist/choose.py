"""Which feeds are on, changed in the text of `blocklist.toml`: comments, order and spacing stay as they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.items import Array, Table

from blocklist.config import Config, parse
from blocklist.decode import Problems
from blocklist.errors import ConfigError
from blocklist.publish.file import Candidate, no_release
from blocklist.sets import PREFIX, STARTER, expand


def enabled(text: str, config: Config, what: Sequence[str]) -> str:
    """`text` with everything in `what` (ids and `set:NAME`) on."""
    document = tomlkit.parse(text)
    feeds = _table(document)
    members = _members(config, what)
    _drop(feeds, "disable", config, members)
    on = _array(feeds, "enable", [f"{PREFIX}{STARTER}"])
    for entry in what:
        missing = [i for i in _members(config, [entry]) if i not in config.feeds]
        if missing and entry not in on:
            on.append(entry)
    return tomlkit.dumps(document)


def disabled(text: str, config: Config, what: Sequence[str]) -> str:
    """`text` with nothing in `what` on: out of `enable`, and in `disable` where something else has it on."""
    document = tomlkit.parse(text)
    feeds = _table(document)
    members = _members(config, what)
    left: set[str] = set(config.feeds)
    if "enable" in feeds:
        on = _array(feeds, "enable", [])
        for entry in [*what, *members]:
            while entry in on:
                on.remove(entry)
        by_list = expand(list(map(str, on)), config.catalog, config.catalog, "feeds.enable", Problems())
        own = set(document.get("feed", {})) & set(config.feeds)
        left = set(by_list) | own
    if still := [i for i in members if i in left and i in config.feeds]:
        off = _array(feeds, "disable", [])
        for feed_id in still:
            if feed_id not in off:
                off.append(feed_id)
    return tomlkit.dumps(document)


def replace(path: Path, before: str, text: str) -> Config:
    """Put `text` in the place of `before`, if it is a sound configuration; that configuration.

    Raises ConfigError when it is not, and when somebody changed the file meanwhile.
    """
    config = parse(text, path)
    if text == before:
        return config
    with no_release(), Candidate(path, follow=True) as candidate:
        candidate.stream.write(text.encode())
        candidate.seal()
        candidate.sync()
        if path.read_bytes() != before.encode():
            raise ConfigError(f"{path} was changed by somebody else meanwhile", hint="run the command again")
        candidate.publish()
    return config


def _members(config: Config, what: Sequence[str]) -> list[str]:
    return expand(what, config.catalog, config.catalog, "feeds", Problems())


def _table(document: Any) -> Table:
    """The table `[feeds]`, made at the end where there is none."""
    if "feeds" not in document:
        document["feeds"] = tomlkit.table()
    table: Table = document["feeds"]
    return table


def _array(feeds: Any, key: str, default: list[str]) -> Array:
    if key not in feeds:
        feeds[key] = default
    array: Array = feeds[key]
    return array


def _drop(feeds: Any, key: str, config: Config, members: Sequence[str]) -> None:
    """Take out of a list the ids in `members`, and the sets that hold one of them in favour of their other feeds."""
    if key not in feeds:
        return
    array: Array = feeds[key]
    for entry in list(map(str, array)):
        inside = _members(config, [entry])
        if set(inside) & set(members):
            array.remove(entry)
            for feed_id in inside:
                if feed_id not in members and feed_id not in array:
                    array.append(feed_id)
    if not array:
        del feeds[key]
