"""What one who chooses among nodes knows of each: its last report, and what was sent there since. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from actorflow._core.base.ids import ProcessId
from actorflow._core.base.resources import CPU
from actorflow._core.policy.label_selectors import ACCELERATOR_LABEL, NODE_ID_LABEL

ACCELERATOR_PREFIX = "accelerator_type:"
"""A node offers one of the resource `accelerator_type:A100` when it has such devices; `accelerator_type=` takes a bit of it."""


@dataclass(slots=True)
class NodeReport:
    """What a node says of itself. Amounts in units; what is available may be a debt (SEMANTICS 24)."""

    node_id: ProcessId
    version: int
    """Grows with each report of one life of a node."""
    total: Mapping[str, int]
    available: Mapping[str, int]
    labels: Mapping[str, str] = field(default_factory=dict)
    draining: bool = False
    """It finishes what it has, and takes nothing new."""
    apart: bool = False
    """It cannot be told anything at the moment."""


class Debit:
    """What was sent to a node that has not reported it yet. `open` until a report or time settles it."""

    __slots__ = ("at", "node_id", "open", "resources")

    def __init__(self, node_id: ProcessId, resources: Mapping[str, int], at: float) -> None:
        self.node_id = node_id
        self.resources = resources
        self.at = at
        self.open = True


class NodeRecord:
    """One node. Written by ClusterView only."""

    __slots__ = ("available", "debited", "debits", "labels", "node_id", "report", "slot", "total")

    def __init__(self, report: NodeReport, slot: int) -> None:
        self.node_id = report.node_id
        self.slot = slot
        """Its place in the index, and in the order in which nodes are packed."""
        self.report = report
        self.total: dict[str, int] = {}
        self.available: dict[str, int] = {}
        """What was reported less what was debited, of the names in `total`."""
        self.labels: dict[str, str] = {}
        """With those that nobody has to write."""
        self.debits: deque[Debit] = deque()
        self.debited: dict[str, int] = {}
        """The sums of the open debits."""
        self.read(report)

    @property
    def draining(self) -> bool:
        """It takes nothing new."""
        return self.report.draining or self.report.apart

    def read(self, report: NodeReport) -> None:
        """Take over a report as a whole."""
        self.report = report
        # Every node has CPU, if none of it: the CPU is the measure for work that asks for nothing.
        self.total = {CPU: 0} | {name: units for name, units in report.total.items() if units}
        self.available = {name: self.free(name) for name in self.total}
        self.labels = implicit_labels(report.node_id, report.total) | dict(report.labels)

    def free(self, name: str) -> int:
        """What is free of a resource, as far as known: never a debt, and never more than there is."""
        reported = min(self.report.available.get(name, 0), self.total[name])
        return max(0, reported - self.debited.get(name, 0))

    def has_room(self, demand: Mapping[str, int]) -> bool:
        """True when the demand is free, as far as known."""
        for name, units in demand.items():  # noqa: SIM110 - a generator costs twice as much here
            if units > self.available.get(name, 0):
                return False
        return True


def implicit_labels(node_id: ProcessId, total: Mapping[str, int]) -> dict[str, str]:
    """The labels that every node has without anyone's writing them. Of several kinds of accelerators the first is named."""
    labels = {NODE_ID_LABEL: node_id}
    kinds = sorted(name for name, units in total.items() if units and name.startswith(ACCELERATOR_PREFIX))
    if kinds:
        labels[ACCELERATOR_LABEL] = kinds[0].removeprefix(ACCELERATOR_PREFIX)
    return labels
