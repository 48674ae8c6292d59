"""The life of actors, as the head decides it: pure, (state, event, now) -> decisions.

            create                    ready                lost, a restart is left
    (none) --------> PENDING ----------------------> ALIVE ------------------------> RESTARTING
                        |                              | ^                            |   |
                        |                              | +------------ ready ---------+   |
                        +-- failed, lost for good, killed, its owner or job is gone ------+--> DEAD, for ever

Invariants, by the names that asserts and tests quote:

AC-1: at most one incarnation of an actor lives: the next is placed only when the one before, or its node, is
      reported lost.
AC-2: DEAD is final.
AC-3: restarts that count are never more than max_restarts (-1: no limit). Victims of a co-tenant do not count
      (SEMANTICS 22).
AC-4: a name belongs to at most one actor that is not dead.
AC-5: whoever watches an actor is told its last state.
AC-6: word of an incarnation that is not the current one, or from a node that does not have it, changes
      nothing (fencing).
AC-8: a life that ends because its node leaves is not counted, if the actor may have another one at all.
AC-7: every table is bounded: living actors by `actors_max`, the rest by its own module.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import islice

from actorflow._core.base.ids import ActorId, ProcessId
from actorflow._core.policy.actor_decisions import Answer, Decision, Ending, FindNode, Forget, LifeLost, Place, Publish, Stop
from actorflow._core.policy.actor_record import Actor, Event, State, restart_delay_s
from actorflow._core.policy.actor_roster import Roster
from actorflow._core.policy.early import EarlyWords, Unheard
from actorflow._core.policy.graveyard import DEAD_ACTORS_MAX, DEAD_BYTES_MAX, DeadActor, Graveyard
from actorflow._core.policy.membership import LOST_NODES_MAX
from actorflow._core.protocol.messages import ActorDied, ActorSpec, ActorState, CreateActorReply, HostedActor

ACTORS_MAX = 1_000_000
PLACE_TIMEOUT_S = 30.0
"""How long an actor waits for a node that could hold it, when there is none at the moment."""
STOPPING_MAX = 10_000
"""Of each node: how many stops that it has not confirmed are remembered."""
STEADY_S = 10.0
"""After an incarnation that was alive this long the next restart is at once again."""


def _makes_none(_actor_id: ActorId) -> bool:
    return False


class ActorTable:
    """All actors. Each method is one event, and returns what has to be done about it, in order."""

    __slots__ = ("_actors", "_actors_max", "_dead", "_early", "_left_behind", "_place_timeout_s", "_stopping", "_waiting", "makes_object")

    def __init__(
        self,
        *,
        actors_max: int = ACTORS_MAX,
        dead_actors_max: int = DEAD_ACTORS_MAX,
        dead_bytes_max: int = DEAD_BYTES_MAX,
        place_timeout_s: float = PLACE_TIMEOUT_S,
    ) -> None:
        self._actors_max = actors_max
        self._place_timeout_s = place_timeout_s
        self._actors = Roster()
        self._dead = Graveyard(dead_actors_max, dead_bytes_max)
        self._early = EarlyWords()
        self._waiting: OrderedDict[ActorId, tuple[float, str]] = OrderedDict()
        """Until when, and why it had no place when it asked last."""
        """Actors no node could hold when it was tried, and until when they wait; in order of that time."""
        self._left_behind: OrderedDict[ProcessId, list[tuple[ActorId, int]]] = OrderedDict()
        """The incarnations that were on nodes when these were lost, in case a node comes back."""
        self._stopping: dict[ProcessId, dict[ActorId, int]] = {}
        """The incarnations of dead actors that nodes were told to stop, and have not said to be gone: the word may be lost with them."""
        self.makes_object: Callable[[ActorId], bool] = _makes_none
        """Whether it is there for a detached call; set by the head when there are objects that the cluster owns."""

    # -- looking

    def living(self) -> Roster:
        """The actors that are not dead; to be read only."""
        return self._actors

    def dead(self) -> Iterator[DeadActor]:
        """The dead that are remembered, newest first."""
        return iter(self._dead)

    def find(self, actor_id: ActorId) -> Actor | DeadActor | None:
        """One actor, living or remembered."""
        return self._actors.get(actor_id) or self._dead.find(actor_id)

    def last_named(self, namespace: str, name: str) -> DeadActor | None:
        """The dead one that had this name last, while it is remembered."""
        return self._dead.named(namespace, name)

    def wants_node(self, actor_id: ActorId, incarnation: int) -> ActorSpec | None:
        """What a node must hold, or None when this incarnation needs no node any more."""
        actor = self._actors.get(actor_id)
        if actor is None or actor.incarnation != incarnation or actor.node_id:
            return None
        return actor.spec

    # -- the beginning

    def create(self, spec: ActorSpec, creator: ProcessId, *, get_if_exists: bool, job_over: bool, now: float) -> list[Decision]:
        """Somebody wants an actor. Idempotent by its id; the creator becomes its watcher."""
        actor_id = spec.actor_id
        if actor_id in self._actors or actor_id in self._dead:
            return [Answer(creator, CreateActorReply(actor_id)), *self.watch(actor_id, creator, now)]
        holder = self._actors.named(spec.namespace, spec.name)
        if holder is not None:
            return self._taken(spec, holder, creator, get_if_exists, now)
        if problem := self._problem(spec, job_over):
            return [
                Answer(creator, CreateActorReply(actor_id, error=problem)),
                *self._refuse(spec, problem, now),
            ]
        actor = Actor(spec, now)
        self._actors.enter(actor)
        decisions: list[Decision] = [Answer(creator, CreateActorReply(actor_id))]
        early = self._early.take(actor_id)
        if early is not None and early.watchers:
            for watcher in early.watchers:
                self._actors.add_watcher(actor, watcher)
            decisions.append(Publish(early.watchers, actor.as_state()))
        self._actors.add_watcher(actor, creator)
        if early is not None and early.killed is not None:
            return decisions + self._die(actor, Event.KILLED, early.killed, now)
        decisions.append(FindNode(actor_id, actor.incarnation, 0.0))
        return decisions

    def _taken(self, spec: ActorSpec, holder: Actor, creator: ProcessId, get_if_exists: bool, now: float) -> list[Decision]:
        """The name belongs to another actor: share that one, or refuse (AC-4)."""
        existing = holder.spec
        reply = CreateActorReply(spec.actor_id, existing.actor_id, class_id=existing.class_id)
        if get_if_exists:
            reason = f"its name {spec.name!r} belongs to actor {existing.actor_id}, which is used instead"
            told = self.watch(existing.actor_id, creator, now)
            return [Answer(creator, reply), *self._refuse(spec, reason, now), *told]
        reply.error = (
            f"the name {spec.name!r} in namespace {spec.namespace!r} belongs to actor {existing.class_name} "
            f"({existing.actor_id}): choose another name, or use get_if_exists=True to share that one"
        )
        return [Answer(creator, reply), *self._refuse(spec, reply.error, now)]

    def _problem(self, spec: ActorSpec, job_over: bool) -> str:
        """Why this actor cannot be created; empty when it can."""
        if job_over and not (spec.detached or self._actors.hosts(spec.owner, spec.job_id)):
            return f"its job {spec.job_id} has ended: only detached actors, and what they create, live on"
        if len(self._actors) >= self._actors_max:
            return f"{self._actors_max} actors are alive, the limit of this head: end some that you can spare"
        return ""

    def _refuse(self, spec: ActorSpec, reason: str, now: float) -> list[Decision]:
        """Remember an actor that is never made, for those who were given its handle already."""
        actor = Actor(spec, now)
        actor.ended = ActorDied("refused", reason)
        self._dead.bury(actor.as_dead(now))
        early = self._early.take(spec.actor_id)
        if early is None or not early.watchers:
            return []
        return [Publish(early.watchers, ActorState(spec.actor_id, "dead", died=actor.ended))]

    # -- after the head's earlier life

    def restore(self, actor: Actor, node_id: ProcessId) -> None:
        """An actor of then; its incarnation was on this node, if on any."""
        self._actors.enter(actor)
        if node_id:
            self._actors.put_on_node(actor, node_id)

    def restore_dead(self, dead: DeadActor) -> None:
        """An actor that was dead already."""
        self._dead.bury(dead)

    def homeless(self) -> list[Decision]:
        """Those that have no node are to get one; some were on their way to it when the earlier life ended."""
        return [FindNode(actor.spec.actor_id, actor.incarnation, 0.0) for actor in self._actors if not actor.node_id]

    def node_hosts(self, node_id: ProcessId, hosted: list[HostedActor], now: float) -> list[Decision]:
        """A node that was there then is back, and says what it has: that is how it is (AC-1, AC-6).

        What was said to it, and by it, around the end of the earlier life may never have arrived.
        """
        decisions: list[Decision] = []
        there = {(one.actor_id, one.incarnation): one for one in hosted}
        for actor in self._actors.on_node(node_id):
            one = there.get((actor.spec.actor_id, actor.incarnation))
            if one is None:
                was_alive = actor.state is State.ALIVE
                cause = "its process was gone when the head came back" if was_alive else "it had not begun when the head came back"
                expected = actor.leaving is not None or actor.bouncing
                decisions += self._lose(actor, cause, expected, was_alive, now, Ending(actor.worker_id, node_id))
                continue
            if one.worker_id and (actor.state is not State.ALIVE or actor.worker_id != one.worker_id):
                decisions += self.ready(one.actor_id, one.incarnation, node_id, one.worker_id, one.address, now)
            if actor.leaving is not None or actor.bouncing:
                graceful = actor.leaving is not None or actor.moving
                returns = actor.leaving is None
                decisions.append(Stop(node_id, one.actor_id, one.incarnation, graceful, actor.moving and returns, returns))
        return decisions + self.strays(node_id, hosted)

    def strays(self, node_id: ProcessId, hosted: list[HostedActor]) -> list[Decision]:
        """What a node has and should not have is ended there: it was given up when the node was lost, or stopped and not heard (AC-6)."""
        current = {(actor.spec.actor_id, actor.incarnation) for actor in self._actors.on_node(node_id)}
        strays = [one for one in hosted if (one.actor_id, one.incarnation) not in current]
        return [Stop(node_id, one.actor_id, one.incarnation, graceful=False) for one in strays]

    # -- finding a node

    def placed(self, actor_id: ActorId, incarnation: int, node_id: ProcessId, now: float) -> list[Decision]:
        """A node was picked for this incarnation."""
        if self.wants_node(actor_id, incarnation) is None:
            return []
        actor = self._actors[actor_id]
        actor.move(Event.PLACED, now, node_id)
        self._actors.put_on_node(actor, node_id)
        self._waiting.pop(actor_id, None)
        return [Place(node_id, incarnation, actor.spec)]

    def restores(self, actor_id: ActorId, now: float) -> None:
        """The incarnation that was placed is given a state, which may take its time, or never end."""
        self._actors[actor_id].tell(now, "runs __init__ there, then __restore__ with the state that was stored last")

    def not_placed(self, actor_id: ActorId, incarnation: int, reason: str, *, infeasible: bool, now: float) -> list[Decision]:
        """No node could be picked. Final when no known node can ever hold a new actor; the others wait."""
        if self.wants_node(actor_id, incarnation) is None:
            return []
        actor = self._actors[actor_id]
        if infeasible and incarnation == 1:
            return self._die(actor, Event.UNSCHEDULABLE, ActorDied("unschedulable", reason), now)
        if actor_id in self._waiting:
            self._waiting[actor_id] = (self._waiting[actor_id][0], reason)
        else:
            self._waiting[actor_id] = (now + self._place_timeout_s, reason)
            actor.tell(now, "waits for a node:", reason)
        return []

    def node_joined(self, node_id: ProcessId) -> list[Decision]:
        """A node came, came back, or has other resources now: those who wait try again.

        One that comes back may still run the incarnations that were given up with it: they are ended first.
        """
        left = self._left_behind.pop(node_id, ())
        stops = [Stop(node_id, actor_id, incarnation, graceful=False) for actor_id, incarnation in left]
        waiting = [(actor_id, self._actors[actor_id].incarnation) for actor_id in self._waiting]
        return [*stops, *(FindNode(actor_id, incarnation, 0.0) for actor_id, incarnation in waiting)]

    # -- word from nodes

    def ready(
        self,
        actor_id: ActorId,
        incarnation: int,
        node_id: ProcessId,
        worker_id: ProcessId,
        address: str,
        now: float,
    ) -> list[Decision]:
        """The constructor is done. A stale incarnation that got this far is ended (AC-6). Idempotent."""
        actor = self._current(actor_id, incarnation, node_id)
        if actor is None:
            return [Stop(node_id, actor_id, incarnation, graceful=False)]
        if actor.state is State.ALIVE and actor.worker_id == worker_id:
            return []
        actor.move(Event.READY, now, worker_id)
        actor.worker_id, actor.address, actor.ready_at = worker_id, address, now
        return [Publish(actor.watchers, actor.as_state())]

    def failed(self, actor_id: ActorId, incarnation: int, node_id: ProcessId, died: ActorDied, now: float) -> list[Decision]:
        """The constructor raised, or the node can never hold it: the end, whatever max_restarts says."""
        self._stopped(node_id, actor_id)
        actor = self._current(actor_id, incarnation, node_id)
        if actor is None:
            return []
        self._actors.take_off_node(actor)
        return self._die(actor, Event.FAILED, died, now)

    def lost(
        self,
        actor_id: ActorId,
        incarnation: int,
        node_id: ProcessId,
        cause: str,
        *,
        expected: bool,
        spent: bool,
        now: float,
        worker_id: ProcessId = "",
    ) -> list[Decision]:
        """The incarnation's process `worker_id` is gone (`expected`: it was asked to end, or ended itself)."""
        self._stopped(node_id, actor_id)
        actor = self._current(actor_id, incarnation, node_id)
        return self._lose(actor, cause, expected, spent, now, Ending(worker_id, node_id)) if actor is not None else []

    def node_lost(self, node_id: ProcessId, cause: str, now: float, *, left: bool = False) -> list[Decision]:
        """A node is gone, with every incarnation on it. `left`: it was to go (AC-8)."""
        decisions: list[Decision] = []
        words = f"its node {node_id} {'has left' if left else 'was lost'}: {cause}"
        actors = self._actors.on_node(node_id)
        stopping = self._stopping.pop(node_id, {})
        self._left_behind[node_id] = [*stopping.items(), *((actor.spec.actor_id, actor.incarnation) for actor in actors)]
        if len(self._left_behind) > LOST_NODES_MAX:
            self._left_behind.popitem(last=False)
        ending = Ending(f"node {node_id} at {now}", node_id, of_node=True)  # One that has come back may be lost again.
        for actor in actors:
            decisions += self._lose(actor, words, False, not (left and actor.may_move()), now, ending)
        assert not self._actors.on_node(node_id), f"AC-1: actors are still on node {node_id}, which is lost"
        return decisions

    # -- the end

    def kill(self, actor_id: ActorId, *, no_restart: bool, graceful: bool, by: str, now: float, incarnation: int = 0) -> list[Decision]:
        """End the actor, or with no_restart=False its current incarnation, if it is `incarnation`; 0: whichever it is. Idempotent."""
        died = ActorDied("killed", f"it was killed by {by}")
        actor = self._actors.get(actor_id)
        if actor is None:
            if no_restart and actor_id not in self._dead:
                return self._tell_forgotten(self._early.kill(actor_id, died, now), now)
            return []
        if incarnation and not no_restart and incarnation != actor.incarnation:
            return []  # That life is over.
        if no_restart or not actor.may_restart():
            return self._end(actor, Event.KILLED, died, graceful, now)
        return self.bounce(actor_id, f"killed by {by}, to be restarted", now, graceful=graceful)

    def end(self, actor_id: ActorId, died: ActorDied, *, graceful: bool, now: float) -> list[Decision]:
        """End the actor, for this reason. Idempotent."""
        actor = self._actors.get(actor_id)
        return self._end(actor, Event.KILLED, died, graceful, now) if actor is not None else []

    def supervise(self, actor_id: ActorId, supervised: bool) -> None:
        """Its restarts are the business of its supervision, or are not any more."""
        actor = self._actors.get(actor_id)
        if actor is not None:
            actor.supervised = supervised

    def bounce(self, actor_id: ActorId, reason: str, now: float, *, graceful: bool = False) -> list[Decision]:
        """End the current incarnation of an actor, for another one. One that is on its way already is left alone."""
        actor = self._actors.get(actor_id)
        if actor is None or not actor.node_id or actor.leaving is not None:
            return []
        if actor.bouncing and (graceful or not actor.moving):
            return []
        actor.bouncing, actor.moving = True, False  # A move takes its time; who says `now` means it.
        actor.move(Event.ASKED_TO_STOP, now, reason)
        return [Stop(actor.node_id, actor_id, actor.incarnation, graceful, returns=True)]

    def move_away(self, node_id: ProcessId, elsewhere: Callable[[ActorSpec], bool], reason: str, now: float) -> list[Decision]:
        """Their node is to leave: those that may have another life, and for which there is room `elsewhere`, go there now (AC-8)."""
        decisions: list[Decision] = []
        for actor in self._actors.on_node(node_id):
            if actor.may_move() and not actor.bouncing and actor.leaving is None and elsewhere(actor.spec):
                actor.bouncing = actor.moving = True
                actor.move(Event.ASKED_TO_STOP, now, reason)
                decisions.append(Stop(node_id, actor.spec.actor_id, actor.incarnation, graceful=True, moves=True, returns=True))
        return decisions

    def given_up(self, actor_id: ActorId, reason: str, now: float) -> list[Decision]:
        """The supervision of an actor has given up, and the actor ends with it."""
        actor = self._actors.get(actor_id)
        return self._die(actor, Event.KILLED, ActorDied("supervision", reason), now) if actor is not None else []

    def out_of_scope(self, actor_id: ActorId, now: float) -> list[Decision]:
        """The last handle is gone: what is in the mailbox still runs, then the actor stops (SEMANTICS 23)."""
        actor = self._actors.get(actor_id)
        if actor is None or actor.spec.detached:
            return []
        died = ActorDied("out_of_scope", "the last handle to it is gone; keep a handle, or use lifetime='detached'")
        return self._end(actor, Event.UNREFERENCED, died, True, now)

    def group_removed(self, actor_id: ActorId, reason: str, now: float) -> list[Decision]:
        """The placement group of an actor is no more, and the actor with it: whatever max_restarts says."""
        actor = self._actors.get(actor_id)
        return self._die(actor, Event.KILLED, ActorDied("group_removed", reason), now) if actor is not None else []

    def owner_lost(self, owner: ProcessId, cause: str, now: float) -> list[Decision]:
        """A process is gone; the actors that it owned and that are not detached go with it."""
        decisions: list[Decision] = []
        words = f"its owner, process {owner}, is gone ({cause}); an actor with lifetime='detached' lives on"
        for actor in self._actors.owned_by(owner):
            if not actor.spec.detached:
                decisions += self._die(actor, Event.OWNER_LOST, ActorDied("owner_died", words), now)
        return decisions

    def job_ended(self, job_id: str, cause: str, now: float) -> list[Decision]:
        """A job is over. Detached actors live on, and so does what they created, which ends with them."""
        words = f"its job {job_id} has ended ({cause}); an actor with lifetime='detached' lives on"
        survivors = self._actors.survivors(job_id)
        decisions: list[Decision] = []
        for actor in self._actors.of_job(job_id):
            if actor.spec.actor_id not in survivors:
                decisions += self._die(actor, Event.JOB_ENDED, ActorDied("job_ended", words), now)
        return decisions

    def tick(self, now: float) -> list[Decision]:
        """Time passes: those who waited too long are told. To be called when `next_deadline` has come."""
        decisions: list[Decision] = []
        while self._waiting:
            actor_id, (deadline, reason) = next(iter(self._waiting.items()))
            if deadline > now:
                break
            actor = self._actors[actor_id]
            words = f"no node that could hold it came within {self._place_timeout_s:g} s: {reason}"
            decisions += self._die(actor, Event.UNSCHEDULABLE, ActorDied("unschedulable", words), now)
        return decisions + self._tell_forgotten(self._early.expire(now), now)

    def next_deadline(self) -> float | None:
        """When `tick` has something to do, or None."""
        early = self._early.next_deadline()
        deadlines = [*(deadline for deadline, _ in islice(self._waiting.values(), 1)), *([early] if early is not None else [])]
        return min(deadlines, default=None)

    # -- watchers

    def watch(self, actor_id: ActorId, watcher: ProcessId, now: float) -> list[Decision]:
        """Tell `watcher` the state, now and at each change. Unknown actors may come yet: policy/early.py."""
        actor = self._actors.get(actor_id)
        if actor is not None:
            self._actors.add_watcher(actor, watcher)
            return [Publish((watcher,), actor.as_state())]
        dead = self._dead.find(actor_id)
        if dead is not None:
            return [Publish((watcher,), dead.state())]
        return self._tell_forgotten(self._early.watch(actor_id, watcher, now), now)

    def watcher_lost(self, watcher: ProcessId) -> None:
        """A process is gone and need not be told anything."""
        self._actors.drop_watcher(watcher)
        self._early.drop_watcher(watcher)

    def _tell_forgotten(self, unheard: Unheard, now: float) -> list[Decision]:
        """They did not come in time. Who was told that it is dead must stay right, so it is dead (AC-2)."""
        return [Publish(watchers, self._dead.bury_unknown(a, now)) for a, watchers in unheard if watchers]

    # -- steps

    def _current(self, actor_id: ActorId, incarnation: int, node_id: ProcessId) -> Actor | None:
        """The actor, if this is word of its current incarnation from the node that has it (AC-6)."""
        actor = self._actors.get(actor_id)
        if actor is None or not node_id or actor.node_id != node_id or actor.incarnation != incarnation:
            return None
        return actor

    def _remember_stop(self, actor: Actor) -> None:
        stopping = self._stopping.setdefault(actor.node_id, {})
        stopping[actor.spec.actor_id] = actor.incarnation
        if len(stopping) > STOPPING_MAX:
            del stopping[next(iter(stopping))]

    def _stopped(self, node_id: ProcessId, actor_id: ActorId) -> None:
        """A node says that an incarnation is gone."""
        stopping = self._stopping.get(node_id)
        if stopping is not None and stopping.pop(actor_id, None) is not None and not stopping:
            del self._stopping[node_id]

    def _lose(self, actor: Actor, cause: str, expected: bool, spent: bool, now: float, ending: Ending) -> list[Decision]:
        """The current incarnation is gone: decide whether there is another one."""
        self._actors.take_off_node(actor)
        spent = spent and not actor.moving
        died: ActorDied | None = None
        if actor.leaving is not None and expected:
            died = actor.leaving
        elif actor.leaving is not None:
            died = ActorDied("crashed", f"while it was to end gracefully, {cause}")
        elif expected and not actor.bouncing:
            died = ActorDied("exited", cause or "it ended itself")
        elif spent and not actor.may_restart():
            died = ActorDied("crashed", actor.why_no_restart(cause, makes_object=self.makes_object(actor.spec.actor_id)))
        if died is not None:
            return self._die(actor, Event.LOST_FOR_GOOD, died, now)
        asked = actor.bouncing or not spent  # Nobody's failure, so not its supervision's either.
        delay_s = self._restart(actor, cause, spent, now)
        decisions: list[Decision] = [
            Publish(actor.watchers, actor.as_state()),
            FindNode(actor.spec.actor_id, actor.incarnation, delay_s),
        ]
        if actor.supervised:
            decisions.append(LifeLost(actor.spec.actor_id, cause, asked, ending))
        return decisions

    def _restart(self, actor: Actor, cause: str, spent: bool, now: float) -> float:
        """Make room for the next incarnation; return how long it has to wait."""
        actor.move(Event.LOST, now, cause)
        if actor.ready_at is not None and now - actor.ready_at >= STEADY_S:
            actor.losses_in_a_row = 0
        delay_s = 0.0
        if not actor.moving:
            delay_s = restart_delay_s(actor.losses_in_a_row)
            actor.losses_in_a_row += 1
        if delay_s:
            actor.tell(now, "restarts in", f"{delay_s:g} s")
        if spent and not actor.supervised:
            actor.restarts += 1
        limit = actor.spec.max_restarts
        assert limit < 0 or actor.restarts <= limit, f"AC-3: {actor.restarts} restarts of {limit}"
        actor.ended = ActorDied("killed" if actor.bouncing else "crashed", cause, drained=actor.moving)
        actor.incarnation += 1
        actor.worker_id = actor.address = ""
        actor.ready_at = None
        actor.bouncing = actor.moving = False
        return delay_s

    def _end(self, actor: Actor, event: Event, died: ActorDied, graceful: bool, now: float) -> list[Decision]:
        """End the actor: now, or gracefully, which needs an incarnation that is on a node."""
        if not graceful or not actor.node_id:
            return self._die(actor, event, died, now)
        if actor.leaving is not None:
            return []
        died.drained = True
        actor.leaving = died
        actor.move(Event.ASKED_TO_STOP, now, died.reason)
        return [Stop(actor.node_id, actor.spec.actor_id, actor.incarnation, graceful=True)]

    def _die(self, actor: Actor, event: Event, died: ActorDied, now: float) -> list[Decision]:
        """The one way to DEAD: watchers are told, and an incarnation that is still on a node is stopped."""
        actor.move(event, now, died.reason)
        assert actor.state is State.DEAD, f"AC-2: {event} led to {actor.state}"
        actor.ended = died
        decisions: list[Decision] = []
        if actor.node_id:
            decisions.append(Stop(actor.node_id, actor.spec.actor_id, actor.incarnation, graceful=False))
            self._remember_stop(actor)
            self._actors.take_off_node(actor)
        dead = actor.as_dead(now)
        if actor.watchers:
            decisions.append(Publish(actor.watchers, dead.state()))
        self._waiting.pop(actor.spec.actor_id, None)
        self._actors.remove(actor)
        self._dead.bury(dead)
        decisions.append(Forget(actor.spec.actor_id, dead.died))
        return decisions
