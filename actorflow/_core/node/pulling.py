"""What this node fetches from other nodes for its readers. The decisions are policy/pulls.py's; here they are carried out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from actorflow._core.base.ids import CLUSTER, ProcessId
from actorflow._core.io.peers import Peer
from actorflow._core.node.context import NodeContext
from actorflow._core.node.links import Links
from actorflow._core.node.owners import Owners
from actorflow._core.node.store import COPY, Store
from actorflow._core.policy.extent_records import Denied, Granted
from actorflow._core.policy.pulls import PullBook, PullLimits
from actorflow._core.policy.transfer_records import (
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
)
from actorflow._core.protocol.messages import (
    Allocated,
    Chunk,
    CopyHere,
    LeavePull,
    LeaveSource,
    Locate,
    Pinned,
    Pull,
    RefuseChunks,
    RequestChunks,
    StillServing,
    TakeCopy,
)

if TYPE_CHECKING:
    from actorflow._core.node.serving import Serving
    from actorflow._core.policy.object_store import ExtentBook

KEEPER = "keeper-"
"""What this node is to keep for the cluster is fetched for a reader of its own: this, and the object's index."""
HEARD_S = 1.0
"""So often what comes of a chunk counts as a word of its source."""


class _Read:
    """Extents that somebody has pinned besides the copy itself, which is pinned as long as it is here, so that it never goes to disk."""

    def __init__(self, book: ExtentBook) -> None:
        self._book = book

    def __contains__(self, extent: object) -> bool:
        assert isinstance(extent, int)
        found = self._book.find(extent)
        return found is not None and found.pins > 1


