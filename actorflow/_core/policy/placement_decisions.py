"""What the two halves of the placement policy ask of their shells: `PlacementGroups` (head) and `Bundles` (node).

What one half says to the other is here too: the shell only carries it. An attempt is one round of prepare and
commit of one group; its number is in every word about it, in both directions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from actorflow._core.base.ids import GroupId, ProcessId
from actorflow._core.policy.resource_pool import Devices

# head -> node -----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Prepare:
    """Set the resources of these bundles aside, all of them or none, and say Prepared or PrepareRefused.

    `keep_s`: without a Commit in this time they are given back. `commit`: nothing else is waited for, so that
    what is prepared is committed too. `claim`: when there is no room, wait for it instead of refusing, and let
    nobody else have what becomes free. Idempotent.
    """

    node_id: ProcessId
    group_id: GroupId
    attempt: int
    bundles: dict[int, Mapping[str, int]]
    keep_s: float
    commit: bool = False
    claim: bool = False


@dataclass(slots=True)
class Commit:
    """Every node of the attempt has prepared: open the bundles to leases. No answer, or BundlesLost. Idempotent."""

    node_id: ProcessId
    group_id: GroupId
    attempt: int


@dataclass(slots=True)
class Cancel:
    """The attempt is given up: give back what it has here, in whatever state it is. No answer. Idempotent."""

    node_id: ProcessId
    group_id: GroupId
    attempt: int


@dataclass(slots=True)
class Return:
    """The group is removed: end its leases, give everything back up to this attempt, say Returned. Idempotent."""

    node_id: ProcessId
    group_id: GroupId
    attempt: int


# node -> head -----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Prepared:
    """What the attempt asks of this node is set aside."""

    group_id: GroupId
    attempt: int


@dataclass(slots=True)
class PrepareRefused:
    """It is not, for this reason."""

    group_id: GroupId
    attempt: int
    reason: str


@dataclass(slots=True)
class BundlesLost:
    """What the attempt had on this node was given back, without the head having asked for it."""

    group_id: GroupId
    attempt: int
    reason: str


@dataclass(slots=True)
class Returned:
    """Nothing of the group is left here up to this attempt, and none of its leases runs."""

    group_id: GroupId
    attempt: int


@dataclass(slots=True)
class HeldBundles:
    """What a node has of an attempt: said of each when it joins, or joins again."""

    group_id: GroupId
    attempt: int
    indexes: tuple[int, ...]
    committed: bool
    claimed: bool = False
    """It is only waited for: there was no room yet."""


# the shell of the node --------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class BundleLease:
    """A part of a bundle in use. `holder` is the shell's: whose it is. Written by Bundles only."""

    group_id: GroupId
    attempt: int
    index: int
    demand: Mapping[str, int]
    devices: Devices
    holder: object
    lent: bool = False
    """Its CPU is lent to others of its bundle."""
    ended: bool = False


@dataclass(slots=True)
class KillLease:
    """Its bundle is to be returned: end the worker, then `give` the lease."""

    lease: BundleLease
    reason: str
    removed: bool = False
    """The group is no more: nothing of it will ever run again."""


# the shell of the head --------------------------------------------------------------------------------------


@dataclass(slots=True)
class Answer:
    """Tell the process that wanted the group: it is there, or why it never will be."""

    to: ProcessId
    group_id: GroupId
    error: str = ""


@dataclass(slots=True)
class Ready:
    """Every bundle is committed: on these nodes, in the order of the bundles."""

    watchers: tuple[ProcessId, ...]
    group_id: GroupId
    nodes: tuple[ProcessId, ...]
    attempts: tuple[int, ...]
    """The attempt that each bundle was committed by: larger than before where the bundle has moved."""


@dataclass(slots=True)
class Waiting:
    """It has no place at the moment, and why. `infeasible`: nor ever, on the nodes that there are now."""

    watchers: tuple[ProcessId, ...]
    group_id: GroupId
    reason: str
    infeasible: bool


@dataclass(slots=True)
class Rescheduling:
    """These bundles are gone and get another place; the others are where they were."""

    watchers: tuple[ProcessId, ...]
    group_id: GroupId
    lost: tuple[int, ...]
    reason: str


@dataclass(slots=True)
class Removed:
    """The group is no more, and never comes back."""

    watchers: tuple[ProcessId, ...]
    group_id: GroupId
    reason: str


ToNode = Prepare | Commit | Cancel | Return
ToHead = Prepared | PrepareRefused | BundlesLost | Returned
NodeDecision = ToHead | KillLease
Decision = ToNode | Answer | Ready | Waiting | Rescheduling | Removed
