"""The node as the store of drivers that share no memory with it: their values come and go in parts, over the link that they have anyway.

Room, pins, spilling and copies from other nodes are the store's and the transfers' business, as for every process of the node: such a
driver says Allocate, Pin, Pull, Unpin and FreeExtent. Here are only the bytes.

    PS-1  For each driver at most WINDOW_BYTES_MAX are on their way to it, whatever it asks for, and nothing is kept of what comes from
          it: a part is written where it belongs and told as taken. What a driver may have begun at a time is bounded too.
    PS-2  Whatever was begun ends with its driver: nothing more is sent, its pins go, and so does the room that it had not filled.
    PS-3  A driver writes into extents that it owns, within their bounds, and nowhere else.
"""

from __future__ import annotations

import logging

from actorflow._core.io.peers import Peer
from actorflow._core.node.context import NodeContext
from actorflow._core.node.store import Store
from actorflow._core.policy.part_window import PartQueue
from actorflow._core.protocol.messages import LeaveParts, Part, PartsTaken, ReadParts

log = logging.getLogger("actorflow")

READS_MAX = 1024
"""Values that one driver may read at a time; ours ask for fewer (worker/remote_store.py)."""


class _Driver:
    """What is under way with one driver."""

    __slots__ = ("peer", "queue", "reads", "taken")

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.queue = PartQueue()
        self.reads: dict[int, tuple[int, memoryview]] = {}
        """By token, the extent, which is pinned, and a view of what is read of it."""
        self.taken = 0


class Parts:
    """See the module."""

    def __init__(self, context: NodeContext, store: Store) -> None:
        self._context = context
        self._store = store
        self._drivers: dict[str, _Driver] = {}

    def _driver(self, peer: Peer) -> _Driver:
        driver = self._drivers.get(peer.process_id)
        if driver is None:
            driver = self._drivers[peer.process_id] = _Driver(peer)
        return driver

    def client_lost(self, process_id: str) -> None:
        """A process is gone; the store gives up its room, and what it had pinned itself (PS-2)."""
        driver = self._drivers.pop(process_id, None)
        if driver is not None:
            for token in list(driver.reads):
                self._end(driver, token)

    # -- from the driver

    def part(self, peer: Peer, message: Part) -> None:
        """Some bytes of a value that a driver puts here."""
        extent, size = self._store.book.find(message.number), len(message.data)
        if (
            extent is None or extent.owner != peer.process_id or extent.carved is not None or self._store.book.is_away(message.number)
            or message.start < 0 or message.start + size > extent.size
        ):  # fmt: skip
            self._close(peer, f"has sent {size} bytes for extent {message.number}, from {message.start} on, which is no room of its (PS-3)")
            return
        if not message.start and size < extent.size:
            self._store.make_ready(extent.offset, extent.size)  # The rest follows: its first touch is what would make it slow.
        self._store.write(extent.offset + message.start, message.data)
        driver = self._driver(peer)
        driver.taken += size
        peer.send(PartsTaken(driver.taken))

    # -- to the driver

    def read(self, peer: Peer, message: ReadParts) -> None:
        """A driver reads what it has pinned. It is pinned once more, so it stays to the last part whatever the driver does."""
        driver = self._driver(peer)
        if message.token in driver.reads or len(driver.reads) >= READS_MAX:
            self._close(peer, f"reads {len(driver.reads)} values at a time, of {READS_MAX} that it may, or one of them twice (PS-1)")
            return
        extent = self._store.book.find(message.extent)
        there = extent is not None and not self._store.book.is_away(message.extent) and 0 < message.size <= extent.size
        if not there or self._store.pin_for(peer.process_id, message.extent) is None:
            peer.send(Part(message.token, 0, b""))
            return
        driver.reads[message.token] = (message.extent, self._store.view(message.extent, 0, message.size))
        driver.queue.begin(message.token, message.size)
        self._push(driver)

    def taken(self, peer: Peer, message: PartsTaken) -> None:
        """A driver has taken what was sent."""
        driver = self._driver(peer)
        try:
            driver.queue.take(message.bytes_total, self._context.now())
        except ValueError as error:
            self._close(peer, f"makes no sense: {error} (PS-1)")
            return
        self._push(driver)

    def leave(self, peer: Peer, message: LeaveParts) -> None:
        """A driver has given up."""
        driver = self._driver(peer)
        driver.queue.drop(message.token)
        self._end(driver, message.token)
        self._push(driver)

    def _push(self, driver: _Driver) -> None:
        now = self._context.now()
        while (piece := driver.queue.next(now)) is not None:
            # A copy: while the connection is away messages wait, and the extent may be another's before they leave.
            data = bytes(driver.reads[piece.key][1][piece.start : piece.start + piece.length])
            driver.peer.send(Part(piece.key, piece.start, data))
            driver.peer.flush()  # A frame of its own: the other side can begin with it, and what is said meanwhile goes between.
            if piece.last:
                self._end(driver, piece.key)

    def _end(self, driver: _Driver, token: int) -> None:
        found = driver.reads.pop(token, None)
        if found is not None:
            extent = found[0]
            del found  # The view, before its range may be given back.
            self._store.unpin_for(driver.peer.process_id, extent)

    def _close(self, peer: Peer, why: str) -> None:
        log.error("%r %s; its connection is closed", peer, why)
        peer.close(abort=True)

    # -- looking

    def left_over(self) -> list[str]:
        """What should not be here at rest, for leak checks."""
        found = [f"the read {token} of driver {name}" for name, driver in self._drivers.items() for token in driver.reads]
        return found + [f"{w} bytes under way to driver {name}" for name, d in self._drivers.items() if (w := d.queue.window.under_way)]
