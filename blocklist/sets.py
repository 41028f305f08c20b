"""Sets of feeds: enabled at once by `set:NAME`, and what their licences ask of whoever enables them."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Iterable

import msgspec

from blocklist.catalog import ESSENTIAL, SETS_FILE, Catalog, Feed
from blocklist.decode import Problems, nearest
from blocklist.packaged import folder_of

PREFIX = "set:"
STARTER = "starter"


class FeedSet(msgspec.Struct, frozen=True):
    """Feeds that serve one purpose. `feeds`: ids, in the order in which they are enabled and shown."""

    name: str
    title: str
    feeds: tuple[str, ...]


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    title: str
    feeds: list[str]


@functools.cache
def _written() -> dict[str, _Entry]:
    text = (folder_of("blocklist.feeds") / SETS_FILE).read_text("utf-8")
    return msgspec.convert(tomllib.loads(text), dict[str, _Entry])


def sets_of(catalog: Catalog) -> dict[str, FeedSet]:
    """Every set by its name: the starter set, which the feeds themselves say they belong to, then `feeds/sets.toml`."""
    starter = tuple(feed_id for feed_id in catalog.starters() if feed_id != ESSENTIAL)
    found = {STARTER: FeedSet(STARTER, "What is enabled where nothing is chosen", starter)}
    for name, entry in _written().items():
        found[name] = FeedSet(name, entry.title, tuple(entry.feeds))
    return found


def expand(entries: Iterable[str], catalog: Catalog, known: Iterable[str], place: str, problems: Problems) -> list[str]:
    """Ids that `entries` (ids and `set:NAME`) stand for, each once and in order.

    `known`: every id that may be named, also of feeds whose own mistakes are told elsewhere.
    """
    sets: dict[str, FeedSet] = {}
    ids = set(known)
    wanted: list[str] = []
    for entry in entries:
        if entry not in ids:
            sets = sets or sets_of(catalog)
        if entry.startswith(PREFIX):
            name = entry.removeprefix(PREFIX)
            if problems.choose(place, name, sets, "set"):
                wanted += sets[name].feeds
        elif entry in ids:
            wanted.append(entry)
        elif entry in sets:
            problems.add(place, f"{entry!r} is a set; write '{PREFIX}{entry}'")
        else:
            problems.add(place, f"unknown feed {entry!r}{nearest(entry, ids)}")
    return list(dict.fromkeys(wanted))


def consequences(feeds: Iterable[Feed], *, shown: int | None = None) -> list[str]:
    """What the licences of `feeds` ask of a user, a sentence each, the gravest first; nothing where they ask nothing.

    From the identifiers of the SPDX licence list: `NC` forbids commercial use, `SA` and the GPL family bind copies to
    the same licence, `BY` asks for the author's name. References are not passed on by an export, so that only
    commercial use counts for them. `shown`: so many names at most in each sentence.
    """
    feeds = list(feeds)
    listed = [feed for feed in feeds if not feed.is_reference]
    groups = (
        ("forbids", "forbid", "commercial use", feeds, lambda f: f.commercial_use == "no"),
        (
            "has",
            "have",
            "no licence on record: ask the publisher before you pass entries on",
            listed,
            lambda f: f.licence == "unknown",
        ),
        ("has", "have", "special terms: read them before you pass entries on", listed, _own_terms),
        ("binds", "bind", "what is made of it to the same licence", listed, lambda f: _shares_alike(f.licence)),
        ("asks", "ask", "for the author's name", listed, lambda f: _attributes(f.licence)),
    )
    return [
        f"{len(found)} of {len(of)} {one if len(found) == 1 else more} {what}: {_names(found, shown)}"
        for one, more, what, of, test in groups
        if (found := [feed for feed in of if test(feed)])
    ]


def _names(feeds: list[Feed], shown: int | None) -> str:
    ids = [feed.id for feed in feeds]
    if shown is None or len(ids) <= shown:
        return ", ".join(ids)
    return f"{', '.join(ids[:shown])} and {len(ids) - shown} more"


def _shares_alike(licence: str) -> bool:
    return licence.startswith(("GPL-", "AGPL-", "LGPL-")) or "-SA" in licence


def _own_terms(feed: Feed) -> bool:
    return feed.licence != "unknown" and feed.commercial_use == "unknown"


def _attributes(licence: str) -> bool:
    return licence.startswith("CC-BY")
