"""Is a file fit to be published? What was written is read again; then the engine's own checker is asked."""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from blocklist.errors import ReleaseError
from blocklist.publish.command import Outcome, run
from blocklist.publish.render import Rendered

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blocklist.publish.descriptor import Format

SECONDS = 120.0  # named-checkzone takes 13 s for 2 M records
_PIECE = 1 << 20
# What a file name may not hold when it goes into the configuration of an engine.
_UNQUOTABLE = re.compile(r"[^ !#-\[\]-~]")


class Checked(msgspec.Struct, frozen=True):
    """Who found the file good (`structure`, or the name of a checker), and what there is to say about it."""

    by: str
    detail: str


def check(
    fmt: Format,
    path: Path,
    rendered: Rendered,
    options: Mapping[str, object],
    mode: Literal["auto"] | bool = "auto",
    seconds: float = SECONDS,
) -> Checked:
    """Check the file at `path`, which `rendered` describes. Raises ReleaseError if it must not be published.

    The structure is always checked. `mode`: "auto" asks the engine's checker where there is one that can run,
    True insists on it, False leaves it out. A checker is given this file, never the live configuration.
    """
    _structure(path, rendered, text=not fmt.binary)
    structure = f"{rendered.lines:,} lines, {rendered.size:,} bytes"
    if mode is False:
        return Checked("structure", f"{structure}; the engine's checker is switched off")
    if not fmt.check:
        if mode is True:
            raise ReleaseError(
                f"{path}: there is no checker for {fmt.name}, and check = true wants one",
                hint="set check = 'auto'",
            )
        return Checked("structure", structure)
    tool, reason = _engine(fmt, path, rendered, fmt.settle(options), seconds)
    if reason is None:
        counted = f", {rendered.records:,} records counted" if fmt.check_counts else ""
        return Checked(tool, structure + counted)
    if mode is True:
        raise ReleaseError(
            f"{path}: {reason}, and check = true wants its word",
            hint=f"install {tool} or run as a user that may use it, or set check = 'auto'",
        )
    return Checked("structure", f"{structure}; {reason}")


def _structure(path: Path, rendered: Rendered, *, text: bool) -> None:
    """Read the file again: a full disk or a faulty one shows here, not in a firewall."""
    digest, size, last = hashlib.sha256(), 0, b"\n"
    try:
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                digest.update(piece)
                size += len(piece)
                last = piece[-1:]
                if text and (not piece.isascii() or b"\r" in piece or b"\0" in piece):
                    raise ReleaseError(f"{path}: holds bytes that were not meant to be written")
    except OSError as error:
        raise ReleaseError(f"{path}: can't be read again: {error.strerror or error}") from error
    if size != rendered.size:
        raise ReleaseError(
            f"{path}: {size:,} bytes were read again, {rendered.size:,} were written",
            hint="is the disk full or faulty, or did another program write to the file?",
        )
    # The same bytes have the same lines.
    if (text and last != b"\n") or digest.hexdigest() != rendered.digest:
        raise ReleaseError(f"{path}: what is read again is not what was written", hint="is the disk faulty?")


def _engine(
    fmt: Format, path: Path, rendered: Rendered, values: Mapping[str, Any], seconds: float
) -> tuple[str, str | None]:
    """The checker's name, and why it could not run if it couldn't. Raises ReleaseError when it rejects."""
    tool = tool_of(fmt.check)
    for word in (fmt.check[0], tool):
        if where_is(word) is None:
            return tool, f"{word} is not installed"
    counter = _Counter(fmt.check_counts.encode())
    with _wrapped(fmt, path) as wrapper:
        argv = fill(fmt.check, {**values, "file": str(path), "wrapper": wrapper})
        try:
            outcome = run(argv, seconds=seconds, take=counter.take if fmt.check_counts else None)
        except OSError as error:
            return tool, f"{tool} could not be started: {error.strerror or error}"
    if outcome.status is None:
        raise ReleaseError(
            f"{path}: {tool} did not answer within {seconds:g} s and was ended\n{outcome.shown()}".rstrip(),
            hint="give the check more time, or set check = false for this export",
        )
    if outcome.status != 0:
        for phrase in fmt.check_cannot:
            if phrase in outcome.output:
                return tool, f"{tool} could not run here ({phrase})"
        raise ReleaseError(f"{path}: {_verdict(tool, outcome)}", hint="the file in place is unchanged")
    if fmt.check_counts and counter.close() != rendered.records:
        raise ReleaseError(
            f"{path}: {tool} sees {counter.found:,} records, {rendered.records:,} were written",
            hint="a record that is lost so blocks nothing; please report this",
        )
    return tool, None


def _verdict(tool: str, outcome: Outcome) -> str:
    status = outcome.status or 0
    how = f"was ended by signal {-status}" if status < 0 else f"rejects it (status {status})"
    return f"{tool} {how}\n{outcome.shown()}".rstrip()


def tool_of(argv: list[str]) -> str:
    """The program that judges: `unshare -n ipset …` is ipset's word."""
    words = [word for word in argv if not word.startswith("-")]
    return words[1] if words[0] == "unshare" and len(words) > 1 else words[0]


def where_is(program: str) -> str | None:
    """Where a checker is, if it is anywhere."""
    # Checkers of root's live in sbin, which is often missing from the path of a timer or a user.
    return shutil.which(program) or shutil.which(program, path="/usr/local/sbin:/usr/sbin:/sbin")


def fill(argv: list[str], values: Mapping[str, object]) -> list[str]:
    """`argv` with the values of its placeholders, and the program by its full path if that is needed."""
    filled = [re.sub(r"\{(\w+)\}", lambda match: str(values[match[1]]), word) for word in argv]
    return [where_is(filled[0]) or filled[0], *filled[1:]]


@contextmanager
def _wrapped(fmt: Format, path: Path) -> Iterator[str]:
    """The name of a file with the wrapper for the candidate, while it is needed."""
    if not fmt.wrapper:
        yield ""
        return
    if _UNQUOTABLE.search(str(path)):
        raise ReleaseError(
            f"{path}: the name can't be written into a configuration for {fmt.check[0]}",
            hint="use a path of printable ASCII without quotes and backslashes",
        )
    with tempfile.NamedTemporaryFile("w", encoding="ascii", prefix="blocklist-check-", suffix=".conf") as file:
        file.write(fmt.wrapper.replace("{file}", str(path)))
        file.flush()
        yield file.name


class _Counter:
    """Counts the lines of a stream that hold a mark, without keeping them: 2 M records are 160 MB."""

    def __init__(self, mark: bytes) -> None:
        self.mark = mark
        self.rest = b""
        self.found = 0

    def take(self, piece: bytes) -> None:
        # A name is in lower case and the mark in capitals, so that a line holds it once at most.
        whole, newline, rest = (self.rest + piece).rpartition(b"\n")
        self.found += whole.count(self.mark) if newline else 0
        self.rest = rest

    def close(self) -> int:
        self.found += self.rest.count(self.mark)
        self.rest = b""
        return self.found
