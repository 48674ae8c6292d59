"""Objects that the cluster owns: the head knows them, and tells nodes what to keep. The decisions are policy/durable_objects.py's."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from actorflow._core.base.ids import ProcessId
from actorflow._core.head.directory import Directory
from actorflow._core.head.jobs import Jobs, job_of, namespace_of
from actorflow._core.head.nodes import Nodes, Touch, node_id_of, nothing
from actorflow._core.io.peers import Peer
from actorflow._core.io.ports import Ports
from actorflow._core.policy.actor_decisions import Forget
from actorflow._core.policy.durable_objects import Durable, DurableObjects
from actorflow._core.policy.durable_steps import Adopt, Answer, Copy, Drop, EndMaker, Settled, Step, Write
from actorflow._core.protocol.messages import (
    ActorDied,
    AdoptObject,
    CancelDetached,
    CopyObject,
    DropObjects,
    DurablePut,
    DurablesFreed,
    Failed,
    FetchDurable,
    FetchedDurable,
    FreeDurable,
    KeptHere,
    Locate,
    Located,
    PutDurable,
    StartDetached,
)

if TYPE_CHECKING:
    from actorflow._core.head.actors import Actors

log = logging.getLogger("actorflow")

LOOK_S = 0.5
"""So late it is seen that a namespace is over: many of its actors may go at one time."""


class DurableRoom:
    """See the module."""

    def __init__(
        self, ports: Ports, directory: Directory, nodes: Nodes, jobs: Jobs, actors: Actors, in_use: Callable[[str], bool]
    ) -> None:
        """`in_use`: whether a namespace has anybody left who could have a reference."""
        self._ports = ports
        self._in_use = in_use
        self._directory = directory
        self._nodes = nodes
        self._jobs = jobs
        self._actors = actors
        self._waiting: dict[int, dict[ProcessId, ProcessId]] = {}
        """Who is to be told when what was promised is there, each with its node (DO-5)."""
        self.table = DurableObjects()
        """To be read by others, written here."""
        self.touch: Touch = nothing
        """As in Nodes."""
        self.returning = False
        """Nodes of the head's earlier life are still to come back. Set by the head."""
        self._dropped_meanwhile: list[DropObjects] = []
        """What was freed in the earlier life, and may be on nodes that are not back yet: their copies are known by other nodes' names."""
        self._timer: asyncio.TimerHandle | None = None
        self._looking: asyncio.TimerHandle | None = None
        for node_id in nodes.membership.living():
            self.table.node_joined(node_id)
            node = nodes.membership.find(node_id)
            if node is not None and node.apart:
                self.table.node_apart(node_id)

    def stop(self) -> None:
        """No timer fires from now on."""
        for timer in (self._timer, self._looking):
            if timer is not None:
                timer.cancel()
        self._timer = self._looking = None

    # -- processes

    def put(self, peer: Peer, message: PutDurable) -> None:
        """Somebody wants an object kept."""
        outcome = message.outcome
        if message.promised:
            self._obey(self.table.make(message.index, outcome, (peer.process_id, message.token)))
            return
        if isinstance(outcome, Failed):
            peer.send(DurablePut(message.token, error="an error is no value"))
            return
        now = self._ports.monotonic()
        ends_at = now + message.lasts_s if message.lasts_s > 0 else None
        putter, job_id = (peer.process_id, message.token), job_of(peer)
        self._obey(self.table.put(Durable(message.index, namespace_of(self._jobs, peer), job_id, outcome, now, ends_at, putter=putter)))
        self._arm()

    def fetch(self, peer: Peer, message: FetchDurable) -> None:
        """Somebody wants to have one. What is promised is waited for."""
        if self.table.is_open(message.index):
            self._waiting.setdefault(message.index, {})[peer.process_id] = peer.node_id
            return
        peer.send(self._fetched(message.index, peer.node_id, message.tried))

    def _fetched(self, index: int, near: str, tried: Sequence[tuple[str, int]] = ()) -> FetchedDurable:
        found = self.table.find(index)
        outcome, error = self.table.outcome(index, near, tried)
        if outcome is None and found is not None and found.died is not None:
            return FetchedDurable(index, died=found.died, name=found.name)
        return FetchedDurable(index, outcome, error)

    def start(self, peer: Peer, message: StartDetached) -> None:
        """A detached call: an actor is to make what the cluster is to own."""
        spec, index = message.spec, message.index
        error = ""
        if self.table.find(index) is None:
            if problem := self.table.no_room():
                peer.send(DurablePut(message.token, error=problem, full=True))
                return
            spec.namespace = spec.namespace or namespace_of(self._jobs, peer)  # One for both: what keeps the one keeps the other.
            promised = Durable(index, spec.namespace, spec.job_id, None, self._ports.monotonic(), maker=spec.actor_id)
            promised.name, promised.work = spec.class_name, message.work
            self._obey(self.table.promise(promised))
            if error := self._actors.start_detached(peer, spec):
                self._obey(self.table.free([index])[1])
        peer.send(DurablePut(message.token, error=error))

    def cancel(self, peer: Peer, message: CancelDetached) -> None:
        """Nobody wants what it makes."""
        steps = self.table.cancel(message.index, ActorDied("cancelled", f"it was cancelled by {peer.role} {peer.process_id}"))
        self._obey(steps)
        peer.send(DurablesFreed(message.token, int(bool(steps))))

    def free(self, peer: Peer, message: FreeDurable) -> None:
        """Somebody frees some."""
        count, steps = self.table.free(message.indices)
        self._obey(steps)
        peer.send(DurablesFreed(message.token, count))

    # -- nodes

    def node_joined(self, node_id: str) -> None:
        """A node is there."""
        self._obey(self.table.node_joined(node_id))

    def node_apart(self, node_id: str) -> None:
        """A node is heard only through others."""
        self._obey(self.table.node_apart(node_id))

    def node_in_reach(self, node_id: str) -> None:
        """It is heard by itself again."""
        self._obey(self.table.node_in_reach(node_id))

    def node_leaves(self, node_id: str) -> None:
        """A node is to leave."""
        self._obey(self.table.node_leaves(node_id))

    def node_lost(self, node_id: str, reason: str) -> None:
        """A node is gone."""
        before = len(self.table)
        self._obey(self.table.node_lost(node_id, reason))
        if lost := before - len(self.table):
            log.error("%d objects that the cluster owned were on node %s alone, and are lost with it", lost, node_id)

    def kept_here(self, peer: Peer, message: KeptHere) -> None:
        """A node says what it keeps."""
        node_id = node_id_of(peer)
        if message.all:
            self._obey(self.table.all_here(node_id, dict(message.kept)))
        elif message.failed:
            self._obey(self.table.failed(node_id, message.failed, message.error, self._ports.monotonic()))
            self._arm()  # It may be asked again.
        else:
            for index, extent in message.kept:
                self._obey(self.table.kept(node_id, index, extent))

    def locate(self, peer: Peer, message: Locate) -> None:
        """A node fetches one for a reader, and its source is no use: the reader asks anew, and gets another (`freed`)."""
        homes = self._nodes.membership.find(message.home) is not None
        peer.send(Located(message.home, message.extent, message.node, [message.home] if homes else [], freed=not homes))

    # -- time, and namespaces

    def actor_gone(self, end: Forget) -> None:
        """An actor is gone for good."""
        self._obey(self.table.maker_gone(end.actor_id, end.died))
        self.somebody_went()

    def process_gone(self, process_id: ProcessId) -> None:
        """It waits for nothing any more."""
        for waiting in self._waiting.values():
            waiting.pop(process_id, None)

    def somebody_went(self) -> None:
        """A job is over, or an actor: it is looked soon whether that was the last one of a namespace."""
        if self._looking is None and len(self.table):
            self._looking = self._ports.loop.call_later(LOOK_S, self._look)

    def _look(self) -> None:
        self._looking = None
        for namespace in dict.fromkeys(found.namespace for found in self.table.all()):
            if not self._in_use(namespace):
                log.info("namespace %s is over: what the cluster owned for it is freed", namespace)
                self.namespace_over(namespace)
        self._arm()

    def namespace_over(self, namespace: str) -> None:
        """Nobody in it is left who could have a reference."""
        self._obey(self.table.namespace_over(namespace))

    def go_on(self) -> None:
        """After a return of the head: all are back that come back."""
        self.returning = False
        dropped, self._dropped_meanwhile = self._dropped_meanwhile, []
        for message in dropped:
            for node_id in self._nodes.membership.living():
                self._nodes.send(node_id, message)
        self._obey(self.table.go_on())
        self._arm()
        self.somebody_went()  # The earlier life may have ended after the last one of a namespace went, and before it looked.

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        at = self.table.next_at()
        if at is not None:
            self._timer = self._ports.loop.call_later(max(at - self._ports.monotonic(), 0.0), self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._obey(self.table.tick(self._ports.monotonic()))
        self._arm()

    # -- carrying out

    def _obey(self, steps: Sequence[Step]) -> None:
        for step in steps:
            if isinstance(step, Write):
                self.touch("durable", str(step.index))
            elif isinstance(step, Adopt):
                self._nodes.send(step.node, AdoptObject(step.index, step.extent, step.writer))
            elif isinstance(step, Copy):
                self._nodes.send(step.node, CopyObject(step.index, step.size, step.home, step.extent))
            elif isinstance(step, Settled):
                for process_id, node_id in self._waiting.pop(step.index, {}).items():
                    self._directory.send(process_id, self._fetched(step.index, node_id))
            elif isinstance(step, EndMaker):
                self._actors.end_detached(step.actor_id, step.by)
            elif isinstance(step, Answer):
                self._directory.send(step.process, DurablePut(step.token, step.copies, step.error, step.full, step.over))
            else:
                self._drop(step)

    def _drop(self, step: Drop) -> None:
        message = DropObjects([step.index], list(step.names))
        if self.returning and not step.node:
            self._dropped_meanwhile.append(message)
            return
        for node_id in [step.node] if step.node else self._nodes.membership.living():
            self._nodes.send(node_id, message)
