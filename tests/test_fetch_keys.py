"""Keys, proxies, patience and the doctor, with real servers and a whole installation."""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from feedserver import Certificates, FeedServer, make_certificates
from installation import World, names

from blocklist.ingest.fetch import Fetched, Limits, Request, fetch
from blocklist.ingest.route import Route

SECRET = "s3cr3t-key+with/signs"
LIST = "".join(f"{name}\n" for name in names(5)).encode()


@pytest.fixture
def server() -> Iterator[FeedServer]:
    server = FeedServer()
    server.routes["/list"] = lambda talk: talk.reply(200, LIST)
    yield server
    server.close()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def keyed(world: World, url: str, auth: dict[str, Any]) -> None:
    world.feed("web", LIST)
    world.feeds["web"] |= {"url": url, "auth": auth, "allow_private": True}
    world.write()


def keep(world: World, value: str = SECRET, mode: int = 0o600) -> Path:
    path = world.base / "secrets" / "abuse-ch"
    path.parent.mkdir(exist_ok=True)
    path.write_text(value + "\n")
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    ("query", "auth"),
    [
        ("", {"header": "Auth-Key"}),
        ("", {"bearer": True}),
        ("", {"query": "auth-key"}),
        ("?k={secret}", {}),
    ],
)
@pytest.mark.parametrize("ending", ["good", "403", "redirect", "echo"])
def test_c2_a_key_reaches_its_host_and_nothing_that_is_written(
    world: World, server: FeedServer, query: str, auth: dict[str, Any], ending: str
) -> None:
    other = FeedServer()
    other.routes["/list"] = lambda talk: talk.reply(200, LIST)
    keep(world)
    keyed(world, server.url("/list") + query, {"name": "abuse-ch", **auth})
    if ending == "403":
        server.routes["/list"] = lambda talk: talk.reply(403, SECRET.encode())
    elif ending == "redirect":
        server.routes["/list"] = lambda talk: talk.redirect(other.url("/list"))
    elif ending == "echo":
        server.routes["/list"] = lambda talk: talk.reply(200, LIST, {"ETag": f'"{SECRET}"'})
    texts = [
        world.update("--debug", "--verbose").text,
        world.run("feeds", "show", "web").text,
        world.run("status").text,
        world.run("doctor", "--json").text,
    ]
    other.close()
    sent = server.talks[0].path + str(server.talks[0].headers)
    assert SECRET in sent or "s3cr3t-key%2Bwith%2Fsigns" in sent
    assert all("s3cr3t" not in talk.path + str(talk.headers) for talk in other.talks)
    assert len(other.talks) == (ending == "redirect")
    assert all("s3cr3t" not in text for text in texts)
    for path in world.base.rglob("*"):
        if path.is_file() and path.parent.name != "secrets":
            assert b"s3cr3t" not in path.read_bytes(), path


def test_c2_a_secret_that_others_can_read_is_not_sent(world: World, server: FeedServer) -> None:
    path = keep(world, mode=0o644)
    keyed(world, server.url("/list"), {"name": "abuse-ch", "bearer": True})
    ran = world.update()
    assert ran.code == 3 and f"chmod 600 {path}" in ran.feed("web")["hint"] and server.talks == []
    path.unlink()
    assert "is nowhere" in world.update().feed("web")["error"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_c2_a_secret_of_a_stranger_is_not_sent(world: World, server: FeedServer) -> None:
    os.chown(keep(world), 12_345, -1)
    keyed(world, server.url("/list"), {"name": "abuse-ch", "bearer": True})
    assert "the secret belongs to user 12345" in world.update().feed("web")["error"] and server.talks == []


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("12345", "a secret has 6 to"),
        ("", "the secret is empty"),
        ("s3cret\nX-More: 1", "holds a line break"),
        ("s3crét-s3crét", "another character that can't be sent"),
        ("x" * 17_000, "a secret has 6 to"),
    ],
)
def test_c2_what_can_be_no_secret_is_not_sent(world: World, server: FeedServer, value: str, words: str) -> None:
    keep(world, value)
    keyed(world, server.url("/list"), {"name": "abuse-ch", "bearer": True})
    error = world.update().feed("web")["error"]
    assert words in error and server.talks == [] and (len(value) < 6 or value not in error)


