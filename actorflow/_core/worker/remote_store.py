"""The store of a driver that shares no memory with its node: its large values lie there all the same, and travel in parts (node/parts.py).

It has the face of StoreClient. Room, pins and copies are asked of the node in the same words; what a process of the node would copy into
its mapping, or read there, is sent and received here. So each reading is a copy of its own, in private memory.

    RM-1  What is put is an object when the node has all of it, and not before: whoever hears of it may read it at once.
    RM-2  Who gives up a put or a get gives back its room or its pin, at once or when the node's answer is here.
"""

from __future__ import annotations

import asyncio
import contextlib
import mmap
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from actorflow._core.base.errors import ObjectStoreFullError
from actorflow._core.base.resources import format_bytes
from actorflow._core.policy.part_window import PartQueue
from actorflow._core.protocol.messages import Allocated, FreeExtent, LeaveParts, Part, PartsTaken, Pinned, ReadParts, Stored, Unpin
from actorflow._core.serialization.values import Pickled
from actorflow._core.worker.store import LostExtent, StoreClient, layout
from actorflow._core.worker.wakers import FutureWaiter

if TYPE_CHECKING:
    from actorflow._core.io.peers import Peer
    from actorflow._core.worker.core import Core

READS_AT_ONCE = 128
"""Values that are read at a time: they share the link, and more of them would only make all of them late. The others wait, pinned."""


class _Upload:
    """A value on its way to the node: `given_up` when nobody wants it there any more."""

    __slots__ = ("given_up", "pickled", "place", "size", "spans", "then")

    def __init__(self, pickled: Pickled, then: Callable[[Stored | Exception], None]) -> None:
        self.pickled = pickled
        self.then = then
        self.size, self.spans = layout(pickled)
        self.place: Allocated | None = None
        self.given_up = False


class _Cutter:
    """Cuts the content of an extent, as `layout` has it, out of the pickle and its buffers."""

    def __init__(self, upload: _Upload) -> None:
        parts = [upload.pickled.data, *(upload.pickled.buffers or ())]
        self._pieces = [(start, memoryview(part)) for (start, _), part in zip(upload.spans, parts, strict=True)]
        self._at = 0
        """The first piece that is not all sent: the parts come in order."""

    def cut(self, start: int, length: int) -> memoryview:
        """The next part; between the pieces there are zeros."""
        pieces, end = self._pieces, start + length
        while self._at + 1 < len(pieces) and pieces[self._at + 1][0] <= start:
            self._at += 1
        first, content = pieces[self._at]
        if start >= first and end <= first + len(content):
            return content[start - first : end - first]
        part = bytearray(length)
        for first, content in pieces[self._at :]:
            if first >= end:
                break
            low, high = max(first, start), min(first + len(content), end)
            if low < high:
                part[low - start : high - start] = content[low - first : high - first]
        return memoryview(part)


def _memory(size: int) -> mmap.mmap:
    """Private memory that is not written before it is filled, as a bytearray would be. Raises OSError."""
    if not hasattr(mmap, "MAP_PRIVATE"):
        return mmap.mmap(-1, size)  # Windows.
    found = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # Where the kernel has none.
            found.madvise(mmap.MADV_HUGEPAGE)
    return found


class _Read:
    """A value on its way here."""

    __slots__ = ("content", "extent", "left", "problem", "size", "then", "token")

    def __init__(self, token: int, extent: int, size: int, content: mmap.mmap, then: Callable[[Any], None]) -> None:
        self.token = token
        self.extent = extent
        self.size = size
        self.content = content
        self.left = size
        self.then = then
        self.problem = ""


