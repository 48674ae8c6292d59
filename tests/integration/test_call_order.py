"""What the calls of one caller to one actor may count on: their order, and a context of their own (SEMANTICS 8, 20)."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any

import pytest

import actorflow as af

pytestmark = pytest.mark.usefixtures("cluster")


class Notes(af.Actor):
    """Notes in which order its calls start."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    async def quick(self, n: int, data: Any = b"") -> None:
        self.seen.append(n)

    async def slow(self, n: int, data: Any = b"") -> None:
        self.seen.append(n)
        await asyncio.sleep(0.001)

    def plain(self, n: int, data: Any = b"") -> None:
        self.seen.append(n)

    async def all(self) -> list[int]:
        return self.seen


async def test_20_def_and_async_methods_of_an_async_actor_start_in_the_order_of_submission() -> None:
    notes = await Notes.remote()
    methods = [notes.quick, notes.slow, notes.plain]
    await af.get([methods[n % 7 % 3].remote(n) for n in range(300)])
    assert await notes.all() == list(range(300))


async def test_20_calls_with_large_arguments_are_not_overtaken() -> None:
    notes = await Notes.remote()
    methods = [notes.quick, notes.plain, notes.slow]
    await af.get([methods[n % 3].remote(n, b"x" * (1_000_000 if n % 7 == 3 else 1)) for n in range(60)])
    assert await notes.all() == list(range(60))


async def test_20_a_call_whose_argument_lies_in_shared_memory_is_not_overtaken() -> None:
    notes = await Notes.remote()
    ref = await af.put(b"x" * 1_000_000)
    await af.get([(notes.quick.remote(n, ref) if n % 3 == 0 else notes.quick.remote(n)) for n in range(60)])
    assert await notes.all() == list(range(60))


async def test_20_more_calls_than_an_actor_may_run_at_once_start_in_order() -> None:
    notes = await Notes.remote()
    await af.get([(notes.slow if n % 2 else notes.quick).remote(n) for n in range(3_000)])
    assert await notes.all() == list(range(3_000))


VAR: ContextVar[str] = ContextVar("VAR", default="clean")


class AsyncSetter(af.Actor, max_concurrency=1):
    async def set(self, wait: bool) -> str:
        found = VAR.get()
        VAR.set("left over")
        if wait:
            await asyncio.sleep(0)
        return found


class Setter(af.Actor):
    def set(self, wait: bool) -> str:
        found = VAR.get()
        VAR.set("left over")
        return found


class ThreadedSetter(af.Actor, max_concurrency=3):
    def set(self, wait: bool) -> str:
        found = VAR.get()
        VAR.set("left over")
        return found


@pytest.mark.parametrize("kind", [AsyncSetter, Setter, ThreadedSetter])
async def test_8_what_a_call_sets_in_a_contextvar_no_later_call_sees(kind: Any) -> None:
    actor = await kind.remote()
    assert set(await af.get([actor.set.remote(n % 3 == 0) for n in range(100)])) == {"clean"}
