"""Fetching from real servers that behave as feeds do on a bad day."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import logging
import os
import socket
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import zstandard
from engines import driver
from feedserver import Certificates, FeedServer, Talk, make_certificates
from msgspec import structs

from blocklist import special_use
from blocklist.errors import RecordError
from blocklist.ingest.addresses import refusal
from blocklist.ingest.content import looks_like_html
from blocklist.ingest.decompress import DecodeError, Decompressor, TooLarge
from blocklist.ingest.fetch import Fetched, Limits, Request, fetch, fetch_all
from blocklist.ingest.loopback import LoopbackServer, Page
from blocklist.ingest.reasons import redact

HOSTS = b"# URLhaus\n127.0.0.1 malware.example\n127.0.0.1 bad.example\n"
LIMITS = Limits(connect=2.0, idle=0.4, total=3.0, retry_after_max=1.5, backoff=0.01)


@pytest.fixture
def server() -> Iterator[FeedServer]:
    server = FeedServer()
    server.routes["/hosts"] = lambda talk: talk.reply(200, HOSTS)
    yield server
    server.close()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def tls_server(certificates: Certificates, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], FeedServer]]:
    """Starts a server with a given chain; the test authority is trusted."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.authority))
    servers: list[FeedServer] = []

    def start(chain: Path) -> FeedServer:
        servers.append(FeedServer(tls=Certificates.server_context(chain)))
        servers[-1].routes["/hosts"] = lambda talk: talk.reply(200, HOSTS)
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def get(tmp_path: Path) -> Callable[..., Fetched]:
    """Fetch one feed; afterwards the temporary folder holds its file or nothing."""

    def get(*urls: str, limits: Limits = LIMITS, **more: Any) -> Fetched:
        into = tmp_path / "into"
        into.mkdir(exist_ok=True)
        before = set(into.iterdir())
        more = {"allow_private": True, "base": tmp_path} | more
        [done] = fetch([Request("urlhaus-hosts", urls, **more)], into=into, limits=limits)
        assert set(into.iterdir()) - before == ({done.path} if done.path else set())
        assert (done.path is not None) == (done.outcome == "fetched")
        if done.path is not None:
            assert hashlib.sha256(done.path.read_bytes()).hexdigest() == done.sha256
            assert done.path.stat().st_size == done.size
        return done

    return get


Get = Callable[..., Fetched]


def failed(done: Fetched, *words: str) -> None:
    assert done.outcome == "failed", done
    assert done.error is not None
    for word in words:
        assert word in done.error, done.error


# What goes well


def test_a_feed_arrives_whole_and_hashed(server: FeedServer, get: Get) -> None:
    done = get(server.url("/hosts"))
    assert (done.outcome, done.status, done.size) == ("fetched", 200, len(HOSTS))
    assert done.path is not None and done.path.read_bytes() == HOSTS
    assert server.talks[0].headers["user-agent"].startswith("blocklist/")
    assert server.talks[0].headers["accept-encoding"] == "gzip, deflate, zstd"


@pytest.mark.parametrize(
    ("coding", "packed"),
    [
        ("gzip", gzip.compress(HOSTS)),
        ("gzip", gzip.compress(HOSTS[:20]) + gzip.compress(HOSTS[20:]) + b"\0" * 512),
        ("deflate", zlib.compress(HOSTS)),
        ("deflate", zlib.compress(HOSTS, wbits=-15)),
        ("zstd", zstandard.compress(HOSTS)),
        ("zstd", zstandard.compress(HOSTS[:20]) + zstandard.compress(HOSTS[20:])),
    ],
)
def test_content_codings_are_undone(server: FeedServer, get: Get, coding: str, packed: bytes) -> None:
    server.routes["/packed"] = lambda talk: talk.reply(200, packed, {"Content-Encoding": coding})
    done = get(server.url("/packed"))
    assert done.path is not None and done.path.read_bytes() == HOSTS


def test_parts_become_one_snapshot_without_gluing_lines(server: FeedServer, get: Get, tmp_path: Path) -> None:
    server.routes["/aa"] = lambda talk: talk.reply(200, b"a.example")
    server.routes["/ab"] = lambda talk: talk.reply(200, b"b.example\n")
    (tmp_path / "own.txt").write_bytes(b"c.example")
    done = get(server.url("/aa"), server.url("/ab"), "file:own.txt")
    assert done.path is not None and done.path.read_bytes() == b"a.example\nb.example\nc.example"
    assert done.etag is None


def test_a_failed_part_fails_the_feed(server: FeedServer, get: Get) -> None:
    failed(get(server.url("/hosts"), server.url("/gone")), "/gone", "404 Not Found")


def test_mirrors_are_tried_in_order_and_validators_stay_at_home(server: FeedServer, get: Get) -> None:
    server.routes["/down"] = lambda talk: talk.reply(500)
    server.routes["/mirror"] = lambda talk: talk.reply(200, HOSTS, {"ETag": '"mirror"'})
    done = get(
        server.url("/down"),
        mirrors=(server.url("/none"), server.url("/mirror")),
        etag='"home"',
        headers={"Auth-Key": "s3cret-key"},
    )
    assert done.outcome == "fetched" and done.url == server.url("/mirror")
    assert done.etag is None, "the mirror's ETag must not be sent to the publisher"
    assert [talk.path for talk in server.talks] == ["/down", "/down", "/none", "/mirror"]
    assert "if-none-match" not in server.talks[-1].headers


