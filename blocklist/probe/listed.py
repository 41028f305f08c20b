"""What a published list blocks, read back from its lines, and what to ask an engine about it."""

from __future__ import annotations

import random
import secrets
from collections.abc import Mapping, Sequence
from ipaddress import ip_network
from pathlib import Path

import polars as pl

from blocklist.errors import ReleaseError
from blocklist.probe.resolver import FIXED, RULES, Question, Questions
from blocklist.publish.descriptor import Format
from blocklist.publish.patterns import DECODED
from blocklist.publish.reading import pattern_of, templates
from blocklist.rules import Rule


def entries(fmt: Format, options: Mapping[str, object], path: Path) -> pl.DataFrame:
    """`text: String`, `what: String` (`subtree`, `exact`, `network` or `url`) of the blocks in `path`.

    Raises ReleaseError when the file can't be read.
    """
    try:
        lines = pl.read_csv(
            path, has_header=False, separator="\x1f", quote_char=None, schema={"line": pl.String}, encoding="utf8-lossy"
        )["line"].drop_nulls()
    except pl.exceptions.NoDataError:
        lines = pl.Series("line", [], dtype=pl.String)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ReleaseError(f"{path}: can't be read again: {error}") from None
    found = [pl.DataFrame(schema={"text": pl.String, "what": pl.String})]
    rest = lines
    for what, template, value in templates(fmt):
        pattern = pattern_of(template, options, value)
        if pattern is None:
            continue
        texts = rest.str.extract(pattern)
        found.append(texts.drop_nulls().alias("text").to_frame().with_columns(pl.lit(what).alias("what")))
        rest = rest.filter(texts.is_null())
    out = pl.concat(found)
    if fmt.url is not None and ("{regex}" in fmt.url or "{unescaped}" in fmt.url):
        out = out.with_columns(pl.col("text").str.replace_many(list(DECODED.values()), list(DECODED), leftmost=True))
        out = out.with_columns(pl.col("text").str.replace_all(r"\\(.)", "${1}"))
    return out


def questions(
    fmt: Format, options: Mapping[str, object], path: Path, sample: int, rules: Sequence[Rule], exists: Sequence[str]
) -> Questions:
    """Canaries and a sample like those of a zone: the newest denies, two fixed entries, and `exists`."""
    found = entries(fmt, options, path)
    fixed = found.gather(found["text"].hash(seed=1).arg_sort().head(FIXED)) if found.height else found
    denied = [rule.name.removeprefix("//") for rule in reversed(rules) if rule.blocks][:RULES]
    ruled = found.filter(pl.col("text").is_in(denied)).unique("text", maintain_order=True)
    canaries = [Question(_asked(*row), "blocked") for row in (*ruled.iter_rows(), *fixed.iter_rows())]
    canaries += [Question(name, "passes") for name in exists]
    taken = found.sample(min(sample, found.height), seed=random.SystemRandom().getrandbits(32))
    asked = [Question(_asked(*row), "blocked") for row in taken.iter_rows()]
    return Questions("", "", list(dict.fromkeys(canaries)), asked)


def _asked(text: str, what: str) -> str:
    """The name, address or URL by which an entry shows."""
    if what == "subtree":
        # A new name every time has no answer in a cache.
        below = f"p{secrets.token_hex(4)}.{text}"
        return below if len(below) <= 253 else text
    if what == "network":
        network = ip_network(text)
        last = network.num_addresses - 1
        address = network[random.SystemRandom().randint(0, last)]
        return f"[{address}]" if address.version == 6 else str(address)
    return text
