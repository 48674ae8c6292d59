"""The lease book: admission, order, starvation, blocking, refusals, fairness. No loop, no clock."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from actorflow._core.base.resources import UNIT
from actorflow._core.policy.leases import WINDOW, LeaseBook
from actorflow._core.policy.tickets import Refused, Ticket, TicketKind, TicketState

CPU = {"CPU": UNIT}
TWO = {"CPU": 2 * UNIT}


def book(cpus: int = 2, gpus: int = 0, **options: object) -> LeaseBook:
    total = {"CPU": cpus * UNIT, "disk": 4 * UNIT} | ({"GPU": gpus * UNIT} if gpus else {})
    return LeaseBook(total, {"GPU": range(gpus)} if gpus else None, **options)


def ask(leases: LeaseBook, demand: dict[str, int], now: float = 0.0, **options: object) -> Ticket:
    ticket = leases.request(options.pop("kind", TicketKind.TASK), options.pop("client", "a"), demand, now, **options)
    assert isinstance(ticket, Ticket), ticket
    return ticket


def held(leases: LeaseBook, demand: dict[str, int], now: float = 0.0, *, process: str = "", **options: object) -> Ticket:
    ticket = ask(leases, demand, now, **options)
    assert leases.admit(now) == [ticket]
    leases.assign(ticket, process or f"worker {ticket.number}")
    return ticket


# Admission --------------------------------------------------------------------------------------------------


def test_what_fits_is_granted_and_the_rest_waits_its_turn() -> None:
    leases = book(cpus=2)
    first, second, third = (ask(leases, CPU) for _ in range(3))
    assert leases.admit(0.0) == [first, second]
    assert leases.admit(0.0) == []
    assert leases.waiting == 1
    leases.release(first)
    assert leases.admit(1.0) == [third]
    leases.check()


def test_higher_priority_first_then_arrival() -> None:
    leases = book(cpus=1)
    running = held(leases, CPU)
    low = ask(leases, CPU)
    later = ask(leases, CPU)
    high = ask(leases, CPU, priority=5)
    order = []
    for _ in range(3):
        leases.release(running)
        [running] = leases.admit(0.0)
        order.append(running)
    assert order == [high, low, later]


def test_arrival_counts_across_different_demands() -> None:
    leases = book(cpus=3)
    running = held(leases, {"CPU": 3 * UNIT})
    first, second, third = ask(leases, CPU), ask(leases, TWO), ask(leases, CPU)
    leases.release(running)
    assert leases.admit(0.0) == [first, second]
    leases.release(first)
    assert leases.admit(0.0) == [third]


def test_a_small_request_may_pass_a_big_one_that_has_not_waited_long() -> None:
    leases = book(cpus=2)
    held(leases, CPU)
    ask(leases, TWO)
    small = ask(leases, CPU)
    assert leases.admit(0.0) == [small]


def test_the_client_with_fewer_leases_comes_first() -> None:
    leases = book(cpus=2)
    one, _ = held(leases, CPU, client="a"), held(leases, CPU, client="a")
    ask(leases, CPU, client="a")
    other = ask(leases, CPU, client="b")
    leases.release(one)
    assert leases.admit(1.0) == [other]


def test_who_has_returned_a_lease_is_as_poor_as_the_others() -> None:
    leases = book(cpus=3)
    first, _, _ = (held(leases, CPU, client=client) for client in ("a", "a", "b"))
    mine, _ = ask(leases, CPU, client="a"), ask(leases, CPU, client="b")
    leases.release(first)
    assert leases.admit(1.0) == [mine], "one lease each: now arrival counts"


def test_release_is_idempotent_and_a_cancelled_ticket_is_never_granted() -> None:
    leases = book(cpus=1)
    first, second, third = held(leases, CPU), ask(leases, CPU), ask(leases, CPU)
    leases.release(second)
    leases.release(first)
    leases.release(first)
    assert leases.admit(0.0) == [third]
    leases.check()


def test_a_demand_for_nothing_is_always_granted() -> None:
    leases = book(cpus=1)
    held(leases, CPU)
    ask(leases, CPU)
    assert ask(leases, {}, kind=TicketKind.ACTOR) in leases.admit(0.0)


def test_more_queues_than_one_pass_looks_at_are_all_served_in_the_end() -> None:
    leases = book(cpus=1)
    running = held(leases, CPU)
    tickets = [ask(leases, {"CPU": units}) for units in range(1, WINDOW * 2)]
    leases.release(running)
    granted = leases.admit(0.0)
    while granted:
        leases.check()
        for ticket in granted:
            leases.release(ticket)
        granted = leases.admit(0.0)
    assert {ticket.state for ticket in tickets} == {TicketState.CLOSED}


# Devices ----------------------------------------------------------------------------------------------------


def test_devices_are_exact() -> None:
    leases = book(gpus=2)
    share = held(leases, {"GPU": 5_000})
    whole = held(leases, {"GPU": UNIT})
    assert (share.devices, whole.devices) == ({"GPU": [0]}, {"GPU": [1]})
    second = ask(leases, {"GPU": UNIT})
    assert leases.admit(0.0) == []
    leases.release(share)
    assert leases.admit(0.0) == [second]
    assert second.devices == {"GPU": [0]}


def test_two_halves_do_not_serve_a_whole_one_and_shares_do_not_starve_it() -> None:
    leases = book(gpus=2, starvation_s=5.0)
    first, _ = held(leases, {"GPU": 6_000}), held(leases, {"GPU": 6_000})
    whole = ask(leases, {"GPU": UNIT}, 0.0)
    share = ask(leases, {"GPU": 4_000}, 6.0)
    assert leases.admit(6.0) == [], "LE-3: no share is given out while a whole device is waited for"
    leases.release(first)
    assert leases.admit(6.0) == [whole, share]


# Starvation (LE-3) ------------------------------------------------------------------------------------------


def big_one_is_granted_at(leases: LeaseBook, until: float) -> float:
    """Two CPUs, kept busy by small leases that overlap, and somebody who wants both."""
    now, running = 0.0, [held(leases, CPU, client="small"), held(leases, CPU, client="small")]
    big = ask(leases, TWO, now, client="big")
    while now < until and big.state is TicketState.WAITING:
        now += 0.5
        ask(leases, CPU, now, client=f"small {now}")
        leases.release(running.pop(0))
        running += leases.admit(now)
    return now


def test_small_requests_cannot_starve_a_big_one() -> None:
    assert big_one_is_granted_at(book(cpus=2, starvation_s=5.0), 60.0) <= 6.0
    assert big_one_is_granted_at(book(cpus=2, starvation_s=1e9), 60.0) == 60.0


def test_a_starving_ticket_reserves_only_what_it_asks_for() -> None:
    leases = book(cpus=4, starvation_s=5.0)
    held(leases, {"CPU": 3 * UNIT})
    ask(leases, TWO, 0.0)
    other = ask(leases, {"disk": UNIT}, 10.0)
    small = ask(leases, CPU, 10.0)
    assert leases.admit(10.0) == [other]
    assert small.state is TicketState.WAITING


def test_a_starving_ticket_does_not_hold_up_a_higher_priority() -> None:
    leases = book(cpus=2, starvation_s=5.0)
    held(leases, CPU)
    ask(leases, TWO, 0.0)
    urgent = ask(leases, CPU, 10.0, priority=1)
    assert leases.admit(10.0) == [urgent]


def test_a_cancelled_starving_ticket_lets_the_others_pass() -> None:
    leases = book(cpus=2, starvation_s=5.0)
    held(leases, CPU)
    big = ask(leases, TWO, 0.0)
    small = ask(leases, CPU, 10.0)
    assert leases.admit(10.0) == []
    leases.release(big)
    assert leases.admit(10.0) == [small]


# Blocking (SEMANTICS 24) ------------------------------------------------------------------------------------


def test_semantics_24_a_blocked_lease_lends_its_cpu_and_nothing_else() -> None:
    leases = book(cpus=1, gpus=1)
    parent = held(leases, {"CPU": UNIT, "GPU": UNIT, "disk": UNIT})
    leases.block(parent)
    assert leases.free().amounts == {"CPU": UNIT, "GPU": 0, "disk": 3 * UNIT}
    child = ask(leases, CPU)
    needs_gpu = ask(leases, {"GPU": UNIT})
    assert leases.admit(0.0) == [child]
    assert needs_gpu.state is TicketState.WAITING


def test_semantics_24_waking_resumes_at_once_and_nothing_is_granted_until_repaid() -> None:
    leases = book(cpus=1)
    parent = held(leases, CPU)
    leases.block(parent)
    child, other = held(leases, CPU), ask(leases, CPU)
    leases.unblock(parent)
    assert leases.free().get("CPU") == -UNIT
    assert leases.admit(0.0) == []
    leases.release(child)
    assert leases.admit(0.0) == []
    leases.release(parent)
    assert leases.admit(0.0) == [other]
    leases.check()


def test_blocking_twice_or_releasing_while_blocked_leaves_nothing_behind() -> None:
    leases = book(cpus=1)
    parent = held(leases, CPU)
    leases.block(parent)
    leases.block(parent)
    leases.release(parent)
    leases.unblock(parent)
    assert leases.free().get("CPU") == UNIT
    leases.check()


def nested(leases: LeaseBook, depth: int) -> list[Ticket]:
    """A driver's task that starts a task that starts a task...: each blocked on the next."""
    chain = []
    for level in range(depth):
        client = f"w{level - 1}" if level else "driver"
        ticket = held(leases, CPU, client=client, name=f"f{level}", process=f"w{level}")
        leases.block(ticket)
        chain.append(ticket)
    return chain


