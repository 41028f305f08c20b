"""Signals that end a run: the first is heard, those that follow don't break into the clearing up."""

from __future__ import annotations

import subprocess
import sys

BEGIN = """
import asyncio, os, signal, time
from blocklist import interruption
interruption.listen()
def tell(number=signal.SIGTERM):
    os.kill(os.getpid(), number)
    time.sleep(0.01)
"""


def told(code: str) -> str:
    ran = subprocess.run([sys.executable, "-c", BEGIN + code], capture_output=True, text=True, check=False, timeout=20)
    assert (ran.returncode, ran.stderr) == (0, ""), ran
    return ran.stdout


def test_the_first_raises_and_those_that_follow_do_nothing() -> None:
    code = """
try:
    tell()
except KeyboardInterrupt:
    tell(); tell(signal.SIGHUP); tell(signal.SIGINT)
    print(interruption.heard().name)
"""
    assert told(code) == "SIGTERM\n"


def test_one_that_comes_when_clearing_up_should_be_over_is_heard_again() -> None:
    code = """
interruption._PATIENCE = 0.2
try:
    try:
        tell()
    finally:
        time.sleep(0.3)
        tell(signal.SIGINT)
        print("deaf")
except KeyboardInterrupt:
    print(interruption.heard().name)
"""
    assert told(code) == "SIGINT\n"


def test_what_takes_a_moment_is_not_left_half_done() -> None:
    code = """
try:
    with interruption.postponed():
        tell()
        print("done")
    print("never")
except KeyboardInterrupt:
    print("then ended")
"""
    assert told(code) == "done\nthen ended\n"


def test_what_was_ignored_stays_ignored() -> None:
    ran = subprocess.run(
        ["nohup", sys.executable, "-c", f"{BEGIN}\ntell(signal.SIGHUP)\nprint('goes on')"],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        timeout=20,
    )
    assert (ran.returncode, ran.stdout) == (0, "goes on\n"), ran


def test_an_event_loop_ends_what_it_waits_for_in_order() -> None:
    code = """
import threading
async def work():
    try:
        await asyncio.sleep(20)
    finally:
        await asyncio.sleep(0.1)
        print("handed over")
threading.Timer(0.3, tell).start()
try:
    interruption.run(work())
except KeyboardInterrupt:
    print("ended")
"""
    assert told(code) == "handed over\nended\n"


def test_a_loop_whose_work_ends_in_spite_of_it_ends_the_run_all_the_same() -> None:
    code = """
import threading
async def work():
    try:
        await asyncio.sleep(20)
    except asyncio.CancelledError:
        return 1
threading.Timer(0.3, tell).start()
try:
    print(interruption.run(work()))
except KeyboardInterrupt:
    print("ended")
"""
    assert told(code) == "ended\n"


def test_one_that_comes_while_a_command_is_started_ends_that_too() -> None:
    """As it does on a busy machine: the child runs already, and its maker has not heard of it."""
    code = """
import subprocess
from blocklist.publish import command

class Interrupted(subprocess.Popen):
    def __init__(self, *words, **keys):
        super().__init__(*words, **keys)
        started.append(self)
        tell()

started, subprocess.Popen = [], Interrupted
try:
    command.run(["sleep", "60"], seconds=60)
except KeyboardInterrupt:
    print(started[0].returncode, command._running)
"""
    assert told(code) == "-9 set()\n"
