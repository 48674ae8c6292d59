"""TaskGroup outlives its calls; map bounds them. Everything here runs on a loop with a fake runtime."""

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import actorflow as af
from actorflow import _runtime
from tests.unit.fake_runtime import FakeRef, FakeRuntime


@pytest.fixture
def runtime() -> Iterator[FakeRuntime]:
    fake = FakeRuntime()
    _runtime.set_process_runtime(fake)
    yield fake
    _runtime.set_process_runtime(None)


@af.remote
def square(x: int) -> int:
    return x * x


@af.remote(num_returns=2)
def pair(x: int) -> tuple[int, int]:
    return x, -x


@af.remote
def count(n: int) -> Iterator[int]:
    yield from range(n)


@af.remote
def picky(x: int) -> int:
    if x == 2:
        raise ValueError(f"not {x}")
    return x


async def turns(number: int = 5) -> None:
    """Let the loop go round."""
    for _ in range(number):
        await asyncio.sleep(0)


# TaskGroup --------------------------------------------------------------------------------------------------


async def test_a_group_gives_references_and_waits_for_all(runtime: FakeRuntime) -> None:
    async with af.TaskGroup() as tg:
        refs = [tg.submit(square, n) for n in range(3)]
        two: Any = tg.submit(pair, 3)
        assert [sent.what for sent in runtime.sent] == ["submit"] * 4
        assert not any(ref.done() for ref in refs)
    assert all(ref.done() for ref in runtime.refs)
    assert [await ref for ref in [*refs, *two]] == [0, 1, 4, 3, -3]


async def test_a_group_leaves_when_each_call_is_terminal(runtime: FakeRuntime) -> None:
    """SEMANTICS 4."""
    runtime.hold = True
    left = asyncio.Event()

    async def program() -> None:
        async with af.TaskGroup() as tg:
            tg.submit(square, 1)
            tg.submit(square, 2)
        left.set()

    task = asyncio.create_task(program())
    await turns()
    runtime.refs[0].settle(1)
    await turns()
    assert not left.is_set()
    runtime.refs[1].settle(4)
    await task


async def test_the_first_failure_cancels_the_others(runtime: FakeRuntime) -> None:
    """SEMANTICS 4: and the group waits until they have ended."""
    runtime.hold, runtime.cancel_takes = True, 7

    async def program() -> None:
        async with af.TaskGroup() as tg:
            for n in range(3):
                tg.submit(square, n)
            await turns()
            runtime.refs[1].settle(ValueError("one"))
            await asyncio.sleep(60)

    with pytest.raises(ExceptionGroup) as caught:
        await program()
    assert [str(error) for error in caught.value.exceptions] == ["one"]
    assert [ref.cancels for ref in runtime.refs] == [1, 0, 1]
    assert all(ref.done() for ref in runtime.refs)


async def test_an_error_in_the_block_cancels_all(runtime: FakeRuntime) -> None:
    runtime.hold, runtime.cancel_takes = True, 3

    async def program() -> None:
        async with af.TaskGroup() as tg:
            tg.submit(square, 1)  # its task has not run when the block fails
            raise KeyError("mine")

    with pytest.raises(ExceptionGroup) as caught:
        await program()
    assert [type(error) for error in caught.value.exceptions] == [KeyError]
    assert [(ref.cancels > 0, ref.done()) for ref in runtime.refs] == [(True, True)]


async def test_cancelling_the_block_cancels_all_and_waits(runtime: FakeRuntime) -> None:
    runtime.hold, runtime.cancel_takes = True, 10

    async def program() -> None:
        async with af.TaskGroup() as tg:
            tg.submit(square, 1)
            await asyncio.sleep(60)

    task = asyncio.create_task(program())
    await turns()
    task.cancel()
    await turns(4)
    assert runtime.refs[0].cancels == 1
    assert not task.done()
    task.cancel()  # patience: the wait goes on
    await turns(3)
    assert not task.done()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert runtime.refs[0].done()


async def test_what_fails_while_it_is_cancelled_is_reported(runtime: FakeRuntime) -> None:
    runtime.hold, runtime.cancel_takes = True, 5

    async def program() -> None:
        async with af.TaskGroup() as tg:
            tg.submit(square, 1)
            tg.submit(square, 2)
            await turns()
            runtime.refs[1].ends_in = af.CancelIgnored("it did not listen")
            runtime.refs[0].settle(ValueError("first"))

    with pytest.raises(ExceptionGroup) as caught:
        await program()
    assert sorted(str(error) for error in caught.value.exceptions) == ["first", "it did not listen"]


