"""The steps of `blocklist doctor --repair`, in the order in which each finds what it needs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import closing

from blocklist.config import Config
from blocklist.errors import BlocklistError, RecordError
from blocklist.finding import Finding
from blocklist.person import user_name
from blocklist.publish.descriptor import Format
from blocklist.repair import beyond, caches, damaged, published
from blocklist.store import identity
from blocklist.store.database import open_for_reading, path_in
from blocklist.store.lock import Lock
from blocklist.store.record import Record


def repair(config: Config, formats: Mapping[str, Format]) -> Iterator[Finding]:
    """Put right what can be, under the lock; every step says what it did, and may be killed and run again.

    Nothing is said of what is well. Raises LockedError when another command is at work.
    """
    if not config.state.is_dir():
        return
    owner = config.state.stat().st_uid
    if os.geteuid() == 0 and owner != 0:
        # What root makes here, the user of the timer could not write to any more.
        name = user_name(owner)
        hint = f"run it as that user: sudo -u {name} blocklist doctor --repair"
        yield Finding("repair", "fail", str(config.state), f"belongs to {name}, and this is root", hint)
        return
    taken: list[str] = []
    with Lock(config.state, "doctor --repair", wait=10.0, told=taken.append):
        yield from (Finding("lock", "fixed", str(config.state / "lock"), text) for text in taken)
        if beyond.advice(config.state) is not None or not path_in(config.state).exists():
            return  # the examination says so
        try:
            yield from _steps(config, formats)
        except BlocklistError as error:
            yield Finding("repair", "fail", str(config.state), error.message, error.hint)
        except OSError as error:
            yield Finding("repair", "fail", str(error.filename or config.state), (error.strerror or str(error)).lower())


def _steps(config: Config, formats: Mapping[str, Format]) -> Iterator[Finding]:
    anew = bool(damaged.troubles_of(config.state))
    if anew:
        _refuse_others(config)
        yield from damaged.repair(config)
    with closing(Record.open(config.state)) as record:
        yield from caches.sweep(config, record)
        yield from caches.mend(config, record)
        yield from published.mend(config, formats, record, anew=anew)
        if anew:
            yield from published.foretold(config, formats, record)


def _refuse_others(config: Config) -> None:
    """Raises RecordError for a database of another program, version or installation, as far as it can be told."""
    identity.refuse_foreign(path_in(config.state))
    try:
        open_for_reading(config.state).close()
    except RecordError as error:
        if error.__cause__ is None:
            raise
