"""Blocking `def` code waits in a greenlet while the world goes on."""

import asyncio
import contextvars
import importlib
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from actorflow.testing import (
    Host,
    SimExecutor,
    SimulationFailed,
    SimulationMisuse,
    SimulationStuck,
    World,
    block_on,
)
from actorflow.testing.executor import block, load_greenlet

NAME = contextvars.ContextVar("NAME", default="nobody")
Wake = Callable[[], None]


@pytest.fixture
def world() -> Iterator[World]:
    with World(3) as world:
        yield world


@pytest.fixture
def host(world: World) -> Host:
    return world.host("worker")


@pytest.fixture(params=["shared loop", "own loop"])
def executor(request: pytest.FixtureRequest, host: Host) -> SimExecutor:
    return SimExecutor(host, host.new_loop("user") if request.param == "own loop" else None)


def wake_later(host: Host, seconds: float) -> Callable[[Wake], None]:
    """A `register` whose wake comes after a while, from the protocol's loop."""

    def register(wake: Wake) -> None:
        host.world.at_host(host, host.world.now + seconds, wake)

    return register


def sleep(host: Host, seconds: float) -> Callable[[], None]:
    """A callable that blocks for a while."""

    def body() -> None:
        block(wake_later(host, seconds), None)

    return body


def test_callables_run_in_order(world: World, executor: SimExecutor) -> None:
    seen: list[int] = []
    for number in range(10):
        executor.submit(partial(seen.append, number))
    assert seen == []
    world.run_for(1)
    assert seen == list(range(10))


def test_blocked_code_resumes_when_it_is_woken(world: World, host: Host, executor: SimExecutor) -> None:
    log: list[object] = []

    def body() -> None:
        log.append(world.now)
        log.append(executor.block(wake_later(host, 5.0), None))
        log.append(world.now)

    executor.submit(body)
    world.run_for(10)
    assert log == [0.0, True, 5.0]


def test_sx_1_the_next_callable_waits_for_a_blocked_one(
    world: World, host: Host, executor: SimExecutor
) -> None:
    log: list[str] = []

    def first() -> None:
        executor.block(wake_later(host, 5.0), None)
        log.append("first")

    executor.submit(first)
    executor.submit(lambda: log.append("second"))
    world.run_for(4)
    assert log == []
    world.run_for(4)
    assert log == ["first", "second"]


def test_a_wake_at_once_and_a_wake_before_the_timeout(
    world: World, host: Host, executor: SimExecutor
) -> None:
    log: list[bool] = []
    executor.submit(lambda: log.append(executor.block(lambda wake: wake(), 1.0)))
    executor.submit(lambda: log.append(executor.block(wake_later(host, 1.0), 2.0)))
    world.run_for(10)
    assert log == [True, True]
    assert [when for when, _ in world.timers()] == []


def test_sx_2_a_timeout_ends_the_wait_and_late_wakes_do_nothing(
    world: World, host: Host, executor: SimExecutor
) -> None:
    log: list[object] = []
    wakes: list[Wake] = []

    def body() -> None:
        log.append(executor.block(wakes.append, 2.0))
        log.append(world.now)
        executor.block(wakes.append, None)
        log.append("never, unless the first wake counts twice")

    executor.submit(body)
    world.run_for(3)
    assert log == [False, 2.0]
    for _ in range(3):
        wakes[0]()
    world.run_for(3)
    assert log == [False, 2.0]
    assert len(host.threads) == 1


def test_other_hosts_and_the_own_protocol_go_on_meanwhile(
    world: World, host: Host, executor: SimExecutor
) -> None:
    ticks: list[str] = []

    async def tick(name: str) -> None:
        for _ in range(3):
            await asyncio.sleep(1)
            ticks.append(name)

    host.run(tick("protocol"))
    world.host("other").run(tick("other"))
    executor.submit(sleep(host, 10.0))
    world.run_for(5)
    assert sorted(ticks) == ["other"] * 3 + ["protocol"] * 3


def test_sx_3_blocked_code_blocks_a_loop_of_its_own_but_not_a_shared_one(
    world: World, host: Host, executor: SimExecutor
) -> None:
    seen: list[float] = []
    executor.submit(sleep(host, 5.0))
    executor.loop.call_soon_threadsafe(lambda: executor.loop.call_later(1, lambda: seen.append(world.now)))
    world.run_for(10)
    assert len(seen) == 1
    if executor.loop is host.loop:
        assert seen == [1.0]
    else:
        assert seen[0] >= 5.0


