"""Nodes that move objects between their arenas: the real books of pulls, uploads and extents, and memory, wires and owners that are not.

The owner of everything is one process, on a node of its own. Messages of one connection keep their order; which connection moves next is
up to the test. Memory is one value for each page, so a write into the wrong place, or a read after the pin, shows as a wrong value.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from actorflow._core.policy.extent_records import Denied, Granted, ReadIn
from actorflow._core.policy.extents import PAGE_BYTES
from actorflow._core.policy.object_store import ExtentBook
from actorflow._core.policy.pulls import PullBook, PullLimits
from actorflow._core.policy.transfer_records import (
    NOWHERE,
    Again,
    Arrived,
    AskLocations,
    AskRoom,
    CancelRoom,
    Cut,
    GiveRoom,
    Grew,
    Held,
    Hold,
    Leave,
    LetGo,
    NotComing,
    ObjectName,
    PullDecision,
    Refuse,
    Request,
    Send,
    StillHere,
    TellOwner,
    UploadDecision,
    chunks_of,
)
from actorflow._core.policy.uploads import UploadBook, UploadLimits

CHUNK = PAGE_BYTES
OWNER = "owner"
Value = tuple[ObjectName, int] | None


@dataclass(frozen=True)
class Part:
    """A part of a chunk; only with the last one is it whole."""

    name: ObjectName
    attempt: int
    index: int
    length: int
    value: Value
    last: bool


@dataclass(frozen=True)
class Locations:
    name: ObjectName
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class OwnerFreed:
    name: ObjectName


Wire = Request | Leave | Refuse | StillHere | Part | AskLocations | TellOwner | Locations | OwnerFreed


@dataclass
class Seen:
    """What became of one reader's wait."""

    name: ObjectName
    answer: Arrived | NotComing | None = None
    left: bool = False


