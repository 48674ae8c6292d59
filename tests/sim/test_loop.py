"""The simulated loop runs ordinary asyncio code, in order, under virtual time."""

import asyncio
import contextvars
import gc
import itertools
import signal
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from actorflow.testing import Host, SimulationFailed, SimulationMisuse, SimulationStuck, World

NAME = contextvars.ContextVar("NAME", default="nobody")


@pytest.fixture
def world() -> Iterator[World]:
    with World(7) as world:
        yield world


# -- order and time


def test_handles_of_one_host_run_in_order(world: World) -> None:
    host, seen = world.host("a"), list[Any]()
    for number in range(20):
        host.loop.call_soon(seen.append, number)
    world.run_until(lambda: len(seen) == 20)
    assert seen == list(range(20))


def test_the_seed_decides_between_hosts() -> None:
    def order(seed: int) -> str:
        with World(seed) as world:
            seen: list[str] = []
            for name in "abcdef":
                world.host(name).loop.call_soon(seen.append, name)
            world.run_until(lambda: len(seen) == 6)
            return "".join(seen)

    assert order(1) == order(1)
    assert len({order(seed) for seed in range(10)}) > 3


def test_an_hour_passes_in_no_time(world: World) -> None:
    host = world.host("a")
    world.run_until(host.run(asyncio.sleep(3600)), timeout_s=4000)
    assert world.now == 3600
    assert host.loop.time() == 3600


def test_timers_fire_in_order_of_time_and_then_of_creation(world: World) -> None:
    host, seen = world.host("a"), list[Any]()
    for name, delay in [("d", 2.0), ("a", 1.0), ("b", 1.0), ("c", 1.5)]:
        host.loop.call_later(delay, seen.append, name)
    world.run_for(3)
    assert seen == ["a", "b", "c", "d"]


def test_a_cancelled_timer_does_not_fire_and_does_not_move_the_clock(world: World) -> None:
    host, seen = world.host("a"), list[Any]()
    host.loop.call_later(5, seen.append, "cancelled").cancel()
    host.loop.call_later(1, seen.append, "kept")
    while world.step():
        pass
    assert seen == ["kept"]
    assert world.now == 1


def test_many_cancelled_timers_are_forgotten(world: World) -> None:
    host = world.host("a")

    async def main() -> None:
        for _ in range(2000):
            async with asyncio.timeout(1000):
                await asyncio.sleep(0.001)

    world.run_until(host.run(main()))
    assert len(world._timers) < 600
    assert world.timers_cancelled <= len(world._timers)


# -- asyncio on top


def test_asyncio_works_unchanged(world: World) -> None:
    async def main() -> list[str]:
        log: list[str] = []
        queue: asyncio.Queue[int] = asyncio.Queue(1)
        event, lock = asyncio.Event(), asyncio.Lock()

        async def produce() -> None:
            for number in range(3):
                await queue.put(number)
            event.set()

        async def consume() -> None:
            for _ in range(3):
                async with lock:
                    log.append(f"got {await queue.get()}")

        async with asyncio.TaskGroup() as group:
            group.create_task(produce())
            group.create_task(consume())
        await event.wait()
        try:
            async with asyncio.timeout(2):
                await asyncio.Event().wait()
        except TimeoutError:
            log.append("timeout")
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.sleep(9), 1)
        values = await asyncio.gather(asyncio.sleep(1, "x"), asyncio.sleep(0.5, "y"))
        done, pending = await asyncio.wait(
            [asyncio.ensure_future(asyncio.sleep(delay)) for delay in (1, 5)], timeout=2
        )
        for task in pending:
            task.cancel()
        log.append(f"{values} {len(done)} {len(pending)} {await asyncio.to_thread(str.upper, 'thread')}")
        return log

    log = world.run_until(world.host("a").run(main()))
    assert log == ["got 0", "got 1", "got 2", "timeout", "['x', 'y'] 1 1 THREAD"]


def test_a_task_group_cancels_its_tasks_in_the_same_order_every_time() -> None:
    def order(noise: int) -> list[int]:
        junk = [object() for _ in range(noise)]  # other addresses for the tasks
        cancelled: list[int] = []

        async def sleeper(number: int) -> None:
            try:
                await asyncio.sleep(10)
            finally:
                cancelled.append(number)

        async def main() -> None:
            async with asyncio.TaskGroup() as group:
                for number in range(50):
                    group.create_task(sleeper(number))
                await asyncio.sleep(1)
                raise ValueError

        with World(1) as world, pytest.raises(ExceptionGroup):
            world.run_until(world.host("a").run(main()))
        assert junk is not None
        return cancelled

    assert order(0) == order(1_000) == order(77_777)


