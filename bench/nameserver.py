"""NSD on loopback with one zone, for as long as a `with` block."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.peers import found

_CONFIGURATION = """\
server:
  ip-address: 127.0.0.1@{port}
  ip-address: 127.0.0.2@{port}
  server-count: 1
  username: ""
  chroot: ""
  zonesdir: "{work}"
  database: ""
  pidfile: "{work}/nsd.pid"
  xfrdfile: "{work}/nsd.xfrd"
  zonelistfile: "{work}/nsd.zones"
  rrl-ratelimit: 0
  rrl-whitelist-ratelimit: 0
remote-control:
  control-enable: no
zone:
  name: example
  zonefile: zone
"""


@contextmanager
def nsd(work: Path, names: Sequence[str]) -> Iterator[int]:
    """The port of a server that knows addresses for `names` below `example.` and denies the rest."""
    program = found("nsd")
    if program is None:
        raise SystemExit("nsd is not installed")
    with socket.socket(type=socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    zone = ["$ORIGIN example.", "$TTL 60", "@ SOA ns h 1 3600 600 86400 60", "@ NS ns", "ns A 127.0.0.1"]
    zone += [f"{name}. A 192.0.2.{i % 250 + 1}" for i, name in enumerate(names)]
    (work / "zone").write_text("\n".join(zone) + "\n")
    (work / "nsd.conf").write_text(_CONFIGURATION.format(port=port, work=work))
    with (work / "nsd.log").open("w") as log:
        process = subprocess.Popen([program, "-d", "-c", str(work / "nsd.conf")], stdout=log, stderr=log)
    try:
        _wait(port, process, work / "nsd.log")
        yield port
    finally:
        process.terminate()
        process.wait(10)


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    import dns.exception
    import dns.message
    import dns.query

    query = dns.message.make_query("example", "SOA")
    for _ in range(300):
        try:
            dns.query.udp(query, "127.0.0.1", port=port, timeout=0.2)
            return
        except (dns.exception.Timeout, OSError):
            if process.poll() is not None:
                break
            time.sleep(0.1)
    raise SystemExit(f"nsd does not answer: {log.read_text()[-500:]}")
