"""A real HTTP(S) server on loopback whose routes are scripts: each may lie, stall, drip or hang up."""

from __future__ import annotations

import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Talk:
    """One request and the raw connection it came on."""

    path: str
    headers: dict[str, str]
    connection: socket.socket
    stopping: threading.Event

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def reply(self, status: int = 200, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        """A whole and honest answer, unless `headers` says otherwise."""
        fields = {"Content-Length": str(len(body)), "Connection": "close"} | dict(headers or {})
        head = f"HTTP/1.1 {status} Whatever\r\n" + "".join(f"{k}: {v}\r\n" for k, v in fields.items())
        self.send(head.encode() + b"\r\n" + body)

    def redirect(self, target: str, status: int = 302) -> None:
        self.reply(status, headers={"Location": target})

    def reset(self) -> None:
        """End with RST instead of FIN."""
        time.sleep(0.05)  # let what was sent arrive first: RST overtakes it
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def stall(self, seconds: float = 30.0) -> None:
        self.stopping.wait(seconds)


Script = Callable[[Talk], None]


class FeedServer:
    """Runs `routes[path](talk)`, a thread a connection, one request a connection.

    `talks` keeps every request; `most_at_once` is the largest number that were open together.
    """

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        self.routes: dict[str, Script] = {}
        self.talks: list[Talk] = []
        self.most_at_once = 0
        self._open = 0
        self._lock = threading.Lock()
        self._tls = tls
        self._stopping = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"{'https' if self._tls else 'http'}://{host}:{self.port}{path}"

    def asked(self, path: str) -> int:
        return sum(talk.path.partition("?")[0] == path for talk in self.talks)

    def close(self) -> None:
        self._stopping.set()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            data = b""
            while b"\r\n\r\n" not in data:
                more = connection.recv(65536)
                if not more:
                    return
                data += more
            first, *lines = data.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
            headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
            talk = Talk(first.split(" ")[1], headers, connection, self._stopping)
            with self._lock:
                self.talks.append(talk)
                self._open += 1
                self.most_at_once = max(self.most_at_once, self._open)
            try:
                self.routes.get(talk.path.partition("?")[0], lambda talk: talk.reply(404, b"no"))(talk)
            finally:
                with self._lock:
                    self._open -= 1
        except OSError:
            pass  # the client hung up, which is what many tests want
        finally:
            connection.close()


@dataclass(frozen=True)
class Certificates:
    """Files in PEM: `authority` to trust, and chains with key for servers named localhost and 127.0.0.1."""

    authority: Path
    good: Path
    expired: Path
    self_signed: Path
    other_name: Path

    @staticmethod
    def server_context(chain: Path) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain)
        return context


def make_certificates(folder: Path) -> Certificates:
    """By the openssl command: a throw-away authority and what it signs."""

    def openssl(*arguments: str) -> None:
        subprocess.run(("openssl", *arguments), cwd=folder, check=True, capture_output=True)

    def key(name: str) -> None:
        openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", f"{name}.key")

    def leaf(name: str, alternative: str, *validity: str) -> Path:
        key(name)
        (folder / f"{name}.ext").write_text(f"subjectAltName={alternative}\n")
        openssl("req", "-new", "-key", f"{name}.key", "-subj", f"/CN={name}", "-out", f"{name}.csr")
        openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
            *("-extfile", f"{name}.ext", *validity, "-out", f"{name}.crt"),
        )
        chain = folder / f"{name}.pem"
        chain.write_text((folder / f"{name}.crt").read_text() + (folder / f"{name}.key").read_text())
        return chain

    # Days may not be negative from OpenSSL 3.5 on, which has dates instead.
    said = subprocess.run(("openssl", "x509", "-help"), capture_output=True, text=True).stderr
    over = ("-not_before", "20200101000000Z", "-not_after", "20200102000000Z")
    here = "DNS:localhost,IP:127.0.0.1"
    key("ca")
    openssl(
        *("req", "-x509", "-new", "-key", "ca.key", "-subj", "/CN=Test authority", "-days", "2"),
        *("-addext", "keyUsage=critical,keyCertSign", "-out", "ca.pem"),
    )
    key("self")
    openssl(
        *("req", "-x509", "-new", "-key", "self.key", "-subj", "/CN=localhost", "-days", "2"),
        *("-addext", f"subjectAltName={here}", "-out", "self.crt"),
    )
    self_signed = folder / "self.pem"
    self_signed.write_text((folder / "self.crt").read_text() + (folder / "self.key").read_text())
    return Certificates(
        authority=folder / "ca.pem",
        good=leaf("good", here, "-days", "2"),
        expired=leaf("expired", here, *(over if "-not_after" in said else ("-days", "-1"))),
        self_signed=self_signed,
        other_name=leaf("other", "DNS:feeds.example", "-days", "2"),
    )