class RemoteStore(StoreClient):
    """See the module."""

    def __init__(self, core: Core) -> None:
        super().__init__(core, None)
        self._sending = PartQueue()
        self._uploads: dict[int, tuple[_Upload, _Cutter]] = {}
        """By extent, those that have one."""
        self._reads: dict[int, _Read] = {}
        """By token, those that the node has been asked for."""
        self._reads_waiting: deque[_Read] = deque()
        self._taken = 0
        core.take(Part, self._on_part)
        core.take(PartsTaken, self._on_taken)

    # -- writing

    def ask_room(self, size: int, then: Callable[[Allocated], None]) -> None:
        """See StoreClient."""
        self._ask_room(size, then)

    def write(self, pickled: Pickled, then: Callable[[Stored | Exception], None]) -> None:
        """See StoreClient. The value must stay as it is until then."""
        self._begin(_Upload(pickled, then))

    async def put(self, pickled: Pickled) -> Stored:
        """See StoreClient. The value is sent from where it is: nobody may change it meanwhile."""
        core = self._core
        waiter = FutureWaiter(core.gates.current())
        results: list[Stored | Exception] = []

        def written(result: Stored | Exception) -> None:
            results.append(result)
            waiter.settled(result)

        upload = _Upload(pickled, written)
        with core.lock:
            core.check_open()  # Nobody would answer any more.
            self._begin(upload)
            core.flush_now(core.node)
        try:
            await waiter.future
        except asyncio.CancelledError:
            with core.lock:
                self._give_up(upload, results)
            raise
        [result] = results
        if isinstance(result, Exception):
            raise result
        return result

    def _begin(self, upload: _Upload) -> None:
        def allocated(message: Allocated) -> None:
            if upload.given_up:
                if not message.error:
                    self._core.node.send(FreeExtent(message.extent))  # RM-2
            elif message.error:
                upload.then(self.error_of(message))
            else:
                upload.place = message
                self._uploads[message.extent] = upload, _Cutter(upload)
                self._sending.begin(message.extent, upload.size)
                self._push()

        self.ask_room(upload.size, allocated)

    def _give_up(self, upload: _Upload, results: list[Stored | Exception]) -> None:
        """RM-2. Under the lock."""
        upload.given_up = True
        place = upload.place
        if place is None or (results and isinstance(results[0], Exception)):
            return
        self._uploads.pop(place.extent, None)
        self._sending.drop(place.extent)
        self._core.node.send(FreeExtent(place.extent))

    def _push(self) -> None:
        """Send what the window has room for. Under the lock."""
        node, now = self._core.node, self._core.ports.monotonic()
        while (piece := self._sending.next(now)) is not None:
            data = self._uploads[piece.key][1].cut(piece.start, piece.length)
            node.send(Part(piece.key, piece.start, data))  # type: ignore[arg-type]  # the encoder takes any buffer
            node.flush()  # A frame of its own: what is said meanwhile goes between.

    def _on_taken(self, peer: Peer, message: PartsTaken) -> None:
        """The node has written it."""
        if self._core.closed is not None:
            return
        for extent in self._sending.take(message.bytes_total, self._core.ports.monotonic()):
            found = self._uploads.pop(extent, None)
            if found is None:
                continue  # Given up.
            upload, place = found[0], found[0].place
            assert place is not None, "RM-1: what is sent has a place"
            upload.then(self._stored(place, upload.size, upload.spans, upload.pickled))
        self._push()

    # -- reading

    def may_be_away(self, stored: Stored) -> bool:
        """See StoreClient: everything is."""
        return True

    async def read(self, stored: Stored) -> tuple[bytes | memoryview, list[memoryview]]:
        """See StoreClient; what it gives is a copy, read-only like all the others."""
        core = self._core
        answer = await self._reach(stored)
        waiter = FutureWaiter(core.gates.current())
        with core.lock:
            read = self._ask_parts(stored, answer, waiter.settled)
        try:
            await waiter.future
            if core.closed is not None and read.left:
                raise core.closed
        finally:
            with core.lock:
                self._leave(read)
        if read.problem:
            raise LostExtent(stored.node, stored.extent, read.problem)
        view = memoryview(read.content)[: stored.size].toreadonly()
        parts = [view[start : start + length] for start, length in stored.spans]
        return parts[0], parts[1:]

    def _ask_parts(self, stored: Stored, answer: Pinned, then: Callable[[Any], None]) -> _Read:
        """Have the content sent of what is pinned. Under the lock. Raises ObjectStoreFullError, and what ended the runtime meanwhile."""
        self._core.check_open()
        extent = answer.extent or stored.extent
        try:
            content = _memory(stored.size)
        except OSError as error:
            self._core.node.send(Unpin(extent))
            text = f"an object of {format_bytes(stored.size)} cannot be read: this process has no memory for it ({error.strerror or error})"
            raise ObjectStoreFullError(text, requested_bytes=stored.size) from error
        self._token += 1
        read = _Read(self._token, extent, stored.size, content, then)
        self._reads_waiting.append(read)
        self._read_on()
        self._core.flush_now(self._core.node)
        return read

    def _read_on(self) -> None:
        while self._reads_waiting and len(self._reads) < READS_AT_ONCE:
            read = self._reads_waiting.popleft()
            self._reads[read.token] = read
            self._core.node.send(ReadParts(read.token, read.extent, read.size))

    def _leave(self, read: _Read) -> None:
        """It is here, or not wanted any more (RM-2). Under the lock."""
        node = self._core.node
        if read in self._reads_waiting:
            self._reads_waiting.remove(read)
        elif self._reads.pop(read.token, None) is not None:
            node.send(LeaveParts(read.token))
            self._read_on()
        node.send(Unpin(read.extent))

    def _on_part(self, peer: Peer, message: Part) -> None:
        """Some bytes of a value that we read, or read until a moment ago."""
        size = len(message.data)
        self._taken += size
        if size:
            peer.send(PartsTaken(self._taken))
        read = self._reads.get(message.number)
        if read is None:
            return
        if size:
            read.content[message.start : message.start + size] = message.data
            read.left -= size
        else:
            read.problem = f"it is not in the object store of node {self._core.node_id} any more"
        if not read.left or not size:
            del self._reads[message.number]
            self._read_on()
            read.then(None)

    # -- the end

    def fail_all(self, reason: str) -> None:
        """See StoreClient."""
        super().fail_all(reason)
        error = self._core.closed
        assert isinstance(error, Exception)
        uploads, self._uploads, self._sending = self._uploads, {}, PartQueue()
        for upload, _ in uploads.values():
            upload.then(error)
        reads, self._reads, self._reads_waiting = [*self._reads.values(), *self._reads_waiting], {}, deque()
        for read in reads:
            read.then(None)

    def left_over(self) -> list[str]:
        """What should not be here at rest, for leak checks."""
        found = [f"a put into extent {extent}" for extent in self._uploads]
        found += [f"a read of extent {read.extent}" for read in [*self._reads.values(), *self._reads_waiting]]
        return [*found, f"{w} bytes under way to the node"] if (w := self._sending.window.under_way) else found
