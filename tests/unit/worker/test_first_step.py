"""Calls whose first step runs at once: they must be told from calls with a task of their own by nothing but their speed.

So most tests here run a program twice: as a plain task, and with a spare task standing by for it. What the two come to must be the same,
whatever they use of asyncio and whenever they are cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import random
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any

import pytest

from actorflow._core.worker.first_step import SPARES_MAX, FirstSteps
from tests.unit.io.conftest import LOOPS

Program = Callable[["Stage"], Coroutine[Any, Any, Any]]
Phase = Callable[["Running"], Awaitable[None]]

PATIENCE_S = 20.0
"""How long a test waits for what must happen. Only a failure takes so long."""
FAR_S = 1000.0
"""A time that does not come."""


class Stage:
    """What a program works with, and what it leaves: its log."""

    def __init__(self, wait_s: float = 0.005) -> None:
        self.loop = asyncio.get_running_loop()
        self.wait_s = wait_s
        self.future: asyncio.Future[Any] = self.loop.create_future()
        self.log: list[Any] = []
        self.kept: list[Any] = []

    async def sleeper(self, name: str, result: Any = "slept") -> Any:
        """Something to wait for, that tells how it went."""
        try:
            await asyncio.sleep(self.wait_s)
        except asyncio.CancelledError:
            self.log.append((name, "cancelled"))
            raise
        self.log.append((name, "slept"))
        return result

    def task(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        self.kept.append(self.loop.create_task(coroutine))
        task: asyncio.Task[Any] = self.kept[-1]
        return task


class Running:
    """One call, as its caller sees it."""

    def __init__(self, name: str, fn: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        self.name = name
        self.fn = fn
        self.task: asyncio.Task[Any] | None = None
        self.outcome: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def ended(self, value: Any, error: BaseException | None) -> None:
        self.task = None  # As the worker does: what is over cannot be cancelled.
        self.outcome.set_result(("value", value) if error is None else told(error))


def told(error: BaseException) -> tuple[Any, ...]:
    if isinstance(error, BaseExceptionGroup):
        return ("error", type(error), *map(told, error.exceptions))
    if isinstance(error, asyncio.CancelledError):
        return ("error", type(error))  # With which words depends on who was last, when there are several.
    return ("error", type(error), error.args)


class Tasks:
    """Runs each call as a task, as asyncio alone does."""

    async def ready(self) -> None:
        """Nothing stands by here."""

    def start(self, name: str, fn: Callable[[], Coroutine[Any, Any, Any]]) -> Running:
        running = Running(name, fn)
        running.task = asyncio.get_running_loop().create_task(self._run(running), name=name)
        return running

    async def _run(self, running: Running) -> None:
        try:
            value = await running.fn()
        except BaseException as error:
            running.ended(None, error)
        else:
            running.ended(value, None)


class Steps(Tasks):
    """Runs each call by a first step at once, where a task stands by for it; as the worker does."""

    def __init__(self) -> None:
        self.first_steps: FirstSteps = FirstSteps(asyncio.get_running_loop(), Running.ended)
        self.at_once = 0

    async def ready(self) -> None:
        """Have a task that stands by."""

        async def nothing() -> None: ...

        await until(lambda: self.start("nothing", nothing).task is None)
        self.at_once = 0

    def start(self, name: str, fn: Callable[[], Coroutine[Any, Any, Any]]) -> Running:
        running = Running(name, fn)
        try:
            started = outside(lambda: self.first_steps.run(running, lambda call: call.fn()))
        except BaseException as error:
            running.ended(None, error)
            self.at_once += 1
            return running
        if started is None:
            return super().start(name, fn)
        self.at_once += 1
        running.task, value = started
        if running.task is None:
            running.ended(value, None)
        return running


def outside(fn: Callable[[], Any]) -> Any:
    """Call `fn` outside of any task, as a callback of the loop is called."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    if task is None:
        return fn()
    asyncio.tasks._leave_task(loop, task)
    try:
        return fn()
    finally:
        asyncio.tasks._enter_task(loop, task)


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not true():
            await asyncio.sleep(0)


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def come_to(running: Running) -> Any:
    async with asyncio.timeout(PATIENCE_S):
        return await asyncio.shield(running.outcome)


