"""Does a bundle hold together? From the file alone, which a stranger may have written: nothing of it is trusted."""

from __future__ import annotations

import hashlib
import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
from jinja2 import TemplateError

from blocklist import __version__
from blocklist.bundle.page import page, template_digest
from blocklist.bundle.parts import (
    ANSWER,
    EVENTS,
    FORMAT,
    MANIFEST,
    PAGE,
    PROOF,
    Answered,
    AnsweredListing,
    Chain,
    Line,
    Link,
    Manifest,
    Proof,
)
from blocklist.errors import BlocklistError
from blocklist.regular import open_regular
from blocklist.store import ledger
from blocklist.store.ledger import Head

T = TypeVar("T")
_MAX_FILES = 2_000
_MAX_SIZE = 2_000_000_000  # bytes of all files, unpacked
_MAX_JSON = 100_000_000

# What zipfile raises for damaged archives, by trial with altered bytes.
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
)

Word = Literal["ok", "note", "fail"]


@dataclass(frozen=True)
class Checked:
    """One statement: `place` is the file, line or event; `note` is what this bundle can't prove by itself."""

    word: Word
    place: str
    text: str


@dataclass(frozen=True)
class _Read:
    manifest: Manifest
    answer: Answered
    proof: Proof
    chain: Chain
    files: dict[str, bytes]


def check(path: Path, *, sha256: str | None = None, heads: Sequence[Head] = ()) -> Iterator[Checked]:
    """Every statement about the bundle at `path`. `sha256` and `heads` are what the reader knows from elsewhere.

    Raises BlocklistError when there is no such file.
    """
    try:
        with open(open_regular(path), "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BlocklistError(
            f"{path}: {error.strerror}", hint="name a file that 'blocklist why --evidence' wrote"
        ) from None
    if sha256 is not None and digest != sha256.lower().removeprefix("sha256:"):
        yield Checked(
            "fail", path.name, f"its SHA-256 is {digest}, not the one given: it is another file, or was altered"
        )
    else:
        yield Checked("ok", path.name, f"SHA-256 {digest}" + (", as given" if sha256 is not None else ""))
    files: dict[str, bytes] = {}
    yield from _unpacked(path, files)
    read, troubles = _decoded(files)
    yield from troubles
    if read is None:
        return
    yield from _files(read)
    yield from _lines(read)
    yield from _chain(read)
    yield from _decisions(read)
    yield from _anchors(read, heads)
    yield from _page(read)


def _unpacked(path: Path, files: dict[str, bytes]) -> Iterator[Checked]:
    """Fill `files`; what is odd about the archive itself."""
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
            if len(infos) > _MAX_FILES or sum(i.file_size for i in infos) > _MAX_SIZE:
                yield Checked(
                    "fail", path.name, "it holds more files or bytes than any bundle does; nothing of it was read"
                )
                return
            for info in infos:
                if info.filename in files:
                    yield Checked("fail", info.filename, "it is there twice")
                    continue
                try:
                    files[info.filename] = archive.read(info)
                except _ZIP_ERRORS as error:
                    files[info.filename] = b""
                    yield Checked("fail", info.filename, f"it can't be unpacked: {error}")
    except _ZIP_ERRORS as error:
        yield Checked("fail", path.name, f"it is no whole zip file: {error}")


def _decoded(files: dict[str, bytes]) -> tuple[_Read | None, list[Checked]]:
    troubles: list[Checked] = []

    def decode(name: str, kind: type[T]) -> T | None:
        if name not in files:
            if files:
                troubles.append(Checked("fail", name, "it is missing: this is no bundle of evidence, or not all of it"))
            return None
        if len(files[name]) > _MAX_JSON:
            troubles.append(Checked("fail", name, "it is larger than that of any bundle"))
            return None
        try:
            return msgspec.json.decode(files[name], type=kind)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            troubles.append(Checked("fail", name, f"it does not say what it must: {error}"))
            return None

    manifest = decode(MANIFEST, Manifest)
    if manifest is not None and manifest.format != FORMAT:
        text = f"it is of the format {manifest.format[:80]!r}; this version knows {FORMAT}"
        return None, [*troubles, Checked("fail", MANIFEST, text)]
    answer, proof, chain = decode(ANSWER, Answered), decode(PROOF, Proof), decode(EVENTS, Chain)
    if manifest is None or answer is None or proof is None or chain is None:
        return None, troubles
    return _Read(manifest, answer, proof, chain, files), troubles


def _files(read: _Read) -> Iterator[Checked]:
    """Every file is the one that the manifest names, and there is no other."""
    told = {part.path: part for part in read.manifest.files}
    good = 0
    for path in sorted(told.keys() | (read.files.keys() - {MANIFEST})):
        part, data = told.get(path), read.files.get(path)
        if data is None:
            yield Checked("fail", path, "the manifest names it, but it is missing")
        elif part is None:
            yield Checked("fail", path, "the manifest does not name it: somebody put it in")
        elif part.bytes != len(data) or part.sha256 != hashlib.sha256(data).hexdigest():
            yield Checked("fail", path, "it is not the file of the manifest: its bytes were altered")
        else:
            good += 1
    if good:
        yield Checked("ok", MANIFEST, f"{good} files are equal to their digests")


