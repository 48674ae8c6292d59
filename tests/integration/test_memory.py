"""Memory runs out on a real machine: a cluster is told that little more than what is in use may be, and its tasks want more."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest

import actorflow as af
from actorflow import _runtime
from actorflow._core.io.memory import Gauge
from actorflow._core.policy import retry_pauses

pytestmark = pytest.mark.local_only("each starts a cluster with a bound of its own")
MB = 1 << 20
ROOM = 300 * MB
MOST = 6000 * MB
"""A hog takes more and more: so what other programs of this machine take or give back meanwhile makes no difference."""


def threshold() -> float:
    use = Gauge().use()
    assert use is not None
    return (use.used_bytes + ROOM) / use.limit_bytes


def fill() -> int:
    blocks = []
    while len(blocks) * 50 * MB < MOST:
        block = bytearray(50 * MB)
        block[::4096] = b"x" * len(block[::4096])  # A page that is not written is no memory.
        blocks.append(block)
        time.sleep(0.02)
    return len(blocks)


@af.remote
def hogs_once(path: str) -> int:
    with open(path, "a") as file:
        file.write("x")
    tries = len(Path(path).read_text())
    return fill() if tries == 1 else tries


@af.remote(max_retries=0)
def hogs() -> int:
    return fill()


class Hog(af.Actor, max_restarts=0):
    def fill(self) -> int:
        return fill()


async def test_a_task_whose_worker_ends_for_its_memory_is_tried_again_without_spending_its_retries(tmp_path: Path) -> None:
    async with af.init(num_cpus=2, memory_usage_threshold=threshold()):
        assert await hogs_once.options(max_retries=1)(f"{tmp_path}/tries") == 2


async def test_a_task_that_is_not_tried_again_fails_with_the_numbers() -> None:
    async with af.init(num_cpus=2, memory_usage_threshold=threshold()):
        with pytest.raises(af.OutOfMemoryError) as caught:
            await hogs()
        assert "memory ran out on this machine" in str(caught.value)
        assert "was the only one that ran" in str(caught.value)
        assert caught.value.signal == 9
        assert caught.value.peak_memory_bytes > 64 * MB


async def test_tries_for_want_of_memory_have_a_bound_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry_pauses, "MEMORY_TRIES_MAX", 1)
    monkeypatch.setattr(retry_pauses, "MEMORY_S", 0.01)
    async with af.init(num_cpus=2, memory_usage_threshold=threshold()):
        with pytest.raises(af.OutOfMemoryError, match=r"attempt 2.*memory ran out.*ran out of memory 2 times") as caught:
            await hogs.options(max_retries=-1)()
    assert "attempt 1 was lost with worker" in str(caught.value)


async def test_a_task_is_cancelled_in_the_pause_before_it_is_tried_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(retry_pauses, "MEMORY_S", 30.0)
    path = tmp_path / "tries"
    async with af.init(num_cpus=2, memory_usage_threshold=threshold()):
        call = hogs_once.remote(str(path))
        core: Any = _runtime.current()
        while not core.retries.calls():
            await asyncio.sleep(0.01)
        call.cancel()
        with pytest.raises(af.TaskCancelledError):
            await call
        assert path.read_text() == "x"


async def test_an_actor_that_ends_for_its_memory_says_so() -> None:
    async with af.init(num_cpus=2, memory_usage_threshold=threshold()):
        hog = Hog.remote()
        with pytest.raises(af.ActorDiedError, match="memory ran out on this machine"):
            await hog.fill()


async def test_zero_leaves_it_to_the_system() -> None:
    async with af.init(num_cpus=1, memory_usage_threshold=0):
        assert await af.remote(os.getpid)()
    with pytest.raises(af.OptionError, match="a share from 0 to 1"):
        af.init(memory_usage_threshold=95)
