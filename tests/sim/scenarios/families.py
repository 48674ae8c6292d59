"""Scenario 8: calls that have made calls are cancelled at some step, with all that they have made, whatever it is doing.

Nothing here would end in time by itself: what a cancel does not reach is found as a leak. `executor.block` stands for a blocking C call
that a signal ends; deaf code catches what is raised and blocks again.

Invariants of its own:
    SC-14   a cancelled family ends within `CANCEL_S` virtual seconds, in an error that says so, and nothing of it runs on
    SC-15  what listens is not killed: what has begun has ended, in its own `finally`
    SC-16  a method that does not listen is told of (`CancelIgnored`) when the grace is over, and its actor lives on
    SC-17  a worker whose task was interrupted runs no other task
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import actorflow as af
from actorflow.testing.executor import block
from tests.sim.scenarios import outside
from tests.sim.scenarios.stage import Main, Stage

GRACE_S = 0.5
CANCEL_S = 10.0
LONG_S = 500.0
OPTIONS: dict[str, Any] = {"node_options": {"cancel_grace_s": GRACE_S}}


@contextlib.contextmanager
def witnessed(key: str) -> Iterator[None]:
    outside.ran(("begun", key))
    here = af.get_runtime_context()
    assert here.actor_id or ("torn", here.process_id) not in outside.register().runs, "SC-17"
    try:
        yield
    finally:
        outside.ran(("ended", key))


def block_in_c(seconds: float) -> None:
    try:
        block(lambda wake: None, seconds)
    except asyncio.CancelledError:
        outside.ran(("torn", af.get_runtime_context().process_id))
        raise


@af.remote(num_cpus=0)
async def nap(key: str) -> str:
    with witnessed(key):
        await asyncio.sleep(LONG_S)
    return key


@af.remote(num_cpus=0)
def sleep(key: str) -> str:
    with witnessed(key):
        block_in_c(LONG_S)
    return key


@af.remote(num_cpus=0)
def swallow(key: str) -> str:
    with witnessed(key):
        with contextlib.suppress(asyncio.CancelledError):
            block_in_c(LONG_S)
        block_in_c(0.05)
    return key


@af.remote(num_cpus=0)
def deaf(key: str) -> str:
    """Ends with its worker only: it has no witness."""
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            block_in_c(LONG_S)


@af.remote(num_cpus=0)
async def count(key: str) -> AsyncIterator[int]:
    with witnessed(key):
        for n in range(10**6):
            yield n
            await asyncio.sleep(0.05)


@af.remote(num_cpus=0)
def tick(key: str) -> Iterator[int]:
    """Waits for credit only: under simulation a generator runs on the loop, where nothing may block."""
    with witnessed(key):
        yield from range(10**6)


class Nurse(af.Actor):
    async def nap(self, key: str) -> str:
        with witnessed(key):
            await asyncio.sleep(LONG_S)
        return key


class Slow(af.Actor):
    def work(self, key: str) -> str:
        """Does not listen, and goes on for a while."""
        with witnessed(key):
            block_in_c(3.0)
        return key

    @af.method(interruptible=True)
    def tear(self, key: str) -> str:
        with witnessed(key):
            block_in_c(LONG_S)
        return key

    def ping(self) -> str:
        return "here"


def spawn(key: str, depth: int, seed: int, nurse: Any, slow: Any) -> list[Any]:
    """Some children, drawn from the seed."""
    kinds: list[Callable[[str], Any]] = [
        nap.remote,
        sleep.remote,
        swallow.remote,
        deaf.remote,
        count.remote,
        tick.remote,
        nurse.nap.remote,
        slow.work.remote,
        slow.tear.remote,
    ]
    if depth:
        kinds += [lambda name: parent.remote(name, depth - 1, seed // 3, nurse, slow)] * 2
        kinds += [lambda name: sync_parent.remote(name, depth - 1, seed // 5, nurse, slow)] * 2
    return [kinds[(seed // 7**n) % len(kinds)](f"{key}.{n}") for n in range(1 + seed % 3)]


@af.remote(num_cpus=0)
async def parent(key: str, depth: int, seed: int, nurse: Any, slow: Any) -> str:
    with witnessed(key):
        children = spawn(key, depth, seed, nurse, slow)
        if seed % 2:
            await nap(f"{key} direct")
        await asyncio.sleep(LONG_S)
        del children
    return key


@af.remote(num_cpus=0)
def sync_parent(key: str, depth: int, seed: int, nurse: Any, slow: Any) -> str:
    with witnessed(key):
        children = spawn(key, depth, seed, nurse, slow)
        if seed % 2:
            af.sync(nap(f"{key} direct"))
        block_in_c(LONG_S)
        del children
    return key


class Families:
    """The families that live, and their end."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.struck = False
        self.open: dict[str, Callable[[], object]] = {}
        self.cancelled: dict[str, float] = {}

    def strike(self) -> None:
        """Cancel all families, in the driver's own time."""
        driver = self.stage.driver
        assert driver is not None
        if driver.host.alive:
            driver.user_loop.call_soon_threadsafe(self.cancel_all)

    def cancel_all(self) -> None:
        self.struck = True
        for key in list(self.open):
            self.cancel(key)

    def cancel(self, key: str) -> None:
        cancel = self.open.pop(key, None)
        if cancel is not None:
            self.cancelled[key] = self.stage.world.now
            cancel()


