"""Feeds that come as archives, honest and hostile, from a web server and from files."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard
from feedserver import FeedServer

from blocklist.ingest.fetch import Fetched, Limits, Request, fetch
from blocklist.ingest.unpack import Packing

LIST = b"".join(b"h%d.evil.example\n" % i for i in range(500))
Get = Callable[..., Fetched]


def tar(members: dict[str, bytes], **more: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for name, kind in more.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    return out.getvalue()


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED, mode: int = 0) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(name)
            info.compress_type, info.external_attr = method, mode << 16
            archive.writestr(info, data)
    return out.getvalue()


class _Unseekable(io.RawIOBase):
    def __init__(self, out: io.BytesIO) -> None:
        self.out = out

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        return self.out.write(data)


def zipped_as_stream(data: bytes) -> bytes:
    """Sizes in data descriptors behind the data, and zip64 (APPNOTE 4.3.9, 4.3.14)."""
    out = io.BytesIO()
    archive = zipfile.ZipFile(_Unseekable(out), "w", zipfile.ZIP_DEFLATED)  # type: ignore[arg-type]
    with archive, archive.open("list.txt", "w", force_zip64=True) as member:
        member.write(data)
    return out.getvalue()


@pytest.fixture(params=["web", "file"])
def get(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Get]:
    server = FeedServer()

    def get(body: bytes, member: str | None = None, kind: str = "auto", max_size: int = 50_000_000) -> Fetched:
        into = tmp_path / "into"
        into.mkdir(exist_ok=True)
        server.routes["/packed"] = lambda talk: talk.reply(200, body)
        (tmp_path / "packed").write_bytes(body)
        url = server.url("/packed") if request.param == "web" else "file:packed"
        wanted = Request(
            "f", (url,), allow_private=True, base=tmp_path, packing=Packing(kind, member), max_size=max_size
        )
        [done] = fetch([wanted], into=into, limits=Limits(backoff=0.001))
        assert list(into.iterdir()) == ([done.path] if done.path else [])
        return done

    yield get
    server.close()


def came(done: Fetched) -> bytes:
    assert done.path is not None, done.error
    data = done.path.read_bytes()
    done.path.unlink()
    return data


@pytest.mark.parametrize(
    "body",
    [
        LIST,
        gzip.compress(LIST),
        zstandard.compress(LIST),
        zipped({"list.txt": LIST}),
        zipped({"folder/": b"", "folder/list.txt": LIST}, zipfile.ZIP_STORED),
        zipped_as_stream(LIST),
        tar({"list.txt": LIST}),
        gzip.compress(tar({"./list.txt": LIST})),
        zstandard.compress(tar({"x" * 150 + "/list.txt": LIST})),
    ],
)
def test_the_only_file_is_the_list(get: Get, body: bytes) -> None:
    done = get(body)
    assert came(done) == LIST and done.size == len(LIST)


@pytest.mark.parametrize("pack", [zipped, tar, lambda members: gzip.compress(tar(members))])
@pytest.mark.parametrize("member", ["malware/domains", "./malware/domains", "*/domains"])
def test_a_named_member_is_read_and_nothing_else(
    get: Get, pack: Callable[..., bytes], member: str, tmp_path: Path
) -> None:
    hostile = {"../../escaped": b"x", "/tmp/w-escaped": b"x", "malware/urls": b"x"}
    done = get(pack({**hostile, "malware/domains": LIST, **{f"many/{i}": b"" for i in range(3000)}}), member)
    assert came(done) == LIST
    assert not Path("/tmp/w-escaped").exists() and not list(tmp_path.parent.glob("escaped"))


def _encrypted() -> bytes:
    body = bytearray(zipped({"list.txt": LIST}))
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        body[body.index(mark) + place] |= 1
    return bytes(body)


def _longer_than_it_is() -> bytes:
    """A zip whose directory gives its file ten bytes more (APPNOTE 4.3.12)."""
    body = bytearray(zipped({"list.txt": LIST}))
    struct.pack_into("<I", body, body.index(b"PK\x01\x02") + 24, len(LIST) + 10)
    return bytes(body)


def _tar_with(size: bytes, kind: bytes = tarfile.REGTYPE, pax: bytes = b"") -> bytes:
    """One member `list` that says it has `size` (12 bytes of the header) and LIST behind it, after `pax` if given."""
    head = bytearray(tarfile.TarInfo("list").tobuf(tarfile.USTAR_FORMAT))
    head[124:136], head[156:157] = size, kind
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    more = b""
    if pax:
        info = tarfile.TarInfo("pax")
        info.type, info.size = tarfile.XHDTYPE, len(pax)
        more = info.tobuf(tarfile.USTAR_FORMAT) + pax.ljust(512, b"\0")
    return more + bytes(head) + LIST.ljust(512, b"\0") + bytes(1024)


_SIZE = b"%011o\0" % len(LIST)


@pytest.mark.parametrize(
    ("body", "member", "words"),
    [
        (zipped({"a.txt": LIST, "b.txt": LIST}), None, "several files of the zip may be the list: 'a.txt', 'b.txt'"),
        (tar({"a.txt": LIST, "b.txt": LIST}), None, "several files of the tar may be the list: 'a.txt', 'b.txt'"),
        (tar({"a.txt": LIST}), "c.txt", "there is no file 'c.txt' in the tar; it holds 'a.txt'"),
        (zipped({"a.txt": LIST}), "c.txt", "there is no file 'c.txt' in the zip; it holds 'a.txt'"),
        (zipped({}), None, "there is no file in the zip"),
        (zipped({"../../list": LIST}), None, "a path that leads out of it"),
        (tar({"/etc/list": LIST}), None, "a path that leads out of it"),
        (tar({}, list=tarfile.SYMTYPE), "list", "'list' in the tar is a link"),
        (tar({}, list=tarfile.LNKTYPE), "list", "'list' in the tar is a link"),
        (tar({}, list=tarfile.FIFOTYPE), "list", "'list' in the tar is a device"),
        (zipped({"list": b"/etc/passwd"}, mode=0o120777), "list", "'list' in the zip is a link"),
        (_encrypted(), None, "is encrypted"),
        (zipped({"list": LIST}, zipfile.ZIP_BZIP2), None, "only deflate is read"),
        (zipped({"list.gz": gzip.compress(LIST)}), None, "packed once more (gzip in zip)"),
        (gzip.compress(gzip.compress(LIST)), None, "packed once more (gzip in gzip)"),
        (gzip.compress(zipped({"a": LIST})), None, "packed once more (zip in gzip)"),
        (tar({"inner.tar": tar({"a": LIST})}), None, "packed once more (tar in tar)"),
        (b"\xfd7zXZ\x00" + b"x" * 600, None, "packed as xz, which is not read"),
        (zipped({"a": LIST})[:-30], None, "ends early"),
        (gzip.compress(LIST)[:-3], None, "ends early"),
        (gzip.compress(tar({"a": LIST}))[:-3], None, "ends early"),
        (zstandard.compress(LIST)[:-3], None, "ends early"),
        (tar({"a": LIST})[:3000], None, "ends early"),
        (zipped({f"f{i}": b"" for i in range(25_000)}), "f1", "names too many files"),
        (tar({f"f{i}": b"" for i in range(10_001)}), "f1", "more than 10,000 files"),
        (gzip.compress(LIST), "a.txt", "is a single gzip file"),
        (LIST, "a.txt", "is not an archive"),
        (zipped({"C:list.txt": LIST}), None, "a path that leads out of it"),
        (_longer_than_it_is(), None, "another length than its directory says"),
        # GNU's base 256: minus one (tar(5), "Numeric Values").
        (_tar_with(b"\xff" * 12), None, "a file of negative length"),
        (_tar_with(_SIZE, pax=b"18 size=-5000000000\n"), None, "an extended header"),
        (_tar_with(_SIZE, pax=b"12 size=-50\n"), None, "a file of negative length"),
        (_tar_with(_SIZE, pax=b"22 GNU.sparse.major=1\n"), "list", "is a sparse file"),
        (_tar_with(_SIZE, tarfile.SYMTYPE), "list", "'list' in the tar is a link"),
    ],
)
def test_f10_archives_that_are_refused(get: Get, body: bytes, member: str | None, words: str) -> None:
    done = get(body, member)
    assert done.outcome == "failed" and done.error is not None
    assert words in done.error, done.error


def test_f10_a_link_has_no_data_whatever_its_header_says(get: Get) -> None:
    # Were the size of the folder believed, the list would be skipped as its data.
    folder = bytearray(_tar_with(b"%011o\0" % 512, tarfile.DIRTYPE)[:512])
    folder[:4], folder[148:156] = b"fold", b" " * 8
    folder[148:156] = b"%06o\0 " % sum(folder)
    assert came(get(bytes(folder) + _tar_with(_SIZE))) == LIST


def test_f6_a_zstd_window_is_bounded(get: Get) -> None:
    wide = zstandard.ZstdCompressionParameters.from_level(1, window_log=27)
    packer = zstandard.ZstdCompressor(compression_params=wide).compressobj()
    body = packer.compress(LIST) + packer.flush()
    assert "asks for a window over 32 MiB" in str(get(body).error)


def test_what_is_declared_must_come(get: Get) -> None:
    assert "says one thing" in str(get(LIST, kind="zip").error)
    assert came(get(gzip.compress(tar({"a": LIST})), kind="tar.gz")) == LIST
    assert came(get(gzip.compress(LIST), kind="none")) == gzip.compress(LIST)


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress, lambda data: zipped({"a": data})])
def test_f6_bombs_stop_with_flat_memory(get: Get, pack: Callable[[bytes], bytes]) -> None:
    bomb = pack(b"0" * 120_000_000)
    tracemalloc.start()
    small = get(bomb, max_size=1_000_000)
    large = get(bomb, max_size=500_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "max_size" in str(small.error) and "more than 200 times its size" in str(large.error)
    assert peak < 40_000_000  # zstd hands out 8 MiB at a time


def test_f10_a_header_of_a_gigabyte_is_not_read(get: Get) -> None:
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, 1 << 30
    body = gzip.compress(info.tobuf(tarfile.USTAR_FORMAT) + b"0" * 4096)
    assert "longer than 64 kB" in str(get(body).error)


def test_f10_a_damaged_zip_of_any_kind_is_a_failure(get: Get) -> None:
    whole = zipped({"list.txt": LIST})
    for at in range(0, len(whole), 7):
        done = get(whole[:at] + struct.pack("B", whole[at] ^ 0x55) + whole[at + 1 :], kind="zip")
        assert done.outcome in ("failed", "fetched") and "internal error" not in str(done.error)
        if done.path is not None:
            assert came(done) == LIST
