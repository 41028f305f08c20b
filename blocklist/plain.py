"""Text of strangers as text that nobody acts upon: no terminal, no page, no spreadsheet."""

from __future__ import annotations

# A cell that starts so is run as a formula by spreadsheets; an apostrophe makes it text.
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def safe(text: str) -> str:
    """`text` without anything a terminal acts on: controls, bidirectional overrides, line ends become escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def cell(text: str) -> str:
    """`safe`, and no formula when a table is pasted into a spreadsheet."""
    return safe("'" + text if text.startswith(FORMULA) else text)
