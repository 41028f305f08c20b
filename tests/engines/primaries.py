"""Primaries and secondaries on loopback: BIND and Knot DNS serve a zone, BIND and Unbound follow it as resolvers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import dns.message
import dns.query
import dns.rdatatype
import dns.tsig
import dns.xfr
import dns.zone

from . import driver

ZONE = "rpz.example.net"
SECRET = "c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0IQ=="
TSIG = f"hmac-sha256:rpz-key:{SECRET}"
EMPTY = "$TTL 300\n@ SOA localhost. hostmaster.localhost. 1 900 500 2419200 60\n@ NS localhost.\n"


@dataclass
class Served:
    """A primary on `port`; `zone` is its file."""

    lab: driver.Lab
    port: int
    zone: Path
    control: int = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def socket(self) -> Path:
        return self.lab.folder / "knot.sock"

    @property
    def log(self) -> str:
        return "".join(path.read_text(errors="replace") for path in self.lab.folder.glob("*.log"))

    def serial(self, origin: str = ZONE) -> int:
        reply = dns.query.udp(dns.message.make_query(origin, "SOA"), "127.0.0.1", 5, self.port)
        return int(reply.answer[0][0].serial)

    def records(self, origin: str = ZONE) -> set[str]:
        """What the primary gives to a secondary, without the SOA: `OWNER TYPE DATA`, relative to the zone."""
        query, _ = dns.xfr.make_query(zone := dns.zone.Zone(origin))
        if self.control:
            query.use_tsig(dns.tsig.Key("rpz-key", SECRET, "hmac-sha256"))
        dns.query.inbound_xfr("127.0.0.1", zone, query, port=self.port, lifetime=30)
        return {
            f"{name} {dns.rdatatype.to_text(data.rdtype)} {data.to_text(zone.origin, relativize=False)}"
            for name, _, data in zone.iterate_rdatas()
            if data.rdtype != dns.rdatatype.SOA
        }

    def rndc(self) -> list[str]:
        """The words before a command of rndc."""
        path = self.lab.folder / "rndc.conf"
        path.write_text(
            f'key "rpz-key" {{ algorithm hmac-sha256; secret "{SECRET}"; }};\n'
            f'options {{ default-key "rpz-key"; default-server 127.0.0.1; default-port {self.control}; }};\n'
        )
        return [driver.program("rndc"), "-c", str(path)]


def bind(lab: driver.Lab, zone: Path, feeding: str, more: Mapping[str, Path] | None = None) -> Served:
    """BIND with the zone in the file `zone`. `feeding`: the statements that say how it changes. `more`: other zones."""
    port, control = driver.free_port(), driver.free_port()
    conf = lab.configure(
        "primary-named.conf", port=port, control=control, secret=SECRET, origin=ZONE, zone=zone, feeding=feeding
    )
    for origin, path in (more or {}).items():
        own = f'zone "{origin}" {{ type primary; file "{path}"; {feeding} allow-transfer {{ key "rpz-key"; }}; }};\n'
        conf.write_text(conf.read_text() + own)
    lab.start([driver.program("named"), "-g", "-n", "1", "-c", str(conf)], port)
    return Served(lab, port, zone, control)


def knot(lab: driver.Lab, zone: Path, text: str | None = None) -> Served:
    """Knot DNS with the zone in the file `zone`. `text`: a configuration in the place of ours."""
    port = driver.free_port()
    conf = lab.configure("primary-knot.conf", text, port=port, origin=ZONE, zone=zone)
    lab.start([driver.program("knotd"), "-c", str(conf)], port)
    return Served(lab, port, zone)
