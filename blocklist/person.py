"""Who is at the keyboard."""

from __future__ import annotations

import getpass


def whoami() -> str:
    """The author of what a person does: the login name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
