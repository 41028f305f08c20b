"""What stands in braces in a line of a descriptor: words for the entry, and options of the format. No columns."""

from __future__ import annotations

import re
from collections.abc import Mapping

PLACEHOLDER = re.compile(r"\{(\w+)\}")
# By the kind of value that the line is made of; `blocklist.publish.line` computes them.
WORDS: dict[str, tuple[str, ...]] = {
    "domain": ("name", "regex", "base64"),
    "network": ("name", "cidr", "address", "length", "mask", "groups", "range"),
    "url": ("name", "regex", "unescaped", "base64"),
}
ALL_WORDS = frozenset(word for words in WORDS.values() for word in words)


def with_options(template: str, values: Mapping[str, object]) -> str:
    """`template` with the options of the format in their places; the words for the entry stay."""
    return PLACEHOLDER.sub(
        lambda found: str(values[found[1]]) if found[1] in values and found[1] not in ALL_WORDS else found[0], template
    )