def test_children_come_before_new_parents_so_that_few_workers_block() -> None:
    leases = book(cpus=2)
    parents = [ask(leases, CPU, client="driver", name="parent") for _ in range(100)]
    blocked_most, done, running = 0, 0, leases.admit(0.0)
    children: dict[Ticket, Ticket] = {}
    while done < 100:
        ticket = running.pop(0)
        if ticket.client == "driver":
            leases.assign(ticket, f"w{ticket.number}")
            children[ask(leases, CPU, client=f"w{ticket.number}", name="child")] = ticket
            leases.block(ticket)
        else:
            parent = children[ticket]
            leases.release(ticket)
            leases.unblock(parent)
            leases.release(parent)
            done += 1
        running += leases.admit(0.0)
        blocked_most = max(blocked_most, sum(p.state is TicketState.BLOCKED for p in parents))
    assert blocked_most <= 4


def test_semantics_24_over_the_cap_the_error_names_the_chain() -> None:
    leases = book(cpus=1, blocked_max=3)
    chain = nested(leases, 4)
    assert chain[3].state is TicketState.STUCK
    child = ask(leases, CPU, client="w3", name="f4")
    assert leases.admit(0.0) == []
    [(refused, why)] = leases.too_deep(0.0)
    assert refused is child
    assert child.state is TicketState.CLOSED
    assert why.kind == "too_deep"
    assert "f0 -> f1 -> f2 -> f3 -> f4" in why.reason
    assert "allows 3" in why.reason
    leases.check()


