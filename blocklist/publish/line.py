"""The line of one entry: a template of constants and placeholders, as a column expression.

Every placeholder is computed in columns from a value that has passed the gate; no row is formatted by itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import polars as pl

from blocklist.publish.patterns import DECODED


def _plain(value: pl.Expr) -> pl.Expr:
    return value


def _regex(value: pl.Expr) -> pl.Expr:
    # What POSIX extended, PCRE and Go expressions give a meaning to, as far as the gate lets it through.
    return value.str.replace_all(r"([.?*+()\[\]$^{}|])", r"\$1")


def _regex_of_name(value: pl.Expr) -> pl.Expr:
    # Half the time: of the letters of a name only the dot means something.
    return value.str.replace_all(".", r"\.", literal=True)


def _unescaped(value: pl.Expr) -> pl.Expr:
    """A URL as `_regex`, with its escapes decoded; what can't be written decoded stays an escape."""
    spelled = {text: char for escape, char in DECODED.items() for text in _spellings(escape)}
    return _regex(value).str.replace_many(list(spelled), list(spelled.values()), leftmost=True)


def _spellings(escape: str) -> set[str]:
    """`%2F`, `%2f`: the digits of an escape in either case, one by one."""
    return {f"%{high}{low}" for high in (escape[1], escape[1].lower()) for low in (escape[2], escape[2].lower())}


def _base64(value: pl.Expr) -> pl.Expr:
    return value.str.encode("base64")


def _six(value: pl.Expr) -> pl.Expr:
    return value.str.contains(":", literal=True)


def _address(value: pl.Expr) -> pl.Expr:
    return value.str.split("/").list.first()


def _length(value: pl.Expr) -> pl.Expr:
    whole = pl.when(_six(value)).then(pl.lit("128")).otherwise(pl.lit("32"))
    return pl.when(value.str.contains("/", literal=True)).then(value.str.split("/").list.last()).otherwise(whole)


def _cidr(value: pl.Expr) -> pl.Expr:
    return pl.concat_str(_address(value), pl.lit("/"), _length(value))


def _mask_of(bits: int) -> str:
    mask = (1 << 32) - (1 << (32 - bits))
    return ".".join(str(mask >> shift & 255) for shift in (24, 16, 8, 0))


_MASKS = {str(bits): _mask_of(bits) for bits in range(33)}


def _mask(value: pl.Expr) -> pl.Expr:
    return _length(value).replace_strict(_MASKS, default=None, return_dtype=pl.String)


def _groups(value: pl.Expr) -> pl.Expr:
    """An IPv6 address in its eight groups of four digits, an IPv4 address as it is (RFC 4291 §2.2, form 1)."""
    return pl.when(_six(value)).then(value.map_batches(_spelled_out, return_dtype=pl.String)).otherwise(value)


def _spelled_out(addresses: pl.Series) -> pl.Series:
    from ipaddress import ip_address

    texts = [ip_address(text).exploded if ":" in text else text for text in addresses.to_list()]
    return pl.Series(addresses.name, texts, dtype=pl.String)


def _range(value: pl.Expr) -> pl.Expr:
    """First and last address with a hyphen between."""
    return value.map_batches(_first_to_last, return_dtype=pl.String)


def _first_to_last(networks: pl.Series) -> pl.Series:
    from ipaddress import ip_network

    made = [ip_network(text) for text in networks.to_list()]
    texts = [f"{network.network_address}-{network.broadcast_address}" for network in made]
    return pl.Series(networks.name, texts, dtype=pl.String)


_MAKE: dict[str, Callable[[pl.Expr], pl.Expr]] = {
    "name": _plain,
    "regex": _regex_of_name,
    "unescaped": _unescaped,
    "base64": _base64,
    "cidr": _cidr,
    "address": _address,
    "length": _length,
    "mask": _mask,
    "groups": _groups,
    "range": _range,
}


_PLACEHOLDER = re.compile(r"\{(" + "|".join(_MAKE) + r")\}")


def expression(template: str, column: str, *, url: bool = False) -> pl.Expr:
    """`template` as a column of String: constants and what is made of the column, in turn.

    `url`: the column holds URLs, in which more than the dot is syntax to a regular expression.
    """
    make = {**_MAKE, "regex": _regex} if url else _MAKE
    pieces: list[pl.Expr] = []
    for number, piece in enumerate(_PLACEHOLDER.split(template)):
        if number % 2:
            pieces.append(make[piece](pl.col(column)))
        elif piece:
            pieces.append(pl.lit(piece))
    return pl.concat_str(pieces)


def size(template: str, column: str) -> pl.Expr | None:
    """Bytes of the line that `expression` makes, its newline included; None where that takes making it."""
    pieces = _PLACEHOLDER.split(template)
    if set(pieces[1::2]) != {"name"}:
        return None
    return pl.col(column).str.len_bytes() * len(pieces[1::2]) + sum(len(piece) for piece in pieces[::2]) + 1
