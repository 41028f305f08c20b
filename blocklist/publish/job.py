"""What an export of a run comes to: its job while it is prepared, its outcome, and the release in place before it."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Literal

import msgspec
import polars as pl

from blocklist.config import Export
from blocklist.publish import split
from blocklist.publish.descriptor import Format
from blocklist.publish.plan import Plan
from blocklist.publish.render import Rendered
from blocklist.publish.rewrite import Origin
from blocklist.publish.rollback import Pin
from blocklist.publish.seen import Seen
from blocklist.publish.selection import Selection
from blocklist.splice import Splice
from blocklist.store import kept

ExportOutcomeName = Literal["published", "unchanged", "held", "failed", "shadow"]


class ExportOutcome(msgspec.Struct):
    """What became of one export; a line of the screen and an item of `--json`."""

    name: str
    format: str
    outcome: ExportOutcomeName
    entries: int = 0
    added: int = 0
    removed: int = 0
    release: int | None = None
    serial: int | None = None
    lost: dict[str, int] = msgspec.field(default_factory=dict)
    checked: str = ""
    note: str = ""
    error: str | None = None
    hint: str | None = None
    seconds: float = 0.0
    plan: Plan | None = None

    def add_note(self, text: str) -> None:
        """`text` after what was noted before."""
        self.note = f"{self.note}; {text}" if self.note else text


class Live(msgspec.Struct, frozen=True):
    """The release whose file is in place."""

    id: int
    serial: int
    digest: str
    body_digest: str
    entries: int
    inputs: str
    reloaded: str | None
    path: str
    amends: int | None


class Job(msgspec.Struct, dict=True):
    export: Export
    fmt: Format
    path: Path
    inputs: str
    live: Live | None
    outcome: ExportOutcome
    paths: list[tuple[str, Path]] = msgspec.field(default_factory=list)
    # How the files of the live release looked before they were found to be its own, by category.
    seen: dict[str, Seen | None] = msgspec.field(default_factory=dict)
    candidate: split.Files | None = None
    rendered: Rendered | None = None
    # What is rendered, which decisions it comes from, and how its file came from the one in place, where that is known.
    selection: Selection | None = None
    origin: Origin | None = None
    splice: Splice | None = None
    chosen: kept.Bytes | kept.Spliced | None = None
    # Of the decisions that `chosen` is the text of, where they are those of now.
    token: str | None = None
    left_out: kept.Bytes | None = None
    pin: Pin | None = None
    state: str = "pending"
    same_body: bool = False
    amends: int | None = None
    amended: Job | None = None

    @cached_property
    def entries(self) -> pl.Series:
        """The entries of the selection as numbers."""
        assert self.selection is not None
        return self.selection.entries()
