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
ST-7: an extent leaves memory only when it is complete, nobody has it pinned, and its owner has said that it will pin it before it
      reads it again. Its content is then on disk, whole, before its range is free.
ST-8: what is on disk is deleted when the extent is freed, and not before.

    HERE -> LEAVING -> AWAY -> COMING -> HERE      LEAVING -> HERE when somebody pins it meanwhile, or the disk takes it not
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from actorflow._core.base.resources import format_bytes
from actorflow._core.policy.extent_records import NOWHERE, AskOwner, Denied, Extent, Freed, Granted, Place, ReadIn, WriteOut
from actorflow._core.policy.extents import PAGE_BYTES, FreeSpace, pages

INDEX_BITS = 20
"""Objects of one slab. The numbers of all other extents have zeros there."""
INDEX_MASK = (1 << INDEX_BITS) - 1
SLABS_SHARE_MAX = 0.5
"""No slabs are given when so much of the arena is in use."""
NAMED_MAX = 3
"""Clients that the error of a full store names."""
SPILL_SHARE = 0.8
PRESSED_SHARE = 0.3
"""The share of the store above which it spills: while the machine has memory, and while that runs out."""
"""From here on what nobody reads goes to disk."""
LEAVING_SHARE_MAX = 0.25
"""So much of the arena is on its way to disk at most."""
ANSWER_S = 0.5
"""An owner that does not answer for so long does not keep others from being asked."""
REFUSED_S = 1.0
"""What its owner would not let go is not asked for again before that."""
DISK_FAILED_S = 1.0
"""After the disk has failed nothing is sent there for so long."""


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
    """An allocation that waits; or an extent that comes back from disk, for nobody in particular."""

    client: str
    token: int
    size: int
    since: float
    restores: int = 0


