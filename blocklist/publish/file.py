"""The one place where a published file is replaced: whole or not at all, with its owner and mode."""

from __future__ import annotations

import grp
import os
import pwd
import secrets
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, TypeVar

from blocklist.errors import BlocklistError, ReleaseError
from blocklist.publish.command import run
from blocklist.shortage import too_many_files, way_out

W = TypeVar("W")
C = TypeVar("C")

# Hidden, and no engine's include glob (*.conf, *.zone, *.d/*) takes it for a list.
SUFFIX = ".blocklist-new"
# mkstemp's 0600 would hide the list from the engine's own user.
_MODE = 0o644
_WHAT = {
    stat.S_IFDIR: "a folder",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
}


class Candidate:
    """A new file beside the one at `path`. Write to `stream`, `seal`, check `new`, `publish`.

    Leaving the `with` block in any other way removes it. `follow` replaces what a symbolic link points to;
    without it a link is refused. `mode`, `owner` and `group` are given to the file; without them it gets
    those of the file that it replaces, else 0644 and the user's own. Raises ReleaseError with the path and
    the way out.
    """

    def __init__(
        self,
        path: Path,
        *,
        follow: bool = False,
        mode: int | None = None,
        owner: str | None = None,
        group: str | None = None,
    ) -> None:
        self.path = path
        self.target = _target(path, follow)
        self.new = self.target.with_name(f".{self.target.name}.{secrets.token_hex(4)}{SUFFIX}")
        self._mode, self._owner, self._group = mode, owner, group
        self._published = False
        try:
            descriptor = os.open(self.new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise refusal(path, self.target.parent, error) from error
        self.stream: BinaryIO = os.fdopen(descriptor, "w+b", buffering=1 << 20)

    def __enter__(self) -> Candidate:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):  # the disk is full still; the error on its way says so
            self.stream.close()
        if not self._published:
            self.new.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise refusal(self.path, self.target.parent, error) from error

    def seal(self) -> Path:
        """End the writing: owner and mode as they will be. The path for the checker."""
        try:
            self.stream.flush()
            self._dress()
        except OSError as error:
            raise refusal(self.path, self.target.parent, error) from error
        return self.new

    def sync(self) -> None:
        """Bytes on the disk, while the checker reads the sealed file."""
        if self.stream.closed:
            return
        try:
            os.fsync(self.stream.fileno())
            self.stream.close()
        except OSError as error:
            raise refusal(self.path, self.target.parent, error) from error

    def publish(self) -> None:
        """Put the sealed file in the place of the old one, for good: it is synced, and so is the folder."""
        self.sync()
        try:
            # Between the opening and now, somebody may have put a link or a pipe there.
            _target(self.target, follow=False)
            self.new.replace(self.target)
            self._published = True
            _sync_folder(self.target.parent)
        except OSError as error:
            raise refusal(self.path, self.target.parent, error) from error

    def _dress(self) -> None:
        descriptor = self.stream.fileno()
        try:
            before: os.stat_result | None = os.lstat(self.target)
        except FileNotFoundError:
            before = None
        mine = os.fstat(descriptor)
        user, group = _ids(self.path, self._owner, self._group)
        user = user if user is not None else before.st_uid if before else mine.st_uid
        group = group if group is not None else before.st_gid if before else mine.st_gid
        if (user, group) != (mine.st_uid, mine.st_gid):
            try:
                os.fchown(descriptor, user, group)
            except PermissionError as error:
                raise ReleaseError(
                    f"{self.path}: the new file can't be given to user {user} and group {group}",
                    hint="run as the owner of the file or as root, or remove the file once",
                ) from error
        kept = stat.S_IMODE(before.st_mode) & 0o777 if before else _MODE
        os.fchmod(descriptor, self._mode if self._mode is not None else kept)


def replace(
    path: Path,
    write: Callable[[BinaryIO], W],
    check: Callable[[Path, W], C],
    *,
    follow: bool = False,
    mode: int | None = None,
    owner: str | None = None,
    group: str | None = None,
) -> tuple[W, C]:
    """Write a new file, check it, and put it in the place of `path`; what `write` and `check` gave.

    Any exception, also an interruption, leaves the old file and nothing beside it.
    """
    with Candidate(path, follow=follow, mode=mode, owner=owner, group=group) as new:
        written = write(new.stream)
        checked = check(new.seal(), written)
        new.publish()
    return written, checked


