"""What a release was made by: the configuration of then, in two parts that are kept once however many share them."""

from __future__ import annotations

import hashlib
import sqlite3

import msgspec

from blocklist import __version__
from blocklist.catalog import Feed
from blocklist.config import Config, Export, Policy, Protect
from blocklist.publish.descriptor import Format


class Common(msgspec.Struct, frozen=True, kw_only=True):
    """What all exports of a run share: the enabled feeds with every key, what is protected, the suffix list."""

    version: str
    suffixes: str
    feeds: dict[str, Feed]
    protect: Protect
    resolvers: list[str]


class Own(msgspec.Struct, frozen=True, kw_only=True):
    """What one export adds: itself, its policy, the descriptor of its format."""

    export: Export
    policy: Policy
    format: Format


class Settings(msgspec.Struct, frozen=True):
    """Both parts."""

    common: Common
    own: Own


def common_of(config: Config, suffixes: str) -> Common:
    """`suffixes`: the digest of the suffix list in use."""
    return Common(
        version=__version__,
        suffixes=suffixes,
        feeds=dict(config.feeds),
        protect=config.protect,
        resolvers=list(config.verify.resolvers),
    )


def note(connection: sqlite3.Connection, release: int, common: Common, own: Own) -> None:
    """Write down what `release` was made by; a part that is known already is only named (SHA-256 of canonical JSON)."""
    digests = []
    for part in (common, own):
        body = msgspec.json.encode(part, order="sorted")
        digests.append(hashlib.sha256(body).hexdigest())
        connection.execute("INSERT OR IGNORE INTO setting (digest, body) VALUES (?, ?)", (digests[-1], body.decode()))
    connection.execute("UPDATE release SET common = ?, own = ? WHERE id = ?", (*digests, release))


def of_release(connection: sqlite3.Connection, release: int) -> Settings | None:
    """What `release` was made by; None for one of a version that did not write it down."""
    row = connection.execute(
        "SELECT c.body, o.body FROM release r JOIN setting c ON c.digest = r.common "
        "JOIN setting o ON o.digest = r.own WHERE r.id = ?",
        (release,),
    ).fetchone()
    if row is None:
        return None
    try:
        return Settings(msgspec.json.decode(row[0], type=Common), msgspec.json.decode(row[1], type=Own))
    except msgspec.ValidationError:
        return None  # of a version whose keys mean something else


def feeds_at(connection: sqlite3.Connection, run: int) -> dict[str, Feed]:
    """Every feed that the record knew at `run`, as it was then: by the newest release, else by its last version.

    An export run alone may have been the first to use attributes that no update had written down yet.
    """
    feeds: dict[str, Feed] = {}
    of_run = 0
    row = connection.execute(
        "SELECT r.run, c.body FROM release r JOIN setting c ON c.digest = r.common WHERE r.run <= ? "
        "ORDER BY r.run DESC, r.id DESC LIMIT 1",
        (run,),
    ).fetchone()
    if row is not None:
        of_run = int(row[0])
        feeds = msgspec.json.decode(row[1], type=Common).feeds
    versions = connection.execute(
        "SELECT f.name, v.attributes, v.since FROM feed f JOIN feed_version v ON v.feed = f.id "
        "AND v.since = (SELECT max(since) FROM feed_version WHERE feed = f.id AND since <= ?)",
        (run,),
    )
    for name, attributes, since in versions:
        if attributes != "{}" and (name not in feeds or since > of_run):
            feeds[name] = msgspec.json.decode(attributes, type=Feed)
    return feeds
