"""Run inside `unshare -n`: load a packet filter, say which connections get through. Loopback only.

Arguments: a JSON object with `addresses` (to give to lo), `load` (argument lists to run) and `probes`
(pairs of source and destination). Prints a JSON list of true (reached) or false, in the order of the probes.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading


def listen(family: int, address: str) -> int:
    server = socket.socket(family)
    if family == socket.AF_INET6:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    server.bind((address, 0))
    server.listen(64)

    def serve() -> None:
        while True:
            server.accept()[0].close()

    threading.Thread(target=serve, daemon=True).start()
    return int(server.getsockname()[1])


def main() -> None:
    plan = json.loads(sys.argv[1])
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for address in plan["addresses"]:
        subprocess.run(["ip", "addr", "add", address, "dev", "lo"], check=True)
    ports = {4: listen(socket.AF_INET, "0.0.0.0"), 6: listen(socket.AF_INET6, "::")}
    for command in plan["load"]:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    reached = []
    for source, destination in plan["probes"]:
        version = 6 if ":" in destination else 4
        try:
            socket.create_connection((destination, ports[version]), 1.0, (source, 0)).close()
            reached.append(True)
        except OSError:
            reached.append(False)
    print(json.dumps(reached))


if __name__ == "__main__":
    main()
