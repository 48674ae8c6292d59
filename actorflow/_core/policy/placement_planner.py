"""Which waiting placement group is tried next, and where. Pure.

Order: higher priority, then age. A group that does not fit lets those behind it pass, until it has waited for
`starvation_s`. Then a turn begins, for all that have waited so long, and lasts for `turn_s`: nothing behind them
gets the room that they need, and leases outside bundles are no obstacle any more (a claim). After it nobody has a
turn for `starvation_s`: one that waits for what others never give back does not block the rest for ever.

PL-1: exactly the groups that wait are in the queue, in order.
PL-2: a group behind one that has its turn gets only what that leaves.
PL-3: one `run` tries at most `packs_max` groups (and a little more), whatever waits; the next goes on where it
      stopped, so that everyone is tried.
PL-4: what no set of the nodes could ever hold is not tried again until the nodes change.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from actorflow._core.base.ids import ProcessId
from actorflow._core.policy.bundle_packing import NotPacked, Packed, Place, pack
from actorflow._core.policy.placement_nodes import NodeRoom, Nodes
from actorflow._core.policy.placement_reasons import why_not_placed
from actorflow._core.policy.placement_record import Group, Rank, Shape

TURNS_MAX = 16
"""How many groups may have their turn at one time."""
FEASIBLE_WORK_MAX = 40_000
"""How hard to look for the proof that a group can never be placed: once for each change of the nodes."""

Aside = dict[ProcessId, dict[str, int]]
"""Amounts that are kept for somebody, by node."""


@dataclass(slots=True)
class Plan:
    """Try this group there. `claim`: the room must first be given back by leases outside bundles."""

    group: Group
    nodes: dict[int, ProcessId]
    claim: bool


@dataclass(slots=True)
class NoPlan:
    """It has no place, and why. `infeasible`: nor ever, on the nodes that there are."""

    group: Group
    reason: str
    infeasible: bool


class Phase(Enum):
    """CALM until somebody starves, then TURN, then REST, then CALM again."""

    CALM = "calm"
    TURN = "turn"
    REST = "rest"


class Planner:
    """The queue of the groups that wait."""

    __slots__ = (
        "_aside", "_dirty", "_failed", "_fresh", "_judged_at", "_nodes", "_pass", "_phase", "_phase_until", "_queue",
        "_verdicts", "_waiting", "starvation_s", "turn_s",
    )  # fmt: skip

    def __init__(self, nodes: Nodes, starvation_s: float, turn_s: float) -> None:
        self.starvation_s = starvation_s
        self.turn_s = turn_s
        self._nodes = nodes
        self._queue: list[Rank] = []
        self._waiting: dict[Rank, Group] = {}
        self._dirty = False
        """There may be more room than before: everyone is tried again."""
        self._pass: deque[Rank] = deque()
        """Who is still to be tried in this pass."""
        self._fresh: list[Rank] = []
        """Those who came since, to be tried without everyone else."""
        self._failed: set[Shape] = set()
        """Shapes that did not fit in this pass; in a pass room only becomes less."""
        self._aside: dict[Rank, Aside] = {}
        """What is kept for those who have their turn."""
        self._verdicts: dict[Shape, str] = {}
        """Why groups of a shape can never be placed, or an empty string; on the nodes of the epoch `_judged_at`."""
        self._judged_at = -1
        self._phase = Phase.CALM
        self._phase_until = math.inf
        """When the phase ends; while it is calm, when somebody starves next."""

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, group: Group) -> None:
        """A group waits for a place."""
        assert group.rank not in self._waiting, f"PL-1: {group} waits twice"
        insort(self._queue, group.rank)
        if self._phase is Phase.CALM:
            self._phase_until = min(self._phase_until, group.waiting_since + self.starvation_s)
        self._waiting[group.rank] = group
        insort(self._fresh, group.rank)

    def remove(self, group: Group) -> None:
        """A group does not wait any more."""
        del self._queue[bisect_left(self._queue, group.rank)]
        del self._waiting[group.rank]
        if self._aside.pop(group.rank, None) is not None:
            self._dirty = True  # what was kept for it is for others now
        group.plan.target = None

    def retry(self, group: Group) -> None:
        """The delay of a group that waits is over."""
        if group.rank not in self._fresh:
            insort(self._fresh, group.rank)

    def touch(self) -> None:
        """There may be more room than before, or other nodes."""
        if not self._queue:
            self._begin()  # Nobody is there to be tried: only what was found out before is forgotten.
            return
        self._dirty = True
        if self._phase is Phase.CALM:
            self._phase_until = -math.inf  # who could never be placed may starve now

    @property
    def unfinished(self) -> bool:
        """True when `run` has something to do."""
        return self._dirty or bool(self._pass) or bool(self._fresh)

    def run(self, now: float, packs_max: int) -> Iterator[Plan | NoPlan]:
        """Say where groups are to be tried, one after the other; each plan is reserved before the next is made."""
        self.advance(now)
        tried = 0
        while tried < packs_max:
            if not self._pass and self._dirty:
                self._begin()
            if self._pass:
                rank, alone = self._pass.popleft(), False
            elif self._fresh:
                rank, alone = self._fresh.pop(0), True
            else:
                break
            group = self._waiting.get(rank)
            if group is None or group.plan.infeasible_at == self._nodes.epoch:
                continue
            # What is kept for others did not count for all who failed: whoever comes alone is looked at again.
            known = not group.placed and group.shape in self._failed and not (alone and self._aside)
            if known and group.plan.told and group.plan.infeasible_at < 0 and not self.has_turn(group, now) and not self._verdict(group):
                continue
            tried += 1
            outcome = self._try(group, now, known)
            if isinstance(outcome, Plan):
                group.plan.infeasible_at = -1
            if outcome is not None:
                yield outcome

    # -- turns

    def advance(self, now: float) -> None:
        """Time passes: a turn begins or ends. To be called when `next_deadline` has come."""
        if self._phase is Phase.TURN and self._phase_until <= now:
            self._phase, self._phase_until = Phase.REST, now + self.starvation_s
            self._dirty = True
            for group in self._waiting.values():
                group.plan.target = None
        if self._phase is Phase.REST and self._phase_until <= now:
            self._phase, self._phase_until = Phase.CALM, -math.inf
        if self._phase is Phase.CALM and self._phase_until <= now:
            waiting = (g for g in self._waiting.values() if g.plan.infeasible_at != self._nodes.epoch)
            self._phase_until = min((g.waiting_since + self.starvation_s for g in waiting), default=math.inf)
            if self._phase_until <= now:
                self._phase, self._phase_until = Phase.TURN, now + self.turn_s
                self._dirty = True

    def next_deadline(self) -> float:
        """When `advance` has something to do; infinity when never."""
        return self._phase_until

    def has_turn(self, group: Group, now: float) -> bool:
        """True while it is served before those behind it."""
        return self._phase is Phase.TURN and now - group.waiting_since >= self.starvation_s

    def turn_left_s(self, now: float) -> float:
        """How long the turn lasts yet."""
        return max(0.0, self._phase_until - now) if self._phase is Phase.TURN else 0.0

    # -- one pass

    def _begin(self) -> None:
        self._dirty = False
        self._pass = deque(self._queue)
        self._fresh.clear()
        self._failed.clear()
        self._aside.clear()

    def _try(self, group: Group, now: float, known: bool) -> Plan | NoPlan | None:
        turn = self.has_turn(group, now) and (group.rank in self._aside or len(self._aside) < TURNS_MAX)
        reason = ""
        if now >= group.not_before:
            aside = self._aside_before(group.rank)
            if not known:
                nodes = self._place(group, aside, again=not turn)
                if nodes is not None:
                    return Plan(group, nodes, claim=False)
                if not group.placed:
                    self._failed.add(group.shape)
            if never := self._never(group):
                return NoPlan(group, never, infeasible=True)
            if turn:
                places = self._nodes.places_by(NodeRoom.drained, group.has(), aside)
                packed = pack(group.spec.strategy, group.wanted(), places)
                if isinstance(packed, Packed):
                    return Plan(group, packed.nodes, claim=True)
            if not group.plan.told or group.plan.infeasible_at >= 0:
                group.plan.infeasible_at = -1
                places = self._nodes.places(group.has(), aside)
                reason = why_not_placed(group.spec.strategy, group.wanted(), places, ever=False)
        if turn:
            self._keep(group)
        return NoPlan(group, reason, infeasible=False) if reason else None

    def _place(self, group: Group, aside: Aside, *, again: bool) -> dict[int, ProcessId] | None:
        """Where it fits now: on nodes that have not refused it, or if that is not possible, `again` on those."""
        strategy, wanted, avoid = group.spec.strategy, group.wanted(), group.plan.avoid
        places = self._nodes.places(group.has(), aside)
        if avoid:
            versions = {node.node_id: node.version for node in self._nodes}
            open_places = [place for place in places if avoid.get(place.node_id) != versions[place.node_id]]
            packed = pack(strategy, wanted, open_places) if open_places else NotPacked(proven=False)
            if isinstance(packed, Packed):
                return packed.nodes
            if not again:
                return None
        packed = pack(strategy, wanted, places)
        return packed.nodes if isinstance(packed, Packed) else None

    def _never(self, group: Group) -> str:
        """Why no set of the nodes could ever hold the group (PL-4); empty when one could, or who knows."""
        epoch = self._nodes.epoch
        if group.plan.feasible_at == epoch or not len(self._nodes):
            return ""
        verdict = self._verdict(group)
        if verdict is None:
            places = self._totals(group)
            packed = pack(group.spec.strategy, group.wanted(), places, FEASIBLE_WORK_MAX)
            verdict = ""
            if isinstance(packed, NotPacked) and packed.proven:
                verdict = why_not_placed(group.spec.strategy, group.wanted(), places, ever=True)
            if not group.placed:
                self._verdicts[group.shape] = verdict
        if verdict:
            group.plan.infeasible_at = epoch
        else:
            group.plan.feasible_at = epoch
        return verdict

    def _verdict(self, group: Group) -> str | None:
        """What was found for the shape of the group on the nodes that there are now; None when it was not looked at."""
        if self._judged_at != self._nodes.epoch:
            self._judged_at = self._nodes.epoch
            self._verdicts.clear()
        return None if group.placed else self._verdicts.get(group.shape)

    def _totals(self, group: Group) -> list[Place]:
        """The nodes as they would be if nothing but the group's own bundles were on them."""
        mine: Aside = {}
        for index, place in group.placed.items():
            _add(mine.setdefault(place.node_id, {}), group.spec.bundles[index].resources)
        return self._nodes.places_by(lambda node: node.total, group.has(), mine)

    # -- what is kept for those who have their turn

    def _aside_before(self, rank: Rank) -> Aside:
        """What is kept for those that come before this one."""
        together: Aside = {}
        for other, aside in self._aside.items():
            if other < rank:
                for node_id, amounts in aside.items():
                    _add(together.setdefault(node_id, {}), amounts)
        return together

    def _keep(self, group: Group) -> None:
        """Keep the room that it needs, on the nodes where the least is reserved, the same for all of its turn."""
        target = group.plan.target
        if target is None or any(self._nodes.get(node_id) is None for node_id in target.values()) or target.keys() != group.wanted().keys():
            target = group.plan.target = self._least_reserved(group)
        aside: Aside = {}
        for index, node_id in (target or {}).items():
            _add(aside.setdefault(node_id, {}), group.spec.bundles[index].resources)
        self._aside[group.rank] = aside

    def _least_reserved(self, group: Group) -> dict[int, ProcessId] | None:
        load = {node.node_id: _load(node) for node in self._nodes}
        has = group.has()
        places = sorted(self._totals(group), key=lambda place: (place.node_id not in has, load[place.node_id]))
        count = max(1, len(has))
        while True:
            packed = pack(group.spec.strategy, group.wanted(), places[:count])
            if isinstance(packed, Packed):
                return packed.nodes
            if count >= len(places):
                return None
            count *= 2

    def check(self) -> None:
        """Assert the invariants; for tests."""
        assert self._queue == sorted(self._waiting), "PL-1: the queue and the waiting differ"
        assert all(group.waits() for group in self._waiting.values()), "PL-1: who does not wait is in the queue"
        assert self._aside.keys() <= self._waiting.keys(), "PL-2: room is kept for who does not wait"


def _load(node: NodeRoom) -> float:
    """The largest part of any resource of the node that bundles have."""
    parts = (node.reserved.get(name) / units for name, units in node.total.items() if units)
    return max(parts, default=0.0)


def _add(amounts: dict[str, int], more: Mapping[str, int]) -> None:
    for name, units in more.items():
        amounts[name] = amounts.get(name, 0) + units
