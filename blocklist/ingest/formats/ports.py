"""`host:port` to the host: where a service listened is evidence, not part of the indicator."""

from __future__ import annotations

import polars as pl

_PORT = r"^([^:/\[\]\s]+):[0-9]{1,5}$"
_BRACKETS = r"^\[([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?$"


def without_port(text: pl.Expr) -> pl.Expr:
    """`192.0.2.1:443`, `evil.example:8080` and `[2001:db8::1]:443` without port and brackets; other text as it is."""
    return text.str.replace(_PORT, "$1").str.replace(_BRACKETS, "$1")
