"""What is wrong with this installation, and what to do about it: each check stands alone and changes nothing."""

from __future__ import annotations

import fcntl
import grp
import json
import os
import pwd
import shutil
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from blocklist import clock, credentials
from blocklist.cases import cases, trouble_of
from blocklist.catalog import builtin_descriptors, decode_feed, folder_descriptors, retired
from blocklist.config import Config, Export
from blocklist.decode import Problems
from blocklist.errors import BlocklistError, FeedError, RecordError
from blocklist.finding import Finding, Word
from blocklist.person import running_as
from blocklist.publish.check import tool_of, where_is
from blocklist.publish.descriptor import Format
from blocklist.publish.failures import Failure, failures
from blocklist.publish.standing import file_digest, pending
from blocklist.repair import beyond
from blocklist.store import columns, folders, identity, kept, ledger, snapshots
from blocklist.store.database import REPAIR, path_in, reading
from blocklist.store.feed_pins import feed_pins
from blocklist.store.moment import last_confirmed

_LOW = 500_000_000  # bytes free below which an update may not fit


def examine(config: Config, formats: dict[str, Format], *, deep: bool = False) -> Iterator[Finding]:
    """Every check in turn. `deep` reads all kept downloads and compares them with their digests."""
    yield Finding("configuration", "ok", str(config.path or "built-in defaults"), f"{len(config.feeds)} feeds enabled")
    checks: list[Callable[[], Iterator[Finding]]] = [
        lambda: _feeds(config),
        lambda: _secrets(config),
        lambda: _folders(config),
        lambda: _lock(config),
        lambda: _record(config, deep),
        lambda: _exports(config, formats),
        lambda: _resolvers(config),
        lambda: _engines(config, formats),
    ]
    broken = False
    for check in checks:
        try:
            for finding in check():
                broken = broken or (finding.check, finding.word) == ("record", "fail")
                yield finding
        except BlocklistError as error:
            if broken and isinstance(error, RecordError):
                continue  # said already, with what to do about it
            broken = True
            yield Finding("record", "fail", str(config.state), error.message, error.hint)
        except OSError as error:
            yield Finding("files", "fail", str(error.filename or config.state), (error.strerror or str(error)).lower())


def _feeds(config: Config) -> Iterator[Finding]:
    # As the descriptors have them, without what the configuration overrides.
    shipped = [*builtin_descriptors(), *folder_descriptors(config.base / "feeds.d", Problems())]
    decoded = [feed for i, where, table in shipped if (feed := decode_feed(i, where, table, Problems())) is not None]
    known = {past: feed for feed in decoded for past in feed.past_urls}
    for feed in config.feeds.values():
        if (words := retired(feed)) is not None:
            yield Finding("feeds", "warn", feed.id, words[0], words[1])
        for url in feed.urls:
            if (now := known.get(url)) is not None:
                new = now.urls[0]
                yield Finding(
                    "feeds",
                    "warn",
                    feed.id,
                    f"{url} is a former address of {now.id}",
                    f'in [feed.{feed.id}], write url = "{new}"' + (" or remove the key" if now.id == feed.id else ""),
                )


def _secrets(config: Config) -> Iterator[Finding]:
    wanted = {feed.auth.name for feed in config.feeds.values() if feed.auth is not None}
    if config.fetch.proxy_auth:
        wanted.add(config.fetch.proxy_auth)
    wanted |= {export.tsig for export in config.exports.values() if export.tsig}
    for name in sorted(wanted):
        try:
            credentials.secret(name, config.base)
            yield Finding("secrets", "ok", name, "can be read, by nobody else")
        except FeedError as error:
            yield Finding("secrets", "fail", name, error.message, error.hint)
    folder = config.base / credentials.FOLDER
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name in wanted or not path.is_file():
            continue
        try:
            credentials.refuse_open(path, path.stat())
        except FeedError as error:
            yield Finding("secrets", "fail", path.name, error.message, error.hint)


