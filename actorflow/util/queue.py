"""Queue: a first-in first-out queue that tasks and actors of any process share. An actor holds it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Generic, TypeVar

from actorflow._actor import Actor
from actorflow.options import ActorKeywords

T = TypeVar("T")

WAITING_MAX = 1_000_000
"""Calls that may wait in one queue: so many that waiting getters never keep a putter out."""


class _Holder(Actor, num_cpus=0, max_concurrency=WAITING_MAX):
    """The actor of one queue. What cannot be done is a return value here, and an exception in the caller."""

    def __init__(self, maxsize: int) -> None:
        self._queue: asyncio.Queue[Any] = asyncio.Queue(maxsize)

    async def put(self, item: Any, timeout: float | None) -> bool:
        """False when there was no room in time."""
        try:
            async with asyncio.timeout(timeout):
                await self._queue.put(item)
        except TimeoutError:
            return False
        return True

    async def put_nowait(self, items: list[Any]) -> bool:
        """All, or none and False."""
        queue = self._queue
        if 0 < queue.maxsize < queue.qsize() + len(items):
            return False
        for item in items:
            queue.put_nowait(item)
        return True

    async def get(self, timeout: float | None) -> list[Any]:
        """One item, or none when there was none in time."""
        try:
            async with asyncio.timeout(timeout):
                return [await self._queue.get()]
        except TimeoutError:
            return []

    async def get_nowait(self, count: int) -> list[Any]:
        """`count` items, or none."""
        queue = self._queue
        return [queue.get_nowait() for _ in range(count)] if queue.qsize() >= count else []

    async def qsize(self) -> int:
        """How many items there are."""
        return self._queue.qsize()


class Queue(Generic[T]):
    """A queue between processes: `await queue.put(item)` here, `await queue.get()` anywhere.

    It may be an argument of any call. `maxsize=0` is a queue without a bound. Every method is awaited; what
    would have to wait and must not raises asyncio.QueueFull or asyncio.QueueEmpty. The queue lives as long as
    somebody has it, or until `shutdown`; `actor_options` are those of the actor that holds it, as its name.
    """

    def __init__(self, maxsize: int = 0, *, actor_options: ActorKeywords | None = None) -> None:
        if isinstance(maxsize, bool) or not isinstance(maxsize, int):
            raise TypeError(f"Queue: maxsize={maxsize!r} must be a whole number; 0 means no bound")
        self.maxsize = maxsize
        self._holder = _Holder.options(**(actor_options or {})).remote(maxsize)

    async def put(self, item: T, *, timeout: float | None = None) -> None:
        """Add an item, waiting for room. After `timeout` seconds without room: asyncio.QueueFull."""
        if not await self._holder.put(item, timeout):
            raise asyncio.QueueFull(
                f"no room for one more item within {timeout:g} s (maxsize={self.maxsize})"
            )

    async def put_nowait(self, item: T) -> None:
        """Add an item, or raise asyncio.QueueFull."""
        await self.put_nowait_batch([item])

    async def put_nowait_batch(self, items: Iterable[T]) -> None:
        """Add all of the items, or none and raise asyncio.QueueFull."""
        batch = list(items)
        if not await self._holder.put_nowait(batch):
            raise asyncio.QueueFull(f"no room for {len(batch)} more items (maxsize={self.maxsize})")

    async def get(self, *, timeout: float | None = None) -> T:
        """Take the oldest item, waiting for one. After `timeout` seconds without one: asyncio.QueueEmpty."""
        found: list[T] = await self._holder.get(timeout)
        if not found:
            raise asyncio.QueueEmpty(f"no item came within {timeout:g} s")
        return found[0]

    async def get_nowait(self) -> T:
        """Take the oldest item, or raise asyncio.QueueEmpty."""
        return (await self.get_nowait_batch(1))[0]

    async def get_nowait_batch(self, count: int) -> list[T]:
        """Take exactly `count` items, or none and raise asyncio.QueueEmpty."""
        if count < 1:
            raise ValueError(f"Queue.get_nowait_batch({count}): 1 or more items can be taken")
        found: list[T] = await self._holder.get_nowait(count)
        if not found:
            raise asyncio.QueueEmpty(f"there are fewer than {count} items")
        return found

    async def qsize(self) -> int:
        """How many items there are."""
        return await self._holder.qsize()

    async def empty(self) -> bool:
        """True when there is no item."""
        return await self.qsize() == 0

    async def full(self) -> bool:
        """True when there is no room."""
        return 0 < self.maxsize <= await self.qsize()

    async def shutdown(self, *, force: bool = False) -> None:
        """End the queue: after the calls under way, or with `force` now. Later calls raise ActorDiedError."""
        from actorflow._api import kill

        await kill(self._holder, graceful=not force)
