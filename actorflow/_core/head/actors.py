"""The head's actors: messages become events of the policy, its decisions become messages and timers."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from actorflow._core.base.ids import ActorId, ProcessId
from actorflow._core.head.class_cache import ClassCache
from actorflow._core.head.config import HeadConfig
from actorflow._core.head.directory import Directory
from actorflow._core.head.jobs import Jobs, job_of, namespace_of
from actorflow._core.head.nodes import Nodes, Touch, node_id_of, nothing
from actorflow._core.head.view import View
from actorflow._core.io.peers import Peer
from actorflow._core.io.ports import Ports
from actorflow._core.policy.actor_decisions import Answer, Decision, FindNode, Forget, LifeLost, Place, Publish, Stop
from actorflow._core.policy.actor_record import Actor
from actorflow._core.policy.actors import ActorTable
from actorflow._core.policy.checkpoints import Checkpoint, CheckpointStore
from actorflow._core.policy.graveyard import DeadActor
from actorflow._core.policy.jobs import EndJob
from actorflow._core.policy.membership import Gone, NotPicked, Picked
from actorflow._core.policy.placement_wish import GROUP
from actorflow._core.protocol.messages import (
    ActorDied,
    ActorFailed,
    ActorLost,
    ActorOutOfScope,
    ActorReady,
    ActorSpec,
    CheckpointSaved,
    CreateActor,
    CreateActorReply,
    FindActor,
    FindActorReply,
    Hosted,
    KillActor,
    PlaceActor,
    SaveCheckpoint,
    SupervisionOver,
    WatchActor,
)

if TYPE_CHECKING:
    from actorflow._core.head.records import CheckpointRecord
    from actorflow._core.head.supervision import Supervisions
    from actorflow._core.policy.supervision import Supervision

log = logging.getLogger(__name__)

class Actors:
    """The one writer of the actor table and of the checkpoints."""

    def __init__(self, ports: Ports, config: HeadConfig, directory: Directory, nodes: Nodes, view: View, jobs: Jobs) -> None:
        self._ports = ports
        self._directory = directory
        self._nodes = nodes
        self._view = view
        self._jobs = jobs
        self._classes = ClassCache()
        self.checkpoints = CheckpointStore(config.checkpoint_bytes_max, config.checkpoints_bytes_max)
        self.touch: Touch = nothing
        """As in Nodes."""
        self._on_hold: list[FindNode] | None = None
        """What waits until the nodes are back that were there in the head's earlier life; None: nothing has to."""
        self._delayed: dict[ActorId, asyncio.TimerHandle] = {}
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = 0.0
        self.in_group: Callable[[ActorSpec, int], Picked | NotPicked | Gone | None] | None = None
        """Where an actor in a placement group goes; None: it waits (head/groups.py). Set by the head."""
        self.on_dead: Callable[[ActorId], None] | None = None
        """Told of each actor that is gone for good; set when there are placement groups."""
        self.on_gone: Callable[[Forget], None] | None = None
        """As well; set when there are objects that the cluster owns."""
        self.supervisions: Supervisions | None = None
        """The room of those that are supervised; None until there are some. Set by the head."""
        self.table = ActorTable(
            actors_max=config.actors_max,
            dead_actors_max=config.dead_actors_max,
            dead_bytes_max=config.dead_bytes_max,
            place_timeout_s=config.place_timeout_s,
        )
        """To be read by others, written here."""

    def stop(self) -> None:
        """No timer fires from now on."""
        for timer in self._delayed.values():
            timer.cancel()
        self._delayed.clear()
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    # -- from drivers and workers

    def create(self, peer: Peer, message: CreateActor) -> None:
        """An actor, please."""
        if why := self._of_another_job(peer, message.spec):
            peer.send(CreateActorReply(message.spec.actor_id, error=why))
        else:
            self._perform(self._create(peer, message.spec, get_if_exists=message.get_if_exists))

    def _of_another_job(self, peer: Peer, spec: ActorSpec) -> str:
        own_job = job_of(peer)
        if own_job in ("", spec.job_id):
            return ""
        why = f"a process of job {own_job} creates actors of that job only, and this one was to be of job {spec.job_id}"
        log.error("%r was refused an actor: %s", peer, why)
        return why

    def _create(self, peer: Peer, spec: ActorSpec, *, get_if_exists: bool) -> list[Decision]:
        spec.namespace = spec.namespace or namespace_of(self._jobs, peer)
        self._classes.share(spec)
        over, now = self._jobs.table.is_over(spec.job_id), self._ports.monotonic()
        return self.table.create(spec, peer.process_id, get_if_exists=get_if_exists, job_over=over, now=now)

    def start_detached(self, peer: Peer, spec: ActorSpec) -> str:
        """One that makes an object of the cluster's (head/durable.py). Why not, or empty."""
        if why := self._of_another_job(peer, spec):
            return why
        if isinstance(known := self.table.find(spec.actor_id), DeadActor):
            return f"its actor is dead: {known.died.reason}"
        decisions = self._create(peer, spec, get_if_exists=False)
        refused = next((decision.reply.error for decision in decisions if isinstance(decision, Answer)), "")
        self._perform([decision for decision in decisions if not isinstance(decision, Answer)])
        return refused

    def end_detached(self, actor_id: ActorId, by: ProcessId) -> None:
        """Its process `by` has made it, and ends by itself; or nobody waits for what it does any more."""
        actor = self.table.living().get(actor_id)
        done = bool(by) and actor is not None and actor.worker_id == by
        died = ActorDied("exited", "its call is over") if done else ActorDied("killed", "nobody waits for the result of its call any more")
        self._perform(self.table.end(actor_id, died, graceful=done, now=self._ports.monotonic()))

    def watch(self, peer: Peer, message: WatchActor) -> None:
        """Tell the state, now and at each change."""
        self._perform(self.table.watch(message.actor_id, peer.process_id, self._ports.monotonic()))

    def find(self, peer: Peer, message: FindActor) -> None:
        """Who has this name?"""
        namespace = message.namespace or namespace_of(self._jobs, peer)
        actor = self.table.living().named(namespace, message.name)
        if actor is None:
            names = self.table.living().names
            near, elsewhere = names.near(namespace, message.name), names.elsewhere(namespace, message.name)
            dead = self.table.last_named(namespace, message.name)
            died = dead.died.reason.partition("\n")[0] if dead is not None else ""
            peer.send(FindActorReply(message.token, near=near, elsewhere=elsewhere, died=died))
            return
        spec = actor.spec
        reply = FindActorReply(message.token, spec.actor_id, spec.class_name, spec.methods, spec.owner, spec.owner_address)
        reply.class_id = spec.class_id
        peer.send(reply)

    def kill(self, peer: Peer, message: KillActor) -> None:
        """End an actor."""
        self._perform(
            self.table.kill(
                message.actor_id,
                no_restart=message.no_restart,
                graceful=message.graceful,
                incarnation=message.incarnation,
                by=f"{peer.role} {peer.process_id}",
                now=self._ports.monotonic(),
            )
        )

    def out_of_scope(self, peer: Peer, message: ActorOutOfScope) -> None:
        """Nobody has a handle any more."""
        self._perform(self.table.out_of_scope(message.actor_id, self._ports.monotonic()))

    def save_checkpoint(self, peer: Peer, message: SaveCheckpoint) -> None:
        """Keep the state of an actor for its next incarnation."""
        actor = self.table.living().get(message.actor_id)
        current = actor.incarnation if actor is not None else None
        error = self.checkpoints.save(message.actor_id, message.incarnation, message.number, message.data, current=current)
        self.touch("checkpoint", message.actor_id)
        over = bool(error) and current != message.incarnation
        peer.send(CheckpointSaved(message.actor_id, message.incarnation, message.number, error, over))

    # -- from nodes

    def ready(self, peer: Peer, message: ActorReady) -> None:
        """A constructor is done."""
        self._perform(
            self.table.ready(
                message.actor_id,
                message.incarnation,
                node_id_of(peer),
                sys.intern(message.worker_id),  # Ten thousand actors may share one worker.
                sys.intern(message.address),
                self._ports.monotonic(),
            )
        )

    def failed(self, peer: Peer, message: ActorFailed) -> None:
        """A constructor raised, or the node can never hold the actor."""
        now = self._ports.monotonic()
        self._perform(self.table.failed(message.actor_id, message.incarnation, node_id_of(peer), message.died, now))

    def lost(self, peer: Peer, message: ActorLost) -> None:
        """An incarnation is gone."""
        self._perform(
            self.table.lost(
                message.actor_id,
                message.incarnation,
                node_id_of(peer),
                message.cause,
                expected=message.expected,
                spent=message.spent,
                now=self._ports.monotonic(),
                worker_id=message.worker_id,
            )
        )

    # -- after the head's earlier life

    def restore(self, actor: Actor, node_id: ProcessId, checkpoint: CheckpointRecord | None) -> None:
        """An actor of then."""
        self._classes.share(actor.spec)
        self.table.restore(actor, node_id)
        if checkpoint is not None:
            self.checkpoints.restore(actor.spec.actor_id, Checkpoint(checkpoint.incarnation, checkpoint.number, checkpoint.data))

    def restore_supervisions(self, supervisions: Iterable[Supervision]) -> None:
        """Those of then. The head has opened their room."""
        assert self.supervisions is not None, "the room is open"
        for one in supervisions:
            self.supervisions.restore(one)

    def restore_over(self, over: SupervisionOver) -> None:
        """How a supervision ended, then."""
        assert self.supervisions is not None, "the room is open"
        self.supervisions.restore_over(over)

    def hold(self) -> None:
        """Nobody gets a node until `go_on`: who seems to have none may have been on one that comes back in a moment."""
        self._on_hold = list(self._homeless())

    def go_on(self) -> None:
        """All who are to come back have, or never will."""
        waiting, self._on_hold = self._on_hold, None
        if waiting is not None:
            self._perform(list(waiting))

    def hosted(self, peer: Peer, message: Hosted) -> None:
        """A node that was there in the head's earlier life says which incarnations it has."""
        self._perform(self.table.node_hosts(node_id_of(peer), message.actors, self._ports.monotonic()))

    def strays(self, peer: Peer, message: Hosted) -> None:
        """So does one that is new, or was lost meanwhile: what it has of before is nobody's."""
        self._perform(self.table.strays(node_id_of(peer), message.actors))

    def _homeless(self) -> Iterator[FindNode]:
        return (decision for decision in self.table.homeless() if isinstance(decision, FindNode))

    # -- from the head's other rooms

    def node_joined(self, node_id: ProcessId) -> None:
        """A node came, or has other resources now."""
        self._perform(self.table.node_joined(node_id))

    def node_lost(self, node_id: ProcessId, reason: str, *, left: bool = False) -> None:
        """A node is gone with all that was on it. `left`: it was to go."""
        self._perform(self.table.node_lost(node_id, reason, self._ports.monotonic(), left=left))

    def move_away(self, node_id: ProcessId, reason: str) -> None:
        """A node is to leave: what can go on elsewhere is told to. Actors in placement groups stay as long as their bundle is there."""

        def elsewhere(spec: ActorSpec) -> bool:
            return not spec.placement.startswith(GROUP) and self._view.take_room(spec.resources, spec.placement)

        self._perform(self.table.move_away(node_id, elsewhere, reason, self._ports.monotonic()))

    def job_ended(self, end: EndJob) -> None:
        """A job is over."""
        self._perform(self.table.job_ended(end.job_id, end.reason, self._ports.monotonic()))

    def place_again(self, actor_id: ActorId, incarnation: int) -> None:
        """There is news of the placement group that it waits for."""
        self._perform(self._find_node(actor_id, incarnation))

    def group_removed(self, actor_id: ActorId, reason: str) -> None:
        """Its placement group is no more."""
        self._perform(self.table.group_removed(actor_id, reason, self._ports.monotonic()))

    def supervised(self, decisions: list[Decision]) -> None:
        """Do what a supervision has decided."""
        self._perform(decisions)

    def process_lost(self, process_id: ProcessId, reason: str) -> None:
        """A driver or worker is gone: it watches nothing and owns nothing any more."""
        self.table.watcher_lost(process_id)
        self._perform(self.table.owner_lost(process_id, reason, self._ports.monotonic()))

    # -- decisions

    def _perform(self, decisions: list[Decision]) -> None:
        """Do what was decided, in order; what a found node leads to is added to the list on the way."""
        for decision in decisions:
            self._note(decision)
            if isinstance(decision, Publish):
                for watcher in decision.watchers:
                    self._directory.send(watcher, decision.state)
            elif isinstance(decision, FindNode):
                decisions += self._find_node_later(decision)
            elif isinstance(decision, Place):
                if (checkpoint := self.checkpoints.newest(decision.spec.actor_id)) is not None:
                    self.table.restores(decision.spec.actor_id, self._ports.monotonic())
                self._nodes.send(decision.node_id, PlaceActor(decision.spec, decision.incarnation, checkpoint))
            elif isinstance(decision, Answer):
                self._directory.send(decision.to, decision.reply)
            elif isinstance(decision, Stop):
                kill = KillActor(decision.actor_id, not decision.returns, decision.graceful, decision.incarnation, decision.moves)
                self._nodes.send(decision.node_id, kill)
            elif isinstance(decision, LifeLost):
                assert self.supervisions is not None, "only a supervision says that an actor is supervised"
                decisions += self.supervisions.lost(decision)
            else:
                decisions += self._forget(decision)
        self._set_alarm()

    def _note(self, decision: Decision) -> None:
        """Whoever is decided about may be another now than before."""
        if isinstance(decision, Publish):
            self.touch("actor", decision.state.actor_id)
        elif isinstance(decision, Answer):
            self.touch("actor", decision.reply.actor_id)
        elif isinstance(decision, Place):
            self.touch("actor", decision.spec.actor_id)
        else:
            self.touch("actor", decision.actor_id)

    def _find_node_later(self, decision: FindNode) -> list[Decision]:
        if self._on_hold is not None:
            self._on_hold.append(decision)
            return []
        if decision.delay_s <= 0:
            return self._find_node(decision.actor_id, decision.incarnation)
        self._delayed[decision.actor_id] = self._ports.loop.call_later(
            decision.delay_s, self._delay_over, decision.actor_id, decision.incarnation
        )
        return []

    def _delay_over(self, actor_id: ActorId, incarnation: int) -> None:
        del self._delayed[actor_id]
        self._perform(self._find_node(actor_id, incarnation))

    def _find_node(self, actor_id: ActorId, incarnation: int) -> list[Decision]:
        spec = self.table.wants_node(actor_id, incarnation)
        if spec is None:
            return []
        now = self._ports.monotonic()
        if self.in_group is not None and spec.placement.startswith(GROUP):
            found = self.in_group(spec, incarnation)
            if found is None:
                return []
            if isinstance(found, Gone):
                return self.table.group_removed(actor_id, found.reason, now)
            choice = found
        else:
            choice = self._view.pick(spec.resources, spec.placement)
        if isinstance(choice, Picked):
            return self.table.placed(actor_id, incarnation, choice.node_id, now)
        return self.table.not_placed(actor_id, incarnation, choice.reason, infeasible=choice.infeasible, now=now)

    def _forget(self, decision: Forget) -> list[Decision]:
        self.checkpoints.drop(decision.actor_id)
        timer = self._delayed.pop(decision.actor_id, None)
        if timer is not None:
            timer.cancel()
        if self.on_dead is not None:
            self.on_dead(decision.actor_id)
        if self.on_gone is not None:
            self.on_gone(decision)
        return self.supervisions.dead(decision) if self.supervisions is not None else []

    def _set_alarm(self) -> None:
        """Have `tick` called when the next one has waited too long. One that rings too early does no harm."""
        deadline = self.table.next_deadline()
        if deadline is None or (self._alarm is not None and self._alarm_at <= deadline):
            return
        if self._alarm is not None:
            self._alarm.cancel()
        delay_s = max(0.0, deadline - self._ports.monotonic())
        self._alarm, self._alarm_at = self._ports.loop.call_later(delay_s, self._ring), deadline

    def _ring(self) -> None:
        self._alarm = None
        self._perform(self.table.tick(self._ports.monotonic()))
