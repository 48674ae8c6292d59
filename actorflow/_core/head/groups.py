"""The head's placement groups: words become events of the policy, its decisions become words and timers.

This room is opened by the first word about a group: a cluster without them has no part of it. The policy is
`policy/placement_groups.py`.

HG-1: an actor in a group is placed only where the head has just seen its bundle, and waits as long as the group may still get a
      place; with the group it ends.
HG-2: however many words come in one turn of the loop, those who wait are looked at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Any

from actorflow._core.base.errors import ProtocolError
from actorflow._core.base.ids import ActorId, GroupId, ProcessId
from actorflow._core.base.resources import DEVICE_NAMES, ResourceSet
from actorflow._core.base.state_rows import PlacementGroupRow
from actorflow._core.head.actors import Actors
from actorflow._core.head.directory import Directory
from actorflow._core.head.jobs import Jobs, namespace_of
from actorflow._core.head.nodes import Nodes, Touch, node_id_of, nothing
from actorflow._core.head.rows import numbers
from actorflow._core.io.peers import Peer
from actorflow._core.io.ports import Ports
from actorflow._core.policy.bundle_fit import could_hold, why_in_none
from actorflow._core.policy.bundle_packing import BundleSpec, Strategy
from actorflow._core.policy.graveyard import Story, tell_story
from actorflow._core.policy.jobs import EndJob
from actorflow._core.policy.membership import Gone, Node, NotPicked, Picked
from actorflow._core.policy.node_records import implicit_labels
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
from actorflow._core.policy.placement_groups import PlacementGroups
from actorflow._core.policy.placement_record import Group, GroupSpec, RemovedGroup, State
from actorflow._core.policy.placement_wish import GROUP, group_of
from actorflow._core.protocol.messages import ActorSpec, GroupWord, Hosted
from actorflow._core.protocol.messages import group as words

log = logging.getLogger(__name__)


Handler = Callable[[Peer, Any], None]

NODE = frozenset({"node"})
PROCESS = frozenset({"driver", "worker"})


class Groups:
    """See the module. The one writer of the table of groups."""

    def __init__(self, ports: Ports, head_id: ProcessId, directory: Directory, nodes: Nodes, jobs: Jobs, actors: Actors) -> None:
        self._ports = ports
        self._head_id = head_id
        """The head itself watches the groups that actors wait for."""
        self._directory = directory
        self._nodes = nodes
        self._jobs = jobs
        self._actors = actors
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = 0.0
        self._soon: asyncio.Handle | None = None
        self._spoken_to: dict[ProcessId, None] = {}
        self._nodes_spoken_to: dict[ProcessId, None] = {}
        """Who is to hear at the end of the turn what was said in it: first those who wait for an answer, then nodes."""
        self._in_turn = False
        """More words may follow before the turn is over."""
        self._inside: dict[GroupId, dict[ActorId, int]] = {}
        """The living actors in each group, and the bundle that was chosen for the newest incarnation; -1: none yet."""
        self._waiting: dict[GroupId, dict[ActorId, int]] = {}
        """Of these who waits for a place, and with which incarnation."""
        self._group_of: dict[ActorId, GroupId] = {}
        self.touch: Touch = nothing
        """As in head/nodes.py."""
        self._on_hold = False
        """Nothing is placed until the nodes are back that were there in the head's earlier life."""
        self.table = PlacementGroups(device_kinds=DEVICE_NAMES)
        """To be read by others, written here."""
        self._handlers: dict[type, tuple[frozenset[str], Handler]] = {
            words.CreateGroup: (PROCESS, self._create),
            words.WatchGroup: (PROCESS, self._watch),
            words.RemoveGroup: (PROCESS, self._remove),
            words.FindGroup: (PROCESS, self._find),
            words.BundlesPrepared: (NODE, self._prepared),
            words.BundlesRefused: (NODE, self._refused),
            words.BundlesLost: (NODE, self._lost),
            words.BundlesReturned: (NODE, self._returned),
            words.BundlesHeld: (NODE, self._held),
            words.OutsideUsed: (NODE, self._outside_used),
        }
        for node in nodes.membership.nodes():
            if node.lost_at is None:
                self.node_joined(node)
                if node.apart:
                    self.node_drains(node.node_id)

    def stop(self) -> None:
        """No timer fires from now on."""
        for timer in (self._alarm, self._soon):
            if timer is not None:
                timer.cancel()
        self._alarm = self._soon = None

    def word(self, peer: Peer, message: GroupWord) -> None:
        """Somebody says something about a group."""
        try:
            word = words.hear(message)
        except ProtocolError as error:
            log.error("%r says what is no word about groups; its connection is closed: %s", peer, error)
            peer.close(abort=True)
            return
        roles, handle = self._handlers.get(type(word), (frozenset(), self._watch))
        if peer.role not in roles:
            log.error("%r said %s, which a %s never says to a head; its connection is closed", peer, word, peer.role)
            peer.close(abort=True)
            return
        self._in_turn = True
        handle(peer, word)
        if (group_id := getattr(word, "group_id", "")):
            self.touch("group", group_id)

    def turn_over(self) -> None:
        """All that has come together has been heard: now those who wait are looked at (HG-2)."""
        if self._in_turn:
            self._in_turn = False
            deadline = self.table.next_deadline()
            if deadline is not None and deadline <= self._ports.monotonic() and not self._on_hold:
                self._look()
            else:
                self._set_alarm()
            for process_id in (*self._spoken_to, *self._nodes_spoken_to):
                self._directory.flush(process_id)
            self._spoken_to.clear()
            self._nodes_spoken_to.clear()

    # -- from drivers and workers

    def _create(self, peer: Peer, word: words.CreateGroup) -> None:
        now = self._ports.monotonic()
        labels = word.labels or [{}] * len(word.bundles)
        try:
            bundles = tuple(BundleSpec(resources, labels[index]) for index, resources in enumerate(word.bundles))
            strategy = Strategy(word.strategy)
        except (ValueError, IndexError) as error:
            # No options of ours have made it.
            peer.send(words.say(words.GroupRefused(word.group_id, f"its specification is wrong: {error!r}")))
            return
        spec = GroupSpec(
            word.group_id,
            word.job_id,
            strategy,
            bundles,
            word.name,
            word.namespace or namespace_of(self._jobs, peer),
            word.detached,
            word.creator,
            word.priority,
        )
        lives = word.creator and self._actors.table.living().get(word.creator) is not None
        over = self._jobs.table.is_over(word.job_id) and not lives
        self._perform(self.table.create(spec, peer.process_id, job_over=over, now=now))
        if word.creator and not lives:
            self._perform(self.table.actor_died(word.creator, now))

    def _watch(self, peer: Peer, word: words.WatchGroup) -> None:
        self._perform(self.table.watch(word.group_id, peer.process_id, self._ports.monotonic()))

    def _remove(self, peer: Peer, word: words.RemoveGroup) -> None:
        by = f"{peer.role} {peer.process_id}"
        self._perform(self.table.remove(word.group_id, by=by, now=self._ports.monotonic()))

    def _find(self, peer: Peer, word: words.FindGroup) -> None:
        namespace = word.namespace or namespace_of(self._jobs, peer)
        living = self.table.living()
        group = living.named(namespace, word.name)
        if group is None:
            peer.send(words.say(words.GroupFound(word.token, near=living.near(namespace, word.name))))
            return
        spec = group.spec
        bundles = [dict(bundle.resources) for bundle in spec.bundles]
        labels = [dict(bundle.labels) for bundle in spec.bundles]
        peer.send(words.say(words.GroupFound(word.token, spec.group_id, spec.strategy.value, bundles, labels)))

    # -- from nodes

    def _prepared(self, peer: Peer, word: words.BundlesPrepared) -> None:
        self._perform(self.table.prepared(node_id_of(peer), word.group_id, word.attempt, self._ports.monotonic()))

    def _refused(self, peer: Peer, word: words.BundlesRefused) -> None:
        now, rng = self._ports.monotonic(), self._ports.rng
        self._perform(self.table.refused(node_id_of(peer), word.group_id, word.attempt, word.reason, now, rng))

    def _lost(self, peer: Peer, word: words.BundlesLost) -> None:
        now, rng = self._ports.monotonic(), self._ports.rng
        self._perform(self.table.bundles_lost(node_id_of(peer), word.group_id, word.attempt, word.reason, now, rng))

    def _returned(self, peer: Peer, word: words.BundlesReturned) -> None:
        self.table.returned(node_id_of(peer), word.group_id, word.attempt)
        self._perform([])

    def _held(self, peer: Peer, word: words.BundlesHeld) -> None:
        held = [HeldBundles(e.group_id, e.attempt, tuple(e.indexes), e.committed, e.claimed) for e in word.held]
        self._perform(self.table.node_holds(node_id_of(peer), held, self._ports.monotonic()))

    def _outside_used(self, peer: Peer, word: words.OutsideUsed) -> None:
        self.table.node_used(node_id_of(peer), word.amounts)
        self._perform([])

    # -- from the head's other rooms

    def node_joined(self, node: Node) -> None:
        """A node is there, for the first time or again: what it has of groups it says next."""
        labels = implicit_labels(node.node_id, node.resources) | node.labels
        if self.table.node_changed(node.node_id, node.resources, labels):
            self._perform([])  # Over the same connection: nothing was lost.
        else:
            self._perform(self.table.node_joined(node.node_id, node.resources, labels, (), self._ports.monotonic()))

    def node_drains(self, node_id: ProcessId) -> None:
        """A node is to leave: its bundles stay until then, and no more come."""
        self.table.node_drains(node_id)

    def node_in_reach(self, node_id: ProcessId) -> None:
        """A node is heard again, after a while in which no bundle went there."""
        self.table.node_in_reach(node_id)
        self._perform([])

    def node_lost(self, node_id: ProcessId, reason: str) -> None:
        """A node is gone with all that was on it."""
        self._perform(self.table.node_lost(node_id, reason, self._ports.monotonic()))

    def job_ended(self, end: EndJob) -> None:
        """A job is over. Called when its actors have ended, but for those that live on."""
        survivors = self._actors.table.living().survivors(end.job_id)
        self._perform(self.table.job_ended(end.job_id, survivors, self._ports.monotonic()))

    def process_lost(self, process_id: ProcessId) -> None:
        """A driver or worker is gone, and need not be told anything."""
        self.table.watcher_lost(process_id)

    def actor_died(self, actor_id: ActorId) -> None:
        """An actor is gone for good: its place in a group is free, and the groups that it has created go with it."""
        group_id = self._group_of.pop(actor_id, "")
        for table in (self._inside, self._waiting) if group_id else ():
            actors = table.get(group_id, {})
            actors.pop(actor_id, None)
            if not actors:
                table.pop(group_id, None)
        self._perform(self.table.actor_died(actor_id, self._ports.monotonic()))

    # -- after the head's earlier life

    def restore(self, group: Group) -> None:
        """A group of then, and the actors that are in it."""
        group_id = group.spec.group_id
        self.table.restore(group)
        self._on_hold = True
        for actor in self._actors.table.living():
            if not actor.spec.placement.startswith(GROUP) or group_of(actor.spec.placement)[0] != group_id:
                continue
            self._group_of[actor.spec.actor_id] = group_id
            index = group_of(actor.spec.placement)[1]
            if index < 0:
                near = [number for number, place in group.placed.items() if place.node_id == actor.node_id]
                index = near[0] if near else -1
            self._inside.setdefault(group_id, {})[actor.spec.actor_id] = index

    def hosted(self, peer: Peer, message: Hosted) -> None:
        """A node of then is back, and says what it has."""
        held = [HeldBundles(e.group_id, e.attempt, tuple(e.indexes), e.committed, e.claimed) for e in message.bundles]
        self._perform(self.table.node_is_back(node_id_of(peer), held, self._ports.monotonic()))

    def go_on(self) -> None:
        """All who are to come back have, or never will."""
        self._on_hold = False
        self._set_alarm()

    # -- actors inside

    def pick(self, spec: ActorSpec, incarnation: int) -> Picked | NotPicked | Gone | None:
        """Where an incarnation goes: None while it waits for its bundle (HG-1); NotPicked when it will never have one."""
        group_id, index = group_of(spec.placement)
        found = self.table.find(group_id)
        if isinstance(found, RemovedGroup):
            return Gone(_gone(group_id, found))
        if found is not None and index >= len(found.spec.bundles):
            count = len(found.spec.bundles)
            return NotPicked(f"placement group {group_id} has {count} bundles, and none of the index {index}", infeasible=True)
        if found is not None and index < 0:
            why = why_in_none(group_id, spec.resources, enumerate(bundle.resources for bundle in found.spec.bundles))
            if why:
                return NotPicked(why, infeasible=True)
        self._group_of[spec.actor_id] = group_id
        self._inside.setdefault(group_id, {})[spec.actor_id] = -1
        if found is not None:
            chosen = self._choose(found, spec, index)
            if chosen is not None:
                self._inside[group_id][spec.actor_id] = chosen
                return Picked(found.placed[chosen].node_id)
            if found.plan.infeasible_at >= 0 and found.state is not State.RESCHEDULING:
                return NotPicked(f"its placement group {group_id} can have no place: {found.reason}", infeasible=True)
        self._waiting.setdefault(group_id, {})[spec.actor_id] = incarnation
        watching = self.table.watch(group_id, self._head_id, self._ports.monotonic())
        # What is told of this group was just looked at. Another one may have been given up to make room for it (policy/early.py).
        self._perform([told for told in watching if told.group_id != group_id])
        return None

    def _choose(self, group: Group, spec: ActorSpec, index: int) -> int | None:
        """The bundle for an actor: the one it wants, else the first in which other actors leave room, else the one with the fewest.

        None while what could hold it has no place: a smaller bundle that has one is no answer.
        """
        if index >= 0:
            return index if index in group.placed else None
        used: dict[int, ResourceSet] = {}
        counts: dict[int, int] = {}
        for actor_id, bundle in self._inside.get(group.spec.group_id, {}).items():
            other = self._actors.table.living().get(actor_id)
            if bundle >= 0 and other is not None and actor_id != spec.actor_id:
                used.setdefault(bundle, ResourceSet()).add(other.spec.resources)
                counts[bundle] = counts.get(bundle, 0) + 1
        has = group.spec.bundles
        could = [number for number in sorted(group.placed) if could_hold(has[number].resources, spec.resources)]
        for number in could:
            free = ResourceSet(has[number].resources)
            free.subtract(used[number].amounts if number in used else {})
            if free.fits(spec.resources):
                return number
        return min(could, key=lambda number: counts.get(number, 0), default=None)

    def _look_again(self, group_id: GroupId) -> None:
        """The group has a place, or none any more: the actors that wait for it are placed, or end."""
        for actor_id, incarnation in self._waiting.pop(group_id, {}).items():
            self._actors.place_again(actor_id, incarnation)

    def _end_inside(self, group_id: GroupId) -> None:
        """The group is removed, and its actors with it."""
        self._waiting.pop(group_id, None)
        inside = self._inside.pop(group_id, None)
        found = self.table.find(group_id)
        if inside is not None and isinstance(found, RemovedGroup):
            for actor_id in inside:
                self._actors.group_removed(actor_id, _gone(group_id, found))

    # -- looking

    def rows(self, clock_offset: float) -> Iterator[PlacementGroupRow]:
        """All groups as rows, the living first, oldest first. `clock_offset`: wall time minus monotonic time."""
        for group in self.table.living():
            yield _row(group.spec, group.state, group.created_at + clock_offset, group.reason, group.story) | {
                "nodes": _nodes_of(group),
                "infeasible": group.plan.infeasible_at >= 0,
            }
        for removed in self.table.removed():
            if removed.spec is not None:
                yield _row(removed.spec, State.REMOVED, removed.created_at + clock_offset, removed.reason, removed.story) | {
                    "removed_at": removed.removed_at + clock_offset
                }

    # -- decisions

    def _perform(self, decisions: list[Decision]) -> None:
        """Do what was decided, in order, and look at those who wait before this turn of the loop ends."""
        for decision in decisions:
            self.touch("group", decision.group_id)
            if isinstance(decision, Prepare | Commit | Cancel | Return):
                self._nodes_spoken_to[decision.node_id] = None
            if isinstance(decision, Ready | Waiting | Rescheduling | Removed):
                self._tell(decision)
            elif isinstance(decision, Answer):
                if decision.error:
                    self._directory.send(decision.to, words.say(words.GroupRefused(decision.group_id, decision.error)))
            elif isinstance(decision, Prepare):
                self._nodes.send(decision.node_id, words.say(_prepare(decision)))
            elif isinstance(decision, Commit):
                self._nodes.send(decision.node_id, words.say(words.CommitBundles(decision.group_id, decision.attempt)))
            elif isinstance(decision, Cancel):
                self._nodes.send(decision.node_id, words.say(words.CancelBundles(decision.group_id, decision.attempt)))
            elif isinstance(decision, Return):
                self._end_inside(decision.group_id)  # Its actors end because of this, not because their workers do.
                self._nodes.send(decision.node_id, words.say(words.ReturnBundles(decision.group_id, decision.attempt)))
        self._set_alarm()

    def _tell(self, decision: Ready | Waiting | Rescheduling | Removed) -> None:
        group_id = decision.group_id
        if isinstance(decision, Removed):
            self._end_inside(group_id)
        message = words.say(self._state(decision))
        for watcher in decision.watchers:
            if watcher != self._head_id:
                self._spoken_to[watcher] = None
                self._directory.send(watcher, message)
        if group_id in self._waiting and (isinstance(decision, Ready) or (isinstance(decision, Waiting) and decision.infeasible)):
            self._look_again(group_id)

    def _state(self, decision: Ready | Waiting | Rescheduling | Removed) -> words.GroupState:
        group = self.table.living().get(decision.group_id)
        if isinstance(decision, Removed) or group is None:
            return words.GroupState(decision.group_id, State.REMOVED.value, reason=decision.reason if isinstance(decision, Removed) else "")
        nodes = _nodes_of(group)
        addresses = {node_id: self._nodes.membership.address(node_id) for node_id in nodes if node_id}
        state = State.PENDING if group.state is State.PREPARING else group.state
        infeasible = isinstance(decision, Waiting) and decision.infeasible
        bundles = [dict(bundle.resources) for bundle in group.spec.bundles]
        return words.GroupState(group.spec.group_id, state.value, nodes, addresses, bundles, group.reason, infeasible)

    # -- time

    def _set_alarm(self) -> None:
        """Have those who wait looked at when something may have changed for them: soon, or when it is time."""
        if self._in_turn or self._on_hold:
            return
        deadline = self.table.next_deadline()
        if deadline is None or self._soon is not None:
            return
        now = self._ports.monotonic()
        if deadline <= now:
            self._soon = self._ports.loop.call_soon(self._look)
        elif self._alarm is None or self._alarm_at > deadline:
            if self._alarm is not None:
                self._alarm.cancel()
            self._alarm, self._alarm_at = self._ports.loop.call_later(deadline - now, self._ring), deadline

    def _ring(self) -> None:
        self._alarm = None
        self._look()

    def _look(self) -> None:
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        now = self._ports.monotonic()
        due = self.table.tick(now, self._ports.rng)
        self._perform([*due, *self.table.schedule(now)])


