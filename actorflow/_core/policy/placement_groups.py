"""The life of placement groups, as the head decides it: pure, (state, event, now, rng) -> decisions.

            create              a plan                all prepared
    (none) --------> PENDING ------------> PREPARING --------------> CREATED
                        ^                      |                      |   ^
                        +-- refused, timeout, -+     bundles are lost |   | all prepared
                            node lost                                 v   |
                                                                 RESCHEDULING
    remove, its job or creator is gone: from every state --> REMOVED, for ever

`schedule` makes the plans (policy/placement_planner.py). A plan becomes an attempt: Prepare to every node
concerned, and when all have prepared Commit to all, else Cancel to all and another attempt after a delay. The
nodes' half is policy/bundles.py.

PG-1: a group has at most one attempt under way, and its number is higher than that of any before.
PG-2: word about an attempt that is not under way, or from a node that is not in it, changes nothing (fencing).
PG-3: a group is CREATED exactly while every bundle is committed on a living node.
PG-4: REMOVED is final, and whatever a group had anywhere is asked back: Return, until Returned or the node is lost.
PG-5: what an attempt had is given up on every one of its nodes when it fails: Cancel to each that lives.
PG-6: STRICT_PACK is on one node, STRICT_SPREAD on as many as there are bundles, also after rescheduling.
PG-7: every table is bounded: living groups by `groups_max`, bundles of one by `bundles_max`, removed ones by
      `removed_max`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from heapq import heappop, heappush
from typing import Protocol

from actorflow._core.base.errors import OptionError
from actorflow._core.base.ids import ActorId, GroupId, ProcessId
from actorflow._core.base.resources import GPU, ResourceSet, check_device_amount
from actorflow._core.policy.bundle_packing import Strategy
from actorflow._core.policy.early import EarlyWords, Unheard
from actorflow._core.policy.placement_decisions import (
    Answer,
    Cancel,
    Commit,
    Decision,
    HeldBundles,
    Prepare,
    Ready,
    Removed,
    Rescheduling,
    Return,
    Waiting,
)
from actorflow._core.policy.placement_nodes import Amounts, Nodes
from actorflow._core.policy.placement_planner import NoPlan, Plan, Planner
from actorflow._core.policy.placement_record import Attempt, Event, Group, GroupSpec, Placed, RemovedGroup, State
from actorflow._core.policy.placement_roster import GroupRoster
from actorflow._core.protocol.messages import ActorDied

GROUPS_MAX = 100_000
BUNDLES_MAX = 10_000
REMOVED_MAX = 10_000
PREPARE_TIMEOUT_S = 10.0
"""How long a node has for its answer: a node that is alive needs milliseconds."""
KEEP_EXTRA_S = 20.0
"""How much longer than the attempt a node keeps what it has prepared, so that a commit is never too late."""
STARVATION_S = 5.0
TURN_S = 30.0
"""How long groups that have waited for STARVATION_S are served before others, and their claims wait on nodes."""
PACKS_MAX = 64
"""Groups that one call of `schedule` tries, so that the head has time for other things."""
RETRY_DELAY_S = 0.05
RETRY_DELAY_S_MAX = 5.0

FORGOTTEN = "nothing is known of this placement group: it was never created, or was removed so long ago that this is forgotten"


class Rng(Protocol):
    """What is asked of the generator: random.Random, given by the shell."""

    def random(self) -> float:
        """A number from 0 to 1."""
        ...


def retry_delay_s(failures: int, rng: Rng) -> float:
    """How long the next attempt waits: 0.05 s, doubled each time up to 5 s, of which a random half is left out."""
    delay_s = min(RETRY_DELAY_S * 2.0 ** min(failures - 1, 16), RETRY_DELAY_S_MAX)
    return delay_s * (0.5 + rng.random() / 2)


class PlacementGroups:
    """All placement groups. Each method is one event, and returns what has to be done about it, in order.

    After any event `schedule` says what is to be prepared next; it is cheap when nothing has changed.
    """

    __slots__ = (
        "_bundles_max", "_device_kinds", "_early", "_groups", "_groups_max", "_nodes", "_number", "_planner", "_prepare_timeout_s",
        "_returning", "_timers",
    )  # fmt: skip

    def __init__(
        self,
        *,
        groups_max: int = GROUPS_MAX,
        bundles_max: int = BUNDLES_MAX,
        removed_max: int = REMOVED_MAX,
        prepare_timeout_s: float = PREPARE_TIMEOUT_S,
        starvation_s: float = STARVATION_S,
        turn_s: float = TURN_S,
        device_kinds: Collection[str] = (GPU,),
    ) -> None:
        self._groups_max = groups_max
        self._bundles_max = bundles_max
        self._device_kinds = device_kinds
        self._prepare_timeout_s = prepare_timeout_s
        self._groups = GroupRoster(removed_max)
        self._nodes = Nodes()
        self._planner = Planner(self._nodes, starvation_s, turn_s)
        self._early = EarlyWords()
        self._number = 0
        self._returning: dict[ProcessId, dict[GroupId, tuple[int, Amounts]]] = {}
        """What nodes were asked to return: up to which attempt, and how much the head has reserved for it."""
        self._timers: list[tuple[float, int, GroupId, int]] = []
        """A heap of (when, tie-breaker, group, attempt whose answers are due; 0: it is to be tried again)."""

    # -- looking

    def living(self) -> GroupRoster:
        """The groups that are not removed; to be read only."""
        return self._groups

    def removed(self) -> Iterator[RemovedGroup]:
        """The removed that are remembered, newest first."""
        return self._groups.all_removed()

    def find(self, group_id: GroupId) -> Group | RemovedGroup | None:
        """One group, living or remembered."""
        return self._groups.get(group_id) or self._groups.removed(group_id)

    # -- the beginning

    def create(self, spec: GroupSpec, to: ProcessId, *, job_over: bool, now: float) -> list[Decision]:
        """The process `to` wants a group, and becomes its watcher. Idempotent by its id.

        `job_over`: its job has ended, and its creator is no actor that lives on.
        """
        group_id = spec.group_id
        if self._groups.get(group_id) is not None:
            return [Answer(to, group_id), *self.watch(group_id, to, now)]
        gone = self._groups.removed(group_id)
        if gone is not None:
            return [Answer(to, group_id, gone.reason)]
        early = self._early.take(group_id)
        watchers = early.watchers if early is not None else ()
        problem = self._problem(spec, job_over)
        if not problem and early is not None and early.killed is not None:
            problem = early.killed.reason
        if problem:
            self._groups.remember(group_id, RemovedGroup(spec, problem, now, now))
            told: list[Decision] = [Removed(watchers, group_id, problem)] if watchers else []
            return [Answer(to, group_id, problem), *told]
        self._number += 1
        group = Group(spec, self._number, now)
        self._groups.enter(group)
        for watcher in (*watchers, to):
            self._groups.add_watcher(group, watcher)
        self._wait(group, now)
        return [Answer(to, group_id)]

    def _problem(self, spec: GroupSpec, job_over: bool) -> str:
        """Why this group cannot be created; empty when it can."""
        if job_over and not spec.detached:
            return f"its job {spec.job_id} has ended: only detached placement groups live on. Use lifetime='detached'"
        if not spec.bundles:
            return "it has no bundles: list at least one, as in placement_group([{'CPU': 1}])"
        if len(spec.bundles) > self._bundles_max:
            return f"it has {len(spec.bundles)} bundles, and {self._bundles_max} is the limit: make several placement groups"
        for index, bundle in enumerate(spec.bundles):
            if not any(bundle.resources.values()):
                return f"bundle {index} asks for nothing: give it an amount, as in {{'CPU': 1}}, or leave it out"
            try:
                for kind in self._device_kinds:
                    check_device_amount(f"bundles[{index}][{kind!r}]", bundle.resources.get(kind, 0))
            except OptionError as error:
                return str(error)
        holder = self._groups.named(spec.namespace, spec.name)
        if holder is not None:
            return (
                f"the name {spec.name!r} in namespace {spec.namespace!r} belongs to placement group "
                f"{holder.spec.group_id}: choose another name, or remove that one"
            )
        if len(self._groups) >= self._groups_max:
            return f"there are {self._groups_max} placement groups, the limit of this head: remove some that you can spare"
        return ""

    # -- after the head's earlier life

    def restore(self, group: Group) -> None:
        """A group of then, with what was committed on nodes that may come back: these have joined already, as far as we know.

        An attempt that was under way has failed: what nodes hold of it is given back when they say so.
        """
        placed, group.placed = group.placed, {}
        for index, place in placed.items():
            if self._nodes.get(place.node_id) is not None:
                group.placed[index] = place
                self._nodes.reserve(place.node_id, group.spec.bundles[index].resources)
        self._number += 1
        group.rank = (group.rank[0], self._number)
        complete = len(group.placed) == len(group.spec.bundles)
        group.state = State.CREATED if complete else State.RESCHEDULING if group.ready_at is not None else State.PENDING
        self._groups.enter(group)
        if not complete:
            self._planner.add(group)

    def restore_removed(self, group_id: GroupId, removed: RemovedGroup) -> None:
        """A group that was removed already."""
        self._groups.remember(group_id, removed)

    def node_is_back(self, node_id: ProcessId, held: Iterable[HeldBundles], now: float) -> list[Decision]:
        """A node that was there then says what it has, and no more than that."""
        return self._compare(node_id, held, now) if self._nodes.get(node_id) is not None else []

    # -- watchers

    def watch(self, group_id: GroupId, watcher: ProcessId, now: float) -> list[Decision]:
        """Tell `watcher` what the state is, and each change. Unknown groups may come yet: policy/early.py."""
        group = self._groups.get(group_id)
        if group is not None:
            self._groups.add_watcher(group, watcher)
            return _state_of(group, (watcher,))
        gone = self._groups.removed(group_id)
        if gone is not None:
            return [Removed((watcher,), group_id, gone.reason)]
        return self._tell_forgotten(self._early.watch(group_id, watcher, now), now)

    def watcher_lost(self, watcher: ProcessId) -> None:
        """A process is gone and need not be told anything."""
        self._groups.drop_watcher(watcher)
        self._early.drop_watcher(watcher)

    def _tell_forgotten(self, unheard: Unheard, now: float) -> list[Decision]:
        """They did not come in time. Who was told so must stay right, so they never come (PG-4)."""
        for group_id, _ in unheard:
            self._groups.remember(group_id, RemovedGroup(None, FORGOTTEN, now, now))
        return [Removed(watchers, group_id, FORGOTTEN) for group_id, watchers in unheard if watchers]

    # -- the end

    def remove(self, group_id: GroupId, *, by: str, now: float) -> list[Decision]:
        """Somebody wants it removed, in whatever state it is. Idempotent."""
        group = self._groups.get(group_id)
        reason = f"it was removed by {by}"
        if group is not None:
            return self._remove(group, reason, now)
        if self._groups.removed(group_id) is not None:
            return []
        return self._tell_forgotten(self._early.kill(group_id, ActorDied("removed", reason), now), now)

    def actor_died(self, actor_id: ActorId, now: float) -> list[Decision]:
        """An actor is dead for ever; the groups that it created and that are not detached go with it."""
        words = f"actor {actor_id}, which created it, is dead; a placement group with lifetime='detached' lives on"
        groups = [group for group in self._groups.created_by(actor_id) if not group.spec.detached]
        return [decision for group in groups for decision in self._remove(group, words, now)]

    def job_ended(self, job_id: str, survivors: Collection[ActorId], now: float) -> list[Decision]:
        """A job is over. Detached groups live on, and so do those of its actors that do (`survivors`)."""
        words = f"its job {job_id} has ended; a placement group with lifetime='detached' lives on"
        groups = [g for g in self._groups.of_job(job_id) if not g.spec.detached and g.spec.creator not in survivors]
        return [decision for group in groups for decision in self._remove(group, words, now)]

    def _remove(self, group: Group, reason: str, now: float) -> list[Decision]:
        """The one way to REMOVED: everything is asked back (PG-4), watchers are told."""
        spec = group.spec
        if group.waits():
            self._planner.remove(group)
        held: dict[ProcessId, ResourceSet] = {}
        for index, place in group.placed.items():
            held.setdefault(place.node_id, ResourceSet()).add(spec.bundles[index].resources)
        if group.inflight is not None:
            for node_id, bundles in group.inflight.bundles.items():
                for resources in bundles.values():
                    held.setdefault(node_id, ResourceSet()).add(resources)
        decisions: list[Decision] = []
        for node_id, amounts in held.items():
            self._returning.setdefault(node_id, {})[spec.group_id] = (group.attempt, amounts.amounts)
            decisions.append(Return(node_id, spec.group_id, group.attempt))
        group.inflight = None
        group.placed = {}
        group.move(Event.REMOVED, now, reason)
        self._groups.leave(group)
        self._groups.remember(spec.group_id, RemovedGroup(spec, reason, group.created_at, now, group.story))
        if group.watchers:
            decisions.append(Removed(group.watchers, spec.group_id, reason))
        return decisions

    # -- nodes

    def node_joined(
        self,
        node_id: ProcessId,
        total: Amounts,
        labels: Mapping[str, str],
        held: Iterable[HeldBundles],
        now: float,
        *,
        outside: Amounts | None = None,
    ) -> list[Decision]:
        """A node is there, over a new connection: for the first time, or again. What was on its way is lost.

        `held` is what it has of placement groups, `outside` what other leases use there. What the head knows
        of is kept and said again, everything else is asked back.
        """
        self._nodes.joined(node_id, total, labels, outside or {})
        self._planner.touch()
        return self._compare(node_id, held, now)

    def _compare(self, node_id: ProcessId, held: Iterable[HeldBundles], now: float) -> list[Decision]:
        """What the head knows of a node, with what the node has."""
        decisions: list[Decision] = []
        has: set[tuple[GroupId, int]] = set()
        for bundles in held:
            has.add((bundles.group_id, bundles.attempt))
            decisions += self._found(node_id, bundles, now)
        for group_id, (attempt, _) in self._returning.get(node_id, {}).items():
            decisions.append(Return(node_id, group_id, attempt))
        for group in list(self._groups):
            group_id, inflight = group.spec.group_id, group.inflight
            lost = [i for i, p in group.placed.items() if p.node_id == node_id and (group_id, p.attempt) not in has]
            if lost:
                decisions += self._lose(group, lost, f"node {node_id} came back without them", now)
            elif inflight is not None and node_id in inflight.bundles and (group_id, inflight.number) not in has:
                if node_id in inflight.waiting:
                    decisions.append(self._prepare(group, inflight, node_id))
                else:
                    decisions += self._fail(group, f"node {node_id} came back without what it had prepared", now, but=node_id)
        return decisions

    def node_changed(self, node_id: ProcessId, total: Amounts, labels: Mapping[str, str]) -> bool:
        """A node that has joined has other totals or labels. False when it has not joined."""
        node = self._nodes.get(node_id)
        if node is None:
            return False
        self._nodes.joined(node_id, total, labels, node.outside)
        self._planner.touch()
        return True

    def node_drains(self, node_id: ProcessId) -> None:
        """No bundle goes to this node any more."""
        self._nodes.close(node_id)

    def node_in_reach(self, node_id: ProcessId) -> None:
        """They may go there again."""
        self._nodes.open(node_id)
        self._planner.touch()

    def node_holds(self, node_id: ProcessId, held: Iterable[HeldBundles], now: float) -> list[Decision]:
        """A node that has joined already says what it has: as in `node_joined`, with nothing lost by it."""
        if self._nodes.get(node_id) is None:
            return []
        return [decision for bundles in held for decision in self._found(node_id, bundles, now)]

    def _found(self, node_id: ProcessId, bundles: HeldBundles, now: float) -> list[Decision]:
        """A node that joins has this."""
        group_id, attempt = bundles.group_id, bundles.attempt
        group = self._groups.get(group_id)
        if group is None:
            known = group_id in self._returning.get(node_id, ())
            return [] if known else [Return(node_id, group_id, attempt)]
        if group.inflight is not None and group.inflight.number == attempt:
            return [] if bundles.claimed else self.prepared(node_id, group_id, attempt, now)
        if any((place.node_id, place.attempt) == (node_id, attempt) for place in group.placed.values()):
            return [] if bundles.committed else [Commit(node_id, group_id, attempt)]
        return [Cancel(node_id, group_id, attempt)]

    def node_used(self, node_id: ProcessId, outside: Amounts) -> None:
        """A node reports what leases outside bundles use."""
        node = self._nodes.get(node_id)
        if node is not None and node.outside != outside:
            more_room = any(units > outside.get(name, 0) for name, units in node.outside.items())
            node.renew(node.total, node.labels, outside)
            if more_room:
                self._planner.touch()

    def node_lost(self, node_id: ProcessId, cause: str, now: float) -> list[Decision]:
        """A node is gone, with everything on it."""
        if not self._nodes.lost(node_id):
            return []
        self._returning.pop(node_id, None)
        self._planner.touch()
        words = f"node {node_id} was lost: {cause}"
        decisions: list[Decision] = []
        for group in list(self._groups):
            lost = [index for index, place in group.placed.items() if place.node_id == node_id]
            if lost:
                decisions += self._lose(group, lost, words, now)
            elif group.inflight is not None and node_id in group.inflight.bundles:
                decisions += self._fail(group, words, now)
        return decisions

    # -- word from nodes

    def prepared(self, node_id: ProcessId, group_id: GroupId, attempt: int, now: float) -> list[Decision]:
        """A node has set everything aside. When all have, the attempt is decided. Idempotent."""
        group = self._groups.get(group_id)
        if group is None:
            return [] if group_id in self._returning.get(node_id, ()) else [Return(node_id, group_id, attempt)]
        inflight = group.inflight
        if inflight is None or inflight.number != attempt or node_id not in inflight.bundles:
            known = any((place.node_id, place.attempt) == (node_id, attempt) for place in group.placed.values())
            return [] if known else [Cancel(node_id, group_id, attempt)]
        inflight.waiting.discard(node_id)
        return [] if inflight.waiting else self._commit(group, inflight, now)

    def refused(self, node_id: ProcessId, group_id: GroupId, attempt: int, reason: str, now: float, rng: Rng) -> list[Decision]:
        """A node has not enough room, whatever the head thought. Another attempt follows after a delay."""
        group = self._groups.get(group_id)
        inflight = group.inflight if group is not None else None
        if group is None or inflight is None or inflight.number != attempt or node_id not in inflight.bundles:
            return []
        self._avoid(group, node_id)
        self._delay(group, now, rng)
        return self._fail(group, f"node {node_id} refused it: {reason}", now, but=node_id)

    def bundles_lost(self, node_id: ProcessId, group_id: GroupId, attempt: int, reason: str, now: float, rng: Rng) -> list[Decision]:
        """A node has given back what it had, because no commit came in time or it knows nothing of it."""
        group = self._groups.get(group_id)
        if group is None:
            return []
        lost = [i for i, place in group.placed.items() if (place.node_id, place.attempt) == (node_id, attempt)]
        if lost:
            return self._lose(group, lost, f"node {node_id} gave them back: {reason}", now)
        return self.refused(node_id, group_id, attempt, reason, now, rng)

    def returned(self, node_id: ProcessId, group_id: GroupId, attempt: int) -> None:
        """A node has nothing of a removed group any more. Idempotent."""
        node = self._returning.get(node_id, {})
        asked = node.get(group_id)
        if asked is not None and asked[0] <= attempt:
            del node[group_id]
            if not node:
                del self._returning[node_id]
            self._nodes.release(node_id, asked[1])
            self._planner.touch()

    # -- time

    def tick(self, now: float, rng: Rng) -> list[Decision]:
        """Time passes. To be called when `next_deadline` has come."""
        decisions = self._tell_forgotten(self._early.expire(now), now)
        while self._timers and self._timers[0][0] <= now:
            _, _, group_id, attempt = heappop(self._timers)
            group = self._groups.get(group_id)
            if group is None:
                continue
            if not attempt and group.waits() and group.not_before <= now:
                self._planner.retry(group)
            elif attempt and group.inflight is not None and group.inflight.number == attempt:
                decisions += self._overdue(group, group.inflight, now, rng)
        return decisions

    def _overdue(self, group: Group, inflight: Attempt, now: float, rng: Rng) -> list[Decision]:
        """Not every node has answered in time. A claim that was not served says nothing against the node."""
        silent = sorted(inflight.waiting)
        for node_id in silent if not inflight.claim else ():
            self._avoid(group, node_id)
        self._delay(group, now, rng)
        what = "no room" if inflight.claim else "no answer"
        return self._fail(group, f"{what} in {inflight.timeout_s:.3g} s on {', '.join(silent)}", now)

    def next_deadline(self) -> float | None:
        """When `tick` and `schedule` have something to do; 0 when that is now, None when never."""
        if self._planner.unfinished:
            return 0.0
        early = self._early.next_deadline()
        at = min(self._next_timer(), self._planner.next_deadline(), early if early is not None else math.inf)
        return max(at, 0.0) if at < math.inf else None

    def _next_timer(self) -> float:
        """When the next timer is due that is of any use; the others leave the heap when they come to its top."""
        while self._timers:
            at, _, group_id, attempt = self._timers[0]
            group = self._groups.get(group_id)
            if group is not None:
                under_way = group.inflight is not None and group.inflight.number == attempt
                if under_way if attempt else group.waits():
                    return at
            heappop(self._timers)
        return math.inf

    def schedule(self, now: float) -> list[Decision]:
        """Try those who wait, in order. To be called after any event; again, while `next_deadline` is 0."""
        decisions: list[Decision] = []
        for outcome in self._planner.run(now, PACKS_MAX):
            if isinstance(outcome, Plan):
                decisions += self._attempt(outcome, now)
            else:
                decisions += self._no_plan(outcome)
        return decisions

    # -- steps

    def _wait(self, group: Group, now: float) -> None:
        """From now on it wants a place."""
        self._planner.add(group)
        if group.not_before > now:
            self._timer(group.not_before, group, 0)

    def _timer(self, at: float, group: Group, attempt: int) -> None:
        self._number += 1
        heappush(self._timers, (at, self._number, group.spec.group_id, attempt))

    def _avoid(self, group: Group, node_id: ProcessId) -> None:
        node = self._nodes.get(node_id)
        if node is not None:
            group.plan.avoid[node_id] = node.version

    def _delay(self, group: Group, now: float, rng: Rng) -> None:
        group.failures += 1
        group.not_before = now + retry_delay_s(group.failures, rng)

    def _no_plan(self, outcome: NoPlan) -> list[Decision]:
        group = outcome.group
        group.plan.told = True
        if group.reason == outcome.reason:
            return []
        group.reason = outcome.reason
        if not group.watchers:
            return []
        return [Waiting(group.watchers, group.spec.group_id, outcome.reason, outcome.infeasible)]

    def _attempt(self, plan: Plan, now: float) -> list[Decision]:
        """Ask every node of a plan (PG-1)."""
        group = plan.group
        self._planner.remove(group)
        group.attempt += 1
        bundles: dict[ProcessId, dict[int, Mapping[str, int]]] = {}
        for index, node_id in plan.nodes.items():
            resources = group.spec.bundles[index].resources
            bundles.setdefault(node_id, {})[index] = resources
            self._nodes.reserve(node_id, resources)
        timeout_s = self._prepare_timeout_s
        if plan.claim:
            timeout_s = max(timeout_s, self._planner.turn_left_s(now))
        inflight = Attempt(group.attempt, bundles, set(bundles), timeout_s, timeout_s + KEEP_EXTRA_S, plan.claim)
        group.inflight = inflight
        group.move(Event.ATTEMPTED, now, f"{', '.join(bundles)} (attempt {group.attempt}{', a claim' if plan.claim else ''})")
        self._timer(now + timeout_s, group, group.attempt)
        return [self._prepare(group, inflight, node_id) for node_id in bundles]

    def _prepare(self, group: Group, attempt: Attempt, node_id: ProcessId) -> Prepare:
        return Prepare(
            node_id, group.spec.group_id, attempt.number, attempt.bundles[node_id], attempt.keep_s,
            commit=attempt.commit, claim=attempt.claim,
        )  # fmt: skip

    def _commit(self, group: Group, inflight: Attempt, now: float) -> list[Decision]:
        """All have prepared: now it is decided, and only the loss of a node can undo it."""
        group_id = group.spec.group_id
        for node_id, bundles in inflight.bundles.items():
            for index in bundles:
                group.placed[index] = Placed(node_id, inflight.number)
        group.inflight = None
        group.failures = 0
        group.reason = ""
        group.plan.avoid.clear()
        group.plan.begin_anew()
        group.ready_at = now
        group.move(Event.COMMITTED, now, f"attempt {inflight.number}")
        decisions: list[Decision] = []
        if not inflight.commit:
            decisions += [Commit(node_id, group_id, inflight.number) for node_id in inflight.bundles]
        return decisions + _state_of(group, group.watchers)

    def _fail(self, group: Group, reason: str, now: float, *, but: ProcessId | None = None) -> list[Decision]:
        """Give up the attempt that is under way (PG-5). The node `but` has nothing of it."""
        cancels = self._give_up(group, but)
        group.move(Event.ATTEMPT_FAILED, now, reason)
        group.reason = reason
        group.plan.told = False
        self._wait(group, now)
        return cancels

    def _give_up(self, group: Group, but: ProcessId | None = None) -> list[Decision]:
        inflight = group.inflight
        assert inflight is not None, f"PG-1: {group} has no attempt under way"
        group.inflight = None
        cancels: list[Decision] = []
        for node_id, bundles in inflight.bundles.items():
            for resources in bundles.values():
                self._nodes.release(node_id, resources)
            if node_id != but and self._nodes.get(node_id) is not None:
                cancels.append(Cancel(node_id, group.spec.group_id, inflight.number))
        self._planner.touch()
        return cancels

    def _lose(self, group: Group, indexes: list[int], reason: str, now: float) -> list[Decision]:
        """These bundles are gone; they get another place, and the others stay."""
        was_complete, was_waiting = group.state is State.CREATED, group.waits()
        decisions = self._give_up(group) if group.inflight is not None else []
        for index in indexes:
            place = group.placed.pop(index)
            self._nodes.release(place.node_id, group.spec.bundles[index].resources)
        assert not group.placed or group.spec.strategy is not Strategy.STRICT_PACK, f"PG-6: a part of {group} stays behind"
        group.move(Event.BUNDLES_LOST, now, f"{indexes}: {reason}")
        group.reason = reason
        group.plan.begin_anew()
        if was_complete:
            group.waiting_since = now
            group.not_before = now
        if not was_waiting:
            self._wait(group, now)
        self._planner.touch()
        if group.watchers:
            decisions.append(Rescheduling(group.watchers, group.spec.group_id, tuple(indexes), reason))
        return decisions

    # -- for tests

    def check(self) -> None:
        """Assert every invariant."""
        self._groups.check()
        self._planner.check()
        reserved: dict[ProcessId, ResourceSet] = {}
        waiting = 0
        for group in self._groups:
            spec, inflight = group.spec, group.inflight
            waiting += group.waits()
            assert group.state is not State.REMOVED, f"PG-4: {group} is still there"
            complete = inflight is None and len(group.placed) == len(spec.bundles)
            assert (group.state is State.CREATED) == complete, f"PG-3: {group} has {sorted(group.placed)}"
            where = {index: place.node_id for index, place in group.placed.items()}
            if inflight is not None:
                assert inflight.number == group.attempt, f"PG-1: {group} has an old attempt under way"
                assert inflight.waiting, f"PG-1: the attempt of {group} is not decided, and nobody is waited for"
                where.update({index: node_id for node_id, bundles in inflight.bundles.items() for index in bundles})
            assert all(self._nodes.get(node_id) is not None for node_id in where.values()), f"PG-3: {group} is on a lost node"
            nodes = set(where.values())
            if spec.strategy is Strategy.STRICT_PACK:
                assert len(nodes) <= 1, f"PG-6: {group} is on {nodes}"
            if spec.strategy is Strategy.STRICT_SPREAD:
                assert len(nodes) == len(where), f"PG-6: {group} is on {nodes}"
            for index, node_id in where.items():
                reserved.setdefault(node_id, ResourceSet()).add(spec.bundles[index].resources)
        assert waiting == len(self._planner), "PL-1: exactly those who wait are in the queue"
        for node_id, returning in self._returning.items():
            assert returning, f"PG-4: nothing is returned by node {node_id}"
            for _, amounts in returning.values():
                reserved.setdefault(node_id, ResourceSet()).add(amounts)
        for node in self._nodes:
            assert node.reserved == reserved.pop(node.node_id, ResourceSet()), f"PN-1: node {node.node_id}"
            for name, units in node.room.items():
                left = node.total.get(name, 0) - node.outside.get(name, 0) - node.reserved.get(name)
                assert units == left, f"PN-1: room for {name} on node {node.node_id}"
        assert not reserved, f"PN-1: reserved on nodes that are lost: {reserved}"


def _state_of(group: Group, watchers: tuple[ProcessId, ...]) -> list[Decision]:
    """What watchers are told of the state, when there is something to tell."""
    group_id = group.spec.group_id
    if not watchers:
        return []
    if group.state is State.CREATED:
        places = [group.placed[index] for index in range(len(group.spec.bundles))]
        return [Ready(watchers, group_id, tuple(p.node_id for p in places), tuple(p.attempt for p in places))]
    if group.reason:
        return [Waiting(watchers, group_id, group.reason, group.plan.infeasible_at >= 0)]
    return []