class Node:
    """One node: three books, its memory, its files."""

    def __init__(self, world: "World", node: str, pages: int, pulls: PullLimits, uploads: UploadLimits) -> None:
        self.world = world
        self.node = node
        self.arena = ExtentBook(pages * PAGE_BYTES, patience_s=10.0)
        self.pulls = PullBook(node, pages * PAGE_BYTES, pulls)
        self.uploads = UploadBook(uploads)
        self.memory: dict[int, Value] = {}
        self.files: dict[int, list[Value]] = {}
        """What is on disk only, by extent."""
        self.open_files: dict[int, list[Value]] = {}
        """By upload."""
        self.held: set[int] = set()
        self.home: dict[ObjectName, int] = {}
        """Objects that were written here, and their sizes."""
        self.sends: dict[str, deque[Send]] = {}
        self.waits: dict[tuple[str, int], Seen] = {}
        self.pins: dict[tuple[str, int], int] = {}
        """Extents that readers have pinned."""
        self.given: set[int] = set()

    # -- objects and readers

    def put(self, size: int, *, on_disk: bool = False) -> ObjectName:
        now = self.world.now
        granted = self.arena.allocate(OWNER, 0, size, now)
        assert isinstance(granted, Granted), granted
        name = ObjectName(self.node, granted.extent)
        values: list[Value] = [(name, index) for index in range(chunks_of(size, CHUNK))]
        for index, value in enumerate(values):
            self.memory[granted.offset + index * CHUNK] = value
        if on_disk:
            self.files[granted.extent] = values
            self.arena.free(granted.extent, now)
        self.home[name] = size
        self.world.objects[name] = size
        self.world.located[name] = {self.node: None}
        return name

    def want(self, reader: str, token: int, name: ObjectName, sources: Sequence[str] = ()) -> None:
        assert (reader, token) not in self.waits
        self.waits[reader, token] = Seen(name)
        self.obey(self.pulls.want(reader, token, name, self.world.objects[name], OWNER, sources, self.world.now))

    def leave(self, reader: str, token: int) -> None:
        self.waits[reader, token].left = True
        self.obey(self.pulls.leave(reader, token, self.world.now))

    def unpin(self, reader: str, token: int) -> None:
        self.arena.unpin(reader, self.pins.pop((reader, token)), self.world.now)
        self.serve()

    def lose(self, name: ObjectName) -> None:
        """An object that was written here is gone: its writer's process, the disk, a fault."""
        del self.home[name]
        if name.extent in self.files:
            del self.files[name.extent]
        else:
            self.arena.free(name.extent, self.world.now)
        self.obey(self.uploads.gone(name, self.world.now))
        self.serve()

    def drop_copies(self) -> None:
        pinned = {extent.number for extent in self.arena.extents() if extent.pins}
        self.obey(self.pulls.make_room(self.arena.size, pinned))

    # -- the shell

    def look(self, name: ObjectName) -> Held | None:
        size = self.home.get(name)
        if size is not None:
            return Held(name.extent, size, chunks_of(size, CHUNK), on_disk=name.extent in self.files)
        return self.pulls.held(name)

    def obey(self, decisions: Sequence[PullDecision] | Sequence[UploadDecision]) -> None:
        for decision in decisions:
            if isinstance(decision, Request | Leave | Refuse | StillHere):
                self.world.post(self.node, decision.peer, decision)
            elif isinstance(decision, AskLocations | TellOwner):
                self.world.post(self.node, OWNER, decision)
            elif isinstance(decision, Send):
                self.sends.setdefault(decision.peer, deque()).append(decision)
                self.world.send_begins(self.node, decision)
            elif isinstance(decision, Again):
                self.obey(self.uploads.requested(decision.request, self.look(decision.request.name), self.world.now))
            elif isinstance(decision, Cut):
                self.world.cut(self.node, decision.peer)
            elif isinstance(decision, Grew):
                self.obey(self.uploads.grown(decision.name, decision.chunks, self.world.now))
            elif isinstance(decision, Hold | LetGo):
                self._hold(decision)
            elif isinstance(decision, Arrived | NotComing):
                self._answer(decision)
            else:
                self._room(decision)

    def _room(self, decision: AskRoom | CancelRoom | GiveRoom) -> None:
        now = self.world.now
        if isinstance(decision, AskRoom):
            self._allocated(self.arena.allocate(f"pull-{decision.pull}", decision.pull, decision.size, now))
        elif isinstance(decision, CancelRoom):
            assert not self.arena.client_lost(f"pull-{decision.pull}", now), "PU-2: a pull that waits for room has none"
            self.serve()
        else:
            assert decision.extent not in self.given, "PU-2: room was given back twice"
            self.given.add(decision.extent)
            if decision.name is not None:
                self.obey(self.uploads.gone(decision.name, now))
            self.arena.free(decision.extent, now)
            self.serve()

    def _allocated(self, answer: Granted | Denied | ReadIn | None) -> None:
        if isinstance(answer, Granted):
            for offset in range(answer.offset, answer.offset + answer.size, PAGE_BYTES):
                self.memory[offset] = None
            self.obey(self.pulls.room_granted(answer.token, answer.extent, answer.offset, self.world.now))
        elif isinstance(answer, Denied):
            self.obey(self.pulls.room_denied(answer.token, answer.reason, self.world.now))

    def serve(self) -> None:
        for granted in self.arena.serve(self.world.now):
            self._allocated(granted)

    def _hold(self, decision: Hold | LetGo) -> None:
        if isinstance(decision, Hold):
            assert decision.upload not in self.held, "UP-2: held twice"
            self.held.add(decision.upload)
            if decision.on_disk:
                self.open_files[decision.upload] = self.files[decision.extent]
            else:
                assert self.arena.pin(decision.peer, decision.extent), "UP-2: what is held is there"
            return
        assert decision.upload in self.held, "UP-2: let go of twice"
        self.held.discard(decision.upload)
        if decision.on_disk:
            del self.open_files[decision.upload]
        else:
            self.arena.unpin(decision.peer, decision.extent, self.world.now)
            self.serve()

    def _answer(self, answer: Arrived | NotComing) -> None:
        seen = self.waits[answer.reader, answer.token]
        assert seen.answer is None, "PU-4: answered twice"
        assert not seen.left, "PU-4: answered after it left"
        seen.answer = answer
        if isinstance(answer, Arrived):
            assert answer.name == seen.name
            assert self.arena.pin(answer.reader, answer.extent), "PU-4: what has arrived can be pinned"
            self.pins[answer.reader, answer.token] = answer.extent
            offset = self.arena.offset(answer.extent)
            chunks = chunks_of(self.world.objects[seen.name], CHUNK)
            values = [self.memory[offset + index * CHUNK] for index in range(chunks)]
            assert values == [(seen.name, index) for index in range(chunks)], "PU-3: every chunk is in its place"

    def send_ends(self, peer: str, *, delivered: bool) -> Part | None:
        """The oldest Send to a peer is done. Its bytes are read now, at the last moment."""
        send = self.sends[peer].popleft()
        if not self.sends[peer]:
            del self.sends[peer]
        part = None
        if delivered:
            if send.on_disk:
                value = self.open_files[send.upload][send.index]
            else:
                value = self.memory[self.arena.offset(send.extent) + send.start]
            assert value == (send.name, send.index), "UP-2: the bytes are there until they are sent"
            part = Part(send.name, send.attempt, send.index, send.length, value, last=True)
        return part

    def hear(self, source: str, message: Wire) -> None:
        now, pulls, uploads = self.world.now, self.pulls, self.uploads
        if isinstance(message, Request):
            asked = Request(source, message.name, message.attempt, message.first, message.count)
            self.obey(uploads.requested(asked, self.look(message.name), now))
        elif isinstance(message, Leave):
            self.obey(uploads.left(source, message.name, message.attempt, message.complete, now))
        elif isinstance(message, Refuse):
            self.obey(pulls.refused(source, message.name, message.attempt, message.why, message.others, now))
        elif isinstance(message, StillHere):
            self.obey(pulls.still_here(source, message.name, message.attempt, now))
        elif isinstance(message, Part):
            self._part(source, message)
        elif isinstance(message, Locations):
            self.obey(pulls.locations(message.name, message.nodes, now))
        else:
            assert isinstance(message, OwnerFreed), message
            self.obey(pulls.freed(message.name))
            if message.name in self.home:
                self.lose(message.name)

    def _part(self, source: str, part: Part) -> None:
        place = self.pulls.place(source, part.name, part.attempt, part.index, part.length)
        if place != NOWHERE:
            assert self.memory[place] in (None, (part.name, part.index)), "PU-3: the place is the chunk's own"
            self.memory[place] = part.value if part.last else (part.name, part.index)
        if part.last:
            self.obey(self.pulls.received(source, part.name, part.attempt, part.index, part.length, self.world.now))

    def tick(self) -> None:
        for denied in self.arena.expire(self.world.now):
            self._allocated(denied)
        self.serve()
        self.obey(self.pulls.tick(self.world.now))
        self.obey(self.uploads.tick(self.world.now))

    def node_lost(self, node: str) -> None:
        self.obey(self.pulls.node_lost(node, self.world.now))
        self.obey(self.uploads.node_lost(node, self.world.now))
        while node in self.sends:
            upload = self.sends[node][0].upload
            self.send_ends(node, delivered=False)
            self.obey(self.uploads.sent(upload, self.world.now))

    @property
    def at_rest(self) -> bool:
        return not self.pulls.waiting and self.uploads.idle and not self.sends and not self.held and not self.open_files