def test_c2_a_secret_may_come_from_the_environment(
    world: World, server: FeedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BLOCKLIST_SECRET_ABUSE_CH", "user:" + SECRET)
    keyed(world, server.url("/list"), {"name": "abuse-ch", "basic": True})
    assert world.update().code == 0
    assert server.talks[0].headers["authorization"].startswith("Basic ")
    seen = world.base / "seen"
    export = world.export("out")
    world.exports["out"]["reload"] = world.script("reload", f"env > {seen}")
    world.write()
    world.update("--force")
    assert export.exists() and "PATH" in seen.read_text() and "SECRET" not in seen.read_text()


@pytest.mark.parametrize("url", ["https://u:hunter2hunter2@feeds.example/x", "https://feeds.example/x?api_key=abcdef"])
def test_c2_a_key_in_the_configuration_is_refused(world: World, url: str) -> None:
    world.feed("web", LIST, url=url)
    ran = world.run("status")
    assert ran.code == 1 and "holds a secret" in ran.err and "hunter2" not in ran.text and "abcdef" not in ran.text


def test_c2_a_request_shows_no_secret_where_it_is_printed() -> None:
    key = "s3cret"
    route = Route(proxy=f"http://user:{key}@proxy.example:3128")
    urls = (f"https://feed.example/{key}",)
    request = Request("feed", urls, mirrors=urls, headers={"X-Key": key}, secrets=(key,), route=route)
    assert "feed" in repr(request)
    assert key not in repr(request) + repr(route)


def test_a_host_that_fails_is_asked_less_often(world: World, server: FeedServer) -> None:
    world.feed("web", LIST)
    world.feed("beside", LIST)
    for name in ("web", "beside"):
        world.feeds[name] |= {"url": server.url(f"/{name}"), "allow_private": True}
    world.set("fetch", per_host=1)
    server.routes |= {f"/{name}": lambda talk: talk.reply(429) for name in ("web", "beside")}
    assert world.update().code == 3
    assert len(server.talks) == 1, "the other feed of the host was not asked once one heard 429"
    assert world.update().code == 3 and len(server.talks) == 1
    world.update("--force")
    assert len(server.talks) == 2
    assert world.rows("SELECT max(failures) FROM feed") in ([(1,)], [(2,)])
    server.routes |= {f"/{name}": lambda talk: talk.reply(200, LIST) for name in ("web", "beside")}
    assert world.update("--force").code == 0
    assert world.rows("SELECT max(failures), max(retry_at) FROM feed") == [(0, None)]


def test_f4_new_validators_of_the_same_bytes_are_kept(world: World, server: FeedServer) -> None:
    world.feed("web", LIST, url=server.url("/list"), allow_private=True)
    for etag in ('"1"', '"2"'):
        server.routes["/list"] = lambda talk, etag=etag: talk.reply(200, LIST, {"ETag": etag})
        world.update()
    world.update()
    assert [talk.headers.get("if-none-match") for talk in server.talks] == [None, '"1"', '"2"']


def test_f4_validators_of_one_url_are_never_sent_to_another(world: World, server: FeedServer) -> None:
    """Nor is a list that moved and stays as it is loaded whole at every run."""
    sent = []

    def route(path: str, status: int = 200) -> None:
        server.routes[path] = lambda talk: talk.reply(status, LIST, {"ETag": f'"{path}"'})

    def ask(path: str, *words: str) -> None:
        world.feeds["web"]["url"] = server.url(path)
        world.write()
        before = len(server.talks)
        world.update(*words)
        sent.extend(talk.headers.get("if-none-match") for talk in server.talks[before:])

    world.feed("web", LIST, allow_private=True)
    world.feed("other", names(3))
    route("/a")
    route("/b")
    for path in ("/a", "/a", "/b", "/b", "/b", "/a", "/a"):
        ask(path)
    assert sent == [None, '"/a"', None, '"/b"', '"/b"', None, '"/a"']
    # What failed, or was not even asked, leaves nothing of the one before.
    sent.clear()
    route("/c", 404)
    ask("/c", "--force")
    route("/c")
    ask("/c", "--force")
    ask("/c")
    ask("/b", "other")
    ask("/b")
    ask("/b")
    assert sent == [None, None, '"/c"', None, '"/b"']


class Proxy:
    """A little HTTP proxy: CONNECT and absolute URLs, to one server whatever the name."""

    def __init__(self, target: int, *, tls: ssl.SSLContext | None = None) -> None:
        self.seen: list[bytes] = []
        self._target, self._tls = target, tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        if self._tls is not None:
            try:
                client = self._tls.wrap_socket(client, server_side=True)
            except OSError:
                return
        head = client.recv(65536)
        self.seen.append(head)
        upstream = socket.create_connection(("127.0.0.1", self._target))
        if head.startswith(b"CONNECT"):
            client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        else:
            first, rest = head.split(b" ", 1)
            upstream.sendall(first + b" /" + rest.split(b"/", 3)[3])
        threading.Thread(target=self._pump, args=(client, upstream), daemon=True).start()
        self._pump(upstream, client)

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass


def get(tmp_path: Path, url: str, **more: Any) -> Fetched:
    return fetch([Request("f", (url,), **more)], into=tmp_path, limits=Limits(idle=2, total=5, backoff=0.01))[0]


def test_a_proxy_is_used_and_the_guard_holds_for_literal_addresses(server: FeedServer, tmp_path: Path) -> None:
    proxy = Proxy(server.port)
    route = Route(proxy=f"http://user:{'x' * 8}@127.0.0.1:{proxy.port}")
    done = get(tmp_path, "http://feeds.example/list", route=route)
    assert done.outcome == "fetched", done.error
    assert b"GET http://feeds.example/list" in proxy.seen[0] and b"Proxy-Authorization: Basic" in proxy.seen[0]
    for url in ("http://169.254.169.254/list", "http://127.0.0.1/list", "http://localhost/list"):
        assert "refused to connect" in str(get(tmp_path, url, route=route).error)
    assert len(proxy.seen) == 1
    server.routes["/list"] = lambda talk: talk.redirect("http://10.0.0.1/list")
    assert "refused to connect" in str(get(tmp_path, "http://feeds.example/list", route=route).error)


def test_the_environment_is_obeyed_only_when_told(
    server: FeedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = Proxy(server.port)
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert get(tmp_path, "http://feeds.example/list", route=Route(proxy="environment")).outcome == "fetched"
    assert get(tmp_path, "http://feeds.example/list").outcome == "failed"
    assert get(tmp_path, server.url("/list"), route=Route(proxy="environment"), allow_private=True).outcome == "fetched"
    assert len(proxy.seen) == 1


def test_a_private_authority_also_through_a_proxy(tmp_path: Path) -> None:
    (tmp_path / "tls").mkdir()
    made = make_certificates(tmp_path / "tls")
    server = FeedServer(tls=Certificates.server_context(made.good))
    server.routes["/list"] = lambda talk: talk.reply(200, LIST)
    into = tmp_path / "into"
    into.mkdir()
    url = server.url("/list", "localhost")
    assert "is not trusted" in str(get(into, url, allow_private=True).error)
    assert get(into, url, allow_private=True, route=Route(ca_file=made.authority)).outcome == "fetched"
    proxy = Proxy(server.port)
    route = Route(ca_file=made.authority, proxy=f"http://127.0.0.1:{proxy.port}")
    assert get(into, url, allow_private=True, route=route).outcome == "fetched"
    assert proxy.seen[0].startswith(b"CONNECT localhost")
    missing = get(into, url, allow_private=True, route=Route(ca_file=tmp_path / "none.pem"))
    assert "no such file" in str(missing.error)
    server.close()


def test_a_server_may_ask_for_a_certificate(world: World, tmp_path: Path) -> None:
    (tmp_path / "tls").mkdir()
    made = make_certificates(tmp_path / "tls")
    context = Certificates.server_context(made.good)
    context.load_verify_locations(made.authority)
    context.verify_mode = ssl.CERT_REQUIRED
    server = FeedServer(tls=context)
    server.routes["/list"] = lambda talk: talk.reply(200, LIST)
    ours = world.base / "ours.pem"
    ours.write_bytes(made.other_name.read_bytes())
    ours.chmod(0o600)
    world.feed("web", url=server.url("/list", "localhost"), allow_private=True, ca_file=str(made.authority))
    assert world.update().feed("web")["outcome"] == "failed" and server.talks == []
    world.feeds["web"]["client_cert"] = "ours.pem"
    world.write()
    ran = world.update("--force")
    assert ran.code == 0 and ran.feed("web")["entries"] == 5, ran.text
    ours.chmod(0o644)
    ran = world.update("--force")
    assert f"chmod 600 {ours}" in ran.feed("web")["hint"] and len(server.talks) == 1
    ours.chmod(0o600)
    ours.write_text("no certificate")
    assert "client_cert" in world.update("--force").feed("web")["error"]
    ours.unlink()
    assert "no such file" in world.update("--force").feed("web")["error"]
    server.close()


def test_a_certificate_is_not_shown_to_the_host_of_a_redirect(tmp_path: Path) -> None:
    (tmp_path / "tls").mkdir()
    made = make_certificates(tmp_path / "tls")
    context = Certificates.server_context(made.good)
    context.load_verify_locations(made.authority)
    context.verify_mode = ssl.CERT_REQUIRED
    other = FeedServer(tls=context)
    other.routes["/list"] = lambda talk: talk.reply(200, LIST)
    server = FeedServer(tls=Certificates.server_context(made.good))
    server.routes["/list"] = lambda talk: talk.redirect(other.url("/list", "localhost"))
    route = Route(allow_private=True, ca_file=made.authority, client_cert=made.good)
    assert get(tmp_path, other.url("/list", "localhost"), allow_private=True, route=route).outcome == "fetched"
    assert get(tmp_path, server.url("/list", "localhost"), allow_private=True, route=route).outcome == "failed"
    assert len(other.talks) == 1
    for each in (server, other):
        each.close()


def test_a_proxy_may_be_reached_by_tls_and_must_be_trusted(server: FeedServer, tmp_path: Path) -> None:
    (tmp_path / "tls").mkdir()
    made = make_certificates(tmp_path / "tls")
    proxy = Proxy(server.port, tls=Certificates.server_context(made.good))
    address = f"https://127.0.0.1:{proxy.port}"
    refused = get(tmp_path, "http://feeds.example/list", route=Route(proxy=address))
    assert refused.outcome == "failed" and proxy.seen == []
    done = get(tmp_path, "http://feeds.example/list", route=Route(proxy=address, ca_file=made.authority))
    assert done.outcome == "fetched", done.error
    assert b"GET http://feeds.example/list" in proxy.seen[0]


@pytest.mark.parametrize("url", ["http://feeds.example/list", "https://feeds.example/list"])
def test_a_proxy_that_wants_to_know_who_asks_is_told_from_a_server(world: World, url: str) -> None:
    proxy = FeedServer()
    refusal = "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    proxy.routes |= dict.fromkeys(
        ("http://feeds.example/list", "feeds.example:443"), lambda talk: talk.send(refusal.encode())
    )
    world.feed("web", url=url)
    world.set("fetch", proxy=f"http://127.0.0.1:{proxy.port}")
    said = world.update().feed("web")
    assert "407" in said["error"] and "proxy_auth" in said["hint"], said
    keep(world, "user:" + SECRET).rename(world.base / "secrets" / "our-proxy")
    world.set("fetch", proxy_auth="our-proxy")
    ran = world.update("--force")
    assert proxy.talks[0].headers.get("proxy-authorization") is None
    assert proxy.talks[-1].headers["proxy-authorization"].startswith("Basic ") and SECRET not in ran.text
    proxy.close()


def test_while_a_server_rests_only_its_mirrors_are_asked(world: World, server: FeedServer) -> None:
    mirror = FeedServer()
    mirror.routes["/list"] = lambda talk: talk.reply(200, LIST)
    server.routes["/list"] = lambda talk: talk.reply(503, headers={"Retry-After": "7200"})
    world.feed("web", url=server.url("/list"), mirrors=[mirror.url("/list")], allow_private=True)
    assert world.update().feed("web")["outcome"] == "updated"
    asked = len(server.talks)
    world.change("UPDATE feed SET retry_at = '2099-01-01T00:00:00Z'")
    assert world.update().feed("web")["outcome"] == "unchanged"
    assert (len(server.talks), len(mirror.talks)) == (asked, 2)
    mirror.routes["/list"] = lambda talk: talk.reply(404)
    assert "not asked before 2099-01-01" in world.update().feed("web")["error"] and len(server.talks) == asked
    assert world.listed() == names(5)
    mirror.close()


def test_c2_a_secret_may_come_from_systemd(world: World, server: FeedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = world.base / "credentials"
    folder.mkdir()
    (folder / "abuse-ch").write_text(SECRET)
    (folder / "abuse-ch").chmod(0o440)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    keyed(world, server.url("/list"), {"name": "abuse-ch", "bearer": True})
    assert world.update().code == 0
    assert server.talks[0].headers["authorization"] == f"Bearer {SECRET}"
    seen = world.base / "seen"
    world.export("out")
    world.exports["out"]["reload"] = world.script("reload", f"env > {seen}")
    world.write()
    world.update("--force")
    assert "PATH" in seen.read_text() and "CREDENTIALS" not in seen.read_text()
    (folder / "abuse-ch").chmod(0o444)
    ran = world.update("--force")
    assert "others can read" in ran.feed("web")["error"] and len(server.talks) == 2 and SECRET not in ran.text


def test_doctor_finds_what_was_harmed(world: World) -> None:
    world.feed("web", LIST)
    published = world.export("out")
    world.update()
    good = world.run("doctor", "--deep", "--json")
    # The folder of a test is its owner's alone, which doctor rightly says of a list for an engine.
    closed = good.out.count("can reach it")
    assert good.code == 0 and good.json["fail"] == 0 and good.json["warn"] == closed, good.out
    published.write_text("edited\n")
    kept = next((world.state / "snapshots").rglob("*.zst"))
    kept.write_bytes(b"torn")
    keep(world, mode=0o644)
    ran = world.run("doctor", "--deep")
    assert ran.code == 1 and "3 failed" in ran.out
    assert "was edited" in ran.out and "missing or damaged: 1" in ran.out and "chmod 600" in ran.out


def test_doctor_and_update_name_a_retired_feed_and_a_moved_url(world: World) -> None:
    folder = world.base / "feeds.d"
    folder.mkdir(mode=0o755)
    (folder / "old.toml").write_text(
        'title = "x"\nurl = "file:feeds/web.txt"\npast_urls = ["file:feeds/was.txt"]\ncategory = "malware"\n'
        'status = "discontinued"\nsuccessor = "new"\n'
    )
    world.lines("was", LIST)
    world.feed("old", LIST, url="file:feeds/was.txt")
    world.config.write_text(world.config.read_text().replace("enable = []", 'enable = ["old"]'))
    out = world.run("doctor").out
    assert "former address of old" in out and 'write url = "file:feeds/web.txt"' in out
    assert "write 'new' instead of 'old'" in out
    assert "discontinued" in world.run("update").err
