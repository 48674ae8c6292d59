"""What is promised of failures, each in a test with the promise in its name. All of them: docs/internals/failures.md."""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import time
from pathlib import Path

import pytest

import actorflow as af
from actorflow._core.base.resources import format_bytes
from actorflow._core.policy.liveness import LOOK_S, SILENCE_S
from actorflow.testing import Cluster
from tests.soak.standstill import stand_still, three_nodes

pytestmark = [pytest.mark.local_only("clusters of its own, whose processes are killed and stopped"), pytest.mark.timeout(120)]

SEEN_S = 0.1
"""Milliseconds are promised for the death of a worker: the median of several, on a machine that has other work too."""
RESET_S = 1.0
NOTICED_S = SILENCE_S + LOOK_S + 0.5
STOPPED_S = SILENCE_S + 2.0


@af.remote(max_retries=0)
async def hang(path: str) -> None:
    Path(path).write_text(str(os.getpid()))
    await asyncio.sleep(1_000)


async def pid_in(path: Path) -> int:
    while not path.exists() or not path.read_text():
        await asyncio.sleep(0.005)
    return int(path.read_text())


async def test_the_death_of_a_worker_is_seen_in_milliseconds(tmp_path: Path) -> None:
    taken = []
    async with af.init(num_cpus=1, log_to_driver=False):
        for number in range(7):
            ref = hang.remote(str(path := tmp_path / f"pid{number}"))
            pid = await pid_in(path)
            begun = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(af.WorkerCrashedError, match="SIGKILL"):
                await ref
            taken.append(time.monotonic() - begun)
    assert statistics.median(taken) < SEEN_S, taken


@pytest.mark.parametrize("how", ["signal", "exit code"])
async def test_the_error_of_a_dead_worker_names_how_it_ended_its_memory_and_its_last_lines(how: str) -> None:
    @af.remote(max_retries=0)
    def die(how: str) -> None:
        data = bytearray(150_000_000)
        data[::4096] = b"x" * len(data[::4096])
        for number in range(50):
            print("line", number, flush=True)
        if how == "signal":
            os.kill(os.getpid(), signal.SIGABRT)
        os._exit(23)

    async with af.init(num_cpus=1, log_to_driver=False):
        with pytest.raises(af.WorkerCrashedError) as caught:
            await die(how)
    error, text = caught.value, str(caught.value)
    assert ("SIGABRT" if how == "signal" else "exited with code 23") in text
    assert (error.signal, error.exit_code) == ((signal.SIGABRT, None) if how == "signal" else (None, 23))
    assert error.peak_memory_bytes > 150_000_000
    assert f"its peak memory was {format_bytes(error.peak_memory_bytes)}" in text
    assert f"pid {error.pid}" in text
    assert "line 49" in text
    assert "line 5\n" not in text, "the last lines, and not all"
    assert error.log_tail[-1] == "line 49"


class Keeper(af.Actor, max_restarts=2):
    """Keeps what it was told in a checkpoint."""

    def __init__(self) -> None:
        self.values: list[int] = []

    def __checkpoint__(self) -> list[int]:
        return self.values

    def __restore__(self, state: list[int]) -> None:
        self.values = state

    @af.method
    def add(self, value: int) -> tuple[int, list[int]]:
        self.values.append(value)
        return os.getpid(), self.values

    @af.method
    def hold(self, path: str) -> None:
        Path(path).write_text(str(os.getpid()))
        time.sleep(1_000)


async def test_an_actor_whose_process_dies_is_restarted_within_max_restarts_with_its_state(tmp_path: Path) -> None:
    """Calls in flight end at most once without `max_task_retries`; the third death is its end."""
    async with af.init(num_cpus=1, log_to_driver=False):
        keeper = await Keeper.options(checkpoint_every="call").remote()
        for number in range(3):
            assert (await keeper.add.remote(number))[1] == list(range(number + 1))
            ref = keeper.hold.remote(str(path := tmp_path / f"pid{number}"))
            os.kill(await pid_in(path), signal.SIGKILL)
            with pytest.raises(af.ActorUnavailableError if number < 2 else af.ActorDiedError, match="SIGKILL"):
                await ref
        with pytest.raises(af.ActorDiedError, match="max_restarts"):
            await keeper.add.remote(3)


async def test_when_a_node_dies_every_call_on_it_ends_within_a_second_and_the_head_knows_within_10_s(tmp_path: Path) -> None:
    """Its sockets are reset by its kernel, at once for who speaks with it."""
    with Cluster(1, num_cpus=1) as cluster:
        spare = cluster.add_node(num_cpus=4, resources={"far": 4})
        async with af.init(address=cluster.address, log_to_driver=False):
            [node_id] = [row["node_id"] for row in await af.state.list_nodes() if f"tcp:{spare.address}/" in row["address"]]
            far = [hang.options(resources={"far": 1}).remote(str(tmp_path / f"pid{number}")) for number in range(4)]
            for number in range(4):
                await pid_in(tmp_path / f"pid{number}")
            begun = time.monotonic()
            cluster.kill(spare)
            noticed = asyncio.ensure_future(until_dead(node_id))
            for ref in far:
                with pytest.raises((af.WorkerCrashedError, af.NodeDiedError), match="lost|gone|ended"):
                    await ref
            ended_s = time.monotonic() - begun
            await noticed
            noticed_s = time.monotonic() - begun
    assert ended_s < RESET_S, ended_s
    assert noticed_s < NOTICED_S, noticed_s


async def until_dead(node_id: str) -> None:
    while {row["node_id"]: row["state"] for row in await af.state.list_nodes()}[node_id] != "lost":
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("process_alone", [False, True], ids=["with all its processes", "its own process alone"])
async def test_a_node_that_stands_still_is_noticed_within_10_s_fenced_and_back_as_a_new_one(tmp_path: Path, process_alone: bool) -> None:
    """For 60 s and many times: `make promise-test`."""
    with three_nodes() as cluster:
        async with af.init(address=cluster.address, log_to_driver=False):
            verdict = await stand_still(cluster, tmp_path, seconds=STOPPED_S, process_alone=process_alone)
    assert verdict.wrong == []
    assert verdict.ends["value"] > 50
    assert verdict.ends["task"] > 8