class Pulling:
    """See the module. `changed` is called after each event."""

    def __init__(
        self,
        context: NodeContext,
        links: Links,
        owners: Owners,
        store: Store,
        find: Callable[[ProcessId], Peer | None],
        changed: Callable[[], None],
    ) -> None:
        self._context = context
        self._links = links
        self._owners = owners
        self._store = store
        self._find = find
        self._changed = changed
        self.serving: Serving
        """Who else may want what we fetch."""
        limits = PullLimits(chunk_bytes=context.config.transfer_chunk_bytes)
        self.book = PullBook(context.node_id, store.book.size, limits)
        self._rooms: dict[int, str] = {}
        """The client of each extent that a pull or a copy has."""
        self._places: dict[ProcessId, tuple[Chunk, int, memoryview]] = {}
        """Where the chunk belongs that comes from a node at this moment."""
        self._keepers: dict[int, tuple[ObjectName, Callable[[int, int, str], None]]] = {}
        """What is fetched to be kept, by index, and who is told: the index, the extent or 0, and why not."""
        self._heard_at: dict[ProcessId, float] = {}
        """When a source last was said to bring something, in the middle of a chunk."""

    # -- readers

    def want(self, peer: Peer, message: Pull) -> None:
        """A reader needs an object that lies elsewhere."""
        owner_node = message.owner_node or message.home
        name = ObjectName(message.home, message.extent)
        if not self._owners.know(message.owner, owner_node):
            self._refuse(peer, message.token, f"the process that owned it, {message.owner} on node {owner_node}, is gone")
            return
        now = self._context.now()
        self._obey(self.book.want(peer.process_id, message.token, name, message.size, message.owner, (), now))
        self._changed()

    def leave(self, peer: Peer, message: LeavePull) -> None:
        """A reader does not wait any more."""
        if self.book.waits(peer.process_id, message.token):
            self._obey(self.book.leave(peer.process_id, message.token, self._context.now()))
            self._refuse(peer, message.token, "it is not waited for any more")
            self._changed()

    # -- to be kept

    def keep(self, index: int, name: ObjectName, size: int, then: Callable[[int, int, str], None]) -> None:
        """Fetch an object of the cluster's, which becomes an extent of its own here."""
        self._keepers[index] = (name, then)
        self._obey(self.book.want(f"{KEEPER}{index}", 0, name, size, CLUSTER, (), self._context.now()))
        self._changed()

    def keep_no_more(self, index: int) -> None:
        """Nobody is told of it any more."""
        self._keepers.pop(index, None)
        self._obey(self.book.leave(f"{KEEPER}{index}", 0, self._context.now()))
        self._changed()

    def _kept(self, index: int, answer: Arrived | NotComing) -> None:
        name, then = self._keepers.pop(index)
        if isinstance(answer, NotComing):
            then(index, 0, answer.reason)
            return
        self._make_own(name, CLUSTER)
        then(index, answer.extent, "")

    def take(self, peer: Peer, message: TakeCopy) -> None:
        """An owner wants the copy here of what it has elsewhere to be its object: its node is to leave."""
        extent = self._make_own(ObjectName(message.home, message.extent), peer.process_id)
        if extent:
            peer.send(Allocated(message.token, extent, self._store.book.offset(extent)))
        else:
            peer.send(Allocated(message.token, error="there is no copy of it here any more"))

    def _make_own(self, name: ObjectName, owner: ProcessId) -> int:
        """A copy becomes an extent like any other, that of `owner`: no byte is moved. Its number; 0: there is no copy."""
        extent = self.book.adopted(name)
        if extent:
            client = self._rooms.pop(extent)
            self.serving.gone(name)
            self._store.book.hand_over(client, extent, owner)
            self._store.unpin_for(client, extent)
        return extent

    @staticmethod
    def _refuse(peer: Peer, token: int, why: str, *, full: bool = False) -> None:
        peer.send(Pinned(token, ok=False, error=why, full=full))

    def reader_lost(self, process_id: ProcessId) -> None:
        """A process of this node is gone: it reads nothing more, and what it owned is lost."""
        now = self._context.now()
        self._obey(self.book.reader_lost(process_id, now))
        self._obey(self.book.owner_lost(process_id))

    # -- room

    def allocated(self, answer: Granted | Denied) -> None:
        """The arena's answer."""
        now = self._context.now()
        if isinstance(answer, Denied):
            self._obey(self.book.room_denied(answer.token, answer.reason, now))
        else:
            self._rooms[answer.extent] = answer.client
            # What nobody has pinned may be sent to disk: this is no process's, and not complete.
            self._store.book.pin(answer.client, answer.extent)
            self._store.make_ready(answer.offset, answer.size)
            self._obey(self.book.room_granted(answer.token, answer.extent, answer.offset, now))
        self._changed()

    def offer(self, wanted_bytes: int) -> None:
        """Room is short: copies that nobody reads go."""
        self._obey(self.book.make_room(wanted_bytes, _Read(self._store.book)))

    # -- what sources say

    def place(self, peer: Peer, chunk: Chunk) -> memoryview | None:
        """See ChunkSink."""
        source, name = peer.process_id, ObjectName(chunk.home, chunk.extent)
        offset = self.book.place(source, name, chunk.attempt, chunk.index, chunk.length)
        if offset == NOWHERE:
            self._places.pop(source, None)
            return None
        known = self._places.get(source)
        now = self._context.now()
        if now - self._heard_at.get(source, 0.0) >= HEARD_S:
            # On a slow way a chunk may take longer than a source has: each part of it is a word.
            self._heard_at[source] = now
            self._obey(self.book.still_here(source, name, chunk.attempt, now))
        if known is None or known[0] is not chunk or known[1] != offset:
            known = self._places[source] = (chunk, offset, self._store.writable(offset, chunk.length))
        return known[2]

    def received(self, peer: Peer, chunk: Chunk) -> None:
        """See ChunkSink."""
        self._places.pop(peer.process_id, None)
        name = ObjectName(chunk.home, chunk.extent)
        self._obey(self.book.received(peer.process_id, name, chunk.attempt, chunk.index, chunk.length, self._context.now()))
        self._changed()

    def refused(self, peer: Peer, message: RefuseChunks) -> None:
        """A source sends nothing (more)."""
        name, now = ObjectName(message.home, message.extent), self._context.now()
        self._obey(self.book.refused(peer.process_id, name, message.attempt, Refusal(message.why), message.others, now))
        self._changed()

    def still_here(self, peer: Peer, message: StillServing) -> None:
        """A source has not forgotten us."""
        name, now = ObjectName(message.home, message.extent), self._context.now()
        self._obey(self.book.still_here(peer.process_id, name, message.attempt, now))

    def node_lost(self, node_id: ProcessId) -> None:
        """A source is gone."""
        self._places.pop(node_id, None)
        self._heard_at.pop(node_id, None)
        self._obey(self.book.node_lost(node_id, self._context.now()))

    # -- what owners say

    def located(self, name: ObjectName, nodes: Sequence[ProcessId]) -> None:
        """Who has it."""
        self._obey(self.book.locations(name, nodes, self._context.now()))
        self._changed()

    def freed(self, name: ObjectName) -> None:
        """Nobody may have it any more."""
        self._obey(self.book.freed(name))
        self._changed()

    def owner_lost(self, owner: ProcessId, *, gone: bool) -> None:
        """The owner is gone, or cannot be reached."""
        self._obey(self.book.owner_lost(owner) if gone else self.book.owner_away(owner))

    def home_gone(self, node_id: ProcessId) -> None:
        """A node has left for good."""
        self._obey(self.book.home_gone(node_id))

    def tick(self, now: float) -> None:
        """Time has passed."""
        self._obey(self.book.tick(now))

    # -- carrying out

    def _obey(self, decisions: Sequence[PullDecision]) -> None:
        for decision in decisions:
            if isinstance(decision, Grew):
                self.serving.grown(decision.name, decision.chunks)
            elif isinstance(decision, Request):
                name = decision.name
                self._links.send(decision.peer, RequestChunks(*name, decision.attempt, decision.first, decision.count))
            elif isinstance(decision, Leave):
                self._links.say(decision.peer, LeaveSource(*decision.name, decision.attempt, decision.complete))
            elif isinstance(decision, Arrived | NotComing):
                self._answer(decision)
            elif isinstance(decision, AskLocations):
                self._owners.tell(decision.owner, Locate(decision.owner, *decision.name, self._context.node_id))
            elif isinstance(decision, TellOwner):
                self._owners.tell(decision.owner, CopyHere(decision.owner, *decision.name, self._context.node_id, decision.here))
            else:
                self._room(decision)

    def _room(self, decision: AskRoom | CancelRoom | GiveRoom) -> None:
        if isinstance(decision, AskRoom):
            self._store.ask_room(f"{COPY}{decision.pull}", decision.pull, decision.size)
        elif isinstance(decision, CancelRoom):
            self._store.give_back(f"{COPY}{decision.pull}")
        else:
            if decision.name is not None:
                self.serving.gone(decision.name)
            self._store.give_back(self._rooms.pop(decision.extent))

    def _answer(self, answer: Arrived | NotComing) -> None:
        if answer.reader.startswith(KEEPER):
            index = int(answer.reader.removeprefix(KEEPER))
            if index in self._keepers:
                self._kept(index, answer)
            return
        reader = self._find(answer.reader)
        if reader is None:
            return  # Its loss is told in a moment.
        if isinstance(answer, NotComing):
            self._refuse(reader, answer.token, answer.reason, full=answer.why is Why.NO_ROOM)
            return
        offset = self._store.pin_for(answer.reader, answer.extent)
        assert offset is not None, "PU-4: what has arrived can be pinned"
        reader.send(Pinned(answer.token, offset=offset, extent=answer.extent))

    # -- looking

    def held(self, name: ObjectName) -> Held | None:
        """What is here of something that lives elsewhere."""
        return self.book.held(name)

    def left_over(self) -> list[str]:
        """What should not be here at rest, for leak checks."""
        self.book.check()
        found = [f"a pull of {name} ({stage.value}, {have} of {chunks} chunks)" for name, stage, have, chunks in self.book.pulls()]
        found += [f"a copy of {name}" for name in self.book.copies()]
        found += [f"the room {extent} of {client}" for extent, client in self._rooms.items()]
        return found + [f"a place for a chunk of node {source}" for source in self._places]
