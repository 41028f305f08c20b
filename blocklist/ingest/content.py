"""What a body looks like before anyone parses it."""

from __future__ import annotations

import re

# Possessive throughout: with plain `*` a page of empty comments would take for ever.
_HTML = re.compile(
    rb"(?:<\?xml[^>]*+>|<!--(?:(?!-->).)*+-->|\s)*+<(?:!doctype\s+html|html|head|body|title|meta|script)\b",
    re.IGNORECASE | re.DOTALL,
)


def looks_like_html(head: bytes) -> bool:
    """Whether the first bytes of a body (a few kB are enough) are a web page rather than a list.

    Publishers and captive portals answer with error pages and login forms under status 200.
    """
    head = head[:4096]
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):  # UTF-16: every second byte of ASCII is NUL
        head = head[2:].replace(b"\0", b"")
    return _HTML.match(head.removeprefix(b"\xef\xbb\xbf").lstrip()) is not None
