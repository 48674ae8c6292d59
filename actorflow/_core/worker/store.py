"""The client of the node's arena: values too large for messages are written into an extent, and read as views of it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from actorflow._core.base.errors import ObjectLostError, ObjectStoreFullError
from actorflow._core.protocol.messages import Allocate, Allocated, FreeExtent, Pin, Pinned, Stored, Unpin
from actorflow._core.serialization.values import Pickled
from actorflow._core.worker.wakers import FutureWaiter

if TYPE_CHECKING:
    from actorflow._core.io.peers import Peer
    from actorflow._core.io.ports import Arena
    from actorflow._core.worker.core import Core


class Gone(Allocated, tag=0):
    """Stands for the answer of a node that is gone; never sent."""

    ok: bool = False


ALIGN = 64
"""Buffers start at multiples of this inside an extent: a cache line, and what vector code likes."""


def layout(pickled: Pickled) -> tuple[int, list[tuple[int, int]]]:
    """Where the pickle (first) and its buffers go in an extent: (size, [(start, length), ...])."""
    spans: list[tuple[int, int]] = []
    at = 0
    for length in [len(pickled.data), *map(len, pickled.buffers or ())]:
        spans.append((at, length))
        at += (length + ALIGN - 1) // ALIGN * ALIGN
    return max(at, 1), spans


class StoreClient:
    """One process's way to the arena."""

    def __init__(self, core: Core, arena: Arena | None) -> None:
        self._core = core
        self.arena = arena
        self._token = 0
        self._waiting: dict[int, Callable[[Any], None]] = {}
        self.unpinned: deque[int] = deque()

    # -- writing

    def write(self, pickled: Pickled, then: Callable[[Stored | Exception], None]) -> None:
        """Put a pickle into the arena; `then` gets where it is, or the error, under the lock. Any thread, under the lock."""
        size, _ = layout(pickled)

        def allocated(message: Allocated) -> None:
            # The copy may take long: not under the lock, and not in the middle of a batch of messages.
            self._core.ports.loop.call_soon(self._fill_then, message, pickled, then)

        self.allocate(size, allocated)

    def allocate(self, size: int, then: Callable[[Allocated], None]) -> None:
        """Ask the node for an extent."""
        if self.arena is None:
            then(Allocated(0, error="this process has no shared memory: values over 100 KiB need the node's object store"))
            return
        self._token += 1
        self._waiting[self._token] = then
        self._core.node.send(Allocate(self._token, size))

    def _fill_then(self, message: Allocated, pickled: Pickled, then: Callable[[Stored | Exception], None]) -> None:
        result = ObjectStoreFullError(message.error) if message.error else self.fill(message, pickled)
        with self._core.batch():
            then(result)

    def fill(self, message: Allocated, pickled: Pickled) -> Stored:
        """Copy a pickle into the extent that was allocated for it."""
        assert self.arena is not None
        size, spans = layout(pickled)
        view = self.arena.view(message.offset, size, writable=True)
        for (start, length), part in zip(spans, [pickled.data, *(pickled.buffers or ())], strict=True):
            view[start : start + length] = part
        refs = self._core.references.groups([ref._entry for ref in pickled.refs]) if pickled.refs else None
        return Stored(self._core.node_id, message.extent, message.offset, size, b"", spans, refs)

    def free(self, stored: Stored) -> None:
        """Its owner has no use for it any more."""
        self._core.node.send(FreeExtent(stored.extent))

    # -- reading

    async def read(self, stored: Stored) -> tuple[bytes | memoryview, list[memoryview]]:
        """Map and pin an object: (pickle, buffers). The pin goes with the last view. Raises ObjectLostError."""
        core = self._core
        with core.lock:
            waiter = FutureWaiter(core.gates.current())
            self._token += 1
            answer: list[Any] = []

            def pinned(message: Any) -> None:
                answer.append(message)
                waiter.settled(message)

            token = self._token
            self._waiting[token] = pinned
            core.node.send(Pin(token, stored.extent))
            core.flush_now(core.node)
        try:
            await waiter.future
        except asyncio.CancelledError:
            with core.lock:
                self._unpin_when_pinned(token, stored.extent, answer)
            raise
        if not answer or not answer[0].ok or self.arena is None:
            raise ObjectLostError(f"an object of {stored.size} bytes is not in the object store of node {stored.node} any more")
        view = self.arena.view(stored.offset, stored.size)
        extent, unpinned = stored.extent, self.unpinned
        self.arena.watch(view, lambda: unpinned.append(extent))
        parts = [view[start : start + length] for start, length in stored.spans]
        return parts[0], parts[1:]

    def _unpin_when_pinned(self, token: int, extent: int, answer: list[Any]) -> None:
        """Nobody waits for this pin any more, but the node may have counted it. Under the lock."""

        def unpin(message: Any) -> None:
            if message.ok:
                self.unpinned.append(extent)

        if answer:
            unpin(answer[0])
        else:
            self._waiting[token] = unpin

    def drain(self) -> None:
        """Tell the node about views that are gone."""
        while self.unpinned:
            self._core.node.send(Unpin(self.unpinned.popleft()))

    def on_allocated(self, peer: Peer, message: Allocated) -> None:
        """The node's answer."""
        self._waiting.pop(message.token)(message)

    def on_pinned(self, peer: Peer, message: Pinned) -> None:
        """The node's answer."""
        self._waiting.pop(message.token)(message)

    def fail_all(self, reason: str) -> None:
        """The node is gone: no answer will come."""
        waiting, self._waiting = self._waiting, {}
        for then in waiting.values():
            then(Gone(0, error=reason))
