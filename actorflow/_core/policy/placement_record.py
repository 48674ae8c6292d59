"""One placement group: what was asked, its states in one table, where its bundles are, and its story."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

from actorflow._core.base.errors import InternalError
from actorflow._core.base.ids import ActorId, GroupId, ProcessId
from actorflow._core.policy.bundle_packing import BundleSpec, Strategy
from actorflow._core.policy.graveyard import Story, tell_story

STORY_EVENTS_MAX = 32
DETAIL_CHARS_MAX = 200


class State(Enum):
    """Where a placement group is in its life."""

    PENDING = "pending"
    PREPARING = "preparing"
    CREATED = "created"
    RESCHEDULING = "rescheduling"
    REMOVED = "removed"


class Event(Enum):
    """What moves a group, when all that decides about it (fencing, room) has been looked at."""

    ATTEMPTED = auto()
    ATTEMPT_FAILED = auto()
    COMMITTED = auto()
    BUNDLES_LOST = auto()
    REMOVED = auto()


NEXT: dict[tuple[State, Event], State] = {
    (State.PENDING, Event.ATTEMPTED): State.PREPARING,
    (State.PREPARING, Event.ATTEMPT_FAILED): State.PENDING,
    (State.PREPARING, Event.COMMITTED): State.CREATED,
    (State.CREATED, Event.BUNDLES_LOST): State.RESCHEDULING,
    # What is left of the group stays committed while the rest gets another place, as often as it takes.
    (State.RESCHEDULING, Event.ATTEMPTED): State.RESCHEDULING,
    (State.RESCHEDULING, Event.ATTEMPT_FAILED): State.RESCHEDULING,
    (State.RESCHEDULING, Event.BUNDLES_LOST): State.RESCHEDULING,
    (State.RESCHEDULING, Event.COMMITTED): State.CREATED,
    **{(state, Event.REMOVED): State.REMOVED for state in State if state is not State.REMOVED},
}
"""All there is. Nothing leaves REMOVED: what comes too late is fenced off before it gets here."""

_WORDS = {
    Event.ATTEMPTED: "prepared on",
    Event.ATTEMPT_FAILED: "not prepared:",
    Event.COMMITTED: "committed",
    Event.BUNDLES_LOST: "bundles lost:",
    Event.REMOVED: "removed:",
}


@dataclass(frozen=True, slots=True)
class GroupSpec:
    """What was asked for.

    `creator`: the actor that created the group and whose life it shares; empty when a driver or a task did, and
    then it shares the life of its job. A detached group outlives both.
    """

    group_id: GroupId
    job_id: str
    strategy: Strategy
    bundles: tuple[BundleSpec, ...]
    name: str = ""
    namespace: str = "default"
    detached: bool = False
    creator: ActorId = ""
    priority: int = 0


@dataclass(slots=True)
class Placed:
    """Where a bundle is, and the attempt that brought it there."""

    node_id: ProcessId
    attempt: int


@dataclass(slots=True)
class Attempt:
    """One round of prepare and commit that is under way."""

    number: int
    bundles: dict[ProcessId, dict[int, Mapping[str, int]]]
    """What each node is asked for."""
    waiting: set[ProcessId]
    """Nodes that have not answered."""
    timeout_s: float
    keep_s: float
    claim: bool

    @property
    def commit(self) -> bool:
        """One node is all there is: it commits what it prepares, and a round trip is saved."""
        return len(self.bundles) == 1


@dataclass(slots=True)
class RemovedGroup:
    """What is remembered of a group that is no more."""

    spec: GroupSpec | None
    reason: str
    created_at: float
    removed_at: float
    story: Story = field(default_factory=list)


Rank = tuple[int, int]
"""-priority, number: groups are tried in this order."""

Shape = tuple[object, ...]


class Group:
    """What the head knows of one group that is not removed. Written by PlacementGroups only, `plan` by the Planner."""

    __slots__ = (
        "attempt", "created_at", "failures", "inflight", "not_before", "placed", "plan", "rank", "ready_at", "reason",
        "shape", "spec", "state", "story", "waiting_since", "watchers",
    )  # fmt: skip

    def __init__(self, spec: GroupSpec, number: int, now: float) -> None:
        self.spec = spec
        self.state = State.PENDING
        self.rank: Rank = (-spec.priority, number)
        self.shape: Shape = (
            spec.strategy,
            *((tuple(bundle.resources.items()), tuple(bundle.labels.items())) for bundle in spec.bundles),
        )
        """Groups of one shape fit or do not fit alike."""
        self.attempt = 0
        """The number of the newest attempt; attempts begin at 1."""
        self.inflight: Attempt | None = None
        self.placed: dict[int, Placed] = {}
        """The bundles that are committed, by index."""
        self.failures = 0
        """Attempts that failed since it was last complete: sets the delay of the next."""
        self.not_before = 0.0
        self.waiting_since = now
        self.reason = ""
        """Why it waits; empty when it does not, or was not tried yet."""
        self.plan = Planning()
        self.watchers: tuple[ProcessId, ...] = ()
        self.created_at = now
        self.ready_at: float | None = None
        self.story: Story = [(now, "created by job", spec.job_id)]

    def __repr__(self) -> str:
        return f"Group({self.spec.group_id} {self.spec.strategy.value} of {len(self.spec.bundles)}, {self.state.value})"

    def move(self, event: Event, now: float, detail: str) -> None:
        """Take one step in the table. A pair that is not in it is our bug, and its error tells the story."""
        following = NEXT.get((self.state, event))
        if following is None:
            told = "\n  ".join(tell_story(self.story, self.created_at))
            raise InternalError(
                f"placement group {self.spec.group_id} is {self.state.value} and met {event.name}: {detail}\n  {told}"
            )
        self.state = following
        first_line = detail.partition("\n")[0][:DETAIL_CHARS_MAX]
        self.story.append((now, _WORDS[event], first_line))
        if len(self.story) > STORY_EVENTS_MAX:
            del self.story[1]

    def waits(self) -> bool:
        """True when it wants a place and no attempt is under way."""
        return self.inflight is None and self.state in (State.PENDING, State.RESCHEDULING)

    def wanted(self) -> dict[int, BundleSpec]:
        """The bundles that have no place, by index."""
        return {index: bundle for index, bundle in enumerate(self.spec.bundles) if index not in self.placed}

    def has(self) -> dict[ProcessId, int]:
        """How many bundles are committed on each node."""
        has: dict[ProcessId, int] = {}
        for place in self.placed.values():
            has[place.node_id] = has.get(place.node_id, 0) + 1
        return has


class Planning:
    """What the Planner keeps with a group while it waits."""

    __slots__ = ("avoid", "feasible_at", "infeasible_at", "target", "told")

    def __init__(self) -> None:
        self.avoid: dict[ProcessId, int] = {}
        """Nodes that refused it, and the version of what was known of them then."""
        self.feasible_at = self.infeasible_at = -1
        """The epoch of the nodes at which it was found that they could hold it one day, or never."""
        self.target: dict[int, ProcessId] | None = None
        """The nodes that are kept for it in its turn."""
        self.told = False
        """Its watchers know why it waits."""

    def begin_anew(self) -> None:
        """It wants other bundles than before."""
        self.feasible_at = self.infeasible_at = -1
        self.target = None
        self.told = False
