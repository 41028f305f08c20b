"""`blocklist evidence`."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from blocklist.cli.screen import Screen, WholeGroup, safe, several, shared_options
from blocklist.errors import BlocklistError

if TYPE_CHECKING:
    from blocklist.audit import Audit
    from blocklist.bundle.collect import Bundle
    from blocklist.config import Config


@click.group("evidence", cls=WholeGroup)
def command() -> None:
    """Bundles of evidence, as 'why --evidence' and 'case open' write them.

    \b
    Examples:
      blocklist why evil.example --evidence
      blocklist evidence check evidence-evil.example-20261124T100000Z.zip
    """


@command.command("check")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--sha256", metavar="HEX", help="The digest of the bundle, as its maker told it.")
@click.option("--head", "heads", multiple=True, metavar="ID:DIGEST", help="A head of the log that was kept elsewhere.")
@shared_options
def check(screen: Screen, file: Path, sha256: str | None, heads: tuple[str, ...]) -> int:
    """Does the bundle FILE hold together? Needs no record, no configuration and no network.

    Each line is ok, fail, or note (what the bundle can't prove by itself). The exit code is 1 when something failed.

    \b
    Examples:
      blocklist evidence check evidence.zip
      blocklist evidence check evidence.zip --head 142:5f1c…
    """
    from blocklist.bundle.check import check as statements
    from blocklist.store.ledger import Head

    try:
        known = [Head.parse(text) for text in heads]
    except ValueError as error:
        raise click.UsageError(safe(str(error))) from None
    counts = {"ok": 0, "note": 0, "fail": 0}
    colors = {"ok": "green", "note": "yellow", "fail": "red"}
    for one in statements(file, sha256=sha256, heads=known):
        counts[one.word] += 1
        screen.json({"word": one.word, "place": one.place, "text": one.text})
        word = screen.style(f"{one.word:4}", fg=colors[one.word])
        screen.line(f"{word}  {safe(one.place[:200])}: {safe(one.text[:1000])}")
    screen.json(counts)
    verdict = "the bundle does not hold" if counts["fail"] else "the bundle holds together"
    screen.line(f"{verdict}: {counts['ok']} ok, {several(counts['note'], 'note')}, {counts['fail']} failed")
    return 1 if counts["fail"] else 0


def bundle_of(audit: Audit, config: Config, answer: dict[str, Any], *, excerpt: bool) -> Bundle:
    """The bundle of an answer that `audit`, frozen, just gave."""
    from blocklist import clock
    from blocklist.bundle.collect import collect

    made = clock.text(clock.now())
    return collect(audit.connection, config.state, audit.feeds, answer, made=made, excerpt=excerpt)


def write_bundle(bundle: Bundle, answer: dict[str, Any], path: Path | None) -> Path:
    """To `path`, or to a file of the current folder that says of what and when; never over another file."""
    if path is None:
        name = re.sub(r"[^A-Za-z0-9._-]+", "_", answer["query"]).strip("_.")[:80]
        path = Path(f"evidence-{name}-{re.sub('[-:]', '', answer['at'])}.zip")
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        raise BlocklistError(
            f"{path} exists already, and evidence is never written over", hint="name another file with -o"
        ) from None
    except OSError as error:
        raise BlocklistError(f"{path}: {error.strerror}", hint="name a file with -o where you may write") from None
    try:
        with os.fdopen(fd, "wb") as out:
            out.write(bundle.data)
            out.flush()
            os.fsync(out.fileno())
    except OSError as error:
        path.unlink(missing_ok=True)
        raise BlocklistError(f"{path}: {error.strerror}", hint="name a file with -o on a disk with room") from None
    return path
