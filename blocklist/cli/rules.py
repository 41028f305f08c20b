"""What `allow` and `deny` share: `add`, `list`, `remove`."""

from __future__ import annotations

from typing import Any

import click

from blocklist.cli.screen import ListingGroup, Screen, moment, number, safe, shared_options
from blocklist.cli.setup import configuration, writing


def group_for(action: str, summary: str) -> click.Group:
    """The command group of one action."""

    examples = (
        f"\n\n\b\nExamples:\n  blocklist {action}\n"
        f'  blocklist {action} add portal.example --reason "customer" --until 30d\n'
        f'  blocklist {action} remove 7 --reason "case closed" --now\n'
    )

    @click.group(action, cls=ListingGroup, help=summary + examples)
    def group() -> None:
        pass

    group.add_command(_add(action))
    group.add_command(_list(action))
    group.add_command(_remove(action))
    return group


def _add(action: str) -> click.Command:
    @click.command("add")
    @click.argument("what")
    @click.option("--reason", required=True, help="Why; kept for ever and shown by 'why'.")
    @click.option("--ticket", help="Number of the case.")
    @click.option("--until", metavar="DATE", help="When it ends: 2026-12-31, or a span such as 30d.")
    @click.option("--exact", is_flag=True, help="The name alone, not what is below it.")
    @click.option("--now", is_flag=True, help="Publish at once.")
    @shared_options
    def command(
        screen: Screen, what: str, reason: str, ticket: str | None, until: str | None, exact: bool, now: bool
    ) -> int:
        config, formats = configuration(screen)
        from blocklist.decisions import add_rule
        from blocklist.person import whoami

        with writing(config, screen, f"{action} add") as record:
            added = add_rule(
                record, action, what, reason=reason, author=whoami(), ticket=ticket, until=until, exact=exact
            )
            scope = " and all below it" if added.subtree else ""
            above = f", below the listed {safe(added.above)}" if added.above else ""
            covers = f"it covers {number(added.frees)} listed entries{above}"
            screen.line(f"rule {added.id}: {action} {safe(added.name)}{scope}; {covers}")
            screen.json({"rule": added.id, "action": action, "what": added.name, "covers": added.frees})
            if now:
                return publish(screen, config, record, formats)
            screen.line("in force from the next 'blocklist export' or 'update' (or add --now)")
        return 0

    command.help = (
        (
            "Free WHAT (a domain with all below it, an address, a network, a URL) from every list."
            if action == "allow"
            else "Block WHAT (a domain with all below it, an address, a network, a URL) whatever feeds say."
        )
        + f"""

    The most specific rule wins; where two are equal, 'allow' does.

    \b
    Examples:
      blocklist {action} add portal.example --reason "customer" --ticket INC-7 --until 30d
      blocklist {action} add 192.0.2.0/28 --reason "own scanners" --now
    """
    )
    return command


def publish(screen: Screen, config: Any, record: Any, formats: Any) -> int:
    """Publish what changed, and show it."""
    from blocklist.cli.update import exit_code, show_exports
    from blocklist.picture import Picture
    from blocklist.publish.release import export_all
    from blocklist.suffixes import builtin_rules

    exports = export_all(config, record, Picture(config, record, builtin_rules()), formats)
    show_exports(screen, exports)
    return exit_code([], exports)


def _list(action: str) -> click.Command:
    @click.command("list", help=f"The {action} rules in force; --all also those that ended.")
    @click.option("--all", "everything", is_flag=True, help="Also removed and expired rules.")
    @shared_options
    def command(screen: Screen, everything: bool) -> int:
        config, _ = configuration(screen)
        from blocklist import clock
        from blocklist.store.database import open_for_reading

        db = open_for_reading(config.state)
        condition = "" if everything else "AND until IS NULL AND (expires IS NULL OR expires > ?2)"
        rows = db.execute(
            "SELECT id, name, subtree, reason, author, ticket, created, expires, removed, removed_by, removed_reason, "
            "kind "
            f"FROM rule WHERE action = ?1 {condition} ORDER BY id",
            (action, clock.text(clock.now())) if condition else (action,),
        ).fetchall()
        db.close()
        for r in rows:
            screen.json(
                dict(
                    zip(
                        (
                            "id",
                            "what",
                            "subtree",
                            "reason",
                            "author",
                            "ticket",
                            "created",
                            "until",
                            "removed",
                            "removed_by",
                        ),
                        r,
                        strict=False,
                    )
                )
            )
        screen.table(
            ("id", action, "scope", "by", "since", "until", "ticket", "reason"),
            [
                (
                    r[0],
                    r[1],
                    ("subtree" if r[2] else "exact") if r[11] == 1 else "",
                    r[4],
                    moment(r[6]),
                    f"removed {moment(r[8])} by {r[9]}: {r[10]}" if r[8] else moment(r[7]) or "–",
                    r[5] or "",
                    r[3],
                )
                for r in rows
            ],
            right=(0,),
        )
        screen.line(f"{len(rows)} rules")
        return 0

    return command


def _remove(action: str) -> click.Command:
    @click.command("remove", help="End the rule ID; it stays in the record with who ended it and why.")
    @click.argument("number", type=click.IntRange(1, 2**63 - 1), metavar="ID")
    @click.option("--reason", required=True)
    @click.option("--now", is_flag=True, help="Publish at once.")
    @shared_options
    def command(screen: Screen, number: int, reason: str, now: bool) -> int:
        config, formats = configuration(screen)
        from blocklist.decisions import remove_rule
        from blocklist.person import whoami

        with writing(config, screen, f"{action} remove") as record:
            rule = remove_rule(record, action, number, reason=reason, author=whoami())
            screen.line(f"rule {rule.id} ({action} {safe(rule.name)}) has ended")
            screen.json({"rule": rule.id, "removed": True})
            if now:
                return publish(screen, config, record, formats)
        return 0

    return command
