"""`blocklist formats`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from blocklist.cli import complete
from blocklist.cli.screen import ListingGroup, Screen, safe, shared_options
from blocklist.cli.setup import configuration
from blocklist.decode import nearest

if TYPE_CHECKING:
    from blocklist.publish.descriptor import Format

_GROUPS = {
    "dns": "DNS",
    "firewall": "Packet filters",
    "proxy": "Proxies",
    "sensor": "Sensors",
    "mail": "Mail",
    "cloud": "Clouds",
    "data": "People and tools",
    "own": "Your own (exporters.d)",
}


@click.group("formats", cls=ListingGroup)
def command() -> None:
    """Export formats: what each can say, its options, its checker; try one.

    \b
    Examples:
      blocklist formats
      blocklist formats show rpz
      blocklist formats test exporters.d/mine.toml
    """


@command.command("list")
@shared_options
def listing(screen: Screen) -> int:
    """Every format, of the package and of exporters.d/, by what it is for.

    \b
    Examples:
      blocklist formats
      blocklist formats list --json | jq -r 'select(.kinds | index("ipv6")) | .name'
    """
    _, formats = configuration(screen)
    from blocklist.publish.check import tool_of

    first = True
    for group, heading in _GROUPS.items():
        rows = []
        for name, f in formats.items():
            if f.group != group:
                continue
            scopes = "+".join(s for s, can in (("subtree", f.takes_subtree), ("exact", f.takes_exact)) if can)
            screen.json(
                {
                    "name": name,
                    "title": f.title,
                    "group": group,
                    "kinds": f.kinds,
                    "scopes": [scope for scope in scopes.split("+") if scope],
                    "allow": f.takes_allow,
                    "checker": f.check[0] if f.check else None,
                }
            )
            rows.append(
                (
                    name,
                    f.title,
                    ", ".join(f.kinds),
                    scopes if "domain" in f.kinds else "",
                    "yes" if f.takes_allow else "",
                    tool_of(f.check) if f.check else "",
                )
            )
        if rows:
            screen.line(("" if first else "\n") + screen.style(heading, bold=True))
            screen.table(("format", "", "kinds", "scope", "allow", "checker"), rows)
            first = False
    return 0


@command.command("show")
@click.argument("name", shell_complete=complete.formats)
@shared_options
def show(screen: Screen, name: str) -> int:
    """One format: what it can say, its options with their defaults, how it is loaded, who decides its syntax.

    \b
    Examples:
      blocklist formats show rpz
      blocklist formats show nftables --json
    """
    f = _find(screen, name)
    import msgspec

    from blocklist.publish.sample import abilities

    screen.json({"name": f.name, **msgspec.to_builtins(f)})
    covers, cannot = abilities(f)
    screen.line(f"{f.name}: {safe(f.title)}")
    screen.line(f"kinds     {', '.join(f.kinds)}")
    screen.line(f"says      {', '.join(covers)}")
    if cannot:
        screen.line(f"can't     {', '.join(cannot)}: left out or narrowed, and counted")
    if f.max_entries or f.max_bytes:
        most = [f"{f.max_entries:,} entries"] if f.max_entries else []
        most += [f"{f.max_bytes:,} bytes"] if f.max_bytes else []
        screen.line(f"at most   {', '.join(most)}: more is held, or cut by rank")
    for name, model in f.models.items():
        most = [f"{model.max_entries:,} entries"] if model.max_entries else []
        most += [f"{model.max_bytes:,} bytes"] if model.max_bytes else []
        screen.line(f"model     {name}: {', '.join(most)}{f' ({safe(model.title)})' if model.title else ''}")
    for key, text in (("limits", f.limits), ("checker", " ".join(f.check)), ("reload", " ".join(f.reload))):
        if text:
            screen.line(f"{key:<9} {safe(text)}")
    for page in f.document:
        screen.line(f"document  {safe(page)}")
    if f.load:
        screen.line("load")
        for text in f.load.strip("\n").splitlines():
            screen.line(f"    {safe(text)}")
    screen.table(
        ("option", "type", "default", ""),
        [
            (
                key,
                o.type,
                str(o.default).lower() if isinstance(o.default, bool) else o.default,
                " ".join(x for x in (o.help, f"({', '.join(map(str, o.choices))})" if o.choices else "") if x),
            )
            for key, o in f.options.items()
        ],
    )
    return 0


@command.command("test")
@click.argument("what", metavar="NAME|FILE")
@click.option("--option", "options", multiple=True, metavar="K=V", help="Option of the format, as in 'formats show'.")
@shared_options
def test(screen: Screen, what: str, options: tuple[str, ...]) -> int:
    """Write a sample with every meaning in a format, and have its checker judge it.

    The sample holds names alone and with all below them, allows below blocks, an IDN, the longest name, networks
    and addresses of both families and URLs. Nothing is published.

    \b
    Examples:
      blocklist formats test squid
      blocklist formats test exporters.d/mine.toml
      blocklist formats test rpz --option origin=rpz.example.net
    """
    f = _find(screen, what)
    from blocklist.cli.export import given_options
    from blocklist.errors import ConfigError
    from blocklist.publish.sample import trial

    given = given_options(f, options)
    try:
        f.settle(given, "--option")
    except ConfigError as error:
        raise click.UsageError(error.message) from None
    tried = trial(f, given)
    text = "" if f.binary else tried.data.decode("ascii")
    screen.json(
        {
            "format": f.name,
            "entries": tried.rendered.entries,
            "records": tried.rendered.records,
            "bytes": tried.rendered.size,
            "covers": tried.covers,
            "cannot": tried.cannot,
            "lost": tried.lost,
            "checked": tried.checked.by,
            "detail": tried.checked.detail,
            "sample": text,
        }
    )
    screen.line(text or f"({tried.rendered.size:,} bytes, not text)")
    screen.line(f"covers   {', '.join(tried.covers)}")
    if tried.cannot:
        screen.line(f"can't    {', '.join(tried.cannot)}")
    screen.line(f"lost     {_counts(tried.lost) or 'nothing'} (of the sample; a release counts its own)")
    screen.line(f"checked  by {tried.checked.by}: {safe(tried.checked.detail)}")
    return 0


def _counts(lost: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in lost.items())


def _find(screen: Screen, what: str) -> Format:
    """A format by its name, or by a file that need not be in exporters.d yet."""
    if what.endswith(".toml"):
        from blocklist.publish.descriptor import load

        return load(Path(what))
    _, formats = configuration(screen)
    if what not in formats:
        raise click.UsageError(f"no format {what!r}{nearest(what, formats)}")
    return formats[what]
