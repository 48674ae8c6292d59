"""The living actors, and who they belong to: every question of the head is one look-up, never a walk."""

from __future__ import annotations

from collections.abc import Iterator

from actorflow._core.base.errors import InternalError
from actorflow._core.base.ids import ActorId, ProcessId
from actorflow._core.policy.actor_record import Actor
from actorflow._core.policy.names import NameBook

Index = dict[str, dict[ActorId, None]]
"""Which actors belong to somebody. Dicts, not sets: their order is the same in every run."""


class Roster:
    """The living by id, name, owner, job, node and watcher. Written by ActorTable only.

    RO-1: an actor is in every index that its record says it belongs to, and in no other.
    """

    __slots__ = ("_actors", "_by_job", "_by_node", "_by_owner", "_watched", "get", "names")

    def __init__(self) -> None:
        self._actors: dict[ActorId, Actor] = {}
        self._by_owner: Index = {}
        self._by_job: Index = {}
        self._by_node: Index = {}
        self._watched: Index = {}
        self.names = NameBook()
        self.get = self._actors.get

    def __len__(self) -> int:
        return len(self._actors)

    def __contains__(self, actor_id: ActorId) -> bool:
        return actor_id in self._actors

    def __getitem__(self, actor_id: ActorId) -> Actor:
        return self._actors[actor_id]

    def __iter__(self) -> Iterator[Actor]:
        """Newest first."""
        return reversed(self._actors.values())

    def named(self, namespace: str, name: str) -> Actor | None:
        """The actor that has this name; none has the empty one."""
        actor_id = self.names.find(namespace, name) if name else None
        return self._actors[actor_id] if actor_id is not None else None

    def owned_by(self, owner: ProcessId) -> list[Actor]:
        """The actors that this process owns."""
        return [self._actors[actor_id] for actor_id in self._by_owner.get(owner, ())]

    def of_job(self, job_id: str) -> list[Actor]:
        """The actors of a job."""
        return [self._actors[actor_id] for actor_id in self._by_job.get(job_id, ())]

    def on_node(self, node_id: ProcessId) -> list[Actor]:
        """The actors whose current incarnation is on this node."""
        return [self._actors[actor_id] for actor_id in self._by_node.get(node_id, ())]

    def count(self, job_id: str) -> int:
        """How many actors a job has."""
        return len(self._by_job.get(job_id, ()))

    def hosts(self, process_id: ProcessId, job_id: str) -> bool:
        """True when an actor of the job lives in this process. Looks at all of them: for ended jobs only."""
        return any(actor.worker_id == process_id for actor in self.of_job(job_id))

    def survivors(self, job_id: str) -> set[ActorId]:
        """Who outlives the job: its detached actors, and whatever they created, to any depth."""
        unseen = [actor for actor in self.of_job(job_id) if actor.spec.detached]
        survivors = {actor.spec.actor_id for actor in unseen}
        while unseen:
            worker_id = unseen.pop().worker_id
            children = self.owned_by(worker_id) if worker_id else []
            for child in children:
                if child.spec.actor_id not in survivors:
                    survivors.add(child.spec.actor_id)
                    unseen.append(child)
        return survivors

    # -- changes

    def enter(self, actor: Actor) -> None:
        """A new actor, on no node yet."""
        spec = actor.spec
        self._actors[spec.actor_id] = actor
        _add(self._by_owner, spec.owner, spec.actor_id)
        _add(self._by_job, spec.job_id, spec.actor_id)
        if spec.name:
            self.names.take(spec.namespace, spec.name, spec.actor_id)

    def remove(self, actor: Actor) -> None:
        """It is dead, and on no node any more; its name is free."""
        spec = actor.spec
        assert not actor.node_id, f"RO-1: actor {spec.actor_id} is removed and still on node {actor.node_id}"
        del self._actors[spec.actor_id]
        _drop(self._by_owner, spec.owner, spec.actor_id)
        _drop(self._by_job, spec.job_id, spec.actor_id)
        for watcher in actor.watchers:
            _drop(self._watched, watcher, spec.actor_id)
        if spec.name:
            self.names.free(spec.namespace, spec.name, spec.actor_id)

    def put_on_node(self, actor: Actor, node_id: ProcessId) -> None:
        """Its current incarnation is on that node now."""
        assert not actor.node_id, f"AC-1: actor {actor.spec.actor_id} is on node {actor.node_id} already"
        actor.node_id = actor.last_node_id = node_id
        _add(self._by_node, node_id, actor.spec.actor_id)

    def take_off_node(self, actor: Actor) -> None:
        """Its current incarnation is gone, or was told to go."""
        _drop(self._by_node, actor.node_id, actor.spec.actor_id)
        actor.node_id = ""

    def add_watcher(self, actor: Actor, watcher: ProcessId) -> None:
        """`watcher` is told of every change from now on."""
        if watcher not in actor.watchers:
            actor.watchers = (*actor.watchers, watcher)
            _add(self._watched, watcher, actor.spec.actor_id)

    def drop_watcher(self, watcher: ProcessId) -> None:
        """A process is gone and need not be told anything."""
        for actor_id in self._watched.pop(watcher, ()):
            actor = self._actors[actor_id]
            actor.watchers = tuple(known for known in actor.watchers if known != watcher)


def _add(index: Index, key: str, actor_id: ActorId) -> None:
    known = index.get(key)
    if known is None:
        index[key] = {actor_id: None}
    else:
        known[actor_id] = None


def _drop(index: Index, key: str, actor_id: ActorId) -> None:
    known = index.get(key)
    if known is None or actor_id not in known:
        raise InternalError(f"RO-1: actor {actor_id} is missing in the index of {key!r}")
    del known[actor_id]
    if not known:
        del index[key]
