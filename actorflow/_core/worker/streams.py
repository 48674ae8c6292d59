"""The consumer's side of streams: items arrive with credit, values leave in order (SEMANTICS 12)."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Generic, TypeVar

from actorflow._core.policy.ownership import Owned
from actorflow._core.protocol.messages import StreamClose, StreamCredit
from actorflow._core.worker.object_ref import ObjectRef
from actorflow._core.worker.wakers import Waiter

if TYPE_CHECKING:
    from typing_extensions import Self

    from actorflow._core.worker.calls import Call
    from actorflow._core.worker.core import Core

T = TypeVar("T")

STREAM_WINDOW = 64
"""Items that a producer may be ahead of its consumer. Consumed items give credit back in halves of it."""


class StreamState:
    """What has arrived and has not been taken. Guarded by the ports' lock."""

    __slots__ = ("call", "closed", "consumed", "credited", "ended", "error", "items", "received", "waiters")

    def __init__(self, call: Call) -> None:
        self.call = call
        self.items: deque[Owned] = deque()
        self.waiters: list[Waiter] = []
        self.received = 0
        self.consumed = 0
        self.credited = STREAM_WINDOW
        self.ended = False
        self.closed = False
        self.error: BaseException | None = None

    def wake(self) -> None:
        """Something changed for whoever waits."""
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            waiter.settled(self)


class Stream(Generic[T]):
    """The values of a remote generator, as they are produced.

    `async for value in stream` gives values, `stream.refs()` gives references instead. The producer waits when it is 64 items ahead.
    `await stream.aclose()`, leaving `async with stream`, or dropping the stream stops it. In blocking code use `af.sync(stream)` or a
    plain `for`.
    """

    __slots__ = ("__weakref__", "_core", "_state")
    __module__ = "actorflow"

    def __init__(self, core: Core, state: StreamState) -> None:
        self._core = core
        self._state = state

    def __del__(self) -> None:
        if not self._state.ended:
            self._core.dropped_streams.append(self._state)

    def __aiter__(self) -> AsyncIterator[T]:
        return self  # type: ignore[return-value]

    async def __anext__(self) -> T:
        """The next value; raises StopAsyncIteration at the end, or the generator's error in its place."""
        return await self._core.open_and_drop(await self._core.next_item(self._state))  # type: ignore[no-any-return]

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        try:
            return self._core.block_on(self.__anext__())  # type: ignore[no-any-return]
        except StopAsyncIteration:
            raise StopIteration from None

    def refs(self) -> _Refs[T]:
        """An async iterator over ObjectRefs, one for each value."""
        return _Refs(self._core, self)

    async def aclose(self) -> None:
        """Stop the producer and drop what has not been taken."""
        self._core.close_stream(self._state)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        state = self._state
        return f"Stream({state.call.target.name}, {state.consumed} taken of {state.received})"


class _Refs(Generic[T]):
    """See Stream.refs. Keeps its stream alive."""

    __slots__ = ("_core", "_stream")

    def __init__(self, core: Core, stream: Stream[T]) -> None:
        self._core = core
        self._stream = stream

    def __aiter__(self) -> _Refs[T]:
        return self

    async def __anext__(self) -> ObjectRef[T]:
        return ObjectRef(self._core, await self._core.next_item(self._stream._state))


def credit_after(state: StreamState) -> StreamCredit | None:
    """One more item was taken: the credit to send now, if any."""
    state.consumed += 1
    until = state.consumed + STREAM_WINDOW
    if until - state.credited < STREAM_WINDOW // 2:
        return None
    state.credited = until
    return StreamCredit(state.call.entry.index, until)


def close_message(state: StreamState) -> StreamClose:
    """Tell the producer to stop."""
    return StreamClose(state.call.entry.index)
