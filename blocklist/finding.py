"""What a check of this installation found; `blocklist doctor` shows it."""

from __future__ import annotations

from typing import Literal

import msgspec

Word = Literal["ok", "fixed", "warn", "fail"]


class Finding(msgspec.Struct, frozen=True):
    """One check: `place` is what was looked at, `hint` the way out, or what is worth knowing of it."""

    check: str
    word: Word
    place: str
    text: str
    hint: str | None = None
