"""Tickets in the bundles of one group: granted in one bundle, asked back for it, and given back exactly once. No loop, no clock."""

from __future__ import annotations

import random
from typing import Any

import pytest

from actorflow._core.base.resources import UNIT
from actorflow._core.policy.bundles import Bundles
from actorflow._core.policy.group_book import BundleTicket, GroupBook
from actorflow._core.policy.placement_decisions import KillLease, NodeDecision, Returned
from actorflow._core.policy.resource_pool import ResourcePool
from actorflow._core.policy.tickets import Refused, Ticket, TicketKind, TicketState

CPU = {"CPU": UNIT}
TWO = {"CPU": 2 * UNIT}
G = "group"


class Node:
    """A node with the bundles of one group, committed, and its book."""

    def __init__(self, *bundles: dict[str, int], **options: Any) -> None:
        self.pool = ResourcePool({"CPU": 8 * UNIT, "GPU": 2 * UNIT}, {"GPU": range(2)})
        self.bundles = Bundles(self.pool)
        self.said: list[NodeDecision] = []
        self.book = GroupBook(G, self.bundles, {}, self.said, **options)
        if bundles:
            self.bundles.prepare(G, 1, dict(enumerate(bundles)), 0.0, keep_s=1.0, commit=True)

    def ask(self, index: int, demand: dict[str, int] = CPU, now: float = 0.0, client: str = "a", **options: Any) -> BundleTicket:
        ticket = self.book.request_in(index, options.pop("kind", TicketKind.TASK), client, demand, now, **options)
        assert isinstance(ticket, BundleTicket), ticket
        return ticket

    def held(self, index: int, demand: dict[str, int] = CPU, now: float = 0.0, client: str = "a", **options: Any) -> BundleTicket:
        ticket = self.ask(index, demand, now, client, **options)
        assert self.book.admit(now) == [ticket]
        self.book.assign(ticket, f"worker {ticket.number} of {client}")
        return ticket

    def check(self) -> None:
        self.book.check()
        self.pool.check(self.bundles.check())


def test_a_ticket_is_granted_in_its_bundle_and_the_rest_waits() -> None:
    node = Node(CPU, TWO)
    first, second = node.ask(0), node.ask(0)
    assert node.book.admit(0.0) == [first]
    assert first.lease is not None
    assert (first.lease.index, second.state) == (0, TicketState.WAITING), "bundle 1 has room, and is not what it asks for"
    node.book.release(first)
    assert node.book.admit(0.0) == [second]
    node.check()


def test_any_bundle_is_the_first_with_room_and_never_two_of_them() -> None:
    node = Node(CPU, TWO)
    tickets = [node.ask(-1) for _ in range(4)]
    assert node.book.admit(0.0) == tickets[:3]
    assert [ticket.lease.index for ticket in tickets[:3] if ticket.lease is not None] == [0, 1, 1]
    wide = node.ask(-1, TWO)
    node.book.release(tickets[0])
    node.book.release(tickets[3])
    node.book.release(tickets[1])
    assert node.book.admit(0.0) == [], "two are free, in two bundles"
    node.book.release(tickets[2])
    assert node.book.admit(0.0) == [wide]
    node.check()


def test_what_is_not_here_and_what_never_fits_is_said_at_once() -> None:
    node = Node(CPU, TWO)
    for index, demand, kind in ((5, CPU, "moved"), (0, TWO, "infeasible")):
        refused = node.book.request_in(index, TicketKind.TASK, "a", demand, 0.0)
        assert isinstance(refused, Refused)
        assert refused.kind == kind
    assert node.book.idle()
    empty = Node()
    refused = empty.book.request_in(-1, TicketKind.TASK, "a", CPU, 0.0)
    assert isinstance(refused, Refused)
    assert (refused.kind, "ask the head where it is" in refused.reason) == ("moved", True)


def test_of_any_bundle_a_node_never_has_the_last_word() -> None:
    """The group may have a larger bundle elsewhere, or one that has no place now: the owner and the head know."""
    node = Node(CPU, TWO)
    refused = node.book.request_in(-1, TicketKind.TASK, "a", {"CPU": 3 * UNIT}, 0.0)
    assert isinstance(refused, Refused)
    assert refused == Refused("moved", f"placement group {G}: none of its bundles on this node can hold 3 CPU; ask the head for others")
    node.bundles.prepare(G, 2, {2: {"CPU": 3 * UNIT}}, 0.0, keep_s=1.0, commit=True)
    inside = node.held(2)
    ticket = node.ask(-1, {"CPU": 3 * UNIT})
    assert node.book.admit(0.0) == []
    node.bundles.cancel(G, 2)
    assert node.book.stranded() == [(ticket, refused)]
    node.book.release(inside)
    node.check()