def test_when_the_mirrors_fail_too_each_reason_is_said(server: FeedServer, get: Get) -> None:
    done = get(server.url("/none"), mirrors=(server.url("/down"),))
    failed(done, "/none: the server answered 404", "; then mirror ", "/down: the server answered 404")


def test_tls_is_verified_and_works(
    tls_server: Callable[[Path], FeedServer], certificates: Certificates, get: Get
) -> None:
    server = tls_server(certificates.good)
    done = get(server.url("/hosts", host="localhost"))
    assert done.outcome == "fetched"
    assert server.talks[0].headers["host"] == f"localhost:{server.port}"


# F1: no connection


def test_f1_closed_port(get: Get) -> None:
    port = driver.free_port()
    done = get(f"http://127.0.0.1:{port}/hosts")
    failed(done, f"http://127.0.0.1:{port}/hosts", "refused the connection")
    assert done.hint is not None


def test_f1_name_not_found(get: Get) -> None:
    failed(get("https://feeds.nowhere.invalid/list.txt"), "feeds.nowhere.invalid", "the name")


@pytest.mark.parametrize(
    ("chain", "words"),
    [
        ("self_signed", "self-signed certificate"),
        ("expired", "certificate has expired"),
        ("other_name", "not valid for '127.0.0.1'"),
    ],
)
def test_f1_bad_certificates(
    tls_server: Callable[[Path], FeedServer], certificates: Certificates, get: Get, chain: str, words: str
) -> None:
    server = tls_server(getattr(certificates, chain))
    done = get(server.url("/hosts"))
    failed(done, "the TLS certificate of 127.0.0.1 is not trusted", words)
    assert not server.talks, "nothing is sent to a server that is not who it says"


def test_f1_plain_http_on_a_tls_url(server: FeedServer, get: Get) -> None:
    quick = structs.replace(LIMITS, connect=0.3)
    failed(get(server.url("/hosts").replace("http:", "https:"), limits=quick), "127.0.0.1")


def test_f1_a_server_that_answers_tls_with_something_else(get: Get) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            for _ in range(2):
                connection, _ = listener.accept()
                with connection:
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
                    connection.recv(65536)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        done = get(f"https://127.0.0.1:{listener.getsockname()[1]}/list")
        thread.join(5)
    failed(done, "TLS with 127.0.0.1 failed: wrong version number")


# F2: refusals


@pytest.mark.parametrize("status", [401, 403, 404, 410, 418, 599, 204, 206, 304])
def test_f2_other_statuses_are_failures(server: FeedServer, get: Get, status: int) -> None:
    server.routes["/list"] = lambda talk: talk.reply(status, headers={"Content-Length": "0"})
    done = get(server.url("/list"))
    failed(done, server.url("/list"), f"answered {status}")
    assert done.status == status
    assert server.asked("/list") == (2 if status >= 500 else 1), "only 5xx deserve a second try"


def test_f2_a_hiccup_is_tried_again(server: FeedServer, get: Get) -> None:
    def hiccup(talk: Talk) -> None:
        talk.reply(*((500, b"") if server.asked("/list") == 1 else (200, HOSTS)))

    server.routes["/list"] = hiccup
    assert get(server.url("/list")).outcome == "fetched"


# F3: Retry-After


@pytest.mark.parametrize("status", [429, 503])
def test_f3_a_short_wait_is_waited(server: FeedServer, get: Get, status: int) -> None:
    def busy(talk: Talk) -> None:
        if server.asked("/list") == 1:
            talk.reply(status, headers={"Retry-After": "1"})
        else:
            talk.reply(200, HOSTS)

    server.routes["/list"] = busy
    start = time.monotonic()
    done = get(server.url("/list"))
    assert done.outcome == "fetched"
    assert time.monotonic() - start >= 1.0


@pytest.mark.parametrize("as_date", [False, True])
def test_f3_a_long_wait_is_kept_for_later(server: FeedServer, get: Get, as_date: bool) -> None:
    at = datetime.now(UTC) + timedelta(hours=1)
    value = format_datetime(at, usegmt=True) if as_date else "3600"
    server.routes["/list"] = lambda talk: talk.reply(429, headers={"Retry-After": value})
    done = get(server.url("/list"))
    failed(done, "429 Too Many Requests", "asks to wait 3,")
    assert server.asked("/list") == 1
    assert done.retry_at is not None and abs((done.retry_at - at).total_seconds()) < 5

    later = get(server.url("/list"), not_before=done.retry_at)
    assert (later.outcome, later.retry_at) == ("waiting", done.retry_at)
    assert server.asked("/list") == 1