def test_a_stuck_lease_lends_when_another_wakes() -> None:
    leases = book(cpus=1, blocked_max=1)
    chain = nested(leases, 2)
    assert [ticket.state for ticket in chain] == [TicketState.BLOCKED, TicketState.STUCK]
    leases.release(chain[0])
    assert chain[1].state is TicketState.BLOCKED
    leases.check()


def test_while_another_lease_runs_a_deep_one_may_still_wait() -> None:
    leases = book(cpus=2, blocked_max=1, starvation_s=5.0)
    held(leases, CPU, client="other")
    chain = nested(leases, 2)
    assert chain[1].state is TicketState.STUCK
    ask(leases, CPU, 0.0, client="w1")
    assert leases.admit(0.0) == []
    assert leases.too_deep(1.0) == []
    assert len(leases.too_deep(6.0)) == 1


def test_a_long_chain_is_shortened_in_its_error() -> None:
    leases = book(cpus=1, blocked_max=30)
    nested(leases, 31)
    ask(leases, CPU, client="w30", name="last")
    [(_, why)] = leases.too_deep(0.0)
    assert "f0 -> f1 -> f2 -> f3 -> ... 24 more ... -> f28 -> f29 -> f30 -> last" in why.reason


def test_a_task_that_starts_its_successor_and_ends_does_not_go_deeper() -> None:
    leases = book(cpus=2)
    current = held(leases, CPU, client="driver", process="w0")
    for step in range(100):
        successor = held(leases, CPU, client=f"w{step}", process=f"w{step + 1}")
        leases.release(current)
        current = successor
    assert current.depth == 1
    assert current.parent is not None
    assert current.parent.parent is None


