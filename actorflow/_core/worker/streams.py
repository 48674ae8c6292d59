"""The consumer's side of streams: items arrive with credit, values leave in order (SEMANTICS 12)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from actorflow._core.io.notebook import in_notebook
from actorflow._core.policy.ownership import Owned
from actorflow._core.protocol import messages as m
from actorflow._core.protocol.messages import StreamClose, StreamCredit
from actorflow._core.worker.calls import CallState
from actorflow._core.worker.context import running_call
from actorflow._core.worker.object_ref import ObjectRef
from actorflow._core.worker.tasks import Lease
from actorflow._core.worker.wakers import FutureWaiter, Waiter

if TYPE_CHECKING:
    from typing import Self

    from actorflow._core.io.peers import Peer
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
        state = self._state
        if not state.closed and (not state.ended or state.items):
            self._core.streams.dropped.append(state)

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a stream belongs to the process that reads it and cannot be sent: send a list of its items, the references that "
            "`stream.refs()` gives, or the remote function itself, to be called over there"
        )

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        """The next value; raises StopAsyncIteration at the end, or the generator's error in its place."""
        return await self._core.streams.open_and_drop(await self._core.streams.next_item(self._state))  # type: ignore[no-any-return]

    def __iter__(self) -> Iterator[T]:
        if asyncio._get_running_loop() is not None and running_call.get() is None and not in_notebook():
            raise RuntimeError(
                "a plain `for` over a stream would block the event loop that runs on this thread: write `async for item in stream` instead"
            )
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
        self._core.streams.close_stream(self._state)

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
        return ObjectRef(self._core, await self._core.streams.next_item(self._stream._state))


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


class StreamCalls:
    """The streams that one process consumes."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.dropped: deque[StreamState] = deque()
        """Streams whose last handle is gone; closed when dropped handles are counted (SEMANTICS 18)."""


    def make(self, call: Call) -> Stream[Any]:
        call.stream = StreamState(call)
        call.extra = True
        call.entry.pins += 1
        call.entry.seen = True
        return Stream(self._core, call.stream)

    def _stream_of(self, seq: int, attempt: int) -> StreamState | None:
        entry = self._core.references.owned.entries.get(seq)
        call = entry.call if entry is not None else None
        if call is None or call.attempt != attempt:
            return None
        state: StreamState | None = call.stream
        return state

    def on_item(self, peer: Peer, message: m.StreamItem) -> None:
        state = self._stream_of(message.seq, message.attempt)
        outcome = message.outcome

        def registered() -> None:
            if message.hold:
                peer.send(m.Release(message.hold))

        pins = self._core.references.adopt(outcome.refs, peer.process_id, registered)
        if state is None or state.closed or message.index < state.received:
            # Closed, or a retried generator that begins again: what was received already is dropped.
            self._core.references.unpin_all(pins)
            if type(outcome) is m.Stored:
                self._core.store.free(outcome)
            return
        state.received = message.index + 1
        entry = self._core.references.owned.new()
        entry.outcome, entry.local, entry.seen = outcome, 1, True
        if type(outcome) is m.Stored:
            self._core.store.owns(outcome)
        state.items.append(entry)
        state.wake()

    def on_end(self, peer: Peer, message: m.StreamEnd) -> None:
        entry = self._core.references.owned.entries.get(message.seq)
        call: Call | None = entry.call if entry is not None else None
        orphans = self._core.cancels.orphans
        if call is None and orphans:
            call = orphans.get(message.seq)
        if call is None or call.attempt != message.attempt or call.state is not CallState.PUSHED:
            return
        if type(call.place) is Lease:
            self._core.tasks.completed(call, 1_000_000)
        else:
            self._core.actors.completed(call)
        if type(message.error) is m.Failed and call.retries_left and self._core.caller.try_again(call, message.error):
            return
        self._core.caller.finish(call, message.error or m.Inline(b""))

    def end(self, state: StreamState, outcome: m.Outcome) -> None:
        state.ended = True
        if type(outcome) is m.Failed:
            state.error = self._core.error_of(outcome)
        state.call.entry.pins -= 1
        state.wake()

    async def next_item(self, state: StreamState) -> Owned:
        """The next entry, with one handle counted; StopAsyncIteration or the error at the end."""
        while True:
            gate = self._core.gates.current()
            with self._core.lock:
                if state.items:
                    entry = state.items.popleft()
                    credit = credit_after(state)
                    if credit is not None and not state.ended:
                        self._send_to_producer(state, credit)
                    return entry
                if state.ended or state.closed:
                    error, state.error = state.error, None
                    if error is not None and not state.closed:
                        raise error
                    raise StopAsyncIteration
                waiter = FutureWaiter(gate)
                state.waiters.append(waiter)
            await self._core.caller.blocked(waiter.future)

    async def open_and_drop(self, entry: Owned) -> Any:
        """The value of an item that nobody else refers to."""
        try:
            return await self._core.objects.open(entry)
        finally:
            self._core.dropped.append(entry)

    def _send_to_producer(self, state: StreamState, message: m.StreamCredit | m.StreamClose) -> None:
        place = state.call.place
        peer = place.peer if place is not None and state.call.state is CallState.PUSHED else None
        if peer is not None and not peer.lost:
            peer.send(message)

    def close_stream(self, state: StreamState) -> None:
        """Stop the producer; drop what has not been taken."""
        with self._core.lock:
            if state.closed:
                return
            state.closed = True
            while state.items:
                self._core.dropped.append(state.items.popleft())
            if not state.ended:
                if state.call.state is CallState.PUSHED:
                    # Nobody reads it: were its worker to die now, it must not be tried again.
                    state.call.cancelled = True
                    self._send_to_producer(state, close_message(state))
                    self._core.cancels.be_patient(state.call)
                else:
                    self._core.cancels.cancel(state.call)
            state.wake()

    def drain(self) -> None:
        while self.dropped:
            self.close_stream(self.dropped.popleft())
