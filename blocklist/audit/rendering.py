"""What one export makes of a thing: the policy decides, the format says what it can."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from blocklist.audit.answer import InExport
from blocklist.audit.moment import Moment
from blocklist.catalog import CATEGORIES
from blocklist.config import Export, Policy
from blocklist.evidence import Facts
from blocklist.names import MAX_NAME
from blocklist.publish.descriptor import Format
from blocklist.publish.settings import Settings
from blocklist.select.single import Outcome, Target


@dataclass(frozen=True)
class Rendering:
    """What makes a file out of decisions."""

    export: Export
    policy: Policy
    format: Format

    @classmethod
    def of(cls, made_by: Settings) -> Rendering:
        """What made a release of the past."""
        return cls(made_by.own.export, made_by.own.policy, made_by.own.format)


Look = Callable[[Moment], Facts]
Judge = Callable[[Facts, Policy, Target], Outcome]


def outcome(rendering: Rendering, kind: str, moment: Moment, look: Look, judge: Judge) -> Outcome:
    """What its file does with a thing of this kind, as `look` finds it at `moment`."""
    if (none := none_of_kind(rendering.export, rendering.format, kind)) is not None:
        return Outcome(False, None, none)
    return judge(look(moment), rendering.policy, _target(rendering.export, rendering.format))


def none_of_kind(export: Export, fmt: Format, kind: str) -> str | None:
    """Why an export holds nothing of this kind at all; None when it may."""
    kinds = export.kinds if export.kinds is not None else fmt.kinds
    what = {"domain": "domains", "url": "URLs"}.get(kind, "addresses")
    if fmt.code == "rpz" and kind != "domain" and kind in fmt.kinds and not export.options.get("addresses"):
        return "an RPZ holds addresses only with addresses = true"
    if kind not in fmt.kinds:
        return f"{fmt.name} holds no {what}"
    if kind not in kinds:
        return f"this export takes no {what}"
    return None


def _target(export: Export, fmt: Format) -> Target:
    """What the format of an export can say."""
    asked = str(export.options.get("direction", "any"))
    directions = [asked, "both"] if asked in ("inbound", "outbound") else ["inbound", "outbound", "both"]
    writes: Callable[[str, bool], bool] = lambda name, subtree: True  # noqa: E731
    unwritable = ""
    if fmt.code == "rpz":
        directions = ["outbound", "both"]  # an answer's address is where clients would go
        origin = str(export.options.get("origin") or fmt.options["origin"].default)
        unwritable = "is too long for the zone"
        if export.split is not None:
            # The longest of the zones: nearly no name is so long that the difference matters.
            origin = f"{max(CATEGORIES, key=len)}.{origin}"
        room = MAX_NAME - len(origin) - 1
        writes = lambda name, subtree: len(name) + 2 * subtree <= room  # noqa: E731
    elif fmt.unwritable is not None:
        odd = re.compile(fmt.unwritable)
        unwritable = f"can't be written: {fmt.name} would read the line as something else"
        pair = f"{fmt.exact}\n{fmt.below}" if fmt.exact and fmt.below else None
        exact, suffix = fmt.exact or fmt.suffix or "", fmt.suffix or pair or fmt.exact or ""
        writes = lambda name, subtree: not odd.search((suffix if subtree else exact).replace("{name}", name))  # noqa: E731
    return Target(fmt.name, fmt.takes_subtree, fmt.takes_exact, fmt.takes_allow, writes, directions, unwritable)


def with_host(url: InExport, host: InExport, name: str) -> InExport:
    """What an export does with a URL: what blocks its host blocks it too."""
    if host.blocked and not url.blocked:
        return replace(host, because=f"its host {name} is blocked: {host.because}")
    if url.blocked or url.pending or host.because == url.because or "holds no" in host.because:
        return url
    return replace(url, because=f"{url.because}; its host {name}: {host.because}", pending=host.pending)
