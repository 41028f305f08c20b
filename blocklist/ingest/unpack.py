"""Packed feeds: the one file that is the list, out of gzip, zstd, zip or tar, as a stream under limits.

Nothing is ever written under a name that an archive chose: bytes go to `write`, names are only compared and shown.
"""

from __future__ import annotations

import fnmatch
import itertools
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

import msgspec

from .decompress import DecodeError, Decompressor, TooLarge

HEAD = 512  # bytes that tell how something is packed: a tar says it at 257
# Lists pack 3 to 30 times smaller, one that repeats itself 100 times; gzip's most is 1,032. Below the floor it is
# no matter.
MAX_RATIO = 200
_RATIO_FLOOR = 16 * 2**20
MAX_MEMBERS = 10_000
# zipfile takes the whole directory into memory, an object an entry: 1 MiB of it is 22,000 entries at most.
_MAX_READ = 2**20
_MAX_NAME = 64 * 1024  # a long name or a pax header in a tar
_WINDOW = 2**25  # zstd --ultra -20; a content coding may ask for 8 MiB only
_PIECE = 256 * 1024
_UNLIMITED = 2**62
_SHOWN = 8  # names in a message

_MAGIC = (
    (b"\x1f\x8b\x08", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),  # without a file
    (b"\xfd7zXZ\x00", "xz"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"Rar!\x1a\x07", "rar"),
)
_READ = ("gzip", "zstd", "zip", "tar")


class UnpackError(ValueError):
    """The archive can't be read, or not without doubt. `again`: it may have been cut short on its way."""

    def __init__(self, message: str, *, hint: str | None = None, again: bool = False) -> None:
        super().__init__(message)
        self.hint = hint
        self.again = again


class Packing(msgspec.Struct, frozen=True):
    """How a feed is packed, as declared: a kind, "auto" or "none"; and which file of the archive is the list.

    `member` is compared with whole names, a leading `./` aside; `*` stands for anything. None: the only file.
    """

    kind: str = "auto"
    member: str | None = None

    def judge(self, head: bytes) -> str | None:
        """How the bytes that begin with `head` are to be unpacked; None if they are the list. Raises UnpackError."""
        seen = packed_as(head)
        if self.kind == "none" or (seen is None and self.kind == "auto"):
            return None
        if self.kind != "auto":
            declared = self.kind.rpartition(".")[2] if "." in self.kind else self.kind
            declared = {"gz": "gzip", "zst": "zstd"}.get(declared, declared)
            # A tar from before POSIX has nothing to be known by.
            if declared != seen and not (declared == "tar" and seen is None):
                found = seen or "not packed"
                raise UnpackError(f'packed = "{self.kind}" says one thing, its first bytes another ({found})')
            return declared
        if seen not in _READ:
            raise UnpackError(f"it is packed as {seen}, which is not read", hint="gzip, zstd, zip and tar are")
        return seen


AUTO = Packing()


