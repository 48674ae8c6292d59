"""The bundles on one node: reservations, leases inside them, claims, and the way back. BL-n: policy/bundles.py."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from actorflow._core.base.resources import UNIT, ResourceSet
from actorflow._core.policy.bundles import Bundles, ReservationState
from actorflow._core.policy.leases import LeaseBook
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
from actorflow._core.policy.resource_pool import ResourcePool
from actorflow._core.policy.tickets import Ticket, TicketKind

CPU, TWO = {"CPU": UNIT}, {"CPU": 2 * UNIT}
G, H = "group-g", "group-h"
KEEP = 30.0


def node(cpus: int = 4, gpus: int = 0, **options: int) -> tuple[ResourcePool, Bundles]:
    pool = ResourcePool({"CPU": cpus * UNIT, "GPU": gpus * UNIT}, {"GPU": range(gpus)})
    return pool, Bundles(pool, **options)


def prepare(
    bundles: Bundles, *amounts: dict[str, int], group: str = G, attempt: int = 1, now: float = 0.0, **options: bool
) -> list[NodeDecision]:
    return bundles.prepare(group, attempt, dict(enumerate(amounts)), now, keep_s=KEEP, **options)


def committed(bundles: Bundles, *amounts: dict[str, int], group: str = G) -> None:
    assert prepare(bundles, *amounts, group=group) == [Prepared(group, 1)]
    assert bundles.commit(group, 1) == []


def taken(bundles: Bundles, index: int, demand: dict[str, int], group: str = G) -> BundleLease:
    lease = bundles.take(group, index, demand, "a worker")
    assert lease is not None
    return lease


# Prepare, commit, give back ---------------------------------------------------------------------------------


def test_prepare_takes_everything_or_nothing() -> None:
    pool, bundles = node(cpus=3)
    assert prepare(bundles, CPU, TWO) == [Prepared(G, 1)]
    assert pool.free.get("CPU") == 0
    [refused] = prepare(bundles, CPU, group=H)
    assert refused == PrepareRefused(H, 1, "bundle 0 (1 CPU) has no room: 1 CPU more than there is free")
    bundles.cancel(G, 1)
    [refused] = prepare(bundles, CPU, group=H)
    assert isinstance(refused, PrepareRefused), "BL-3: a copy of what was refused, now that there is room"
    [refused] = prepare(bundles, CPU, {"CPU": 3 * UNIT}, group=H, attempt=2)
    assert isinstance(refused, PrepareRefused)
    assert pool.free == pool.total, "BL-1: what was taken before the refusal is back"


def test_prepare_and_commit_are_idempotent() -> None:
    pool, bundles = node()
    for _ in range(2):
        assert prepare(bundles, CPU) == [Prepared(G, 1)]
    for _ in range(2):
        assert bundles.commit(G, 1) == []
    assert prepare(bundles, CPU) == [Prepared(G, 1)], "a late copy of the prepare is answered, and changes nothing"
    assert pool.free.get("CPU") == 3 * UNIT
    assert bundles.take(G, 0, CPU, None) is not None


def test_commit_in_the_same_step() -> None:
    _, bundles = node()
    assert prepare(bundles, CPU, commit=True) == [Prepared(G, 1)]
    assert bundles.next_deadline() is None
    assert bundles.take(G, 0, CPU, None) is not None


def test_a_cancelled_attempt_never_comes_back() -> None:
    pool, bundles = node()
    bundles.cancel(G, 2)
    for attempt in (1, 2):
        [refused] = prepare(bundles, CPU, attempt=attempt)
        assert isinstance(refused, PrepareRefused), "BL-3"
    assert pool.free == pool.total
    assert prepare(bundles, CPU, attempt=3) == [Prepared(G, 3)]


def test_cancel_ends_this_attempt_only() -> None:
    pool, bundles = node()
    committed(bundles, CPU)
    assert bundles.prepare(G, 2, {1: TWO}, 0.0, keep_s=KEEP) == [Prepared(G, 2)]
    assert bundles.cancel(G, 2) == []
    assert pool.free.get("CPU") == 3 * UNIT
    assert prepare(bundles, CPU) == [Prepared(G, 1)], "what is held is not fenced"


def test_one_bundle_is_not_held_by_two_attempts() -> None:
    _, bundles = node()
    committed(bundles, CPU)
    assert prepare(bundles, CPU, attempt=2) == [PrepareRefused(G, 2, "attempt 1 has the same bundles here")]


def test_without_a_commit_it_is_given_back_and_the_head_is_told() -> None:
    pool, bundles = node()
    prepare(bundles, CPU)
    assert bundles.next_deadline() == KEEP
    assert bundles.tick(KEEP - 1) == []
    assert bundles.tick(KEEP) == [BundlesLost(G, 1, "no commit came in 30 s")]
    assert pool.free == pool.total
    assert bundles.commit(G, 1) == [BundlesLost(G, 1, "the commit found nothing prepared here")]
    assert isinstance(prepare(bundles, CPU)[0], PrepareRefused)
    assert bundles.next_deadline() is None


def test_what_is_committed_has_no_deadline() -> None:
    _, bundles = node()
    committed(bundles, CPU)
    assert bundles.next_deadline() is None
    assert bundles.tick(10_000.0) == []


def test_return_says_so_also_when_there_is_nothing() -> None:
    pool, bundles = node()
    committed(bundles, CPU)
    assert bundles.return_group(G, 1) == [Returned(G, 1)]
    assert bundles.return_group(G, 1) == [Returned(G, 1)], "said again: the first answer may be lost"
    assert pool.free == pool.total


def test_fences_are_bounded() -> None:
    _, bundles = node(fences_max=2)
    for group in ("a", "b", "c"):
        bundles.cancel(group, 1)
    assert prepare(bundles, CPU, group="a") == [Prepared("a", 1)]
    assert isinstance(prepare(bundles, CPU, group="c")[0], PrepareRefused)


def test_what_a_node_says_when_it_joins_again() -> None:
    _, bundles = node(cpus=4)
    committed(bundles, CPU, CPU)
    prepare(bundles, CPU, group=H)
    committed(bundles, CPU, group="going")
    prepare(bundles, TWO, group="claim", claim=True)
    taken(bundles, 0, CPU, group="going")
    bundles.return_group("going", 1)
    assert bundles.held() == [
        HeldBundles(G, 1, (0, 1), committed=True),
        HeldBundles(H, 1, (0,), committed=False),
        HeldBundles("claim", 1, (0,), committed=False, claimed=True),
    ]


# Devices ----------------------------------------------------------------------------------------------------


def test_devices_of_a_bundle_are_given_to_its_leases() -> None:
    pool, bundles = node(gpus=4)
    outside = pool.take({"GPU": UNIT})
    committed(bundles, {"GPU": 2 * UNIT}, {"GPU": 5_000})
    assert outside == {"GPU": [0]}
    whole = taken(bundles, 0, {"GPU": UNIT})
    part = taken(bundles, 0, {"GPU": 2_500})
    share = taken(bundles, 1, {"GPU": 2_500})
    assert (whole.devices, part.devices, share.devices) == ({"GPU": [1]}, {"GPU": [2]}, {"GPU": [3]})
    assert bundles.take(G, 1, {"GPU": 5_000}, None) is None
    assert bundles.take(G, 0, {"GPU": UNIT}, None) is None, "of the second device a part is in use"
    bundles.give(part)
    assert taken(bundles, 0, {"GPU": UNIT}).devices == {"GPU": [2]}


def test_whole_devices_come_before_shares() -> None:
    """In the order of the bundles the share would lie on the first device, and leave one whole for two."""
    _, bundles = node(gpus=2)
    assert prepare(bundles, {"GPU": 5_000}, {"GPU": UNIT}, {"GPU": 5_000}) == [Prepared(G, 1)]


def test_a_refusal_says_that_no_device_has_room() -> None:
    _, bundles = node(gpus=2)
    [refused] = prepare(bundles, {"GPU": 6_000}, {"GPU": 6_000}, {"GPU": 6_000})
    assert isinstance(refused, PrepareRefused)
    assert "no device has room for that: free are 0.4 of GPU 0, 0.4 of GPU 1" in refused.reason


# Leases -----------------------------------------------------------------------------------------------------


def test_leases_stay_inside_their_bundle() -> None:
    _, bundles = node()
    committed(bundles, CPU, TWO)
    assert bundles.take(G, 0, TWO, None) is None
    first = taken(bundles, 1, TWO)
    assert bundles.take(G, 1, CPU, None) is None
    assert bundles.give(first) == []
    assert bundles.give(first) == [], "idempotent"
    taken(bundles, 1, TWO)
    bundles.check()


def test_any_bundle_is_one_with_room_and_never_two() -> None:
    _, bundles = node()
    committed(bundles, CPU, CPU)
    assert bundles.take(G, -1, TWO, None) is None
    assert [taken(bundles, -1, CPU).index for _ in range(2)] == [0, 1]
    assert bundles.take(G, -1, CPU, None) is None


def test_no_lease_before_the_commit() -> None:
    _, bundles = node()
    prepare(bundles, CPU)
    assert bundles.take(G, 0, CPU, None) is None
    assert bundles.why_never(G, 0, CPU) == ""


def test_why_a_lease_is_never_granted() -> None:
    _, bundles = node()
    committed(bundles, CPU, TWO)
    assert bundles.why_never(G, -1, TWO) == ""
    assert "2 CPU is asked for in one bundle, and bundle 0 has 1 CPU. Ask for less" in bundles.why_never(G, 0, TWO)
    assert "none of its bundles on this node can hold 4 CPU" in bundles.why_never(G, -1, {"CPU": 4 * UNIT})
    assert "its bundle 2 is not on this node" in bundles.why_never(G, 2, CPU)
    assert "it has no bundle on this node" in bundles.why_never(H, -1, CPU)


def test_cpu_is_lent_within_the_bundle_and_may_be_owed() -> None:
    """SEMANTICS 24: a task that waits for a task in the same bundle must not wait for ever."""
    pool, bundles = node()
    committed(bundles, CPU)
    outer = taken(bundles, 0, CPU)
    assert bundles.take(G, 0, CPU, None) is None
    for _ in range(2):
        bundles.lend(outer)
    inner = taken(bundles, 0, CPU)
    for _ in range(2):
        bundles.unlend(outer)
    bundles.check()
    assert bundles.take(G, 0, {"CPU": 1}, None) is None, "nothing is granted until the debt is repaid"
    bundles.give(inner)
    bundles.lend(outer)
    bundles.give(outer)
    bundles.check()
    bundles.return_group(G, 1)
    assert pool.free == pool.total


def test_leases_are_killed_before_a_bundle_goes_back() -> None:
    pool, bundles = node()
    committed(bundles, CPU, CPU)
    first, second = taken(bundles, 0, CPU), taken(bundles, 1, CPU)
    words = "its placement group was removed"
    assert bundles.return_group(G, 1) == [KillLease(first, words, removed=True), KillLease(second, words, removed=True)]
    assert bundles.return_group(G, 1) == [], "asked twice, killed once; the answer comes when it is true (BL-6)"
    assert bundles.take(G, 0, CPU, None) is None
    assert bundles.give(first) == []
    assert pool.free.get("CPU") == 2 * UNIT, "BL-1: nothing is back while a lease runs"
    assert bundles.give(second) == [Returned(G, 1)]
    assert pool.free == pool.total


def test_a_bundle_that_is_on_its_way_out_does_not_hinder_its_successor() -> None:
    _, bundles = node()
    committed(bundles, CPU)
    lease = taken(bundles, 0, CPU)
    assert bundles.cancel(G, 1) == [KillLease(lease, "its bundle was cancelled")]
    assert prepare(bundles, CPU, attempt=2, commit=True) == [Prepared(G, 2)]
    assert taken(bundles, 0, CPU).attempt == 2
    assert bundles.give(lease) == []
    bundles.check()


# Claims -----------------------------------------------------------------------------------------------------


def test_a_claim_waits_for_room_and_nobody_else_gets_it() -> None:
    pool, bundles = node(cpus=2)
    outside = pool.take(CPU)
    assert prepare(bundles, TWO, claim=True) == []
    assert bundles.claimed() == TWO
    assert prepare(bundles, TWO, claim=True) == [], "idempotent"
    [refused] = prepare(bundles, CPU, group=H)
    assert refused == PrepareRefused(H, 1, "older claims of placement groups come first, and leave too little CPU free")
    assert bundles.admit() == []
    pool.give(CPU, outside)
    assert bundles.admit() == [Prepared(G, 1)]
    assert bundles.claimed() == {}
    assert bundles.commit(G, 1) == []
    bundles.check()


def test_claims_are_served_in_order() -> None:
    pool, bundles = node(cpus=3)
    outside = pool.take({"CPU": 3 * UNIT})
    prepare(bundles, TWO, claim=True)
    prepare(bundles, CPU, group=H, claim=True, commit=True)
    pool.give({"CPU": 3 * UNIT}, outside)
    pool.take(CPU)
    assert bundles.admit() == [Prepared(G, 1)], "the younger one leaves the older what it needs"
    bundles.cancel(G, 1)
    assert bundles.admit() == [Prepared(H, 1)]
    assert bundles.take(H, 0, CPU, None) is not None, "and it is committed, as it was asked"


def test_a_claim_ends_at_its_deadline_and_when_it_is_cancelled() -> None:
    pool, bundles = node(cpus=1)
    pool.take(CPU)
    prepare(bundles, CPU, claim=True)
    assert bundles.tick(KEEP) == [BundlesLost(G, 1, "there was no room for it in 30 s")]
    prepare(bundles, CPU, group="early", claim=True)
    assert bundles.commit("early", 1) == [BundlesLost("early", 1, "the commit found nothing prepared here")]
    assert bundles.claimed() == {}
    prepare(bundles, CPU, group=H, claim=True)
    assert bundles.cancel(H, 1) == []
    assert bundles.claimed() == {}
    assert bundles.return_group(H, 1) == [Returned(H, 1)]


def test_a_claim_on_a_whole_device_keeps_shares_away() -> None:
    pool, bundles = node(gpus=2)
    first = pool.take({"GPU": 3_000})
    pool.take({"GPU": UNIT})
    prepare(bundles, {"GPU": UNIT}, claim=True)
    assert bundles.claimed() == {"GPU": 2 * UNIT}, "all of the kind: shares of it come and go"
    assert isinstance(prepare(bundles, {"GPU": 1_000}, group=H)[0], PrepareRefused)
    pool.give({"GPU": 3_000}, first)
    assert bundles.admit() == [Prepared(G, 1)]


# Beside leases ----------------------------------------------------------------------------------------------


def test_bundles_and_leases_take_from_one_pool() -> None:
    leases = LeaseBook({"CPU": 2 * UNIT, "GPU": UNIT}, {"GPU": [0]})
    bundles = Bundles(leases.pool)
    committed(bundles, CPU, {"GPU": UNIT})
    first, second, third = (leases.request(TicketKind.TASK, "a", demand, 0.0) for demand in (CPU, CPU, {"GPU": 5_000}))
    assert leases.admit(0.0) == [first]
    leases.check(bundles.check().amounts)
    assert bundles.return_group(G, 1) == [Returned(G, 1)]
    leases.touch()
    assert leases.admit(0.0, bundles.claimed()) == [second, third]
    leases.check(bundles.check().amounts)


def test_cpu_that_is_only_lent_is_not_for_bundles() -> None:
    """Its worker goes on at once when it can; a bundle would keep it, and the node be over its capacity."""
    leases = LeaseBook(TWO)
    bundles = Bundles(leases.pool)
    blocked = leases.request(TicketKind.TASK, "a", CPU, 0.0)
    assert leases.admit(0.0) == [blocked]
    assert isinstance(blocked, Ticket)
    leases.block(blocked)
    assert leases.free().get("CPU") == 2 * UNIT
    assert prepare(bundles, TWO) == [
        PrepareRefused(G, 1, "workers that wait, and go on some time, come first, and leave too little CPU free")
    ]
    assert prepare(bundles, CPU, attempt=2) == [Prepared(G, 2)]
    leases.unblock(blocked)
    assert leases.free().get("CPU") == 0
    leases.check(bundles.check().amounts)


def test_leases_leave_free_what_is_claimed() -> None:
    leases = LeaseBook({"CPU": 2 * UNIT})
    bundles = Bundles(leases.pool)
    running = leases.request(TicketKind.TASK, "a", CPU, 0.0)
    assert leases.admit(0.0) == [running]
    assert prepare(bundles, TWO, claim=True) == []
    waiting = leases.request(TicketKind.TASK, "a", CPU, 0.0)
    assert leases.admit(0.0, bundles.claimed()) == []
    assert isinstance(running, Ticket)
    leases.release(running)
    assert bundles.admit() == [Prepared(G, 1)]
    assert leases.admit(0.0, bundles.claimed()) == []
    bundles.cancel(G, 1)
    leases.touch()
    assert leases.admit(0.0, bundles.claimed()) == [waiting]


# Any order of events ----------------------------------------------------------------------------------------

RESOURCES = st.sampled_from(
    [{"CPU": UNIT}, {"CPU": 2 * UNIT}, {"CPU": UNIT, "GPU": UNIT}, {"GPU": 2 * UNIT}, {"GPU": 5_000}, {"CPU": UNIT, "GPU": 3_000}]
)
GROUPS = st.sampled_from(["a", "b", "c"])
ATTEMPTS = st.integers(1, 4)


class Node(RuleBasedStateMachine):
    """BL-1 to BL-6 under any words from the head and any leases; at the end everything is back."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.leases: list[BundleLease] = []
        self.outside: list[tuple[dict[str, int], dict[str, list[int]]]] = []
        self.ended: dict[str, int] = {}

    @initialize(gpus=st.integers(0, 3))
    def start(self, gpus: int) -> None:
        self.pool, self.bundles = node(cpus=4, gpus=gpus)

    def do(self, decisions: list[NodeDecision]) -> None:
        held = {(h.group_id, h.attempt) for h in self.bundles.held()}
        for decision in decisions:
            match decision:
                case Prepared(group, attempt):
                    assert attempt > self.ended.get(group, 0) or (group, attempt) in self.before, "BL-3"
                    assert (group, attempt) in held
                case BundlesLost(group, attempt) | PrepareRefused(group, attempt):
                    assert (group, attempt) not in held
                    self.ended[group] = max(attempt, self.ended.get(group, 0))
                case Returned(group, attempt):
                    left = [r for r in self.bundles.reservations() if r.group_id == group and r.attempt <= attempt]
                    assert not left, "BL-6"
                case KillLease(lease):
                    assert not lease.ended

    @rule(
        group=GROUPS,
        attempt=ATTEMPTS,
        amounts=st.dictionaries(st.integers(0, 2), RESOURCES, min_size=1),
        commit=st.booleans(),
        claim=st.booleans(),
    )
    def prepare(self, group: str, attempt: int, amounts: dict[int, dict[str, int]], commit: bool, claim: bool) -> None:
        self.before = self.known()
        self.do(self.bundles.prepare(group, attempt, amounts, self.now, keep_s=10.0, commit=commit, claim=claim))

    def known(self) -> set[tuple[str, int]]:
        return {(r.group_id, r.attempt) for r in self.bundles.reservations() if r.state is not ReservationState.RETURNING}

    @rule(group=GROUPS, attempt=ATTEMPTS)
    def commit(self, group: str, attempt: int) -> None:
        self.do(self.bundles.commit(group, attempt))

    @rule(group=GROUPS, attempt=ATTEMPTS)
    def cancel(self, group: str, attempt: int) -> None:
        self.ended[group] = max(attempt, self.ended.get(group, 0))
        self.do(self.bundles.cancel(group, attempt))

    @rule(group=GROUPS, attempt=ATTEMPTS)
    def return_group(self, group: str, attempt: int) -> None:
        self.ended[group] = max(attempt, self.ended.get(group, 0))
        self.do(self.bundles.return_group(group, attempt))

    @rule(group=GROUPS, index=st.integers(-1, 2), demand=RESOURCES)
    def take(self, group: str, index: int, demand: dict[str, int]) -> None:
        lease = self.bundles.take(group, index, demand, None)
        if lease is not None:
            assert index in (-1, lease.index)
            assert self.bundles.why_never(group, index, demand) == ""
            self.leases.append(lease)

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), what=st.sampled_from(["give", "lend", "unlend"]))
    def lease(self, data: st.DataObject, what: str) -> None:
        lease = data.draw(st.sampled_from(self.leases))
        if what == "give":
            self.leases.remove(lease)
            self.do(self.bundles.give(lease))
        elif what == "lend":
            self.bundles.lend(lease)
        else:
            self.bundles.unlend(lease)

    @rule(demand=RESOURCES)
    def take_outside(self, demand: dict[str, int]) -> None:
        if self.pool.fits(demand):
            self.outside.append((demand, self.pool.take(demand)))

    @precondition(lambda self: self.outside)
    @rule(data=st.data())
    def give_outside(self, data: st.DataObject) -> None:
        self.pool.give(*self.outside.pop(data.draw(st.integers(0, len(self.outside) - 1))))

    @rule()
    def admit(self) -> None:
        self.before = self.known()
        self.do(self.bundles.admit())

    @rule(seconds=st.sampled_from([1.0, 6.0, 11.0]))
    def time(self, seconds: float) -> None:
        self.now += seconds
        self.do(self.bundles.tick(self.now))
        deadline = self.bundles.next_deadline()
        assert deadline is None or deadline > self.now, "BL-5"

    @invariant()
    def holds(self) -> None:
        if not hasattr(self, "pool"):
            return
        used = self.bundles.check()
        for demand, _ in self.outside:
            used.add(demand)
        self.pool.check(used)
        assert all(units >= 0 for units in self.pool.free.amounts.values()), "allocated <= capacity"
        shares: dict[int, int] = {}
        inside = [(b.resources, b.devices) for r in self.bundles.reservations() for b in r.bundles.values()]
        for demand, devices in [*self.outside, *inside]:
            for device in devices.get("GPU", ()):
                shares[device] = shares.get(device, 0) + min(demand["GPU"], UNIT)
        assert all(share <= UNIT for share in shares.values()), "a device is in one place only"

    def teardown(self) -> None:
        if not hasattr(self, "pool"):
            return
        for group in ("a", "b", "c"):
            self.bundles.return_group(group, 9)
        for lease in self.leases:
            self.bundles.give(lease)
        while self.outside:
            self.give_outside_now()
        assert list(self.bundles.reservations()) == []
        assert self.bundles.check() == ResourceSet()
        assert self.pool.free == self.pool.total, "after return everything is back"

    def give_outside_now(self) -> None:
        self.pool.give(*self.outside.pop())


TestNode = Node.TestCase
TestNode.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)


def test_states_are_the_four_that_the_page_shows() -> None:
    assert [state.value for state in ReservationState] == ["claimed", "prepared", "committed", "returning"]


def test_a_share_is_a_pool_of_its_own() -> None:
    pool = ResourcePool({"GPU": 5_000}, {"GPU": [3]})
    assert pool.take({"GPU": 5_000}) == {"GPU": [3]}
    with pytest.raises(AssertionError, match="DB-1"):
        pool.give({"GPU": 6_000}, {"GPU": [3]})
