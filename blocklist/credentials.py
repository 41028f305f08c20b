"""Keys of feeds: from the environment or from a file that nobody else can read; never from the configuration.

Standard library only.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from blocklist.errors import FeedError
from blocklist.person import running_as

FOLDER = "secrets"
_PREFIX = "BLOCKLIST_SECRET_"
_SHORTEST = 6  # what is shorter can't be kept out of messages, and is no key
_LONGEST = 16_384


def variable(name: str) -> str:
    """The environment variable of the secret `name`: `BLOCKLIST_SECRET_ABUSE_CH` for `abuse-ch`."""
    return _PREFIX + name.upper().replace("-", "_")


def places(name: str, base: Path) -> list[Path]:
    """Files where the secret may be: systemd's credentials (systemd.exec(5), LoadCredential=), then `secrets/`."""
    given = os.environ.get("CREDENTIALS_DIRECTORY")
    return [*([Path(given) / name] if given else []), base / FOLDER / name]


def secret(name: str, base: Path) -> str:
    """The value of the secret `name`. Raises FeedError, which never holds it."""
    if (value := os.environ.get(variable(name))) is not None:
        return _checked(value, f"the variable {variable(name)}")
    files = places(name, base)
    for path in files:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise FeedError(
                f"{path}: the secret can't be read: {(error.strerror or '').lower()}",
                hint=f"it must belong to the user that runs blocklist (now {running_as()}) and have mode 600",
            ) from None
        with open(descriptor, "rb") as file:
            refuse_open(path, os.fstat(descriptor), by_systemd=path != files[-1])
            try:
                text = file.read(_LONGEST + 1).decode("utf-8")
            except (OSError, UnicodeDecodeError):
                raise FeedError(f"{path}: the secret is not text") from None
        return _checked(text, str(path))
    raise FeedError(
        f"the secret '{name}' is nowhere",
        hint=f"put it into {files[-1]} (chmod 600) or into the variable {variable(name)}",
    )


def refuse_open(path: Path, status: os.stat_result, *, by_systemd: bool = False) -> None:
    """Raises FeedError when others can read the file, or could have written it."""
    if not stat.S_ISREG(status.st_mode):
        raise FeedError(f"{path}: the secret is not a file")
    if status.st_uid not in (0, os.geteuid()):
        raise FeedError(
            f"{path}: the secret belongs to user {status.st_uid}",
            hint=f"inspect it, then 'chown {running_as()} {path}'",
        )
    # systemd makes its files 0440 in a folder of their own, and lets the service in by an access list.
    others = stat.S_IRWXO if by_systemd else stat.S_IRWXG | stat.S_IRWXO
    if status.st_mode & others:
        raise FeedError(
            f"{path}: others can read this secret (mode {stat.S_IMODE(status.st_mode):o}); it is not used",
            hint=f"'chmod 600 {path}', and ask the publisher for a new key if someone may have read it",
        )


def _checked(text: str, where: str) -> str:
    value = text.strip("\r\n")
    if not value:
        raise FeedError(f"{where}: the secret is empty")
    if len(value) < _SHORTEST or len(value) > _LONGEST:
        raise FeedError(f"{where}: a secret has {_SHORTEST} to {_LONGEST:,} characters")
    if not value.isascii() or not value.isprintable():
        raise FeedError(f"{where}: the secret holds a line break or another character that can't be sent")
    return value


def without_secrets() -> dict[str, str]:
    """The environment for commands that are run: they need no key of a feed."""
    hidden = {"CREDENTIALS_DIRECTORY"}
    return {key: value for key, value in os.environ.items() if not key.startswith(_PREFIX) and key not in hidden}
