"""`file:` URLs: a stable copy of a regular file, hashed while copied. `package:` URLs: a list that came with us."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from blocklist.catalog import local_file
from blocklist.packaged import folder_of
from blocklist.person import running_as
from blocklist.regular import NotAFileError, open_regular

from .body import Body
from .decompress import TooLarge
from .reasons import Failure, redact, too_large
from .unpack import AUTO, HEAD, Packing, UnpackError, unpack

if TYPE_CHECKING:
    import threading

_CHUNK = 1 << 20


PACKAGE = "package:"


def is_local(url: str) -> bool:
    return url[:5].lower() == "file:" or url.startswith(PACKAGE)


def packaged(url: str) -> Path | None:
    """The file of a `package:` URL, beside the descriptors of the catalogue; None when there is no such list."""
    name = url.removeprefix(PACKAGE)
    # The name alone: nothing that leads out of the folder.
    if not re.fullmatch(r"[a-z0-9-]+\.txt", name):
        return None
    path = folder_of("blocklist.feeds") / name
    return path if path.is_file() else None


def local_path(url: str, base: Path) -> Path:
    """The path of a `file:` URL (RFC 8089), a relative one below `base`, or of a `package:` URL. Raises Failure."""
    if url.startswith(PACKAGE):
        if (path := packaged(url)) is None:
            raise Failure(f"{redact(url)}: no such list in the package", hint="install blocklist anew")
        return path
    if (path := local_file(url, base)) is not None:
        return path
    if url[5:].startswith("//") and url[7:].partition("/")[0] not in ("", "localhost"):
        raise Failure(
            f"{redact(url)}: a file: URL can't name another host",
            hint="write file:relative.csv or file:///absolute/path.csv",
        )
    raise Failure(f"{redact(url)}: names no file")


def copy_local(
    url: str,
    *,
    base: Path,
    feed: str,
    body: Body,
    deadline: float,
    stop: threading.Event,
    known_sha256: str | None = None,
    known_size: int | None = None,
    packing: Packing = AUTO,
) -> bool:
    """Add the file, or the one packed in it, to `body`; True, and nothing written, if its digest is `known_sha256`
    (and its size `known_size`, where that is given).

    `deadline` is of the monotonic clock, in seconds. Raises Failure.
    """
    path = local_path(url, base)
    where = redact(url)
    try:
        descriptor = open_regular(path)
        with open(descriptor, "rb", buffering=0) as source:
            size = os.fstat(descriptor).st_size
            if size > body.left:
                raise TooLarge

            def check() -> None:
                if stop.is_set():
                    raise Failure(f"{where}: interrupted")
                if monotonic() > deadline:
                    raise Failure(f"{where}: reading the file took too long", hint=f"is {path} on a slow mount?")

            kind = packing.judge(source.read(HEAD))
            if kind is not None:
                unpack(source, size, kind, packing, body.write, check)
                return False
            if packing.member is not None:
                raise UnpackError("it is not an archive", hint="leave 'member' out, or check the file")
            buffer = bytearray(_CHUNK)
            view = memoryview(buffer)
            # Hashing twice what did change is cheaper than writing what did not.
            maybe_same = known_sha256 is not None and known_size in (None, size)
            passes = (True, False) if maybe_same else (False,)
            for only_hash in passes:
                digest = hashlib.sha256()
                source.seek(0)
                while size := source.readinto(buffer):
                    check()
                    if only_hash:
                        digest.update(view[:size])
                    else:
                        body.write(view[:size])
                if only_hash and digest.hexdigest() == known_sha256:
                    return True
    except UnpackError as error:
        raise Failure(f"{where}: {error}", hint=error.hint) from None
    except TooLarge:
        raise too_large(where, feed, body.left + body.size) from None
    except OSError as error:
        raise _in_words(error, path, where, base) from None
    return False


def _in_words(error: OSError, path: Path, where: str, base: Path) -> Failure:
    if isinstance(error, NotAFileError):
        return Failure(f"{where}: {path} {error.what}")
    if isinstance(error, FileNotFoundError):
        return Failure(
            f"{where}: there is no file {path}",
            hint=None if where.startswith("file:/") else f"a file: URL is relative to {base}",
        )
    if isinstance(error, PermissionError):
        return Failure(
            f"{where}: {path} may not be read by user {running_as()}",
            hint="check the permissions of the file and of the folders above it",
        )
    return Failure(f"{where}: {path} can't be read: {(error.strerror or type(error).__name__).lower()}")
