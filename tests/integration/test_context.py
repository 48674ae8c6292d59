"""`af.context` on its way: with every kind of call, on through nested ones, and never into another call (SEMANTICS 8)."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import actorflow as af

pytestmark = pytest.mark.usefixtures("cluster")
ON_ONE_NODE = "calls that take all 4 CPUs make others wait"

Values = dict[str, str]
PLAIN: contextvars.ContextVar[str] = contextvars.ContextVar("plain", default="unset")


def here() -> Values:
    return dict(af.context.current())


@af.remote
def seen() -> Values:
    return here()


@af.remote
async def seen_async() -> Values:
    await asyncio.sleep(0)
    return here()


def read_plain() -> str:
    return PLAIN.get()  # A remote function takes along the globals it uses, and a variable cannot be pickled: this one travels by name.


@af.remote
def items(n: int) -> Iterator[Values]:
    for _ in range(n):
        yield here()


@af.remote
async def items_async(n: int) -> AsyncIterator[Values]:
    for _ in range(n):
        await asyncio.sleep(0)
        yield here()


class Sync(af.Actor):
    def __init__(self) -> None:
        self.at_construction = here()

    def seen(self) -> Values:
        return here()

    def constructed(self) -> Values:
        return self.at_construction

    def items(self, n: int) -> Iterator[Values]:
        for _ in range(n):
            yield here()


class Async(af.Actor):
    """Its calls meet: each reads its context before, while and after others of another context run."""

    def __init__(self) -> None:
        self.at_construction = here()
        self.arrived = 0
        self.all_here = asyncio.Event()

    async def constructed(self) -> Values:
        return self.at_construction

    async def meet(self, n: int) -> list[Values]:
        found = [here()]
        self.arrived += 1
        if self.arrived == n:
            self.all_here.set()
        await self.all_here.wait()
        found.append(here())
        found.append(await seen())
        return [*found, here()]

    async def seen(self) -> Values:
        return here()

    def seen_in_def(self) -> Values:
        return here()

    async def ask(self, handle: Any) -> list[Values]:
        return [here(), await handle.seen(), await seen.remote()]


# With every kind of call ------------------------------------------------------------------------------------


async def test_8_tasks_in_every_form_of_a_call() -> None:
    with af.context(tenant="a", request_id="7"):
        ref = seen.remote()
        assert await seen() == {"tenant": "a", "request_id": "7"}
        assert await seen_async() == await (await seen.submit()) == {"tenant": "a", "request_id": "7"}
        with af.context(tenant="b"):
            assert await af.get([seen.remote(), seen_async.remote()]) == [{"tenant": "b", "request_id": "7"}] * 2
        async with af.TaskGroup() as group:
            submitted = group.submit(seen)
            created = group.create_task(seen_async())
        assert await submitted == created.result() == {"tenant": "a", "request_id": "7"}
        assert [values async for values in af.map(af.remote(lambda _: here()), range(3))] == [here()] * 3
    assert await ref == {"tenant": "a", "request_id": "7"}
    assert await seen() == await seen_async() == {}


def test_8_calls_of_blocking_code() -> None:
    with af.context(tenant="a"):
        assert af.sync(seen()) == af.sync(seen.remote()) == {"tenant": "a"}
        assert list(items.remote(2)) == [{"tenant": "a"}] * 2


async def test_8_it_is_taken_when_the_call_is_made_and_not_when_it_is_sent() -> None:
    @af.remote
    async def first() -> str:
        await asyncio.sleep(0.1)
        return "x"

    class Late(af.Actor):
        def __init__(self, needs: str) -> None:
            self.at_construction = here()

        def constructed(self) -> Values:
            return self.at_construction

    @af.remote
    def after(needs: str) -> Values:
        return here()

    with af.context(tenant="a"):
        needs = first.remote()
        waits, late = after.remote(needs), Late.remote(af.deref(needs))
    with af.context(tenant="b"):
        assert await waits == await late.constructed() == {"tenant": "a"}


@pytest.mark.parametrize("large", [0, 1_000_000])
async def test_8_it_goes_with_arguments_of_every_kind(large: int) -> None:
    @af.remote(num_returns=2)
    def take(data: bytes, refs: list[Any]) -> tuple[int, Values]:
        return len(data), here()

    with af.context(tenant="a"):
        size, values = take.options(timeout=30).remote(b"x" * large, [seen.remote()])
        assert (await size, await values) == (large, {"tenant": "a"})


async def test_8_sync_actors_and_their_construction() -> None:
    with af.context(tenant="maker"):
        actor = Sync.remote()
    with af.context(tenant="caller"):
        assert await actor.seen() == await actor.seen.remote() == {"tenant": "caller"}
        assert await actor.constructed() == {"tenant": "maker"}
    assert await actor.seen() == {}


async def test_8_concurrent_calls_of_an_async_actor_have_their_own() -> None:
    with af.context(tenant="maker"):
        actor = Async.remote()

    async def call(tenant: str) -> list[Values]:
        with af.context(tenant=tenant):
            return await actor.meet(10)

    tenants = [str(n) for n in range(9)]
    *found, plain = await asyncio.gather(*map(call, tenants), actor.meet(10))
    assert found == [[{"tenant": tenant}] * 4 for tenant in tenants]
    assert plain == [{}] * 4
    assert await actor.seen() == await actor.seen_in_def() == {}
    assert await actor.constructed() == {"tenant": "maker"}


async def test_8_threads_of_an_actor_have_their_own() -> None:
    class Threaded(af.Actor, max_concurrency=3):
        def __init__(self) -> None:
            self.barrier = threading.Barrier(3)

        def meet(self) -> list[Values]:
            found = [here()]
            self.barrier.wait(10)
            return [*found, here(), af.sync(seen())]

    threaded = Threaded.remote()

    async def call(**values: str) -> list[Values]:
        with af.context(**values):
            return await threaded.meet()

    for _ in range(2):  # The threads are the same ones in the second round.
        assert await asyncio.gather(call(), call(tenant="a"), call(tenant="b")) == [
            [{}] * 3, [{"tenant": "a"}] * 3, [{"tenant": "b"}] * 3,
        ]  # fmt: skip


@pytest.mark.parametrize("generator", [items, items_async])
async def test_8_streams(generator: Any) -> None:
    with af.context(tenant="a"):
        stream = generator.remote(3)
        direct = generator(2)
    assert [values async for values in stream] == [{"tenant": "a"}] * 3
    assert [values async for values in direct] == [{"tenant": "a"}] * 2
    assert [values async for values in generator(2)] == [{}] * 2


async def test_8_streams_of_actors() -> None:
    actor = Sync.remote()
    with af.context(tenant="a"):
        stream = actor.items.remote(2)
    assert [values async for values in stream] == [{"tenant": "a"}] * 2
    assert [values async for values in actor.items(1)] == [{}]


async def test_8_the_constructor_has_it_again_after_a_restart() -> None:
    class Fragile(af.Actor, max_restarts=1):
        def __init__(self) -> None:
            self.at_construction = here()

        def constructed(self) -> Values:
            return self.at_construction

    with af.context(tenant="maker"):
        fragile = await Fragile.remote()
    with af.context(tenant="killer"):
        await af.kill(fragile, no_restart=False)
    while True:
        try:
            assert await fragile.constructed() == {"tenant": "maker"}
            return
        except af.ActorUnavailableError:
            continue


# On through nested calls ------------------------------------------------------------------------------------


async def test_8_nested_calls_take_it_on_and_may_add_to_it() -> None:
    @af.remote
    def outer_def() -> list[Values]:
        with af.context(step="2"):
            inner = af.sync(seen())
        return [here(), inner, af.sync(seen.remote()), *af.sync(items.remote(1))]

    @af.remote
    async def outer(actor: Any) -> list[Any]:
        made = Async.remote()
        with af.context(tenant="b"):
            changed = await made.ask(actor)
        return [await outer_def(), await made.constructed(), changed]

    actor = Async.remote()
    one, two = {"tenant": "a", "step": "1"}, {"tenant": "a", "step": "2"}
    with af.context(**one):
        assert await outer(actor) == [[one, two, one, one], one, [{"tenant": "b", "step": "1"}] * 3]
    assert await outer(actor) == [[{}, {"step": "2"}, {}, {}], {}, [{"tenant": "b"}] * 3]


# And nowhere else -------------------------------------------------------------------------------------------


async def test_8_calls_on_one_thread_of_a_worker_do_not_see_that_of_others() -> None:
    @af.remote(num_cpus=4)
    def leave_open() -> Values:
        found = here()
        af.context(left="open").__enter__()
        return found

    @af.remote(num_cpus=4)
    async def leave_open_async() -> Values:
        found = here()
        af.context(left="open").__enter__()
        return found

    refs = []
    for n in range(100):
        function = (leave_open, leave_open_async)[n % 2]
        if n % 3:
            with af.context(n=str(n)):
                refs.append(function.remote())
        else:
            refs.append(function.remote())
    assert await af.get(refs) == [{"n": str(n)} if n % 3 else {} for n in range(100)]


async def test_8_contextvars_do_not_travel() -> None:
    PLAIN.set("changed")
    assert await af.remote(lambda: read_plain())() == "unset"


# Trace context ----------------------------------------------------------------------------------------------


async def test_8_the_span_that_is_current_at_submission_goes_along(monkeypatch: pytest.MonkeyPatch) -> None:
    span = SimpleNamespace(
        is_valid=True, trace_id=1, span_id=2, trace_flags=1, trace_state=SimpleNamespace(to_header=lambda: "vendor=1")
    )
    api: Any = ModuleType("opentelemetry.trace")
    api.get_current_span = lambda: SimpleNamespace(get_span_context=lambda: span)
    headers = {"traceparent": f"00-{1:032x}-{2:016x}-01", "tracestate": "vendor=1"}
    with monkeypatch.context() as patch, af.context(tenant="a"):
        patch.setitem(sys.modules, "opentelemetry.trace", api)
        ref, actor = seen.remote(), Async.remote()
    # Far away there is no such module: what came with the call goes on.
    assert await ref == await actor.constructed() == {"tenant": "a", **headers}
    with af.context(**headers):
        assert await Async.remote().ask(actor) == [headers] * 3
