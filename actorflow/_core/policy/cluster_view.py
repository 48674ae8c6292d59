"""What one who sends work to nodes believes of them. Pure: `now` is seconds on a monotonic clock.

A view is made of reports, which come late, and of what was sent since. What was just sent to a node is debited there
at once, so that a burst of requests does not all go to the one node that seemed free. The debit is tentative: the
node's own report takes its place.

CV-1: an amount that is available is never negative, and never above the total.
CV-2: what is available is what was last reported less the open debits, as far as CV-1 lets it.
CV-3: an older report never takes the place of a newer one.
CV-4: a debit is settled once: by a report that came `settle_s` after it or later, after `debit_s`, by whoever made it,
      or with its node. There are `debits_max` open ones at most.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, ValuesView

from actorflow._core.base.ids import ProcessId
from actorflow._core.policy.node_index import NodeIndex
from actorflow._core.policy.node_records import Debit, NodeRecord, NodeReport

SETTLE_S = 0.05
"""A report that comes sooner after a debit was on its way already, and does not know of what was sent."""
DEBIT_S = 1.0
"""What was sent has arrived or is lost by then, and a node whose amounts did not change reports nothing."""
DEBITS_MAX = 100_000


class ClusterView:
    """The nodes that are known, and an index of them."""

    __slots__ = ("_debits", "_nodes", "debit_s", "debits_max", "index", "settle_s", "version")

    def __init__(self, *, settle_s: float = SETTLE_S, debit_s: float = DEBIT_S, debits_max: int = DEBITS_MAX) -> None:
        self.settle_s = settle_s
        self.debit_s = debit_s
        self.debits_max = debits_max
        self.index = NodeIndex()
        self.version = 0
        """Grows whenever the set of the nodes that could hold some work may have changed: not with what is available."""
        self._nodes: dict[ProcessId, NodeRecord] = {}
        self._debits: deque[Debit] = deque()
        """All debits in the order they were made; the settled ones leave with those before them."""

    def __len__(self) -> int:
        return len(self._nodes)

    def nodes(self) -> ValuesView[NodeRecord]:
        """The nodes, in the order they joined."""
        return self._nodes.values()

    def get(self, node_id: ProcessId) -> NodeRecord | None:
        """The node of this id, if it is known."""
        return self._nodes.get(node_id)

    def update(self, report: NodeReport, now: float) -> bool:
        """A node has said what it is and has. False when it had said something newer before.

        A report of a node that was removed makes it known again: whoever feeds the view keeps those out that are fenced.
        """
        node = self._nodes.get(report.node_id)
        if node is None:
            node = self._nodes[report.node_id] = NodeRecord(report, self.index.join(report.node_id))
            self.index.put(node)
            self.version += 1
            return True
        known = node.report
        if report.version <= known.version:
            return False
        while node.debits and (not node.debits[0].open or node.debits[0].at <= now - self.settle_s):
            _close(node, node.debits.popleft())
        moods = report.draining, report.apart
        if report.total != known.total or report.labels != known.labels or moods != (known.draining, known.apart):
            self.index.drop(node)
            node.read(report)
            self.index.put(node)
            self.version += 1
        else:
            node.report = report
            self._refresh(node, node.total)
        return True

    def remove(self, node_id: ProcessId) -> bool:
        """A node is gone, and what was sent there with it. False when it was not known."""
        node = self._nodes.pop(node_id, None)
        if node is None:
            return False
        for debit in node.debits:
            debit.open = False
        self.index.drop(node)
        self.index.leave(node_id)
        self.version += 1
        return True

    def debit(self, node_id: ProcessId, resources: Mapping[str, int], now: float) -> Debit | None:
        """Work that needs `resources` was sent to a node just now. None when the node is not known."""
        node = self._nodes.get(node_id)
        if node is None:
            return None
        debit = Debit(node_id, resources, now)
        node.debits.append(debit)
        for name, units in resources.items():
            node.debited[name] = node.debited.get(name, 0) + units
        self._refresh(node, resources)
        self._debits.append(debit)
        while len(self._debits) > self.debits_max:
            self.settle(self._debits.popleft())
        return debit

    def settle(self, debit: Debit) -> None:
        """What was sent is not on its way any more: the node has sent it on, or refused it. Idempotent."""
        if debit.open:
            node = self._nodes[debit.node_id]
            _close(node, debit)
            while node.debits and not node.debits[0].open:
                node.debits.popleft()
            self._refresh(node, debit.resources)

    def expire(self, now: float) -> None:
        """Settle the debits that no report has settled for `debit_s`."""
        debits, made_by = self._debits, now - self.debit_s
        while debits and (not debits[0].open or debits[0].at <= made_by):
            self.settle(debits.popleft())

    def check(self) -> None:
        """Assert the invariants; for tests."""
        opened: dict[ProcessId, list[Debit]] = {}
        for debit in self._debits:
            if debit.open:
                opened.setdefault(debit.node_id, []).append(debit)
        assert opened.keys() <= self._nodes.keys(), "CV-4: the debits of a node leave with it"
        assert len(self._debits) <= self.debits_max, "CV-4"
        for node in self._nodes.values():
            debits = opened.get(node.node_id, [])
            assert [debit for debit in node.debits if debit.open] == debits, "CV-4: the debits of each node are those of all"
            for name, total in node.total.items():
                debited = sum(debit.resources.get(name, 0) for debit in debits)
                assert node.debited.get(name, 0) == debited, f"CV-2: debits of {name} on {node.node_id}"
                available = node.available[name]
                assert 0 <= available <= total, f"CV-1: {name} on {node.node_id}"
                reported = min(node.report.available.get(name, 0), total)
                assert available == max(0, reported - debited), f"CV-2: {name} on {node.node_id}"
        self.index.check(self._nodes.values())

    def _refresh(self, node: NodeRecord, names: Mapping[str, int]) -> None:
        available = node.available
        for name in names:
            before = available.get(name)
            if before is not None and (after := node.free(name)) != before:
                available[name] = after
                self.index.move(node.slot, name, node.total[name], before, after)


def _close(node: NodeRecord, debit: Debit) -> None:
    if debit.open:
        debit.open = False
        for name, units in debit.resources.items():
            node.debited[name] -= units