@contextmanager
def no_release() -> Iterator[None]:
    """Within, what refuses a file ends the command as a whole: with 1, since no release was held or failed."""
    try:
        yield
    except ReleaseError as error:
        raise BlocklistError(error.message, hint=error.hint) from error


def leftovers(path: Path) -> list[Path]:
    """Files that an export to `path` left when it was killed. The caller holds the lock and removes them."""
    prefix = f".{path.name}."
    try:
        found = [item for item in path.parent.iterdir() if item.name.startswith(prefix)]
    except OSError:
        return []
    return sorted(item for item in found if item.name.endswith(SUFFIX))


def reload(argv: Sequence[str], seconds: float, place: str = "reload") -> str:
    """Run a reload command, never through a shell; its output for a person.

    Raises ReleaseError when it can't start, fails or takes longer than `seconds`. The published file stays.
    """
    try:
        outcome = run(argv, seconds=seconds)
    except OSError as error:
        raise ReleaseError(
            f"{place}: {argv[0]} could not be started: {error.strerror or error}",
            hint="the file is published; the reload is tried again at the next run",
        ) from error
    if outcome.status != 0:
        how = f"did not end within {seconds:g} s" if outcome.status is None else f"failed (status {outcome.status})"
        raise ReleaseError(
            f"{place}: {argv[0]} {how}\n{outcome.shown()}".rstrip(),
            hint="the file is published; the reload is tried again at the next run",
        )
    return outcome.shown()


def _target(path: Path, follow: bool) -> Path:
    """The file to replace: `path`, or what its link points to. Raises ReleaseError if it is no plain file."""
    try:
        kind = stat.S_IFMT(os.lstat(path).st_mode)
    except FileNotFoundError:
        return path
    except OSError as error:
        raise refusal(path, path.parent, error) from error
    if kind == stat.S_IFLNK:
        if not follow:
            raise ReleaseError(
                f"{path}: is a symbolic link to {path.readlink()}",
                hint="name the file itself, or set follow_link = true to replace what the link points to",
            )
        return _target(Path(os.path.realpath(path)), follow=False)
    if kind != stat.S_IFREG:
        raise ReleaseError(f"{path}: is {_WHAT.get(kind, 'no plain file')}", hint="name a file")
    return path


def _ids(path: Path, owner: str | None, group: str | None) -> tuple[int | None, int | None]:
    try:
        user = None if owner is None else int(owner) if owner.isdigit() else pwd.getpwnam(owner).pw_uid
    except KeyError:
        raise ReleaseError(f"{path}: there is no user {owner!r} for it", hint="correct 'owner'") from None
    try:
        gid = None if group is None else int(group) if group.isdigit() else grp.getgrnam(group).gr_gid
    except KeyError:
        raise ReleaseError(f"{path}: there is no group {group!r} for it", hint="correct 'group'") from None
    return user, gid


def refusal(path: Path, folder: Path, error: OSError) -> ReleaseError:
    """`error` with the file, the folder and what to do about it."""
    text = error.strerror or str(error)
    if too_many_files(error):
        return ReleaseError(f"{path}: {text.lower()}", hint=way_out(error, "") + "; the file in place is unchanged")
    if isinstance(error.filename, str) and (other := Path(error.filename)).parent != folder:
        # Not of the file that is published, but of the state: its disk may be another one.
        return ReleaseError(
            f"{path}: {other}: {text} ({_free(other.parent)} free in {other.parent})",
            hint="the file in place is unchanged; check the place, its owner, mode and disk",
        )
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return ReleaseError(f"{path}: there is no folder {folder}", hint=f"create it: mkdir -p {folder}")
    if isinstance(error, PermissionError):
        return ReleaseError(
            f"{path}: {text}: the folder {folder} can't be written to",
            hint="give write permission: the new file is made in the same folder, to be renamed",
        )
    free = _free(folder)
    return ReleaseError(f"{path}: {text} ({free} free in {folder})", hint="the file in place is unchanged")


def _free(folder: Path) -> str:
    try:
        info = os.statvfs(folder)
    except OSError:
        return "unknown space"
    return f"{info.f_bavail * info.f_frsize // 10**6:,} MB"


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
