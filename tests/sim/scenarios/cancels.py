"""Scenario 5: a call is cancelled at some step of a workload that has calls of every kind under way.

Invariants of its own:
    SC-7  a cancelled call ends within `CANCEL_S`, in its value or in TaskCancelledError (a cancelled direct call: in
          CancelledError), and no other call ends in anything but its value
    SC-8  what a cancelled `async def` call has begun, its `finally` has ended
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import actorflow as af
from tests.sim.scenarios import outside
from tests.sim.scenarios.stage import Main, Stage

CANCEL_S = 20.0


@af.remote
async def nap(key: str, seconds: float) -> str:
    outside.ran(("begun", key))
    try:
        await asyncio.sleep(seconds)
    finally:
        outside.ran(("ended", key))
    return key


@af.remote
def quick(key: str) -> str:
    return key


@af.remote
async def outer(key: str, seconds: float) -> str:
    """Cancelling it cancels what it waits for."""
    outside.ran(("begun", key))
    try:
        return (await nap(f"{key} inner", seconds)).removesuffix(" inner")
    finally:
        outside.ran(("ended", key))


@af.remote
def block(key: str, seconds: float) -> str:
    """`def` code goes on: it is not torn."""
    af.sync(asyncio.sleep(seconds))
    return key


@af.remote
async def give(value: str, *_: Any) -> str:
    return value


class Napper(af.Actor):
    """Async: its calls can be cancelled while they run."""

    async def nap(self, key: str, seconds: float) -> str:
        outside.ran(("begun", key))
        try:
            await asyncio.sleep(seconds)
        finally:
            outside.ran(("ended", key))
        return key


class Slow(af.Actor):
    """Sync: its calls can be cancelled while they wait."""

    def work(self, key: str, seconds: float) -> str:
        af.sync(asyncio.sleep(seconds))
        return key


class Cancellation:
    """What may be cancelled, and what was."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.open: dict[str, Callable[[], object]] = {}
        self.cancelled: dict[str, float] = {}

    def strike(self) -> None:
        """Cancel one of the calls that are under way, in the driver's own time."""
        driver = self.stage.driver
        assert driver is not None
        driver.user_loop.call_soon_threadsafe(self._cancel_one)

    def _cancel_one(self) -> None:
        if self.open:
            key = self.stage.faults.choice(list(self.open))
            cancel = self.open.pop(key)
            self.cancelled[key] = self.stage.world.now
            cancel()


def prepare(stage: Stage) -> tuple[Main, Cancellation]:
    """Draw calls of every kind, most of them under way at the same time."""
    rng = stage.rng
    cancellation = Cancellation(stage)

    async def main() -> None:
        napper, slow = Napper.remote(), Slow.remote()
        waiting: list[asyncio.Task[None]] = []
        numbers = iter(range(1_000))

        async def follow(key: str, begin: Callable[[], Any]) -> None:
            try:
                value = await begin()
            except af.TaskCancelledError:
                value = "cancelled"
            except asyncio.CancelledError:
                assert key in cancellation.cancelled, f"SC-7: {key} was not cancelled, and raised CancelledError"
                value = "cancelled"
            finally:
                cancellation.open.pop(key, None)  # it holds the reference
            if value == "cancelled":
                assert key in cancellation.cancelled, f"SC-7: {key} was not cancelled by anybody"
            else:
                assert value == key, "SC-7"
            if key in cancellation.cancelled:
                took_s = stage.world.now - cancellation.cancelled[key]
                assert took_s < CANCEL_S, f"SC-7: {key} ended {took_s} s after it was cancelled"

        def direct(call: Callable[[str], Any]) -> None:
            key = f"direct {next(numbers)}"
            task = asyncio.create_task(follow(key, partial(call, key)), name=key)
            cancellation.open[key] = task.cancel
            waiting.append(task)

        def by_ref(call: Callable[[str], Any]) -> None:
            key = f"ref {next(numbers)}"
            ref = call(key)
            cancellation.open[key] = ref.cancel
            waiting.append(asyncio.create_task(follow(key, lambda: ref), name=key))

        def shared() -> None:
            """A reference with two waiters: one is cancelled, which cancels nothing but itself."""
            key = f"shared {next(numbers)}"
            ref = nap.remote(key, seconds())

            async def second() -> None:
                assert await ref == key, "SC-7: a second waiter"

            mine = asyncio.create_task(follow(key, lambda: ref), name=key)
            waiting.extend((mine, asyncio.create_task(second())))
            cancellation.open[key] = mine.cancel

        def seconds() -> float:
            return rng.choice([0.0, 0.01, 0.1])

        def dependent() -> None:
            """Waits for its argument."""
            by_ref(lambda key: give.remote(key, nap.remote(f"for {key}", seconds())))

        kinds: list[Callable[[], None]] = [
            lambda: direct(lambda key: nap(key, seconds())),
            lambda: direct(lambda key: quick(key)),
            lambda: direct(lambda key: outer(key, seconds())),
            lambda: direct(lambda key: block(key, seconds())),
            lambda: direct(lambda key: napper.nap(key, seconds())),
            lambda: direct(lambda key: slow.work(key, seconds())),
            lambda: by_ref(lambda key: nap.remote(key, seconds())),
            lambda: by_ref(lambda key: quick.remote(key)),
            lambda: by_ref(lambda key: outer.remote(key, seconds())),
            lambda: by_ref(lambda key: napper.nap.remote(key, seconds())),
            lambda: by_ref(lambda key: slow.work.remote(key, seconds())),
            shared,
            dependent,
        ]
        for _ in range(rng.randrange(6, 12)):
            rng.choice(kinds)()
            if rng.random() < 0.3:
                await asyncio.sleep(rng.random() * 0.02)
        for end in await asyncio.gather(*waiting, return_exceptions=True):
            # A task that is cancelled before its first step has made no call.
            if isinstance(end, BaseException) and not isinstance(end, asyncio.CancelledError):
                raise end
        assert await give("still here") == "still here"

    return main, cancellation


def begun_is_ended(stage: Stage) -> None:
    """SC-8."""
    runs = stage.register.runs
    begun = {key[1]: count for key, count in runs.items() if key[0] == "begun"}
    ended = {key[1]: count for key, count in runs.items() if key[0] == "ended"}
    assert begun == ended, f"SC-8, seed {stage.seed}: begun {begun}, ended {ended}"