# Refusals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("demand", "words"),
    [
        ({"CPU": 3 * UNIT}, ["3 CPU", "has 2 CPU", "nearest", "2 CPU"]),
        ({"CPU": UNIT, "GPU": 4 * UNIT}, ["4 GPU", "has 1 GPU", "1 CPU, 1 GPU"]),
        ({"dsik": UNIT}, ["1 dsik", "has 0 dsik", "'disk'"]),
        ({"memory": 2**30 * UNIT}, ["1 GiB memory", "has 0 B memory"]),
        ({"GPU": 15_000}, ["GPU=1.5", "part of more than one device"]),
    ],
)
def test_what_can_never_fit_is_refused_at_once(demand: dict[str, int], words: list[str]) -> None:
    leases = book(cpus=2, gpus=1)
    refused = leases.request(TicketKind.TASK, "a", demand, 0.0)
    assert isinstance(refused, Refused)
    assert refused.kind == "infeasible"
    assert [word for word in words if word not in refused.reason] == []


def two_types(**options: object) -> LeaseBook:
    """An A100, and two T4."""
    total = {"CPU": 8 * UNIT, "GPU": 3 * UNIT, "accelerator_type:A100": UNIT, "accelerator_type:T4": UNIT}
    return LeaseBook(total, {"GPU": range(3)}, device_types={"GPU": {0: "A100", 1: "T4", 2: "T4"}}, **options)


T4 = {"GPU": UNIT, "accelerator_type:T4": 10}


@pytest.mark.parametrize(
    ("demand", "words"),
    [
        ({"GPU": 3 * UNIT, "accelerator_type:T4": 10}, ["3 GPU of the type T4", "has 2 GPU of it", "2 GPU, an accelerator of the type T4"]),
        ({"accelerator_type:A10": 10}, ["of the type A10,", "accelerators of the type A100, T4", "an accelerator of the type A100"]),
        ({"CPU": UNIT, "accelerator_type:zzz": 10}, ["of the type zzz,", "1 CPU, an accelerator of the type A100"]),
    ],
)
def test_a_type_that_is_not_there_is_refused_with_the_nearest(demand: dict[str, int], words: list[str]) -> None:
    refused = two_types().request(TicketKind.TASK, "a", demand, 0.0)
    assert isinstance(refused, Refused)
    assert [word for word in words if word not in refused.reason] == []


def test_a_node_without_accelerators_says_that_it_has_none() -> None:
    refused = book().request(TicketKind.TASK, "a", {"CPU": UNIT, "accelerator_type:A100": 10}, 0.0)
    assert isinstance(refused, Refused)
    assert refused.reason.endswith("this node has no accelerator of a known type. The nearest demand that fits: 1 CPU")


def test_a_type_is_waited_for_while_devices_of_another_are_free() -> None:
    leases = two_types()
    first, second = held(leases, T4), held(leases, T4)
    assert (first.devices, second.devices) == ({"GPU": [1]}, {"GPU": [2]})
    third = ask(leases, T4)
    assert leases.admit(0.0) == []
    leases.release(second)
    assert leases.admit(0.0) == [third]
    assert third.devices == {"GPU": [2]}
    leases.check()


def test_a_type_that_was_waited_for_is_kept_free() -> None:
    """LE-3, where what is missing are devices of a type."""
    leases = two_types(starvation_s=5.0)
    share = held(leases, {"GPU": 5_000, "accelerator_type:T4": 10})
    both = ask(leases, {"GPU": 2 * UNIT, "accelerator_type:T4": 10})
    assert leases.admit(6.0) == []
    ask(leases, {"GPU": 5_000, "accelerator_type:T4": 10}, now=6.0)
    assert leases.admit(6.0) == []
    leases.release(share)
    assert leases.admit(6.0)[0] is both
    leases.check()


