"""An index of the nodes, so that a choice among thousands looks at none of them. Pure.

A set of nodes is one integer, with a bit for each slot; a node has a slot from joining to leaving. "Which nodes have
3 CPUs free and are less than half used" is then a few operations on integers of some hundred bytes, each a tenth of
a microsecond for 2,000 nodes, where a loop over the nodes would take half a millisecond.

Amounts are kept in bit slices: slice b of a resource is the set of the nodes whose amount has bit b. A comparison of
one amount with those of all nodes goes down the slices once, and a changed amount flips one bit in some of them. There
is nothing to prepare for a demand, so one that comes for the first time is as quick as one that came a million times.

NX-1: every mask says of every slot what the node in it last said; the bits of empty slots are 0.
NX-2: an amount is between 0 and its total.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from heapq import heappop, heappush

from actorflow._core.base.ids import ProcessId
from actorflow._core.base.resources import GPU
from actorflow._core.policy.label_selectors import NODE_ID_LABEL, Condition, Selector
from actorflow._core.policy.node_records import ACCELERATOR_PREFIX, NodeRecord

LEVELS = 32
"""Utilisation is compared in steps of 1/32: finer differences are gone before the work arrives."""
PACKED_BELOW = LEVELS // 2
"""Nodes that are less than half used are filled one after the other. Precedent: Ray's spread threshold."""


def is_accelerator(name: str) -> bool:
    """True for the resources whose nodes are kept free for the work that needs them."""
    return name == GPU or name.startswith(ACCELERATOR_PREFIX)


class Column:
    """One resource over all nodes that have it."""

    __slots__ = ("available", "levels", "low", "nodes", "total")

    def __init__(self) -> None:
        self.nodes = 0
        """How many nodes have it."""
        self.total: list[int] = []
        self.available: list[int] = []
        self.levels = [0] * (LEVELS + 1)
        """Which nodes are used to this level; the last one: to the full."""
        self.low = 0
        """Which nodes are at a level below PACKED_BELOW."""

    def content(self) -> tuple[object, ...]:
        """Everything in it, comparable: slices that came to be for larger amounts than there are now do not count."""
        filled = [{at: mask for at, mask in enumerate(slices) if mask} for slices in (self.total, self.available)]
        return (self.nodes, filled, self.levels, self.low)


