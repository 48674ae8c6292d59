"""The object store of a node: who has which extent of the arena, who reads it, who waits for room. Pure.

An extent belongs to the process that asked for it, which writes it before anyone else hears of it; the
writer of a result then hands it over to the caller. It is freed when its owner has freed it, or is gone,
and no reader has it pinned.

ST-1: extents do not overlap, and those in use plus the free space make the arena.
ST-2: an extent that is pinned keeps its place.
ST-3: a freed extent is never pinned again, and extent numbers are never used again.
ST-4: waiting allocations are served in the order of arrival, and none before one that came earlier (a
      small one that overtakes would keep a big one waiting for ever). A waiting allocation holds nothing
      (SEMANTICS 16).
ST-5: a slab is an extent that its client carves into objects without asking, from its front and in order of
      their numbers: slab | 1, slab | 2, ... So the book knows where each object lies, and whether one that it
      has not heard of is still to come or was freed.
ST-6: a slab never waits for room, and is given back when others do.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from actorflow._core.base.resources import format_bytes
from actorflow._core.policy.extents import PAGE_BYTES, FreeSpace, pages

INDEX_BITS = 20
"""Objects of one slab. The numbers of all other extents have zeros there."""
INDEX_MASK = (1 << INDEX_BITS) - 1
SLABS_SHARE_MAX = 0.5
"""No slabs are given when so much of the arena is in use."""
NAMED_MAX = 3
"""Clients that the error of a full store names."""


@dataclass(frozen=True, slots=True)
class Granted:
    """Room for an allocation: `size` bytes at `offset`."""

    client: str
    token: int
    extent: int
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Denied:
    """No room for an allocation; `reason` has the numbers."""

    client: str
    token: int
    reason: str


@dataclass(frozen=True, slots=True)
class Freed:
    """A range that nobody uses any more: its pages may go back to the system."""

    extent: int
    offset: int
    size: int


class Extent:
    """One allocated range. `size` is what was asked; the range has whole pages. `carved`: objects taken from a slab; None: no slab.

    `writer`: who has handed it over to its owner.
    """

    __slots__ = ("carved", "freed", "number", "offset", "owner", "pins", "size", "writer")

    def __init__(self, number: int, offset: int, size: int, owner: str) -> None:
        self.number = number
        self.offset = offset
        self.size = size
        self.owner = owner
        self.freed = False
        self.pins = 0
        self.carved: int | None = None
        self.writer = ""


class _Client:
    """What one client has in the store."""

    __slots__ = ("owned", "pinned_bytes", "pins", "waiting")

    def __init__(self) -> None:
        self.owned: dict[int, None] = {}
        self.pins: dict[int, int] = {}
        self.pinned_bytes = 0
        self.waiting: dict[int, None] = {}


@dataclass(slots=True)
class _Waiter:
    """An allocation that waits."""

    client: str
    token: int
    size: int
    since: float


class ExtentBook:
    """All extents of a node's arena."""

    __slots__ = (
        "_clients", "_extents", "_number", "_progress_at", "_space", "_wait_number", "_waiters", "patience_s",
        "size", "waiting_max",
    )  # fmt: skip

    def __init__(self, size: int, *, waiting_max: int = 10_000, patience_s: float = 10.0) -> None:
        self.size = size
        self.waiting_max = waiting_max
        self.patience_s = patience_s
        """An allocation fails when it has waited so long, and for so long nothing was freed either."""
        self._space = FreeSpace(size // PAGE_BYTES)
        self._extents: dict[int, Extent] = {}
        self._number = 0
        self._clients: dict[str, _Client] = {}
        self._waiters: OrderedDict[int, _Waiter] = OrderedDict()
        self._wait_number = 0
        self._progress_at = float("-inf")

    # -- allocating

    def allocate(self, client: str, token: int, size: int, now: float) -> Granted | Denied | None:
        """Ask for `size` bytes that will belong to `client`. None: it waits."""
        if size <= 0:
            return Denied(client, token, f"an extent has at least 1 byte, and {size} were asked for")
        if pages(size) > self._space.total:
            reason = (
                f"{format_bytes(size)} were asked for, and the object store has {format_bytes(self.size)}. "
                f"Use smaller pieces, or start with more object_store_memory"
            )
            return Denied(client, token, reason)
        if not self._waiters:
            granted = self._grant(client, token, size)
            if granted is not None:
                return granted
        if len(self._waiters) >= self.waiting_max:
            return Denied(client, token, f"{len(self._waiters)} allocations wait already. {self._numbers(str)}")
        self._wait_number += 1
        self._waiters[self._wait_number] = _Waiter(client, token, size, now)
        self._client(client).waiting[self._wait_number] = None
        return None

    def allocate_slab(self, client: str, token: int, size: int) -> Granted | Denied:
        """Ask for a slab of `size` bytes."""
        if self._waiters or self.used_bytes() + size > self.size * SLABS_SHARE_MAX:
            return Denied(client, token, "no room for a slab")
        granted = self._grant(client, token, size)
        if granted is None:
            return Denied(client, token, "no room for a slab in one piece")
        self._extents[granted.extent].carved = 0
        return granted

    def carve(self, client: str, number: int, size: int) -> bool:
        """The client has taken an object of `size` bytes from the front of its slab (ST-5). False when it has no such slab (any more)."""
        slab = self._extents.get(number & ~INDEX_MASK)
        count = pages(size)
        if slab is None or slab.carved is None or slab.owner != client or slab.freed or count * PAGE_BYTES > slab.size:
            return False
        if number & INDEX_MASK != slab.carved + 1 or size <= 0:
            return False
        slab.carved += 1
        self._extents[number] = Extent(number, slab.offset, size, client)
        self._client(client).owned[number] = None
        slab.offset += count * PAGE_BYTES
        slab.size -= count * PAGE_BYTES
        if not slab.size:
            del self._extents[slab.number]
            self._clients[client].owned.pop(slab.number, None)
        return True

    def to_come(self, number: int) -> bool:
        """True for an object that its slab's client may have taken, and that the book has not heard of yet (ST-5)."""
        slab = self._extents.get(number & ~INDEX_MASK)
        return slab is not None and slab.carved is not None and not slab.freed and number & INDEX_MASK > slab.carved

    def slab_clients(self) -> list[str]:
        """Who has slabs."""
        return list(dict.fromkeys(extent.owner for extent in self._extents.values() if extent.carved is not None and not extent.freed))

    def free_ranges(self) -> list[tuple[int, int]]:
        """(offset, size) of all that is free, in bytes."""
        return [(start * PAGE_BYTES, count * PAGE_BYTES) for start, count in self._space.extents()]

    def serve(self, now: float) -> list[Granted]:
        """Give room to those who wait, in order, as far as it goes."""
        served = []
        while self._waiters:
            number, waiter = next(iter(self._waiters.items()))
            granted = self._grant(waiter.client, waiter.token, waiter.size)
            if granted is None:
                break
            self._forget_waiter(number)
            self._progress_at = now
            served.append(granted)
        return served

    def expire(self, now: float, name: Callable[[str], str] = str) -> list[Denied]:
        """Allocations that give up after `patience_s` without progress. `name`: what to call a client."""
        if now - self._progress_at < self.patience_s:
            return []
        denied = []
        while self._waiters:
            number, waiter = next(iter(self._waiters.items()))
            if now - waiter.since < self.patience_s:
                break
            self._forget_waiter(number)
            asked = f"{format_bytes(waiter.size)} asked for by {name(waiter.client)}"
            reason = f"{asked} did not come free within {self.patience_s:g} s. {self._numbers(name)}"
            denied.append(Denied(waiter.client, waiter.token, reason))
        return denied

    # -- handing over, freeing and pinning

    def hand_over(self, client: str, number: int, owner: str) -> bool:
        """The extent belongs to `owner` from now on. False when it is not for the client to give."""
        extent = self._extents.get(number)
        if extent is None or extent.freed or extent.owner not in (client, owner):
            return False
        if extent.owner != owner:
            del self._clients[client].owned[number]
            self._forget_client(client)
            extent.owner, extent.writer = owner, client
            self._client(owner).owned[number] = None
        return True

    def written_by(self, client: str) -> dict[str, list[int]]:
        """What a process has handed over and is still there, by owner."""
        found: dict[str, list[int]] = {}
        for extent in self._extents.values():
            if extent.writer == client and not extent.freed:
                found.setdefault(extent.owner, []).append(extent.number)
        return found

    def free(self, number: int, now: float) -> Freed | None:
        """The owner needs the extent no more: free it now, or when its last pin goes. Idempotent."""
        extent = self._extents.get(number)
        if extent is None or extent.freed:
            return None
        extent.freed = True
        return self._free_if_unused(extent, now)

    def pin(self, client: str, number: int) -> bool:
        """A client reads the extent from now on. False when it is not there any more (ST-3)."""
        extent = self._extents.get(number)
        if extent is None or extent.freed:
            return False
        record = self._client(client)
        count = record.pins.get(number, 0)
        record.pins[number] = count + 1
        if count == 0:
            record.pinned_bytes += extent.size
        extent.pins += 1
        return True

    def unpin(self, client: str, number: int, now: float) -> Freed | None:
        """One pin less. Unknown pins are ignored: a lost connection has dropped them."""
        record, extent = self._clients.get(client), self._extents.get(number)
        count = record.pins.get(number, 0) if record is not None else 0
        if record is None or extent is None or count == 0:
            return None
        self._drop_pins(record, extent, 1)
        self._forget_client(client)
        return self._free_if_unused(extent, now)

    def client_lost(self, client: str, now: float) -> list[Freed]:
        """A process is gone: its waiting allocations, its pins, and the extents that it owned."""
        record = self._clients.get(client)
        if record is None:
            return []
        for waiting in list(record.waiting):
            self._forget_waiter(waiting)
        touched = dict.fromkeys(record.pins)
        for number in list(record.pins):
            self._drop_pins(record, self._extents[number], record.pins[number])
        for number in record.owned:
            self._extents[number].freed = True
            touched[number] = None
        freed = [self._free_if_unused(self._extents[number], now) for number in touched]
        self._clients.pop(client, None)
        return [range_ for range_ in freed if range_ is not None]

    # -- looking

    @property
    def waiting(self) -> int:
        """Allocations that wait."""
        return len(self._waiters)

    def used_bytes(self) -> int:
        """Bytes in use, in whole pages."""
        return (self._space.total - self._space.free) * PAGE_BYTES

    def extents(self) -> list[Extent]:
        """All extents in use, oldest first."""
        return list(self._extents.values())

    def _numbers(self, name: Callable[[str], str]) -> str:
        """The state of the store in a sentence: SEMANTICS 16 wants holder and waiter named."""
        pinned = sum(extent.size for extent in self._extents.values() if extent.pins)
        holders = heapq.nlargest(NAMED_MAX, ((c.pinned_bytes, client) for client, c in self._clients.items() if c.pinned_bytes))
        who = ", ".join(f"{format_bytes(size)} by {name(client)}" for size, client in holders)
        return (
            f"The object store has {format_bytes(self.size)}: {format_bytes(self.used_bytes())} used, "
            f"{format_bytes(pinned)} pinned{f' ({who})' if who else ''}, the largest free piece is "
            f"{format_bytes(self._space.largest() * PAGE_BYTES)}, {len(self._waiters)} more wait. "
            f"Drop references and views that are not needed, or start with more object_store_memory"
        )

    # -- bookkeeping

    def _grant(self, client: str, token: int, size: int) -> Granted | None:
        start = self._space.take(pages(size))
        if start is None:
            return None
        self._number += 1 << INDEX_BITS
        extent = Extent(self._number, start * PAGE_BYTES, size, client)
        self._extents[extent.number] = extent
        self._client(client).owned[extent.number] = None
        return Granted(client, token, extent.number, extent.offset, size)

    def _free_if_unused(self, extent: Extent, now: float) -> Freed | None:
        if not extent.freed or extent.pins:
            return None
        del self._extents[extent.number]
        self._space.give(extent.offset // PAGE_BYTES, pages(extent.size))
        self._progress_at = now
        owner = self._clients.get(extent.owner)
        if owner is not None:
            owner.owned.pop(extent.number, None)
            self._forget_client(extent.owner)
        return Freed(extent.number, extent.offset, pages(extent.size) * PAGE_BYTES)

    def _drop_pins(self, record: _Client, extent: Extent, count: int) -> None:
        extent.pins -= count
        left = record.pins[extent.number] - count
        assert extent.pins >= 0, "ST-2: a pin was dropped twice"
        assert left >= 0, "ST-2: a client dropped more pins than it had"
        if left:
            record.pins[extent.number] = left
        else:
            del record.pins[extent.number]
            record.pinned_bytes -= extent.size

    def _forget_waiter(self, number: int) -> None:
        client = self._waiters.pop(number).client
        self._clients[client].waiting.pop(number)
        self._forget_client(client)

    def _client(self, client: str) -> _Client:
        record = self._clients.get(client)
        if record is None:
            record = self._clients[client] = _Client()
        return record

    def _forget_client(self, client: str) -> None:
        record = self._clients.get(client)
        if record is not None and not (record.owned or record.pins or record.waiting):
            del self._clients[client]

    def check(self) -> None:
        """Assert the invariants; for tests."""
        spans = [(e.offset // PAGE_BYTES, pages(e.size)) for e in self._extents.values()]
        spans = sorted(spans + self._space.extents())
        at = 0
        for start, length in spans:
            assert start == at, "ST-1: a gap or an overlap"
            at = start + length
        assert at == self._space.total, "ST-1: the arena is covered"
        free = self._space.extents()
        assert all(a + n < b for (a, n), (b, _) in pairwise(free)), "FS-1: free extents do not touch"
        for number, extent in self._extents.items():
            pins = sum(record.pins.get(number, 0) for record in self._clients.values())
            assert extent.pins == pins, "ST-2: pins are counted per client"
            assert not extent.freed or extent.pins, "ST-2: a freed extent lives only while it is pinned"
            owner = self._clients.get(extent.owner)
            assert extent.freed or (owner is not None and number in owner.owned), "ST-1: everything is owned"
