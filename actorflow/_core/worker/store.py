"""The client of the node's arena: values too large for messages are written into an extent, and read as views of it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from actorflow._core.base.errors import ObjectLostError, ObjectStoreFullError
from actorflow._core.base.resources import format_bytes
from actorflow._core.policy.extents import PAGE_BYTES
from actorflow._core.protocol.messages import (
    Allocate,
    Allocated,
    Carved,
    FreeExtent,
    FreeObject,
    LeavePull,
    MaySpill,
    Pin,
    Pinned,
    Pull,
    ReturnSlabs,
    Spillable,
    Stored,
    TakeCopy,
    Unpin,
    WriterLost,
)
from actorflow._core.serialization.values import Pickled
from actorflow._core.worker.wakers import FutureWaiter

if TYPE_CHECKING:
    from actorflow._core.io.peers import Peer
    from actorflow._core.io.ports import Arena
    from actorflow._core.worker.copies import Copies
    from actorflow._core.worker.core import Core


class LostExtent(ObjectLostError):
    """What a node answers when it cannot give what lies in an extent of `node`; its owner may be able to make the object again."""

    def __init__(self, node: str, extent: int, why: str) -> None:
        super().__init__(f"an object is lost: {why}")
        self.node = node
        self.extent = extent
        self.why = why


class Gone(Allocated, tag=0):
    """Stands for the answer of a node that is gone; never sent."""

    ok: bool = False


ALIGN = 64
"""Buffers start at multiples of this inside an extent: a cache line, and what vector code likes."""


SKEW_BYTES_MIN = 256 * 1024
"""Buffers from this size on start where a copy of them is fast: see Arena.skew."""


def layout(pickled: Pickled, skew: Callable[[bytes | memoryview], int] = lambda part: 0) -> tuple[int, list[tuple[int, int]]]:
    """Where the pickle (first) and its buffers go in an extent: (size, [(start, length), ...]). The size does not depend on `skew`."""
    spans: list[tuple[int, int]] = []
    at = 0
    for part in [pickled.data, *(pickled.buffers or ())]:
        length = len(part)
        start = at
        if length >= SKEW_BYTES_MIN:
            at = (at + PAGE_BYTES - 1) // PAGE_BYTES * PAGE_BYTES
            start = at + skew(part)
            at += PAGE_BYTES
        spans.append((start, length))
        at += (length + ALIGN - 1) // ALIGN * ALIGN
    return max(at, 1), spans


SLAB_BYTES_MAX = 64 * 1024 * 1024
SLAB_SHARE = 64
"""A slab is at most this part of the arena."""
SLAB_OBJECT_SHARE = 8
"""Objects over this part of a slab have an extent of their own."""
PREFAULT_AHEAD_BYTES = 16 * 1024 * 1024
"""So much of a slab is made resident before it is written."""
WARM_AFTER_S = 0.5
"""A driver that has its own cluster for so long gets a slab with all of its pages resident, whether or not it will need it: a first copy
into new shared memory is ten times slower. A short script is over before that."""
WARM_FOR_S = 10.0
"""After so long such a slab is given back, if nothing lies in it, and some time later its pages."""


class Slab:
    """An extent of ours that we carve into objects without asking, from its front (ST-5)."""

    __slots__ = ("index", "left", "number", "offset", "prefaulted", "warm")

    def __init__(self, number: int, offset: int, size: int) -> None:
        self.number = number
        self.offset = offset
        self.left = size
        self.index = 0
        self.prefaulted = offset
        """Up to here its pages are resident, or on their way."""
        self.warm = False
        """All of them are, so objects of any size that fit are best placed here."""


class StoreClient:
    """One process's way to the arena. An object of ours may be read here without asking, until we have agreed that it may go to disk."""

    def __init__(self, core: Core, arena: Arena | None) -> None:
        self._core = core
        self.arena = arena
        self._token = 0
        self._waiting: dict[int, Callable[[Any], None]] = {}
        self.unpinned: deque[tuple[int, bool]] = deque()
        """(extent, it is ours) of views that are gone."""
        self._slab: Slab | None = None
        self._next_slab: Slab | None = None
        self._asked = False
        self._next_is_warm = False
        self._slab_bytes = min(SLAB_BYTES_MAX, arena.size // SLAB_SHARE) // PAGE_BYTES * PAGE_BYTES if arena is not None else 0
        self._viewed: dict[int, int] = {}
        """Views of our own objects, by extent."""
        self._unheard: dict[str, list[tuple[str, int]]] = {}
        """What processes that died have handed over to us, by node and extent, until their connections have ended."""
        self._freed_later: set[int] = set()
        """Our own objects that are freed when their last view here is gone."""
        self._complete: set[int] = set()
        """Our own objects that are written, and that we know of: the others may not leave memory."""
        self._may_be_away: set[int] = set()
        """Those that may be on disk: they are pinned before they are read (ST-7)."""
        self._copies: Copies | None = None

    @property
    def copies(self) -> Copies:
        """What we know of other nodes that have objects of ours; made when there is something to know."""
        if self._copies is None:
            from actorflow._core.worker.copies import Copies

            self._copies = Copies(self._core, self)
        return self._copies

    # -- writing

    def warm_up(self) -> None:
        """Get a slab that is resident, for the first objects of a new arena: in the background, within some tenths of a second."""
        if self.arena is None or self._core.closed is not None:
            return
        with self._core.batch():
            slab = self._slab or self._next_slab
            if slab is not None:
                self._warm(slab)
            else:
                self._next_is_warm = True
                self._ask_for_slab()

    def _warm(self, slab: Slab) -> None:
        assert self.arena is not None
        end = slab.offset + slab.left
        self.arena.prefault(slab.prefaulted, end - slab.prefaulted)
        slab.prefaulted, slab.warm = end, True
        self._core.later(WARM_FOR_S, lambda: self._return_unused(slab))

    def _return_unused(self, slab: Slab) -> None:
        if self._next_slab is slab:
            self._core.node.send(FreeExtent(slab.number))
            self._next_slab = None

    def write_now(self, pickled: Pickled) -> Stored | None:
        """Write a pickle into our slab; None when there is no room in it. Any thread, not under the lock: the copy may take long.

        Raises ObjectStoreFullError where this process cannot map the arena.
        """
        if self.arena is None:
            return None
        size, _ = layout(pickled)
        with self._core.lock:
            place = self._carve(size)
        if place is None:
            return None
        try:
            return self.fill(place, pickled)
        except BaseException:
            with self._core.lock:
                self._core.node.send(FreeExtent(place.extent))
            raise

    def _carve(self, size: int) -> Allocated | None:
        """Take an object from our slab, and see to the next slab."""
        taken = (size + PAGE_BYTES - 1) // PAGE_BYTES * PAGE_BYTES
        large = size > self._slab_bytes // SLAB_OBJECT_SHARE
        if large:
            first = self._slab or self._next_slab
            if first is None or not first.warm or taken > first.left:
                return None
        if self._slab is not None and taken > self._slab.left:
            self._core.node.send(FreeExtent(self._slab.number))
            self._slab = None
        if self._slab is None:
            self._slab, self._next_slab = self._next_slab, None
        slab = self._slab
        if (slab is None or slab.left < self._slab_bytes // 2) and not large:
            self._ask_for_slab()
        if slab is None:
            return None
        slab.index += 1
        place = Allocated(0, slab.number | slab.index, slab.offset)
        slab.offset += taken
        slab.left -= taken
        self._core.node.send(Carved(place.extent, size))
        if not slab.left:
            self._slab = None
        self._prefault(slab)
        return place

    def _ask_for_slab(self) -> None:
        if self._asked or self._next_slab is not None or self._core.closed is not None:
            return
        self._asked = True

        def answered(message: Allocated) -> None:
            self._asked = False
            if message.extent:
                self._next_slab = Slab(message.extent, message.offset, self._slab_bytes)
                if self._next_is_warm:
                    self._next_is_warm = False
                    self._warm(self._next_slab)
                else:
                    self._prefault(self._next_slab)

        self._token += 1
        self._waiting[self._token] = answered
        self._core.node.send(Allocate(self._token, self._slab_bytes, slab=True))

    def _prefault(self, slab: Slab) -> None:
        ahead = min(slab.offset + PREFAULT_AHEAD_BYTES, slab.offset + slab.left)
        if ahead - slab.prefaulted >= PREFAULT_AHEAD_BYTES // 2 and self.arena is not None:
            self.arena.prefault(slab.prefaulted, ahead - slab.prefaulted)
            slab.prefaulted = ahead

    def return_slabs(self) -> None:
        """Give back what is left of our slabs."""
        for slab in (self._slab, self._next_slab):
            if slab is not None:
                self._core.node.send(FreeExtent(slab.number))
        self._slab = self._next_slab = None

    def on_return_slabs(self, peer: Peer, message: ReturnSlabs) -> None:
        """The node is short of room."""
        self.return_slabs()

    def write(self, pickled: Pickled, then: Callable[[Stored | Exception], None]) -> None:
        """Put a pickle into the arena; `then` gets where it is, or the error, under the lock. Any thread, under the lock."""
        size, _ = layout(pickled)

        def allocated(message: Allocated) -> None:
            # The copy may take long: not under the lock, and not in the middle of a batch of messages.
            self._core.ports.loop.call_soon(self._fill_then, message, pickled, then)

        self.ask_room(size, allocated)

    async def put(self, pickled: Pickled) -> Stored:
        """As `write`, for one who waits, and whose thread makes the copy. Raises ObjectStoreFullError, ClusterConnectionError."""
        core = self._core
        waiter = FutureWaiter(core.gates.current())
        answer: list[Allocated] = []
        given_up = False

        def allocated(message: Allocated) -> None:
            if given_up and not message.error:
                core.node.send(FreeExtent(message.extent))
            answer.append(message)
            waiter.settled(message)

        with core.lock:
            self.ask_room(layout(pickled)[0], allocated)
            core.flush_now(core.node)
        try:
            await waiter.future
            if answer[0].error:
                raise self.error_of(answer[0])
            return self.fill(answer[0], pickled)
        except BaseException:
            with core.lock:
                given_up = True
                if answer and not answer[0].error:
                    core.node.send(FreeExtent(answer[0].extent))
            raise

    def ask_room(self, size: int, then: Callable[[Allocated], None]) -> None:
        """Ask the node for an extent. Under the lock."""
        if self.arena is None:
            then(Allocated(0, error="this process has no shared memory: values over 100 KiB need the node's object store"))
            return
        self._ask_room(size, then)

    def _ask_room(self, size: int, then: Callable[[Allocated], None]) -> None:
        self._token += 1
        self._waiting[self._token] = then
        self._core.node.send(Allocate(self._token, size))

    def error_of(self, message: Allocated) -> Exception:
        """What the error in an answer means: no room, or nobody who could give any."""
        gone = type(message) is Gone and isinstance(self._core.closed, Exception)
        return self._core.closed if gone else ObjectStoreFullError(message.error)  # type: ignore[return-value]  # checked above

    def _fill_then(self, message: Allocated, pickled: Pickled, then: Callable[[Stored | Exception], None]) -> None:
        result: Stored | Exception
        try:
            result = self.error_of(message) if message.error else self.fill(message, pickled)
        except ObjectStoreFullError as error:
            result = error
        with self._core.batch():
            if isinstance(result, Exception) and not message.error:
                self._core.node.send(FreeExtent(message.extent))
            then(result)

    def fill(self, message: Allocated, pickled: Pickled) -> Stored:
        """Copy a pickle into the extent that was allocated for it. Raises ObjectStoreFullError where this process cannot map the arena."""
        assert self.arena is not None
        size, spans = layout(pickled, self.arena.skew)
        try:
            for (start, _), part in zip(spans, [pickled.data, *(pickled.buffers or ())], strict=True):
                self.arena.write(message.offset + start, part)
        except OSError as error:
            raise self._unmapped(f"{format_bytes(size)} cannot be written", size, error) from error
        return self._stored(message, size, spans, pickled)

    def _stored(self, place: Allocated, size: int, spans: list[tuple[int, int]], pickled: Pickled) -> Stored:
        refs = self._core.references.groups([ref._entry for ref in pickled.refs]) if pickled.refs else None
        return Stored(self._core.node_id, place.extent, place.offset, size, b"", spans, refs, self._core.identity.process_id)

    def _unmapped(self, what: str, size: int, error: OSError) -> ObjectStoreFullError:
        """The arena is there, and this process has no room for it: the error says which limit it is, and what to do."""
        assert self.arena is not None
        text = f"{what}: {error.strerror or error}"
        return ObjectStoreFullError(text, requested_bytes=size, capacity_bytes=self.arena.size)

    def owns(self, stored: Stored) -> None:
        """It is the value of an object of ours. Under the lock."""
        if stored.node == self._core.node_id:
            self._complete.add(stored.extent)
        else:
            self.copies.owns(stored)

    def holders(self, stored: Stored) -> list[str]:
        """The nodes that have an object, its home first, as far as this process knows. Under the lock."""
        return self._copies.holders(stored) if self._copies is not None else [stored.node]

    def node_leaves(self, node_id: str, *, gone: bool) -> None:
        """Another node is to leave, or is gone. Under the lock."""
        if not gone:
            self.copies.node_leaves(node_id)
        elif self._copies is not None:
            self._copies.node_gone(node_id)

    def knows(self, extent: int) -> bool:
        """True for an object of ours on this node that is in use. Under the lock."""
        return extent in self._complete

    def on_may_spill(self, peer: Peer, message: MaySpill) -> None:
        """The node is short of room."""
        # What this process has dropped, and has not counted yet, is not in the way.
        self._core.references.drain()
        self.drain()
        yes = [extent for extent in message.extents if extent in self._complete and extent not in self._viewed]
        self._may_be_away.update(yes)
        self._core.node.send(Spillable(yes, [extent for extent in message.extents if extent not in self._may_be_away]))

    def may_be_away(self, stored: Stored) -> bool:
        """True for an object of ours that must be read by `read`, not by `read_own`."""
        return stored.extent in self._may_be_away or stored.node != self._core.node_id

    def free(self, stored: Stored) -> None:
        """Its owner, which we are, has no use for it any more. Under the lock."""
        if self._copies is not None or stored.node != self._core.node_id:  # It may be the first of ours elsewhere.
            nodes = self.copies.freed(stored)
            if nodes:
                self._core.node.send(FreeObject(stored.node, stored.extent, nodes))
        if stored.node != self._core.node_id:
            return
        self._complete.discard(stored.extent)
        self._may_be_away.discard(stored.extent)
        if stored.extent in self._viewed:
            self._freed_later.add(stored.extent)
        else:
            self._core.node.send(FreeExtent(stored.extent))

    # -- reading

    def read_own(self, stored: Stored) -> tuple[memoryview, list[memoryview]]:
        """Map an object that this process owns: (pickle, buffers). Nobody needs to be asked.

        Raises ObjectLostError, ObjectStoreFullError.
        """
        if self.arena is None:
            raise ObjectLostError(f"an object of {stored.size} bytes is in the object store, and this process has no shared memory")
        extent = stored.extent
        with self._core.lock:
            self._viewed[extent] = self._viewed.get(extent, 0) + 1
        return self._views(stored, extent, stored.offset, own=True)

    def _views(self, stored: Stored, extent: int, offset: int, *, own: bool) -> tuple[memoryview, list[memoryview]]:
        assert self.arena is not None
        gone, unpinned = (extent, own), self.unpinned
        try:
            view = self.arena.view(offset, stored.size)
        except OSError as error:
            unpinned.append(gone)
            raise self._unmapped(f"an object of {format_bytes(stored.size)} cannot be read", stored.size, error) from error
        self.arena.watch(view, lambda: unpinned.append(gone))
        parts = [view[start : start + length] for start, length in stored.spans]
        return parts[0], parts[1:]

    async def read(self, stored: Stored) -> tuple[bytes | memoryview, list[memoryview]]:
        """Map and pin an object, or a copy of it that is fetched first: (pickle, buffers). The pin goes with the last view.

        Raises ObjectLostError, ObjectStoreFullError.
        """
        if self.arena is None:
            raise ObjectLostError(f"an object of {stored.size} bytes is in the object store, and this process has no shared memory")
        answer = await self._reach(stored)
        return self._views(stored, answer.extent or stored.extent, answer.offset, own=False)

    async def _reach(self, stored: Stored) -> Pinned:
        """Have it, or a copy, pinned at our node. Raises ObjectLostError, ObjectStoreFullError, and what ended the runtime."""
        answer = await self._pin(stored, elsewhere=stored.node != self._core.node_id)
        if not answer.ok and answer.others:
            # It is gone from where it was written, which is here. Somebody may have a copy.
            copied = await self._pin(stored, elsewhere=True)
            answer = copied if copied.ok or copied.full else answer
        if not answer.ok:
            if answer.full:
                raise ObjectStoreFullError(f"an object cannot be read: {answer.error}")
            why = answer.error or f"it is not in the object store of node {stored.node} any more"
            raise LostExtent(stored.node, stored.extent, why)
        return answer

    def pull(self, stored: Stored, then: Callable[[Any], None]) -> None:
        """Have a copy of an object of another node pinned at ours; `then` gets the answer. Under the lock."""
        self._token += 1
        self._waiting[self._token] = then
        self._core.node.send(Pull(self._token, stored.node, stored.extent, stored.size, stored.owner, stored.owner_node))

    def take_copy(self, stored: Stored, then: Callable[[Allocated], None]) -> None:
        """The copy of an object of ours that our node has becomes an object of its own; `then` gets where it is. Under the lock."""
        self._token += 1
        self._waiting[self._token] = then
        self._core.node.send(TakeCopy(self._token, stored.node, stored.extent))

    async def _pin(self, stored: Stored, *, elsewhere: bool) -> Pinned:
        """The node's answer; an error of ours when the node is gone."""
        core = self._core
        with core.lock:
            core.check_open()  # Nobody answers any more.
            waiter = FutureWaiter(core.gates.current())
            self._token += 1
            answer: list[Any] = []

            def pinned(message: Any) -> None:
                answer.append(message)
                waiter.settled(message)

            token, extent = self._token, stored.extent
            self._waiting[token] = pinned
            if elsewhere:
                core.node.send(Pull(token, stored.node, extent, stored.size, stored.owner, stored.owner_node))
            else:
                core.node.send(Pin(token, extent))
            core.flush_now(core.node)
        try:
            await waiter.future
        except asyncio.CancelledError:
            with core.lock:
                if elsewhere and not answer:
                    core.node.send(LeavePull(token))
                self._unpin_when_pinned(token, extent, answer)
            raise
        found = answer[0] if answer else None
        if type(found) is Gone:
            raise self.error_of(found)
        return found if type(found) is Pinned else Pinned(token, ok=False)

    def _unpin_when_pinned(self, token: int, extent: int, answer: list[Any]) -> None:
        """Nobody waits for this pin any more, but the node may have counted it. Under the lock."""

        def unpin(message: Any) -> None:
            if message.ok:
                self.unpinned.append((getattr(message, "extent", 0) or extent, False))

        if answer:
            unpin(answer[0])
        else:
            self._waiting[token] = unpin

    def drain(self) -> None:
        """Count the views that are gone, and tell the node."""
        while self.unpinned:
            extent, own = self.unpinned.popleft()
            if not own:
                self._core.node.send(Unpin(extent))
                continue
            left = self._viewed[extent] - 1
            if left:
                self._viewed[extent] = left
                continue
            del self._viewed[extent]
            if extent in self._freed_later:
                self._freed_later.discard(extent)
                self._core.node.send(FreeExtent(extent))

    def _answered(self, message: Allocated | Pinned) -> None:
        then = self._waiting.pop(message.token, None)
        if then is not None:
            then(message)
        else:
            assert self._core.closed is not None, "an answer to what nobody has asked"

    def on_allocated(self, peer: Peer, message: Allocated) -> None:
        """The node's answer."""
        self._answered(message)

    def on_pinned(self, peer: Peer, message: Pinned) -> None:
        """The node's answer."""
        self._answered(message)

    def on_writer_lost(self, peer: Peer, message: WriterLost) -> None:
        """A worker died. What it has said may still be on its way: what became of its results is known when its connection has ended."""
        writer = self._core.known_peer(message.process_id)
        written = [(message.node or self._core.node_id, extent) for extent in message.extents]
        if writer is None or writer.lost:
            self._free_unheard(written)
        else:
            self._unheard.setdefault(message.process_id, []).extend(written)

    def peer_lost(self, process_id: str) -> None:
        """The connection to a process has ended."""
        written = self._unheard.pop(process_id, None)
        if written is not None:
            self._free_unheard(written)

    def _free_unheard(self, written: list[tuple[str, int]]) -> None:
        for node, extent in written:
            if node != self._core.node_id:
                if not self.copies.knows(node, extent):
                    self._core.node.send(FreeObject(node, extent, [node]))
            elif extent not in self._complete and extent not in self._viewed:
                self._core.node.send(FreeExtent(extent))

    def left_over(self) -> list[str]:
        """What should not be here at rest, for leak checks: of more than its tables."""
        return []

    def fail_all(self, reason: str) -> None:
        """The node is gone: no answer will come."""
        waiting, self._waiting = self._waiting, {}
        for then in waiting.values():
            then(Gone(0, error=reason))
