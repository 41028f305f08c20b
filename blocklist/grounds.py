"""What the record says that decisions stand on, besides the listings themselves."""

from __future__ import annotations

import msgspec
import polars as pl

from blocklist.picture import Picture
from blocklist.store.record import Record


class Grounds(msgspec.Struct, frozen=True):
    """`listed`: as `Picture.listed` gives it; `holds`, `released` and `verdicts`: as the record has them open, whose
    methods tell their columns.
    """

    listed: list[list[int | str]]
    holds: pl.DataFrame
    released: set[str]
    verdicts: pl.DataFrame

    @classmethod
    def of(cls, picture: Picture, record: Record) -> Grounds:
        """As it is now."""
        return cls(picture.listed(), record.open_holds(), record.released_names(), record.verdict_names())

    def same(self, other: Grounds) -> bool:
        """Do the two say the same, row by row?"""
        if (self.listed, self.released) != (other.listed, other.released):
            return False
        return self.holds.equals(other.holds) and self.verdicts.equals(other.verdicts)
