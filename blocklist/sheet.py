"""Cells that a spreadsheet shows and never computes."""

from __future__ import annotations

# What begins a formula in the spreadsheets that people use (OWASP, "CSV Injection").
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def cell(text: str) -> str:
    """`text` without controls, quoted with an apostrophe where a spreadsheet would take it for a formula."""
    shown = "".join(c if c.isprintable() else " " for c in text)
    return f"'{shown}" if text.startswith(FORMULA) else shown