def _prepare(decision: Prepare) -> words.PrepareBundles:
    bundles = {index: dict(resources) for index, resources in decision.bundles.items()}
    return words.PrepareBundles(
        decision.group_id, decision.attempt, bundles, decision.keep_s, commit=decision.commit, claim=decision.claim
    )


def _nodes_of(group: Group) -> list[str]:
    return [group.placed[index].node_id if index in group.placed else "" for index in range(len(group.spec.bundles))]


def _row(spec: GroupSpec, state: State, created_at: float, reason: str, story: Story) -> PlacementGroupRow:
    return {
        "group_id": spec.group_id,
        "name": spec.name,
        "namespace": spec.namespace,
        "state": state.value,
        "strategy": spec.strategy.value,
        "bundles": [numbers(bundle.resources) for bundle in spec.bundles],
        "label_selectors": [dict(bundle.labels) for bundle in spec.bundles],
        "nodes": [""] * len(spec.bundles),
        "job_id": spec.job_id,
        "creator": spec.creator,
        "detached": spec.detached,
        "priority": spec.priority,
        "created_at": created_at,
        "removed_at": None,
        "reason": reason,
        "infeasible": False,
        "story": tell_story(story, story[0][0]) if story else [],
    }


def _gone(group_id: GroupId, removed: RemovedGroup) -> str:
    return f"its placement group {group_id} is no more: {removed.reason}"
