"""A path on loopback that loses and delays datagrams: a proxy in a process of its own, for as long as a `with` block.

`python -m bench.lossy PORT TARGET LOSS JITTER`: 127.0.0.3 and 127.0.0.4 stand for 127.0.0.1 and 127.0.0.2.
"""

from __future__ import annotations

import random
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

ADDRESSES: Final = {"127.0.0.3": "127.0.0.1", "127.0.0.4": "127.0.0.2"}
AT_ONCE: Final = 256  # datagrams read from one socket before the others get their turn
STEP: Final = 0.001  # seconds to which delays are rounded
BUFFER: Final = 1 << 23


@contextmanager
def lossy(target: int, loss: float, jitter: float) -> Iterator[int]:
    """The port of the proxy to port `target`.

    Each datagram is lost with probability `loss`, in each direction; a reply waits up to `jitter` seconds.
    """
    with socket.socket(type=socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.3", 0))
        port = int(free.getsockname()[1])
    command = [sys.executable, "-m", "bench.lossy", str(port), str(target), str(loss), str(jitter)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        if process.stdout.readline() != b"ready\n":
            raise SystemExit("the lossy proxy does not start")
        yield port
    finally:
        process.terminate()
        process.wait(10)


@dataclass
class _Path:
    """A socket that clients know; to the server each of them has one of its own."""

    known: socket.socket
    beyond: tuple[str, int]
    clients: dict[tuple[str, int], socket.socket] = field(default_factory=dict)


class _Proxy:
    def __init__(self, port: int, target: int, loss: float, jitter: float) -> None:
        self.loss, self.jitter = loss, jitter
        self.poll = select.epoll()
        self.paths: dict[int, _Path] = {}
        self.back: dict[int, tuple[socket.socket, _Path, tuple[str, int]]] = {}
        self.due: dict[int, list[tuple[bytes, _Path, tuple[str, int]]]] = {}
        self.next = int(time.monotonic() / STEP)
        for address, beyond in ADDRESSES.items():
            known = self._socket()
            known.bind((address, port))
            self.paths[known.fileno()] = _Path(known, (beyond, target))

    def _socket(self) -> socket.socket:
        made = socket.socket(type=socket.SOCK_DGRAM)
        made.setblocking(False)
        for which in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            made.setsockopt(socket.SOL_SOCKET, which, BUFFER)
        self.poll.register(made, select.EPOLLIN)
        return made

    def serve(self) -> None:
        while True:
            for number, _ in self.poll.poll(STEP if self.due else 1.0):
                if number in self.paths:
                    self._forward(self.paths[number])
                else:
                    self._bring_back(*self.back[number])
            self._deliver(int(time.monotonic() / STEP))

    def _forward(self, path: _Path) -> None:
        receive, clients, loss, chance = path.known.recvfrom, path.clients, self.loss, random.random
        for _ in range(AT_ONCE):
            try:
                data, client = receive(4096)
            except BlockingIOError:
                return
            beyond = clients.get(client)
            if beyond is None:
                beyond = clients[client] = self._socket()
                beyond.connect(path.beyond)
                self.back[beyond.fileno()] = (beyond, path, client)
            if chance() >= loss:
                with suppress(OSError):
                    beyond.send(data)

    def _bring_back(self, beyond: socket.socket, path: _Path, client: tuple[str, int]) -> None:
        receive, due, loss, chance = beyond.recv, self.due, self.loss, random.random
        first, wait = int(time.monotonic() / STEP), self.jitter / STEP
        for _ in range(AT_ONCE):
            try:
                data = receive(4096)
            except OSError:
                return
            if chance() < loss:
                continue
            if not wait:
                with suppress(OSError):
                    path.known.sendto(data, client)
                continue
            due.setdefault(first + 1 + int(chance() * wait), []).append((data, path, client))

    def _deliver(self, now: int) -> None:
        for step in sorted(step for step in self.due if step <= now) if self.due else ():
            for data, path, client in self.due.pop(step):
                with suppress(OSError):
                    path.known.sendto(data, client)


if __name__ == "__main__":
    proxy = _Proxy(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4]))
    print("ready", flush=True)
    proxy.serve()
