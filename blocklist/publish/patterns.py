"""What may stand in a file, as patterns for columns and single values alike. No columns here."""

from __future__ import annotations

# A URL of the record, without its scheme: `host[:port]/path?query` (RFC 3986 §3.3, §3.4). No space, quote,
# apostrophe, angle bracket, backslash or `#`; a `%` stands before two digits only.
URL = (
    r"^(?:[a-z0-9._-]{1,253}|\[[0-9a-f:]{2,45}\])(?::[1-9][0-9]{0,4})?/"
    r"(?:[A-Za-z0-9._~:/?@!$&()*+,;=-]|%[0-9A-Fa-f]{2})*$"
)
# What an escape of a URL stands for, as one character of a regular expression (POSIX): Squid compares URLs in which
# `%XX` is decoded, once, but for %00. Of what is not printable nothing can be written in ASCII.
DECODED = {f"%{code:02X}": r"\^" if code == 0x5E else f"[{chr(code)}]" for code in range(0x20, 0x7F)} | {"%00": "[%]00"}
# What no value of a STIX pattern or MISP attribute has here: quotes, backslashes, all but printable ASCII.
UNSHARED = r"['\"\\]|[^!-~]"