def test_a_bundle_that_is_only_prepared_is_waited_for() -> None:
    node = Node()
    node.bundles.prepare(G, 1, {0: CPU}, 0.0, keep_s=1.0)
    ticket = node.ask(0)
    assert node.book.admit(0.0) == []
    node.bundles.commit(G, 1)
    node.book.touch()
    assert node.book.admit(0.0) == [ticket]
    node.check()


def test_who_waits_for_a_bundle_that_goes_is_stranded_and_who_is_in_it_is_killed() -> None:
    node = Node(CPU)
    inside = node.held(0)
    waiting = node.ask(0)
    decisions = node.bundles.return_group(G, 1)
    assert decisions == [KillLease(inside.lease, "its placement group was removed", removed=True)]  # type: ignore[arg-type]
    [(ticket, refused)] = node.book.stranded()
    assert (ticket, refused.kind, waiting.state) == (waiting, "moved", TicketState.CLOSED)
    node.check()
    node.book.release(inside)
    node.book.release(inside)
    assert node.said == [Returned(G, 1)], "GB-1"
    assert node.pool.free == node.pool.total
    assert node.book.idle()


def test_a_blocked_ticket_lends_its_cpu_to_its_bundle_alone() -> None:
    node = Node(CPU, CPU)
    outer = node.held(0)
    inner, beside = node.ask(0), node.held(1, client="b")
    node.ask(1, client="c")
    node.book.block(outer)
    assert node.book.admit(0.0) == [inner]
    node.book.unblock(outer)
    again = node.ask(0)
    assert node.book.admit(0.0) == [], "its bundle owes a CPU"
    node.book.release(inner)
    node.book.release(outer)
    assert node.book.admit(0.0) == [again]
    assert beside.state is TicketState.HELD
    node.check()


def test_too_many_blocked_ones_are_refused_with_the_chain() -> None:
    node = Node(CPU, blocked_max=1)
    outer = node.held(0, name="outer")
    node.book.block(outer)
    middle = node.ask(0, client=outer.process, name="middle")
    assert node.book.admit(0.0) == [middle]
    node.book.assign(middle, "worker of middle")
    node.book.block(middle)
    inner = node.ask(0, client="worker of middle", name="inner")
    assert node.book.admit(0.0) == []
    [(ticket, refused)] = node.book.too_deep(1.0)
    assert (ticket, refused.kind) == (inner, "too_deep")
    assert "outer -> middle -> inner" in refused.reason
    node.check()


def test_gb_2_a_ticket_that_starves_keeps_one_bundle_closed() -> None:
    node = Node(TWO, TWO, starvation_s=5.0)
    small = [node.held(index, client="b") for index in (0, 0, 1, 1)]
    wide = node.ask(-1, TWO, now=1.0)
    node.book.release(small[0])
    late = node.ask(-1, now=2.0, client="c")
    assert node.book.admit(2.0) == [late], "it does not starve yet"
    later = node.ask(-1, now=7.0, client="d")
    node.book.release(small[1])
    assert node.book.admit(7.0) == [], "bundle 0 is kept"
    node.book.release(small[2])
    assert node.book.admit(7.0) == [later], "bundle 1 is not"
    node.book.release(late)
    assert node.book.admit(8.0) == [wide]
    node.check()


def test_gb_2_no_bundle_is_kept_that_an_actor_fills_for_good_while_there_is_another() -> None:
    node = Node(TWO, {"GPU": UNIT}, TWO, starvation_s=5.0)
    node.held(0, TWO, kind=TicketKind.ACTOR, client="actors")
    node.held(2, {}, kind=TicketKind.ACTOR, client="actors")
    small = [node.held(2, client="b") for _ in range(2)]
    wide = node.ask(-1, TWO, now=0.0)
    late = node.ask(-1, now=6.0, client="c")
    node.book.release(small[0])
    assert node.book.admit(6.0) == [], "bundle 2 is kept: the actor there holds nothing, and bundle 1 has no CPU"
    node.book.release(small[1])
    assert node.book.admit(6.0) == [wide]
    assert late.state is TicketState.WAITING
    node.check()


