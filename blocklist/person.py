"""Who is at the keyboard."""

from __future__ import annotations

import getpass
import os


def whoami() -> str:
    """The author of what a person does: the login name, also behind sudo or doas, where the user is the program's."""
    try:
        return os.environ.get("SUDO_USER") or os.environ.get("DOAS_USER") or getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
