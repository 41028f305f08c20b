"""What `allow` and `deny` share: `add`, `list`, `import`, `remove`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from blocklist.cli import shapes
from blocklist.cli.screen import ListingGroup, Screen, moment, safe, several, shared_options
from blocklist.cli.setup import configuration, writing

if TYPE_CHECKING:
    from blocklist.audit import InExport
    from blocklist.config import Config
    from blocklist.decisions import Wanted
    from blocklist.rules import Rule
    from blocklist.store.record import Record

F = TypeVar("F", bound=Callable[..., Any])


# What a decision says that was recorded and is not published yet.
IN_FORCE = "in force from the next 'blocklist export' or 'update' (or add --now)"

_EXAMPLES = {
    "allow": (
        'portal.example --reason "customer" --ticket INC-7 --until 30d --now',
        '192.0.2.0/28 --reason "own scanners" --now',
        'portal.example --reason "customer" --chain --now',
    ),
    "deny": (
        'evil.example --reason "seen in mail" --ticket INC-7 --until 30d --now',
        '192.0.2.0/28 --reason "order 17 of the regulator"',
        'login.shop.example --exact --reason "only this host is stolen" --now',
    ),
}


def group_for(action: str, summary: str) -> click.Group:
    """The command group of one action."""

    examples = (
        f"\n\n\b\nExamples:\n  blocklist {action}\n"
        f"  blocklist {action} add {_EXAMPLES[action][0]}\n"
        f'  blocklist {action} remove 7 --reason "case closed" --now\n'
    )

    @click.group(action, cls=ListingGroup, help=summary + examples)
    def group() -> None:
        pass

    group.add_command(_add(action))
    group.add_command(_list(action))
    group.add_command(_import(action))
    group.add_command(_remove(action))
    return group


def _add(action: str) -> click.Command:
    @click.command("add")
    @click.argument("what")
    @click.option("--reason", required=True, help="Why; kept for ever and shown by 'why'.")
    @click.option("--ticket", metavar="TEXT", help="Number of the case.")
    @click.option("--until", metavar="DATE", help="When it ends: 2026-12-31, or a span such as 30d.")
    @click.option("--exact", is_flag=True, help="The name alone, not what is below it.")
    @click.option("--now", is_flag=True, help="Publish at once.")
    @_chain_option(action)
    @shared_options
    def command(
        screen: Screen,
        what: str,
        reason: str,
        ticket: str | None,
        until: str | None,
        exact: bool,
        now: bool,
        chain: bool = False,
    ) -> int:
        config, formats = configuration(screen)
        from blocklist.decisions import Wanted, add_rule
        from blocklist.person import whoami
        from blocklist.select.address import parse_one

        # Before anything is written: an answer that does not come leaves nothing half done.
        links = _blocked_links(config, formats, what) if chain else []
        with writing(config, screen, f"{action} add") as record:
            added = add_rule(
                record, action, what, reason=reason, author=whoami(), ticket=ticket, until=until, exact=exact
            )
            scope = " and all below it" if added.subtree else ""
            above = f", below the listed {safe(added.above)}" if added.above else ""
            covers = f"it covers {several(added.frees, 'listed entry', 'listed entries')}{above}"
            screen.line(f"rule {added.id}: {action} {safe(added.name)}{scope}; {covers}")
            screen.json({"rule": added.id, "action": action, "what": added.name, "covers": added.frees})
            if action == "allow" and added.subtree and _is_suffix(added.name):
                undo = f"'blocklist {action} remove {added.id} --reason …' takes it back"
                screen.note(
                    f"{safe(added.name)} is a public suffix: this allows every name that anyone has below it; {undo}"
                )
            _caution(screen, config, record, formats, action, [added.id])
            for link, blocked in links:
                # An address behind a name is that address alone.
                wanted = Wanted(link, f"{reason} (behind {added.name})", ticket, until, exact=parse_one(link) is None)
                _add_link(screen, record, wanted, blocked)
            if chain and not links:
                screen.line(f"nothing that {safe(added.name)} stands for in the DNS is blocked")
            if now:
                return publish(screen, config, record, formats)
            screen.line(IN_FORCE)
        return 0

    command.help = (
        (
            "Free WHAT (a domain with all below it, an address, a network, a URL) from every list."
            if action == "allow"
            else "Block WHAT (a domain with all below it, an address, a network, a URL) whatever feeds say."
        )
        + """

    The most specific rule wins; where two are equal, 'allow' does.

    \b
    Examples:
