"""What is asked how, apart from the names: the same for one process, several, and workers elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from blocklist.verify.control import Control
from blocklist.verify.endpoint import Resolver
from blocklist.verify.known import Known
from blocklist.verify.resolver import resolve_all
from blocklist.verify.results import Resolution

if TYPE_CHECKING:
    import polars as pl

WINDOW: Final = 500  # most queries under way to a resolver, over all processes of a run


@dataclass(frozen=True)
class Task:
    """Everything can be pickled. `zones`: ask about living names a level up. `seconds` until the deadline.

    `keep_case`: those of the `resolvers` that keep the case of a question, once the pre-flight has told.
    """

    resolvers: tuple[Resolver, ...]
    rate: int
    timeout: float
    attempts: int
    known: Known
    control: Control
    zones: bool
    seconds: float | None = None
    window: int = WINDOW
    keep_case: frozenset[Resolver] = frozenset()


async def ask(names: Sequence[str], task: Task, on_batch: Callable[[pl.DataFrame], None] | None = None) -> Resolution:
    """`resolve_all` as `task` says; its resolvers have been tested."""
    zone_of: Callable[[str], str | None] | None = None
    if task.zones:
        from blocklist.suffixes import builtin_rules

        zone_of = builtin_rules().registrable
    return await resolve_all(
        names,
        task.resolvers,
        rate=task.rate,
        timeout=task.timeout,
        attempts=task.attempts,
        window=task.window,
        on_batch=on_batch,
        deadline=None if task.seconds is None else time.monotonic() + task.seconds,
        known=task.known,
        zone_of=zone_of,
        control=task.control,
        keep_case=task.keep_case,
    )