def packed_as(head: bytes) -> str | None:
    """`gzip`, `zstd`, `zip`, `tar`, another kind that is known but not read, or None for anything else."""
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if re.match(rb"BZh[1-9]1AY&SY", head):
        return "bzip2"
    if head[257:262] == b"ustar" and len(head) >= tarfile.BLOCKSIZE:
        try:
            tarfile.TarInfo.frombuf(head[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
        except tarfile.TarError:
            return None
        return "tar"
    return None


def unpack(
    source: BinaryIO, size: int, kind: str, packing: Packing, write: Callable[[bytes], None], check: Callable[[], None]
) -> None:
    """Give the list in `source` (of `size` bytes, packed as `kind`) to `write`, in pieces.

    `check` is called before each piece and may raise. Raises UnpackError and what `write` raises.
    """
    source.seek(0)
    out = _Bounded(write, check, size)
    if kind == "zip":
        _unzip(source, packing, out)
        return
    try:
        pieces = _pieces(source, kind, out)
        if kind == "tar":
            _untar(_Pieces(pieces), packing, out)
            return
        head = b""
        for piece in pieces:
            head += piece
            if len(head) >= HEAD:
                break
        inner = packed_as(head)
        pieces = itertools.chain((head,), pieces)
        if inner == "tar" or packing.kind.startswith("tar."):
            _untar(_Pieces(pieces), packing, out)
            return
        if inner is not None:
            raise _nested(kind, inner)
        if packing.member is not None:
            raise UnpackError(f"it is a single {kind} file, not an archive", hint="leave 'member' out")
        for piece in pieces:
            out.write(piece)
    except DecodeError as error:
        raise UnpackError(str(error), again="early" in str(error)) from None


class _Bounded:
    """What comes out, kept in proportion to what went in."""

    def __init__(self, write: Callable[[bytes], None], check: Callable[[], None], size: int) -> None:
        self._write = write
        self._check = check
        self._left = max(MAX_RATIO * size, _RATIO_FLOOR)

    def count(self, size: int) -> None:
        self._check()
        self._left -= size
        if self._left < 0:
            raise UnpackError(
                f"it unpacks to more than {MAX_RATIO} times its size; reading stopped there",
                hint="no list is packed so tightly: this looks like a bomb",
            )

    def write(self, piece: bytes) -> None:
        self._write(piece)


def _pieces(source: BinaryIO, kind: str, out: _Bounded) -> Iterator[bytes]:
    """The unpacked stream of a gzip or zstd file; of a tar, the file itself."""
    coding = "identity" if kind == "tar" else kind
    decoder = Decompressor(coding, limit=_UNLIMITED, window=_WINDOW)
    while data := source.read(_PIECE):
        for piece in decoder.feed(data):
            out.count(len(piece))
            yield piece
    decoder.finish()


def _nested(outer: str, inner: str) -> UnpackError:
    return UnpackError(
        f"the list inside is packed once more ({inner} in {outer}), which is not read",
        hint="ask the publisher for one layer, or fetch and unpack it yourself and name it as a file: URL",
    )


class _Choice:
    """Which member is the list: found while they go by, and doubted when a second one fits."""

    def __init__(self, member: str | None, what: str) -> None:
        self._member = member
        self._what = what
        self._count = 0
        self._others: list[str] = []  # names for a message, not all
        self._taken: list[str] = []

    def take(self, name: str, kind: str) -> bool:
        """Is the member `name`, a `kind` ("file", "link", …), the one to read? Raises UnpackError."""
        self._count += 1
        if self._count > MAX_MEMBERS:
            raise UnpackError(f"the {self._what} holds more than {MAX_MEMBERS:,} files")
        plain = name.removeprefix("./")
        if self._member is None:
            fits = kind == "file"
        else:
            wanted = self._member.removeprefix("./")
            fits = plain == wanted or ("*" in wanted and kind == "file" and _matches(plain, wanted))
        if not fits:
            if kind != "folder" and len(self._others) < _SHOWN:
                self._others.append(name)
            return False
        if kind != "file":
            raise UnpackError(f"{_shown(name)} in the {self._what} is a {kind}; only a file is read")
        if plain.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", plain) or re.match("[A-Za-z]:", plain):
            raise UnpackError(
                f"the {self._what} names its list {_shown(name)}, a path that leads out of it",
                hint="no honest archive does: nothing was read",
            )
        self._taken.append(name)
        if len(self._taken) == _SHOWN:
            raise self._doubt()
        return len(self._taken) == 1

    def _doubt(self) -> UnpackError:
        if len(set(self._taken)) == 1:
            return UnpackError(f"the {self._what} holds {_shown(self._taken[0])} more than once")
        shown = ", ".join(map(_shown, self._taken))
        return UnpackError(f"several files of the {self._what} may be the list: {shown}", hint='name one: member = "…"')

    def settle(self) -> None:
        """All members have gone by: was it one, and one only? Raises UnpackError."""
        if len(self._taken) > 1:
            raise self._doubt()
        if self._taken:
            return
        holds = f"; it holds {', '.join(map(_shown, self._others))}" if self._others else ""
        if self._member is None:
            raise UnpackError(f"there is no file in the {self._what}{holds}")
        raise UnpackError(f"there is no file {_shown(self._member)} in the {self._what}{holds}", hint="see 'member'")


def _matches(name: str, pattern: str) -> bool:
    # Only `*` is special: a name may hold brackets.
    return fnmatch.fnmatchcase(name, re.sub(r"[\[?]", lambda found: f"[{found[0]}]", pattern))


def _shown(name: str) -> str:
    return repr(re.sub(r"[^\x20-\x7e]", "?", name if len(name) <= 60 else name[:57] + "..."))


class _Sniffed:
    """Looks at the first bytes of a member: a list that is packed again is not a list."""

    def __init__(self, out: _Bounded, outer: str) -> None:
        self._out = out
        self._outer = outer
        self._head = b""
        self._known = False

    def write(self, piece: bytes) -> None:
        if self._known:
            self._out.write(piece)
            return
        self._head += piece
        if len(self._head) >= HEAD:
            self.end()

    def end(self) -> None:
        if self._known:
            return
        if (inner := packed_as(self._head)) is not None:
            raise _nested(self._outer, inner)
        self._known = True
        self._out.write(self._head)


# zip


class _SmallReads:
    """A file of which never more than a little is read at once: a hostile directory must not fill the memory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        if size > _MAX_READ:
            raise UnpackError("the zip's directory is too long: it names too many files")
        return self._file.read(_MAX_READ if size < 0 else size)

    def seekable(self) -> bool:
        return True


def _unzip(source: BinaryIO, packing: Packing, out: _Bounded) -> None:
    try:
        with zipfile.ZipFile(_SmallReads(source)) as archive:
            choice = _Choice(packing.member, "zip")
            chosen = None
            for info in archive.infolist():
                if choice.take(info.filename, _kind_in_zip(info)):
                    chosen = info
            choice.settle()
            assert chosen is not None
            if chosen.flag_bits & 0x1:
                raise UnpackError(
                    f"{_shown(chosen.filename)} in the zip is encrypted", hint="only what anybody can read is read"
                )
            if chosen.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise UnpackError(
                    f"{_shown(chosen.filename)} in the zip is compressed by method {chosen.compress_type}; "
                    "only deflate is read"
                )
            sniffed, came = _Sniffed(out, "zip"), 0
            with archive.open(chosen) as member:
                while piece := member.read(_PIECE):
                    came += len(piece)
                    out.count(len(piece))
                    sniffed.write(piece)
            if came != chosen.file_size:
                raise UnpackError("the zip is damaged: its file has another length than its directory says")
            sniffed.end()
    except (UnpackError, TooLarge):
        raise
    except EOFError:
        raise UnpackError("the zip ends early", again=True) from None
    except (
        *(zipfile.BadZipFile, zlib.error, struct.error, NotImplementedError),
        *(ValueError, OverflowError, RuntimeError, OSError, IndexError),
    ) as error:
        words = re.sub(r"[^\x20-\x7e]", "?", str(error))[:100]
        raise UnpackError(f"the zip is damaged, or ends early ({words})", again=True) from None


def _kind_in_zip(info: zipfile.ZipInfo) -> str:
    if info.is_dir():
        return "folder"
    # The high half is a Unix mode, whatever system the header claims; 0 where none was kept.
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind in (0, stat.S_IFREG):
        return "file"
    return "link" if kind == stat.S_IFLNK else "folder" if kind == stat.S_IFDIR else "device"


# tar


class _Pieces:
    """A stream of pieces that is read by length."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._left = memoryview(b"")

    def some(self, most: int) -> bytes:
        """At least one byte and at most `most`; none at the end."""
        while not self._left:
            try:
                self._left = memoryview(next(self._pieces))
            except StopIteration:
                return b""
        piece, self._left = self._left[:most], self._left[most:]
        return bytes(piece)

    def exactly(self, size: int, write: Callable[[bytes], None] | None = None) -> bytes:
        """`size` bytes, given to `write` if there is one, else returned. Raises UnpackError at the end."""
        kept = []
        while size:
            piece = self.some(min(size, _PIECE))
            if not piece:
                raise UnpackError("the tar ends early", again=True)
            size -= len(piece)
            if write is None:
                kept.append(piece)
            else:
                write(piece)
        return b"".join(kept)


_TAR_KINDS = {
    tarfile.REGTYPE: "file",
    tarfile.AREGTYPE: "file",
    tarfile.CONTTYPE: "file",
    tarfile.DIRTYPE: "folder",
    tarfile.LNKTYPE: "link",
    tarfile.SYMTYPE: "link",
    tarfile.GNUTYPE_SPARSE: "sparse file",
}


def _untar(stream: _Pieces, packing: Packing, out: _Bounded) -> None:
    """Members as they go by (POSIX.1-2008 pax, "ustar Interchange Format"; GNU's long names).

    tarfile would take a header of any length into memory, so it parses the blocks and the walk is ours.
    """
    choice = _Choice(packing.member, "tar")
    name = size = sparse = None
    while True:
        block = stream.exactly(tarfile.BLOCKSIZE)
        if not block.strip(b"\0"):
            break
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except (tarfile.TarError, ValueError) as error:
            raise UnpackError(f"the tar is damaged ({error})") from None
        length = info.size if size is None or info.type in _EXTENSIONS else size
        if length < 0:
            raise UnpackError("the tar is damaged (a file of negative length)")
        padding = -length % tarfile.BLOCKSIZE
        if info.type in _EXTENSIONS:
            if length > _MAX_NAME:
                raise UnpackError("the tar has a header longer than 64 kB")
            text = stream.exactly(length)
            stream.exactly(padding)
            if info.type == tarfile.GNUTYPE_LONGNAME:
                name = text.rstrip(b"\0").decode("utf-8", "surrogateescape")
            elif info.type == tarfile.XHDTYPE:
                fields = _pax(text)
                name = fields.get("path", name)
                sparse = next((key for key in fields if key.startswith("GNU.sparse.")), sparse)
                if "size" in fields:
                    size = int(fields["size"]) if re.fullmatch("[0-9]{1,18}", fields["size"]) else -1
            continue
        kind = "sparse file" if sparse else _TAR_KINDS.get(info.type, "device")
        # Links and folders have no data, whatever their header says.
        if kind not in ("file", "sparse file"):
            length = padding = 0
        if choice.take(name or info.name, kind):
            sniffed = _Sniffed(out, "tar")
            stream.exactly(length, sniffed.write)
            sniffed.end()
        else:
            stream.exactly(length, _forget)
        stream.exactly(padding)
        name = size = sparse = None
    while stream.some(_PIECE):  # to the end, where gzip and zstd keep their checksums
        pass
    choice.settle()


_EXTENSIONS = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)


def _forget(piece: bytes) -> None:
    """What is not asked for goes nowhere."""


def _pax(text: bytes) -> dict[str, str]:
    """Records `length key=value` of an extended header. Raises UnpackError."""
    fields = {}
    while text.strip(b"\0"):
        length, space, _ = text.partition(b" ")
        if not space or not re.fullmatch(rb"[0-9]{1,6}", length) or not len(length) + 1 < int(length) <= len(text):
            raise UnpackError("the tar is damaged (an extended header)")
        record, text = text[len(length) + 1 : int(length)], text[int(length) :]
        key, _, value = record.removesuffix(b"\n").partition(b"=")
        fields[key.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
    return fields
