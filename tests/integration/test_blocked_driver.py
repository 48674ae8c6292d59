"""What usually goes wrong: a program that blocks, code that computes, workers that draw the same numbers."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

import actorflow as af
from tests.integration.leaks import until

BLOCKED_S = 3.0


class Reader(af.Actor):
    """Reads what the driver owns, again and again, and makes calls of its own meanwhile."""

    def __init__(self) -> None:
        self.rounds = 0

    async def read(self, box: list[Any], seconds: float) -> int:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            small, large = [await ref for ref in box]
            assert small == "small"
            assert large.sum() == 200_000
            assert await double(self.rounds) == 2 * self.rounds
            inner = await af.put(np.ones(200_000))
            assert await total([inner, box[1]]) == 400_000
            self.rounds += 1
        return self.rounds


@af.remote
def double(n: int) -> int:
    return 2 * n


@af.remote
async def total(refs: list[Any]) -> int:
    return int(sum([(await ref).sum() for ref in refs]))


@af.remote
def compute(begun: str, seconds: float) -> int:
    open(begun, "w").close()
    end, n = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        n += 1
    return n


@af.remote
def draw(seconds: float) -> tuple[float, float]:
    time.sleep(seconds)  # So that each has a worker of its own.
    return float(np.random.rand()), random.random()


async def test_workers_and_borrowers_go_on_while_the_driver_blocks(cluster: Any) -> None:
    """The protocol has a thread of its own: an owner that sleeps still answers who borrows from it."""
    reader = await Reader.remote()
    box = [await af.put("small"), await af.put(np.ones(200_000))]
    ref = reader.read.remote(box, BLOCKED_S - 1)
    await reader.read.remote(box, 0)  # It has begun.
    time.sleep(BLOCKED_S)  # noqa: ASYNC251
    begun = time.monotonic()
    assert await ref > 10
    assert time.monotonic() - begun < 1.0, "it was ready when the driver woke up"
    await af.kill(reader)


async def test_code_that_computes_answers_a_cancel_within_50_ms(cluster: Any, tmp_path: Path) -> None:
    """Also where it never lets go of the interpreter by itself. The median: a busy machine is late now and then."""
    took: list[float] = []
    for number in range(9):
        ref = compute.remote(str(tmp_path / str(number)), 60.0)
        assert await asyncio.to_thread(until, (tmp_path / str(number)).exists)
        begun = time.monotonic()
        ref.cancel()
        try:
            await ref
        except af.TaskCancelledError:
            took.append(time.monotonic() - begun)
    assert len(took) == 9
    assert statistics.median(took) < 0.05, took


async def test_each_worker_draws_random_numbers_of_its_own(cluster: Any) -> None:
    drawn = await af.get([draw.remote(0.2) for _ in range(4)])
    assert len({numpys for numpys, _ in drawn}) == 4
    assert len({pythons for _, pythons in drawn}) == 4