def _lines(read: _Read) -> Iterator[Checked]:
    """Every download and line that the answer cites is in the bundle and says what the answer says."""
    kept = {(s.feed, s.sha256): s for s in read.proof.snapshots}
    for snapshot in read.proof.snapshots:
        data = read.files.get(f"snapshots/{snapshot.sha256}")
        if snapshot.kept == "lost":
            yield Checked(
                "note",
                snapshot.feed,
                f"its download {snapshot.sha256[:12]}… could not be read: only digest and times are left",
            )
        elif snapshot.kept == "whole":
            if data is None or hashlib.sha256(data).hexdigest() != snapshot.sha256 or len(data) != snapshot.bytes:
                yield Checked(
                    "fail",
                    f"snapshots/{snapshot.sha256}",
                    f"it is not the download of {snapshot.feed} with that digest",
                )
            else:
                yield Checked(
                    "ok", snapshot.feed, f"the whole download of {snapshot.fetched}, SHA-256 {snapshot.sha256}"
                )
        else:
            text = f"only the cited part of download {snapshot.sha256} is here: compare it where the whole is kept"
            yield Checked("note", snapshot.feed, text)
    lines = {(x.feed, x.indicator, x.snapshot, x.line): x for x in read.proof.lines}
    for listing in (*read.answer.listings, *read.answer.references):
        place = f"{listing.feed}, line {listing.line}"
        if listing.snapshot is None:
            yield Checked("note", place, f"no download is recorded for {listing.indicator}")
            continue
        sha256 = listing.snapshot.removeprefix("sha256:")
        snapshot_, line = (
            kept.get((listing.feed, sha256)),
            lines.get((listing.feed, listing.indicator, sha256, listing.line)),
        )
        if snapshot_ is None:
            yield Checked("fail", place, f"the answer cites download {sha256[:64]}, of which {PROOF} knows nothing")
        elif snapshot_.kept == "lost":
            if listing.text is not None:
                yield Checked("fail", place, "the answer shows a line of a download that could not be read")
        elif line is None:
            yield Checked("fail", place, f"the line that the answer cites is not in {PROOF}")
        elif (wrong := _wrong_line(read, listing, line, snapshot_.kept == "whole")) is not None:
            yield Checked("fail", place, wrong)
        else:
            yield Checked("ok", place, f"reads in {line.file} as the answer says")


def _wrong_line(read: _Read, listing: AnsweredListing, line: Line, whole: bool) -> str | None:
    data = read.files.get(line.file)
    start, end = line.at, line.at + line.length
    expected = f"snapshots/{line.snapshot}" + ("" if whole else f".{line.offset - line.at}.part")
    if data is None or line.file != expected:
        return f"{line.file[:120]} is not where it must be ({expected[:120]})"
    if not 0 <= start <= end <= len(data):
        return f"{PROOF} places it outside of {line.file}"
    found = data[start:end]
    if hashlib.sha256(found).hexdigest() != line.sha256:
        return f"its digest in {PROOF} is not that of the bytes in {line.file}"
    before, after = data[:start], data[end:].lstrip(b"\r")
    if b"\n" in found or (before and not before.endswith(b"\n")) or (after and not after.startswith(b"\n")):
        return f"what {PROOF} points to in {line.file} is not one whole line"
    if whole and (line.at != line.offset or before.count(b"\n") + 1 != line.line):
        return f"it is line {before.count(10) + 1} of {line.file}, not {line.line}"
    if listing.text != found.decode("utf-8", "replace"):
        return f"the answer shows another text than {line.file} holds there"
    return None


def _chain(read: _Read) -> Iterator[Checked]:
    """Events are what they were when their digests were made, follow each other, and end at the head."""
    links, good = read.chain.links, True
    before: Link | None = None
    for link in links:
        place = f"event {link.id}"
        content = link.content
        if link.event is not None:
            if content is not None:
                yield Checked("fail", place, "it has both a text and the digest of another one")
                good = False
            content = ledger.content_digest(msgspec.to_builtins(link.event))
        if content is None or ledger.link_digest(link.id, content, link.previous) != link.digest:
            yield Checked("fail", place, "it was altered: its digest is another one")
            good = False
        if before is not None:
            follows = link.id == before.id + 1
            if link.id <= before.id or (read.chain.complete and not follows):
                yield Checked(
                    "fail", place, f"it stands after event {before.id}: events were taken out, put in or moved"
                )
                good = False
            elif follows and link.previous != before.digest:
                yield Checked(
                    "fail", place, f"it does not follow event {before.id} as that stands: one of the two was altered"
                )
                good = False
        before = link
    end = str(Head(before.id, before.digest)) if before else str(Head(0, ledger.GENESIS))
    if end != read.manifest.head:
        yield Checked(
            "fail",
            EVENTS,
            f"it does not end at the head that {MANIFEST} names: events at its end were cut off or altered",
        )
    elif good and links:
        text = f"events {links[0].id} to {links[-1].id} follow each other up to head {end}"
        if read.chain.complete:
            yield Checked("ok", EVENTS, text)
        else:
            yield Checked("note", EVENTS, f"each event is whole; others between them are left out, up to head {end}")