async def test_a_call_that_is_cancelled_by_hand_is_no_failure(runtime: FakeRuntime) -> None:
    """SEMANTICS 3."""
    runtime.hold = True
    async with af.TaskGroup() as tg:
        one, two = tg.submit(square, 1), tg.submit(square, 2)
        await turns()
        one.cancel()
        await turns()
        runtime.refs[1].settle(4)
    with pytest.raises(af.TaskCancelledError):
        await one
    assert await two == 4


async def test_ordinary_tasks_belong_to_the_group_too(runtime: FakeRuntime) -> None:
    async with af.TaskGroup() as tg:
        task = tg.create_task(square(3))
    assert task.result() == 9


async def test_streams_are_closed_at_the_end(runtime: FakeRuntime) -> None:
    async with af.TaskGroup() as tg:
        stream: Any = tg.submit(count, 3)
        assert not stream.closed
    assert stream.closed


async def test_a_group_waits_for_direct_calls_that_were_cancelled(runtime: FakeRuntime) -> None:
    """SEMANTICS 4: what the runtime leaves in `cancelled_calls` is terminal when the group is left."""
    ref = FakeRef(cancel_takes=4)
    async with af.TaskGroup() as tg:
        inside = _runtime.cancelled_calls.get()
        assert inside is not None
        inside.append(ref)
        ref.cancel()
        async with af.TaskGroup():
            assert _runtime.cancelled_calls.get() is not inside
        assert _runtime.cancelled_calls.get() is inside
        tg.create_task(turns())
    assert ref.done()
    assert _runtime.cancelled_calls.get() is None


async def test_wrong_use_of_a_group(runtime: FakeRuntime) -> None:
    wrong: Any
    async with af.TaskGroup() as tg:
        wrong = tg
        with pytest.raises(TypeError, match=r"decorate it with @af\.remote"):
            wrong.submit(turns)
        with pytest.raises(TypeError, match="and its arguments after it"):
            wrong.submit(3)
        with pytest.raises(TypeError, match=r"square\(\) missing 1 required positional argument"):
            wrong.submit(square)
    assert runtime.sent == []
    with pytest.raises(RuntimeError):
        wrong.submit(square, 3)
    assert runtime.sent == []


# map --------------------------------------------------------------------------------------------------------


async def numbers(n: int) -> AsyncIterator[int]:
    for value in range(n):
        await asyncio.sleep(0)
        yield value


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("make_items", [range, lambda n: iter(range(n)), numbers])
async def test_map_gives_every_result(runtime: FakeRuntime, make_items: Any, ordered: bool) -> None:
    results = [value async for value in af.map(square, make_items(10), max_in_flight=3, ordered=ordered)]
    assert (results if ordered else sorted(results)) == [n * n for n in range(10)]


async def test_map_over_nothing_and_over_methods(runtime: FakeRuntime) -> None:
    class Doubler(af.Actor):
        @af.method
        async def double(self, x: int) -> int:
            return 2 * x

    assert [value async for value in af.map(square, [])] == []
    assert [value async for value in af.map(Doubler.remote().double, [1, 2])] == [2, 4]


async def test_map_bounds_what_is_in_flight(runtime: FakeRuntime) -> None:
    runtime.hold = True
    taken: list[int] = []

    def endless() -> Iterator[int]:
        n = 0
        while True:
            taken.append(n)
            yield n
            n += 1

    results = af.map(square, endless(), max_in_flight=3)
    first = asyncio.ensure_future(anext(results))
    await turns()
    assert (taken, len(runtime.refs)) == ([0, 1, 2], 3)
    runtime.refs[2].settle("c")
    await turns()
    assert len(runtime.refs) == 3  # done, but not handed out
    runtime.refs[0].settle("a")
    assert await first == "a"
    await turns()
    assert (taken, len(runtime.refs)) == ([0, 1, 2, 3], 4)
    await results.aclose()


async def test_unordered_results_come_as_they_are_done(runtime: FakeRuntime) -> None:
    runtime.hold = True
    results = af.map(square, range(3), ordered=False)
    first = asyncio.ensure_future(anext(results))
    await turns()
    runtime.refs[2].settle("c")
    assert await first == "c"
    runtime.refs[0].settle("a")
    assert await anext(results) == "a"
    runtime.refs[1].settle("b")
    assert [value async for value in results] == ["b"]


async def test_results_of_a_slow_source_do_not_wait_for_it(runtime: FakeRuntime) -> None:
    more = asyncio.Event()

    async def slow() -> AsyncIterator[int]:
        yield 3
        await more.wait()
        yield 4

    results = af.map(square, slow())
    assert await anext(results) == 9
    more.set()
    assert [value async for value in results] == [16]