def test_gb_2_where_actors_are_everywhere_the_bundle_in_which_they_hold_least_is_kept() -> None:
    node = Node({"CPU": 3 * UNIT}, {"CPU": 3 * UNIT}, starvation_s=5.0)
    actors = [node.held(index, CPU, kind=TicketKind.ACTOR, client="actors") for index in (0, 0, 1)]
    small = [node.held(index, client="b") for index in (0, 1, 1)]
    wide = node.ask(-1, {"CPU": 3 * UNIT}, now=0.0)
    late = [node.ask(-1, now=6.0, client="c") for _ in range(3)]
    for ticket in small:
        node.book.release(ticket)
    assert node.book.admit(6.0) == late[:1], "in bundle 0; all that is free in bundle 1 is kept"
    node.book.release(actors[2])
    assert node.book.admit(6.0) == [wide]
    for ticket in (actors[0], actors[1], wide):
        node.book.release(ticket)
    assert not node.book._actors
    node.check()


def test_leases_are_asked_back_where_somebody_waits() -> None:
    node = Node(CPU, CPU)
    rich = [node.held(0, client="a"), node.held(1, client="a")]
    node.ask(1, now=1.0, client="b")
    assert node.book.reclaim(1.05) == [], "not before it has waited a moment"
    assert node.book.reclaim(1.2) == [rich[1]], "the one in the bundle it wants"
    assert node.book.reclaim(1.3) == [], "once, and it may be on its way"
    node.ask(0, now=1.0, client="a")
    assert node.book.reclaim(1.4) == [], "LS-1: not from oneself to oneself"
    node.ask(0, now=1.0, client="c", priority=1)
    assert node.book.reclaim(1.5) == [rich[0]]
    node.check()


def test_actors_are_never_asked_back() -> None:
    node = Node(CPU)
    node.held(0, kind=TicketKind.ACTOR, client="actors")
    node.ask(0, now=1.0, client="b")
    assert node.book.reclaim(9.0) == []


def test_devices_are_those_of_the_bundle() -> None:
    node = Node({"GPU": UNIT}, {"GPU": UNIT})
    first, second = node.held(0, {"GPU": UNIT}), node.held(1, {"GPU": UNIT // 2})
    assert sorted([*first.devices["GPU"], *second.devices["GPU"]]) == [0, 1]
    node.check()


@pytest.mark.parametrize("seed", range(40))
def test_any_history_leaves_nothing_behind(seed: int) -> None:
    """Requests, blocks, releases and losses at random: every book agrees with itself after each step, and all is back at the end."""
    rng = random.Random(seed)
    node = Node(CPU, TWO, {"CPU": 3 * UNIT}, starvation_s=2.0, blocked_max=3)
    tickets: list[Ticket] = []
    removed_at = rng.randrange(40, 80)
    for step in range(100):
        now = step * 0.3
        roll = rng.random()
        held = [t for t in tickets if t.state in (TicketState.HELD, TicketState.BLOCKED, TicketState.STUCK)]
        if step == removed_at:
            node.said += [decision for decision in node.bundles.return_group(G, 1) if not isinstance(decision, KillLease)]
            node.book.stranded()
        elif roll < 0.5:
            client = rng.choice([f"driver {rng.randrange(3)}", *(t.process for t in held if t.process)])
            kind = rng.choice([TicketKind.TASK, TicketKind.TASK, TicketKind.ACTOR])
            answer = node.book.request_in(
                rng.randrange(-1, 3), kind, client, {"CPU": rng.randint(1, 3) * UNIT}, now, priority=rng.randrange(2)
            )
            assert isinstance(answer, Ticket) or answer.kind in ("moved", "infeasible")
            tickets += [answer] if isinstance(answer, Ticket) else []
        elif held and roll < 0.6:
            node.book.block(rng.choice(held))
        elif held and roll < 0.7:
            node.book.unblock(rng.choice(held))
        elif tickets:
            node.book.release(tickets.pop(rng.randrange(len(tickets))))
        for granted in node.book.admit(now):
            node.book.assign(granted, f"worker {granted.number}")
        node.book.too_deep(now)
        node.book.reclaim(now)
        node.check()
    for ticket in tickets:
        node.book.release(ticket)
    node.check()
    assert node.book.idle()
    assert node.said == [Returned(G, 1)]
    assert node.pool.free == node.pool.total
