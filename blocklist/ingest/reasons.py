"""Why a fetch failed, in words that a person can act on and that never hold a secret."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Literal
from urllib.parse import quote, unquote, urlsplit

_SHOWN = 200  # characters of a URL: a server chooses where it redirects to


Strain = Literal["host", "feed", "refused"]


class Failure(Exception):
    """One URL could not be fetched.

    `again`: worth one more try. `wait`: seconds after which the server allows one. `retry_at`: not before.
    `strain`: whom to ask less often from now on. "host": all of it, "feed": this URL, since the server is busy or
    out of order; "refused": this URL, since the server does not give it. `asked`: False when nothing was sent.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        status: int | None = None,
        again: bool = False,
        wait: float | None = None,
        retry_at: datetime | None = None,
        strain: Strain | None = None,
        asked: bool = True,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.status = status
        self.again = again
        self.wait = wait
        self.retry_at = retry_at
        self.strain = strain
        self.asked = asked
        self.host: str | None = None


def redact(url: str, secrets: Iterable[str] = ()) -> str:
    """`url` for people: no user, no query value, none of `secrets`, short, printable ASCII only."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "(malformed URL)"
    if parts.scheme == "file":
        shown = url
    else:
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
        shown = f"{parts.scheme}://{host}{f':{port}' if port is not None else ''}{parts.path}"
        if parts.query:
            fields = (field.partition("=") for field in parts.query.split("&"))
            shown += "?" + "&".join(f"{name}=***" if equals else "***" for name, equals, _ in fields)
    shown = mask(shown, secrets)
    shown = re.sub(r"[^\x21-\x7e]", "?", shown)
    return shown if len(shown) <= _SHOWN else shown[: _SHOWN - 3] + "..."


def mask(text: str, secrets: Iterable[str]) -> str:
    """`text` with every secret of four characters and more replaced, longest first."""
    forms = {form for secret in secrets for form in (secret, quote(secret), quote(secret, safe=""))}
    for form in sorted(forms, key=len, reverse=True):
        if len(form) >= 4:
            text = text.replace(form, "***")
    return text


def secrets_of(urls: Iterable[str], headers: Iterable[str]) -> frozenset[str]:
    """Everything that must not be shown: header values, passwords in URLs, values in queries."""
    found: set[str] = set()
    for value in headers:
        found.update((value, value.split(" ")[-1]))
    for url in urls:
        try:
            parts = urlsplit(url)
            password = parts.password
        except ValueError:
            continue
        if password:
            found.update((password, unquote(password)))
        for field in parts.query.split("&"):
            value = field.partition("=")[2]
            found.update((value, unquote(value)))
    return frozenset(secret for secret in found if len(secret) >= 6)


def size_in_words(size: int) -> str:
    """Bytes as a person writes them: 64 MB, 1.5 GB, 33 kB, 12 bytes."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{size} bytes"


def too_large(where: str, feed: str, limit: int) -> Failure:
    return Failure(
        f"{where}: larger than max_size ({size_in_words(limit)}); reading stopped there",
        hint=f"if the feed has really grown, raise max_size of feed {feed}",
    )
