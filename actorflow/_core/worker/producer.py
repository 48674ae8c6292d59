"""The producer's side of streams: a generator runs until it is ahead of its consumer by the credit it has (SEMANTICS 12)."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from actorflow._core.protocol import messages as m
from actorflow._core.worker import incoming as arguments
from actorflow._core.worker.apart import apart
from actorflow._core.worker.interrupts import END

if TYPE_CHECKING:
    from actorflow._core.io.peers import Peer
    from actorflow._core.worker.host import Host
    from actorflow._core.worker.incoming import Incoming
    from actorflow._core.worker.references import Entry


class Producer:
    """The credit of one stream and whoever waits for it."""

    def __init__(self, host: Host, window: int) -> None:
        self._host = host
        self.until = window
        self.sent = 0
        self.closed = False
        self.computing = False
        """The generator works on its next item; otherwise it stands at a `yield`, and can be closed there."""
        self._event = asyncio.Event()

    def credit(self, until: int) -> None:
        """The consumer took items. On the protocol's thread."""
        if until > self.until:
            self.until = until
            self._host.executor.loop.call_soon_threadsafe(self._event.set)

    def close(self) -> None:
        """The consumer wants no more. On the user's loop."""
        self.closed = True
        self._event.set()

    async def room(self) -> None:
        """Wait for credit."""
        while self.sent >= self.until and not self.closed:
            self._event.clear()
            await self._event.wait()


def on_credit(host: Host, peer: Peer, message: m.StreamCredit) -> None:
    """The consumer took items. Under the lock."""
    incoming = host.calls.get((peer.process_id, message.seq))
    if incoming is not None and incoming.producer is not None:
        incoming.producer.credit(message.until)


def on_close(host: Host, peer: Peer, message: m.StreamClose) -> None:
    """The consumer wants no more. Under the lock."""
    incoming = host.calls.get((peer.process_id, message.seq))
    if incoming is None:
        return
    if incoming.producer is None or incoming.producer.computing:
        # It is not at a `yield`, where a generator can be closed: whatever it waits for there is cancelled.
        host.on_cancel(peer, m.Cancel(message.seq, incoming.message.attempt))
    else:
        host.executor.loop.call_soon_threadsafe(_close, host, peer, incoming)


def _close(host: Host, peer: Peer, incoming: Incoming) -> None:
    """The same. On the user's loop."""
    if incoming.producer.computing:
        with host.core.lock:
            host.on_cancel(peer, m.Cancel(incoming.message.seq, incoming.message.attempt))
    else:
        incoming.producer.close()


async def produce(host: Host, incoming: Incoming, fn: Callable[..., Any], args: Any, kwargs: Any) -> None:
    """Run a generator to its end and send each item; then the end, or the error."""
    assert incoming.context is not None
    producer = incoming.producer = Producer(host, incoming.context.stream_window)
    message = incoming.message
    error: m.Failed | None = None
    try:
        generator = fn(*args, **kwargs)
        if inspect.isasyncgen(generator):
            await _send_async(host, incoming, producer, generator)
        else:
            await _send_sync(host, incoming, producer, generator)
    except BaseException as caught:
        # All of user code's ways to end, SystemExit and cancellation among them, are the end of its stream.
        error = arguments.failure(host.core, incoming, caught)
    finally:
        host.end_stream(incoming, m.StreamEnd(message.seq, message.attempt, producer.sent, error))


async def _send_async(host: Host, incoming: Incoming, producer: Producer, generator: Any) -> None:
    try:
        while True:
            producer.computing = True
            try:
                item = await anext(generator, END)
            finally:
                producer.computing = False
            if item is END:
                break
            await _send(host, incoming, producer, item)
            if producer.closed:
                break
    finally:
        await generator.aclose()


async def _send_sync(host: Host, incoming: Incoming, producer: Producer, generator: Any) -> None:
    iterator = iter(generator)
    step = host.interrupts.step if host.interrupts.may_tear(incoming) else _step
    try:
        while True:
            producer.computing = True
            try:
                item = apart(host, incoming, step, incoming, iterator)
            finally:
                producer.computing = False
            if item is END:
                break
            await _send(host, incoming, producer, item)
            if producer.closed:
                break
            if producer.sent % 16 == 0:
                # A generator that never waits must not keep its loop to itself: closing it is a message too.
                await asyncio.sleep(0)
    finally:
        close = getattr(iterator, "close", None)
        if close is not None:
            close()


def _step(incoming: Incoming, iterator: Any) -> Any:
    """As a generator of an actor goes on: it is not torn (SEMANTICS 5)."""
    return next(iterator, END)


async def _send(host: Host, incoming: Incoming, producer: Producer, item: Any) -> None:
    await producer.room()
    if producer.closed:
        return
    index = producer.sent
    producer.sent += 1
    loop = asyncio.get_running_loop()
    sent = loop.create_future()

    def packed(outcome: m.Outcome, hold: list[Entry]) -> None:
        host.send_item(incoming, index, outcome, hold)
        if asyncio._get_running_loop() is loop:
            sent.set_result(None)
        else:
            loop.call_soon_threadsafe(finish, sent)

    arguments.pack_result(host.core, incoming, item, packed)
    if not sent.done():
        # A large item moves to shared memory first; items must leave in order.
        await sent


def finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
