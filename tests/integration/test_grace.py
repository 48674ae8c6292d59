"""What does not end by itself: a grace, then the end of its worker, or `CancelIgnored` for actors; `force=True` (SEMANTICS 4, 5)."""

from __future__ import annotations

import asyncio
import ctypes
import time
from pathlib import Path
from typing import Any

import pytest

import actorflow as af
from tests.integration.test_cancel import said

GRACE_S = 0.5
CLUSTER_OPTIONS = {"cancel_grace": GRACE_S}
pytestmark = pytest.mark.usefixtures("cluster")
ON_ONE_NODE = "calls that take all 4 CPUs make others wait"


@af.remote
def deaf_in_c(path: str, seconds: float) -> None:
    """A C function that goes on after a signal, and lets go of the interpreter."""
    Path(path).write_text("started")
    libc = ctypes.CDLL(None)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            libc.usleep(200_000)
        except BaseException:
            Path(path).write_text("deaf")


@af.remote
def hog(path: str) -> int:
    """Pure C that keeps the interpreter: not even the protocol's thread has a turn."""
    Path(path).write_text("started")
    return sum(range(10**11))


@af.remote(num_cpus=4)
def quick(n: int) -> int:
    return n


class Methods(af.Actor):
    def deaf(self, path: str, seconds: float) -> str:
        Path(path).write_text("started")
        time.sleep(seconds)
        return "done"

    @af.method(interruptible=True)
    def tear(self, path: str) -> str:
        Path(path).write_text("started")
        try:
            time.sleep(30)
        except asyncio.CancelledError:
            Path(path).write_text("torn")
            raise
        return "done"

    def ping(self) -> str:
        return "here"


class Threads(Methods):
    pass


class Stubborn(af.Actor):
    async def swallow(self, path: str, seconds: float) -> str:
        Path(path).write_text("started")
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                await asyncio.sleep(0.05)
            except asyncio.CancelledError:
                Path(path).write_text("swallowed")
        return "done"

    async def ping(self) -> str:
        return "here"


@pytest.mark.parametrize("function", [lambda path: deaf_in_c.remote(path, 30), lambda path: hog.remote(path)], ids=["deaf", "hog"])
async def test_4_a_task_that_does_not_end_ends_with_its_worker_after_the_grace(tmp_path: Path, function: Any) -> None:
    path = tmp_path / "mark"
    ref = function(str(path))
    assert await said(path, "started")
    cancelled_at = time.monotonic()
    ref.cancel()
    with pytest.raises(af.TaskCancelledError, match="its worker was killed: .* did not end within 0.5 s of its cancel"):
        await ref
    assert GRACE_S * 0.9 < time.monotonic() - cancelled_at < GRACE_S + 5
    assert await quick(7) == 7


async def test_4_a_task_group_is_left_after_the_grace(tmp_path: Path) -> None:
    path = tmp_path / "mark"
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.5), af.TaskGroup() as group:
            ref = group.submit(hog, str(path))
    assert ref.done()
    assert path.read_text() == "started"


async def test_4_a_timeout_is_told_at_once_and_its_task_ends_with_its_worker(tmp_path: Path) -> None:
    path = tmp_path / "mark"
    began_at = time.monotonic()
    with pytest.raises(af.TaskTimeoutError):
        await hog.options(timeout=1.0, num_cpus=4)(str(path))
    assert time.monotonic() - began_at < 1.0 + GRACE_S + 3
    assert await quick(7) == 7  # It needs all CPUs: the lease has come back.


async def test_3_force_kills_the_worker_of_a_running_task_at_once(tmp_path: Path) -> None:
    path, behind = tmp_path / "mark", []
    await quick(0)
    ref = deaf_in_c.options(num_cpus=4).remote(str(path), 30)
    behind = [quick.remote(n) for n in range(4)]
    assert await said(path, "started")
    cancelled_at = time.monotonic()
    assert ref.cancel(force=True)
    with pytest.raises(af.TaskCancelledError, match="force=True"):
        await ref
    assert time.monotonic() - cancelled_at < 10, "it would take 30"
    assert await asyncio.gather(*behind) == list(range(4))
    assert ref.cancel(force=True) is False


async def test_3_force_on_a_queued_task_takes_it_out_of_the_queue(tmp_path: Path) -> None:
    path = tmp_path / "mark"
    running = deaf_in_c.options(num_cpus=4).remote(str(path), 0.5)
    queued = quick.remote(1)
    assert queued.cancel(force=True)
    with pytest.raises(af.TaskCancelledError):
        await queued
    await running


async def test_3_force_is_not_for_actors(tmp_path: Path) -> None:
    methods = await Methods.remote()
    ref = methods.deaf.remote(str(tmp_path / "mark"), 0.2)
    with pytest.raises(af.OptionError, match="af.kill"):
        ref.cancel(force=True)
    assert await ref == "done"