def test_a_full_queue_says_so() -> None:
    leases = book(cpus=1, waiting_max=2)
    held(leases, CPU)
    ask(leases, CPU)
    ask(leases, CPU)
    refused = leases.request(TicketKind.TASK, "a", CPU, 0.0)
    assert isinstance(refused, Refused)
    assert refused.kind == "full"


# Clients and fairness ---------------------------------------------------------------------------------------


def test_a_lost_client_takes_its_requests_along_and_leaves_its_workers_to_be_ended() -> None:
    leases = book(cpus=2)
    first, other = held(leases, CPU, client="a"), held(leases, CPU, client="b")
    ask(leases, CPU, client="a")
    assert leases.client_lost("a") == [first]
    assert leases.waiting == 0
    assert first.state is TicketState.HELD, "its worker still runs"
    leases.release(first)
    leases.release(other)
    assert leases.tickets() == []
    assert leases.client_lost("nobody") == []


def test_who_holds_all_is_asked_when_another_waits() -> None:
    leases = book(cpus=4)
    mine = [held(leases, CPU, 0.0, client="a") for _ in range(4)]
    ask(leases, CPU, 1.0, client="b")
    ask(leases, CPU, 1.0, client="b")
    leases.admit(1.0)
    assert leases.reclaim(1.0) == [], "not before the waiting is worth it"
    assert leases.reclaim(1.2) == mine[:1], "one for the head of the queue"
    assert leases.reclaim(1.3) == [], "it was asked, and has a while to answer"
    leases.release(mine[0])
    leases.admit(1.4)
    assert leases.reclaim(1.4) == mine[1:2]
    leases.release(mine[1])
    leases.admit(1.5)
    ask(leases, CPU, 1.5, client="b")
    assert leases.reclaim(2.0) == [], "LS-1: two each is fair"


def test_a_lease_whose_worker_still_starts_is_not_asked_for() -> None:
    leases = book(cpus=1)
    starting = ask(leases, CPU, client="a")
    ask(leases, CPU, client="b")
    assert leases.admit(0.0) == [starting]
    assert leases.reclaim(1.0) == []
    leases.assign(starting, "w")
    assert leases.reclaim(2.0) == [starting]


def test_nobody_is_asked_for_the_sake_of_itself() -> None:
    leases = book(cpus=2)
    held(leases, CPU, client="a")
    held(leases, CPU, client="a")
    ask(leases, CPU, client="a")
    leases.admit(0.0)
    assert leases.reclaim(10.0) == []


def test_another_demand_of_the_same_client_gets_its_turn() -> None:
    leases = book(cpus=2)
    first, second = held(leases, CPU, client="a"), held(leases, CPU, client="a")
    ask(leases, TWO, client="a")
    leases.admit(0.0)
    assert leases.reclaim(1.0) == [first, second]


def test_one_cpu_is_shared_in_time() -> None:
    leases = book(cpus=1)
    current, now, turns = held(leases, CPU, client="a"), 0.0, []
    for _ in range(6):
        waiter = "b" if current.client == "a" else "a"
        ask(leases, CPU, now, client=waiter)
        leases.admit(now)
        now += 0.2
        assert leases.reclaim(now) == [current]
        leases.release(current)
        [current] = leases.admit(now)
        leases.assign(current, "w")
        turns.append(current.client)
    assert turns == ["b", "a", "b", "a", "b", "a"]


def test_lower_priority_is_asked_and_higher_is_not() -> None:
    leases = book(cpus=2)
    low, _ = held(leases, CPU, client="a"), held(leases, CPU, client="b", priority=2)
    ask(leases, TWO, client="c", priority=1)
    leases.admit(0.0)
    assert leases.reclaim(1.0) == [low]


def test_blocked_leases_are_not_asked() -> None:
    leases = book(cpus=1, starvation_s=100.0)
    blocked = held(leases, CPU, client="a")
    leases.block(blocked)
    running = held(leases, CPU, client="a")
    ask(leases, CPU, client="b")
    leases.admit(0.0)
    assert leases.reclaim(1.0) == [running]
    leases.unblock(blocked)
    assert leases.reclaim(3.0) == [blocked]


def test_actors_are_not_asked_but_leases_are_asked_for_them() -> None:
    leases = book(cpus=2)
    held(leases, CPU, client="head", kind=TicketKind.ACTOR)
    lease = held(leases, CPU, client="a")
    ask(leases, CPU, client="head", kind=TicketKind.ACTOR)
    leases.admit(0.0)
    assert leases.reclaim(1.0) == [lease]


