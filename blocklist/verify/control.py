"""Names whose answer is known, by which resolvers are tested before a run and watched during it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Control:
    """Names whose answer is known: `exists` have an address, a random name below `missing` does not exist.

    `canaries` are names that only a resolver which loads our own list answers otherwise than with an address:
    they must be live as well, and failing them is reported as what it is. `lived` are listed names that were live
    when last asked: resolvers that see far fewer of them than expected hide what is listed.
    """

    exists: tuple[str, ...] = ("example.com",)
    missing: str = "com"
    canaries: tuple[str, ...] = ()
    lived: tuple[str, ...] = ()

    def invented(self) -> str:
        """A random name that can't exist."""
        return f"{secrets.token_hex(10)}.{self.missing.strip('.').lower()}".rstrip(".")