@pytest.fixture
def run(runner: asyncio.Runner) -> Any:
    """Run a scenario; nothing may complain on its loop, and no task may be destroyed or coroutine never awaited, after it either."""

    def run(scenario: Coroutine[Any, Any, Any]) -> Any:
        complaints: list[dict[str, Any]] = []
        runner.get_loop().set_exception_handler(lambda loop, context: complaints.append(context))
        result = runner.run(scenario)
        runner.close()
        gc.collect()
        assert complaints == []
        return result

    return run


# -- programs: each is run as a plain task and with a spare task, and cancelled in each phase


async def returns(stage: Stage) -> Any:
    return "at once"


async def raises(stage: Stage) -> Any:
    raise ZeroDivisionError("at once")


async def returns_later(stage: Stage) -> Any:
    await asyncio.sleep(stage.wait_s)
    return "later"


async def raises_later(stage: Stage) -> Any:
    await asyncio.sleep(stage.wait_s)
    raise ZeroDivisionError("later")


async def gives_way(stage: Stage) -> Any:
    for _ in range(20):
        await asyncio.sleep(0)
    return "gave way"


async def waits_for_a_future(stage: Stage) -> Any:
    stage.loop.call_later(stage.wait_s, lambda: stage.future.done() or stage.future.set_result("set"))
    try:
        return await stage.future
    finally:
        stage.log.append(("the future was cancelled", stage.future.cancelled()))


async def waits_for_what_is_done(stage: Stage) -> Any:
    stage.future.set_result("done before")
    return await stage.future


async def waits_for_a_task(stage: Stage) -> Any:
    return await stage.task(stage.sleeper("inner"))


async def waits_for_a_task_that_goes_on(stage: Stage) -> Any:
    async def goes_on() -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await stage.sleeper("inner")
        return "went on"

    return await stage.task(goes_on())


async def gathers(stage: Stage) -> Any:
    return await asyncio.gather(stage.sleeper("left", 1), stage.sleeper("right", 2))


async def waits_with_a_bound(stage: Stage) -> Any:
    return await asyncio.wait_for(stage.sleeper("inner"), FAR_S)


async def waits_too_long(stage: Stage) -> Any:
    try:
        return await asyncio.wait_for(stage.loop.create_future(), stage.wait_s)
    except TimeoutError:
        return ("too long", cancelling())


async def has_a_timeout(stage: Stage) -> Any:
    try:
        async with asyncio.timeout(stage.wait_s):
            await asyncio.sleep(FAR_S)
    except TimeoutError:
        stage.log.append(("timeout", cancelling()))
    await asyncio.sleep(0)
    return "went on"


async def has_a_timeout_that_is_past(stage: Stage) -> Any:
    try:
        async with asyncio.timeout(0):
            await stage.future
    except TimeoutError:
        stage.log.append(("timeout", cancelling()))
    return ("went on", stage.future.cancelled())


async def has_a_timeout_to_spare(stage: Stage) -> Any:
    async with asyncio.timeout(FAR_S):
        await asyncio.sleep(stage.wait_s)
    return cancelling()


async def has_two_timeouts(stage: Stage) -> Any:
    try:
        async with asyncio.timeout(FAR_S):
            async with asyncio.timeout(stage.wait_s):
                await asyncio.sleep(FAR_S)
    except TimeoutError:
        return ("timeout", cancelling())


async def has_children(stage: Stage) -> Any:
    async with asyncio.TaskGroup() as group:
        child = group.create_task(stage.sleeper("child"))
        group.create_task(asyncio.sleep(stage.wait_s))
    return child.result()


async def has_a_child_that_fails(stage: Stage) -> Any:
    async with asyncio.TaskGroup() as group:
        group.create_task(raises(stage))
        await asyncio.sleep(FAR_S)


async def shields(stage: Stage) -> Any:
    inner = stage.task(stage.sleeper("inner"))
    try:
        return await asyncio.shield(inner)
    finally:
        stage.log.append(("inner was asked to cancel", inner.cancelling()))


