"""Which node gets a piece of work, when there are many. Pure: `now` is an argument, and so is every throw of dice.

The default strategy packs first and spreads then, as Ray does. A node that holds much of what the work needs to read
wins when it has room. Else nodes that are less than half used are filled one after the other, beginning with the near
one; when there is none, the work goes to one of the least used, drawn by chance from a fifth of them, so that many who
choose at one time do not choose the same. Work that asks for nothing would be packed without end and is drawn at once.
Nodes with accelerators are kept for those who need them while another has room.

The utilisation of a node is that of the resource asked for of which most is used there.

CH-1: a chosen node is known, drains not, was not excluded, has the labels of one selector, and its totals and all that
      is known to be available hold what was asked.
CH-2: nothing decides but the calls so far, their arguments and `rng`: the same calls and seed make the same choices.
CH-3: work is queued only when no node that CH-1 allows has room, and at a node that could hold it; it is infeasible
      only when there are nodes, and none that stays could hold it.
CH-4: an earlier selector wins over a later one: with room over all with room, else as the place to wait.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Protocol

from actorflow._core.base.ids import ProcessId
from actorflow._core.base.resources import CPU
from actorflow._core.policy.cluster_view import ClusterView
from actorflow._core.policy.locality import LOCALITY_BYTES_MIN
from actorflow._core.policy.nearest_node import explain_infeasible, explain_node
from actorflow._core.policy.node_index import PACKED_BELOW, Column, first_slot, least_used, nth_slot
from actorflow._core.policy.node_records import NodeRecord
from actorflow._core.policy.work_class import (
    Chosen,
    Decision,
    Infeasible,
    NodeAffinity,
    Queued,
    Request,
    Strategy,
    WorkClass,
)

DRAWN_SHARE = 5
"""The least used fifth of the nodes that could hold the work take part in a draw, one at least. Precedent: Ray."""
CLASSES_MAX = 1_000
"""Of how many classes of work the candidates are remembered. A forgotten class costs some microseconds more."""


class Dice(Protocol):
    """The part of `random.Random` that is used here."""

    def randrange(self, stop: int, /) -> int:
        """A number from 0 to below `stop`."""


class _Candidates:
    """Which nodes could hold the work of one class: for as long as the view has the same version."""

    __slots__ = ("columns", "cursor", "infeasible", "masks", "version")

    def __init__(self) -> None:
        self.version = -1
        self.masks: Sequence[int] = ()
        """For each selector, who could hold the work when idle and is not draining."""
        self.columns: Sequence[Column] = ()
        """The resources whose utilisation counts."""
        self.cursor: int | None = None
        """For the spread strategy: the slot whose turn it is, the first one drawn."""
        self.infeasible: Infeasible | None = None


class Scheduler:
    """Chooses nodes of a view. Whoever sends the work there debits it: `view.debit(chosen.node_id, ...)`."""

    __slots__ = ("_classes", "classes_max", "view")

    def __init__(self, view: ClusterView, *, classes_max: int = CLASSES_MAX) -> None:
        self.view = view
        self.classes_max = classes_max
        self._classes: OrderedDict[WorkClass, _Candidates] = OrderedDict()

    def choose(self, request: Request, now: float, rng: Dice) -> Decision:
        """Choose a node for one piece of work, or say where it waits, or why it can never be done."""
        self.view.expire(now)
        candidates = self._candidates(request.work)
        affinity = request.work.strategy
        if isinstance(affinity, NodeAffinity):
            decision = self._on_one_node(affinity, candidates, request)
            if decision is not None:
                return decision
        return self._on_any_node(candidates, request, rng)

    def check(self) -> None:
        """Assert the invariants of the view, and that what is remembered of a class is still so; for tests."""
        self.view.check()
        assert len(self._classes) <= self.classes_max, "CH-2: classes are forgotten"
        for work, candidates in self._classes.items():
            if candidates.version != self.view.version:
                continue
            for selector, mask in zip(work.selectors, candidates.masks, strict=True):
                for node in self.view.nodes():
                    holds = selector.holds(node.labels) and all(u <= node.total.get(n, 0) for n, u in work.demand)
                    assert bool(mask >> node.slot & 1) == (holds and not node.draining), f"CH-1: {node.node_id} for {work}"
            assert (candidates.infeasible is None) or not any(candidates.masks), f"CH-3: {work}"

    # -- the nodes in question

    def _candidates(self, work: WorkClass) -> _Candidates:
        candidates = self._classes.get(work)
        if candidates is None:
            candidates = self._classes[work] = _Candidates()
            if len(self._classes) > self.classes_max:
                self._classes.popitem(last=False)
        else:
            self._classes.move_to_end(work)
        if candidates.version != self.view.version:
            candidates.version = self.view.version
            index = self.view.index
            holding = index.holding(work.demand, index.known & ~index.draining)
            candidates.masks = [index.matching(selector, holding) for selector in work.selectors]
            names = [name for name, _ in work.demand] or [CPU]
            candidates.columns = [index.columns[name] for name in names if name in index.columns]
            candidates.infeasible = None
        return candidates

    # -- choosing

    def _on_one_node(self, affinity: NodeAffinity, candidates: _Candidates, request: Request) -> Decision | None:
        """None: elsewhere."""
        node = self.view.get(affinity.node_id)
        if node is not None and any(mask >> node.slot & 1 for mask in candidates.masks):
            if node.node_id not in request.excluded and node.has_room(request.work.resources):
                return Chosen(node.node_id)
            return Queued(node.node_id, f"it asks for node {node.node_id}, which has no room now")
        if affinity.soft:
            return None
        if node is None:
            return Infeasible(f"it asks for node {affinity.node_id} only, which is not in the cluster or not any more")
        return explain_node(request.work, node)

    def _on_any_node(self, candidates: _Candidates, request: Request, rng: Dice) -> Decision:
        index, work = self.view.index, request.work
        excluded = index.mask_of(request.excluded) if request.excluded else 0
        for mask in candidates.masks:
            room = index.with_room(work.demand, mask & ~excluded if excluded else mask)
            if room:
                share = max(1, mask.bit_count() // DRAWN_SHARE)
                if work.strategy is Strategy.SPREAD:
                    slot = _turn(candidates, room, rng)
                else:
                    slot = self._packed_or_least_used(candidates, request, room, share, rng)
                return Chosen(index.ids[slot])
        for mask in candidates.masks:
            if mask:
                return self._wait(candidates, request, mask, excluded, rng)
        if not index.known:
            return Queued(None, "the cluster has no node at the moment")
        if candidates.infeasible is None:
            candidates.infeasible = explain_infeasible(work, self.view.nodes())
        return candidates.infeasible

    def _packed_or_least_used(self, candidates: _Candidates, request: Request, room: int, share: int, rng: Dice) -> int:
        index, work = self.view.index, request.work
        if request.locality and (slot := self._holder(request.locality, request.local, room)) is not None:
            return slot
        if not work.needs_accelerator:
            room = room & ~index.accelerated or room
        if not work.demand:
            _, found = least_used(candidates.columns, room, 0, share)
            return nth_slot(found, rng.randrange(found.bit_count()))
        local = index.slots.get(request.local)
        low = room
        for column in candidates.columns:
            low &= column.low
        if low:
            return local if local is not None and low >> local & 1 else first_slot(low)
        best, found = least_used(candidates.columns, room, PACKED_BELOW, share)
        if local is not None and best >> local & 1:
            return local  # as good as any, and near
        return nth_slot(found, rng.randrange(found.bit_count()))

    def _holder(self, locality: Mapping[ProcessId, int], local: ProcessId, room: int) -> int | None:
        """The slot of the node that has room and most of the arguments; of two with equally much the near one."""
        slots, best = self.view.index.slots, None
        for node_id, size in locality.items():
            slot = slots.get(node_id)
            if size >= LOCALITY_BYTES_MIN and slot is not None and room >> slot & 1:
                rank = (-size, node_id != local, slot)
                best = rank if best is None or rank < best else best
        return best[2] if best is not None else None

    def _wait(self, candidates: _Candidates, request: Request, mask: int, excluded: int, rng: Dice) -> Queued:
        """Where to wait: at the near node when it could hold the work, else at one of the least used that could."""
        index, work = self.view.index, request.work
        count = mask.bit_count()
        reason = f"of the {count} nodes that could hold it none has room now"
        mask = mask & ~excluded or mask
        if work.strategy is Strategy.SPREAD:
            return Queued(index.ids[_turn(candidates, mask, rng)], reason)
        if not work.needs_accelerator:
            mask = mask & ~index.accelerated or mask
        local = index.slots.get(request.local)
        if local is not None and mask >> local & 1:
            return Queued(request.local, reason)
        _, found = least_used(candidates.columns, mask, 0, max(1, count // DRAWN_SHARE))
        return Queued(index.ids[nth_slot(found, rng.randrange(found.bit_count()))], reason)


def could_hold(work: WorkClass, node: NodeRecord) -> bool:
    """True when an idle node of these totals and labels could run it."""
    if isinstance(work.strategy, NodeAffinity) and work.strategy.node_id != node.node_id and not work.strategy.soft:
        return False
    fits = all(units <= node.total.get(name, 0) for name, units in work.demand)
    return fits and any(selector.holds(node.labels) for selector in work.selectors)


def _turn(candidates: _Candidates, among: int, rng: Dice) -> int:
    """The next slot of the set, round and round."""
    cursor = candidates.cursor
    if cursor is None:
        cursor = rng.randrange(among.bit_length())  # many who begin at one time begin at different nodes
    ahead = among >> cursor
    slot = cursor + first_slot(ahead) if ahead else first_slot(among)
    candidates.cursor = slot + 1
    return slot
