"""Actors on this node: placed when their resources are free, hosted by a worker, ended.

NA-1: every PlaceActor ends in exactly one ActorFailed or ActorLost; an ActorReady may come before it.
NA-2: a dedicated actor's resources are released when its process is gone, a shared one's when it has ended.
NA-3: after `kill_grace_s` a killed shared actor that has not ended takes its host along; its co-tenants are
      told to be victims (SEMANTICS 22).
"""

from __future__ import annotations

import asyncio
import sys
from enum import Enum
from typing import cast

from actorflow._core.io.peers import Peer
from actorflow._core.node.context import Death, NodeContext, WorkerProcess
from actorflow._core.node.elsewhere import MOVE_AGAIN_S, MOVED_MAX, Elsewhere
from actorflow._core.node.environment import device_texts, parse_env
from actorflow._core.node.workers import Workers
from actorflow._core.policy.placement_wish import GROUP
from actorflow._core.policy.tickets import Refused, Ticket, TicketKind
from actorflow._core.policy.work_class import Infeasible
from actorflow._core.policy.worker_records import Claim, Purpose, WorkerKey
from actorflow._core.protocol.messages import (
    ActorDied,
    ActorExit,
    ActorFailed,
    ActorLost,
    ActorReady,
    ActorSpec,
    HostActor,
    HostedActor,
    KillActor,
    PlaceActor,
)

TICKET_CLIENT = "actors"
"""The client of all actors' tickets in the lease book: the head decides on their lives, not who made them."""


class Stage(Enum):
    """How far an incarnation has come."""

    WAITING = "waiting"
    CONSTRUCTING = "constructing"
    ALIVE = "alive"


class Exit(Enum):
    """How an incarnation was asked to end."""

    NO = "no"
    GRACEFUL = "graceful"
    KILL = "kill"


class Actor:
    """One incarnation of one actor: the holder of a ticket, then (dedicated) the occupant of a worker.

    `order` is what the head sent; it is dropped once the worker has it, as there may be 100,000 of these.
    """

    __slots__ = (
        "_room", "actor_id", "claim", "exit", "incarnation", "moves", "name", "order", "retriable", "returns", "shared", "stage",
        "ticket", "timer", "worker",
    )  # fmt: skip

    def __init__(self, room: Actors, order: PlaceActor, ticket: Ticket) -> None:
        self._room = room
        self.order: PlaceActor | None = order
        self.actor_id = order.spec.actor_id
        self.incarnation = order.incarnation
        self.name = order.spec.class_name
        self.shared = order.spec.shared
        self.retriable = order.spec.max_restarts != 0
        """See Occupant."""
        self.ticket = ticket
        self.claim: Claim | None = None
        self.worker: WorkerProcess | None = None
        self.stage = Stage.WAITING
        self.exit = Exit.NO
        self.moves = self.returns = False
        """Its graceful end is a move: what is queued goes on in the next incarnation."""
        self.timer: asyncio.TimerHandle | None = None

    def actor_ids(self) -> list[str]:
        """See Occupant."""
        return [self.actor_id]

    def admitted(self) -> None:
        """See Holder."""
        self._room.admitted(self)

    def fulfilled(self, worker: WorkerProcess) -> None:
        """See Holder."""
        self._room.fulfilled(self, worker)

    def refused(self, kind: str, reason: str) -> None:
        """See Holder."""
        self._room.refused(self, kind, reason)

    def evicted(self, reason: str, *, removed: bool) -> None:
        """See Holder."""
        self._room.evicted(self, reason)

    def worker_lost(self, worker: WorkerProcess, death: Death) -> None:
        """See Occupant."""
        self._room.dedicated_lost(self, worker, death)


class House:
    """The shared actors of one host process: its occupant."""

    __slots__ = ("_room", "actors")

    name = "shared actors"
    retriable = False
    """Of many actors one may not be."""

    def __init__(self, room: Actors) -> None:
        self._room = room
        self.actors: dict[str, Actor] = {}

    def actor_ids(self) -> list[str]:
        """See Occupant."""
        return list(self.actors)

    def worker_lost(self, worker: WorkerProcess, death: Death) -> None:
        """See Occupant."""
        self._room.house_lost(self, death)