def _folders(config: Config) -> Iterator[Finding]:
    for folder in dict.fromkeys([config.state, *((config.base / e.path).parent for e in config.exports.values())]):
        there = next(path for path in (folder, *folder.parents) if path.exists())
        if not folder.is_dir() and folder != config.state:
            yield Finding("folders", "warn", str(folder), "does not exist", f"create it: mkdir -p {folder}")
        elif not os.access(there, os.W_OK | os.X_OK):
            yield Finding(
                "folders",
                "fail",
                str(there),
                f"user {running_as()} can't write here",
                "check owner and mode",
            )
        else:
            yield Finding("folders", "ok", str(folder), "can be written")
        if (free := shutil.disk_usage(there).free) < _LOW:
            yield Finding("disk", "warn", str(there), f"{free / 1e6:,.0f} MB are free", "make room before an update")
    if not config.state.is_dir():
        return
    owner = config.state.stat().st_uid
    if strange := list(folders.of_others(config.state)):
        (path, other), more = strange[0], f", and {len(strange) - 1} more" if len(strange) > 1 else ""
        yield Finding(
            "folders",
            "fail",
            f"{path}{more}",
            f"belongs to user {other}, the state to user {owner}",
            f"'chown -R --reference={config.state} {config.state}'; run commands as the user that owns the state",
        )
    yield from _open_to_others(config.state)


def _open_to_others(state: Path) -> Iterator[Finding]:
    """Who may write the record may release, allow and forget, and need not be in its log."""
    found: dict[Word, list[Path]] = {"fail": [], "warn": []}
    for path in (state, *sorted(state.iterdir())):
        with suppress(OSError):  # of a run that ends just now
            status = path.stat()
            if status.st_mode & stat.S_IWOTH:
                found["fail"].append(path)
            elif status.st_mode & stat.S_IWGRP and not _of_one(status):
                found["warn"].append(path)
    for word, paths in found.items():
        if paths:
            who = "everybody" if word == "fail" else f"group {paths[0].stat().st_gid}"
            more = f", and {len(paths) - 1} more" if len(paths) > 1 else ""
            what = f"{who} may write it, and so change what is blocked"
            mode = "o-w" if word == "fail" else "go-w"
            hint = f"'chmod -R {mode} {state}', and a umask of 022 for what runs blocklist"
            yield Finding("folders", word, f"{paths[0]}{more}", what, hint)


def _of_one(status: os.stat_result) -> bool:
    """Is the group that of the owner alone, as where each user has one of the same name?"""
    try:
        group = grp.getgrgid(status.st_gid)
        return pwd.getpwuid(status.st_uid).pw_gid == status.st_gid and not group.gr_mem
    except KeyError:
        return False


def _lock(config: Config) -> Iterator[Finding]:
    path = config.state / "lock"
    if not path.exists():
        return
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            yield Finding("lock", "ok", str(path), "another command is at work")
            return
        left = file.read(1)
    text = "a process that died left it; the next command takes it over" if left else "free"
    yield Finding("lock", "warn" if left else "ok", str(path), text)


def _record(config: Config, deep: bool) -> Iterator[Finding]:
    path = path_in(config.state)
    if (advice := beyond.advice(config.state)) is not None:
        yield advice
        return
    if not path.exists():
        yield Finding("record", "warn", str(path), "there is none yet", "run 'blocklist update'")
        return
    if identity.is_foreign(path):
        yield Finding("record", "fail", str(path), identity.words(), identity.way_out(path))
    with reading(config.state) as db:
        troubles = [row[0] for row in db.execute("PRAGMA quick_check(5)") if row[0] != "ok"]
        if troubles:
            yield Finding("record", "fail", str(path), f"is damaged: {troubles[0]}", REPAIR)
            return
        yield Finding("record", "ok", str(path), f"{path.stat().st_size / 1e6:,.1f} MB, whole")
        newest = db.execute("SELECT started FROM run ORDER BY id DESC LIMIT 1").fetchone()
        last, (latest,) = newest[0] if newest else None, db.execute("SELECT max(started) FROM run").fetchone()
        if last and clock.parse(last) > clock.now():
            yield Finding(
                "clock",
                "fail",
                "this machine",
                f"the last run was at {last}, which is still to come",
                "set the clock: the record goes on, but its times and serials run ahead",
            )
        elif latest and clock.parse(latest) > clock.now():
            text = f"is set right; a run had begun at {latest}, which is still to come: serials go on from there"
            yield Finding("clock", "ok", "this machine", text)
        elif (before := last_confirmed(db, clock.now())) is not None:
            yield Finding(
                "clock",
                "warn",
                "this machine",
                f"says {clock.said(clock.text(clock.now()))}, far ahead of the runs up to "
                f"{clock.said(clock.text(before))}",
                "set it if it is wrong; until a day of runs confirms it, [keep] counts from then",
            )
        for name, pin in sorted(feed_pins(db).items()):
            hint = f"once its publisher is well: 'blocklist feeds unpin {name} --reason …'"
            yield Finding("feeds", "warn", name, f"stands still, {pin.said}", hint)
        yield from _log(path, db)
        yield from _cases(config.state, db)
        yield from _kept(config.state, db, deep)