def test_f3_nobody_waits_for_ever(server: FeedServer, get: Get) -> None:
    server.routes["/zero"] = lambda talk: talk.reply(503, headers={"Retry-After": "0"})
    server.routes["/year"] = lambda talk: talk.reply(503, headers={"Retry-After": "999999999999"})
    failed(get(server.url("/zero")), "503")
    assert server.asked("/zero") == 4
    done = get(server.url("/year"))
    assert done.retry_at is not None and done.retry_at < datetime.now(UTC) + timedelta(days=8)


def test_f3_the_other_feeds_of_a_host_that_asks_to_wait_are_not_asked(server: FeedServer, tmp_path: Path) -> None:
    into = tmp_path / "incoming"
    into.mkdir()
    server.routes["/busy"] = lambda talk: talk.reply(503, headers={"Retry-After": "3600"})
    requests = [
        Request(name, (server.url(path),), allow_private=True) for name, path in (("a", "/busy"), ("b", "/hosts"))
    ]
    start = time.monotonic()
    first, second = fetch(requests, into=into, limits=structs.replace(LIMITS, per_host=1))
    assert time.monotonic() - start < 10
    assert (first.outcome, second.outcome) == ("failed", "waiting") and server.asked("/hosts") == 0
    assert "503 Service Unavailable to another feed and asks to wait" in str(second.error)
    assert second.retry_at == first.retry_at and "now with --force" in str(second.hint)


# F4: nothing new


def test_f4_not_modified_by_validators(get: Get) -> None:
    with LoopbackServer({"/hosts": HOSTS}) as server:
        first = get(server.url("/hosts"))
        again = get(server.url("/hosts"), etag=first.etag, known_sha256=first.sha256)
        server.pages["/hosts"] = HOSTS + b"127.0.0.1 new.example\n"
        third = get(server.url("/hosts"), etag=first.etag, known_sha256=first.sha256)
        assert [status for _, status in server.requests] == [200, 304, 200]
    assert (again.outcome, again.status, again.etag) == ("not-modified", 304, first.etag)
    assert again.sha256 == first.sha256
    assert third.outcome == "fetched" and third.etag != first.etag


def test_f4_the_same_bytes_with_200(server: FeedServer, get: Get) -> None:
    first = get(server.url("/hosts"))
    again = get(server.url("/hosts"), known_sha256=first.sha256)
    assert (again.outcome, again.status, again.sha256) == ("not-modified", 200, first.sha256)


def test_f4_last_modified_is_sent_back(server: FeedServer, get: Get) -> None:
    date = "Tue, 24 Nov 2026 06:00:00 GMT"
    server.routes["/list"] = lambda talk: talk.reply(200, HOSTS, {"Last-Modified": date})
    done = get(server.url("/list"))
    get(server.url("/list"), last_modified=done.last_modified)
    assert server.talks[-1].headers["if-modified-since"] == date


# F5: broken transfers


def test_f5_short_body(server: FeedServer, get: Get) -> None:
    server.routes["/short"] = lambda talk: talk.reply(200, HOSTS, {"Content-Length": "5000"})
    failed(get(server.url("/short")), f"ended early, after {len(HOSTS)} of 5,000 bytes")
    assert server.asked("/short") == 2


def test_f5_short_chunked_body(server: FeedServer, get: Get) -> None:
    server.routes["/short"] = lambda talk: talk.send(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
    )
    failed(get(server.url("/short")), "ended early, after 5 bytes")


def test_f5_reset_in_mid_body(server: FeedServer, get: Get) -> None:
    def reset(talk: Talk) -> None:
        talk.reply(200, HOSTS, {"Content-Length": "5000"})
        talk.reset()

    server.routes["/reset"] = reset
    failed(get(server.url("/reset")), "the connection was reset")


def test_f5_a_retry_does_not_keep_half_a_body(server: FeedServer, get: Get) -> None:
    # Longer than what is looked at before anything is written.
    long = HOSTS * 100

    def once_short(talk: Talk) -> None:
        talk.reply(200, long, {"Content-Length": "500000"} if server.asked("/list") == 1 else {})

    server.routes["/list"] = once_short
    done = get(server.url("/hosts"), server.url("/list"))
    assert done.path is not None and done.path.read_bytes() == HOSTS + long


@pytest.mark.alone
def test_f5_stalled(server: FeedServer, get: Get) -> None:
    def stall(talk: Talk) -> None:
        talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n127.0.0.1 ")
        talk.stall()

    server.routes["/stall"] = stall
    server.routes["/silent"] = lambda talk: talk.stall()
    start = time.monotonic()
    failed(get(server.url("/stall")), "stalled: nothing came for 0.4 s", "10 bytes")
    failed(get(server.url("/silent")), "stalled: nothing came for 0.4 s")
    assert time.monotonic() - start < 3.0


@pytest.mark.alone
def test_f5_slow_drip(server: FeedServer, get: Get) -> None:
    def drip(talk: Talk) -> None:
        talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n")
        while not talk.stopping.wait(0.1):
            talk.send(b"a")

    server.routes["/drip"] = drip
    start = time.monotonic()
    failed(get(server.url("/drip"), limits=structs.replace(LIMITS, total=0.8)), "not finished after 0.8 s")
    assert time.monotonic() - start < 1.5


