"""The node's side of the arena: who has which extent, and who waits for room."""

from __future__ import annotations

import logging
from collections.abc import Callable

from actorflow._core.io.peers import Peer
from actorflow._core.io.ports import Arena
from actorflow._core.node.context import NodeContext
from actorflow._core.policy.object_store import Denied, ExtentBook, Freed, Granted
from actorflow._core.protocol.messages import Allocate, Allocated, Carved, FreeExtent, HandOver, Pin, Pinned, ReturnSlabs, Unpin, WriterLost

log = logging.getLogger("actorflow")

Directory = Callable[[str], Peer | None]
"""The connected process with this id."""


class Store:
    """The one writer of the extent book; the pages of what is freed go back to the system."""

    def __init__(self, context: NodeContext, arena: Arena, find: Directory) -> None:
        self._context = context
        self._arena = arena
        self._find = find
        self.book = ExtentBook(arena.size, patience_s=context.config.allocation_patience_s)
        """To be read by others, written here."""
        self._early_pins: dict[int, list[tuple[str, int]]] = {}
        """(client, token) of pins on objects that their slab's client has not told of yet: its word comes another way."""
        self._early_frees: set[int] = set()
        """Such objects that their owners have freed already."""
        self._release_at: float | None = None
        """When the pages of what is free go back to the system; until then they are warm for the next writer."""

    def allocate(self, peer: Peer, message: Allocate) -> None:
        """An extent, please; the answer may have to wait for room."""
        if message.slab:
            self._answer(self.book.allocate_slab(peer.process_id, message.token, message.size))
            return
        answer = self.book.allocate(peer.process_id, message.token, message.size, self._context.now())
        if answer is not None:
            self._answer(answer)
            return
        for client in self.book.slab_clients():
            holder = self._find(client)
            if holder is not None:
                holder.send(ReturnSlabs())

    def carved(self, peer: Peer, message: Carved) -> None:
        """A client has taken an object from its slab."""
        if not self.book.carve(peer.process_id, message.extent, message.size):
            log.error("%r has carved object %d and has no slab for it; its connection is closed", peer, message.extent)
            peer.close(abort=True)
            return
        self._answer_early(message.extent)
        if message.extent in self._early_frees:
            self._early_frees.discard(message.extent)
            self._freed(self.book.free(message.extent, self._context.now()))

    def _answer_early(self, number: int) -> None:
        for client, token in self._early_pins.pop(number, ()):
            reader = self._find(client)
            if reader is not None:
                reader.send(Pinned(token, self.book.pin(client, number)))

    def _slabs_gone(self) -> None:
        """What will not come any more is gone."""
        for number in [number for number in self._early_pins if not self.book.to_come(number)]:
            self._answer_early(number)
        self._early_frees = {number for number in self._early_frees if self.book.to_come(number)}

    def hand_over(self, peer: Peer, message: HandOver) -> None:
        """A result is written: it is its caller's now. When that is gone nobody will ever ask for it, nor free it."""
        if self._find(message.owner) is not None:
            self.book.hand_over(peer.process_id, message.extent, message.owner)
        elif self.book.hand_over(peer.process_id, message.extent, peer.process_id):
            self._freed(self.book.free(message.extent, self._context.now()))

    def free(self, peer: Peer, message: FreeExtent) -> None:
        """Nobody can ask for the extent any more."""
        if self.book.to_come(message.extent):
            self._early_frees.add(message.extent)
            return
        self._freed(self.book.free(message.extent, self._context.now()))
        if self._early_pins or self._early_frees:
            self._slabs_gone()

    def pin(self, peer: Peer, message: Pin) -> None:
        """Somebody reads it."""
        if self.book.to_come(message.extent):
            self._early_pins.setdefault(message.extent, []).append((peer.process_id, message.token))
            return
        peer.send(Pinned(message.token, self.book.pin(peer.process_id, message.extent)))

    def unpin(self, peer: Peer, message: Unpin) -> None:
        """Somebody reads it no longer."""
        self._freed(self.book.unpin(peer.process_id, message.extent, self._context.now()))

    def client_lost(self, process_id: str) -> None:
        """A process is gone: its pins, its extents, its place in the queue."""
        now = self._context.now()
        for freed in self.book.client_lost(process_id, now):
            self._release(freed, now)
        if self._early_pins or self._early_frees:
            self._slabs_gone()
        for owner, numbers in self.book.written_by(process_id).items():
            reader = self._find(owner)
            if reader is not None:
                reader.send(WriterLost(process_id, numbers))
        self._serve(now)

    def expire(self, now: float, names: Callable[[str], str]) -> None:
        """Tell those who have waited too long, with the numbers and the names; give back pages that nobody took again."""
        if self._release_at is not None and now >= self._release_at:
            self._release_at = None
            for offset, size in self.book.free_ranges():
                self._arena.release(offset, size)
        if not self.book.waiting:
            return
        for denied in self.book.expire(now, names):
            self._answer(denied)
        self._serve(now)

    def _freed(self, freed: Freed | None) -> None:
        if freed is not None:
            now = self._context.now()
            self._release(freed, now)
            self._serve(now)

    def _release(self, freed: Freed, now: float) -> None:
        keep_s = self._context.config.warm_pages_s
        if keep_s:
            self._release_at = now + keep_s
        else:
            self._arena.release(freed.offset, freed.size)

    @property
    def has_deadlines(self) -> bool:
        """True while `expire` must be called in time."""
        return self.book.waiting > 0 or self._release_at is not None

    def _serve(self, now: float) -> None:
        if self.book.waiting:
            for granted in self.book.serve(now):
                self._answer(granted)

    def _answer(self, answer: Granted | Denied) -> None:
        peer = self._find(answer.client)
        if peer is None:
            return  # its loss, which is told in a moment, frees what it was given
        if isinstance(answer, Granted):
            peer.send(Allocated(answer.token, answer.extent, answer.offset))
        else:
            peer.send(Allocated(answer.token, error=answer.reason))
