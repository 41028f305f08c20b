"""Starts proxies and other engines that look at host names, configured as the descriptor's own example says."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

from blocklist.publish import descriptor

from . import driver, mail

FORMATS = descriptor.builtin()
Ask = Callable[[str], bool]


def _shown(name: str, place: str, exported: Path) -> str:
    """The example of the descriptor, with the file of this test for the one it names."""
    text = FORMATS[name].load
    assert place in text, f"{name}: the example does not name {place}"
    return text.replace(place, str(exported))


def _haproxy(place: driver.Lab, exported: Path, port: int, origin: int) -> list[str]:
    conf = place.folder / "haproxy.cfg"
    conf.write_text(
        "global\n  maxconn 100\ndefaults\n  mode http\n  timeout connect 2s\n  timeout client 5s\n  timeout server 5s\n"
        f"frontend f\n  bind 127.0.0.1:{port}\n"
        + _shown("haproxy", "/etc/haproxy/blocklist.map", exported)
        + f"  default_backend b\nbackend b\n  server s 127.0.0.1:{origin}\n"
    )
    return [driver.program("haproxy"), "-db", "-f", str(conf)]


def _nginx(place: driver.Lab, exported: Path, port: int, origin: int) -> list[str]:
    shown = _shown("nginx", "/etc/nginx/blocklist.map", exported)
    server = f"listen 127.0.0.1:{port}; location / {{ proxy_pass http://127.0.0.1:{origin}; }}"
    temporary = " ".join(f"{what}_temp_path {place.folder}/{what};" for what in ("proxy", "fastcgi", "uwsgi", "scgi"))
    conf = place.folder / "nginx.conf"
    conf.write_text(
        f"daemon off; master_process off; pid {place.folder}/nginx.pid; error_log stderr;\n"
        "events { worker_connections 64; }\n"
        f"http {{\naccess_log off; client_body_temp_path {place.folder}/body; {temporary}\n"
        + shown.replace("server {", f"server {{ {server}")
        + "}\n"
    )
    return [driver.program("nginx"), "-c", str(conf)]


def _privoxy(place: driver.Lab, exported: Path, port: int, origin: int) -> list[str]:
    exported.rename(place.folder / "blocklist.action")
    conf = place.folder / "config"
    conf.write_text(
        f"listen-address 127.0.0.1:{port}\nconfdir {place.folder}\nlogdir {place.folder}\n"
        f"templdir /etc/privoxy/templates\ntoggle 1\nforward / 127.0.0.1:{origin}\n{FORMATS['privoxy'].load}\n"
    )
    return [driver.program("privoxy"), "--no-daemon", str(conf)]


def _tinyproxy(place: driver.Lab, exported: Path, port: int, origin: int) -> list[str]:
    conf = place.folder / "tinyproxy.conf"
    conf.write_text(
        f'Port {port}\nListen 127.0.0.1\nTimeout 10\nUpstream http 127.0.0.1:{origin}\nPidFile "{place.folder}/pid"\n'
        + _shown("tinyproxy", "/etc/tinyproxy/blocklist.filter", exported)
    )
    return [driver.program("tinyproxy"), "-d", "-c", str(conf)]


_STARTED = {"haproxy": _haproxy, "nginx": _nginx, "privoxy": _privoxy, "tinyproxy": _tinyproxy}


@contextlib.contextmanager
def _proxy(name: str, text: bytes) -> Iterator[Ask]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), driver._Origin)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with driver.lab() as place:
            place.folder.chmod(0o777)
            exported = place.folder / "exported.list"
            exported.write_bytes(text)
            port = driver.free_port()
            place.start(_STARTED[name](place, exported, port, server.server_address[1]), port)
            yield driver.Proxy(port, server.server_address[1], reverse=name in ("haproxy", "nginx")).blocks
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def _squid(text: bytes, hosts: list[str]) -> Iterator[Ask]:
    with driver.squid(text, [host for host in hosts if not host.endswith(".")]) as proxy:
        yield proxy.blocks


@contextlib.contextmanager
def _resolver(name: str, format_name: str, text: bytes) -> Iterator[Ask]:
    origin = "rpz.blocklist.internal" if format_name == "rpz" else ""
    with driver.resolver(name, text, canary="xn--fsqu00a.example", origin=origin) as engine:
        yield lambda host: engine.blocks(host)


@contextlib.contextmanager
def _postfix(text: bytes) -> Iterator[Ask]:
    """postmap asks one key; the order of keys is that of access(5), for a domain and what is above it."""
    postmap = driver.program("postmap")
    with driver.lab() as place:
        table = place.folder / "blocklist"
        table.write_bytes(text)
        (place.folder / "main.cf").write_text("compatibility_level = 3.6\n")
        base = [postmap, "-c", str(place.folder)]
        made = subprocess.run([*base, str(table)], capture_output=True, text=True, check=False)
        assert made.returncode == 0 and not made.stderr, made.stderr

        def ask(host: str) -> bool:
            host = host.rstrip(".")
            labels = host.split(".")
            keys = [host, *("." + ".".join(labels[n:]) for n in range(1, len(labels)))]
            argv = [*base, "-q", "-", str(table)]
            got = subprocess.run(argv, input="\n".join(keys) + "\n", capture_output=True, text=True, check=False)
            # In the order of the keys, those that are there.
            return got.returncode == 0 and got.stdout.split("\n")[0].split("\t")[1] == "REJECT"

        yield ask


@contextlib.contextmanager
def _squidguard(text: bytes) -> Iterator[Ask]:
    """squidGuard as Squid's helper: a request a line, a redirection or nothing back."""
    program = driver.program("squidGuard")
    with driver.lab() as place:
        (place.folder / "blocklist").mkdir()
        (place.folder / "blocklist" / "domains").write_bytes(text)
        conf = place.folder / "squidGuard.conf"
        conf.write_text(f"dbhome {place.folder}\nlogdir {place.folder}\n" + FORMATS["squidguard"].load)

        def ask(host: str) -> bool:
            line = f"http://{host}/ 192.0.2.9/- - GET\n"
            argv = [program, "-c", str(conf)]
            done = subprocess.run(argv, input=line, capture_output=True, text=True, timeout=20, check=True)
            return "blocked" in done.stdout

        yield ask


