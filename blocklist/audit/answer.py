"""What `why` answers with: plain values."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from blocklist.evidence import Hold, Listing, Verdict
from blocklist.rules import Rule


class InExport(msgspec.Struct, frozen=True):
    """What the published file of one export does with the thing asked: `by` names the entry or rule that decides.

    `pending` says what the next release will do (True blocks) where that differs from what is published. `excluded`:
    the export holds nothing of the kind at all.
    """

    name: str
    format: str
    blocked: bool
    by: str | None
    because: str
    release: int | None
    since: str | None
    pending: bool | None = None
    excluded: bool = False


class Answer(msgspec.Struct, frozen=True):
    """Everything `why` knows about `query`, in its canonical form.

    `near`: listed names that a person may have meant, where nothing that covers it is listed.
    """

    query: str
    kind: str
    at: str
    exports: Sequence[InExport]
    listings: Sequence[Listing]
    references: Sequence[Listing]
    confidence: int
    policy: str
    asks: int
    holds: Sequence[Hold]
    rules: Sequence[Rule]
    verdict: Verdict | None
    notes: Sequence[str] = ()
    near: Sequence[str] = ()

    @property
    def blocked(self) -> bool:
        return any(e.blocked for e in self.exports)
