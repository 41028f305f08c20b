"""Text of strangers, made fit to be shown."""

from __future__ import annotations


def safe(text: str) -> str:
    """`text` without anything a terminal acts on: controls, bidirectional overrides, line ends become escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