async def does_not_give_in(stage: Stage) -> Any:
    try:
        await asyncio.sleep(stage.wait_s)
    except asyncio.CancelledError:
        stage.log.append("not with me")
    await asyncio.sleep(0)
    return ("went on", cancelling())


async def does_not_give_in_and_says_so(stage: Stage) -> Any:
    task = asyncio.current_task()
    assert task is not None
    try:
        await asyncio.sleep(stage.wait_s)
    except asyncio.CancelledError:
        stage.log.append(("uncancelled", task.uncancel()))
    await asyncio.sleep(0)
    return ("went on", cancelling())


async def tidies_up(stage: Stage) -> Any:
    try:
        await stage.task(stage.sleeper("inner"))
    finally:
        await asyncio.sleep(0)
        stage.log.append("tidied")


async def takes_turns_at_a_lock(stage: Stage) -> Any:
    lock = asyncio.Lock()

    async def other() -> None:
        async with lock:
            await asyncio.sleep(stage.wait_s)

    await lock.acquire()
    stage.task(other())
    lock.release()
    await asyncio.sleep(0)
    async with lock:
        return "both"


async def takes_from_a_queue(stage: Stage) -> Any:
    queue: asyncio.Queue[int] = asyncio.Queue()
    stage.loop.call_later(stage.wait_s, queue.put_nowait, 7)
    return await queue.get()


async def waits_for_an_event(stage: Stage) -> Any:
    event = asyncio.Event()
    stage.loop.call_later(stage.wait_s, event.set)
    return await event.wait()


async def waits_for_the_first(stage: Stage) -> Any:
    tasks = [stage.task(stage.sleeper(name)) for name in ("left", "right")]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.gather(*tasks)
    return len(done) > 0


async def runs_a_generator(stage: Stage) -> Any:
    async def numbers() -> Any:
        try:
            for number in range(3):
                await asyncio.sleep(stage.wait_s)
                yield number
        finally:
            stage.log.append("the generator has ended")

    return [number async for number in numbers()]


async def asks_a_thread(stage: Stage) -> Any:
    over = threading.Event()
    stage.loop.call_later(stage.wait_s, over.set)
    try:
        return await asyncio.to_thread(over.wait, PATIENCE_S)
    finally:
        over.set()


async def waits_for_itself(stage: Stage) -> Any:
    task = asyncio.current_task()
    assert task is not None
    try:
        await task
    except RuntimeError:
        return "refused"


class Yields:
    def __init__(self, what: Any) -> None:
        self.what = what

    def __await__(self) -> Generator[Any, Any, Any]:
        return (yield self.what)


async def waits_for_nonsense(stage: Stage) -> Any:
    try:
        await Yields(42)
    except RuntimeError as error:
        return str(error)


async def waits_for_a_future_of_elsewhere(stage: Stage) -> Any:
    loop = asyncio.new_event_loop()
    try:
        await loop.create_future()
    except RuntimeError as error:
        return "attached to a different loop" in str(error)
    finally:
        loop.close()


async def cancels_itself_and_returns(stage: Stage) -> Any:
    cancel_current()
    return "returned"


async def cancels_itself_and_raises(stage: Stage) -> Any:
    cancel_current()
    raise ZeroDivisionError("raised")


async def cancels_itself_and_waits(stage: Stage) -> Any:
    cancel_current()
    try:
        await stage.task(stage.sleeper("inner"))
    finally:
        stage.log.append("waited")


async def cancels_itself_and_goes_on(stage: Stage) -> Any:
    cancel_current()
    try:
        await asyncio.sleep(0)
    except asyncio.CancelledError:
        stage.log.append("not with me")
    await asyncio.sleep(0)
    return cancelling()


async def wants_to_leave(stage: Stage) -> Any:
    await asyncio.sleep(0)
    raise SystemExit(3)


def cancelling() -> int:
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


def cancel_current() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel("by itself")