def _log(path: Path, db: sqlite3.Connection) -> Iterator[Finding]:
    """The chain of events, and decisions and releases against what it says of them."""
    troubles = [*ledger.verify(db), *ledger.compare(db)]
    known = _settled(db)
    if settled := sum((t.event, t.text) in known for t in troubles):
        text = f"{settled:,} things are lost or don't hold since the record was repaired, as an event of then says"
        yield Finding("events", "warn", str(path), text, "'blocklist events verify' lists them")
        troubles = [t for t in troubles if (t.event, t.text) not in known]
        if not troubles:
            return
    for trouble in troubles[:3]:
        where = f"event {trouble.event}" if trouble.event is not None else str(path)
        yield Finding(
            "events",
            "fail",
            where,
            trouble.text,
            f"the log was tampered with, or damaged; all {len(troubles):,}: 'blocklist events verify'",
        )
    if not troubles:
        end = ledger.head(db)
        yield Finding("events", "ok", str(path), f"{end.id:,} events, each chained to the one before; head {end}")


def _settled(db: sqlite3.Connection) -> set[tuple[int | None, str]]:
    """Troubles that a sound event of a repair names: said then, by whom, and no news any more."""
    sound = [event for event in ledger.events(db, what=ledger.REPAIRED) if ledger.is_sound(event)]
    return {(number, text) for event in sound for number, text in event.told()["detail"].get("troubles", [])}


def _cases(state: Path, db: sqlite3.Connection) -> Iterator[Finding]:
    """The evidence of every case, by its digest."""
    every = cases(db, closed=True)
    wrong = [(one, trouble) for one in every if (trouble := trouble_of(state, one)) is not None]
    for one, trouble in wrong:
        hint = "restore the file from a backup"
        yield Finding("cases", "fail", str(state / one.bundle), f"case {one.id}: {trouble}", hint)
    if every and not wrong:
        yield Finding("cases", "ok", str(state / "cases"), f"the evidence of {len(every):,} is as it was kept")


def _kept(state: Path, db: sqlite3.Connection, deep: bool) -> Iterator[Finding]:
    rows = {row[0]: row[1:] for row in db.execute("SELECT id, sha256, state FROM snapshot WHERE stored > 0")}
    lost = [n for n in rows if not snapshots.file_of(state, n).exists()]
    broken = []
    for number, (sha256, _) in rows.items() if deep else ():
        try:
            snapshots.read(state, snapshots.chain(db, number), sha256)
        except RecordError:
            broken.append(number)
    place = str(state / "snapshots")
    hint = (
        "'blocklist doctor --repair' makes those of current lists again where it can; else restore the files from a "
        "backup, and 'blocklist update --force' keeps the current lists whole"
    )
    if lost or broken:
        shown = ", ".join(str(n) for n in sorted({*lost, *broken})[:10])
        text = f"{len({*lost, *broken}):,} kept downloads are missing or damaged: {shown}"
        yield Finding("downloads", "fail", place, text, hint)
    else:
        how = "read and equal to their digests" if deep else "there (--deep reads them)"
        yield Finding("downloads", "ok", place, f"{len(rows):,} {how}")
    current = [(n, sha256) for n, (sha256, now) in rows.items() if now == "current"]
    torn = [
        n
        for n, sha256 in current
        if not columns.file_of(state, n).is_file() or (deep and columns.kept_bytes(state, n, sha256) is None)
    ]
    word: Word = "warn" if torn else "ok"
    yield Finding(
        "caches",
        word,
        str(state / "columns"),
        f"{len(torn)} of {len(current)} are missing or torn" if torn else "whole",
        "'blocklist doctor --repair' makes them again, as the next update does" if torn else None,
    )


def _exports(config: Config, formats: dict[str, Format]) -> Iterator[Finding]:
    live: dict[str, list[tuple[Path, str]]] | None = {}
    failing: dict[str, Failure] = {}
    half: dict[tuple[Path, str], int] = {}
    if beyond.advice(config.state) is not None:
        live = None  # said already, with what to do about it
    elif path_in(config.state).exists():
        with reading(config.state) as db:
            rows = db.execute("SELECT export, digest, path, files FROM release WHERE state = 'live'")
            live = {name: _files(digest, path, files) for name, digest, path, files in rows}
            failing = failures(db)
            half = {
                (place, digest): number
                for name in config.exports
                for number, whole, path, files in pending(db, name)
                for place, digest in _files(whole, path, files)
            }
    for export in config.exports.values():
        path = config.base / export.path
        checker = formats[export.format].check
        if checker and export.check is not False:
            tool = tool_of(checker)
            found = where_is(tool)
            word: Word = "ok" if found else "fail" if export.check is True else "warn"
            yield Finding(
                "checkers",
                word,
                f"{export.name}: {tool}",
                found or "is not installed",
                None if found else f"install {tool}, or only the structure of {export.format} is checked",
            )
        if live is None:
            continue
        if (failure := failing.get(export.name)) is not None:
            hint = f"{failure.hint + '; ' if failure.hint else ''}'blocklist export {export.name}' tries again"
            yield Finding("exports", "fail", export.name, failure.said, hint)
        if export.name not in live:
            yield Finding("exports", "warn", export.name, "was never published", "run 'blocklist update'")
        else:
            # Of an export whose path was changed, the file at the new place is what counts.
            files = live[export.name] if export.split is not None else [(path, live[export.name][0][1])]
            for place, digest in files:
                yield _published(export, place, digest, half, config.state)


