"""The bundles of placement groups on one node: who set what aside, and which leases run in it. Pure.

    (none) -- prepare --> PREPARED -- commit --> COMMITTED -- cancel, return --> RETURNING --> (none)
       |                     |  |                                                  ^    when its last lease ends
       +-- prepare, claim    |  +---- cancel, return, deadline ---> (none)         |
       |   no room yet       |                                                     |
       +-------> CLAIMED ----+ when there is room        leases run here: killed --+

One attempt of a group on this node is one reservation, and all of it is in one state. The head decides
(policy/placement_groups.py); this node answers for its own resources.

BL-1: what the bundles here hold was taken from the node's room, and is given back exactly once, when the last
      lease in it has ended.
BL-2: the leases in a bundle never use more than it has; only CPU may be owed, as on a node (SEMANTICS 24).
BL-3: an attempt that was refused or given back here is never prepared here again (fencing).
BL-4: of the reservations that are not RETURNING at most one has a given bundle of a group.
BL-5: a reservation that is not committed ends at its deadline, and the head is told.
BL-6: Returned is said when nothing of the group is left up to that attempt, not before.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping
from enum import Enum
from heapq import heappop, heappush

from actorflow._core.base.ids import GroupId
from actorflow._core.base.resources import CPU, ResourceSet, format_resources
from actorflow._core.policy.bundle_fit import why_in_none
from actorflow._core.policy.placement_decisions import (
    BundleLease,
    BundlesLost,
    HeldBundles,
    KillLease,
    NodeDecision,
    Prepared,
    PrepareRefused,
    Returned,
)
from actorflow._core.policy.resource_pool import Amounts, Devices, ResourcePool

FENCES_MAX = 100_000
"""Groups whose last attempt that has ended here is remembered; the oldest is forgotten first."""


class ReservationState(Enum):
    """Where a reservation is in its life."""

    CLAIMED = "claimed"
    PREPARED = "prepared"
    COMMITTED = "committed"
    RETURNING = "returning"


class Bundle:
    """One bundle: what it took from the node, and a pool of that for its leases, made for the first of them."""

    __slots__ = ("_pool", "devices", "leases", "resources")

    def __init__(self, resources: Amounts, devices: Devices) -> None:
        self.resources = resources
        self.devices = devices
        self._pool: ResourcePool | None = None
        self.leases: dict[BundleLease, None] = {}

    @property
    def pool(self) -> ResourcePool:
        """What the leases inside take from."""
        if self._pool is None:
            self._pool = ResourcePool(self.resources, self.devices)
        return self._pool


class Reservation:
    """What one attempt of a group has on this node. Written by Bundles only."""

    __slots__ = ("asked", "attempt", "bundles", "commit", "deadline", "group_id", "keep_s", "state")

    def __init__(self, group_id: GroupId, attempt: int, asked: Mapping[int, Amounts], commit: bool, keep_s: float) -> None:
        self.group_id = group_id
        self.attempt = attempt
        self.asked = asked
        self.commit = commit
        """Committed as soon as it is prepared."""
        self.keep_s = keep_s
        self.deadline = 0.0
        self.state = ReservationState.CLAIMED
        self.bundles: dict[int, Bundle] = {}
        """By index; empty while it is only claimed."""


class Bundles:
    """All reservations of a node. Each method is one event, and returns what has to be done about it, in order."""

    __slots__ = ("_claims", "_deadlines", "_fences", "_fences_max", "_gave_back", "_groups", "_pool", "_returns", "_uncommitted", "taken")

    def __init__(self, pool: ResourcePool, *, fences_max: int = FENCES_MAX) -> None:
        self._pool = pool
        self.taken = ResourceSet()
        """What all reservations hold of the node's room."""
        self._gave_back = False
        self._fences_max = fences_max
        self._groups: dict[GroupId, dict[int, Reservation]] = {}
        """By group and attempt."""
        self._uncommitted: dict[tuple[GroupId, int], Reservation] = {}
        """Those that have a deadline: PREPARED or CLAIMED."""
        self._deadlines: list[tuple[float, GroupId, int]] = []
        """A heap; entries of reservations that are committed or gone leave it when they come to its top."""
        self._claims: dict[tuple[GroupId, int], Reservation] = {}
        """Those that are CLAIMED, in the order they came, which is that in which they are served."""
        self._fences: OrderedDict[GroupId, int] = OrderedDict()
        """The highest attempt of a group that was refused or given back."""
        self._returns: dict[GroupId, int] = {}
        """Groups that the head wants returned, up to which attempt, while something of that is left."""

    # -- word from the head

    def prepare(
        self,
        group_id: GroupId,
        attempt: int,
        bundles: Mapping[int, Amounts],
        now: float,
        *,
        keep_s: float,
        commit: bool = False,
        claim: bool = False,
    ) -> list[NodeDecision]:
        """Set resources aside for these bundles, or say why not. Idempotent."""
        known = self._groups.get(group_id, {}).get(attempt)
        if known is not None and known.state is not ReservationState.RETURNING:
            return [] if known.state is ReservationState.CLAIMED else [Prepared(group_id, attempt)]
        if attempt <= self._fences.get(group_id, 0):
            return [PrepareRefused(group_id, attempt, "this attempt was refused or given back here before")]
        for other in self._groups.get(group_id, {}).values():
            if other.state is not ReservationState.RETURNING and not other.asked.keys().isdisjoint(bundles):
                return self._refuse(group_id, attempt, f"attempt {other.attempt} has the same bundles here")
        reservation = Reservation(group_id, attempt, bundles, commit, keep_s)
        # A claim that waits comes first: what is free may be there for it.
        reason = self._take(reservation, self.claimed() if self._claims else {})
        if reason and not claim:
            return self._refuse(group_id, attempt, reason)
        reservation.deadline = now + keep_s
        self._groups.setdefault(group_id, {})[attempt] = reservation
        if not reason and commit:
            reservation.state = ReservationState.COMMITTED
        else:
            self._uncommitted[group_id, attempt] = reservation
            heappush(self._deadlines, (reservation.deadline, group_id, attempt))
        if reason:
            self._claims[group_id, attempt] = reservation
        return [] if reason else [Prepared(group_id, attempt)]

    def commit(self, group_id: GroupId, attempt: int) -> list[NodeDecision]:
        """The bundles are open to leases from now on. Too late when they were given back. Idempotent."""
        reservation = self._groups.get(group_id, {}).get(attempt)
        if reservation is None or reservation.state in (ReservationState.CLAIMED, ReservationState.RETURNING):
            return [*self.cancel(group_id, attempt), BundlesLost(group_id, attempt, "the commit found nothing prepared here")]
        if reservation.state is ReservationState.PREPARED:
            reservation.state = ReservationState.COMMITTED
            del self._uncommitted[group_id, attempt]
        return []

    def cancel(self, group_id: GroupId, attempt: int) -> list[NodeDecision]:
        """The head has given the attempt up. Idempotent."""
        self._fence(group_id, attempt)
        reservation = self._groups.get(group_id, {}).get(attempt)
        return self._end(reservation, "its bundle was cancelled") if reservation is not None else []

    def return_group(self, group_id: GroupId, attempt: int) -> list[NodeDecision]:
        """The group is removed. Idempotent; Returned is said at once when nothing is left."""
        self._fence(group_id, attempt)
        self._returns[group_id] = max(attempt, self._returns.get(group_id, 0))
        decisions: list[NodeDecision] = []
        for reservation in list(self._groups.get(group_id, {}).values()):
            if reservation.attempt <= attempt:
                decisions += self._end(reservation, "its placement group was removed", removed=True)
        if group_id in self._returns:  # else `_end` has said so
            decisions += self._returned(group_id)
        return decisions

    # -- time and room

    def tick(self, now: float) -> list[NodeDecision]:
        """Time passes: what was never committed is given back. To be called when `next_deadline` has come."""
        decisions: list[NodeDecision] = []
        while (deadline := self.next_deadline()) is not None and deadline <= now:
            _, group_id, attempt = heappop(self._deadlines)
            reservation = self._uncommitted[group_id, attempt]
            self._fence(group_id, attempt)
            if reservation.state is ReservationState.CLAIMED:
                words = f"there was no room for it in {reservation.keep_s:g} s"
            else:
                words = f"no commit came in {reservation.keep_s:g} s"
            decisions += [*self._end(reservation, words), BundlesLost(group_id, attempt, words)]
        return decisions

    def next_deadline(self) -> float | None:
        """When `tick` has something to do, or None."""
        heap = self._deadlines
        while heap:
            deadline, group_id, attempt = heap[0]
            reservation = self._uncommitted.get((group_id, attempt))
            if reservation is not None and reservation.deadline == deadline:
                return deadline
            heappop(heap)
        return None

    def admit(self) -> list[NodeDecision]:
        """Room may have become free: serve the claims, oldest first. To be called before leases are granted."""
        decisions: list[NodeDecision] = []
        ahead: dict[str, int] = {}
        for reservation in list(self._claims.values()):
            if self._take(reservation, ahead):
                self._pool.set_aside(reservation.asked.values(), ahead)
                continue
            del self._claims[reservation.group_id, reservation.attempt]
            if reservation.commit:
                reservation.state = ReservationState.COMMITTED
                del self._uncommitted[reservation.group_id, reservation.attempt]
            decisions.append(Prepared(reservation.group_id, reservation.attempt))
        return decisions

    def gave_back(self) -> bool:
        """True once after something has gone back to the node's room: who waits outside of bundles is to be looked at.

        No decision says so: the last lease of a bundle that was cancelled ends without a word to the head.
        """
        gave, self._gave_back = self._gave_back, False
        return gave

    def claimed(self) -> Amounts:
        """What claims wait for: of what is free nobody else may have so much. Empty but in times of need."""
        claimed: dict[str, int] = {}
        for reservation in self._claims.values():
            self._pool.set_aside(reservation.asked.values(), claimed)
        if self._pool.lent and claimed.get(CPU):
            # CPU that is only lent is not for bundles, and who has lent it may wait for work that needs just that.
            claimed[CPU] = max(min(claimed[CPU], self._pool.free.get(CPU) - self._pool.lent), 0)
        return claimed

    # -- leases

    def take(
        self, group_id: GroupId, index: int, demand: Amounts, holder: object, *, but: Collection[int] = ()
    ) -> BundleLease | None:
        """Take a part of a bundle for a lease; `index` -1: of the first bundle with room. None: not now.

        A lease is in one bundle, never across two, and in none of those in `but`. `why_never` says when waiting is no use.
        """
        for reservation, number, bundle in self._open(group_id, index):
            if number not in but and bundle.pool.fits(demand):
                lease = BundleLease(group_id, reservation.attempt, number, demand, bundle.pool.take(demand), holder)
                bundle.leases[lease] = None
                return lease
        return None

    def fits(self, group_id: GroupId, index: int, demand: Amounts, *, but: Collection[int] = ()) -> bool:
        """True when `take` would succeed."""
        return any(number not in but and bundle.pool.fits(demand) for _, number, bundle in self._open(group_id, index))

    def open_bundles(self, group_id: GroupId) -> dict[int, Bundle]:
        """The committed bundles of a group by index, lowest first; to be read only."""
        return {number: bundle for _, number, bundle in self._open(group_id, -1)}

    def give(self, lease: BundleLease) -> list[NodeDecision]:
        """The lease has ended, and its worker does nothing any more. Idempotent."""
        if lease.ended:
            return []
        self.unlend(lease)
        reservation = self._groups[lease.group_id][lease.attempt]
        bundle = reservation.bundles[lease.index]
        del bundle.leases[lease]
        bundle.pool.give(lease.demand, lease.devices)
        lease.ended = True
        return self._give_back_when_idle(reservation)

    def lend(self, lease: BundleLease) -> None:
        """All code on the lease's worker waits: others in the bundle may have its CPU (SEMANTICS 24). Idempotent."""
        if not lease.lent and not lease.ended:
            lease.lent = True
            self.bundle_of(lease).pool.free.add({CPU: lease.demand.get(CPU, 0)})

    def unlend(self, lease: BundleLease) -> None:
        """The code goes on, at once, even when that leaves a debt of CPU in the bundle. Idempotent."""
        if lease.lent:
            lease.lent = False
            self.bundle_of(lease).pool.free.subtract({CPU: lease.demand.get(CPU, 0)})

    def why_never(self, group_id: GroupId, index: int, demand: Amounts) -> str:
        """Why `take` will not succeed, as things are, however long one waits; an empty string when it may.

        A group that is not here may have moved, or be removed: the head knows. One that is only prepared may.
        """
        of_bundle = "it has no bundle" if index < 0 else f"its bundle {index} is not"
        here = [
            (number, reservation.asked[number])
            for reservation in self._groups.get(group_id, {}).values()
            if reservation.state is not ReservationState.RETURNING
            for number in reservation.asked
            if index in (-1, number)
        ]
        if not here:
            return f"placement group {group_id}: {of_bundle} on this node; ask the head where it is"
        why = why_in_none(group_id, demand, here)
        if why and index < 0:
            shown = format_resources(demand)
            return f"placement group {group_id}: none of its bundles on this node can hold {shown}; ask the head for others"
        return why

    # -- looking

    def has(self, group_id: GroupId, index: int) -> bool:
        """True when that bundle (-1: one) of the group is on this node, and not on its way back."""
        return any(
            reservation.state is not ReservationState.RETURNING and (index < 0 or index in reservation.asked)
            for reservation in self._groups.get(group_id, {}).values()
        )

    def bundle_of(self, lease: BundleLease) -> Bundle:
        """The bundle that a lease which has not ended is in; to be read only."""
        return self._groups[lease.group_id][lease.attempt].bundles[lease.index]

    def held(self) -> list[HeldBundles]:
        """What a node tells the head when it joins or joins again. Without what is on its way back already."""
        return [
            HeldBundles(
                r.group_id,
                r.attempt,
                tuple(r.asked),
                committed=r.state is ReservationState.COMMITTED,
                claimed=r.state is ReservationState.CLAIMED,
            )
            for r in self.reservations()
            if r.state is not ReservationState.RETURNING
        ]

    def reservations(self) -> Iterator[Reservation]:
        """All of them; to be read only."""
        for attempts in self._groups.values():
            yield from attempts.values()

    def check(self) -> ResourceSet:
        """Assert the invariants; return what all bundles hold of the room. For tests."""
        taken = ResourceSet()
        for group_id, attempts in self._groups.items():
            assert attempts, f"BL-1: nothing is left of group {group_id}, and it is still known"
            seen: set[int] = set()
            for attempt, reservation in attempts.items():
                assert (reservation.group_id, reservation.attempt) == (group_id, attempt), "BL-1: filed wrongly"
                claimed = reservation.state is ReservationState.CLAIMED
                assert claimed == ((group_id, attempt) in self._claims), "BL-5: exactly these wait for room"
                waits = reservation.state in (ReservationState.CLAIMED, ReservationState.PREPARED)
                assert waits == ((group_id, attempt) in self._uncommitted), "BL-5: exactly these have a deadline"
                if reservation.state is not ReservationState.RETURNING:
                    assert seen.isdisjoint(reservation.asked), f"BL-4: group {group_id} has a bundle twice"
                    seen.update(reservation.asked)
                else:
                    assert any(b.leases for b in reservation.bundles.values()), "BL-1: no lease keeps it"
                    assert attempt <= self._fences.get(group_id, 0), "BL-3: it may not come back"
                for bundle in reservation.bundles.values():
                    taken.add(bundle.resources)
                    _check_bundle(bundle)
        assert taken == self.taken, f"BL-1: bundles hold {taken}, and {self.taken} is believed"
        for group_id, upto in self._returns.items():
            assert any(attempt <= upto for attempt in self._groups.get(group_id, ())), "BL-6: Returned is due"
        return taken

    # -- steps

    def _open(self, group_id: GroupId, index: int) -> Iterator[tuple[Reservation, int, Bundle]]:
        """The committed bundles of the group that are meant by `index`, lowest first."""
        found = [
            (number, reservation)
            for reservation in self._groups.get(group_id, {}).values()
            if reservation.state is ReservationState.COMMITTED
            for number in reservation.bundles
            if index in (-1, number)
        ]
        for number, reservation in sorted(found, key=lambda pair: pair[0]):
            yield reservation, number, reservation.bundles[number]

    def _take(self, reservation: Reservation, ahead: Amounts) -> str:
        """Take all bundles of a reservation, whole devices first, or none: then the reason is returned.

        What is `ahead` stays free for others, and CPU that is only lent is not for bundles: they keep it.
        """
        pool, asked = self._pool, reservation.asked
        for name, units in _sum(asked).items() if ahead or pool.lent else ():
            lent = pool.lent if name == CPU else 0
            if units > pool.free.get(name) - ahead.get(name, 0) - lent:
                ahead_of = "older claims of placement groups" if ahead.get(name) else "workers that wait, and go on some time,"
                return f"{ahead_of} come first, and leave too little {name} free"
        taken: dict[int, Bundle] = {}
        order = sorted(asked, key=lambda index: _largest_device(pool, asked[index]), reverse=True) if pool.devices else asked
        for index in order:
            reason = pool.why_not(asked[index])
            if reason:
                for bundle in taken.values():
                    pool.give(bundle.resources, bundle.devices)
                return f"bundle {index} ({format_resources(asked[index])}) has no room: {reason}"
            taken[index] = Bundle(asked[index], pool.take(asked[index]))
        for bundle in taken.values():
            self.taken.add(bundle.resources)
        reservation.bundles = taken
        reservation.state = ReservationState.PREPARED
        return ""

    def _refuse(self, group_id: GroupId, attempt: int, reason: str) -> list[NodeDecision]:
        """Once and for all: the head goes on, and a copy of the Prepare may come when there is room."""
        self._fence(group_id, attempt)
        return [PrepareRefused(group_id, attempt, reason)]

    def _fence(self, group_id: GroupId, attempt: int) -> None:
        self._fences[group_id] = max(attempt, self._fences.pop(group_id, 0))
        while len(self._fences) > self._fences_max:
            self._fences.popitem(last=False)

    def _end(self, reservation: Reservation, reason: str, *, removed: bool = False) -> list[NodeDecision]:
        """Give a reservation back: at once, or when its leases, which are killed, have ended."""
        if reservation.state is ReservationState.RETURNING:
            return []
        reservation.state = ReservationState.RETURNING
        key = (reservation.group_id, reservation.attempt)
        self._uncommitted.pop(key, None)
        self._claims.pop(key, None)
        kills: list[NodeDecision] = [
            KillLease(lease, reason, removed) for bundle in reservation.bundles.values() for lease in bundle.leases
        ]
        return kills or self._give_back_when_idle(reservation)

    def _give_back_when_idle(self, reservation: Reservation) -> list[NodeDecision]:
        if reservation.state is not ReservationState.RETURNING:
            return []
        if any(bundle.leases for bundle in reservation.bundles.values()):
            return []
        for bundle in reservation.bundles.values():
            self._pool.give(bundle.resources, bundle.devices)
            self.taken.subtract(bundle.resources)
        self._gave_back = True
        group_id = reservation.group_id
        attempts = self._groups[group_id]
        del attempts[reservation.attempt]
        if not attempts:
            del self._groups[group_id]
        return self._returned(group_id)

    def _returned(self, group_id: GroupId) -> list[NodeDecision]:
        """Say Returned when it was asked for and nothing is left (BL-6)."""
        upto = self._returns.get(group_id)
        if upto is None or any(attempt <= upto for attempt in self._groups.get(group_id, ())):
            return []
        del self._returns[group_id]
        return [Returned(group_id, upto)]


def _sum(bundles: Mapping[int, Amounts]) -> dict[str, int]:
    """What bundles hold together."""
    together = ResourceSet()
    for resources in bundles.values():
        together.add(resources)
    return together.amounts


def _largest_device(pool: ResourcePool, demand: Amounts) -> int:
    return max((demand.get(name, 0) for name in pool.devices), default=0)


def _check_bundle(bundle: Bundle) -> None:
    used = ResourceSet()
    for lease in bundle.leases:
        assert not lease.ended, "BL-2: a lease that has ended is still in its bundle"
        used.add(lease.demand)
        if lease.lent:
            used.subtract({CPU: lease.demand.get(CPU, 0)})
    bundle.pool.check(used)
    owed = {name: units for name, units in bundle.pool.free.amounts.items() if units < 0 and name != CPU}
    assert not owed, f"BL-2: a bundle owes {owed}"
