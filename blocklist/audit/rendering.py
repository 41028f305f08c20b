"""What one export makes of a thing: the policy decides, the format says what it can."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from blocklist.audit.answer import InExport
from blocklist.audit.moment import Moment
from blocklist.config import Export, Policy
from blocklist.evidence import Facts
from blocklist.publish.descriptor import Format
from blocklist.publish.settings import Settings
from blocklist.publish.target import target
from blocklist.select.single import Outcome, Target


class Rendering(msgspec.Struct, frozen=True):
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
    return judge(look(moment), rendering.policy, target(rendering.export, rendering.format))


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


def with_host(url: InExport, host: InExport, name: str) -> InExport:
    """What an export does with a URL: what blocks its host blocks it too."""
    if host.blocked and not url.blocked:
        return replace(host, because=f"its host {name} is blocked: {host.because}")
    if url.blocked or url.pending or host.because == url.because or "holds no" in host.because:
        return url
    return replace(url, because=f"{url.because}; its host {name}: {host.because}", pending=host.pending)