async def test_an_error_comes_in_its_place(runtime: FakeRuntime) -> None:
    results = af.map(picky, range(5))
    seen: list[Any] = []
    while True:
        try:
            seen.append(await anext(results))
        except ValueError as error:
            seen.append(str(error))
        except StopAsyncIteration:
            break
    assert seen == [0, 1, "not 2", 3, 4]


@pytest.mark.parametrize("ordered", [True, False])
async def test_an_error_of_the_items_comes_last(runtime: FakeRuntime, ordered: bool) -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("the file ends here")

    results = af.map(square, items(), ordered=ordered)
    first, second = await asyncio.gather(anext(results), anext(results), return_exceptions=True)
    if ordered:
        assert first == 1
    assert sorted(map(str, (first, second))) == ["1", "the file ends here"]
    with pytest.raises(StopAsyncIteration):
        await anext(results)


async def test_a_wrong_item_is_refused_in_its_place(runtime: FakeRuntime) -> None:
    wrong: Any = af.remote(lambda: 1)
    with pytest.raises(TypeError, match="takes 0 positional arguments but 1 was given"):
        async for _ in af.map(wrong, [1]):
            pass


async def test_leaving_the_loop_cancels_what_is_in_flight(runtime: FakeRuntime) -> None:
    runtime.hold = True
    gc.disable()
    settling = asyncio.ensure_future(settle_first(runtime))
    try:
        async for _ in af.map(square, range(100), max_in_flight=3):
            break
        await turns()
    finally:
        gc.enable()
    assert settling.done()
    assert len(runtime.refs) in (3, 4)
    assert [ref.cancels for ref in runtime.refs] == [0, 1, 1, 1][: len(runtime.refs)]


async def settle_first(runtime: FakeRuntime) -> None:
    await turns()
    runtime.refs[0].settle(0)


async def test_an_error_in_the_loop_cancels_what_is_in_flight(runtime: FakeRuntime) -> None:
    runtime.hold = True
    settling = asyncio.ensure_future(settle_first(runtime))

    async def program() -> None:
        async for _ in af.map(square, range(100), max_in_flight=3):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await program()
    await turns()
    assert settling.done()
    assert all(ref.cancels for ref in runtime.refs[1:])
    assert len(runtime.refs) <= 4


async def test_cancelling_the_wait_cancels_what_is_in_flight(runtime: FakeRuntime) -> None:
    runtime.hold = True
    results = af.map(square, range(100), max_in_flight=3)
    waiting = asyncio.ensure_future(anext(results))
    await turns()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await turns()
    assert [ref.cancels for ref in runtime.refs] == [1, 1, 1]
    with pytest.raises(StopAsyncIteration):
        await anext(results)


@pytest.mark.parametrize("ordered", [True, False])
async def test_aclose_waits_until_all_is_terminal(runtime: FakeRuntime, ordered: bool) -> None:
    runtime.hold, runtime.cancel_takes = True, 6
    async with af.map(square, range(100), max_in_flight=3, ordered=ordered) as results:
        waiting = asyncio.ensure_future(anext(results))
        await turns()
        runtime.refs[0].settle(0)
        await waiting
    assert [ref.cancels for ref in runtime.refs] == [0] + [1] * (len(runtime.refs) - 1)
    assert all(ref.done() for ref in runtime.refs)
    with pytest.raises(StopAsyncIteration):
        await anext(results)
    await results.aclose()


async def test_a_group_outlives_the_maps_inside(runtime: FakeRuntime) -> None:
    """SEMANTICS 4."""
    runtime.hold, runtime.cancel_takes = True, 6
    async with af.TaskGroup() as tg:
        tg.create_task(settle_first(runtime))
        async for _ in af.map(square, range(100), max_in_flight=3):
            break
    assert all(ref.done() for ref in runtime.refs)


async def test_map_waits_for_room(runtime: FakeRuntime) -> None:
    runtime.full = 3
    assert [value async for value in af.map(square, [2, 3])] == [4, 9]
    assert runtime.waits_for_room > 0


async def test_wrong_use_of_map(runtime: FakeRuntime) -> None:
    wrong: Any = af.map
    for given, text in [
        ((turns, [1]), "decorate it with @af.remote"),
        ((square, 3), "takes items to iterate over, not a int"),
    ]:
        with pytest.raises(TypeError, match=text):
            wrong(*given)
    with pytest.raises(ValueError, match="max_in_flight=0 would let no call start"):
        af.map(square, [1], max_in_flight=0)
    with pytest.raises(TypeError, match="must be a whole number"):
        wrong(square, [1], max_in_flight=1.5)
    for function in (count, pair):
        with pytest.raises(TypeError, match="calls with one result"):
            async for _ in wrong(function, [1]):
                pass
