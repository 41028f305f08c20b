"""The engine on Dask workers that are real processes: more than one vantage point, and one that is lost."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from installation import World

from blocklist.errors import BlocklistError
from blocklist.verify.control import Control
from blocklist.verify.distributed import RESOLVERS, merged, resolve_on
from blocklist.verify.endpoint import Resolver
from blocklist.verify.known import Known
from blocklist.verify.loopback import LoopbackServer, serving
from blocklist.verify.results import Resolution, frame_schema
from blocklist.verify.task import Task

pytestmark = pytest.mark.slow
NAMES = [f"h{number:04}.example" for number in range(2000)]
TABLE = {"control.example": ["192.0.2.53"], **{name: ["192.0.2.1"] for name in NAMES[::2]}}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
    ) as cluster:
        yield cluster


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    server = LoopbackServer(TABLE)
    with serving(server):
        yield server


def task(*servers: LoopbackServer, **changed: Any) -> Task:
    resolvers = tuple(Resolver("127.0.0.1", server.port) for server in servers)
    control = Control(("control.example",), "example")
    given: dict[str, Any] = {"rate": 0, "timeout": 1.0, "attempts": 3, "known": Known(), "zones": True, **changed}
    return Task(resolvers, control=control, **given)


def told(result: Resolution) -> dict[str, str]:
    return dict(result.frame.select("name", "status").iter_rows())


TRUTH = {name: "live" if name in TABLE else "nxdomain" for name in NAMES}


def test_two_workers_settle_every_name_once_and_say_from_where(cluster: Any, server: LoopbackServer) -> None:
    batches: list[pl.DataFrame] = []
    result = resolve_on(cluster.scheduler_address, NAMES, task(server), on_batch=batches.append, lot=250)
    assert told(result) == TRUTH and result.frame.height == len(NAMES)
    assert dict(result.frame.schema) == frame_schema()
    assert pl.concat(batches).equals(result.frame) and len(batches) == 8
    places = {who.partition("@")[2] for who in result.frame["resolver"].to_list()}
    assert len(places) == 2 and all(place.startswith("tcp://127.0.0.1:") for place in places)
    assert result.summary.stopped is None and result.summary.unfinished == 0
    assert len(result.summary.resolvers) == 2 and result.summary.queries >= 2 * len(NAMES)


def test_a_lost_workers_names_are_done_again(cluster: Any, server: LoopbackServer) -> None:
    distributed = pytest.importorskip("distributed")
    with distributed.Client(cluster.scheduler_address, set_as_default=False) as client:
        workers = client.run(os.getpid)
    address, pid = next(iter(workers.items()))
    killed = threading.Event()

    def kill() -> None:
        # In the middle of its lot: when a quarter of the queries are through.
        while server.queries < len(NAMES) // 2:
            time.sleep(0.01)
        os.kill(pid, signal.SIGKILL)
        killed.set()

    thread = threading.Thread(target=kill)
    thread.start()
    result = resolve_on(cluster.scheduler_address, NAMES, task(server, rate=2000), lot=500)
    thread.join()
    assert killed.is_set()
    assert told(result) == TRUTH and result.frame.height == len(NAMES)
    lost = [report for report in result.summary.resolvers if "worker lost" in str(report.dropped)]
    assert [report.address for report in lost] == [address]
    # Only what the lost worker had in hand was asked twice.
    assert server.queries < 2 * len(NAMES) + 2 * 500 + 500


def test_bad_news_takes_both_vantage_points(cluster: Any, server: LoopbackServer) -> None:
    """One worker sees the world through another resolver, where half of what is gone lives and some is denied."""
    distributed = pytest.importorskip("distributed")
    names = NAMES[:40]
    elsewhere = LoopbackServer({**TABLE, names[1]: ["192.0.2.9"]})
    del elsewhere.table[names[2]]  # type: ignore[attr-defined]
    with serving(elsewhere), distributed.Client(cluster.scheduler_address, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=30)
        its_own = f"127.0.0.1:{elsewhere.port}"
        one = next(iter(client.scheduler_info(n_workers=-1)["workers"]))
        client.run(lambda key, value: os.environ.update({key: value}), RESOLVERS, its_own, workers=[one])
        try:
            result = resolve_on(cluster.scheduler_address, names, task(server), vantages=2, lot=20)
        finally:
            client.run(lambda key: os.environ.pop(key), RESOLVERS, workers=[one])
    found = told(result)
    assert found[names[1]] == "live" and found[names[2]] == "live"
    assert {name: status for name, status in found.items() if name not in (names[1], names[2])} == {
        name: TRUTH[name] for name in names if name not in (names[1], names[2])
    }
    row = result.frame.filter(pl.col("name") == names[3]).row(0, named=True)
    assert row["status"] == "nxdomain" and row["resolver"].count("@tcp://") == 2 and row["authority"] == "example"


def test_a_deadline_keeps_what_came_in(cluster: Any, server: LoopbackServer) -> None:
    deadline = time.monotonic() + 3
    result = resolve_on(cluster.scheduler_address, NAMES, task(server, rate=400), deadline=deadline, lot=100)
    assert result.summary.stopped == "deadline"
    assert 0 < result.frame.height < len(NAMES)
    assert result.summary.unfinished == len(NAMES) - result.frame.height
    assert all(status == TRUTH[name] for name, status in told(result).items())


def test_workers_whose_resolvers_lie_are_refused(cluster: Any) -> None:
    with pytest.raises(BlocklistError, match="no worker has a resolver that can be trusted"):
        resolve_on(cluster.scheduler_address, NAMES[:10], task(LoopbackServer({})), lot=10)


@pytest.mark.parametrize("scheduler", ["127.0.0.1:8786", "tcp://", "http://127.0.0.1", "tcp://a b"])
def test_what_is_no_scheduler_is_a_message(scheduler: str) -> None:
    with pytest.raises(BlocklistError, match="is no scheduler"):
        resolve_on(scheduler, NAMES, task())


def frame(*rows: tuple[str, str, str | None]) -> pl.DataFrame:
    now = datetime(2026, 11, 24, tzinfo=UTC)
    full = [(name, status, 0, authority, None, "r", None, now) for name, status, authority in rows]
    return pl.DataFrame(full, schema=frame_schema(), orient="row")


def test_verdicts_of_several_vantage_points_become_one() -> None:
    here = frame(
        ("a.example", "nxdomain", "example"),
        ("b.example", "nxdomain", "example"),
        ("c.example", "nxdomain", "example"),
        ("d.example", "nxdomain", "example"),
        ("e.example", "sinkholed", None),
    )
    there = frame(
        ("a.example", "nxdomain", "example"),
        ("b.example", "live", None),
        ("c.example", "broken", None),
        ("d.example", "nxdomain", "d.example"),
    )
    out = {row["name"]: (row["status"], row["authority"]) for row in merged([here, there], 2).iter_rows(named=True)}
    assert out == {
        "a.example": ("nxdomain", "example"),
        "b.example": ("live", None),
        "c.example": ("unknown", None),
        "d.example": ("nxdomain", None),  # different zones: no registry's word
        "e.example": ("unknown", None),  # only one has seen it
    }


def test_the_command_asks_through_workers_and_keeps_what_they_say(
    cluster: Any, server: LoopbackServer, tmp_path: Path
) -> None:
    world = World(tmp_path)
    world.feed("a", NAMES[:100])
    control = {"exists": ["control.example"], "missing": "example"}
    world.set("verify", resolvers=[f"127.0.0.1:{server.port}"], control=control)
    world.export("list")
    world.update("--no-verify")
    ran = world.run("verify", "--scheduler", cluster.scheduler_address)
    assert ran.code == 0 and "verified 100 names: 50 live, 50 nxdomain" in ran.out
    rows = world.rows("SELECT name, status, authority, resolver FROM verdict")
    assert {name: status for name, status, _, _ in rows} == {name: TRUTH[name] for name in NAMES[:100]}
    assert all("@tcp://127.0.0.1:" in resolver for *_, resolver in rows)
    world.assert_sound()


def test_workers_with_resolvers_of_their_own_need_none_in_the_configuration(
    cluster: Any, server: LoopbackServer, tmp_path: Path
) -> None:
    distributed = pytest.importorskip("distributed")
    world = World(tmp_path)
    world.feed("a", NAMES[:100])
    world.set("verify", control={"exists": ["control.example"], "missing": "example"})
    world.export("list")
    world.update("--no-verify")
    without = world.run("verify", "--scheduler", cluster.scheduler_address)
    assert without.code == 1 and "no worker has a resolver that can be trusted" in without.err
    assert RESOLVERS in without.err
    with distributed.Client(cluster.scheduler_address, set_as_default=False) as client:
        set_own = lambda key, value: os.environ.update({key: value})  # noqa: E731
        client.run(set_own, RESOLVERS, f"127.0.0.1:{server.port}")
        try:
            ran = world.run("verify", "--scheduler", cluster.scheduler_address)
        finally:
            client.run(lambda key: os.environ.pop(key), RESOLVERS)
    assert ran.code == 0 and "verified 100 names: 50 live, 50 nxdomain" in ran.out