def test_a_future_in_a_set_hashes_by_its_number(world: World) -> None:
    loop = world.host("a").loop
    futures = [loop.create_future() for _ in range(5)]
    assert len({hash(future) for future in futures}) == 5
    assert [hash(future) for future in futures] == [hash(future) for future in futures]


def test_a_dropped_async_generator_is_closed_on_its_own_loop(world: World) -> None:
    closed: list[object] = []

    async def numbers() -> AsyncIterator[int]:
        try:
            for number in range(10):
                yield number
        finally:
            await asyncio.sleep(0.1)
            closed.append(asyncio.get_running_loop())

    async def main() -> None:
        async for number in numbers():
            if number == 2:
                break

    host = world.host("a")
    world.run_until(host.run(main()))
    world.run_for(1)
    assert closed == [host.loop]


# -- contexts


def test_what_main_sets_is_seen_by_all_callbacks_of_its_host(world: World) -> None:
    seen: dict[str, list[str]] = {"a": [], "b": []}

    async def main(host: Host) -> None:
        NAME.set(host.name)
        host.loop.call_later(1, lambda: seen[host.name].append(NAME.get()))
        await asyncio.sleep(5)

    for name in "ab":
        world.start(name, main)
    world.run_for(0.5)
    for name in "ab":
        host = world.hosts[name]
        world.at_host(host, 2.0, lambda name=name: seen[name].append(NAME.get()))
    world.run_for(2)
    assert seen == {"a": ["a", "a"], "b": ["b", "b"]}
    assert NAME.get() == "nobody"


# -- errors


def test_an_exception_in_a_callback_fails_the_simulation(world: World) -> None:
    world.host("a").loop.call_soon(lambda: 1 / 0)
    with pytest.raises(SimulationFailed, match=r"seed 7, step 1, .*a: exception in a callback") as caught:
        world.run_for(1)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_task_whose_exception_nobody_retrieves_fails_the_simulation(world: World) -> None:
    async def broken() -> None:
        raise ValueError("lost")

    async def main() -> None:
        asyncio.create_task(broken())  # noqa: RUF006
        await asyncio.sleep(1)

    task = world.host("a").run(main())
    with pytest.raises(SimulationFailed, match="never retrieved"):
        world.run_until(task)


def test_an_exception_handler_of_the_loop_is_respected(world: World) -> None:
    host, seen = world.host("a"), list[Any]()
    host.loop.set_exception_handler(lambda loop, context: seen.append(context["exception"]))
    host.loop.call_soon(lambda: 1 / 0)
    world.run_for(1)
    assert [type(error) for error in seen] == [ZeroDivisionError]


def test_the_result_of_a_task_or_its_exception_is_handed_out(world: World) -> None:
    async def broken() -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        world.run_until(world.host("a").run(broken()))


def test_nothing_left_to_do_is_noticed_and_shows_who_waits_where(world: World) -> None:
    async def wait_for_nobody() -> None:
        await asyncio.Event().wait()

    task = world.host("a").run(wait_for_nobody(), name="the waiter")
    with pytest.raises(SimulationStuck) as caught:
        world.run_until(task)
    text = str(caught.value)
    assert "nothing is left" in text
    assert "task the waiter" in text
    assert "wait_for_nobody: await asyncio.Event().wait()" in text


def test_a_busy_loop_hits_the_bound_of_handles() -> None:
    async def spin() -> None:
        for _ in itertools.count():
            await asyncio.sleep(0)

    with World(1, steps_max=5_000) as world:
        task = world.host("a").run(spin())
        with pytest.raises(SimulationStuck, match="5000 handles ran"):
            world.run_until(task)


def test_a_timeout_in_virtual_time_is_noticed(world: World) -> None:
    with pytest.raises(SimulationStuck, match="within 10 virtual seconds"):
        world.run_until(world.host("a").run(asyncio.sleep(100)), timeout_s=10)
    assert world.now == 10


# -- between loops


def test_lo_3_another_process_cannot_be_called(world: World) -> None:
    one, other = world.host("one"), world.host("other")
    one.loop.call_soon(lambda: other.loop.call_soon(print))
    with pytest.raises(SimulationFailed) as caught:
        world.run_for(1)
    assert isinstance(caught.value.__cause__, SimulationMisuse)
    assert "only bytes cross" in str(caught.value.__cause__)


def test_lo_3_another_thread_wants_call_soon_threadsafe(world: World) -> None:
    host = world.host("a")
    user, seen = host.new_loop("user"), list[int]()
    host.loop.call_soon(lambda: user.call_soon_threadsafe(seen.append, 1))
    world.run_for(1)
    assert seen == [1]
    host.loop.call_soon(lambda: user.call_soon(seen.append, 2))
    with pytest.raises(SimulationFailed, match="use call_soon_threadsafe"):
        world.run_for(1)


