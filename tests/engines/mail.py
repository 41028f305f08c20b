"""rspamd with the maps of an export, asked over HTTP what it would do with a message."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from http.client import HTTPConnection

from blocklist.publish import descriptor

from . import driver

_MAP = "/var/lib/rspamd/blocklist.map"
_MESSAGE = "From: a@ok.example\r\nSubject: x\r\n\r\nx\r\n"


@contextlib.contextmanager
def rspamd(format_name: str, text: bytes) -> Iterator[Callable[[dict[str, str]], bool]]:
    """rspamd as the example of the format says: a function that takes headers such as `From` and `IP`."""
    example = descriptor.builtin()[format_name].load
    assert _MAP in example
    with driver.lab() as place:
        place.folder.chmod(0o777)
        exported = place.folder / "exported.map"
        exported.write_bytes(text)
        # Of its own rules none is needed, and of the public suffixes one: to compile all takes half a minute.
        (place.folder / "start.lua").write_text('require "global_functions" ()\n')
        (place.folder / "suffixes").write_text("example\n")
        port = driver.free_port()
        conf = place.configure("rspamd.conf", port=port, maps=example.replace(_MAP, str(exported)))
        place.start([driver.program("rspamd"), "-f", "-i", "-c", str(conf)], port)

        def rejects(headers: dict[str, str]) -> bool:
            connection = HTTPConnection("127.0.0.1", port, timeout=10)
            try:
                connection.request("POST", "/checkv2", body=_MESSAGE, headers=headers)
                reply = json.loads(connection.getresponse().read())
            finally:
                connection.close()
            assert reply["action"] in ("reject", "no action"), reply
            assert ("LISTED" in reply["symbols"]) == (reply["action"] == "reject"), reply
            return bool(reply["action"] == "reject")

        yield rejects
