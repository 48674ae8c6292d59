"""The node's side of the arena: who has which extent, who waits for room, and what goes to disk meanwhile."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol

from actorflow._core.base.ids import CLUSTER
from actorflow._core.base.resources import format_bytes
from actorflow._core.io.peers import Peer
from actorflow._core.io.ports import Arena, SpillFiles
from actorflow._core.node.context import NodeContext
from actorflow._core.policy.extent_records import AskOwner, Denied, Freed, Granted, ReadIn, WriteOut
from actorflow._core.policy.object_store import PRESSED_SHARE, SPILL_SHARE, ExtentBook
from actorflow._core.protocol.messages import (
    Allocate,
    Allocated,
    Carved,
    FreeExtent,
    HandOver,
    MaySpill,
    Pin,
    Pinned,
    ReturnSlabs,
    Spillable,
    Unpin,
    WriterLost,
)

if TYPE_CHECKING:
    from actorflow._core.io.ports import SpilledFile

log = logging.getLogger("actorflow")

COPY = "copy-"
"""Each pull asks for room as a client of its own: this, and its number. No process has such an id."""
PEER = "node-"
"""What is sent to another node is pinned by this client, and its id."""

Directory = Callable[[str], Peer | None]
"""The connected process with this id."""


class Abroad(Protocol):
    """What other nodes have to do with the store: node/transfers.py, when there is such a thing."""

    def allocated(self, answer: Granted | Denied) -> None:
        """The answer to `ask_room`."""

    def offer(self, wanted_bytes: int) -> None:
        """Room is short: give back what is here only as a copy."""

    def come(self, extent: int) -> None:
        """The word of an object's writer has come."""

    def slabs_gone(self) -> None:
        """Objects that were to come may not come any more."""

    def gone(self, extent: int) -> None:
        """An object that was written here is freed."""

    def know(self, owner: str, node: str) -> bool:
        """Something here belongs to a process of another node. False when that one is gone."""

    def is_abroad(self, owner: str) -> bool:
        """True for a process of another node."""

    def writer_lost(self, owner: str, process_id: str, extents: list[int]) -> None:
        """Tell an owner on another node what a dead process of this one has written for it."""


