"""A published file is replaced whole or not at all, checked before, reloaded after (faults X1 to X3)."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import BinaryIO

import msgspec
import pytest
from engines import driver
from engines.lists import entries, select
from msgspec import structs

from blocklist.errors import ReleaseError
from blocklist.publish import descriptor
from blocklist.publish.check import Checked, check
from blocklist.publish.command import run
from blocklist.publish.file import SUFFIX, Candidate, leftovers, reload, replace
from blocklist.publish.render import Rendered, render

FORMATS = descriptor.builtin()
LISTED = select(entries(block=["evil.example"], exact=["exact.example"]))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write_new(stream: BinaryIO) -> str:
    stream.write(b"new\n")
    return "written"


def accept(path: Path, written: str) -> str:
    assert path.read_bytes() == b"new\n" and written == "written"
    return "checked"


def test_a_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    target = tmp_path / "list.conf"
    target.write_text("old\n")
    before = target.stat().st_ino
    assert replace(target, write_new, accept) == ("written", "checked")
    assert target.read_text() == "new\n" and target.stat().st_ino != before
    assert names(tmp_path) == ["list.conf"]


def test_a_file_is_on_the_disk_before_it_is_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, sync = tmp_path / "list.conf", os.fsync
    target.write_text("old\n")
    synced: list[tuple[str, str]] = []

    def note(descriptor: int) -> None:
        synced.append((Path(f"/proc/self/fd/{descriptor}").readlink().name, target.read_text()))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    replace(target, write_new, accept)
    (candidate, then), (folder, at_last) = synced
    assert candidate.endswith(SUFFIX) and then == "old\n"
    assert folder == tmp_path.name and at_last == "new\n"


def test_what_the_disk_refuses_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "list.conf"
    target.write_text("old\n")

    def refuse(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(ReleaseError, match="Input/output error"):
        replace(target, write_new, accept)
    assert target.read_text() == "old\n" and names(tmp_path) == ["list.conf"]


def test_the_new_file_is_hidden_from_include_globs_while_it_is_checked(tmp_path: Path) -> None:
    seen: list[str] = []

    def look(path: Path, _: str) -> None:
        seen.append(path.name)

    replace(tmp_path / "list.conf", write_new, look)
    assert seen[0].startswith(".") and seen[0].endswith(SUFFIX) and not seen[0].endswith(".conf")


def test_a_new_file_can_be_read_by_the_engine_and_an_old_one_keeps_its_mode(tmp_path: Path) -> None:
    target = tmp_path / "list"
    modes: list[int] = []

    def look(path: Path, _: str) -> None:
        modes.append(stat.S_IMODE(path.stat().st_mode))

    replace(target, write_new, look)
    target.chmod(0o640)
    replace(target, write_new, look)
    replace(target, write_new, look, mode=0o600)
    assert modes == [0o644, 0o640, 0o600]  # while it is checked too


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_the_owner_is_kept_or_set(tmp_path: Path) -> None:
    target = tmp_path / "list"
    target.write_text("old\n")
    os.chown(target, 65534, 65534)
    replace(target, write_new, accept)
    assert (target.stat().st_uid, target.stat().st_gid) == (65534, 65534)
    replace(target, write_new, accept, owner="root", group="0")
    assert (target.stat().st_uid, target.stat().st_gid) == (0, 0)
    with pytest.raises(ReleaseError, match="there is no user 'nobody-here'"):
        replace(target, write_new, accept, owner="nobody-here")


class Interrupted(BaseException):
    """Stands for what no `except Exception` catches."""


@pytest.mark.parametrize("fault", [ValueError, KeyboardInterrupt, Interrupted, ReleaseError])
@pytest.mark.parametrize("where", ["write", "check"])
def test_any_end_of_the_attempt_leaves_the_old_file_alone(
    tmp_path: Path, fault: type[BaseException], where: str
) -> None:
    target = tmp_path / "list"
    target.write_text("old\n")

    def write(stream: BinaryIO) -> str:
        stream.write(b"half")
        if where == "write":
            raise fault("no")
        return ""

    def look(path: Path, _: str) -> None:
        raise fault("no")

    with pytest.raises(fault):
        replace(target, write, look)
    assert target.read_text() == "old\n" and names(tmp_path) == ["list"]


def test_several_candidates_can_wait_for_each_other(tmp_path: Path) -> None:
    with Candidate(tmp_path / "a") as first, Candidate(tmp_path / "b") as second:
        for candidate in (first, second):
            candidate.stream.write(b"new\n")
            candidate.seal()
        first.publish()
    assert names(tmp_path) == ["a"]  # the second was never published


def test_a_missing_folder_is_named_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="there is no folder") as caught:
        replace(tmp_path / "none" / "list", write_new, accept)
    assert caught.value.hint == f"create it: mkdir -p {tmp_path / 'none'}"
    (tmp_path / "file").write_text("")
    with pytest.raises(ReleaseError, match="there is no folder"):
        replace(tmp_path / "file" / "list", write_new, accept)


def _as_nobody(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run Python without root's rights, in a process of its own."""
    drop = "import os, sys; os.setgroups([]); os.setgid(65534); os.setuid(65534)\n" if os.geteuid() == 0 else ""
    imports = "from blocklist.publish.file import replace\nimport pathlib\n"
    argv = [sys.executable, "-c", "import sys\n" + imports + drop + code, *map(str, arguments)]
    return subprocess.run(argv, capture_output=True, text=True, check=False, cwd="/")


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    folder = Path(os.path.realpath(tmp_path)) / "locked"
    folder.mkdir(mode=0o555)
    for parent in (tmp_path, *tmp_path.parents):
        if parent.stat().st_uid == os.geteuid() and parent.name.startswith(("pytest-", tmp_path.name)):
            parent.chmod(parent.stat().st_mode | 0o111)
    done = _as_nobody("replace(pathlib.Path(sys.argv[1]), lambda s: s.write(b'x'), lambda p, w: None)", folder / "list")
    assert "ReleaseError" in done.stderr and f"the folder {folder} can't be written to" in done.stderr


