"""What is asked when a node is chosen for a piece of work, and what the answers are. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from actorflow._core.base.ids import ProcessId
from actorflow._core.policy.label_selectors import Selector
from actorflow._core.policy.node_index import is_accelerator

ANY_NODE = (Selector(),)


class Strategy(Enum):
    """How to choose among nodes that have room."""

    DEFAULT = "default"
    """Fill nodes to the half, one after the other and the near one first; then the least used."""
    SPREAD = "spread"
    """Each node in its turn."""


@dataclass(frozen=True, slots=True)
class NodeAffinity:
    """On this node; `soft`: or elsewhere, when it is gone or could never hold the work."""

    node_id: ProcessId
    soft: bool = False


class WorkClass:
    """What many pieces of work have in common: made once, and then as cheap to pass as any key.

    `selectors` are tried in their order: the label selector, then its fallbacks. Equal classes are equal keys.
    """

    __slots__ = ("_hash", "_key", "demand", "needs_accelerator", "resources", "selectors", "strategy")

    def __init__(
        self,
        resources: Mapping[str, int],
        *,
        selectors: Sequence[Selector] = ANY_NODE,
        strategy: Strategy | NodeAffinity = Strategy.DEFAULT,
    ) -> None:
        self.resources = {name: units for name, units in resources.items() if units}
        assert all(units > 0 for units in self.resources.values()), f"a demand is positive: {resources}"
        self.demand = tuple(sorted(self.resources.items()))
        self.selectors = tuple(selectors) or ANY_NODE
        self.strategy = strategy
        self.needs_accelerator = any(map(is_accelerator, self.resources))
        self._key = (self.demand, self.selectors, strategy)
        self._hash = hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, WorkClass) and self._key == other._key

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return f"WorkClass({self.resources}, {' or '.join(map(str, self.selectors)) or 'any node'}, {self.strategy})"


@dataclass(slots=True)
class Request:
    """One piece of work that needs a node."""

    work: WorkClass
    local: ProcessId = ""
    """The node of whoever asks, if that is on one."""
    locality: Mapping[ProcessId, int] = field(default_factory=dict)
    """How many bytes of its arguments lie on each node."""
    excluded: Collection[ProcessId] = ()
    """Nodes that have sent it on already: they knew better than the view."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """This node, which has room as far as known."""

    node_id: ProcessId


@dataclass(frozen=True, slots=True)
class Queued:
    """No node has room now. Wait at this one; None: there is no node at all, wait for one to join."""

    node_id: ProcessId | None
    reason: str


@dataclass(frozen=True, slots=True)
class Infeasible:
    """No node that is there can ever hold it. `nearest` almost does, and lacks `missing`."""

    reason: str
    nearest: ProcessId | None = None
    missing: Mapping[str, int] = field(default_factory=dict)


Decision: TypeAlias = Chosen | Queued | Infeasible
