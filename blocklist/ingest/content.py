"""What a body looks like before anyone parses it."""

from __future__ import annotations

import re

_TAG = re.compile(rb"<(?:!doctype\s+html|html|head|body|title|meta|script)\b", re.IGNORECASE)
# What may stand before the first tag, and how it ends.
_PROLOGUE = ((b"<?xml", b">"), (b"<!--", b"-->"))


def looks_like_html(head: bytes) -> bool:
    """Whether the first bytes of a body (a few kB are enough) are a web page rather than a list.

    Publishers and captive portals answer with error pages and login forms under status 200.
    """
    head = head[:4096]
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):  # UTF-16: every second byte of ASCII is NUL
        head = head[2:].replace(b"\0", b"")
    rest = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    # By hand: a pattern for any number of comments backtracks without end, or needs possessive repeats, which
    # Python 3.11.2 (Debian 12) gets wrong.
    while (found := next(((b, e) for b, e in _PROLOGUE if rest.lower().startswith(b)), None)) is not None:
        _, closed, rest = rest[len(found[0]) :].partition(found[1])
        if not closed:
            return False
        rest = rest.lstrip()
    return _TAG.match(rest) is not None
