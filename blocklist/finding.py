"""What a check of this installation found; `blocklist doctor` shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Word = Literal["ok", "fixed", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """One check: `place` is what was looked at, `hint` the way out, or what is worth knowing of it."""

    check: str
    word: Word
    place: str
    text: str
    hint: str | None = None
