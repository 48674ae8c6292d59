"""Pulls: what a node fetches from the arenas of other nodes, for the readers it has. Pure.

A pull waits for its turn (QUEUED), then for room in the arena (ROOM), then its chunks come (MOVING), and at the
end there is a copy. The chunks come in order from one source at a time. When that fails, the next source goes
on from the first chunk that is missing. When no source is left the owner is asked; when that does not help
either, the readers hear that the object is lost.

PU-1: the objects under way take no more of the arena than their lane has, except one that alone is larger.
      Large ones take turns in the order of arrival; small ones may pass them, in a lane of their own.
PU-2: room is given back exactly once: when its pull ends without a copy, or when its copy is dropped.
PU-3: a chunk is taken once, in order, from the present attempt; what comes from an earlier one has no place.
PU-4: a reader is answered exactly once, unless it leaves.
PU-5: there is one pull for an object, however many want it; it ends when the last reader has left.
PU-6: no more than a window of chunks is asked for and not here, and only of the present source.
PU-7: a pull that is moving waits for exactly one thing: its source, its owner's answer, or a time. Each has a deadline.

    QUEUED -> ROOM -> MOVING -> a copy      from each of them: gone, when it fails or nobody wants it
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from zlib import crc32

from actorflow._core.base.ids import CLUSTER, ProcessId
from actorflow._core.base.resources import format_bytes
from actorflow._core.policy.transfer_records import (
    CHUNK_BYTES,
    NOWHERE,
    Arrived,
    AskLocations,
    AskRoom,
    CancelRoom,
    GiveRoom,
    Grew,
    Held,
    Leave,
    NotComing,
    ObjectName,
    PullDecision,
    Refusal,
    Request,
    TellOwner,
    Why,
    chunk_length,
    chunks_of,
)

BUSY_S = 0.05
"""When all sources are busy they are tried again after so long; then after twice that, and so on."""
BUSY_S_MAX = 1.0
BUSY_ROUNDS = 5
"""After so many times the owner is asked, too, for others that have it."""
ASKS_MAX = 5
"""An owner is asked so often without a chunk coming of it, then the object is lost: connections may break several times in a row."""
NO_COPY_MAX = 3
"""When it knows of no copy, so often."""
ASK_AGAIN_S = 0.2
"""The owner may hear of a death, or of a copy, later than we do: so long, then twice that, before it is asked again."""
REASONS_MAX = 3
"""Sources that the error of a lost object names."""


@dataclass(frozen=True, slots=True)
class PullLimits:
    """The bounds of all pulls of a node."""

    share: float = 0.25
    """So much of the arena is under way at most, both lanes together."""
    small_share: float = 0.2
    """So much of that is the lane of small objects."""
    pulls_max: int = 16
    """Pulls under way at a time, small ones not counted."""
    small_pulls_max: int = 16
    queued_max: int = 10_000
    """Pulls that wait for their turn."""
    window: int = 8
    """Chunks asked for and not here, for each pull."""
    chunk_bytes: int = CHUNK_BYTES
    stall_s: float = 5.0
    """A source that brings no whole chunk, and no word, for so long is left. Longer than LEVEL_S and KEEP_S of uploads.py."""
    answer_s: float = 5.0
    """An owner that does not answer for so long is asked again."""


class Stage(Enum):
    """How far a pull is."""

    QUEUED = "queued"
    ROOM = "room"
    MOVING = "moving"


class _Pull:
    """One object on its way here."""

    __slots__ = (
        "asked_at", "asks", "attempt", "bad", "busy", "busy_rounds", "chunks", "extent", "fresh", "have", "name", "number", "offset",
        "owner", "progress_at", "readers", "requested", "retry_at", "size", "small", "source", "stage",
    )  # fmt: skip

    def __init__(self, number: int, name: ObjectName, size: int, owner: ProcessId, chunks: int) -> None:
        self.number = number
        self.name = name
        self.size = size
        self.owner = owner
        self.chunks = chunks
        self.readers: dict[tuple[ProcessId, int], None] = {}
        self.stage = Stage.QUEUED
        self.small = False
        """It goes by the lane of the small ones."""
        self.extent = 0
        self.offset = NOWHERE
        self.have = 0
        """The first so many chunks are here."""
        self.requested = 0
        """Chunks before this one are here, or asked of the present source."""
        self.source = ""
        self.attempt = 0
        """The present source's number; no other attempt of this node has it."""
        self.fresh: OrderedDict[ProcessId, None] = OrderedDict()
        """Sources to try, in this order."""
        self.busy: OrderedDict[ProcessId, None] = OrderedDict()
        """Sources to try again in a while."""
        self.bad: dict[ProcessId, str] = {}
        """Sources that are no use, until the owner names them again, and why."""
        self.progress_at = 0.0
        self.asked_at: float | None = None
        self.retry_at: float | None = None
        self.asks = 0
        self.busy_rounds = 0