def _decisions(read: _Read) -> Iterator[Checked]:
    """What the answer says of persons, releases and downloads is what their events say."""
    told = [(link, link.event) for link in read.chain.links if link.event is not None]
    for rule in read.answer.rules:
        place = f"rule {rule.id}"
        event = next((e for _, e in told if e.what == f"{rule.action} added" and e.detail.get("rule") == rule.id), None)
        if event is None:
            yield Checked("fail", place, "no event in the bundle says that a person made it")
            continue
        says: dict[str, Any] = {"reason": rule.reason, "ticket": rule.ticket, "name": rule.what, "expires": rule.until}
        wrong = [key for key, value in says.items() if event.detail.get(key) != value]
        wrong += [] if event.who == rule.author else ["author"]
        if wrong:
            yield Checked("fail", place, f"its {' and '.join(wrong)} in the answer is not what its event says")
        else:
            yield Checked("ok", place, f"is as {event.who} made it on {event.at}")
    for hold in read.answer.holds:
        passed = (f"{e.who}: {e.detail.get('reason')}" for _, e in told if e.what == "hold released")
        if hold.released is not None and hold.released not in passed:
            yield Checked("fail", hold.indicator, "no event in the bundle says that this person let it pass, or why")
    for snapshot in read.proof.snapshots:
        named = [(link.id, e.at, _taken(e.detail).get(snapshot.feed)) for link, e in told if e.what == "lists taken"]
        same = next(((n, at) for n, at, digest in named if digest == snapshot.sha256), None)
        other = next(
            (n for n, at, digest in named if digest not in (None, snapshot.sha256) and at == snapshot.fetched), None
        )
        if other is not None:
            yield Checked(
                "fail", snapshot.feed, f"event {other} says that another download was taken at {snapshot.fetched}"
            )
        elif same is None:
            text = "no event in the bundle names its download: it is older than such events, or not from that record"
            yield Checked("note", snapshot.feed, text)
        else:
            yield Checked("ok", snapshot.feed, f"event {same[0]} of {same[1]} names the digest of its download")
    for export in read.answer.exports:
        if export.release is None:
            continue
        published = any(e.what == "release published" and e.detail.get("release") == export.release for _, e in told)
        if not published:
            yield Checked(
                "note",
                export.name,
                f"no event in the bundle names release {export.release}",
            )
        else:
            yield Checked("ok", export.name, f"an event names release {export.release}")


def _taken(detail: dict[str, Any]) -> dict[str, Any]:
    taken = detail.get("snapshots")
    return taken if isinstance(taken, dict) else {}


def _anchors(read: _Read, heads: Sequence[Head]) -> Iterator[Checked]:
    known = {link.id: link for link in read.chain.links}
    for head in heads:
        link = known.get(head.id)
        if link is None:
            span = f"{read.chain.links[0].id} to {read.chain.links[-1].id}" if read.chain.links else "none"
            yield Checked(
                "note",
                f"head {head.id}",
                f"it is of an event that is not in the bundle ({span}): it proves nothing here",
            )
        elif link.digest != head.digest:
            yield Checked(
                "fail",
                f"head {head.id}",
                "the bundle's chain has another digest there: it is not the log whose head was kept",
            )
        else:
            yield Checked("ok", f"head {head.id}", "the bundle's chain goes through the head that was kept elsewhere")
    if not heads:
        yield Checked(
            "note",
            "head",
            "not compared with a head kept elsewhere (--head): whoever can write a record can write all of this",
        )


def _page(read: _Read) -> Iterator[Checked]:
    """The page for people says what the other files say: it is made anew."""
    m = read.manifest
    if PAGE not in read.files:
        yield Checked("fail", PAGE, "it is missing")
        return
    try:
        anew = page(read.answer, read.proof, read.chain, version=m.version, made=m.made, head=m.head)
    except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError):
        anew = b""  # of what no version of ours writes, no page can be made
    same = read.files[PAGE] == anew
    if m.query != read.answer.query:
        yield Checked("fail", MANIFEST, "it is of another question than the answer")
    if same:
        yield Checked("ok", PAGE, "says what the other files say")
    elif (m.version, m.template) == (__version__, template_digest()):
        yield Checked("fail", PAGE, "it does not say what the other files say: it was altered")
    else:
        yield Checked(
            "note",
            PAGE,
            f"another version ({m.version[:40]}) made it, which this one can't make anew: trust the other files",
        )


__all__ = ["Checked", "check"]
