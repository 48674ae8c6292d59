"""The node's side of the arena: who has which extent, and who waits for room."""

from __future__ import annotations

from collections.abc import Callable

from actorflow._core.io.peers import Peer
from actorflow._core.io.ports import Arena
from actorflow._core.node.context import NodeContext
from actorflow._core.policy.object_store import Denied, ExtentBook, Freed, Granted
from actorflow._core.protocol.messages import Allocate, Allocated, FreeExtent, HandOver, Pin, Pinned, Unpin

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

    def allocate(self, peer: Peer, message: Allocate) -> None:
        """An extent, please; the answer may have to wait for room."""
        answer = self.book.allocate(peer.process_id, message.token, message.size, self._context.now())
        if answer is not None:
            self._answer(answer)

    def hand_over(self, peer: Peer, message: HandOver) -> None:
        """A result is written: it is its caller's now. When that is gone it stays with its writer."""
        if self._find(message.owner) is not None:
            self.book.hand_over(peer.process_id, message.extent, message.owner)

    def free(self, peer: Peer, message: FreeExtent) -> None:
        """Nobody can ask for the extent any more."""
        self._freed(self.book.free(message.extent, self._context.now()))

    def pin(self, peer: Peer, message: Pin) -> None:
        """Somebody reads it."""
        peer.send(Pinned(message.token, self.book.pin(peer.process_id, message.extent)))

    def unpin(self, peer: Peer, message: Unpin) -> None:
        """Somebody reads it no longer."""
        self._freed(self.book.unpin(peer.process_id, message.extent, self._context.now()))

    def client_lost(self, process_id: str) -> None:
        """A process is gone: its pins, its extents, its place in the queue."""
        now = self._context.now()
        for freed in self.book.client_lost(process_id, now):
            self._arena.release(freed.offset, freed.size)
        self._serve(now)

    def expire(self, now: float, names: Callable[[str], str]) -> None:
        """Tell those who have waited too long, with the numbers and the names."""
        if not self.book.waiting:
            return
        for denied in self.book.expire(now, names):
            self._answer(denied)
        self._serve(now)

    def _freed(self, freed: Freed | None) -> None:
        if freed is not None:
            self._arena.release(freed.offset, freed.size)
            self._serve(self._context.now())

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