PROGRAMS: list[Program] = [
    returns, raises, returns_later, raises_later, gives_way, waits_for_a_future, waits_for_what_is_done, waits_for_a_task,
    waits_for_a_task_that_goes_on, gathers, waits_with_a_bound, waits_too_long, has_a_timeout, has_a_timeout_that_is_past,
    has_a_timeout_to_spare, has_two_timeouts, has_children, has_a_child_that_fails, shields, does_not_give_in,
    does_not_give_in_and_says_so, tidies_up, takes_turns_at_a_lock, takes_from_a_queue, waits_for_an_event, waits_for_the_first,
    runs_a_generator, asks_a_thread, waits_for_itself, waits_for_nonsense, waits_for_a_future_of_elsewhere,
    cancels_itself_and_returns, cancels_itself_and_raises, cancels_itself_and_waits, cancels_itself_and_goes_on, wants_to_leave,
]  # fmt: skip


async def never(running: Running) -> None:
    """It is left alone."""


async def before_its_second_step(running: Running) -> None:
    cancel(running)


async def while_it_is_suspended(running: Running) -> None:
    await turns(4)
    cancel(running)


async def twice_at_once(running: Running) -> None:
    await turns(4)
    cancel(running)
    cancel(running)


async def again_and_again(running: Running) -> None:
    for _ in range(6):
        await turns(4)
        cancel(running)


def cancel(running: Running) -> None:
    if running.task is not None and not running.outcome.done():
        running.task.cancel()


async def staged(world: Tasks, program: Program, phase: Phase, later: bool, first_turns: int = 0) -> Any:
    # Where a cancel is to come, no time may run out before it on a busy machine.
    stage = Stage() if phase is never else Stage(wait_s=FAR_S)
    await world.ready()

    async def main() -> Any:
        if later:
            await asyncio.sleep(0)
        return await program(stage)

    running = world.start(program.__name__, main)
    await turns(first_turns)
    await phase(running)
    outcome = await come_to(running)
    for task in stage.kept:
        task.cancel()
    await asyncio.gather(*stage.kept, return_exceptions=True)
    return outcome, stage.log


PHASES: list[Phase] = [never, before_its_second_step, while_it_is_suspended, twice_at_once, again_and_again]


