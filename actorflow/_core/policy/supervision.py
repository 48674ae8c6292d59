"""Actors that are supervised together: who is restarted when one of them fails, and when their supervision gives up. Pure.

    one_for_one     the one that failed is restarted
    one_for_all     all are
    rest_for_one    it is, and those that were named after it

A member is an actor, or another supervision, whose giving up is the failure of a member here: so failures that a small group cannot bear
are taken up by the larger one. The outermost gives up by ending all its actors.

    SV-1  Restarts that the supervision has asked for are no failures.
    SV-2  What one event has ended, such as the loss of a node or of a process of many actors, counts as one failure, however far apart it
          is reported. Who was lost on a node less than TOGETHER_S before the node itself counts with it.
    SV-3  More than `max_restarts` failures within `within_s`, or one member that cannot come back, and the supervision gives up.
    SV-4  A member that was ended on purpose (killed, out of scope, of its own will) leaves, and the others go on.
    SV-5  An actor has at most one supervision, and a supervision at most one above it.
    SV-6  A supervision has members: with the last of them it ends, and so may the one above it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum

from actorflow._core.base.ids import ActorId, ProcessId
from actorflow._core.policy.actor_decisions import Ending

SUPERVISIONS_MAX = 100_000
MEMBERS_MAX = 10_000
DEPTH_MAX = 32
TOGETHER_S = 2.0
"""Processes of a node that dies may be seen to end before it is."""

ON_PURPOSE = frozenset({"killed", "exited", "out_of_scope", "job_ended", "group_removed", "owner_died"})
"""Kinds of ends (ActorDied) after which nobody wants a member back."""


class Strategy(Enum):
    """Who is restarted with a member that failed."""

    ONE_FOR_ONE = "one_for_one"
    ONE_FOR_ALL = "one_for_all"
    REST_FOR_ONE = "rest_for_one"


@dataclass(frozen=True, slots=True)
class Failure:
    """Of one or more members, by one event."""

    at: float
    ending: Ending


@dataclass(slots=True)
class Supervision:
    """One of them. Written by SupervisionBook only."""

    id: str
    owner: ProcessId
    """Who is told of the end; when it is gone the supervision is over, unless it is detached."""
    job_id: str
    members: list[str]
    """Ids of actors and of supervisions, in the order in which they were named."""
    strategy: Strategy
    max_restarts: int
    within_s: float
    detached: bool = False
    above: str = ""
    """The supervision that this is a member of."""
    failures: deque[Failure] = field(default_factory=deque)
    """The newest `max_restarts` + 1 of them."""
    begun_by: str = ""
    """The key of the event for which it has begun anew, if it has: what else that has ended is no new failure."""


@dataclass(frozen=True, slots=True)
class Bounce:
    """End the current incarnation of this actor; another one follows."""

    actor_id: ActorId
    reason: str


@dataclass(frozen=True, slots=True)
class EndMember:
    """End this actor for good: its supervision has given up."""

    actor_id: ActorId
    reason: str


@dataclass(frozen=True, slots=True)
class Unsupervised:
    """This actor is on its own again."""

    actor_id: ActorId


@dataclass(frozen=True, slots=True)
class Over:
    """A supervision has ended. `gave_up`: it did so itself."""

    supervision: str
    owner: ProcessId
    reason: str
    gave_up: bool
    final: bool = False
    """It gave up for a member that cannot come back, however much it bears."""


SupervisionDecision = Bounce | EndMember | Unsupervised | Over


class SupervisionBook:
    """All supervisions of a cluster."""

    __slots__ = ("_above", "_max", "_name_of", "_supervisions")

    def __init__(self, supervisions_max: int = SUPERVISIONS_MAX, name_of: Callable[[str], str] = str) -> None:
        self._max = supervisions_max
        self._name_of = name_of
        """What people call the member with this id."""
        self._supervisions: dict[str, Supervision] = {}
        self._above: dict[str, str] = {}
        """The supervision of each member, by its id."""

    def find(self, supervision: str) -> Supervision | None:
        """To be read."""
        return self._supervisions.get(supervision)

    def of(self, actor_id: ActorId) -> Supervision | None:
        """Who supervises this actor."""
        above = self._above.get(actor_id)
        return self._supervisions[above] if above is not None else None

    def all(self) -> Iterator[Supervision]:
        """All there are, oldest first."""
        return iter(self._supervisions.values())

    # -- the beginning and the end

    def problem_with(self, supervision: Supervision) -> str:
        """Why it cannot begin; empty when it can."""
        if len(self._supervisions) >= self._max:
            return f"there are {self._max} supervisions already, the limit of this head"
        if not supervision.members:
            return "it has no members"
        if len(supervision.members) > MEMBERS_MAX:
            return f"it has {len(supervision.members)} members, and {MEMBERS_MAX} are the most"
        seen: set[str] = set()
        for member in supervision.members:
            if member in seen:
                return f"{self._name_of(member)} is named twice"
            seen.add(member)
            if member in self._above:
                return f"{self._name_of(member)} is supervised already, by {self._name_of(self._above[member])}"
            below = self._supervisions.get(member)
            if below is not None and self._depth(below) >= DEPTH_MAX:
                return f"supervisions are {DEPTH_MAX} deep at most"
        return ""

    def begin(self, supervision: Supervision) -> None:
        """From now on. `problem_with` it is empty, and its members are there."""
        self._supervisions[supervision.id] = supervision
        for member in supervision.members:
            assert member not in self._above, f"SV-5: {member} is supervised twice"
            self._above[member] = supervision.id
            if member in self._supervisions:
                self._supervisions[member].above = supervision.id

    def end(self, supervision: str, reason: str) -> list[SupervisionDecision]:
        """Nobody supervises its actors any more, nor those of the supervisions in it; they live on."""
        found = self._supervisions.get(supervision)
        return self._take_down(found, reason, gave_up=False) if found is not None else []

    def owner_lost(self, owner: ProcessId, reason: str) -> list[SupervisionDecision]:
        """A process is gone: so are its supervisions that are not detached."""
        decisions: list[SupervisionDecision] = []
        for supervision in [one for one in self._supervisions.values() if one.owner == owner and not one.detached]:
            decisions += self.end(supervision.id, f"its owner, process {owner}, is gone ({reason})")
        return decisions

    # -- members

    def lost(self, actor_id: ActorId, cause: str, *, asked: bool, now: float, ending: Ending) -> list[SupervisionDecision]:
        """An incarnation of a member is gone by this event, and another one follows. `asked`: it was to go."""
        supervision = self.of(actor_id)
        if supervision is None or asked:
            return []  # SV-1
        return self._failed(supervision, actor_id, cause, now, ending)

    def dead(self, actor_id: ActorId, kind: str, reason: str) -> list[SupervisionDecision]:
        """An actor is gone for good."""
        supervision = self.of(actor_id)
        if supervision is None:
            return []
        self._leave(supervision, actor_id)
        if kind not in ON_PURPOSE:
            return self._give_up(supervision, f"{self._name_of(actor_id)} cannot come back: {reason}", 0.0, Ending(), final=True)
        return self._end_if_empty(supervision)

    # -- steps

    def _depth(self, supervision: Supervision) -> int:
        return 1 + max((self._depth(self._supervisions[m]) for m in supervision.members if m in self._supervisions), default=0)

    def _failed(self, supervision: Supervision, member: str, cause: str, now: float, ending: Ending) -> list[SupervisionDecision]:
        if ending.key and ending.key == supervision.begun_by:
            return []  # All its members have begun anew for this already.
        failures = supervision.failures
        if not (ending.key and any(failure.ending.key == ending.key for failure in failures)):  # SV-2
            if ending.of_node:
                for before in [one for one in failures if one.ending.node_id == ending.node_id and now - one.at <= TOGETHER_S]:
                    failures.remove(before)
            failures.append(Failure(now, ending))
        while failures and now - failures[0].at > supervision.within_s:
            failures.popleft()
        if len(failures) > supervision.max_restarts:
            many = f"{len(failures)} failure{'s' if len(failures) > 1 else ''} within {supervision.within_s:g} s"
            allowed = f"{supervision.max_restarts} {'is' if supervision.max_restarts == 1 else 'are'} allowed"
            return self._give_up(supervision, f"{many}, and {allowed}; the last one: {self._name_of(member)}: {cause}", now, ending)
        reason = f"{self._name_of(member)}, which is supervised with it ({supervision.strategy.value}), failed: {cause}"
        return [Bounce(actor_id, reason) for other in self._others(supervision, member) for actor_id in self._restart(other, ending)]

    def _others(self, supervision: Supervision, member: str) -> list[str]:
        if supervision.strategy is Strategy.ONE_FOR_ONE:
            return []
        if supervision.strategy is Strategy.ONE_FOR_ALL:
            return [other for other in supervision.members if other != member]
        return supervision.members[supervision.members.index(member) + 1 :]

    def _restart(self, member: str, ending: Ending) -> Iterator[ActorId]:
        """The actors of a member. A supervision begins to count anew."""
        below = self._supervisions.get(member)
        if below is None:
            yield member
            return
        below.failures.clear()
        below.begun_by = ending.key
        for one in below.members:
            yield from self._restart(one, ending)

    def _give_up(
        self, supervision: Supervision, reason: str, now: float, ending: Ending, *, final: bool = False
    ) -> list[SupervisionDecision]:
        """It bears no more: whoever is above it decides. `final`: a member is missing for good, so there is nothing to restart."""
        if supervision.above and not final:
            above = self._supervisions[supervision.above]
            ends = self._failed(above, supervision.id, f"it gave up: {reason}", now, ending)
            if supervision.id not in self._supervisions:
                return ends  # The one above has given up as well.
            own = [Bounce(actor_id, f"its supervision begins anew: {reason}") for actor_id in self._restart(supervision.id, ending)]
            return [*own, *ends]
        if supervision.above:
            outer = self._supervisions[supervision.above]
            return self._give_up(outer, f"{self._name_of(supervision.id)} gave up: {reason}", now, ending, final=True)
        return self._take_down(supervision, reason, gave_up=True, final=final)

    def _end_if_empty(self, supervision: Supervision) -> list[SupervisionDecision]:
        """SV-6"""
        return [] if supervision.members else self._take_down(supervision, "all its members have ended", gave_up=False)

    def _take_down(self, supervision: Supervision, reason: str, *, gave_up: bool, final: bool = False) -> list[SupervisionDecision]:
        """It is no more, with the supervisions in it; its actors either end, or are on their own."""
        decisions: list[SupervisionDecision] = []
        why = f"{self._name_of(supervision.id)} has ended: {reason}"
        del self._supervisions[supervision.id]
        above = self._supervisions.get(supervision.above)
        if above is not None:
            above.members.remove(supervision.id)
        self._above.pop(supervision.id, None)
        for member in list(supervision.members):
            below = self._supervisions.get(member)
            if below is not None:
                below.above = ""
                decisions += self._take_down(below, why, gave_up=gave_up, final=final)
            else:
                del self._above[member]
                decisions.append(EndMember(member, f"its supervision gave up: {reason}") if gave_up else Unsupervised(member))
        decisions.append(Over(supervision.id, supervision.owner, reason, gave_up, final))
        return decisions + (self._end_if_empty(above) if above is not None else [])

    def _leave(self, supervision: Supervision, member: str) -> None:
        supervision.members.remove(member)
        del self._above[member]

    def check(self) -> None:
        """The book is in order; for tests."""
        members = {member: one.id for one in self._supervisions.values() for member in one.members}
        assert members == self._above, "SV-5"
        for one in self._supervisions.values():
            assert one.above == self._above.get(one.id, ""), f"SV-5: {one}"
            assert len(one.failures) <= one.max_restarts, f"SV-3: {one}"
            assert one.members, f"SV-6: {one}"
