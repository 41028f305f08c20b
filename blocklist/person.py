"""Who is at the keyboard."""

from __future__ import annotations

import getpass
import os
import pwd


def whoami() -> str:
    """The author of what a person does: the login name, also behind sudo or doas, where the user is the program's."""
    try:
        return os.environ.get("SUDO_USER") or os.environ.get("DOAS_USER") or getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def running_as() -> str:
    """The user that files must belong to, or be open to."""
    return user_name(os.geteuid())


def user_name(user: int) -> str:
    """The name of a user by number, such as the owner of a file."""
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"#{user}"
