"""Published files that are gone or were edited: written again from the kept bytes, else as `blocklist export` does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from blocklist.config import Config, Export
from blocklist.errors import BlocklistError
from blocklist.finding import Finding
from blocklist.person import whoami
from blocklist.picture import Picture
from blocklist.publish import split
from blocklist.publish.descriptor import Format
from blocklist.publish.file import replace
from blocklist.publish.job import ExportOutcome
from blocklist.publish.recorded import files_of, live_release, recover
from blocklist.publish.release import export_all
from blocklist.publish.standing import file_digest
from blocklist.store import kept
from blocklist.store.record import Record


def mend(config: Config, formats: Mapping[str, Format], record: Record, *, anew: bool) -> Iterator[Finding]:
    """Put every file of a live release back, byte for byte where its bytes are kept; load it, if the export says how.

    A zone that was edited gets a new release instead: an engine may have loaded the edited one with the same serial.
    Of a record that was made `anew` nothing is published that the live release does not have: rules may be lost.
    """
    waiting = record.connection.execute("SELECT count(*) FROM release WHERE state = 'pending'").fetchone()[0]
    if waiting:
        recover(record)
        yield Finding(
            "releases", "fixed", str(config.state), f"settled {waiting:,} that a killed run left half published"
        )
    broken: dict[str, tuple[Export, int, list[tuple[Path, str]], bool]] = {}
    for export in config.exports.values():
        live = live_release(record, export.name)
        if live is None:
            continue
        wanted = files_of(record, live.id)
        places = [(path, wanted[category]) for category, path in split.places(record.connection, live.id)]
        # A place that the export has left is nobody's any more; one that it has come to is written first.
        now = {path.absolute() for _, path in split.paths(export, config.policies[export.policy], config.base)}
        wrong = [(path, digest) for path, digest in places if path in now and file_digest(path) != digest]
        if not wrong and now <= {path for path, _ in places}:
            continue
        edited = formats[export.format].code == "rpz" and any(path.exists() for path, _ in wrong)
        broken[export.name] = (export, live.id, wrong, edited)
    if not broken:
        return
    publish = set(broken)
    if anew:
        foreseen = export_all(config, record, Picture(config, record), formats, only=list(broken), dry_run=True)
        publish = {o.name for o in foreseen if o.outcome in ("published", "unchanged") and not (o.added or o.removed)}
    for name, (export, release, wrong, edited) in broken.items():
        if not edited or name not in publish:
            yield from _put_back(record, export, release, wrong)
    if publish:
        outcomes = export_all(config, record, Picture(config, record), formats, only=publish)
        yield from (finding for outcome in outcomes for finding in _told(outcome))


def foretold(config: Config, formats: Mapping[str, Format], record: Record) -> Iterator[Finding]:
    """What the next publishing would change in each list, after a record was made anew."""
    for outcome in export_all(config, record, Picture(config, record), formats, dry_run=True):
        if outcome.outcome == "failed" or (live_release(record, outcome.name) is None):
            continue
        text = f"the next release brings {outcome.added:,} entries more and {outcome.removed:,} less than the live one"
        same = not outcome.added and not outcome.removed
        hint = f"'blocklist export {outcome.name} --dry-run' says which, and by which feed"
        yield Finding(
            "releases",
            "ok" if same else "warn",
            outcome.name,
            "the live release has what the record says" if same else text,
            None if same else hint,
        )


def _put_back(record: Record, export: Export, release: int, wrong: list[tuple[Path, str]]) -> Iterator[Finding]:
    mode = int(export.mode, 8) if export.mode else None
    for path, digest in wrong:
        how = "was edited, or is newer than the record" if path.exists() else "was gone"
        try:
            data = kept.read(record.state, digest)
            replace(
                path,
                lambda out, data=data: out.write(data),  # type: ignore[misc]
                lambda new, written: None,
                follow=export.follow_link,
                mode=mode,
                owner=export.owner,
                group=export.group,
            )
        except BlocklistError:
            continue  # computed next, or told why not
        with record.new_run("doctor --repair", whoami()) as run:
            run.connection.execute("UPDATE release SET reloaded = NULL WHERE id = ?", (release,))
            told = {"export": export.name, "release": release, "path": str(path), "digest": digest, "was": how}
            run.event("published file put back", **told)
        yield Finding("exports", "fixed", str(path), f"{how}; put back as release {release} had it")


def _told(outcome: ExportOutcome) -> Iterator[Finding]:
    if outcome.outcome == "published":
        text = f"release {outcome.release} is written (+{outcome.added:,} −{outcome.removed:,})"
        yield Finding("exports", "fixed", outcome.name, text, outcome.note or None)
    elif outcome.outcome in ("held", "failed"):
        yield Finding("exports", "fail", outcome.name, outcome.error or outcome.outcome, outcome.hint)