class NodeIndex:
    """Masks of nodes by what they have, have free, and are called."""

    __slots__ = ("_free", "accelerated", "columns", "draining", "ids", "known", "labels", "slots")

    def __init__(self) -> None:
        self.ids: list[ProcessId] = []
        """The node in each slot, empty text for none."""
        self.slots: dict[ProcessId, int] = {}
        self.known = 0
        self.draining = 0
        self.accelerated = 0
        self.columns: dict[str, Column] = {}
        self.labels: dict[tuple[str, str], int] = {}
        self._free: list[int] = []

    # -- writing

    def join(self, node_id: ProcessId) -> int:
        """Give a node the lowest slot that is empty."""
        if self._free:
            slot = heappop(self._free)
            self.ids[slot] = node_id
        else:
            slot = len(self.ids)
            self.ids.append(node_id)
        self.slots[node_id] = slot
        self.known |= 1 << slot
        return slot

    def leave(self, node_id: ProcessId) -> None:
        """Empty the slot of a node that was dropped before."""
        slot = self.slots.pop(node_id)
        self.ids[slot] = ""
        self.known ^= 1 << slot
        heappush(self._free, slot)

    def put(self, node: NodeRecord) -> None:
        """Enter what a node has and is called."""
        self._flip(node, 1)

    def drop(self, node: NodeRecord) -> None:
        """Take out what `put` has entered, and `move` has changed since."""
        self._flip(node, -1)

    def _flip(self, node: NodeRecord, nodes: int) -> None:
        bit = 1 << node.slot
        for name, units in node.total.items():
            column = self.columns.get(name)
            if column is None:
                column = self.columns[name] = Column()
            column.nodes += nodes
            if not column.nodes:
                del self.columns[name]  # what no node has any more is forgotten
                continue
            available = node.available[name]
            _flip_amount(column.total, units, bit)
            _flip_amount(column.available, available, bit)
            level = level_of(units, available)
            column.levels[level] ^= bit
            if level < PACKED_BELOW:
                column.low ^= bit
        for pair in node.labels.items():
            if pair[0] != NODE_ID_LABEL:  # would be a mask of one bit for each node: n*n bits in all
                self._flip_label(pair, bit)
        if node.draining:
            self.draining ^= bit
        if any(map(is_accelerator, node.total)):
            self.accelerated ^= bit

    def _flip_label(self, pair: tuple[str, str], bit: int) -> None:
        mask = self.labels.get(pair, 0) ^ bit
        if mask:
            self.labels[pair] = mask
        else:
            del self.labels[pair]

    def move(self, slot: int, name: str, total: int, before: int, after: int) -> None:
        """The free amount of a resource of a node has changed."""
        column, bit = self.columns[name], 1 << slot
        _flip_amount(column.available, before ^ after, bit)
        was, level = level_of(total, before), level_of(total, after)
        if was != level:
            column.levels[was] ^= bit
            column.levels[level] ^= bit
            if (was < PACKED_BELOW) != (level < PACKED_BELOW):
                column.low ^= bit

    # -- asking

    def holding(self, demand: Iterable[tuple[str, int]], among: int) -> int:
        """Which of `among` have totals that hold the demand."""
        for name, units in demand:
            column = self.columns.get(name)
            among = at_least(column.total, units, among) if column is not None and among else 0
        return among

    def with_room(self, demand: Iterable[tuple[str, int]], among: int) -> int:
        """Which of `among` have the demand free."""
        for name, units in demand:
            column = self.columns.get(name)
            among = at_least(column.available, units, among) if column is not None and among else 0
        return among

    def matching(self, selector: Selector, among: int) -> int:
        """Which of `among` have the labels that a selector wants."""
        for condition in selector.conditions:
            having = self._having(condition)
            among &= ~having if condition.negated else having
        return among

    def _having(self, condition: Condition) -> int:
        having = 0
        for value in condition.values:
            if condition.key == NODE_ID_LABEL:
                slot = self.slots.get(value)
                having |= 1 << slot if slot is not None else 0
            else:
                having |= self.labels.get((condition.key, value), 0)
        return having

    def check(self, nodes: Iterable[NodeRecord]) -> None:
        """Assert the invariants against these records; for tests."""
        again = NodeIndex()
        again.ids, again.slots, again._free = list(self.ids), dict(self.slots), list(self._free)
        for node in nodes:
            assert self.ids[node.slot] == node.node_id, f"NX-1: slot {node.slot} is that of {node.node_id}"
            for name, units in node.total.items():
                assert 0 <= node.available[name] <= units, f"NX-2: {node.node_id} has {node.available[name]} of {units} {name}"
            again.known |= 1 << node.slot
            again.put(node)
        for attribute in ("known", "draining", "accelerated", "labels"):
            assert getattr(self, attribute) == getattr(again, attribute), f"NX-1: {attribute}"
        assert self.columns.keys() == again.columns.keys(), "NX-1: the names of the resources"
        for name, column in self.columns.items():
            assert column.content() == again.columns[name].content(), f"NX-1: {name}"

    def mask_of(self, node_ids: Iterable[ProcessId]) -> int:
        """The nodes of these ids, as far as they are known."""
        mask = 0
        for node_id in node_ids:
            slot = self.slots.get(node_id)
            if slot is not None:
                mask |= 1 << slot
        return mask


def level_of(total: int, available: int) -> int:
    """How much of a resource is used, 0 to LEVELS. Of nothing, nothing is."""
    return (total - available) * LEVELS // total if total else 0


def at_least(slices: Sequence[int], units: int, among: int) -> int:
    """Which of `among` have an amount of `units` or more."""
    if units >> len(slices):
        return 0
    more, equal = 0, among
    # Below the last bit of `units` that is set, whoever is equal so far has enough.
    for position in range(len(slices) - 1, (units & -units).bit_length() - 2, -1):
        if units >> position & 1:
            equal &= slices[position]
            if not equal:
                break
        else:
            more |= equal & slices[position]  # they may stay among the equal: enough is enough
    return more | equal


def least_used(columns: Sequence[Column], room: int, start: int, count: int) -> tuple[int, int]:
    """Of `room`, the nodes at the lowest level, and all up to the level at which there are `count`.

    The level of a node is the highest of its levels in `columns`. No node may be below the level `start`, which is 0
    or PACKED_BELOW.
    """
    reached = [column.low if start else 0 for column in columns]
    best = found = 0
    for level in range(start, LEVELS + 1):
        found = room
        for number, column in enumerate(columns):
            reached[number] |= column.levels[level]
            found &= reached[number]
        best = best or found
        if found.bit_count() >= count:
            break
    return best, found


def first_slot(mask: int) -> int:
    """The lowest slot of a set that is not empty."""
    return (mask & -mask).bit_length() - 1


def nth_slot(mask: int, number: int) -> int:
    """The slot that has `number` slots of the set below it: halves the set until one is left."""
    base, width = 0, mask.bit_length()
    while width > 1:
        half = width >> 1
        low = mask & ((1 << half) - 1)
        count = low.bit_count()
        if number < count:
            mask, width = low, half
        else:
            number -= count
            mask >>= half
            base += half
            width -= half
    return base


def _flip_amount(slices: list[int], bits: int, bit: int) -> None:
    """Flip one node's bit in the slices that `bits` names."""
    while len(slices) < bits.bit_length():
        slices.append(0)
    while bits:
        lowest = bits & -bits
        slices[lowest.bit_length() - 1] ^= bit
        bits ^= lowest
