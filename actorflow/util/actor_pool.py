"""ActorPool: work shared among actors, each of which has one piece at a time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable
from typing import Any, Generic, TypeVar

from actorflow._core.base.errors import GetTimeoutError

A = TypeVar("A")
T = TypeVar("T")
V = TypeVar("V")

PIECES_PER_ACTOR = 2
"""How far `map` takes values ahead: enough that no actor waits for the next one."""


class ActorPool(Generic[A]):
    """Some actors that take pieces of work in turn; a piece waits until one of them is free.

    What to do with a piece is a function of an actor and a value that gives an awaitable:
    `pool.map(lambda actor, v: actor.double(v), values)`; `actor.double.remote(v)` does as well. A piece that
    fails raises its error where its result is asked for, and its actor goes on. A pool belongs to the event
    loop it is used on.
    """

    def __init__(self, actors: Iterable[A]) -> None:
        self._free: asyncio.Queue[A] = asyncio.Queue()
        self._actors = 0
        self._busy = 0
        """Pieces that have an actor or wait for one."""
        self._results: deque[asyncio.Task[Any]] = deque()
        """Pieces whose result has not been taken, in the order of submission."""
        for actor in actors:
            self.push(actor)

    # -- pieces

    def submit(self, fn: Callable[[A, V], Awaitable[Any]], value: V) -> None:
        """Start `fn(actor, value)` on a free actor, or as soon as one is free. Needs a running loop."""
        self._results.append(self._start(fn, value))

    def _start(self, fn: Callable[[A, V], Awaitable[T]], value: V) -> asyncio.Task[T]:
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._run(fn, value), name="af.util.ActorPool")
        self._busy += 1
        task.add_done_callback(self._ended)
        return task

    async def _run(self, fn: Callable[[A, V], Awaitable[T]], value: V) -> T:
        actor = await self._free.get()
        try:
            return await fn(actor, value)
        finally:
            self._free.put_nowait(actor)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._busy -= 1

    def has_next(self) -> bool:
        """True when there is a result, or will be one, that has not been taken."""
        return bool(self._results)

    async def get_next(self, timeout: float | None = None) -> Any:
        """The result of the oldest piece, or its error. Raises LookupError when there is no piece left.

        `timeout` in seconds only stops waiting, with GetTimeoutError: ask again.
        """
        return await self._take(list(self._results)[:1], timeout)

    async def get_next_unordered(self, timeout: float | None = None) -> Any:
        """As `get_next`, with the result of the piece that is done first."""
        return await self._take(list(self._results), timeout)

    async def _take(self, candidates: list[asyncio.Task[Any]], timeout_s: float | None) -> Any:
        if not candidates:
            raise LookupError("the pool has no results left: submit something first, or ask has_next()")
        done, _ = await asyncio.wait(candidates, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            raise GetTimeoutError(
                f"no result of the pool was there after {timeout_s:g} s. The work goes on: ask again",
                timeout_s=timeout_s,
            )
        first = next(task for task in candidates if task in done)
        self._results.remove(first)
        return first.result()

    def map(
        self, fn: Callable[[A, V], Awaitable[T]], values: Iterable[V] | AsyncIterable[V]
    ) -> AsyncGenerator[T, None]:
        """The results for each value, in the order of the values: `async for result in pool.map(fn, values)`.

        Values are taken as actors become free, so they may be endless. Leaving the loop cancels what runs.
        """
        return self._map(fn, values, asyncio.ALL_COMPLETED)

    def map_unordered(
        self, fn: Callable[[A, V], Awaitable[T]], values: Iterable[V] | AsyncIterable[V]
    ) -> AsyncGenerator[T, None]:
        """As `map`, with the results as they are done."""
        return self._map(fn, values, asyncio.FIRST_COMPLETED)

    async def _map(
        self, fn: Callable[[A, V], Awaitable[T]], values: Iterable[V] | AsyncIterable[V], order: str
    ) -> AsyncGenerator[T, None]:
        running: deque[asyncio.Task[T]] = deque()
        try:
            async for value in _each(values):
                running.append(self._start(fn, value))
                while len(running) >= max(self._actors, 1) * PIECES_PER_ACTOR:
                    yield await _pop(running, order)
            while running:
                yield await _pop(running, order)
        finally:
            for task in running:
                task.cancel()

    # -- actors

    def has_free(self) -> bool:
        """True when an actor is free and no piece waits for it."""
        return self._busy < self._actors

    def push(self, actor: A) -> None:
        """Add an actor."""
        self._actors += 1
        self._free.put_nowait(actor)

    def pop_idle(self) -> A | None:
        """Take a free actor out of the pool and return it; None when all are busy."""
        if not self.has_free():
            return None
        self._actors -= 1
        return self._free.get_nowait()


async def _each(values: Iterable[V] | AsyncIterable[V]) -> AsyncGenerator[V, None]:
    if isinstance(values, AsyncIterable):
        async for value in values:
            yield value
    else:
        for value in values:
            yield value


async def _pop(running: deque[asyncio.Task[T]], order: str) -> T:
    """The result of the oldest task, or of the first that is done."""
    if order == asyncio.FIRST_COMPLETED:
        done, _ = await asyncio.wait(running, return_when=order)
        first = next(task for task in running if task in done)
        running.remove(first)
        return first.result()
    await asyncio.wait([running[0]])
    return running.popleft().result()