@pytest.mark.parametrize("later", [False, True], ids=["in its first step", "later"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_call_ends_as_a_task_of_its_own_would(run: Any, program: Program, later: bool) -> None:
    """`later`: what the program does first, it does in its second step.

    A task takes its first step in its first turn. Between its first and its second step a call may be a turn behind the task.
    """

    async def scenario() -> None:
        steps = Steps()
        for phase in PHASES:
            expected = [await staged(Tasks(), program, phase, later, first_turns) for first_turns in (1, 2)]
            assert await staged(steps, program, phase, later) in expected, phase
            assert steps.at_once == 1, "a task stood by for it"

    run(scenario())


@pytest.mark.parametrize("first", ["the cancel", "the end"])
def test_a_cancel_in_the_turn_in_which_the_call_could_end(run: Any, first: str) -> None:
    async def in_one_turn(world: Tasks) -> Any:
        await world.ready()
        future = asyncio.get_running_loop().create_future()

        async def program() -> Any:
            return await future

        running = world.start("waits", program)
        await turns(3)
        for act in (cancel, set_future) if first == "the cancel" else (set_future, cancel):
            act(running, future)
        return await come_to(running), future.cancelled()

    def cancel(running: Running, future: asyncio.Future[Any]) -> None:
        assert running.task is not None
        running.task.cancel("in one turn")

    def set_future(running: Running, future: asyncio.Future[Any]) -> None:
        if not future.done():
            future.set_result("set")

    async def scenario() -> None:
        assert await in_one_turn(Steps()) == await in_one_turn(Tasks())

    run(scenario())


@pytest.mark.parametrize("turns_before", [0, 1, 4])
def test_a_cancel_says_why(run: Any, turns_before: int) -> None:
    async def scenario() -> None:
        steps, said = Steps(), []

        async def program() -> None:
            try:
                await asyncio.sleep(FAR_S)
            except asyncio.CancelledError as error:
                said.extend(error.args)
                raise

        await steps.ready()
        running = steps.start("waits", program)
        await turns(turns_before)
        assert running.task is not None
        running.task.cancel("because")
        assert await come_to(running) == ("error", asyncio.CancelledError)
        assert said == ["because"]

    run(scenario())


# -- without a task of its own


def test_a_call_that_ends_in_its_first_step_is_over_at_once(run: Any) -> None:
    async def scenario() -> None:
        steps = Steps()
        await steps.ready()

        async def value() -> str:
            return "a value"

        async def error() -> None:
            raise ZeroDivisionError("an error")

        for _ in range(100):
            assert steps.start("value", value).outcome.result() == ("value", "a value")
            assert steps.start("error", error).outcome.result() == ("error", ZeroDivisionError, ("an error",))
        assert steps.at_once == 200

    run(scenario())


def test_what_goes_wrong_before_the_first_step_is_told_like_it(run: Any) -> None:
    async def scenario() -> None:
        steps = Steps()
        await steps.ready()

        def no_coroutine() -> Any:
            raise StopIteration("its arguments cannot be loaded")

        assert steps.start("fails", no_coroutine).outcome.result()[:2] == ("error", StopIteration)
        assert steps.at_once == 1

    run(scenario())


def test_nothing_is_started_where_no_task_stands_by(run: Any) -> None:
    async def scenario() -> None:
        started = list[str]()
        first_steps = FirstSteps(asyncio.get_running_loop(), Running.ended)

        async def program() -> None:
            started.append("it")

        def start() -> Any:
            return outside(lambda: first_steps.run(Running("first", program), lambda call: call.fn()))

        assert start() is None
        assert start() is None, "the task that is to stand by does not wait yet"
        assert not started
        await turns(3)
        assert start() == (None, None)
        assert started == ["it"]

    run(scenario())


def test_after_a_burst_a_few_tasks_are_left(run: Any) -> None:
    async def scenario() -> None:
        steps, gate, count = Steps(), asyncio.Event(), 20 * SPARES_MAX
        burst = list[Running]()
        for _ in range(count):
            burst.append(steps.start("waits", gate.wait))
            await turns(1)
        assert steps.at_once == count // 2, "each one that finds none makes one for the next"
        gate.set()
        for running in burst:
            assert await come_to(running) == ("value", True)
        await turns(3)
        assert len(asyncio.all_tasks()) - 1 <= SPARES_MAX

    run(scenario())


# -- FT-1: one task


def test_ft_1_a_call_has_one_task_from_its_first_step_to_its_last(run: Any) -> None:
    async def scenario() -> None:
        steps, seen, names = Steps(), list[Any](), list[str]()

        async def program() -> None:
            for _ in range(5):
                task = asyncio.current_task()
                assert task is not None
                seen.append(task)
                names.append(task.get_name())
                await asyncio.sleep(0)
            asyncio.get_running_loop().call_soon(lambda: seen.append(asyncio.current_task()))
            await asyncio.sleep(0)

        await steps.ready()
        running = steps.start("five steps", program)
        task = running.task
        await come_to(running)
        assert seen == [task] * 5 + [None]
        assert names[1:] == ["five steps"] * 4

    run(scenario())


def test_ft_1_no_two_calls_have_a_task_at_the_same_time(run: Any) -> None:
    async def scenario() -> None:
        steps, gate = Steps(), asyncio.Event()
        tasks = list[Any]()

        async def suspends() -> None:
            tasks.append(asyncio.current_task())
            await gate.wait()
            assert asyncio.current_task() in tasks

        async def ends_at_once() -> None:
            assert asyncio.current_task() not in tasks

        running = list[Running]()
        for _ in range(50):
            await steps.ready()
            running.append(steps.start("suspends", suspends))
            running.append(steps.start("ends", ends_at_once))
        assert len(set(tasks)) == len(tasks) == 50
        assert asyncio.current_task() not in tasks
        gate.set()
        for one in running:
            assert await come_to(one) == ("value", None)

    run(scenario())


# -- FT-2: one context


def test_ft_2_what_a_call_sets_no_other_call_sees_and_it_keeps(run: Any) -> None:
    async def scenario() -> None:
        steps = Steps()
        var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="nobody's")

        async def program(name: str, suspends: bool) -> list[str]:
            seen = [var.get()]
            token = var.set(name)
            seen.append(await asyncio.get_running_loop().create_task(get()))
            for _ in range(3 if suspends else 0):
                await asyncio.sleep(0)
                seen.append(var.get())
            var.reset(token)
            seen.append(var.get())
            var.set(f"left by {name}")
            return seen

        async def sets() -> str:
            before = var.get()
            var.set("left in a first step")
            return before

        async def get() -> str:
            return var.get()

        for _ in range(3):
            running = []
            for number in range(8):
                await steps.ready()
                assert steps.start("sets", sets).outcome.result() == ("value", "nobody's")
                running.append(steps.start("program", lambda number=number: program(f"call {number}", number % 2 == 0)))
            for number, one in enumerate(running):
                mine = [f"call {number}"] * (4 if number % 2 == 0 else 1)
                assert await come_to(one) == ("value", ["nobody's", *mine, "nobody's"])
        assert var.get() == "nobody's"

    run(scenario())


# -- FT-3: not after a cancel


def test_ft_3_a_task_that_was_cancelled_while_it_stood_by_is_not_used(run: Any) -> None:
    """As code does that cancels all tasks of its loop."""

    async def scenario() -> None:
        steps, cancelled = Steps(), list[weakref.ref[Any]]()

        async def program() -> str:
            assert asyncio.current_task() not in [task() for task in cancelled]
            await asyncio.sleep(0.001)
            return "not disturbed"

        for wait_turns in range(3):
            await steps.ready()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
                cancelled.append(weakref.ref(task))
            await turns(wait_turns)
            assert await come_to(steps.start("program", program)) == ("value", "not disturbed")
            await turns(2)
            assert all(task() is None or task().done() for task in cancelled)

    run(scenario())


@pytest.mark.parametrize("program", [cancels_itself_and_returns, cancels_itself_and_raises, cancels_itself_and_goes_on, does_not_give_in])
def test_ft_3_a_task_that_a_call_leaves_cancelled_is_not_used(run: Any, program: Program) -> None:
    async def scenario() -> None:
        steps, tasks = Steps(), list[weakref.ref[Any]]()

        async def first() -> Any:
            tasks.append(weakref.ref(asyncio.current_task()))
            return await program(Stage(wait_s=FAR_S))

        async def second() -> str:
            assert asyncio.current_task() is not tasks[0]()
            await asyncio.sleep(0.001)
            return "not disturbed"

        await steps.ready()
        running = steps.start("first", first)
        cancel(running)
        await come_to(running)
        assert await come_to(steps.start("second", second)) == ("value", "not disturbed")
        await turns(2)
        assert tasks[0]() is None or tasks[0]().done()

    run(scenario())


def test_a_task_that_ran_a_timeout_is_as_good_as_new(run: Any) -> None:
    async def scenario() -> None:
        steps = Steps()
        await steps.ready()
        for _ in range(5):
            running = steps.start("times out", lambda: has_a_timeout(Stage()))
            assert await come_to(running) == ("value", "went on")
            await turns(2)
            assert await come_to(steps.start("next", lambda: gives_way(Stage()))) == ("value", "gave way")
        assert steps.at_once == 10

    run(scenario())


# -- FT-4: not while it is kept


@pytest.mark.parametrize("program", [returns, raises, returns_later, raises_later, has_a_timeout])
def test_ft_4_a_task_that_somebody_has_kept_is_done_with_its_call(run: Any, program: Program) -> None:
    """As actors do: `self.task = asyncio.current_task()` in one call, `self.task.cancel()` or `await self.task` in another."""

    async def scenario() -> None:
        steps, kept, log = Steps(), list[asyncio.Task[Any]](), list[str]()

        async def keeps() -> Any:
            task = asyncio.current_task()
            assert task is not None
            kept.append(task)
            task.add_done_callback(lambda done: log.append("it was told"))
            return await program(Stage())

        async def cancels_what_was_kept() -> str:
            kept[0].cancel()
            await asyncio.sleep(0.001)
            return "not disturbed"

        await steps.ready()
        await come_to(steps.start("keeps", keeps))
        await turns(3)
        assert await come_to(steps.start("cancels", cancels_what_was_kept)) == ("value", "not disturbed")
        assert kept[0].done()
        assert await asyncio.wait_for(kept[0], PATIENCE_S) is None
        assert log == ["it was told"]
        await steps.ready()
        assert await come_to(steps.start("cancels", cancels_what_was_kept)) == ("value", "not disturbed")
        assert steps.at_once == 1

    run(scenario())


LEAVE_CYCLES = [has_a_child_that_fails, waits_for_itself]
"""Of asyncio's own making; they hold the task until the next collection."""
LEAVE_CANCELLED = [cancels_itself_and_returns, cancels_itself_and_raises, cancels_itself_and_waits, cancels_itself_and_goes_on]


@pytest.mark.parametrize("program", [program for program in PROGRAMS if program not in [*LEAVE_CYCLES, *LEAVE_CANCELLED]])
def test_a_task_that_nobody_has_kept_is_used_again(run: Any, program: Program) -> None:
    """Whatever the call has used of asyncio."""

    async def scenario() -> None:
        steps = Steps()
        await steps.ready()
        await come_to(steps.start("first", lambda: program(Stage())))
        await turns(3)
        steps.start("another", lambda: returns(Stage()))
        assert steps.at_once == 2

    run(scenario())


# -- the end


@pytest.mark.parametrize("kind", LOOPS)
def test_a_call_that_is_left_behind_with_its_loop_tidies_up_and_answers_nobody(kind: str) -> None:
    log, complaints = list[str](), list[str]()

    async def program() -> None:
        try:
            await asyncio.sleep(FAR_S)
        finally:
            log.append("torn down")

    async def scenario() -> Running:
        steps = Steps()
        await steps.ready()
        running = steps.start("program", program)
        await turns(3)
        return running

    loop = LOOPS[kind]()
    loop.set_exception_handler(lambda loop, context: complaints.append(context["message"]))
    running = loop.run_until_complete(scenario())
    loop.close()
    outcome = running.outcome
    del running
    gc.collect()
    assert log == ["torn down"]
    assert not outcome.done()
    assert complaints == ["Task was destroyed but it is pending!"]


@pytest.mark.parametrize("world", [Tasks, Steps])
@pytest.mark.parametrize("program", [raises, raises_later, returns_later])
def test_a_call_that_is_over_leaves_no_cycle_behind(run: Any, program: Program, world: type[Tasks]) -> None:
    """What a call had, references to objects of the cluster for instance, goes with it and not with the next collection."""

    class Large:
        pass

    async def scenario() -> None:
        steps, gone = world(), list[str]()

        async def with_large(cancelled: bool) -> Any:
            large = Large()
            weakref.finalize(large, gone.append, "gone")
            return await program(Stage(wait_s=FAR_S if cancelled else 0.001))

        gc.collect()
        gc.disable()
        try:
            for cancelled in (False, True):
                await steps.ready()
                running = steps.start("with large", lambda cancelled=cancelled: with_large(cancelled))
                await turns(3)
                if cancelled:
                    cancel(running)
                await come_to(running)
                del running
                await turns(5)
                assert gone.pop() == "gone"
        finally:
            gc.enable()

    run(scenario())


# -- many at once


class Script:
    """What one call of many does: its steps are drawn from a seed, and so is what it is told."""

    def __init__(self, crowd: Crowd, number: int) -> None:
        self.crowd = crowd
        self.number = number
        self.rng = random.Random(f"{crowd.seed} {number}")
        self.log: list[Any] = []
        self.task: asyncio.Task[Any] | None = None

    async def run(self) -> Any:
        self.task = asyncio.current_task()
        assert self.task is not None
        assert self.crowd.owners.setdefault(self.task, self) is self, "FT-1: somebody else has this task"
        self.log.append(self.crowd.var.get())
        try:
            for _ in range(self.rng.randrange(6)):
                await getattr(self, self.rng.choice(STEPS))()
                assert asyncio.current_task() is self.task
        finally:
            del self.crowd.owners[self.task]
        return self.number

    async def gives_way(self) -> None:
        for _ in range(self.rng.randrange(4)):
            await asyncio.sleep(0)

    async def sets(self) -> None:
        self.crowd.var.set(self.rng.random())

    async def gets(self) -> None:
        self.log.append(self.crowd.var.get())

    async def waits(self) -> None:
        self.log.append(await self.rng.choice(self.crowd.futures))

    async def waits_shielded(self) -> None:
        self.log.append(await asyncio.wait_for(asyncio.shield(self.rng.choice(self.crowd.futures)), FAR_S))

    async def has_children(self) -> None:
        async def child(turns_: int) -> Any:
            await turns(turns_)
            return self.crowd.var.get()

        async with asyncio.TaskGroup() as group:
            children = [group.create_task(child(self.rng.randrange(3))) for _ in range(2)]
        self.log.extend(child.result() for child in children)

    async def times_out(self) -> None:
        try:
            async with asyncio.timeout(0):
                await asyncio.get_running_loop().create_future()
        except TimeoutError:
            self.log.append("timeout")

    async def is_cancelled(self) -> None:
        """Wait until somebody comes and cancels; give in, or not."""
        gives_in = self.rng.random() < 0.3
        assert self.task is not None
        self.crowd.to_cancel.append(self.task)
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            self.log.append("cancelled")
            if gives_in:
                raise
            self.task.uncancel()

    async def cancels_itself(self) -> None:
        assert self.task is not None
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
        self.log.append(self.task.uncancel())

    async def fails(self) -> None:
        if self.rng.random() < 0.5:
            raise ZeroDivisionError(self.number)


STEPS = [name for name, step in vars(Script).items() if asyncio.iscoroutinefunction(step) and name != "run"]


class Crowd:
    """Many calls that run at the same time."""

    def __init__(self, seed: int, count: int) -> None:
        self.seed = seed
        self.var: contextvars.ContextVar[Any] = contextvars.ContextVar("var", default="nobody's")
        self.futures: list[asyncio.Future[int]] = [asyncio.get_running_loop().create_future() for _ in range(30)]
        self.owners: dict[Any, Script] = {}
        self.to_cancel: list[asyncio.Task[Any]] = []
        self.scripts = [Script(self, number) for number in range(count)]

    async def run(self, world: Tasks) -> list[Any]:
        """Start all of them, a few in each turn. What each came to, and its log."""
        rng = random.Random(self.seed)
        await world.ready()
        left = list(reversed(self.scripts))
        unset = list(self.futures)
        running = list[Running]()
        async with asyncio.timeout(PATIENCE_S):
            while left or not all(one.outcome.done() for one in running):
                for _ in range(min(rng.randrange(6), len(left))):
                    script = left.pop()
                    running.append(world.start(f"call {script.number}", script.run))
                if unset and rng.random() < 0.2:
                    unset.pop().set_result(len(unset))
                while self.to_cancel:
                    self.to_cancel.pop().cancel()
                await asyncio.sleep(0)
        assert not self.owners
        return [(one.outcome.result(), script.log) for one, script in zip(running, self.scripts, strict=True)]


@pytest.mark.parametrize("seed", range(4))
def test_a_thousand_calls_at_once_come_to_what_a_thousand_tasks_come_to(run: Any, seed: int) -> None:
    async def scenario() -> None:
        steps = Steps()
        expected = await Crowd(seed, 1_000).run(Tasks())
        assert await Crowd(seed, 1_000).run(steps) == expected
        assert steps.at_once > 300, "many of them found a task that stood by"
        kinds = {outcome[:2] for outcome, _ in expected if outcome[0] == "error"}
        assert kinds == {("error", ZeroDivisionError), ("error", asyncio.CancelledError)}

    run(scenario())
