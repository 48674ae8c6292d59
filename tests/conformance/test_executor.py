"""The contract of Executor."""

import asyncio
from collections.abc import Callable

from tests.conformance.worlds import ExecutorWorld, Watcher

Wake = Callable[[], None]


def run_in_turn(world: ExecutorWorld, *callables: Callable[[], object]) -> list[object]:
    """Submit the callables; return their results when the last has run."""

    async def scenario() -> list[object]:
        watcher, results = Watcher(), []

        def wrapped(fn: Callable[[], object]) -> Callable[[], None]:
            def body() -> None:
                results.append(fn())
                watcher.changed()

            return body

        for fn in callables:
            world.executor.submit(wrapped(fn))
        assert results == [], "submit() ran something at once"
        await watcher.until(lambda: len(results) == len(callables))
        return results

    return world.run(scenario())


def test_callables_run_in_the_order_of_submission(executor_world: ExecutorWorld) -> None:
    seen = run_in_turn(executor_world, *(lambda number=number: number for number in range(2_000)))
    assert seen == list(range(2_000))


def test_what_a_callable_submits_runs_after_what_was_there(executor_world: ExecutorWorld) -> None:
    async def scenario() -> list[str]:
        watcher, seen = Watcher(), []

        def note(word: str) -> Callable[[], None]:
            return lambda: (seen.append(word), watcher.changed())[0]

        def first() -> None:
            seen.append("first")
            executor_world.executor.submit(note("third"))

        executor_world.executor.submit(first)
        executor_world.executor.submit(note("second"))
        await watcher.until(lambda: len(seen) == 3)
        return seen

    assert executor_world.run(scenario()) == ["first", "second", "third"]


def test_async_code_has_its_turn_beside_many_callables(executor_world: ExecutorWorld) -> None:
    async def scenario() -> None:
        watcher = Watcher()
        done = 0
        turns: list[int] = []

        def work() -> None:
            nonlocal done
            done += 1
            watcher.changed()

        async def ticker() -> None:
            while done < 5_000:
                turns.append(done)
                await asyncio.sleep(0)

        for _ in range(5_000):
            executor_world.executor.submit(work)
        ticking = asyncio.get_running_loop().create_task(ticker())
        await watcher.until(lambda: done == 5_000)
        await ticking
        assert len([turn for turn in turns if 0 < turn < 5_000]) >= 5

    executor_world.run(scenario())


# -- block


def test_blocked_code_goes_on_when_it_is_woken(executor_world: ExecutorWorld) -> None:
    assert run_in_turn(executor_world, lambda: executor_world.executor.block(executor_world.wake_later, None)) == [True]


def test_woken_before_it_blocks(executor_world: ExecutorWorld) -> None:
    assert run_in_turn(executor_world, lambda: executor_world.executor.block(lambda wake: wake(), None)) == [True]


def test_woken_twice(executor_world: ExecutorWorld) -> None:
    def twice(wake: Wake) -> None:
        wake()
        wake()
        executor_world.wake_later(wake)

    assert run_in_turn(
        executor_world,
        lambda: executor_world.executor.block(twice, None),
        lambda: executor_world.executor.block(executor_world.wake_later, None),
    ) == [True, True]


def test_the_time_is_up(executor_world: ExecutorWorld) -> None:
    wakes: list[Wake] = []
    assert run_in_turn(executor_world, lambda: executor_world.executor.block(wakes.append, 0.01)) == [False]
    wakes[0]()  # Too late, and harmless.


def test_woken_before_the_time_is_up(executor_world: ExecutorWorld) -> None:
    assert run_in_turn(executor_world, lambda: executor_world.executor.block(executor_world.wake_later, 60.0)) == [True]


def test_register_is_called_at_once_and_once(executor_world: ExecutorWorld) -> None:
    calls: list[str] = []

    def body() -> None:
        executor_world.executor.block(lambda wake: (calls.append("registered"), wake())[0], 5.0)
        calls.append("back")

    run_in_turn(executor_world, body)
    assert calls == ["registered", "back"]


def test_what_comes_later_waits_for_blocked_code(executor_world: ExecutorWorld) -> None:
    seen: list[str] = []

    def blocking() -> None:
        seen.append("blocks")
        executor_world.executor.block(executor_world.wake_later, None)
        seen.append("goes on")

    run_in_turn(executor_world, blocking, lambda: seen.append("next"))
    assert seen == ["blocks", "goes on", "next"]
