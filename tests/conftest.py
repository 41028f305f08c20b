"""What holds for every test: nobody's own configuration is read, a required engine may not be missing, and a test
that measures time is alone while it runs."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from turns import Turns

# How long an example takes says more about the machine than about the code. Where a change is judged, the same examples
# are tried each time: what others would bring to light is no fault of that change.
settings.register_profile("blocklist", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("blocklist")

# Under nohup, and what some runners start, this is ignored, and would be in all that the tests start.
signal.signal(signal.SIGHUP, signal.SIG_DFL)

REQUIRED = os.environ.get("BLOCKLIST_REQUIRE_ENGINES") == "1"


@pytest.fixture(scope="session", autouse=True)
def nobodys_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """An empty home, for this process and for those it starts, which may keep what they compile: a start less 0.2 s."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "BLOCKLIST_CONFIG", "PYTHONDONTWRITEBYTECODE"):
            patch.delenv(name, raising=False)
        yield


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Packed bytes hold the time: they may not name a test, which every process must know by the same name."""
    return argname if isinstance(val, bytes) and re.search(rb"[^\t\n\r -~]", val) else None


TURNS = pytest.StashKey[Turns]()


def pytest_configure(config: pytest.Config) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        # Each worker has a folder of its own in the one of the run.
        config.stash[TURNS] = Turns(Path(config.option.basetemp).parent)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """A test that is marked `alone` runs while no other does, the others side by side."""
    with contextlib.ExitStack() as stack:
        if (turns := item.config.stash.get(TURNS, None)) is not None:
            stack.enter_context(turns.turn(item.get_closest_marker("alone") is not None))
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A skipped engine test is a failure where the engines are required (BLOCKLIST_REQUIRE_ENGINES=1)."""
    report = yield
    if REQUIRED and report.skipped and item.get_closest_marker("engine") and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{reason}, and BLOCKLIST_REQUIRE_ENGINES=1"
    return report