def _files(digest: str, path: str, files: str | None) -> list[tuple[Path, str]]:
    """Where the files of a release are, and the digest of each."""
    if files is None:
        return [(Path(path), digest)]
    return [(Path(file["path"]), file["digest"]) for file in json.loads(files)]


def _published(export: Export, path: Path, digest: str, half: dict[tuple[Path, str], int], state: Path) -> Finding:
    """Does the published file stand as it was written, and can an engine of another user get at it?"""
    again = "'blocklist export' writes it again"
    if path.is_symlink() and not export.follow_link:
        return Finding(
            "exports",
            "fail",
            str(path),
            "is a symbolic link, so that nothing is published any more",
            "name the file itself, or set follow_link = true to replace what the link points to",
        )
    if not path.exists():
        return Finding("exports", "fail", str(path), "the published file is gone", again)
    found = file_digest(path)
    if found is None:
        return Finding("exports", "fail", str(path), "is no file that can be read", "check what it is, owner and mode")
    if found != digest and (number := half.get((path.absolute(), found))) is not None:
        text = f"is of release {number}, which a run has begun to publish; one that was killed did not end it"
        return Finding("exports", "warn", str(path), text, "the next run ends it; 'blocklist export' does it now")
    if found != digest and kept.is_kept(state, found):
        text = "is another release than the record's live one: was a backup put back, of this file or of the record?"
        advice = f"if of the record, what was decided since is to be decided again, allows first; then {again}"
        return Finding("exports", "fail", str(path), text, advice)
    if found != digest:
        return Finding("exports", "fail", str(path), "is not what was published: it was edited or cut short", again)
    if export.mode is None and not path.stat().st_mode & stat.S_IROTH:
        return Finding(
            "exports",
            "warn",
            str(path),
            "only its owner and group can read it",
            "if the engine runs as another user, 'chmod o+r' or set mode of the export",
        )
    closed = next((f for f in path.resolve().parents if not f.stat().st_mode & stat.S_IXOTH), None)
    if closed is not None and export.group is None:
        return Finding(
            "exports",
            "warn",
            str(path),
            f"only the owner and group of {closed} can reach it",
            f"if the engine runs as another user, 'chmod o+x {closed}' or put the file elsewhere",
        )
    return Finding("exports", "ok", str(path), "is what was published")


def _resolvers(config: Config) -> Iterator[Finding]:
    """The resolvers that `verify` asks, tested as before a run."""
    if not config.verify.resolvers:
        return
    from blocklist.verify.control import Control
    from blocklist.verify.endpoint import parse_resolver
    from blocklist.verify.loop import run
    from blocklist.verify.preflight import preflight

    table = config.verify.control
    control = Control(tuple(table.exists), table.missing, tuple(table.canaries))
    asked = [parse_resolver(text) for text in config.verify.resolvers]
    try:
        tested = run(preflight(asked, control, rate=config.verify.rate, timeout=config.verify.timeout))
    except BlocklistError as error:
        yield Finding("verify", "fail", ", ".join(map(str, asked)), error.message, error.hint)
        return
    for resolver in tested.usable:
        yield Finding("verify", "ok", str(resolver), "answers, and denies what does not exist")
    for resolver, why in tested.dropped:
        yield Finding(
            "verify", "warn", str(resolver), f"would be dropped: it {why}", "choose another in [verify] resolvers"
        )


def _engines(config: Config, formats: dict[str, Format]) -> Iterator[Finding]:
    """Primaries and resolvers of zones; asked only where there are some."""
    if not path_in(config.state).exists() or not any(e.primary or e.probe for e in config.exports.values()):
        return
    from blocklist.probe import setup

    with reading(config.state, follow=True) as db:
        yield from setup.findings(config, formats, db)
