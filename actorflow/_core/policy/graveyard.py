"""The dead actors: remembered, so that who asks late is told why, and bounded, so that no head fills up."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator

import msgspec

from actorflow._core.base.ids import ActorId, ProcessId
from actorflow._core.protocol.messages import ActorDied, ActorState

DEAD_ACTORS_MAX = 100_000
DEAD_BYTES_MAX = 64 * 1024 * 1024
DEAD_NAMES_MAX = 1_000

FORGOTTEN = "nothing is known of this actor: it was never created, or died so long ago that its end is no longer remembered"

Story = list[tuple[float, str, str]]
"""(time, what happened, a detail): what an actor or its errors tell of their past, oldest first."""


def tell_story(story: Story, since: float) -> list[str]:
    """The story as lines for people; times count from `since`."""
    return [f"+{now - since:.3f} s  {what}{' ' if detail else ''}{detail}" for now, what, detail in story]


class DeadActor(msgspec.Struct, array_like=True, gc=False):
    """What is kept of an actor when it is dead. Times are the head's monotonic clock."""

    actor_id: ActorId
    class_name: str
    name: str
    namespace: str
    job_id: str
    owner: ProcessId
    detached: bool
    shared: bool
    incarnation: int
    restarts: int
    max_restarts: int
    node_id: ProcessId
    worker_id: ProcessId
    resources: dict[str, int]
    created_at: float
    died_at: float
    died: ActorDied
    story: Story

    def state(self) -> ActorState:
        """The last state, as watchers are told it."""
        return ActorState(self.actor_id, "dead", self.incarnation, died=self.died)


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(DeadActor).decode


class Graveyard:
    """The dead, oldest first.

    They are kept encoded: a few hundred bytes each instead of a few thousand.

    GY-1: at most `actors_max` of them and at most `bytes_max` bytes; beyond either the oldest are forgotten. By name at most
    DEAD_NAMES_MAX are found.
    """

    __slots__ = ("_actors_max", "_by_id", "_bytes", "_bytes_max", "_named", "_order")

    def __init__(self, actors_max: int = DEAD_ACTORS_MAX, bytes_max: int = DEAD_BYTES_MAX) -> None:
        self._actors_max = actors_max
        self._bytes_max = bytes_max
        self._by_id: dict[ActorId, bytes] = {}
        self._order: deque[ActorId] = deque()
        self._bytes = 0
        self._named: OrderedDict[tuple[str, str], ActorId] = OrderedDict()
        """The last ones of some names, with their namespaces; those that died last."""

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, actor_id: ActorId) -> bool:
        return actor_id in self._by_id

    def __iter__(self) -> Iterator[DeadActor]:
        """The remembered, newest first."""
        return (_decode(self._by_id[actor_id]) for actor_id in reversed(self._order))

    def bury(self, dead: DeadActor) -> None:
        """Remember one more; the oldest make room."""
        assert dead.actor_id not in self._by_id, f"AC-2: actor {dead.actor_id} died twice"
        data = _encode(dead)
        self._by_id[dead.actor_id] = data
        self._order.append(dead.actor_id)
        self._bytes += len(data)
        if dead.name:
            self._named[dead.namespace, dead.name] = dead.actor_id
            self._named.move_to_end((dead.namespace, dead.name))
            if len(self._named) > DEAD_NAMES_MAX:
                self._named.popitem(last=False)
        while len(self._by_id) > self._actors_max or self._bytes > self._bytes_max:
            self._bytes -= len(self._by_id.pop(self._order.popleft()))

    def bury_unknown(self, actor_id: ActorId, now: float) -> ActorState:
        """Remember an actor of which nothing is known; returns what whoever asked for it is told."""
        died = ActorDied("forgotten", FORGOTTEN)
        story: Story = [(now, "forgotten", "")]
        dead = DeadActor(actor_id, "", "", "", "", "", False, False, 0, 0, 0, "", "", {}, now, now, died, story)
        self.bury(dead)
        return dead.state()

    def find(self, actor_id: ActorId) -> DeadActor | None:
        """What is remembered of the actor, or None."""
        data = self._by_id.get(actor_id)
        return _decode(data) if data is not None else None

    def named(self, namespace: str, name: str) -> DeadActor | None:
        """The last one that had this name, while it is remembered."""
        actor_id = self._named.get((namespace, name))
        return self.find(actor_id) if actor_id is not None else None