def test_a_link_is_followed_only_when_asked(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.write_text("old\n")
    link = tmp_path / "link"
    link.symlink_to(real)
    with pytest.raises(ReleaseError, match=r"is a symbolic link to .*real") as caught:
        replace(link, write_new, accept)
    assert "follow_link = true" in str(caught.value.hint) and real.read_text() == "old\n"
    replace(link, write_new, accept, follow=True)
    assert link.is_symlink() and real.read_text() == "new\n" and names(tmp_path) == ["link", "real"]


def test_a_link_that_appears_during_the_check_is_not_followed(tmp_path: Path) -> None:
    target, victim = tmp_path / "list", tmp_path / "victim"
    victim.write_text("mine\n")
    with pytest.raises(ReleaseError, match="is a symbolic link"):
        replace(target, write_new, lambda path, _: target.symlink_to(victim))
    assert victim.read_text() == "mine\n"


def test_what_is_no_plain_file_is_refused(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, what in ((pipe, "a named pipe"), (tmp_path, "a folder"), (Path("/dev/null"), "a device")):
        with pytest.raises(ReleaseError, match=f"is {what}"):
            replace(path, write_new, accept)
    assert names(tmp_path) == ["pipe"]


def test_a_full_disk_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "list"
    target.write_text("old\n")
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (10000, 10000))\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from blocklist.publish.file import replace; import pathlib, sys\n"
        "replace(pathlib.Path(sys.argv[1]), lambda s: s.write(b'x' * 5_000_000), lambda p, w: None)"
    )
    done = subprocess.run([sys.executable, "-c", code, target], capture_output=True, text=True, check=False)
    assert "ReleaseError" in done.stderr and "File too large" in done.stderr and " free in " in done.stderr
    assert target.read_text() == "old\n" and names(tmp_path) == ["list"]