class Store:
    """The one writer of the extent book; the pages of what is freed go back to the system.

    `go_abroad` makes the room that other nodes have to do with, and `alone` says whether there are any.
    """

    def __init__(
        self,
        context: NodeContext,
        arena: Arena,
        find: Directory,
        spill: SpillFiles | None,
        go_abroad: Callable[[], Abroad],
        alone: Callable[[], bool],
    ) -> None:
        self._go_abroad = go_abroad
        self._alone = alone
        self.abroad: Abroad | None = None
        self._offering = False
        self._context = context
        self._arena = arena
        self._find = find
        self._spill = spill
        self.book = ExtentBook(arena.size, patience_s=context.config.allocation_patience_s, spills=spill is not None)
        """To be read by others, written here."""
        self._early_pins: dict[int, list[tuple[str, int]]] = {}
        """(client, token) of pins on objects that their slab's client has not told of yet: its word comes another way."""
        self._early_frees: set[int] = set()
        """Such objects that their owners have freed already."""
        self._awaited: dict[int, list[tuple[str, int]]] = {}
        """(client, token) of pins on objects that come back from disk."""
        self._release_at: float | None = None
        """When the pages of what is free go back to the system; until then they are warm for the next writer."""
        self._pressed = False
        self.on_unreadable: Callable[[int, str], None] | None = None
        """Told of what the cluster owns, and a disk does not give back."""

    def allocate(self, peer: Peer, message: Allocate) -> None:
        """An extent, please; the answer may have to wait for room."""
        if message.slab:
            self._answer(self.book.allocate_slab(peer.process_id, message.token, message.size))
            return
        self.ask_room(peer.process_id, message.token, message.size)

    def ask_room(self, client: str, token: int, size: int) -> None:
        """An extent for a client of any kind."""
        now = self._context.now()
        answer = self.book.allocate(client, token, size, now)
        if answer is not None:
            self._answer(answer)
        else:
            self._ask_for_slabs()
        self._make_room(now)

    def _ask_for_slabs(self) -> None:
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
        self._answer_all(self._early_pins, message.extent)
        if self.abroad is not None:
            self.abroad.come(message.extent)
        now = self._context.now()
        if message.extent in self._early_frees:
            self._early_frees.discard(message.extent)
            self._freed(self.book.free(message.extent, now))
        self._make_room(now)

    def _answer_all(self, waiting: dict[int, list[tuple[str, int]]], number: int, problem: str = "", *, full: bool = False) -> None:
        for client, token in waiting.pop(number, ()):
            reader = self._find(client)
            if reader is not None:
                self._answer_pin(reader, token, number, problem, full=full)

    def _answer_pin(self, reader: Peer, token: int, number: int, problem: str = "", *, full: bool = False) -> None:
        if not problem and self.book.pin(reader.process_id, number):
            reader.send(Pinned(token, offset=self.book.offset(number)))
        else:
            reader.send(Pinned(token, ok=False, error=problem, full=full, others=not full and not self._alone()))

    def _slabs_gone(self) -> None:
        """What will not come any more is gone."""
        for number in [number for number in self._early_pins if not self.book.to_come(number)]:
            self._answer_all(self._early_pins, number)
        self._early_frees = {number for number in self._early_frees if self.book.to_come(number)}
        if self.abroad is not None:
            self.abroad.slabs_gone()

    def hand_over(self, peer: Peer, message: HandOver) -> None:
        """A result is written: it is its caller's now. When that is gone nobody will ever ask for it, nor free it."""
        if message.node not in ("", self._context.node_id):
            known = self._go_abroad().know(message.owner, message.node)
        else:
            known = self._find(message.owner) is not None
        if known:
            self.book.hand_over(peer.process_id, message.extent, message.owner)
        elif self.book.hand_over(peer.process_id, message.extent, peer.process_id):
            self._freed(self.book.free(message.extent, self._context.now()))

    def adopt(self, client: str, number: int) -> bool:
        """What a client has written is the cluster's from now on. False when it is not there, or not that client's."""
        return self.book.hand_over(client, number, CLUSTER)

    def free(self, peer: Peer, message: FreeExtent) -> None:
        """Nobody can ask for the extent any more."""
        self.free_extent(message.extent)

    def free_extent(self, number: int) -> None:
        """See `free`."""
        if self.book.to_come(number):
            self._early_frees.add(number)
            return
        self._freed(self.book.free(number, self._context.now()))
        if self.abroad is not None:
            self.abroad.gone(number)
        if self._early_pins or self._early_frees or self.abroad is not None:
            self._slabs_gone()

    def pin(self, peer: Peer, message: Pin) -> None:
        """Somebody reads it."""
        if self.book.to_come(message.extent):
            self._early_pins.setdefault(message.extent, []).append((peer.process_id, message.token))
        elif self.book.is_away(message.extent):
            self._awaited.setdefault(message.extent, []).append((peer.process_id, message.token))
            now = self._context.now()
            self._read_or_deny(self.book.restore(message.extent, now))
            self._make_room(now)
        else:
            self._answer_pin(peer, message.token, message.extent)

    def unpin(self, peer: Peer, message: Unpin) -> None:
        """Somebody reads it no longer."""
        self.unpin_for(peer.process_id, message.extent)

    def unpin_for(self, client: str, number: int) -> None:
        """See `unpin`, for a client of any kind."""
        now = self._context.now()
        self._freed(self.book.unpin(client, number, now))
        self._make_room(now)

    # -- for other nodes

    def pin_for(self, client: str, number: int) -> int | None:
        """Pin what is in memory; where it is. None when it is not there."""
        return self.book.offset(number) if self.book.pin(client, number) else None

    def view(self, number: int, start: int, length: int) -> memoryview:
        """A part of what is pinned."""
        return self._arena.view(self.book.offset(number) + start, length)

    def writable(self, offset: int, length: int) -> memoryview:
        """A part of what was given to `ask_room`."""
        return self._arena.view(offset, length, writable=True)

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Copy what a process without shared memory has sent into what it was given."""
        self._arena.write(offset, data)

    def make_ready(self, offset: int, size: int) -> None:
        """Much is about to be written there."""
        self._arena.prefault(offset, size)

    def open_file(self, number: int) -> SpilledFile:
        """What is on disk. Raises OSError."""
        assert self._spill is not None, "ST-7: what is away is on a disk"
        return self._spill.open(number)

    def foreign(self) -> int:
        """Objects here that belong to processes of other nodes, or to the cluster."""
        abroad = self.abroad
        owners = [extent.owner for extent in self.book.extents()]
        return owners.count(CLUSTER) + (sum(map(abroad.is_abroad, owners)) if abroad is not None else 0)

    def give_back(self, client: str) -> None:
        """A client that is no process has no use any more for what it was given, or waits for."""
        now = self._context.now()
        for freed in self.book.client_lost(client, now):
            self._release(freed, now)
        self._serve(now)

    def owner_lost(self, owner: str) -> None:
        """A process of another node is gone: so is what it owned here."""
        self.give_back(owner)

    # -- to disk and back

    def spillable(self, peer: Peer, message: Spillable) -> None:
        """An owner's answer."""
        now = self._context.now()
        self._carry_out(self.book.owner_says(peer.process_id, message.yes, message.no, now), now)
        self._make_room(now)

    def press(self, pressed: bool) -> None:
        """The machine is short of memory, or is not any more: pages of no use go back to it, and more goes to disk."""
        if pressed == self._pressed:
            return
        self._pressed = pressed
        self.book.spill_share = PRESSED_SHARE if pressed else SPILL_SHARE
        if pressed:
            now = self._context.now()
            if self._release_at is not None:
                self._release_at = now
            self.expire(now, str)

    def _make_room(self, now: float) -> None:
        if self.abroad is not None and not self._offering and (short := self.book.short_bytes()) > 0:
            self._offering = True
            try:
                self.abroad.offer(short)
            finally:
                self._offering = False
        self._carry_out(self.book.spill(now), now)

    def _carry_out(self, steps: Sequence[AskOwner | WriteOut | Freed], now: float) -> None:
        for step in steps:
            if isinstance(step, Freed):
                self._freed(step)
            elif isinstance(step, WriteOut):
                assert self._spill is not None
                self._spill.write(step.extent, step.offset, step.size, partial(self._written, step.extent))
            else:
                owner = self._find(step.owner)
                if step.owner == CLUSTER or (self.abroad is not None and self.abroad.is_abroad(step.owner)):
                    # It was handed over, so it is complete; and its owner reads copies, never this.
                    self._carry_out(self.book.owner_says(step.owner, step.extents, [], now), now)
                elif owner is not None:
                    owner.send(MaySpill(list(step.extents)))
                else:
                    self._carry_out(self.book.owner_says(step.owner, [], step.extents, now), now)

    def _written(self, number: int, problem: str) -> None:
        now = self._context.now()
        if problem:
            log.warning("spilling %s fails, and is tried again later: %s", format_bytes(self.book.size_of(number)), problem)
            self._freed(self.book.disk_failed(number, problem, now))
        else:
            self._freed(self.book.written(number, now))
        self._make_room(now)

    def _read_or_deny(self, step: ReadIn | Denied | None) -> None:
        if isinstance(step, ReadIn):
            assert self._spill is not None
            self._spill.read(step.extent, step.offset, step.size, partial(self._read, step.extent))
        elif step is not None:
            self._answer_all(self._awaited, step.token, step.reason, full=True)

    def _read(self, number: int, problem: str) -> None:
        now = self._context.now()
        if problem:
            log.error("%s cannot be read from disk: %s", format_bytes(self.book.size_of(number)), problem)
            extent = self.book.find(number)
            if extent is not None and extent.owner == CLUSTER and self.on_unreadable is not None:
                self.on_unreadable(number, f"{format_bytes(extent.size)} are on disk and cannot be read: {problem}")
            freed: Freed | None = self.book.not_restored(number, now)
            self._answer_all(self._awaited, number, f"it is on disk and cannot be read: {problem}")
        else:
            freed = self.book.restored(number, now)
            self._answer_all(self._awaited, number)
        self._freed(freed)
        self._make_room(now)

    def close(self) -> None:
        """Nothing is written or read any more."""
        if self._spill is not None:
            self._spill.close()

    # -- what is gone

    def client_lost(self, process_id: str) -> None:
        """A process is gone: its pins, its extents, its place in the queue."""
        now = self._context.now()
        for freed in self.book.client_lost(process_id, now):
            self._release(freed, now)
            self._answer_all(self._awaited, freed.extent)
        if self._early_pins or self._early_frees or self.abroad is not None:
            self._slabs_gone()
        for owner, numbers in self.book.written_by(process_id).items():
            reader = self._find(owner)
            if self.abroad is not None and self.abroad.is_abroad(owner):
                self.abroad.writer_lost(owner, process_id, numbers)
            elif reader is not None:
                reader.send(WriterLost(process_id, numbers))
        self._serve(now)
        self._make_room(now)

    def expire(self, now: float, names: Callable[[str], str]) -> None:
        """Tell those who have waited too long, with the numbers and the names; give back pages that nobody took again."""
        if self._release_at is not None and now >= self._release_at:
            self._release_at = None
            for offset, size in self.book.free_ranges():
                self._arena.release(offset, size)
        if self.book.waiting:
            for denied in self.book.expire(now, names):
                self._answer(denied)
            self._serve(now)
        self._make_room(now)

    def _freed(self, freed: Freed | None) -> None:
        if freed is not None:
            now = self._context.now()
            self._release(freed, now)
            self._answer_all(self._awaited, freed.extent)
            self._serve(now)

    def _release(self, freed: Freed, now: float) -> None:
        if freed.on_disk and self._spill is not None:
            self._spill.delete(freed.extent)
        if not freed.size:
            return
        if not self._keep_warm(now):
            self._arena.release(freed.offset, freed.size)

    def _keep_warm(self, now: float) -> bool:
        keep_s = 0.0 if self._pressed else self._context.config.warm_pages_s
        if keep_s:
            self._release_at = now + keep_s
        return keep_s > 0

    @property
    def has_deadlines(self) -> bool:
        """True while `expire` must be called in time."""
        return self.book.waiting > 0 or self._release_at is not None or self.book.asks_again

    def _serve(self, now: float) -> None:
        if self.book.waiting:
            for granted in self.book.serve(now):
                if isinstance(granted, ReadIn):
                    self._read_or_deny(granted)
                else:
                    self._answer(granted)

    def _answer(self, answer: Granted | Denied) -> None:
        if not answer.client:
            assert isinstance(answer, Denied), "an extent that was to come back from disk"
            self._read_or_deny(answer)
            return
        peer = self._find(answer.client)
        if peer is None and self.abroad is not None and answer.client.startswith(COPY):
            self.abroad.allocated(answer)
            return
        if peer is None:
            return  # its loss, which is told in a moment, frees what it was given
        if isinstance(answer, Granted):
            peer.send(Allocated(answer.token, answer.extent, answer.offset))
        else:
            peer.send(Allocated(answer.token, error=answer.reason))
