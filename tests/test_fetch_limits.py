"""Limits that only a slow or huge answer shows: each ends a fetch that would go on or fill the memory."""

from __future__ import annotations

import gzip
import itertools
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dns.message
import pytest
from feedserver import FeedServer, Talk
from test_documents import attribute, event, indicator, misp_feed
from test_transfer import cname, send, serve, soa

from blocklist.ingest.arrival import Arrival
from blocklist.ingest.body import Body, Scratch
from blocklist.ingest.fetch import Fetched, Limits, Request, fetch
from blocklist.ingest.loopback import LoopbackServer
from blocklist.ingest.reasons import Failure
from blocklist.ingest.unpack import AUTO

# Longer than the head that is kept back until it is known how a body is packed.
LONG = b"".join(b"127.0.0.1 h%d.example\n" % i for i in range(200))


@pytest.fixture
def server() -> Iterator[FeedServer]:
    server = FeedServer()
    yield server
    server.close()


@pytest.fixture
def get(tmp_path: Path) -> Callable[..., Fetched]:
    def get(url: str, limits: Limits, **more: Any) -> Fetched:
        into = tmp_path / "into"
        into.mkdir(exist_ok=True)
        [done] = fetch([Request("f", (url,), allow_private=True, base=tmp_path, **more)], into=into, limits=limits)
        assert list(into.iterdir()) == ([done.path] if done.path else [])
        return done

    return get


Get = Callable[..., Fetched]


def test_f5_a_primary_that_drips_ends_with_the_time(get: Get) -> None:
    def drip(connection: socket.socket, query: dns.message.Message) -> None:
        connection.sendall(struct.pack("!H", 60))
        for _ in range(60):
            connection.sendall(b"x")
            time.sleep(0.1)

    listener, url = serve(drip)
    with listener:
        done = get(url, Limits(total=0.5, idle=5.0, backoff=0.01), format="rpz")
    assert done.error is not None and "not finished in time" in done.error
    assert done.seconds < 4


def test_f5_a_primary_that_never_ends_ends_with_the_time(get: Get) -> None:
    def endless(connection: socket.socket, query: dns.message.Message) -> None:
        send(connection, query, soa())
        for i in itertools.count():
            send(connection, query, *(cname(f"h{i}-{j}.example") for j in range(50)))

    listener, url = serve(endless)
    with listener:
        done = get(url, Limits(total=1.0, backoff=0.01), format="rpz", max_size=10**9)
    assert done.error is not None and "not finished in time" in done.error


def test_f5_a_file_that_takes_too_long_is_given_up(get: Get, tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(LONG)
    done = get("file:list", Limits(total=0.0))
    assert done.error is not None and "took too long" in done.error


def test_f5_unpacking_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path)
    body = Body(scratch, "f", limit=10**9)
    arrival = Arrival(scratch, "f", body, AUTO, "https://lists.example/f.gz")
    arrival.write(gzip.compress(LONG))
    arrival.settle()
    assert arrival.packed
    with pytest.raises(Failure, match="unpacking was not finished after 0 s"):
        arrival.unpack(0.0, threading.Event())
    body.discard()
    assert list(tmp_path.iterdir()) == []


def test_f5_a_collection_of_slow_pages_ends_with_the_time(server: FeedServer, get: Get) -> None:
    pages = itertools.count()

    def page(talk: Talk) -> None:
        number = next(pages)
        time.sleep(0.2)
        more = {"more": True, "next": str(number)} if number < 40 else {}
        talk.reply(200, json.dumps({"objects": [indicator(number, "x")], **more}).encode())

    server.routes["/c/objects/"] = page
    done = get(f"taxii+{server.url('/c/')}", Limits(total=1.0), format="stix")
    assert done.error is not None and "documents took longer than 4 s" in done.error, done
    assert next(pages) < 30


def test_f6_a_file_beyond_the_limit_is_not_hashed_to_its_end(get: Get, tmp_path: Path) -> None:
    with (tmp_path / "list").open("wb") as file:
        file.truncate(1 << 36)  # of holes: it takes no room, but minutes to read
    done = get("file:list", Limits(total=3.0), known_sha256="0" * 64, max_size=1_000_000)
    assert done.error is not None and "larger than max_size (1 MB)" in done.error


def test_f6_documents_of_a_feed_have_one_limit_together(get: Get) -> None:
    events = [event(i, attribute("comment", "x" * 400_000)) for i in range(30)]
    with LoopbackServer(misp_feed(*events)) as server:
        done = get(server.url("/feed/manifest.json"), Limits(), format="misp", max_size=1_000_000)
        assert done.error is not None and "larger than max_size" in done.error
        assert len(server.requests) < 10, server.requests


def test_f10_the_name_of_a_feed_is_no_path(server: FeedServer, tmp_path: Path) -> None:
    server.routes["/list"] = lambda talk: talk.reply(200, LONG)
    into = tmp_path / "a" / "b"
    into.mkdir(parents=True)
    [done] = fetch([Request("../../out", (server.url("/list"),), allow_private=True)], into=into, limits=Limits())
    assert done.path is not None and done.path.parent == into


def test_a_mistake_of_ours_costs_one_feed_alone(server: FeedServer, tmp_path: Path) -> None:
    def broken() -> bytes | None:
        raise LookupError("a mistake")

    server.routes["/list"] = lambda talk: talk.reply(200, LONG)
    since = f"2026-11-01T00:00:00Z {datetime.now(UTC).isoformat()}"
    wrong = Request("wrong", (f"taxii+{server.url('/c/')}",), etag=since, before=broken, allow_private=True)
    good = Request("good", (server.url("/list"),), allow_private=True)
    done = fetch([wrong, good], into=tmp_path, limits=Limits(backoff=0.01))
    assert [f.outcome for f in done] == ["failed", "fetched"]
    assert "internal error (LookupError)" in str(done[0].error) and "a mistake" not in str(done[0].error)
