"""What this node sends of its objects to other nodes. The decisions are policy/uploads.py's; here they are carried out."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from actorflow._core.base.ids import ProcessId
from actorflow._core.io.peers import Peer
from actorflow._core.node.context import NodeContext
from actorflow._core.node.links import Links
from actorflow._core.node.store import PEER, Store
from actorflow._core.policy.transfer_records import (
    Again,
    Cut,
    Held,
    Hold,
    LetGo,
    ObjectName,
    Refusal,
    Refuse,
    Request,
    Send,
    StillHere,
    UploadDecision,
)
from actorflow._core.policy.uploads import UploadBook, UploadLimits
from actorflow._core.protocol.messages import Chunk, LeaveSource, RefuseChunks, RequestChunks, StillServing

if TYPE_CHECKING:
    from actorflow._core.io.ports import SpilledFile

log = logging.getLogger(__name__)

EARLY_MAX = 1000
"""Requests for objects whose writers' word is still on its way here."""


class _Outgoing:
    """A chunk that is to be sent in its turn. `data`: what was read from disk."""

    __slots__ = ("data", "ready", "send")

    def __init__(self, send: Send) -> None:
        self.send = send
        self.ready = not send.on_disk
        self.data: bytes | None = None


class Serving:
    """See the module. `held`: what is here of an object at this moment; `changed` is called after each event."""

    def __init__(
        self,
        context: NodeContext,
        links: Links,
        store: Store,
        held: Callable[[ObjectName], Held | None],
        changed: Callable[[], None],
    ) -> None:
        self._context = context
        self._links = links
        self._store = store
        self._held = held
        self._changed = changed
        self.book = UploadBook(UploadLimits(chunk_bytes=context.config.transfer_chunk_bytes))
        self._outgoing: dict[ProcessId, deque[_Outgoing]] = {}
        """By peer, in the order of their Sends. One that is read from disk holds up those behind it."""
        self._files: dict[int, SpilledFile | None] = {}
        """By upload; None for a file that cannot be opened."""
        self._early: dict[int, list[Request]] = {}
        """Requests for objects of slabs that we have not heard of yet, by extent."""

    # -- what peers say

    def requested(self, peer: Peer, message: RequestChunks) -> None:
        """A peer asks for chunks."""
        name = ObjectName(message.home, message.extent)
        request = Request(peer.process_id, name, message.attempt, message.first, message.count)
        if name.home == self._context.node_id and self._store.book.to_come(name.extent):
            if len(self._early) < EARLY_MAX:
                self._early.setdefault(name.extent, []).append(request)
            else:
                self._obey([Refuse(request.peer, name, request.attempt, Refusal.BUSY)])
            return
        self._request(request)

    def _request(self, request: Request) -> None:
        self._obey(self.book.requested(request, self._held(request.name), self._context.now()))
        self._changed()

    def left(self, peer: Peer, message: LeaveSource) -> None:
        """A peer needs nothing more."""
        name = ObjectName(message.home, message.extent)
        for request in list(self._early.get(message.extent, ())):
            if (request.peer, request.name, request.attempt) == (peer.process_id, name, message.attempt):
                self._early[message.extent].remove(request)
        self._obey(self.book.left(peer.process_id, name, message.attempt, message.complete, self._context.now()))
        self._changed()

    # -- what happens here

    def come(self, extent: int) -> None:
        """The word of an object's writer is here, or will not come."""
        for request in self._early.pop(extent, ()):
            self._request(request)

    def slabs_gone(self) -> None:
        """Some slab has ended: what was still to come of it will not."""
        for extent in [extent for extent in self._early if not self._store.book.to_come(extent)]:
            self.come(extent)

    def grown(self, name: ObjectName, chunks: int) -> None:
        """So much of what we fetch is here."""
        self._obey(self.book.grown(name, chunks, self._context.now()))

    def gone(self, name: ObjectName) -> None:
        """The object is not here any more."""
        if not self.book.idle:
            self._obey(self.book.gone(name, self._context.now()))
            self._changed()

    def node_lost(self, node_id: ProcessId) -> None:
        """A peer is gone."""
        for extent, requests in list(self._early.items()):
            self._early[extent] = [request for request in requests if request.peer != node_id]
        self._obey(self.book.node_lost(node_id, self._context.now()))

    def tick(self, now: float) -> None:
        """Time has passed."""
        self._obey(self.book.tick(now))

    # -- carrying out

    def _obey(self, decisions: Sequence[UploadDecision]) -> None:
        for decision in decisions:
            if isinstance(decision, Send):
                self._send(decision)
            elif isinstance(decision, Hold):
                self._hold(decision)
            elif isinstance(decision, LetGo):
                self._let_go(decision)
            elif isinstance(decision, Again):
                request = decision.request
                self._obey(self.book.requested(request, self._held(request.name), self._context.now()))
            elif isinstance(decision, Cut):
                self._links.cut(decision.peer, decision.reason)
            elif isinstance(decision, StillHere):
                name = decision.name
                self._links.say(decision.peer, StillServing(name.home, name.extent, decision.attempt))
            else:
                name = decision.name
                refusal = RefuseChunks(name.home, name.extent, decision.attempt, decision.why.value, list(decision.others))
                self._links.say(decision.peer, refusal)

    def _hold(self, hold: Hold) -> None:
        if not hold.on_disk:
            pinned = self._store.pin_for(_reader(hold.peer), hold.extent)
            assert pinned is not None, "UP-2: what is held is there"
            return
        try:
            self._files[hold.upload] = self._store.open_file(hold.extent)
        except OSError as error:
            log.error("an object cannot be served from disk: %s", error)
            self._files[hold.upload] = None

    def _let_go(self, hold: LetGo) -> None:
        if not hold.on_disk:
            self._store.unpin_for(_reader(hold.peer), hold.extent)
            return
        file = self._files.pop(hold.upload)
        if file is not None:
            file.close()

    def _send(self, send: Send) -> None:
        outgoing = _Outgoing(send)
        self._outgoing.setdefault(send.peer, deque()).append(outgoing)
        if not send.on_disk:
            self._push(send.peer)
            return
        file = self._files[send.upload]
        if file is None:
            self._context.ports.loop.call_soon(self._read, outgoing, b"", "it cannot be opened")
        else:
            file.read_part(send.start, send.length, partial(self._read, outgoing))

    def _read(self, outgoing: _Outgoing, data: bytes, problem: str) -> None:
        outgoing.ready = True
        if problem:
            log.error("an object cannot be served from disk: %s", problem)
            self._obey(self.book.cannot_read(outgoing.send.upload, self._context.now()))
        else:
            outgoing.data = data
        self._push(outgoing.send.peer)
        self._changed()

    def _push(self, peer: ProcessId) -> None:
        queue = self._outgoing.get(peer)
        if queue is None:
            return
        while queue and queue[0].ready:
            outgoing = queue.popleft()
            send, name = outgoing.send, outgoing.send.name
            taken = partial(self._taken, send.upload)
            if send.on_disk and outgoing.data is None:
                self._context.ports.loop.call_soon(taken)
                continue
            data = outgoing.data if outgoing.data is not None else self._store.view(send.extent, send.start, send.length)
            self._links.send_chunk(peer, Chunk(name.home, name.extent, send.attempt, send.index, send.length), data, taken)
        if not queue:
            self._outgoing.pop(peer, None)

    def _taken(self, upload: int) -> None:
        self._obey(self.book.sent(upload, self._context.now()))
        self._changed()

    # -- looking

    def left_over(self) -> list[str]:
        """What should not be here at rest, for leak checks."""
        self.book.check()
        found = [f"an upload of {name} to node {peer}: {at} of {chunks} chunks" for peer, name, at, chunks in self.book.uploads()]
        found += [f"chunks that are to be sent to node {peer}" for peer in self._outgoing]
        found += [f"the file of upload {number}" for number in self._files]
        return found + [f"an early request for extent {extent}" for extent, requests in self._early.items() if requests]


def _reader(peer: ProcessId) -> str:
    """The client that pins what a peer is sent."""
    return f"{PEER}{peer}"