@contextlib.contextmanager
def _pac(text: bytes) -> Iterator[Ask]:
    """The script in a JavaScript engine, as a browser would call it."""
    duk = driver.program("duk")
    with driver.lab() as place:
        script = place.folder / "asked.js"

        def ask(host: str) -> bool:
            script.write_text(text.decode() + f"\nprint(FindProxyForURL('', {json.dumps(host)}));\n")
            done = subprocess.run([duk, str(script)], capture_output=True, text=True, timeout=20, check=True)
            assert done.stdout.strip() in ("DIRECT", "PROXY 127.0.0.1:9")
            return done.stdout.strip() != "DIRECT"

        yield ask


@contextlib.contextmanager
def _rspamd(text: bytes) -> Iterator[Ask]:
    """By the sender of a message; a mail address has no final dot."""
    with mail.rspamd("rspamd-domain", text) as rejects:
        yield lambda host: rejects({"From": f"<a@{host.rstrip('.')}>"})


# Engine → the format that it reads. More than one engine may read a format.
READS = {
    "named": "rpz",
    "unbound": "rpz",
    "pdns_recursor": "rpz",
    "kresd": "rpz",
    "unbound-local": "unbound",
    "dnsmasq": "dnsmasq",
    "dnsmasq-conf": "dnsmasq-conf",
    "dnsmasq-hosts": "hosts",
    "dnsdist": "dnsdist",
    "smartdns": "smartdns",
    "squid": "squid",
    "haproxy": "haproxy",
    "nginx": "nginx",
    "privoxy": "privoxy",
    "tinyproxy": "tinyproxy",
    "squidguard": "squidguard",
    "postfix": "postfix",
    "duk": "pac",
    "rspamd": "rspamd-domain",
}
# Names that the engine can't be asked for: none of the first is the domain of a sender (RFC 5321 §4.1.2), and to one of
# two labels that begins with a hyphen SmartDNS 46 answers with a message that is none.
UNASKED = {"rspamd": r"_|^-", "smartdns": r"^-"}


@contextlib.contextmanager
def engine(name: str, text: bytes, hosts: list[str]) -> Iterator[Ask]:
    """The engine `name` with the list `text`: a function that says whether a host is blocked."""
    own: dict[str, Callable[[], contextlib.AbstractContextManager[Ask]]] = {
        "squid": lambda: _squid(text, hosts),
        "postfix": lambda: _postfix(text),
        "squidguard": lambda: _squidguard(text),
        "duk": lambda: _pac(text),
        "rspamd": lambda: _rspamd(text),
    }
    if name in _STARTED:
        started = _proxy(name, text)
    elif name in own:
        started = own[name]()
    else:
        started = _resolver(name, READS[name], text)
    with started as ask:
        yield ask
