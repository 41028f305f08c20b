"""Keys for zone transfers (TSIG, RFC 8945): from the environment, or from a file that nobody else can read."""

from __future__ import annotations

import os
import re
from pathlib import Path

import dns.exception
import dns.name
import dns.tsig

from blocklist.credentials import refuse_open, secret
from blocklist.errors import FeedError

from .reasons import Failure

_ALGORITHMS = {
    name: dns.name.from_text(name)
    for name in ("hmac-sha224", "hmac-sha256", "hmac-sha384", "hmac-sha512", "hmac-sha256-128", "hmac-sha512-256")
} | {"hmac-sha1": dns.tsig.HMAC_SHA1}
# `tsig-keygen NAME` writes this, and named.conf takes it.
_KEY = re.compile(r'key\s+"?([^"\s{]+)"?\s*\{(.*?)\}\s*;', re.DOTALL)
_SETTING = re.compile(r'\b(algorithm|secret)\s+"?([^";\s]+)"?\s*;')
_COMMENT = re.compile(r"/\*.*?\*/|(?://|#)[^\n]*", re.DOTALL)
_LARGEST = 65_536


def load_key(where: str, base: Path) -> dns.tsig.Key:
    """The key that `where` names: `env:VARIABLE`, `file:PATH` with a relative path below `base`, or `secret:NAME`.

    A variable or a secret holds what `dig -y` takes (`hmac-sha256:NAME:SECRET`), a file what `tsig-keygen` writes.
    Raises Failure, which never holds any of the key.
    """
    kind, _, rest = where.partition(":")
    if kind == "secret":
        try:
            return _of_words(secret(rest, base), where)
        except FeedError as error:
            raise Failure(error.message, hint=error.hint) from None
    if kind == "env":
        text = os.environ.get(rest)
        if not text:
            raise Failure(
                f"tsig = {where!r}: the environment has no variable {rest}",
                hint=f"set {rest}=hmac-sha256:NAME:SECRET where the command runs",
            )
        return _of_words(text.strip(), where)
    return _of_file(_read(base / rest, where), where)


def _of_words(text: str, where: str) -> dns.tsig.Key:
    parts = text.split(":")
    if len(parts) not in (2, 3):
        raise Failure(f"tsig = {where!r}: not of the form hmac-sha256:NAME:SECRET")
    algorithm = parts[0] if len(parts) == 3 else "hmac-sha256"
    return _key(parts[-2], algorithm, parts[-1], where)


def _of_file(text: str, where: str) -> dns.tsig.Key:
    keys = _KEY.findall(_COMMENT.sub("", text))
    if len(keys) != 1:
        raise Failure(
            f"tsig = {where!r}: the file holds {len(keys) or 'no'} keys, not one",
            hint="make it with 'tsig-keygen NAME', as for named.conf",
        )
    name, settings = keys[0]
    found = dict(_SETTING.findall(settings))
    return _key(name, found.get("algorithm", "hmac-sha256"), found.get("secret", ""), where)


def _key(name: str, algorithm: str, secret: str, where: str) -> dns.tsig.Key:
    known = _ALGORITHMS.get(algorithm.lower().rstrip("."))
    if known is None:
        raise Failure(f"tsig = {where!r}: its algorithm is none of {', '.join(sorted(_ALGORITHMS))}")
    try:
        key = dns.tsig.Key(dns.name.from_text(name), secret, known)
    except (dns.exception.DNSException, ValueError):
        key = None
    if key is None or not key.secret:
        raise Failure(f"tsig = {where!r}: its name is no name, or its secret is not in base64")
    return key


def _read(path: Path, where: str) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            try:
                refuse_open(path, os.fstat(descriptor))
            except FeedError as error:
                raise Failure(f"tsig = {where!r}: {error.message}", hint=error.hint) from None
            return file.read(_LARGEST).decode("ascii", errors="replace")
    except OSError as error:
        raise Failure(f"tsig = {where!r}: {path} can't be read: {(error.strerror or '').lower()}") from None