@dataclass
class World:
    """All nodes, and the wires between them."""

    now: float = 0.0
    nodes: dict[str, Node] = field(default_factory=dict)
    wires: dict[tuple[str, str], deque[Wire]] = field(default_factory=dict)
    objects: dict[ObjectName, int] = field(default_factory=dict)
    located: dict[ObjectName, dict[str, None]] = field(default_factory=dict)
    """What the owner knows."""
    freed: set[ObjectName] = field(default_factory=set)
    owner_answers: bool = True

    def add(self, node: str, pages: int, pulls: PullLimits | None = None, uploads: UploadLimits | None = None) -> Node:
        pulls = pulls or PullLimits(share=0.5, chunk_bytes=CHUNK)
        self.nodes[node] = Node(self, node, pages, pulls, uploads or UploadLimits(chunk_bytes=CHUNK))
        return self.nodes[node]

    def post(self, source: str, target: str, message: Wire) -> None:
        """Whoever writes to a node that is gone hears that it is gone, in its turn."""
        self.wires.setdefault((source, target), deque()).append(message)

    def send_begins(self, source: str, send: Send) -> None:
        """For tests that count time."""

    def send_ends(self, source: str, target: str, *, whole: bool = True) -> None:
        """The transport takes a chunk."""
        node = self.nodes[source]
        upload = node.sends[target][0].upload
        part = node.send_ends(target, delivered=True)
        assert part is not None
        self.post(source, target, Part(part.name, part.attempt, part.index, part.length, part.value, last=False))
        length = part.length if whole else part.length - 1
        self.post(source, target, Part(part.name, part.attempt, part.index, length, part.value, last=True))
        node.obey(node.uploads.sent(upload, self.now))

    def deliver(self, source: str, target: str) -> None:
        """The next message of a connection arrives."""
        wire = self.wires[source, target]
        message = wire.popleft()
        if not wire:
            del self.wires[source, target]
        if target == OWNER:
            self._owner_hears(source, message)
        elif target in self.nodes:
            self.nodes[target].hear(source, message)
        elif source in self.nodes:
            self.nodes[source].node_lost(target)

    def _owner_hears(self, node: str, message: Wire) -> None:
        assert isinstance(message, AskLocations | TellOwner)
        if message.name in self.freed:
            self.post(OWNER, node, OwnerFreed(message.name))
        elif isinstance(message, AskLocations):
            if self.owner_answers:
                self.post(OWNER, node, Locations(message.name, tuple(self.located[message.name])))
        elif message.here:
            self.located[message.name][node] = None
        else:
            self.located[message.name].pop(node, None)

    def free(self, name: ObjectName) -> None:
        """The owner frees an object."""
        self.freed.add(name)
        for node in self.nodes:
            self.post(OWNER, node, OwnerFreed(name))

    def cut(self, one: str, other: str) -> None:
        """A connection is reset, and both sides hear of it."""
        for pair in ((one, other), (other, one)):
            self.wires.pop(pair, None)
        for node, lost in ((one, other), (other, one)):
            if node in self.nodes:
                self.nodes[node].node_lost(lost)

    def kill(self, dead: str) -> None:
        """A node dies, with what it has sent and not delivered."""
        del self.nodes[dead]
        for pair in [pair for pair in self.wires if dead in pair]:
            del self.wires[pair]
        for nodes in self.located.values():
            nodes.pop(dead, None)
        for node in list(self.nodes.values()):
            node.node_lost(dead)

    def busy_wires(self) -> list[tuple[str, str]]:
        return sorted(self.wires)

    def busy_sends(self) -> list[tuple[str, str]]:
        return sorted((node.node, peer) for node in self.nodes.values() for peer in node.sends)

    def run(self, *, seconds: float = 60.0, step: float = 0.25) -> None:
        """Deliver everything, in the order of the names, and let time pass, until nothing is left to do."""
        end = self.now + seconds
        while True:
            while self.wires or self.busy_sends():
                for source, target in self.busy_sends():
                    if target in self.nodes[source].sends:
                        self.send_ends(source, target)
                for source, target in self.busy_wires():
                    if (source, target) in self.wires:
                        self.deliver(source, target)
                self.check()
            if all(node.at_rest for node in self.nodes.values()):
                return
            assert self.now < end, "no rest"
            self.now += step
            for node in list(self.nodes.values()):
                node.tick()

    def check(self) -> None:
        for node in self.nodes.values():
            node.pulls.check()
            node.uploads.check()
            node.arena.check()