def test_in_loop_thread_tells_the_two_loops_of_a_host_apart(world: World) -> None:
    host, seen = world.host("a"), list[Any]()
    user = host.new_loop("user")
    for loop in (host.loop, user):
        loop.call_soon(lambda: seen.append(host.ports.in_loop_thread()))
    world.run_for(1)
    assert sorted(seen) == [False, True]


def test_lk_1_the_lock_may_not_be_held_across_an_await(world: World) -> None:
    host = world.host("a")

    async def hold() -> None:
        with host.ports.lock, host.ports.lock:  # reentrant within a handle
            await asyncio.sleep(1)

    async def main() -> None:
        first = asyncio.create_task(hold())
        await asyncio.sleep(0.5)
        with pytest.raises(SimulationMisuse, match="LK-1"), host.ports.lock:
            pass
        await first

    world.run_until(host.run(main()))


@pytest.mark.parametrize("call", ["create_connection", "subprocess_exec", "getaddrinfo"])
def test_the_real_world_is_refused(world: World, call: str) -> None:
    async def main() -> None:
        await getattr(asyncio.get_running_loop(), call)()

    with pytest.raises(SimulationMisuse, match=call):
        world.run_until(world.host("a").run(main()))


def test_simulated_code_cannot_run_its_loop_or_its_world(world: World) -> None:
    host = world.host("a")
    with pytest.raises(SimulationMisuse, match="run by its world"):
        host.loop.run_forever()

    async def main() -> None:
        world.run_for(1)

    with pytest.raises(SimulationMisuse, match="runs already"):
        world.run_until(host.run(main()))


# -- the end of a host


def test_ho_1_a_kill_runs_no_finally_before_the_world_is_closed() -> None:
    log: list[str] = []

    async def main() -> None:
        try:
            await asyncio.sleep(10)
        finally:
            log.append("finally")

    with World(1) as world:
        host = world.host("a")
        host.run(main())
        world.run_for(1)
        world.kill(host)
        world.run_for(100)
        gc.collect()
        assert log == []
        assert not host.alive
        assert host.signal == signal.SIGKILL
    assert log == ["finally"]  # late, cut off, and documented


def test_what_dead_code_raises_at_the_end_is_kept_and_hurts_nobody() -> None:
    async def main() -> None:
        try:
            await asyncio.sleep(10)
        finally:
            asyncio.create_task(asyncio.sleep(1))  # noqa: RUF006

    async def stubborn() -> None:
        try:
            await asyncio.sleep(10)
        finally:
            await asyncio.sleep(1)

    with World(1) as world:
        host = world.host("a")
        host.run(main())
        host.run(stubborn())
        world.run_for(1)
    assert any("Event loop is closed" in error for error in world.late_errors)
    assert any("ignored GeneratorExit" in error for error in world.late_errors)


def test_main_that_returns_ends_the_process_with_0_and_system_exit_with_its_code(world: World) -> None:
    async def returns(host: Host) -> None:
        await asyncio.sleep(1)

    async def exits(host: Host) -> None:
        await asyncio.sleep(1)
        raise SystemExit(3)

    one, other = world.start("one", returns), world.start("other", exits)
    world.run_for(2)
    assert (one.alive, one.exit_code) == (False, 0)
    assert (other.alive, other.exit_code) == (False, 3)


def test_main_that_raises_fails_the_simulation(world: World) -> None:
    async def main(host: Host) -> None:
        raise OSError("no disk")

    world.start("a", main)
    with pytest.raises(SimulationFailed, match="main coroutine of a failed"):
        world.run_for(1)


def test_signals_call_their_handler_or_do_their_default(world: World) -> None:
    seen: list[str] = []
    handled, plain = world.host("handled"), world.host("plain")
    handled.loop.add_signal_handler(signal.SIGTERM, seen.append, "term")
    for host in (handled, plain):
        world.kill(host, signal.SIGTERM)
        world.kill(host, signal.SIGCHLD)
    world.run_for(1)
    assert seen == ["term"]
    assert handled.alive
    assert (plain.alive, plain.signal) == (False, signal.SIGTERM)
    assert handled.loop.remove_signal_handler(signal.SIGTERM)
    world.kill(handled, signal.SIGTERM)
    assert not handled.alive


def test_a_stopped_process_does_nothing_until_it_continues(world: World) -> None:
    host, seen = world.host("a"), list[Any]()

    async def tick() -> None:
        while True:
            await asyncio.sleep(1)
            seen.append(world.now)

    host.run(tick())
    world.run_for(2.5)
    world.kill(host, signal.SIGSTOP)
    world.run_for(10)
    assert seen == [1, 2]
    world.kill(host, signal.SIGCONT)
    world.run_for(1.5)
    assert seen == [1, 2, 12.5, 13.5]


def test_a_name_is_given_once(world: World) -> None:
    world.kill(world.host("a"))
    with pytest.raises(SimulationMisuse, match="another name"):
        world.host("a")