class _Copy:
    """An object that is here and lives elsewhere."""

    __slots__ = ("extent", "owner", "size")

    def __init__(self, extent: int, size: int, owner: ProcessId) -> None:
        self.extent = extent
        self.size = size
        self.owner = owner


class _Lane:
    """A bound on bytes and on pulls."""

    __slots__ = ("bytes", "bytes_max", "pulls", "pulls_max")

    def __init__(self, bytes_max: int, pulls_max: int) -> None:
        self.bytes_max = bytes_max
        self.pulls_max = pulls_max
        self.bytes = 0
        self.pulls = 0

    def fits(self, size: int) -> bool:
        return self.pulls < self.pulls_max and (self.bytes + size <= self.bytes_max or not self.pulls)

    def add(self, size: int, pulls: int = 1) -> None:
        self.bytes += size * pulls
        self.pulls += pulls


class PullBook:
    """All pulls of a node, and the copies that they have left here.

    The methods are what happens; what they return is to be done, in that order.
    """

    __slots__ = (
        "_copies", "_large_lane", "_number", "_pulls", "_queue", "_rooms", "_small_lane", "_small_max", "_small_queue", "_under_way",
        "_waits", "_waits_open", "limits", "node",
    )  # fmt: skip

    def __init__(self, node: ProcessId, arena_bytes: int, limits: PullLimits | None = None) -> None:
        self.node = node
        self.limits = limits = limits or PullLimits()
        in_all = int(arena_bytes * limits.share)
        small = int(in_all * limits.small_share)
        self._large_lane = _Lane(in_all - small, limits.pulls_max)
        self._small_lane = _Lane(small, limits.small_pulls_max)
        self._small_max = small // 4
        """A small object has no more bytes than this."""
        self._number = 0
        self._pulls: dict[ObjectName, _Pull] = {}
        self._queue: OrderedDict[ObjectName, None] = OrderedDict()
        self._small_queue: OrderedDict[ObjectName, None] = OrderedDict()
        """Those of the queue that are small."""
        self._under_way: dict[int, _Pull] = {}
        """Those not in the queue, by number."""
        self._waits: dict[ProcessId, dict[int, ObjectName]] = {}
        """What each reader waits for, by token."""
        self._copies: OrderedDict[ObjectName, _Copy] = OrderedDict()
        """Longest unused first."""
        self._rooms = 0
        """Extents that we were granted and have not given back."""
        self._waits_open = 0
        """Readers that came, less those that were answered and those that left."""

    # -- readers

    def want(
        self, reader: ProcessId, token: int, name: ObjectName, size: int, owner: ProcessId, sources: Sequence[ProcessId], now: float
    ) -> list[PullDecision]:
        """A reader needs the object. `sources`: who may have it, besides its home. A token that waits already is ignored."""
        if token in self._waits.get(reader, ()):
            return []
        copy = self._copies.get(name)
        if copy is not None:
            self._copies.move_to_end(name)
            return [Arrived(reader, token, name, copy.extent)]
        pull = self._pulls.get(name)
        if pull is None:
            if size <= 0:
                return [NotComing(reader, token, name, Why.LOST, f"an object has at least 1 byte, and this one is said to have {size}")]
            if len(self._queue) >= self.limits.queued_max:
                reason = f"{len(self._queue)} objects wait already to be fetched from other nodes"
                return [NotComing(reader, token, name, Why.NO_ROOM, reason)]
            pull = self._new_pull(name, size, owner)
        pull.readers[reader, token] = None
        self._waits.setdefault(reader, {})[token] = name
        self._waits_open += 1
        self._hear_of(pull, [name.home, *sources])
        return self._admit()

    def leave(self, reader: ProcessId, token: int, now: float) -> list[PullDecision]:
        """The reader wants it no more. Unknown tokens are ignored: the answer was on its way."""
        name = self._waits.get(reader, {}).get(token)
        if name is None:
            return []
        pull = self._pulls[name]
        self._forget_reader(pull, reader, token)
        return [] if pull.readers else [*self._end(pull), *self._admit()]

    def reader_lost(self, reader: ProcessId, now: float) -> list[PullDecision]:
        """A process is gone, with all that it waited for."""
        decisions: list[PullDecision] = []
        for token in list(self._waits.get(reader, ())):
            decisions += self.leave(reader, token, now)
        return decisions

    # -- room

    def room_granted(self, number: int, extent: int, offset: int, now: float) -> list[PullDecision]:
        """The arena has room at `offset`."""
        pull = self._under_way.get(number)
        if pull is None or pull.stage is not Stage.ROOM:
            return [GiveRoom(None, extent)]  # cancelled meanwhile
        self._rooms += 1
        pull.stage = Stage.MOVING
        pull.extent, pull.offset = extent, offset
        return self._next_source(pull, now)

    def room_denied(self, number: int, reason: str, now: float) -> list[PullDecision]:
        """The arena has no room."""
        pull = self._under_way.get(number)
        if pull is None or pull.stage is not Stage.ROOM:
            return []
        return [*self._fail(pull, Why.NO_ROOM, reason), *self._admit()]

    # -- chunks

    def place(self, source: ProcessId, name: ObjectName, attempt: int, index: int, length: int) -> int:
        """Where in the arena a chunk of `length` bytes belongs, or NOWHERE: then its bytes are to be read and dropped.

        To be asked again before each read from the socket: between two of them the pull may have ended, and its room be another's.
        """
        pull = self._present(source, name, attempt)
        if pull is None or index != pull.have or length != chunk_length(pull.size, index, self.limits.chunk_bytes):
            return NOWHERE
        return pull.offset + index * self.limits.chunk_bytes

    def received(self, source: ProcessId, name: ObjectName, attempt: int, index: int, length: int, now: float) -> list[PullDecision]:
        """A chunk has come, `length` bytes long."""
        pull = self._present(source, name, attempt)
        if pull is None or index < pull.have:
            return []  # of an earlier attempt, or twice
        expected = chunk_length(pull.size, index, self.limits.chunk_bytes)
        if index != pull.have or length != expected:
            why = f"sent {length} bytes as chunk {index}, and chunk {pull.have} of {pull.chunks} was next"
            return [*self._leave_source(pull), *self._without_source(pull, why, now)]
        pull.have += 1
        pull.progress_at = now
        pull.asks = pull.busy_rounds = 0
        grew = Grew(name, pull.have)
        if pull.have < pull.chunks:
            return [grew, *self._request(pull)]
        return [grew, *self._complete(pull), *self._admit()]

    def corrupt(self, source: ProcessId, name: ObjectName, attempt: int, reason: str, now: float) -> list[PullDecision]:
        """A chunk has come and is not what it should be: its checksum says so, for instance."""
        pull = self._present(source, name, attempt)
        if pull is None:
            return []
        return [*self._leave_source(pull), *self._without_source(pull, reason, now)]

    # -- sources

    def refused(
        self, source: ProcessId, name: ObjectName, attempt: int, why: Refusal, others: Iterable[ProcessId], now: float
    ) -> list[PullDecision]:
        """The source has not got it, or has others to serve, and may name some of them."""
        pull = self._present(source, name, attempt)
        if pull is None:
            return []
        if why is Refusal.BUSY:
            pull.busy[source] = None
        else:
            # Who is behind may wait for us, so we do not come back to it: what it gets somebody else has who is ahead of it.
            pull.bad[source] = "does not have it any more" if why is Refusal.GONE else "has no more of it than is here"
        pull.source = ""
        for other in reversed(list(others)):
            if other != self.node and other not in pull.bad and other not in pull.busy:
                pull.fresh[other] = None
                pull.fresh.move_to_end(other, last=False)
        return self._next_source(pull, now)

    def still_here(self, source: ProcessId, name: ObjectName, attempt: int, now: float) -> list[PullDecision]:
        """The source lives, and has nothing for us at the moment."""
        pull = self._present(source, name, attempt)
        if pull is not None:
            pull.progress_at = now
        return []

    def node_lost(self, node: ProcessId, now: float) -> list[PullDecision]:
        """The connection to a node is lost, or could not be made."""
        decisions: list[PullDecision] = []
        for pull in list(self._pulls.values()):
            pull.fresh.pop(node, None)
            pull.busy.pop(node, None)
            if pull.source == node:
                decisions += self._without_source(pull, "its connection is lost", now)
        return decisions

    def locations(self, name: ObjectName, nodes: Sequence[ProcessId], now: float) -> list[PullDecision]:
        """The owner says who has the object: asked or not, and all of it."""
        pull = self._pulls.get(name)
        if pull is None:
            return []
        for node in nodes:
            pull.bad.pop(node, None)
        self._hear_of(pull, self._spread(nodes, name))
        if pull.retry_at is not None and pull.fresh:
            pull.retry_at = None
            return self._next_source(pull, now)
        if pull.asked_at is None:
            return []
        pull.asked_at = None
        if not pull.fresh and not pull.busy:
            if pull.asks >= NO_COPY_MAX:
                return self._lose(pull, "its owner knows of no copy")
            # Word of a copy that was made in the last moments may still be on its way to the owner.
            return self._ask_owner(pull, now)
        return self._next_source(pull, now)

    def freed(self, name: ObjectName) -> list[PullDecision]:
        """The owner has freed the object."""
        pull = self._pulls.get(name)
        if pull is not None:
            return [*self._fail(pull, Why.FREED, "the object was freed"), *self._admit()]
        return self._drop_copy(name)

    def owner_lost(self, owner: ProcessId) -> list[PullDecision]:
        """The owner of objects is gone, and with it everything that it owned."""
        decisions: list[PullDecision] = []
        for pull in [pull for pull in self._pulls.values() if pull.owner == owner]:
            decisions += self._fail(pull, Why.OWNER_LOST, "the process that owned it is gone")
        for name in self._copies_of(owner):
            decisions += self._drop_copy(name)
        return [*decisions, *self._admit()]

    def owner_away(self, owner: ProcessId) -> list[PullDecision]:
        """The owner cannot be reached, and may be gone: it could not free the copies here, so they go now. What is fetched goes on."""
        return [decision for name in self._copies_of(owner) for decision in self._drop_copy(name)]

    def home_gone(self, home: ProcessId) -> list[PullDecision]:
        """A node has left for good. Of what the cluster owns nobody is led to copies by its name any more, nor told when they are freed."""
        names = [name for name, copy in self._copies.items() if name.home == home and copy.owner == CLUSTER]
        return [decision for name in names for decision in self._drop_copy(name)]

    def _copies_of(self, owner: ProcessId) -> list[ObjectName]:
        return [name for name, copy in self._copies.items() if copy.owner == owner]

    # -- copies

    def make_room(self, wanted_bytes: int, pinned: Container[int]) -> list[PullDecision]:
        """Room is short: drop copies that nobody has pinned, longest unused first, until so much comes free."""
        decisions: list[PullDecision] = []
        for name, copy in list(self._copies.items()):
            if wanted_bytes <= 0:
                break
            if copy.extent in pinned:
                continue
            wanted_bytes -= copy.size
            decisions += [*self._drop_copy(name), TellOwner(copy.owner, name, here=False)]
        return decisions

    def adopted(self, name: ObjectName) -> int:
        """A copy is no copy any more: its room is another's from now on (PU-2). Its extent; 0: there is none."""
        copy = self._copies.pop(name, None)
        if copy is None:
            return 0
        self._rooms -= 1
        return copy.extent

    def held(self, name: ObjectName) -> Held | None:
        """What is here of an object that lives elsewhere: a copy, or the beginning of one."""
        copy = self._copies.get(name)
        if copy is not None:
            return Held(copy.extent, copy.size, chunks_of(copy.size, self.limits.chunk_bytes))
        pull = self._pulls.get(name)
        if pull is None or pull.stage is not Stage.MOVING:
            return None
        return Held(pull.extent, pull.size, pull.have)

    # -- time

    def next_at(self) -> float | None:
        """When `tick` is due, or None: nothing has a deadline."""
        return min((at for pull in self._under_way.values() if (at := self._deadline(pull)) is not None), default=None)

    def tick(self, now: float) -> list[PullDecision]:
        """Leave sources that bring nothing; ask again."""
        decisions: list[PullDecision] = []
        for pull in list(self._under_way.values()):
            at = self._deadline(pull)
            if at is None or now < at:
                continue
            if pull.source:
                decisions += self._leave_source(pull)
                decisions += self._without_source(pull, f"made no progress for {self.limits.stall_s:g} s", now)
            elif pull.asked_at is not None:
                pull.asked_at = None
                pull.bad[f"its owner {pull.owner}"] = f"did not answer for {self.limits.answer_s:g} s"
                decisions += self._ask_owner(pull, now)
            else:
                decisions += self._retry(pull, now)
        return decisions

    def _deadline(self, pull: _Pull) -> float | None:
        if pull.source:
            return pull.progress_at + self.limits.stall_s
        if pull.asked_at is not None:
            return pull.asked_at + self.limits.answer_s
        return pull.retry_at

    # -- admission

    def _new_pull(self, name: ObjectName, size: int, owner: ProcessId) -> _Pull:
        self._number += 1
        pull = self._pulls[name] = _Pull(self._number, name, size, owner, chunks_of(size, self.limits.chunk_bytes))
        self._queue[name] = None
        if size <= self._small_max:
            self._small_queue[name] = None
        return pull

    def _admit(self) -> list[PullDecision]:
        """PU-1. The first of the queue goes by the large lane, whatever its size, so that it is never passed there."""
        decisions: list[PullDecision] = []
        while self._queue:
            pull = self._pulls[next(iter(self._queue))]
            if not self._large_lane.fits(pull.size):
                break
            decisions.append(self._start(pull, self._large_lane))
        while self._small_queue:
            pull = self._pulls[next(iter(self._small_queue))]
            if not self._small_lane.fits(pull.size):
                break
            pull.small = True
            decisions.append(self._start(pull, self._small_lane))
        return decisions

    def _start(self, pull: _Pull, lane: _Lane) -> AskRoom:
        lane.add(pull.size)
        del self._queue[pull.name]
        self._small_queue.pop(pull.name, None)
        self._under_way[pull.number] = pull
        pull.stage = Stage.ROOM
        return AskRoom(pull.number, pull.size)

    # -- from source to source

    def _present(self, source: ProcessId, name: ObjectName, attempt: int) -> _Pull | None:
        """The pull that this source serves in this attempt. PU-3: the fence against all that comes late."""
        pull = self._pulls.get(name)
        return pull if pull is not None and pull.source == source and pull.attempt == attempt else None

    def _hear_of(self, pull: _Pull, nodes: Iterable[ProcessId]) -> None:
        for node in nodes:
            if node not in (self.node, pull.source) and node not in pull.bad and node not in pull.busy:
                pull.fresh.setdefault(node)

    def _spread(self, nodes: Sequence[ProcessId], name: ObjectName) -> list[ProcessId]:
        """Each node begins at another place of the list, so that not all ask the same one."""
        begin = crc32(f"{self.node}/{name.home}/{name.extent}".encode()) % len(nodes) if nodes else 0
        return [*nodes[begin:], *nodes[:begin]]

    def _next_source(self, pull: _Pull, now: float) -> list[PullDecision]:
        if pull.fresh:
            pull.source, _ = pull.fresh.popitem(last=False)
            self._number += 1
            pull.attempt = self._number
            pull.requested = pull.have
            pull.progress_at = now
            return self._request(pull)
        if pull.busy:
            pull.retry_at = now + min(BUSY_S * 2**pull.busy_rounds, BUSY_S_MAX)
            pull.busy_rounds = min(pull.busy_rounds + 1, BUSY_ROUNDS)
            # Meanwhile others may have it. Nobody waits for this answer.
            return [AskLocations(pull.owner, pull.name)] if pull.busy_rounds == BUSY_ROUNDS else []
        return self._ask_owner(pull, now)

    def _request(self, pull: _Pull) -> list[PullDecision]:
        """Ask for more when half of the window is here (PU-6)."""
        count = min(pull.have + self.limits.window, pull.chunks) - pull.requested
        if count <= 0 or (count < self.limits.window // 2 and pull.requested + count < pull.chunks):
            return []
        first, pull.requested = pull.requested, pull.requested + count
        return [Request(pull.source, pull.name, pull.attempt, first, count)]

    def _leave_source(self, pull: _Pull, *, complete: bool = False) -> list[PullDecision]:
        """Tell the source. The caller sees to what comes instead."""
        return [Leave(pull.source, pull.name, pull.attempt, complete)] if pull.source else []

    def _without_source(self, pull: _Pull, why: str, now: float) -> list[PullDecision]:
        """The source is no use: go on with another."""
        pull.bad[pull.source] = why
        pull.source = ""
        return self._next_source(pull, now)

    def _retry(self, pull: _Pull, now: float) -> list[PullDecision]:
        pull.retry_at = None
        for node in pull.busy:
            pull.fresh.setdefault(node)
        pull.busy.clear()
        if pull.fresh or not pull.asks:
            return self._next_source(pull, now)
        pull.asked_at = now
        return [AskLocations(pull.owner, pull.name)]

    def _ask_owner(self, pull: _Pull, now: float) -> list[PullDecision]:
        if pull.asks >= ASKS_MAX:
            return self._lose(pull, f"its owner was asked {ASKS_MAX} times")
        pull.asks += 1
        if pull.asks > 1:
            pull.retry_at = now + ASK_AGAIN_S * 2 ** (pull.asks - 2)
            return []
        pull.asked_at = now
        return [AskLocations(pull.owner, pull.name)]

    # -- ends

    def _complete(self, pull: _Pull) -> list[PullDecision]:
        decisions = self._leave_source(pull, complete=True)
        pull.source = ""
        self._copies[pull.name] = _Copy(pull.extent, pull.size, pull.owner)
        decisions.append(TellOwner(pull.owner, pull.name, here=True))
        decisions += [Arrived(reader, token, pull.name, pull.extent) for reader, token in pull.readers]
        self._remove(pull)
        return decisions

    def _lose(self, pull: _Pull, why: str) -> list[PullDecision]:
        tried = "; ".join(f"{node} {reason}" for node, reason in list(pull.bad.items())[-REASONS_MAX:])
        reason = (
            f"{format_bytes(pull.size)} from node {pull.name.home} could not be fetched ({pull.have} of {pull.chunks} chunks came): "
            f"{why}{f'; {tried}' if tried else ''}"
        )
        return [*self._fail(pull, Why.LOST, reason), *self._admit()]

    def _fail(self, pull: _Pull, why: Why, reason: str) -> list[PullDecision]:
        answers: list[PullDecision] = [NotComing(reader, token, pull.name, why, reason) for reader, token in pull.readers]
        return [*self._end(pull), *answers]

    def _end(self, pull: _Pull) -> list[PullDecision]:
        """It leaves no copy here. PU-2: this is the one place where the room of a pull goes back."""
        decisions = self._leave_source(pull)
        pull.source = ""
        if pull.stage is Stage.ROOM:
            decisions.append(CancelRoom(pull.number))
        elif pull.stage is Stage.MOVING:
            decisions.append(self._give_room(pull.name, pull.extent))
        self._remove(pull)
        return decisions

    def _give_room(self, name: ObjectName, extent: int) -> GiveRoom:
        self._rooms -= 1
        return GiveRoom(name, extent)

    def _drop_copy(self, name: ObjectName) -> list[PullDecision]:
        copy = self._copies.pop(name, None)
        return [self._give_room(name, copy.extent)] if copy is not None else []

    def _remove(self, pull: _Pull) -> None:
        for reader, token in list(pull.readers):
            self._forget_reader(pull, reader, token)
        del self._pulls[pull.name]
        if self._under_way.pop(pull.number, None) is None:
            del self._queue[pull.name]
            self._small_queue.pop(pull.name, None)
        else:
            (self._small_lane if pull.small else self._large_lane).add(pull.size, -1)

    def _forget_reader(self, pull: _Pull, reader: ProcessId, token: int) -> None:
        del pull.readers[reader, token]
        waits = self._waits[reader]
        del waits[token]
        if not waits:
            del self._waits[reader]
        self._waits_open -= 1

    # -- looking

    @property
    def bytes_under_way(self) -> int:
        """Bytes of objects that have room, or have asked for it."""
        return self._large_lane.bytes + self._small_lane.bytes

    @property
    def waiting(self) -> int:
        """Readers that wait."""
        return self._waits_open

    def waits(self, reader: ProcessId, token: int) -> bool:
        """True while this reader is to be answered."""
        return token in self._waits.get(reader, ())

    def pulls(self) -> list[tuple[ObjectName, Stage, int, int]]:
        """(object, stage, chunks that are here, chunks in all), oldest first: for tests and the state API."""
        return [(pull.name, pull.stage, pull.have, pull.chunks) for pull in self._pulls.values()]

    def copies(self) -> list[ObjectName]:
        """What lives elsewhere and is here too, longest unused first."""
        return list(self._copies)

    def check(self) -> None:
        """Assert the invariants; for tests."""
        for lane, small in ((self._large_lane, False), (self._small_lane, True)):
            sizes = [pull.size for pull in self._under_way.values() if pull.small is small]
            assert (lane.bytes, lane.pulls) == (sum(sizes), len(sizes)), "PU-1: what is under way is counted"
            assert lane.bytes <= max([lane.bytes_max, *sizes]), "PU-1: a lane is full"
            assert lane.bytes <= lane.bytes_max or lane.pulls == 1, "PU-1: only alone may one be larger than its lane"
            assert lane.pulls <= lane.pulls_max, "PU-1: too many at a time"
        first = next(iter(self._queue), None)
        assert first is None or not self._large_lane.fits(self._pulls[first].size), "PU-1: the first has its turn when it fits"
        pulls = self._pulls.values()
        assert len(self._pulls) == len(self._queue) + len(self._under_way), "PU-5: each is in one place"
        assert not self._pulls.keys() & self._copies.keys(), "PU-5: what is here is not fetched"
        assert self._rooms == len(self._copies) + sum(p.stage is Stage.MOVING for p in pulls), "PU-2: all room is a pull's or a copy's"
        waits = {(reader, token, name) for reader, tokens in self._waits.items() for token, name in tokens.items()}
        assert waits == {(reader, token, p.name) for p in pulls for reader, token in p.readers}, "PU-4: readers and pulls know each other"
        assert self._waits_open == len(waits), "PU-4: a reader was answered twice, or forgotten"
        for pull in pulls:
            assert pull.readers, "PU-5: somebody wants it"
            assert pull.have < pull.requested <= pull.have + self.limits.window or not pull.source, "PU-6: nothing, or more than a window"
            assert pull.requested <= pull.chunks, "PU-6: there are no more chunks"
            waits_for = [bool(pull.source), pull.asked_at is not None, pull.retry_at is not None]
            assert sum(waits_for) == (pull.stage is Stage.MOVING), "PU-7: a moving pull waits for one thing, others for none of these"
            assert self.node not in (pull.source, *pull.fresh, *pull.busy), "PU-7: a node is no source for itself"
