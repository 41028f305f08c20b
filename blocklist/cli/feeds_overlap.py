"""`blocklist feeds overlap`."""

from __future__ import annotations

from dataclasses import asdict

import click

from blocklist.cli.screen import Screen, number, safe, shared_options
from blocklist.cli.setup import configuration, writing


@click.command("overlap")
@shared_options
def command(screen: Screen) -> int:
    """Which feeds copy each other, and what each alone contributes.

    Feeds of one family count once in the confidence: five copies of a list are not five witnesses. A feed that
    lies in another with 95 % of its entries or more, and is of another family, is proposed for its family.

    \b
    Examples:
      blocklist feeds overlap
      blocklist feeds overlap --json
    """
    config, _ = configuration(screen)
    from blocklist.overlap import overlap
    from blocklist.picture import Picture
    from blocklist.suffixes import builtin_rules

    with writing(config, screen, "feeds overlap") as record:
        picture = Picture(config, record, builtin_rules())
        found = overlap(picture.current(), picture.feeds)
    for c in found.contributions:
        screen.json({**asdict(c), "share": round(c.share, 4)})
    screen.table(
        ("feed", "family", "entries", "listed by it alone", "", "most are also in", ""),
        [
            (
                c.feed,
                c.family if c.family != c.feed else "",
                number(c.entries),
                number(c.alone),
                f"{c.alone / c.entries:.0%}",
                c.nearest or "–",
                f"{c.share:.1%}" if c.nearest else "",
            )
            for c in found.contributions
        ],
        right=(2, 3, 4, 6),
    )
    for p in found.proposals:
        screen.line(
            f"{safe(p.feed)} lies in {safe(p.within)} with {p.share:.1%} of its entries; "
            f'if it is a copy: [feed.{safe(p.feed)}] family = "{safe(p.family)}"'
        )
    if not found.proposals:
        screen.line("no feed is a copy of another beyond the families that are configured")
    screen.json({"proposals": [{**asdict(p), "share": round(p.share, 4)} for p in found.proposals]})
    return 0
