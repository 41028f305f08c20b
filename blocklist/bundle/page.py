"""The page of a bundle that a lawyer reads: one HTML file, no script, nothing from elsewhere, printable."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from blocklist.bundle.parts import Answered, AnsweredListing, Chain, Line, Proof, Snapshot
from blocklist.plain import safe

if TYPE_CHECKING:
    from jinja2 import Template

_MAX_LINE = 1_000  # characters of a line that are shown; proof.json says where all of it is


def page(said: Answered, proof: Proof, chain: Chain, *, version: str, made: str, head: str) -> bytes:
    """The page, UTF-8. All text in it is escaped, and controls and direction marks are written out (faults C3)."""
    downloads = {(s.feed, s.sha256): s for s in proof.snapshots}
    places = {(p.feed, p.indicator, p.snapshot, p.line): p for p in proof.lines}
    rows: list[tuple[AnsweredListing, Snapshot | None, Line | None]] = []
    for x in (*said.listings, *said.references):
        sha256 = (x.snapshot or "").removeprefix("sha256:")
        found = downloads.get((x.feed, sha256))
        rows.append((x, found, places.get((x.feed, x.indicator, sha256, x.line)) if found else None))
    text = _template().render(
        said=said,
        proof=proof,
        chain=chain,
        version=version,
        made=made,
        head=head,
        sources={s.id: s for s in proof.sources},
        rows=rows,
        told=[link for link in chain.links if link.event is not None],
    )
    return (text.rstrip("\n") + "\n").encode("utf-8")


@cache
def _source() -> str:
    return resources.files("blocklist.bundle").joinpath("page.html").read_text("utf-8")


def template_digest() -> str:
    """By which a check tells a page of another version from one that was altered."""
    return hashlib.sha256(_source().encode("utf-8")).hexdigest()


@cache
def _template() -> Template:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        newline_sequence="\n",
    )
    environment.filters["moment"] = lambda text: str(text).replace("T", " ").replace("Z", " UTC")
    environment.filters["brief"] = lambda text: text if len(text) <= _MAX_LINE else text[:_MAX_LINE] + "…"
    environment.filters["detail"] = _detail
    return environment.from_string(_source())


def _shown(value: Any) -> Any:
    return safe(value) if type(value) is str else value


def _detail(value: dict[str, Any], cited: Collection[str]) -> list[tuple[str, str]]:
    """What an event says, short: of many feeds those that are cited, and how many there are."""
    out = []
    for key, one in sorted(value.items()):
        if one is None or one == "":
            continue
        text = one if isinstance(one, str) else json.dumps(one)
        if isinstance(one, dict):
            text = ", ".join(f"{feed} {one[feed]}" for feed in sorted(one) if feed in cited)
            text += f" (of {len(one)} feeds)"
        out.append((key.replace("_", " "), text))
    return out
