"""Many lines on the screen: few writes, the same bytes, and a reader or a person may end it at any line."""

from __future__ import annotations

import contextlib
import io
import json
import signal
import time
from datetime import timedelta
from pathlib import Path

import pytest
from installation import World, names

from blocklist import clock
from blocklist.cli import main
from blocklist.cli.screen import Screen

COUNT = 12_000


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A record that yesterday's update brought one address, and today's 12,000 names: more than a pipe takes in."""
    world = World(tmp_path)
    world.feed("old", ["192.0.2.1"])
    with monkeypatch.context() as yesterday:
        then = clock.now() - timedelta(days=2)
        yesterday.setattr(clock, "now", lambda: then)
        assert world.update("--no-verify").code == 0
    world.feed("new", names(COUNT))
    assert world.update("--no-verify").code == 0
    return world


class _Counting(io.BytesIO):
    writes = 0

    def write(self, data: object) -> int:
        self.writes += 1
        return super().write(data)  # type: ignore[arg-type]


@pytest.mark.parametrize("form", ["", "--json", "--csv"])
def test_every_name_of_a_difference_is_told_in_few_writes(world: World, form: str) -> None:
    raw = _Counting()
    out = io.TextIOWrapper(raw, "utf-8")
    words = ["--config", str(world.config), "diff", "--names", *([form] if form else [])]
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0
    out.flush()
    lines = raw.getvalue().decode().splitlines()
    rows = [f"added,{name},domain,new,malware" for name in names(COUNT)]
    if form == "--json":
        keys = ("change", "indicator", "kind", "feed", "category")
        assert [json.loads(line) for line in lines[:COUNT]] == [
            dict(zip(keys, row.split(","), strict=True)) for row in rows
        ]
    elif form == "--csv":
        assert lines == ["change,indicator,kind,feed,category", *rows]
    else:
        assert lines[:COUNT] == [f"+ {name}  new  malware" for name in names(COUNT)]
    assert raw.writes < COUNT / 20


def test_many_lines_are_the_bytes_of_line_after_line(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    person, script = (Screen(None, as_json, False, False, False) for as_json in (False, True))
    texts = ["", "ü ☂", *map(str, range(2_500)), ""]
    values = [{"n": n, "text": text, "path": Path("x")} for n, text in enumerate(texts)]
    for text in texts:
        person.line(text)
    one_by_one = capsysbinary.readouterr().out
    person.lines(iter(texts))
    assert capsysbinary.readouterr().out == one_by_one == "".join(f"{text}\n" for text in texts).encode()
    for value in values:
        script.json(value)
    one_by_one = capsysbinary.readouterr().out
    script.objects(iter(values))
    assert capsysbinary.readouterr().out == one_by_one != b""
    # Nothing where the other form is asked for, and no line for none.
    person.objects(values)
    script.lines(texts)
    person.lines([])
    assert capsysbinary.readouterr().out == b""


def test_a_reader_that_goes_away_ends_it_quietly(world: World) -> None:
    process = world.start("diff", "--names")
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline() == f"+ {names(1)[0]}  new  malware\n".encode()
    process.stdout.close()
    assert process.wait(timeout=60) == 1 and process.stderr.read() == b""


def test_ctrl_c_ends_it_while_the_reader_waits(world: World) -> None:
    process = world.start("diff", "--names")
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    time.sleep(0.5)  # the pipe is full, and nobody reads
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert b"interrupted" in process.stderr.read()