"""
        + "".join(f"      blocklist {action} add {words}\n" for words in _EXAMPLES[action])
    )
    return command


def _is_suffix(name: str) -> bool:
    from blocklist.names import parents
    from blocklist.suffixes import builtin_rules_about

    return builtin_rules_about([name, *parents(name)]).is_suffix(name)


def _chain_option(action: str) -> Callable[[F], F]:
    """`--chain`, which only an allow has."""
    if action != "allow":
        return lambda function: function
    return click.option(
        "--chain",
        is_flag=True,
        help="Follow its CNAMEs and addresses (asks the resolvers of [verify]), and free those that are blocked too.",
    )


def _blocked_links(config: Config, formats: Any, what: str) -> list[tuple[str, list[InExport]]]:
    """The names and addresses behind `what` that some export blocks, or will with its next release."""
    from blocklist.audit import Audit, recognise
    from blocklist.chain import follow
    from blocklist.errors import IndicatorError

    thing = recognise(what)
    name = thing.name if thing.kind == "domain" else (thing.host or "")
    if not name or thing.kind in ("ipv4", "ipv6"):
        raise IndicatorError(f"{what}: only a name has a chain", hint="leave out --chain")
    followed = follow(name, config.verify.resolvers)
    audit = Audit(config, formats)
    found = []
    try:
        for link in (*followed.names, *followed.addresses):
            try:
                answer = audit.why(link, lines=False)
            except IndicatorError:
                continue  # such as a target that no list may name
            blocked = [e for e in answer.exports if e.blocked or e.pending]
            if blocked and answer.query != name:
                found.append((answer.query, blocked))
    finally:
        audit.close()
    return found


def _add_link(screen: Screen, record: Record, wanted: Wanted, blocked: list[InExport]) -> None:
    from blocklist.decisions import add_rules
    from blocklist.person import whoami

    numbers = add_rules(record, "allow", [(wanted.what, wanted)], author=whoami(), command="allow add").numbers
    where = ", ".join(safe(e.name) for e in blocked)
    by = f" by {safe(blocked[0].by)}" if blocked[0].by and blocked[0].by != wanted.what else ""
    what = f"rule {numbers[0]}: allow" if numbers else "allowed already:"
    screen.line(f"{what} {safe(wanted.what)} alone; it was blocked{by} in {where}")
    screen.json({"rule": numbers[0] if numbers else None, "action": "allow", "what": wanted.what, "chain": True})


def _caution(screen: Screen, config: Config, record: Record, formats: Any, action: str, numbers: Sequence[int]) -> None:
    """What is to be heard of new rules, on standard error."""
    from blocklist.caution import cautions

    for text in cautions(config, record, formats, action, numbers):
        screen.note(safe(text))


def _table(file: str) -> tuple[str, str]:
    """A file of rules as text, and its name for messages."""
    from blocklist.errors import IndicatorError

    name = "standard input" if file == "-" else file
    try:
        return (sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()).decode("utf-8"), name
    except UnicodeDecodeError as error:
        raise IndicatorError(f"{name}: not UTF-8 (byte {error.start})", hint="save it as CSV in UTF-8") from None
    except OSError as error:
        raise IndicatorError(f"{name}: {error.strerror}") from None


def _import(action: str) -> click.Command:
    @click.command("import")
    @click.argument("file", metavar="FILE|-")
    @click.option("--reason", help="For the rows that give none.")
    @click.option("--ticket", metavar="TEXT", help="Likewise.")
    @click.option("--until", metavar="DATE", help="Likewise: 2026-12-31, or a span such as 30d.")
    @click.option("--now", is_flag=True, help="Publish at once.")
    @shared_options
    def command(screen: Screen, file: str, reason: str | None, ticket: str | None, until: str | None, now: bool) -> int:
        config, formats = configuration(screen)
        from blocklist.decisions import add_rules
        from blocklist.person import whoami
        from blocklist.rule_table import read

        text, name = _table(file)
        wanted = read(text, name, reason=reason, ticket=ticket, until=until)
        with writing(config, screen, f"{action} import") as record:
            done = add_rules(record, action, wanted, author=whoami(), command=f"{action} import")
            numbers = done.numbers
            which = f" ({numbers[0]} to {numbers[-1]})" if len(numbers) > 1 else ""
            known = f"; {done.standing:,} stood already" if done.standing else ""
            screen.line(f"{several(len(numbers), f'{action} rule')} recorded{which}{known}")
            screen.json({"action": action, "rules": numbers, "standing": done.standing})
            if done.otherwise:
                number, what, stands, asked = done.otherwise[0]
                screen.note(
                    f"of those that stood, {len(done.otherwise):,} with another end than asked for: rule {number} "
                    f"({safe(what)}) ends {moment(stands) or 'never'}, not {moment(asked) or 'never'}; to change it: "
                    f"'blocklist {action} remove --file FILE --reason …', then import again"
                )
            _caution(screen, config, record, formats, action, numbers)
            if now and numbers:
                return publish(screen, config, record, formats)
            if numbers:
                screen.line(IN_FORCE)
        return 0

    command.help = f"""Record the {action} rules of a file, all of them or none.

    A CSV file, whose first line names the columns: what, and as wished reason, ticket, until, scope (exact); or a plain
    list, a name a line, with its reason behind '#'. Rules that stand already are left as they are, so the same file can
    be imported again. 'blocklist {action} list --csv' writes one.

    \b
    Examples:
      blocklist {action} import rules.csv --now
      blocklist {action} import names.txt --reason "order 17 of the regulator" --ticket INC-7 --until 2026-12-31
    """
    return command


def publish(screen: Screen, config: Any, record: Any, formats: Any, only: Collection[str] = ()) -> int:
    """Publish what changed (of the exports in `only`, where some are named), and show it."""
    from blocklist.cli.update import exit_code, show_exports
    from blocklist.picture import Picture
    from blocklist.publish.release import export_all

    exports = export_all(config, record, Picture(config, record), formats, only=only)
    show_exports(screen, exports)
    screen.json({"exports": [shapes.export(e) for e in exports]})
    return exit_code([], exports)


def _list(action: str) -> click.Command:
    @click.command(
        "list",
        help=f"The {action} rules in force; --all also those that ended."
        f"\n\n\b\nExamples:\n  blocklist {action} list --all\n  blocklist {action} list --csv > rules.csv\n",
    )
    @click.option("--all", "everything", is_flag=True, help="Also removed and expired rules.")
    @click.option("--csv", "as_csv", is_flag=True, help="As CSV, which 'import' reads.")
    @shared_options
    def command(screen: Screen, everything: bool, as_csv: bool) -> int:
        config, _ = configuration(screen)
        from blocklist import clock
        from blocklist.store.database import reading

        condition = "" if everything else "AND until IS NULL AND (expires IS NULL OR expires > ?2)"
        with reading(config.state) as db:
            found = db.execute(
                "SELECT id, name AS what, subtree, reason, author, ticket, created, expires AS until, removed, "
                f"removed_by, removed_reason, kind FROM rule WHERE action = ?1 {condition} ORDER BY id",
                (action, clock.text(clock.now())) if condition else (action,),
            )
            names = [column[0] for column in found.description]
            rows = [dict(zip(names, row, strict=True)) for row in found]
        if as_csv:
            from blocklist.rule_table import COLUMNS, write

            scoped = ({**r, "scope": "exact" if r["kind"] == 1 and not r["subtree"] else ""} for r in rows)
            click.echo(write([r[c] for c in COLUMNS] for r in scoped), nl=False)
            return 0
        ended = ("removed", "removed_by", "removed_reason")
        screen.objects({**shapes.rule(_rule(action, r)), **{key: r[key] for key in ended}} for r in rows)
        screen.table(
            ("id", action, "scope", "by", "since", "until", "ticket", "reason"),
            [
                (
                    r["id"],
                    r["what"],
                    ("subtree" if r["subtree"] else "exact") if r["kind"] == 1 else "",
                    r["author"],
                    moment(r["created"]),
                    f"removed {moment(r['removed'])} by {r['removed_by']}: {r['removed_reason']}"
                    if r["removed"]
                    else moment(r["until"]) or "–",
                    r["ticket"] or "",
                    r["reason"],
                )
                for r in rows
            ],
            right=(0,),
        )
        screen.line(several(len(rows), f"{action} rule"))
        return 0

    return command


def _rule(action: str, row: dict[str, Any]) -> Rule:
    from blocklist.catalog import KINDS
    from blocklist.rules import Rule

    kind, scope = KINDS[row["kind"] - 1], bool(row["subtree"])
    said = {key: row[key] for key in ("id", "reason", "author", "created", "ticket")}
    return Rule(action=action, name=row["what"], kind=kind, subtree=scope, expires=row["until"], **said)


def _remove(action: str) -> click.Command:
    @click.command(
        "remove",
        help=f"""End rules: those of each ID, of a --ticket, or that a --file names; of both what is in both.

    They stay in the record with who ended them and why. FILE is what 'import' reads; its names that no rule names are
    told and passed over.

    \b
    Examples:
      blocklist {action} remove 7 --reason "case closed" --now
      blocklist {action} remove --ticket INC-7 --reason "the order is lifted" --now
      blocklist {action} remove --ticket INC-7 --file lifted.csv --reason "lifted in part"
    """,
    )
    @click.argument("numbers", type=click.IntRange(1, 2**63 - 1), metavar="[ID]...", nargs=-1)
    @click.option("--reason", required=True, help="Why; kept for ever and shown by 'list --all'.")
    @click.option("--ticket", metavar="TEXT", help="All rules of this ticket.")
    @click.option("--file", metavar="FILE|-", help="The rules that name what stands in this file.")
    @click.option("--now", is_flag=True, help="Publish at once.")
    @shared_options
    def command(
        screen: Screen, numbers: tuple[int, ...], reason: str, ticket: str | None, file: str | None, now: bool
    ) -> int:
        if bool(numbers) == (ticket is not None or file is not None):
            raise click.UsageError("name either IDs, or a --ticket, a --file or both")
        config, formats = configuration(screen)
        from blocklist.decisions import remove_rules
        from blocklist.person import whoami
        from blocklist.rule_table import read

        named = None if file is None else read(*_table(file), reason=reason)
        with writing(config, screen, f"{action} remove") as record:
            ended = remove_rules(record, action, numbers, named, ticket, reason=reason, author=whoami())
            if len(ended) == 1:
                screen.line(f"rule {ended[0].id} ({action} {safe(ended[0].name)}) has ended")
            else:
                screen.line(f"{several(len(ended), f'{action} rule')} have ended ({ended[0].id} to {ended[-1].id})")
            screen.objects({"rule": rule.id, "removed": True} for rule in ended)
            _tell_unnamed(screen, named or (), ended, action)
            if now:
                return publish(screen, config, record, formats)
            screen.line(IN_FORCE)
        return 0

    return command


def _tell_unnamed(screen: Screen, named: Sequence[tuple[str, Wanted]], ended: Sequence[Rule], action: str) -> None:
    """Places of a file whose name no ended rule names."""
    from blocklist.audit import recognise

    gone = {rule.name for rule in ended}
    unnamed = [f"{place}: {one.what}" for place, one in named if recognise(one.what).name not in gone]
    if unnamed:
        more = f" and {len(unnamed) - 3:,} more" if len(unnamed) > 3 else ""
        few = ", ".join(safe(text) for text in unnamed[:3])
        screen.note(f"no such {action} rule was in force: {few}{more}")
