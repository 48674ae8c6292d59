"""What only a real thread can show."""

import asyncio
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from actorflow._core.io.executor import BATCH_S_MAX, MainThreadExecutor
from tests.conformance.worlds import Watcher


def test_many_threads_submit_and_everything_runs_once_in_their_order(runner: asyncio.Runner) -> None:
    threads, each = 8, 2_000

    async def scenario() -> None:
        executor = MainThreadExecutor(asyncio.get_running_loop())
        seen: list[tuple[int, int]] = []
        watcher = Watcher()

        def submit_all(thread: int) -> None:
            for number in range(each):
                executor.submit(lambda number=number: seen.append((thread, number)))
            executor.submit(watcher.changed)

        await asyncio.gather(*(asyncio.to_thread(submit_all, thread) for thread in range(threads)))
        await watcher.until(lambda: len(seen) == threads * each)
        for thread in range(threads):
            assert [number for who, number in seen if who == thread] == list(range(each))

    runner.run(scenario())


def test_the_loop_is_woken_once_for_many() -> None:
    class Counting(asyncio.SelectorEventLoop):
        wakes = 0

        def call_soon_threadsafe(self, *args: Any, **kwargs: Any) -> asyncio.Handle:
            self.wakes += 1
            return super().call_soon_threadsafe(*args, **kwargs)

    with asyncio.Runner(loop_factory=Counting) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, Counting)
        executor = MainThreadExecutor(loop)

        async def scenario() -> None:
            seen: list[int] = []
            watcher = Watcher()
            loop.wakes = 0


            def submit_from_elsewhere() -> None:
                for number in range(100):
                    executor.submit(lambda number=number: seen.append(number))
                executor.submit(watcher.changed)

            elsewhere = threading.Thread(target=submit_from_elsewhere)
            elsewhere.start()
            elsewhere.join()
            assert loop.wakes == 1
            await watcher.until(lambda: len(seen) == 100)
            executor.submit(watcher.changed)
            assert loop.wakes == 1, "its own thread needs no wake"
            await asyncio.sleep(0)

        runner.run(scenario())


def test_a_failure_is_reported_and_the_rest_goes_on(runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        executor = MainThreadExecutor(loop)
        reported: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda loop, context: reported.append(context))
        watcher = Watcher()
        seen: list[str] = []

        def fails() -> None:
            raise ZeroDivisionError("a bug")

        executor.submit(fails)
        executor.submit(lambda: (seen.append("next"), watcher.changed())[0])
        await watcher.until(lambda: seen)
        assert [type(context["exception"]) for context in reported] == [ZeroDivisionError]

    runner.run(scenario())


def test_what_ends_the_loop_does_not_lose_the_rest() -> None:
    loop = asyncio.new_event_loop()
    executor = MainThreadExecutor(loop)
    seen: list[str] = []

    def leave() -> None:
        raise SystemExit(3)

    executor.submit(leave)
    executor.submit(lambda: seen.append("next"))
    with pytest.raises(SystemExit):
        loop.run_forever()
    loop.run_until_complete(asyncio.sleep(0))
    assert seen == ["next"]
    loop.close()


def test_slow_callables_give_way_after_their_time(runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        executor = MainThreadExecutor(asyncio.get_running_loop())
        ran: list[int] = []
        for number in range(5):
            executor.submit(lambda number=number: (time.sleep(BATCH_S_MAX), ran.append(number))[0])
        turns = []
        while len(ran) < 5:
            turns.append(len(ran))
            await asyncio.sleep(0)
        assert {1, 2, 3, 4} <= set(turns)

    runner.run(scenario())


def test_any_thread_may_block(runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        executor = MainThreadExecutor(asyncio.get_running_loop())
        wakes: list[Callable[[], None]] = []
        registered = Watcher()
        loop = asyncio.get_running_loop()

        def register(wake: Callable[[], None]) -> None:
            wakes.append(wake)
            loop.call_soon_threadsafe(registered.changed)

        blocked = asyncio.create_task(asyncio.to_thread(executor.block, register, 20.0))
        await registered.until(lambda: wakes)
        assert not blocked.done()
        wakes[0]()
        assert await blocked is True

    runner.run(scenario())


@pytest.mark.parametrize("timeout_s", [0.0, -1.0])
def test_no_time_at_all(timeout_s: float) -> None:
    loop = asyncio.new_event_loop()
    assert MainThreadExecutor(loop).block(lambda wake: None, timeout_s) is False
    loop.close()


def test_a_time_beyond_what_the_system_counts() -> None:
    loop = asyncio.new_event_loop()
    assert MainThreadExecutor(loop).block(lambda wake: wake(), 1e12) is True
    loop.close()


def test_a_signal_handler_may_raise_out_of_a_block() -> None:
    class Interrupted(Exception):
        pass

    def handler(number: int, frame: object) -> None:
        raise Interrupted

    loop = asyncio.new_event_loop()
    before = signal.signal(signal.SIGUSR1, handler)
    timer = threading.Timer(0.02, signal.pthread_kill, [threading.get_ident(), signal.SIGUSR1])
    try:
        timer.start()
        with pytest.raises(Interrupted):
            MainThreadExecutor(loop).block(lambda wake: None, 20.0)
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, before)
        loop.close()