@pytest.mark.parametrize("concurrency", [1, 2])
async def test_4_a_method_that_does_not_listen_is_reported_with_its_stack_and_its_actor_goes_on(tmp_path: Path, concurrency: int) -> None:
    methods = await Methods.options(max_concurrency=concurrency).remote()
    path = tmp_path / "mark"
    ref = methods.deaf.remote(str(path), 3.0)
    assert await said(path, "started")
    cancelled_at = time.monotonic()
    ref.cancel()
    with pytest.raises(af.CancelIgnored) as caught:
        await ref
    assert GRACE_S * 0.9 < time.monotonic() - cancelled_at < 2.8, "and not when it has ended"
    assert "time.sleep(seconds)" in caught.value.stack
    assert "in deaf" in caught.value.stack
    assert "Methods.deaf" in str(caught.value)
    assert await methods.ping() == "here"


async def test_4_an_async_method_that_swallows_it_is_reported_with_its_stack(tmp_path: Path) -> None:
    stubborn = await Stubborn.remote()
    path = tmp_path / "mark"
    ref = stubborn.swallow.remote(str(path), 2.0)
    assert await said(path, "started")
    ref.cancel()
    with pytest.raises(af.CancelIgnored) as caught:
        await ref
    assert path.read_text() == "swallowed"
    assert "in swallow" in caught.value.stack
    assert await stubborn.ping() == "here"


async def test_4_a_group_is_left_at_the_deadline_and_says_who_did_not_listen(tmp_path: Path) -> None:
    methods = await Methods.remote()
    path = tmp_path / "mark"
    began_at = time.monotonic()
    with pytest.raises(BaseExceptionGroup) as caught:
        async with af.TaskGroup() as group:
            group.submit(methods.deaf, str(path), 3.0)
            assert await said(path, "started")
            raise ValueError("the first failure")
    assert caught.group_contains(af.CancelIgnored)
    assert time.monotonic() - began_at < 2.8
    assert await methods.ping() == "here"


async def test_5_an_interruptible_method_is_torn_and_its_actor_goes_on(tmp_path: Path) -> None:
    methods = await Methods.remote()
    for n in range(3):
        path = tmp_path / str(n)
        ref = methods.tear.remote(str(path))
        assert await said(path, "started")
        ref.cancel()
        with pytest.raises(af.TaskCancelledError):
            await ref
        assert path.read_text() == "torn"
        assert await methods.ping() == "here"


async def test_5_the_methods_of_a_threaded_actor_are_not_torn(tmp_path: Path) -> None:
    threads = await Threads.options(max_concurrency=2).remote()
    path = tmp_path / "mark"
    ref = threads.deaf.remote(str(path), 0.3)
    assert await said(path, "started")
    ref.cancel()
    assert await ref == "done"
    assert path.read_text() == "started"


async def test_4_what_check_cancelled_raises_is_no_failure_of_a_group(tmp_path: Path) -> None:
    class Polite(af.Actor):
        def work(self, path: str) -> None:
            Path(path).write_text("started")
            while True:
                af.check_cancelled()
                time.sleep(0.01)

    polite = await Polite.remote()
    path = tmp_path / "mark"
    with pytest.raises(ExceptionGroup) as caught:
        async with af.TaskGroup() as group:
            ref = group.submit(polite.work, str(path))
            assert await said(path, "started")
            raise ValueError("the first failure")
    assert [type(error) for error in caught.value.exceptions] == [ValueError]
    assert ref.done()


async def test_5_a_method_that_computes_without_a_pause_is_reported_without_its_stack(tmp_path: Path) -> None:
    class Hog(af.Actor):
        def compute(self, path: str) -> int:
            Path(path).write_text("started")
            return sum(range(10**11))

    hog = await Hog.remote()
    path = tmp_path / "mark"
    ref = hog.compute.remote(str(path))
    assert await said(path, "started")
    ref.cancel()
    with pytest.raises(af.CancelIgnored, match="its worker does not answer"):
        await ref
    await af.kill(hog)


async def test_4_one_that_waits_behind_a_hog_is_settled_and_the_hog_goes_on(tmp_path: Path) -> None:
    @af.remote(num_cpus=4, max_retries=0)
    def first(path: str) -> int:
        Path(path).write_text("started")
        return sum(range(10**8)) % 7

    await quick(0)
    path = tmp_path / "mark"
    running, behind = first.remote(str(path)), quick.remote(1)
    assert await said(path, "started")
    behind.cancel()
    with pytest.raises(af.TaskCancelledError):
        await behind
    assert await running == sum(range(10**8)) % 7