def test_a_killed_export_is_found_again(tmp_path: Path) -> None:
    code = (
        "from blocklist.publish.file import Candidate; import os, pathlib, sys\n"
        "Candidate(pathlib.Path(sys.argv[1])); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "list"], check=False)
    (tmp_path / ".list.other").write_text("")
    (tmp_path / f".list2.x{SUFFIX}").write_text("")
    assert len(leftovers(tmp_path / "list")) == 1 and leftovers(tmp_path / "none" / "list") == []


# The check.


def exported(
    folder: Path, name: str, check_argv: list[str] | None = None, **changes: object
) -> tuple[descriptor.Format, Path, Rendered]:
    fmt = FORMATS[name]
    if check_argv is not None:
        fmt = msgspec.structs.replace(fmt, check=check_argv, **changes)
    path = folder / f".{name}"
    with path.open("wb") as out:
        return fmt, path, render(fmt, LISTED, {}, out)


def test_what_is_read_again_must_be_what_was_written(tmp_path: Path) -> None:
    for damage in (b"", b"x", b"evil.example\n" * 3, b"\r\n"):
        fmt, path, account = exported(tmp_path, "domains")
        assert check(fmt, path, account, {}).by == "structure"
        path.write_bytes(damage)
        with pytest.raises(ReleaseError, match=str(path)):
            check(fmt, path, account, {})
    fmt, path, account = exported(tmp_path, "domains")
    path.write_bytes(path.read_bytes().replace(b"exact", b"exalt"))
    with pytest.raises(ReleaseError, match="is not what was written"):
        check(fmt, path, account, {}, False)


def test_a_checker_that_rejects_is_quoted_without_its_escape_sequences(tmp_path: Path) -> None:
    script = "printf 'line 7: bad \\033[31mname\\033[0m \\303\\251\\n' >&2; exit 3"
    fmt, path, account = exported(tmp_path, "squid", ["sh", "-c", script], wrapper="")
    with pytest.raises(ReleaseError, match=r"sh rejects it \(status 3\)\n  line 7: bad \?\[31mname\?\[0m \?") as caught:
        check(fmt, path, account, {})
    assert "\x1b" not in str(caught.value)


def test_the_output_of_a_checker_is_bounded(tmp_path: Path) -> None:
    fmt, path, account = exported(tmp_path, "squid", ["sh", "-c", "yes no | head -c 3000000; exit 1"], wrapper="")
    with pytest.raises(ReleaseError) as caught:
        check(fmt, path, account, {})
    assert len(str(caught.value)) < 4000


def test_a_checker_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    mark = tmp_path / "children"
    script = f"sleep 60 & echo $! > {mark}; sleep 60"
    fmt, path, account = exported(tmp_path, "squid", ["sh", "-c", script], wrapper="")
    start = time.monotonic()
    with pytest.raises(ReleaseError, match=r"sh did not answer within 0.5 s"):
        check(fmt, path, account, {}, seconds=0.5)
    assert time.monotonic() - start < 5
    child = Path(f"/proc/{mark.read_text().strip()}/stat")
    # The kernel takes a moment; a child that nobody waits for stays as a zombie where init does not reap.
    while child.exists() and child.read_text().split()[2] != "Z":
        assert time.monotonic() - start < 5, "the child lives"
        time.sleep(0.05)


def test_a_checker_that_crashes_rejects(tmp_path: Path) -> None:
    fmt, path, account = exported(tmp_path, "squid", ["sh", "-c", "kill -SEGV $$"], wrapper="")
    with pytest.raises(ReleaseError, match="sh was ended by signal 11"):
        check(fmt, path, account, {})


def test_a_missing_checker_matters_only_when_it_is_wanted(tmp_path: Path) -> None:
    fmt, path, account = exported(tmp_path, "squid", ["no-such-checker", "{file}"], wrapper="")
    found = check(fmt, path, account, {})
    assert found == Checked("structure", "3 lines, 100 bytes; no-such-checker is not installed")
    assert check(fmt, path, account, {}, False).by == "structure"
    with pytest.raises(ReleaseError, match="no-such-checker is not installed, and check = true wants its word"):
        check(fmt, path, account, {}, True)
    fmt, path, account = exported(tmp_path, "domains")
    with pytest.raises(ReleaseError, match="there is no checker for domains"):
        check(fmt, path, account, {}, True)


def test_a_checker_without_the_privilege_does_not_reject(tmp_path: Path) -> None:
    script = "echo 'netlink: Error: Operation not permitted' >&2; exit 1"
    fmt, path, account = exported(tmp_path, "nftables", ["sh", "-c", script])
    assert "could not run here (Operation not permitted)" in check(fmt, path, account, {}).detail
    with pytest.raises(ReleaseError, match="could not run here"):
        check(fmt, path, account, {}, True)


def test_a_checker_that_sees_fewer_records_than_were_written_rejects(tmp_path: Path) -> None:
    fmt, path, account = exported(tmp_path, "rpz", ["sh", "-c", "echo 'a 300 IN CNAME .'"])
    with pytest.raises(ReleaseError, match="sh sees 1 records, 3 were written"):
        check(fmt, path, account, {})


def test_a_path_that_would_be_syntax_in_the_wrapper_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / 'a"b'
    folder.mkdir()
    driver.program("squid")
    fmt, path, account = exported(folder, "squid")
    with pytest.raises(ReleaseError, match="can't be written into a configuration"):
        check(fmt, path, account, {})


@pytest.mark.engine
@pytest.mark.parametrize(
    ("name", "tool", "bad"),
    [
        ("rpz", "named-checkzone", b"evil..example CNAME .\n"),
        (
            "rpz",
            "named-checkzone",
            b"evil.example. CNAME .\n",
        ),  # out of the zone: status 0, found by the count
        ("unbound", "unbound-checkconf", b'local-zone: "' + b"x" * 64 + b'.example." always_nxdomain\n'),
        ("dnsmasq", "dnsmasq", b"server=/" + b"x" * 64 + b".example/\n"),
        ("squid", "squid", b"www.evil.example\n.evil.example\nevil.example\n"),
        ("nftables", "nft", b"table inet blocklist { set x { elements = { } } }\n"),
        ("ipset", "ipset", b"add no-such-set 192.0.2.1\n"),
    ],
)
def test_the_engines_own_checker_takes_ours_and_refuses_a_bad_one(
    tmp_path: Path, name: str, tool: str, bad: bytes
) -> None:
    driver.program(tool)
    if name in ("nftables", "ipset"):
        driver.may_make_namespaces()
    fmt, path, account = exported(tmp_path, name)
    assert check(fmt, path, account, {}, True).by == tool
    if tool == "squid" and driver.version("squid", "-v") >= (7,):
        return  # it only warns of what it leaves out, and of nothing else in such a list
    text = path.read_bytes() + bad
    path.write_bytes(text)
    account = structs.replace(
        account,
        records=account.records + 1,
        digest=hashlib.sha256(text).hexdigest(),
        lines=text.count(b"\n"),
        size=len(text),
    )
    with pytest.raises(ReleaseError, match=tool):
        check(fmt, path, account, {})


# Commands and the reload.


def test_a_reload_is_an_argument_list_and_no_shell(tmp_path: Path) -> None:
    assert reload(["printf", "%s", f"$HOME; touch {tmp_path}/x"], 5) == f"  $HOME; touch {tmp_path}/x"
    assert names(tmp_path) == []


def test_a_reload_that_fails_hangs_or_is_missing_says_so() -> None:
    for argv, message in (
        (["sh", "-c", "echo no zone >&2; exit 2"], r"dns: sh failed \(status 2\)\n  no zone"),
        (["sleep", "60"], r"dns: sleep did not end within 0.3 s"),
        (["no-such-command"], r"dns: no-such-command could not be started: No such file"),
    ):
        with pytest.raises(ReleaseError, match=message) as caught:
            reload(argv, 0.3, "dns")
        assert "published" in str(caught.value.hint)


def test_a_command_that_leaves_a_child_with_our_pipe_does_not_hold_us() -> None:
    start = time.monotonic()
    assert run(["sh", "-c", "sleep 5 & exit 0"], seconds=30).status == 0
    assert time.monotonic() - start < 4


def test_what_the_state_has_no_room_for_is_not_said_of_the_published_file(tmp_path: Path) -> None:
    target, other = tmp_path / "out" / "list.conf", tmp_path / "state" / "kept" / "ab.new"
    for folder in (target.parent, other.parent):
        folder.mkdir(parents=True)
    with pytest.raises(ReleaseError) as told, Candidate(target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(other))
    assert f"{other}: No space left on device" in told.value.message
    assert f"free in {other.parent})" in told.value.message and names(target.parent) == []