class Actors:
    """All actors on this node."""

    def __init__(self, context: NodeContext, workers: Workers, elsewhere: Elsewhere) -> None:
        self._context = context
        self._workers = workers
        self._elsewhere = elsewhere
        self._actors: dict[str, Actor] = {}

    def __len__(self) -> int:
        return len(self._actors)

    def hosted(self) -> list[HostedActor]:
        """All that are here."""
        return [_as_hosted(actor) for actor in self._actors.values()]

    # -- from the head

    def place(self, peer: Peer, message: PlaceActor) -> None:
        """Start this incarnation when there is room. Idempotent."""
        if self._context.has_left:
            return  # The head has sent it before it heard that, or hears of it that it is not here.
        spec = message.spec
        spec.class_name = sys.intern(spec.class_name)
        known = self._actors.get(spec.actor_id)
        if known is not None:
            if known.incarnation >= message.incarnation:
                return
            self._supersede(known)
        kind, problem = "unschedulable", _problem(spec)
        if not problem:
            kind, problem = "environment", self._workers.problem_with(spec.env)
        if not problem:
            if spec.placement.startswith(GROUP):
                ticket = self._in_group(spec)
            else:
                ticket = self._context.book.request(
                    TicketKind.ACTOR,
                    TICKET_CLIENT,
                    spec.resources,
                    self._context.now(),
                    priority=spec.priority,
                    name=spec.class_name,
                )
            if isinstance(ticket, Refused) and ticket.kind == "moved":
                # None of its code has run: the head looks for the bundle again.
                self._context.head.send(ActorLost(spec.actor_id, message.incarnation, ticket.reason, spent=False))
                return
            if not isinstance(ticket, Refused):
                actor = self._actors[spec.actor_id] = Actor(self, message, ticket)
                ticket.holder = actor
                return
            kind, problem = "unschedulable", ticket.reason
        died = ActorDied(kind, problem)
        self._context.head.send(ActorFailed(spec.actor_id, message.incarnation, died))

    def _in_group(self, spec: ActorSpec) -> Ticket | Refused:
        groups = self._context.groups
        if groups is None:
            return Refused("moved", "this node has no bundle of any placement group")
        return groups.request(spec.placement, TicketKind.ACTOR, TICKET_CLIENT, spec.resources, spec.priority, spec.class_name)

    def move_on(self, now: float) -> None:
        """Some that wait here may find room on another node: the head looks for one again. None of their code has run."""
        for ticket in self._context.book.oldest_waiting(TicketKind.ACTOR, MOVED_MAX):
            actor = cast(Actor, ticket.holder)
            if now - ticket.requested_at < MOVE_AGAIN_S or actor.order is None:
                continue
            place = self._elsewhere.better_place(ticket.demand, actor.order.spec.placement, [], waits=True)
            if place is not None and not isinstance(place, Infeasible):
                self._withdraw(actor)
                cause = f"it waited for room on node {self._context.node_id}, and node {place[0]} has some"
                self._lost(actor, cause, expected=False, spent=False)

    def kill(self, peer: Peer, message: KillActor) -> None:
        """End this incarnation, wherever it is. Idempotent."""
        actor = self._actors.get(message.actor_id)
        if actor is None or message.incarnation not in (0, actor.incarnation):
            return
        if actor.stage is Stage.WAITING:
            self._withdraw(actor)
            self._lost(actor, "it was asked to end before it had started", expected=True)
        else:
            actor.returns = not message.no_restart
            self._end(actor, Exit.GRACEFUL if message.graceful else Exit.KILL, moves=message.moves)

    # -- from the books

    def admitted(self, actor: Actor) -> None:
        """The resources are there: now a worker."""
        assert actor.order is not None, "NA-1: not placed twice"
        spec = actor.order.spec
        key = WorkerKey(spec.job_id, spec.env, device_texts(actor.ticket.devices))
        purpose = Purpose.SHARED if spec.shared else Purpose.ACTOR
        actor.claim = self._context.pool.claim(key, purpose, actor, detached=spec.detached)

    def fulfilled(self, actor: Actor, worker: WorkerProcess) -> None:
        """The worker is there: it makes the actor."""
        order, actor.order, actor.claim = actor.order, None, None
        assert order is not None, "NA-1: not placed twice"
        assert worker.peer is not None, "WP-1: a worker is connected before it is used"
        actor.worker = worker
        actor.stage = Stage.CONSTRUCTING
        if actor.shared:
            house = worker.occupant
            if not isinstance(house, House):
                house = worker.occupant = House(self)
            house.actors[actor.actor_id] = actor
        else:
            worker.occupant, worker.occupied_at = actor, self._context.now()
            actor.ticket.book.assign(actor.ticket, worker.worker_id)
        worker.peer.send(HostActor(order.spec, order.incarnation, order.checkpoint, actor.ticket.devices))

    def evicted(self, actor: Actor, reason: str) -> None:
        """Its bundle is to be given back: the head places it again, unless it has ended with its group."""
        worker = actor.worker
        if worker is None:
            self._withdraw(actor)
            self._lost(actor, reason, expected=False, spent=False)
        elif actor.shared:
            self._end(actor, Exit.KILL)
        else:
            self._workers.kill(worker, reason)

    def refused(self, actor: Actor, kind: str, reason: str) -> None:
        """No worker can be had, or its bundle is not here any more."""
        actor.ticket.book.release(actor.ticket)
        if kind == "moved":
            self._lost(actor, reason, expected=False, spent=False)
            return
        died = ActorDied("unschedulable" if kind == "full" else "crashed", f"no worker for it: {reason}")
        env = actor.order.spec.env if actor.order is not None else ""
        if kind == "worker_failed" and (problem := self._workers.problem_with(env)):
            # It was there when the actor was placed.
            died = ActorDied("environment", problem)
        self._context.head.send(ActorFailed(actor.actor_id, actor.incarnation, died))
        self._forget(actor)

    # -- from workers

    def ready(self, peer: Peer, message: ActorReady) -> None:
        """A constructor is done."""
        actor = self._on_worker(peer, message.actor_id, message.incarnation)
        if actor is None:
            return
        actor.stage = Stage.ALIVE
        if actor.exit is Exit.NO:
            self._context.head.send(message)
        else:
            graceful = actor.exit is Exit.GRACEFUL
            peer.send(ActorExit(actor.actor_id, graceful, graceful and actor.moves, actor.returns))

    def failed(self, peer: Peer, message: ActorFailed) -> None:
        """A constructor raised. A dedicated worker ends too: nobody knows what the constructor left there."""
        actor = self._on_worker(peer, message.actor_id, message.incarnation)
        if actor is None:
            return
        self._leave_worker(actor, "the constructor of its actor failed")
        if actor.exit is Exit.NO:
            self._context.head.send(message)
            self._forget(actor)
        else:
            self._lost(actor, "it was asked to end; its constructor failed", expected=True)

    def left(self, peer: Peer, message: ActorLost) -> None:
        """An actor has ended, and its process lives on: a shared one."""
        actor = self._on_worker(peer, message.actor_id, message.incarnation)
        if actor is not None:
            self._leave_worker(actor, "its actor has ended")
            self._lost(actor, message.cause, expected=message.expected or actor.exit is not Exit.NO)

    # -- ends

    def dedicated_lost(self, actor: Actor, worker: WorkerProcess, death: Death) -> None:
        """The process of a dedicated actor is gone. Exit code 0 that nobody asked for: it ended itself."""
        worker.owed.append(actor.ticket)
        itself = death.exit is not None and death.exit.exit_code == 0 and not worker.ending
        expected = itself or actor.exit is not Exit.NO
        self._lost(actor, death.cause if expected else death.with_log(), expected=expected, ended=worker)

    def house_lost(self, house: House, death: Death) -> None:
        """A host is gone, and all who lived in it."""
        culprits = [actor for actor in house.actors.values() if actor.exit is Exit.KILL]
        names = ", ".join(f"{actor.name} ({actor.actor_id})" for actor in culprits[:3])
        for actor in house.actors.values():
            actor.ticket.book.release(actor.ticket)
            if actor.exit is not Exit.NO:
                self._lost(actor, death.cause, expected=True)
            elif culprits:
                cause = f"its process was ended because {names}, which shared it, did not stop when killed"
                self._lost(actor, cause, expected=False, spent=False)
            else:
                self._lost(actor, death.with_log(), expected=False, ended=actor.worker)

    def _end(self, actor: Actor, how: Exit, *, moves: bool = False) -> None:
        """Have a worker end an actor. A kill overrides a graceful end, and is not overridden. A graceful end overrides a move: one that
        cannot go on elsewhere may stay here for long (MV-5), and nobody wants it any more.
        """
        worker = actor.worker
        if worker is None:
            self._withdraw(actor)
        elif how is Exit.GRACEFUL:
            if actor.exit is Exit.NO or (actor.exit is Exit.GRACEFUL and actor.moves and not moves):
                actor.exit, actor.moves = how, moves
                if actor.stage is Stage.ALIVE and worker.peer is not None:
                    worker.peer.send(ActorExit(actor.actor_id, True, moves, actor.returns))
        elif actor.exit is not Exit.KILL:
            actor.exit = how
            if not actor.shared:
                self._workers.kill(worker, "its actor was killed")
            elif worker.peer is not None:
                worker.peer.send(ActorExit(actor.actor_id, graceful=False))
                grace_s = self._context.config.kill_grace_s
                actor.timer = self._context.ports.loop.call_later(grace_s, self._overdue, actor)

    def _supersede(self, actor: Actor) -> None:
        """A newer incarnation is placed: to everybody else this one is dead, and nobody waits for its end."""
        worker = actor.worker
        self._end(actor, Exit.KILL)
        if worker is not None and actor.shared:
            self._leave_worker(actor, "")
        elif worker is not None:
            worker.occupant = None
            worker.owed.append(actor.ticket)
        self._forget(actor)

    def _overdue(self, actor: Actor) -> None:
        """NA-3."""
        actor.timer = None
        if actor.worker is not None:
            grace = f"{self._context.config.kill_grace_s:g} s"
            self._workers.kill(actor.worker, f"{actor.name} ({actor.actor_id}) did not end within {grace}")

    def _withdraw(self, actor: Actor) -> None:
        """Take it out of the queues: it has no worker yet."""
        if actor.claim is not None:
            self._context.pool.drop(actor.claim)
        actor.ticket.book.release(actor.ticket)

    def _leave_worker(self, actor: Actor, reason: str) -> None:
        """NA-2: a shared actor leaves its house; a dedicated one takes its process along."""
        worker = actor.worker
        assert worker is not None, "NA-2: it had a worker"
        if actor.shared:
            assert isinstance(worker.occupant, House), "NA-2: a shared actor lives in a house"
            worker.occupant.actors.pop(actor.actor_id, None)
            self._context.pool.leave_host(worker.worker_id, self._context.now())
            actor.ticket.book.release(actor.ticket)
        else:
            worker.occupant = None
            worker.owed.append(actor.ticket)
            self._workers.leave(worker, reason)

    def _lost(self, actor: Actor, cause: str, *, expected: bool, spent: bool = True, ended: WorkerProcess | None = None) -> None:
        worker_id = ended.worker_id if ended is not None else ""
        self._context.head.send(ActorLost(actor.actor_id, actor.incarnation, cause, expected, spent, worker_id))
        self._forget(actor)

    def _forget(self, actor: Actor) -> None:
        if actor.timer is not None:
            actor.timer.cancel()
        if self._actors.get(actor.actor_id) is actor:
            del self._actors[actor.actor_id]

    def _on_worker(self, peer: Peer, actor_id: str, incarnation: int) -> Actor | None:
        """The actor that this worker speaks of; None for one that is over or has moved on."""
        actor = self._actors.get(actor_id)
        if actor is None or actor.incarnation != incarnation or actor.worker is None:
            return None
        return actor if actor.worker.peer is peer else None

    def stop(self) -> None:
        """No timer fires from now on."""
        for actor in self._actors.values():
            if actor.timer is not None:
                actor.timer.cancel()


def _as_hosted(actor: Actor) -> HostedActor:
    alive = actor.stage is Stage.ALIVE and actor.worker is not None and actor.worker.peer is not None
    if not alive:
        return HostedActor(actor.actor_id, actor.incarnation)
    assert actor.worker is not None
    assert actor.worker.peer is not None
    return HostedActor(actor.actor_id, actor.incarnation, actor.worker.worker_id, actor.worker.peer.address)


def _problem(spec: ActorSpec) -> str:
    """What is wrong with an actor that no node could place; empty when nothing is."""
    bad = [name for name, units in spec.resources.items() if units < 0]
    if bad:
        return f"it asks for a negative amount of {', '.join(bad)}"
    try:
        parse_env(spec.env)
    except ValueError as error:
        return str(error)
    return ""
