"""`blocklist formats`."""

from __future__ import annotations

import click

from blocklist.cli.screen import ListingGroup, Screen, shared_options
from blocklist.cli.setup import configuration
from blocklist.decode import nearest


@click.group("formats", cls=ListingGroup)
def command() -> None:
    """Export formats: what each can say, its options, its checker.

    \b
    Examples:
      blocklist formats
      blocklist formats show rpz
    """


@command.command("list")
@shared_options
def listing(screen: Screen) -> int:
    """Every format, of the package and of exporters.d/."""
    _, formats = configuration(screen)
    rows = []
    for name, f in formats.items():
        scopes = "+".join(s for s, can in (("subtree", f.takes_subtree), ("exact", f.takes_exact)) if can)
        screen.json(
            {"name": name, "title": f.title, "kinds": f.kinds, "scopes": scopes.split("+"), "allow": f.takes_allow}
        )
        rows.append(
            (
                name,
                f.title,
                ", ".join(f.kinds),
                scopes if "domain" in f.kinds else "",
                "yes" if f.takes_allow else "",
                f.check[0] if f.check else "",
            )
        )
    screen.table(("format", "", "kinds", "scope", "allow", "checker"), rows)
    return 0


@command.command("show")
@click.argument("name")
@shared_options
def show(screen: Screen, name: str) -> int:
    """One format: its options with their defaults, its checker, how it is loaded."""
    _, formats = configuration(screen)
    if name not in formats:
        raise click.UsageError(f"no format {name!r}{nearest(name, formats)}")
    import msgspec

    f = formats[name]
    screen.json({"name": name, **msgspec.to_builtins(f)})
    screen.line(f"{name}: {f.title}")
    screen.line(f"kinds    {', '.join(f.kinds)}")
    can = {"subtrees": f.takes_subtree, "single names": f.takes_exact, "allow below a block": f.takes_allow}
    screen.line("can say  " + (", ".join(what for what, yes in can.items() if yes) or "networks only"))
    if f.check:
        screen.line(f"checker  {' '.join(f.check)}")
    if f.reload:
        screen.line(f"reload   {' '.join(f.reload)}")
    screen.table(
        ("option", "type", "default", ""),
        [
            (
                key,
                o.type,
                o.default,
                " ".join(x for x in (o.help, f"({', '.join(map(str, o.choices))})" if o.choices else "") if x),
            )
            for key, o in f.options.items()
        ],
    )
    return 0