class ExtentBook:
    """All extents of a node's arena."""

    __slots__ = (
        "_charged", "_clients", "_disk_fails_until", "_disk_problem", "_extents", "_idle", "_leaving_bytes", "_number",
        "_progress_at", "_refused", "_space", "_wait_number", "_waiters", "patience_s", "size", "spill_share",
        "spilled_bytes", "spills", "waiting_max",
    )  # fmt: skip

    def __init__(self, size: int, *, waiting_max: int = 10_000, patience_s: float = 10.0, spills: bool = False) -> None:
        self.size = size
        self.spills = spills
        """There is a disk to spill to."""
        self.spill_share = SPILL_SHARE
        """Above this part of the store what nobody reads goes to disk."""
        self.spilled_bytes = 0
        """Bytes of what is on disk and not in memory."""
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
        self._idle: OrderedDict[int, None] = OrderedDict()
        """What could leave memory, longest unused first."""
        self._refused: OrderedDict[int, float] = OrderedDict()
        """What its owner would not let go, and when to ask again."""
        self._charged: dict[int, float] = {}
        """What owners were asked for, and when: as long as they may still answer."""
        self._leaving_bytes = 0
        self._disk_problem = ""
        self._disk_fails_until = float("-inf")

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
        self._wait(_Waiter(client, token, size, now))
        return None

    def _wait(self, waiter: _Waiter) -> None:
        self._wait_number += 1
        self._waiters[self._wait_number] = waiter
        if not waiter.restores:
            self._client(waiter.client).waiting[self._wait_number] = None

    def allocate_slab(self, client: str, token: int, size: int) -> Granted | Denied:
        """Ask for a slab of `size` bytes."""
        if self._waiters or self.used_bytes() + size > self.size * SLABS_SHARE_MAX:
            return Denied(client, token, "no room for a slab")
        granted = self._grant(client, token, size)
        if granted is None:
            return Denied(client, token, "no room for a slab in one piece")
        self._extents[granted.extent].carved = 0
        self._idle.pop(granted.extent, None)
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
        self._idle[number] = None
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

    def serve(self, now: float) -> list[Granted | ReadIn]:
        """Give room to those who wait, in order, as far as it goes."""
        served: list[Granted | ReadIn] = []
        while self._waiters:
            number, waiter = next(iter(self._waiters.items()))
            granted: Granted | ReadIn | None
            if waiter.restores:
                granted = self._make_room(self._extents[waiter.restores])
            else:
                granted = self._grant(waiter.client, waiter.token, waiter.size)
            if granted is None:
                break
            self._forget_waiter(number)
            self._progress_at = now
            served.append(granted)
        return served

    def expire(self, now: float, name: Callable[[str], str] = str) -> list[Denied]:
        """Allocations that give up after `patience_s` without progress. `name`: what to call a client.

        Of an extent that was to come back from disk: Denied("", its number, ...); it stays where it is.
        """
        if now - self._progress_at < self.patience_s:
            return []
        denied: list[Denied] = []
        while self._waiters:
            number, waiter = next(iter(self._waiters.items()))
            if now - waiter.since < self.patience_s or (denied and pages(waiter.size) <= self._space.largest()):
                break  # For this one there is room, now that those before it are gone.
            self._forget_waiter(number)
            if waiter.restores:
                self._extents[waiter.restores].place = Place.AWAY
                reason = (
                    f"room for {format_bytes(waiter.size)}, which are on disk, did not come free within {self.patience_s:g} s. "
                    f"{self._numbers(name)}"
                )
                denied.append(Denied("", waiter.restores, reason))
                continue
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
            if extent.asked:
                self._answered(extent)
                self._rest(extent)
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
        self._set_freed(extent)
        return self._free_if_unused(extent, now)

    def pin(self, client: str, number: int) -> bool:
        """A client reads the extent from now on. False when it is not there any more (ST-3). Not for what `is_away`."""
        extent = self._extents.get(number)
        if extent is None or extent.freed:
            return False
        assert extent.offset != NOWHERE, "ST-2: what is pinned has a place"
        self._idle.pop(number, None)
        self._refused.pop(number, None)
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
        self._rest(extent)
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
            self._rest(self._extents[number])
        for number in record.owned:
            self._set_freed(self._extents[number])
            touched[number] = None
        freed = [self._free_if_unused(self._extents[number], now) for number in touched]
        self._clients.pop(client, None)
        return [range_ for range_ in freed if range_ is not None]

    # -- spilling and restoring

    def spill(self, now: float) -> list[AskOwner | WriteOut | Freed]:
        """What to do so that room comes free: when the arena is nearly full, and when somebody waits."""
        if not self.spills or now < self._disk_fails_until:
            return []
        self._ask_again(now)
        self._charged = {number: at for number, at in self._charged.items() if now - at < ANSWER_S}
        asked_bytes = sum(self._extents[number].size for number in self._charged)
        under_way = self._leaving_bytes + asked_bytes
        wanted = min(self.short_bytes(), max(int(self.size * LEAVING_SHARE_MAX), PAGE_BYTES)) - under_way
        steps: list[AskOwner | WriteOut | Freed] = []
        questions: dict[str, list[int]] = {}
        while wanted > 0 and self._idle:
            number = next(iter(self._idle))
            extent = self._extents[number]
            del self._idle[number]
            wanted -= pages(extent.size) * PAGE_BYTES
            if extent.asks:
                steps.append(self._leave(extent, now))
            else:
                extent.asked = True
                self._charged[number] = now
                questions.setdefault(extent.owner, []).append(number)
        return steps + [AskOwner(owner, tuple(numbers)) for owner, numbers in questions.items()]

    def owner_says(self, owner: str, yes: Sequence[int], no: Sequence[int], now: float) -> list[WriteOut | Freed]:
        """The answer to AskOwner, as a whole or in parts."""
        steps: list[WriteOut | Freed] = []
        for numbers, may in ((yes, True), (no, False)):
            for number in numbers:
                extent = self._extents.get(number)
                if extent is None or not extent.asked or extent.owner != owner:
                    continue
                self._answered(extent)
                extent.asks = extent.asks or may
                if extent.freed or extent.pins:
                    continue
                if may:
                    steps.append(self._leave(extent, now))
                else:
                    self._refused[number] = now + REFUSED_S
        return steps

    def written(self, number: int, now: float) -> Freed | None:
        """The content is on disk. Returns the range, unless somebody reads it."""
        extent = self._extents[number]
        assert extent.place is Place.LEAVING, "ST-7: nobody asked for this to be written"
        self._leaving_bytes -= extent.size
        extent.on_disk = True
        extent.place = Place.HERE
        self._disk_problem = ""
        if extent.freed or extent.pins:
            self._rest(extent)
            return self._free_if_unused(extent, now)
        return self._send_away(extent, now)

    def disk_failed(self, number: int, problem: str, now: float) -> Freed | None:
        """The content could not be written: it stays here."""
        extent = self._extents[number]
        self._leaving_bytes -= extent.size
        extent.place = Place.HERE
        self._disk_problem = problem
        self._disk_fails_until = now + DISK_FAILED_S
        self._rest(extent)
        return self._free_if_unused(extent, now)

    def is_away(self, number: int) -> bool:
        """True for what must be restored before it can be pinned."""
        extent = self._extents.get(number)
        return extent is not None and not extent.freed and extent.place in (Place.AWAY, Place.COMING)

    def restore(self, number: int, now: float) -> ReadIn | Denied | None:
        """Bring back what `is_away`. None: it is on its way, or waits for room."""
        extent = self._extents[number]
        if extent.place is Place.COMING:
            return None
        if not self._waiters and (read := self._make_room(extent)) is not None:
            extent.place = Place.COMING
            return read
        if len(self._waiters) >= self.waiting_max:
            return Denied("", number, f"{len(self._waiters)} allocations wait already. {self._numbers(str)}")
        extent.place = Place.COMING
        self._wait(_Waiter("", 0, extent.size, now, restores=number))
        return None

    def restored(self, number: int, now: float) -> Freed | None:
        """It is in memory again, to be pinned now. The file stays: should it have to leave again, nothing need be written."""
        extent = self._extents[number]
        assert extent.place is Place.COMING, "ST-7: nobody asked for this to be read"
        extent.place = Place.HERE
        self.spilled_bytes -= extent.size
        self._rest(extent)
        return self._free_if_unused(extent, now)

    def not_restored(self, number: int, now: float) -> Freed:
        """The disk has failed: the content is lost, or will be read another time. Returns the range."""
        extent = self._extents[number]
        extent.place = Place.AWAY
        range_ = self._give_range(extent, now)
        freed = self._free_if_unused(extent, now)
        return Freed(number, range_.offset, range_.size, on_disk=freed is not None and freed.on_disk)

    def _leave(self, extent: Extent, now: float) -> WriteOut | Freed:
        if extent.on_disk:
            return self._send_away(extent, now)
        extent.place = Place.LEAVING
        self._leaving_bytes += extent.size
        return WriteOut(extent.number, extent.offset, extent.size)

    def _send_away(self, extent: Extent, now: float) -> Freed:
        assert extent.on_disk, "ST-7: it is on disk"
        assert not extent.pins, "ST-7: nobody reads it"
        self._idle.pop(extent.number, None)
        extent.place = Place.AWAY
        self.spilled_bytes += extent.size
        return self._give_range(extent, now)

    def _give_range(self, extent: Extent, now: float) -> Freed:
        offset, extent.offset = extent.offset, NOWHERE
        self._space.give(offset // PAGE_BYTES, pages(extent.size))
        self._progress_at = now
        return Freed(extent.number, offset, pages(extent.size) * PAGE_BYTES)

    def _make_room(self, extent: Extent) -> ReadIn | None:
        start = self._space.take(pages(extent.size))
        if start is None:
            return None
        extent.offset = start * PAGE_BYTES
        return ReadIn(extent.number, extent.offset, extent.size)

    def _rest(self, extent: Extent) -> None:
        """Nobody reads it, perhaps: then it could leave, as the last one."""
        if not extent.pins and not extent.freed and extent.place is Place.HERE and extent.carved is None and not extent.asked:
            self._idle[extent.number] = None

    def _answered(self, extent: Extent) -> None:
        extent.asked = False
        self._charged.pop(extent.number, None)

    def _ask_again(self, now: float) -> None:
        while self._refused:
            number, at = next(iter(self._refused.items()))
            if at > now:
                break
            del self._refused[number]
            self._rest(self._extents[number])

    # -- looking

    @property
    def asks_again(self) -> bool:
        """True while `spill` is to be called again in time."""
        return bool(self._refused or self._charged) and (bool(self._waiters) or self.used_bytes() > self.size * self.spill_share)

    def short_bytes(self) -> int:
        """So much had better come free; not above 0 while there is enough."""
        short = self.used_bytes() - int(self.size * self.spill_share)
        if self._waiters:
            short = max(short, pages(next(iter(self._waiters.values())).size) * PAGE_BYTES)
        return short

    def find(self, number: int) -> Extent | None:
        """An extent that is in use and not freed; to be read."""
        extent = self._extents.get(number)
        return extent if extent is not None and not extent.freed else None

    def size_of(self, number: int) -> int:
        """What was asked for it, in bytes."""
        return self._extents[number].size

    def offset(self, number: int) -> int:
        """Where the extent is now; to be told to who has pinned it."""
        return self._extents[number].offset

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
        kept: dict[str, int] = {}
        for extent in self._extents.values():
            if extent.number in self._refused or (extent.asked and not extent.asks):
                kept[extent.owner] = kept.get(extent.owner, 0) + extent.size
        users = ", ".join(f"{format_bytes(kept[c])} by {name(c)}" for c in heapq.nlargest(NAMED_MAX, kept, key=kept.__getitem__))
        return (
            f"The object store has {format_bytes(self.size)}: {format_bytes(self.used_bytes())} used, "
            f"{format_bytes(pinned)} pinned{f' ({who})' if who else ''}, "
            f"{f'{format_bytes(sum(kept.values()))} in use where it was made ({users}), ' if users else ''}the largest free piece is "
            f"{format_bytes(self._space.largest() * PAGE_BYTES)}, {len(self._waiters)} more wait"
            f"{f', {format_bytes(self.spilled_bytes)} are on disk' if self.spilled_bytes else ''}"
            f"{f'; spilling fails: {self._disk_problem}' if self._disk_problem else ''}. "
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
        self._idle[extent.number] = None
        return Granted(client, token, extent.number, extent.offset, size)

    def _set_freed(self, extent: Extent) -> None:
        extent.freed = True
        self._idle.pop(extent.number, None)
        self._refused.pop(extent.number, None)
        if extent.asked:
            self._answered(extent)
        if extent.place is Place.COMING and extent.offset == NOWHERE:
            # It waits for room, and nobody needs it any more.
            extent.place = Place.AWAY
            self._forget_waiter(next(number for number, waiter in self._waiters.items() if waiter.restores == extent.number))

    def _free_if_unused(self, extent: Extent, now: float) -> Freed | None:
        """While its content is on its way somewhere the disk uses it, too."""
        if not extent.freed or extent.pins or extent.place in (Place.LEAVING, Place.COMING):
            return None
        del self._extents[extent.number]
        owner = self._clients.get(extent.owner)
        if owner is not None:
            owner.owned.pop(extent.number, None)
            self._forget_client(extent.owner)
        if extent.place is Place.AWAY:
            self.spilled_bytes -= extent.size
            return Freed(extent.number, 0, 0, on_disk=True)
        range_ = self._give_range(extent, now)
        return Freed(extent.number, range_.offset, range_.size, on_disk=extent.on_disk)

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
        waiter = self._waiters.pop(number)
        if not waiter.restores:
            self._clients[waiter.client].waiting.pop(number)
            self._forget_client(waiter.client)

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
        spans = [(e.offset // PAGE_BYTES, pages(e.size)) for e in self._extents.values() if e.offset != NOWHERE]
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
            moves = extent.place in (Place.LEAVING, Place.COMING)
            assert not extent.freed or extent.pins or moves, "ST-2: a freed extent lives only while it is pinned, or the disk is at it"
            assert extent.offset != NOWHERE or (not extent.pins and extent.on_disk), "ST-7: what has no range is on disk, and unread"
            assert extent.place is not Place.AWAY or extent.offset == NOWHERE, "ST-7: what is away has no range"
            could_leave = extent.place is Place.HERE and not (extent.pins or extent.freed or extent.asked or extent.carved is not None)
            assert could_leave == (number in self._idle or number in self._refused), "ST-7: what could leave is known"
            owner = self._clients.get(extent.owner)
            assert extent.freed or (owner is not None and number in owner.owned), "ST-1: everything is owned"
        extents = self._extents.values()
        assert self._leaving_bytes == sum(e.size for e in extents if e.place is Place.LEAVING), "ST-7: bytes on their way to disk"
        assert all(self._extents[number].asked for number in self._charged), "ST-7: what owners were asked for"
        away = [e for e in extents if e.place in (Place.AWAY, Place.COMING)]
        assert self.spilled_bytes == sum(e.size for e in away), "ST-7: bytes on disk"