def test_the_running_loop_and_the_context_are_the_hosts(
    world: World, host: Host, executor: SimExecutor
) -> None:
    seen: list[object] = []

    async def main(_: Host) -> None:
        NAME.set("worker")

        def body() -> None:
            for _ in range(2):
                seen.append((asyncio.get_running_loop() is executor.loop, NAME.get()))
                NAME.set("changed")
                executor.block(wake_later(host, 1.0), None)

        executor.submit(body)
        executor.submit(lambda: seen.append(NAME.get()))
        await asyncio.sleep(10)

    host.start(main)
    world.run_for(5)
    assert seen == [(True, "worker"), (True, "changed"), "worker"]


def test_what_a_callable_raises_fails_the_simulation(world: World, executor: SimExecutor) -> None:
    executor.submit(partial(divmod, 1, 0))
    with pytest.raises(SimulationFailed, match="ZeroDivisionError"):
        world.run_for(1)


def test_lk_1_blocking_while_holding_the_lock_is_a_deadlock(
    world: World, host: Host, executor: SimExecutor
) -> None:
    def body() -> None:
        with host.ports.lock:
            executor.block(wake_later(host, 1.0), None)

    executor.submit(body)
    with pytest.raises(SimulationFailed) as caught:
        world.run_for(1)
    assert "LK-1" in str(caught.value.__cause__)


def test_a_loop_may_not_block(world: World, host: Host, executor: SimExecutor) -> None:
    async def main() -> None:
        executor.block(lambda wake: None, None)

    with pytest.raises(SimulationMisuse, match="only callables given to an executor may"):
        world.run_until(host.run(main()))


def test_stuck_blocked_code_is_shown_with_its_stack(world: World, executor: SimExecutor) -> None:
    def wait_for_nobody() -> None:
        executor.block(lambda wake: None, None)

    executor.submit(wait_for_nobody)
    with pytest.raises(SimulationStuck) as caught:
        world.run_until(lambda: False)
    assert "blocked def code" in str(caught.value)
    assert "wait_for_nobody: executor.block(lambda wake: None, None)" in str(caught.value)


def test_ho_1_killed_blocked_code_runs_no_finally_before_the_end() -> None:
    log: list[str] = []
    with World(1) as world:
        host = world.host("worker")
        executor = SimExecutor(host)

        def body() -> None:
            try:
                executor.block(wake_later(host, 5.0), None)
                log.append("woken")
            finally:
                log.append("finally")
                executor.block(wake_later(host, 5.0), None)

        executor.submit(body)
        world.run_for(1)
        world.kill(host)
        world.run_for(100)
        assert log == []
    assert log == ["finally"]
    assert any("is over" in error for error in world.late_errors)


# -- block_on


def test_block_on_runs_a_coroutine_while_the_thread_stands(
    world: World, host: Host, executor: SimExecutor
) -> None:
    log: list[object] = []

    async def work() -> str:
        await asyncio.sleep(2)
        log.append(asyncio.get_running_loop() is executor.loop)
        return "done"

    async def broken() -> None:
        raise LookupError("mine")

    def body() -> None:
        log.append(block_on(work()))
        with pytest.raises(LookupError, match="mine"):
            block_on(broken())
        with pytest.raises(TimeoutError):
            block_on(work(), timeout_s=1)
        log.append(world.now)

    executor.submit(body)
    world.run_for(10)
    assert log == [False, "done", 3.0]
    assert len(host.loops) <= 3, "the loops are used again"


# -- threads of run_in_executor


def test_to_thread_may_block_and_many_may_at_once(world: World, host: Host, executor: SimExecutor) -> None:
    def work(number: int) -> int:
        executor.block(wake_later(host, 3.0), None)
        if number == 2:
            raise LookupError(number)
        return number

    async def main() -> list[object]:
        works = [asyncio.to_thread(work, number) for number in range(4)]
        return await asyncio.gather(*works, return_exceptions=True)

    results = world.run_until(host.run(main()))
    assert [repr(result) for result in results] == ["0", "1", "LookupError(2)", "3"]
    assert 3.0 <= world.now < 3.1
    assert host.threads == []


def test_without_greenlets_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    load_greenlet.cache_clear()
    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ImportError, match=r'pip install "actorflow\[testing\]"'):
        load_greenlet()