def test_f5_slow_header(server: FeedServer, get: Get) -> None:
    def drip(talk: Talk) -> None:
        while not talk.stopping.wait(0.1):
            talk.send(b"H")

    server.routes["/drip"] = drip
    assert get(server.url("/drip"), limits=structs.replace(LIMITS, total=0.8)).outcome == "failed"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "the connection was closed without an answer"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "the answer is not valid HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", "the answer is not valid HTTP"),
        (b"\0" * 300_000, "the answer is not valid HTTP"),
    ],
)
def test_f5_not_http(server: FeedServer, get: Get, answer: bytes, words: str) -> None:
    server.routes["/odd"] = lambda talk: talk.send(answer)
    failed(get(server.url("/odd")), server.url("/odd"), words)


# F6: bombs and giants


def gzip_bomb() -> bytes:
    return gzip.compress(bytes(10_000_000)) * 100


def deflate_bomb() -> bytes:
    return zlib.compress(bytes(200_000_000), level=1)


def zstd_bomb() -> bytes:
    packer = zstandard.ZstdCompressor(level=1).compressobj()
    block = bytes(10_000_000)
    return b"".join(packer.compress(block) for _ in range(100)) + packer.flush()


@pytest.mark.parametrize(("coding", "bomb"), [("gzip", gzip_bomb), ("deflate", deflate_bomb), ("zstd", zstd_bomb)])
def test_f6_a_bomb_stops_at_the_limit_with_flat_memory(
    server: FeedServer, get: Get, coding: str, bomb: Callable[[], bytes]
) -> None:
    body = bomb()
    assert len(body) < 2_000_000
    server.routes["/bomb"] = lambda talk: talk.reply(200, body, {"Content-Encoding": coding})
    get(server.url("/none"))  # load httpx before counting
    tracemalloc.start()
    try:
        done = get(server.url("/bomb"), max_size=50_000_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    failed(done, "larger than max_size (50 MB)")
    assert peak < 30_000_000


@pytest.mark.parametrize("declared", [True, False])
def test_f6_larger_than_max_size(server: FeedServer, get: Get, declared: bool) -> None:
    sent = 0

    def giant(talk: Talk) -> None:
        nonlocal sent
        length = b"Content-Length: 100000000\r\n" if declared else b""
        talk.send(b"HTTP/1.1 200 OK\r\n" + length + b"Connection: close\r\n\r\n")
        for _ in range(1000):
            talk.send(bytes(100_000))
            sent += 100_000

    server.routes["/giant"] = giant
    done = get(server.url("/giant"), max_size=1_000_000)
    failed(done, "larger than max_size (1 MB)")
    assert done.hint is not None and "max_size" in done.hint
    time.sleep(0.1)
    assert sent < 30_000_000, "reading stopped"


def test_f6_a_length_beyond_the_limit_is_believed_at_once(server: FeedServer, get: Get) -> None:
    def promise(talk: Talk) -> None:
        talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        talk.stall()

    server.routes["/promise"] = promise
    failed(get(server.url("/promise"), max_size=1_000_000), "larger than max_size (1 MB)")


def test_f6_the_limit_holds_for_all_parts_together(server: FeedServer, get: Get) -> None:
    failed(get(*[server.url("/hosts")] * 3, max_size=2 * len(HOSTS)), "larger than max_size")
    assert get(*[server.url("/hosts")] * 3, max_size=3 * len(HOSTS)).outcome == "fetched"


def test_f6_a_stream_without_output_ends_too(server: FeedServer, get: Get) -> None:
    body = gzip.compress(b"") * 20_000
    server.routes["/empty"] = lambda talk: talk.reply(200, body, {"Content-Encoding": "gzip"})
    failed(get(server.url("/empty"), max_size=1_000), "larger than max_size")


@pytest.mark.parametrize("coding", ["gzip", "deflate", "zstd"])
@pytest.mark.parametrize("damage", ["cut", "flip", "plain"])
def test_f6_damaged_codings(server: FeedServer, get: Get, coding: str, damage: str) -> None:
    text = os.urandom(5_000)
    packed = {"gzip": gzip.compress, "deflate": zlib.compress, "zstd": zstandard.compress}[coding](text)
    body = {"cut": packed[:-9], "flip": packed[:4] + bytes(64) + packed[68:], "plain": HOSTS}[damage]
    server.routes["/damaged"] = lambda talk: talk.reply(200, body, {"Content-Encoding": coding})
    failed(get(server.url("/damaged")), f"the {coding} data")


def test_f6_a_sender_may_not_ask_for_a_wide_window(server: FeedServer, get: Get) -> None:
    # RFC 9659 §3: at most 8 MiB.
    wide = zstandard.ZstdCompressionParameters.from_level(1, window_log=24)
    packer = zstandard.ZstdCompressor(compression_params=wide).compressobj()
    body = packer.compress(HOSTS) + packer.flush()
    server.routes["/wide"] = lambda talk: talk.reply(200, body, {"Content-Encoding": "zstd"})
    failed(get(server.url("/wide")), "asks for a window over 8 MiB")


def test_f6_a_coding_that_was_not_asked_for(server: FeedServer, get: Get) -> None:
    server.routes["/br"] = lambda talk: talk.reply(200, b"x", {"Content-Encoding": "br"})
    failed(get(server.url("/br")), "not asked for (br)")


# F7: redirects and addresses


def test_f7_redirects_are_followed(server: FeedServer, get: Get) -> None:
    server.routes["/old"] = lambda talk: talk.redirect("/hosts", 301)
    done = get(server.url("/old"))
    assert (done.outcome, done.url) == ("fetched", server.url("/hosts"))


def test_f7_where_a_list_has_gone_for_good_is_told(server: FeedServer, get: Get) -> None:
    """A name that lapses is anybody's: who follows its redirects for years takes whatever the next owner sends."""
    server.routes["/old"] = lambda talk: talk.redirect("/older", 301)
    server.routes["/older"] = lambda talk: talk.redirect("/hosts", 308)
    assert get(server.url("/old")).moved == server.url("/hosts")
    server.routes["/older"] = lambda talk: talk.redirect("/hosts", 302)
    assert get(server.url("/old")).moved is None
    assert get(server.url("/hosts")).moved is None


def test_f7_loop(server: FeedServer, get: Get) -> None:
    server.routes["/a"] = lambda talk: talk.redirect("/b")
    server.routes["/b"] = lambda talk: talk.redirect(server.url("/a"))
    failed(get(server.url("/a")), "redirects in a loop")
    assert server.asked("/a") == 1


def test_f7_endless(server: FeedServer, get: Get) -> None:
    server.routes["/on"] = lambda talk: talk.redirect(f"/on?step={len(server.talks)}")
    failed(get(server.url("/on")), "more than 5 redirects")
    assert len(server.talks) == 6


@pytest.mark.parametrize(
    "target",
    [
        "file:///etc/passwd",
        "FILE:/etc/passwd",
        "ftp://127.0.0.1/x",
        "data:text/plain,evil.example",
        "",
        "http://[",
        "http://",
    ],
)
def test_f7_redirects_elsewhere_are_refused(server: FeedServer, get: Get, target: str) -> None:
    server.routes["/out"] = lambda talk: talk.redirect(target)
    failed(get(server.url("/out")), "redirect")
    assert len(server.talks) == 1


def test_f7_a_redirect_without_a_host_is_not_looked_up(server: FeedServer, get: Get) -> None:
    # The empty name would be this machine.
    server.routes["/out"] = lambda talk: talk.redirect("https:///x")
    failed(get(server.url("/out")), "redirects to a URL without a host")


def test_f7_https_to_http(
    tls_server: Callable[[Path], FeedServer], certificates: Certificates, server: FeedServer, get: Get
) -> None:
    secure = tls_server(certificates.good)
    secure.routes["/out"] = lambda talk: talk.redirect(server.url("/hosts"))
    failed(get(secure.url("/out")), "from https to plain http")
    assert not server.talks


def test_f7_loopback_needs_leave(server: FeedServer, get: Get) -> None:
    done = get(server.url("/hosts"), allow_private=False)
    failed(done, "refused to connect: 127.0.0.1 is a loopback address")
    assert done.hint is not None and "allow_private = true" in done.hint
    assert not server.talks


def test_f7_a_name_that_resolves_to_loopback(server: FeedServer, get: Get) -> None:
    failed(get(server.url("/hosts", host="localhost"), allow_private=False), "localhost is", "a loopback address")
    assert not server.talks
    assert get(server.url("/hosts", host="localhost")).outcome == "fetched"


def test_f7_the_checked_address_is_the_one_connected_to(
    server: FeedServer, get: Get, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: one answer for the check, another a moment later for the connection."""
    asked: list[str] = []
    answers = {"rebind.example": ["127.0.0.1"], "both.example": ["10.0.0.1", "127.0.0.1"]}
    real = socket.getaddrinfo

    def rebinding(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host not in answers:
            return real(host, port, *args, **kwargs)
        # 127.0.0.9: where nobody listens, so a second look-up would be seen
        found = answers[host] if host not in asked else ["127.0.0.9"]
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    done = get(f"http://rebind.example:{server.port}/hosts")
    assert done.outcome == "fetched" and asked == ["rebind.example"]
    assert server.talks[0].headers["host"] == f"rebind.example:{server.port}"
    done = get(f"http://both.example:{server.port}/hosts", allow_private=False)
    failed(done, "refused to connect: both.example is 10.0.0.1, a private address")
    assert len(server.talks) == 1


@pytest.mark.parametrize(
    "host",
    ["127.1", "2130706433", "0x7f000001", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]", "[::]", "[fe80::1]"],
)
def test_f7_other_spellings_of_loopback(server: FeedServer, get: Get, host: str) -> None:
    assert get(f"http://{host}:{server.port}/hosts", allow_private=False).outcome == "failed"
    assert not server.talks


def test_f7_open_private_connections_are_not_shared(tmp_path: Path) -> None:
    """A feed that may use loopback must not lend its connection to one that may not."""
    with LoopbackServer({"/hosts": HOSTS}) as server:
        requests = [
            Request("own", (server.url("/hosts"),), allow_private=True),
            Request("foreign", (server.url("/hosts"),)),
        ]
        one_by_one = structs.replace(LIMITS, at_once=1)
        assert [d.outcome for d in fetch(requests, into=tmp_path, limits=one_by_one)] == ["fetched", "failed"]


@pytest.mark.parametrize(
    ("address", "public", "own"),
    [
        ("9.9.9.9", True, True),
        ("2620:fe::fe", True, True),
        ("::ffff:9.9.9.9", True, True),
        ("64:ff9b::909:909", True, True),
        ("64:ff9b::a00:1", False, True),
        ("10.1.2.3", False, True),
        ("192.168.1.1", False, True),
        ("172.31.255.255", False, True),
        ("172.32.0.0", True, True),
        ("100.64.0.1", False, True),
        ("169.254.169.254", False, True),
        ("fe80::1%eth0", False, True),
        ("fd00::1", False, True),
        ("::1", False, True),
        ("0.0.0.0", False, False),
        ("255.255.255.255", False, False),
        ("224.0.0.251", False, False),
        ("2002:7f00:1::", False, False),
        ("ff02::1", False, False),
        ("::", False, False),
        ("3fff::1", False, True),
    ],
)
def test_f7_which_addresses_may_be_reached(address: str, public: bool, own: bool) -> None:
    assert (refusal(address, allow_private=False) is None) is public
    assert (refusal(address, allow_private=True) is None) is own


def test_f7_nothing_that_may_not_be_listed_may_be_reached() -> None:
    for text in (*special_use.NOT_GLOBAL_V4, *special_use.NOT_GLOBAL_V6):
        network = ip_network(text)
        for address in (network[0], network[network.num_addresses // 2 + 1], network[-1]):
            assert refusal(str(address), allow_private=False) is not None, address


# C2: secrets


SECRETS = {"Auth-Key": "hdr-53CRET", "Authorization": "Bearer tok-53CRET"}


@pytest.mark.parametrize("path", ["/none", "/denied", "/short", "/silent", "/loop", "/out", "/giant", "/hosts"])
def test_c2_no_secret_in_any_answer_or_log(
    server: FeedServer, get: Get, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.routes["/pth-53CRET/denied"] = lambda talk: talk.reply(403)
    server.routes["/pth-53CRET/short"] = lambda talk: talk.reply(200, b"x", {"Content-Length": "99"})
    server.routes["/pth-53CRET/silent"] = lambda talk: talk.stall()
    server.routes["/pth-53CRET/loop"] = lambda talk: talk.redirect(talk.path)
    server.routes["/pth-53CRET/out"] = lambda talk: talk.redirect("file:///pth-53CRET?hdr-53CRET")
    server.routes["/pth-53CRET/giant"] = lambda talk: talk.reply(200, bytes(9_000))
    server.routes["/pth-53CRET/hosts"] = lambda talk: talk.reply(200, HOSTS)
    url = f"http://usr-53CRET:pwd-53CRET@127.0.0.1:{server.port}/pth-53CRET{path}?key=qry-53CRET&bare-53CRET"
    request = Request("keyed", (url,), headers=SECRETS, secrets=("pth-53CRET",))
    done = get(url, headers=SECRETS, secrets=("pth-53CRET",), max_size=5_000)
    assert server.talks[0].headers["auth-key"] == "hdr-53CRET"
    assert "53CRET" not in f"{done} {request} {caplog.text}"
    assert f"http://127.0.0.1:{server.port}/***{path}?key=***" in (done.error or done.url or "")


def test_c2_the_user_of_a_url_is_sent_as_basic_auth(server: FeedServer, get: Get) -> None:
    get(f"http://user:p%40ss@127.0.0.1:{server.port}/hosts")
    assert server.talks[0].headers["authorization"] == "Basic dXNlcjpwQHNz"


def test_c2_keys_stay_with_their_host(server: FeedServer, get: Get) -> None:
    elsewhere = FeedServer()
    elsewhere.routes["/hosts"] = lambda talk: talk.reply(200, HOSTS)
    server.routes["/moved"] = lambda talk: talk.redirect(elsewhere.url("/hosts"))
    server.routes["/near"] = lambda talk: talk.redirect("/hosts")
    get(f"http://user:password@127.0.0.1:{server.port}/moved", headers={"Auth-Key": "hdr-53CRET"})
    get(server.url("/none"), mirrors=(elsewhere.url("/hosts"),), headers={"Auth-Key": "hdr-53CRET"})
    get(server.url("/near"), headers={"Auth-Key": "hdr-53CRET"})
    elsewhere.close()
    assert len(elsewhere.talks) == 2
    assert all(not {"auth-key", "authorization"} & talk.headers.keys() for talk in elsewhere.talks)
    assert server.talks[-1].path == "/hosts" and server.talks[-1].headers["auth-key"] == "hdr-53CRET"


@pytest.mark.parametrize("value", ["hdr-53CRET\n", "hdr-53CRET\r\nX: y", "hdr-53CRÉT", ""])
def test_c2_a_key_that_is_no_header_is_not_shown(server: FeedServer, get: Get, value: str) -> None:
    done = get(server.url("/hosts"), headers={"Auth-Key": value})
    failed(done, "header 'Auth-Key' holds a character")
    assert "53CR" not in f"{done}" and not server.talks


def test_c2_hostile_text_of_a_server_is_not_repeated(server: FeedServer, get: Get) -> None:
    server.routes["/a"] = lambda talk: talk.reply(302, headers={"Location": "gopher://\x1b[31m/\u202e" + "x" * 999})
    server.routes["/b"] = lambda talk: talk.send(b"HTTP/1.1 404 \x1b[2J\r\nContent-Length: 0\r\n\r\n")
    server.routes["/c"] = lambda talk: talk.reply(200, HOSTS, {"ETag": '"\x1b[31m"', "Content-Encoding": "\x1b[5m"})
    for path in "abc":
        done = get(server.url(f"/{path}"))
        assert f"{done.error}".isprintable() and f"{done.error}".isascii() and len(f"{done.error}") < 500
        assert done.etag is None


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://u:p@feeds.example:8443/a?k=v&flag#frag", "https://feeds.example:8443/a?k=***&***"),
        ("https://[2001:db8::1]/a", "https://[2001:db8::1]/a"),
        ("https://feeds.example:port/", "(malformed URL)"),
        ("https://feeds.example/\u202eabc\x1b", "https://feeds.example/?abc?"),
    ],
)
def test_c2_redaction(url: str, shown: str) -> None:
    assert redact(url) == shown


def test_c2_a_secret_is_hidden_however_a_server_writes_it() -> None:
    secrets = ("k/y s3cret",)
    for written in ("k/y s3cret", "k/y%20s3cret", "k%2Fy%20s3cret"):
        assert redact(f"https://feeds.example/{written}/list", secrets) == "https://feeds.example/***/list"


# Bad URLs


@pytest.mark.parametrize(
    "url", ["ftp://feeds.example/x", "feeds.example/x", "http://", "http://a b/", "http://[::1", ""]
)
def test_urls_that_can_not_be_fetched(get: Get, url: str) -> None:
    assert get(url).outcome == "failed"


# Many feeds at once


@pytest.mark.alone
def test_few_per_host_but_all_at_once(server: FeedServer, tmp_path: Path) -> None:
    def slow(talk: Talk) -> None:
        time.sleep(0.1)
        talk.reply(200, HOSTS)

    server.routes["/slow"] = slow
    requests = [Request(f"feed-{n}", (server.url(f"/slow?{n}"),), allow_private=True) for n in range(10)]
    heard: list[str] = []
    done = fetch(requests, into=tmp_path, limits=LIMITS, on_done=lambda one: heard.append(one.feed))
    assert [one.feed for one in done] == [one.feed for one in requests]
    assert {one.outcome for one in done} == {"fetched"} and len(heard) == 10
    assert server.most_at_once == 2

    server.most_at_once = 0
    by_name = [structs.replace(r, urls=(r.urls[0].replace("127.0.0.1", "localhost"),)) for r in requests]
    fetch([*requests, *by_name], into=tmp_path, limits=LIMITS)
    assert 2 < server.most_at_once <= 4, "hosts do not wait for each other"
    server.most_at_once = 0
    fetch(requests[:3] + by_name[:3], into=tmp_path, limits=structs.replace(LIMITS, at_once=1))
    assert server.most_at_once == 1


def test_a_failed_feed_leaves_the_others_alone(server: FeedServer, tmp_path: Path) -> None:
    def feed(name: str, *urls: str) -> Request:
        return Request(name, urls, allow_private=True, base=tmp_path)

    (tmp_path / "own.txt").write_bytes(b"own.example\n")
    server.routes["/silent"] = lambda talk: talk.stall()
    done = fetch(
        [
            feed("good", server.url("/hosts")),
            feed("gone", server.url("/gone")),
            feed("silent", server.url("/silent")),
            feed("own", "file:own.txt"),
            feed("odd", "gopher://x"),
        ],
        into=tmp_path,
        limits=LIMITS,
    )
    assert [one.outcome for one in done] == ["fetched", "failed", "failed", "fetched", "failed"]


def test_cancelling_removes_what_was_begun(server: FeedServer, tmp_path: Path) -> None:
    begun = threading.Event()

    def half(talk: Talk) -> None:
        talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + HOSTS * 20)
        begun.set()
        talk.stall()

    server.routes["/half"] = half

    async def main() -> None:
        requests = [Request(path, (server.url(path),), allow_private=True) for path in ("/hosts", "/half")]
        running = asyncio.create_task(fetch_all(requests, into=tmp_path, limits=Limits()))
        while not begun.is_set() or len(os.listdir(tmp_path)) < 2:  # noqa: ASYNC110, PTH208 (a thread sets it)
            await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(main())
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_can_not_be_written_is_not_the_feeds_fault(server: FeedServer, tmp_path: Path) -> None:
    for url in (server.url("/hosts"), "file:/etc/hostname"):
        with pytest.raises(RecordError, match="can't be written to"):
            fetch([Request("f", (url,), allow_private=True)], into=tmp_path / "missing", limits=LIMITS)


# file: URLs


def test_files_are_copied_and_hashed(tmp_path: Path, get: Get) -> None:
    (tmp_path / "orders.csv").write_bytes(HOSTS)
    (tmp_path / "link").symlink_to("orders.csv")
    (tmp_path / "two words.csv").write_bytes(HOSTS)
    for url in (
        "file:orders.csv",
        f"file://{tmp_path}/orders.csv",
        f"file:{tmp_path}/orders.csv",
        f"file://localhost{tmp_path}/orders.csv",
        "file:link",
        "file:two%20words.csv",
    ):
        done = get(url)
        assert done.path is not None and done.path.read_bytes() == HOSTS
        assert get(url, known_sha256=done.sha256).outcome == "not-modified"


def test_a_changed_or_empty_file_is_fetched(tmp_path: Path, get: Get) -> None:
    (tmp_path / "orders.csv").write_bytes(HOSTS * 50_000)  # several chunks
    first = get("file:orders.csv")
    (tmp_path / "orders.csv").write_bytes(b"")
    assert get("file:orders.csv", known_sha256=first.sha256).size == 0


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("file:missing.csv", "there is no file"),
        ("file:.", "is a folder"),
        ("file:pipe", "is a pipe"),
        ("file:/dev/zero", "is a device"),
        ("file://server/share.csv", "can't name another host"),
        ("file:", "names no file"),
        ("file:a%00b", "names no file"),
        ("file:big", "larger than max_size"),
        ("file:orders.csv/x", "not a directory"),
    ],
)
def test_files_that_can_not_be_read(tmp_path: Path, get: Get, url: str, words: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "orders.csv").write_bytes(HOSTS)
    (tmp_path / "big").write_bytes(bytes(2_000_000))
    failed(get(url, max_size=1_000_000), words)
    failed(get(url, "http://127.0.0.1:9/", max_size=1_000_000), words)


def test_a_file_without_permission(tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_bytes(HOSTS)
    (tmp_path / "secret.csv").chmod(0)
    user = os.geteuid()
    if user == 0:  # root may read everything
        os.seteuid(65534)
    try:
        [done] = fetch([Request("orders", ("file:secret.csv",), base=tmp_path)], into=tmp_path)
    finally:
        os.seteuid(user)
    failed(done, "may not be read by user")


def test_a_file_longer_than_it_says_stops_at_the_limit(get: Get) -> None:
    failed(get("file:/proc/cpuinfo", max_size=10), "larger than max_size (10 bytes)")


def test_a_file_may_have_a_mirror_on_the_web(server: FeedServer, get: Get) -> None:
    assert get("file:missing.csv", mirrors=(server.url("/hosts"),)).outcome == "fetched"


# The decoder by itself, and pages that are no lists


def test_the_decoder_gives_small_chunks_of_big_bombs() -> None:
    for coding, bomb in (("gzip", gzip_bomb()), ("zstd", zstd_bomb())):
        decoder = Decompressor(coding, limit=40_000_000)
        largest = 0
        with pytest.raises(TooLarge):
            for chunk in decoder.feed(bomb):
                largest = max(largest, len(chunk))
        assert 0 < largest <= 8 * 1024 * 1024


@pytest.mark.parametrize("coding", ["gzip", "deflate", "zstd"])
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_the_decoder_takes_any_piece(coding: str, step: int) -> None:
    text = HOSTS * 300 + bytes(100_000)
    packed = {"gzip": gzip.compress, "deflate": zlib.compress, "zstd": zstandard.compress}[coding](text)
    decoder = Decompressor(coding, limit=len(text))
    out = b"".join(c for at in range(0, len(packed), step) for c in decoder.feed(packed[at : at + step]))
    decoder.finish()
    assert out == text
    half = Decompressor(coding, limit=len(text))
    list(half.feed(packed[: len(packed) // 2]))
    with pytest.raises(DecodeError, match="ends early"):
        half.finish()


@pytest.mark.parametrize(
    ("head", "html"),
    [
        (b"<!DOCTYPE html>\n<html>", True),
        (b"\xef\xbb\xbf  \r\n<HTML lang=uk>", True),
        (b"<?xml version='1.0'?>\n<!-- portal -->\n<html>", True),
        (b"<script>location='/login'</script>", True),
        ("<!doctype html>".encode("utf-16"), True),
        (HOSTS, False),
        (b"! Title: adblock <html>\n||evil.example^\n", False),
        (b'{"error": "<html>"}', False),
        (b"<rss version='2.0'>", False),
        (b"<!-- -->" * 500 + b"<!--", False),
        (b"<!-- -->" * 500 + b"<html>", True),
        (b"", False),
    ],
)
def test_f8_web_pages_are_told_from_lists(head: bytes, html: bool) -> None:
    assert looks_like_html(head) is html


def test_the_loopback_server_says_what_its_pages_say(get: Get) -> None:
    with LoopbackServer({"/busy": Page(b"", 503)}) as server:
        failed(get(server.url("/busy")), "503")
        failed(get(server.url("/none")), "404")