def prepare(stage: Stage) -> tuple[Main, Families]:
    """Draw some families."""
    rng = stage.rng
    families = Families(stage)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        nurse, slow = Nurse.options(num_cpus=0).remote(), Slow.options(num_cpus=0).remote()
        following: list[asyncio.Task[None]] = []

        async def follow(key: str, begin: Callable[[], Any], *, deaf_for_a_while: bool) -> None:
            try:
                await begin()
                # With a long grace its own end comes first.
                assert deaf_for_a_while, f"SC-14: {key} has a value"
            except (af.TaskCancelledError, af.CancelIgnored, asyncio.CancelledError) as error:
                assert key in families.cancelled, f"SC-14: {key} was not cancelled by anybody: {error!r}"
            except af.TaskTimeoutError:
                families.cancelled.setdefault(key, stage.world.now)
            finally:
                families.open.pop(key, None)
            took_s = stage.world.now - families.cancelled.get(key, 0.0)
            assert took_s < CANCEL_S, f"SC-14: {key} ended {took_s} s after its cancel"

        def begin(key: str) -> None:
            seed, depth = rng.randrange(10**6), rng.randrange(3)
            calls: list[Any] = [parent, sync_parent, parent, sync_parent, swallow, deaf, slow.tear, slow.work]
            which = rng.randrange(len(calls))
            call, unheard = calls[which], which == len(calls) - 1
            arguments = (key, depth, seed, nurse, slow) if call in (parent, sync_parent) else (key,)
            form = rng.randrange(3)
            if rng.random() < 0.2:
                stream = rng.choice([count, tick]).options(timeout=rng.choice([None, rng.random()])).remote(key)
                families.open[key] = lambda: asyncio.ensure_future(stream.aclose())
                task = asyncio.create_task(follow(key, lambda: read(stream), deaf_for_a_while=True), name=key)
            elif form == 0:
                task = asyncio.create_task(follow(key, lambda: call(*arguments), deaf_for_a_while=unheard), name=key)
                families.open[key] = task.cancel
            else:
                ref = (call.options(timeout=rng.random()) if form == 2 else call).remote(*arguments)
                families.open[key] = lambda: ref.cancel(force=rng.random() < 0.1 and call in (swallow, deaf, parent))
                task = asyncio.create_task(follow(key, lambda: ref, deaf_for_a_while=unheard), name=key)
            following.append(task)
            if families.struck:
                loop.call_later(rng.random() * 0.1, families.cancel, key)

        loop.call_later(2.0, families.cancel_all)
        for n in range(rng.randrange(2, 5)):
            begin(f"family {n}")
            if rng.random() < 0.3:
                await asyncio.sleep(rng.random() * 0.1)
        for end in await asyncio.gather(*following, return_exceptions=True):
            if isinstance(end, BaseException) and not isinstance(end, asyncio.CancelledError):
                raise end
        assert await slow.ping() == "here", "SC-16"

    return main, families


async def read(stream: Any) -> None:
    async for _ in stream:
        await asyncio.sleep(0.05)


def begun_is_ended(stage: Stage) -> None:
    """SC-15, for those whose worker nobody killed: force and deafness leave no `finally`."""
    runs = stage.register.runs
    for (what, key), times in runs.items():
        assert what != "ended" or runs.get(("begun", key)) == times, f"SC-15, seed {stage.seed}: {key} ended more often than it began"