# Everything at once -----------------------------------------------------------------------------------------

DEMANDS = st.fixed_dictionaries(
    {},
    optional={
        "CPU": st.sampled_from([5_000, UNIT, 2 * UNIT, 4 * UNIT]),
        "GPU": st.sampled_from([2_500, 7_500, UNIT, 2 * UNIT]),
        "disk": st.sampled_from([UNIT, 4 * UNIT]),
    },
)


class Leases(RuleBasedStateMachine):
    """LE-1 to LE-4 under any order of events; and at the end everyone feasible has been granted."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.number = 0
        self.open: list[Ticket] = []

    @initialize(blocked_max=st.integers(0, 3), cpus=st.integers(1, 4))
    def start(self, blocked_max: int, cpus: int) -> None:
        self.book = book(cpus=cpus, gpus=2, blocked_max=blocked_max)

    def granted(self) -> list[Ticket]:
        return [t for t in self.open if t.state not in (TicketState.WAITING, TicketState.CLOSED)]

    @rule(
        demand=DEMANDS,
        priority=st.integers(-1, 1),
        client=st.sampled_from(["a", "b", "c"]),
        nested=st.booleans(),
        kind=st.sampled_from(TicketKind),
        data=st.data(),
    )
    def request(
        self,
        demand: dict[str, int],
        priority: int,
        client: str,
        nested: bool,
        kind: TicketKind,
        data: st.DataObject,
    ) -> None:
        running = self.granted()
        if nested and running:
            client = data.draw(st.sampled_from(running)).process
        ticket = self.book.request(kind, client, demand, self.now, priority=priority, name=f"n{self.number}")
        if isinstance(ticket, Refused):
            assert not self.book.total.fits(demand)
        else:
            self.open.append(ticket)

    @rule()
    def admit(self) -> None:
        before = self.book.free()
        granted = self.book.admit(self.now)
        for ticket in granted:
            assert ticket.state is TicketState.HELD
            assert before.fits(ticket.demand), "LE-1: a grant never goes over the capacity"
            before.subtract(ticket.demand)
            self.number += 1
            self.book.assign(ticket, f"w{self.number}")
        assert self.book.admit(self.now) == []

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        self.book.release(self.open.pop(data.draw(st.integers(0, len(self.open) - 1))))

    @precondition(lambda self: self.granted())
    @rule(data=st.data(), wakes=st.booleans())
    def block_or_wake(self, data: st.DataObject, wakes: bool) -> None:
        ticket = data.draw(st.sampled_from(self.granted()))
        if wakes:
            self.book.unblock(ticket)
        else:
            self.book.block(ticket)

    @rule(client=st.sampled_from(["a", "b", "c"]))
    def lose(self, client: str) -> None:
        for ticket in self.book.client_lost(client):
            self.book.release(ticket)
        self.open = [ticket for ticket in self.open if ticket.state is not TicketState.CLOSED]

    @rule(seconds=st.sampled_from([0.05, 1.0, 6.0]))
    def time(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def look(self) -> None:
        asked = self.book.reclaim(self.now)
        assert all(ticket.kind is TicketKind.TASK and ticket.state is TicketState.HELD for ticket in asked)
        refused = [ticket for ticket, _ in self.book.too_deep(self.now)]
        self.open = [ticket for ticket in self.open if ticket not in refused]

    @invariant()
    def holds(self) -> None:
        if hasattr(self, "book"):
            self.book.check()

    def teardown(self) -> None:
        """Everyone feasible is eventually granted when those before it end."""
        if not hasattr(self, "book"):
            return
        for _ in range(len(self.open) + 1):
            self.now += 1.0
            self.book.admit(self.now)
            for ticket in self.granted():
                self.book.release(ticket)
            self.open = [ticket for ticket in self.open if ticket.state is not TicketState.CLOSED]
        assert self.open == [], "LE-3: somebody was never granted"
        assert self.book.free() == self.book.total, "LE-2: something was not given back"


Leases.TestCase.settings = settings(max_examples=200, stateful_step_count=40)
TestLeases = Leases.TestCase
