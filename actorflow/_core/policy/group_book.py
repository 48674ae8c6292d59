"""Tickets for leases in the bundles of one placement group on one node. Pure.

All that a LeaseBook is (order, starvation, lent CPU, asking back), with the bundles as its room: a ticket is granted in
one bundle, the one it asks for or (index -1) the first with room.

GB-1: what a granted ticket holds is one lease of `Bundles`, given back exactly once.
GB-2: a ticket that starves keeps one bundle closed for those behind it (LE-3): the one that it asks for, or with index -1, of
      those that could ever hold it, the one in which actors, which stay, leave most of what it asks for; of equals the first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

from actorflow._core.base.ids import GroupId
from actorflow._core.base.resources import ResourceSet
from actorflow._core.policy.bundles import Bundle, Bundles
from actorflow._core.policy.lease_shares import HOLD_S, PATIENCE_S
from actorflow._core.policy.leases import WAITERS_MAX, LeaseBook
from actorflow._core.policy.placement_decisions import BundleLease, NodeDecision
from actorflow._core.policy.tickets import Book, Demand, Refused, Ticket, TicketKind, TicketState

CLOSED = "bundle "
"""How a bundle that is kept for somebody stands among what is reserved: `bundle 3`."""


class BundleTicket(Ticket):
    """A request for a part of a bundle. `index` -1: of any one."""

    __slots__ = ("index", "lease")

    def __init__(
        self, book: Book, number: int, kind: TicketKind, client: str, demand: Demand, priority: int, name: str, now: float, index: int
    ) -> None:
        super().__init__(book, number, kind, client, demand, priority, name, now)
        self.index = index
        self.lease: BundleLease | None = None
        self.shape = ((CLOSED, index), *self.shape)

    def may_use(self, other: BundleTicket) -> bool:
        """True when what the other one holds is in a bundle where this one would go."""
        return other.lease is not None and self.index in (-1, other.lease.index)


class GroupBook(LeaseBook):
    """See the module. `said` gets what the bundles decide on the way, for the shell to carry out."""

    __slots__ = ("_actors", "_bundles", "_reserved", "_said", "group_id")

    def __init__(
        self,
        group_id: GroupId,
        bundles: Bundles,
        by_process: dict[str, Ticket],
        said: list[NodeDecision],
        *,
        starvation_s: float = 5.0,
        blocked_max: int = 256,
        waiting_max: int = 1_000_000,
    ) -> None:
        super().__init__({}, starvation_s=starvation_s, blocked_max=blocked_max, waiting_max=waiting_max)
        self.group_id = group_id
        self._bundles = bundles
        self._said = said
        self._reserved: dict[str, int] = {}
        """What the pass that is under way keeps for those who starve."""
        self._actors: dict[Bundle, ResourceSet] = {}
        """What actors hold of each bundle in which they hold anything."""
        self.by_process = by_process  # One for all books of a node: nesting goes across them.

    def request_in(
        self, index: int, kind: TicketKind, client: str, demand: Demand, now: float, *, priority: int = 0, name: str = ""
    ) -> Ticket | Refused:
        """Queue a request; or refuse what is not on this node (`moved`) or does not fit in the bundle it names (`infeasible`)."""
        if refused := self._why_not(index, demand):
            return refused
        if self.waiting >= self.waiting_max:
            return Refused("full", f"{self.waiting} requests wait in placement group {self.group_id} on this node, as many as it keeps")
        self._number += 1
        return self._enter(BundleTicket(self, self._number, kind, client, demand, priority, name, now, index))

    def stranded(self) -> list[tuple[Ticket, Refused]]:
        """Tickets that wait for what is not here any more; released."""
        found = []
        for ticket in self.tickets():
            if ticket.state is TicketState.WAITING:
                refused = self._why_not(cast(BundleTicket, ticket).index, ticket.demand)
                if refused is not None:
                    self.release(ticket)
                    found.append((ticket, refused))
        return found

    def _why_not(self, index: int, demand: Demand) -> Refused | None:
        reason = self._bundles.why_never(self.group_id, index, demand)
        if not reason:
            return None
        # Of any bundle (-1) a node never has the last word: another one of the group, which it does not know, may hold that.
        final = index >= 0 and self._bundles.has(self.group_id, index)
        return Refused("infeasible" if final else "moved", reason)

    def idle(self) -> bool:
        """True when there is no ticket."""
        return not self._clients

    # -- LeaseBook, with bundles for a room

    def admit(self, now: float, aside: Demand | None = None) -> list[Ticket]:
        """As LeaseBook.admit; what is set aside on the node is no concern of what the bundles have."""
        if not self._dirty:
            return []
        self._look()
        return super().admit(now)

    def _look(self) -> None:
        """What is free in all bundles together: a bound on what one has."""
        free = self._free = ResourceSet()
        for bundle in self._bundles.open_bundles(self.group_id).values():
            free.add({name: max(0, units) for name, units in bundle.pool.free.amounts.items()})

    def _fits(self, ticket: Ticket, reserved: dict[str, int]) -> bool:
        index = cast(BundleTicket, ticket).index
        return self._bundles.fits(self.group_id, index, ticket.demand, but=_closed(reserved))

    def _reserve(self, ticket: Ticket, reserved: dict[str, int]) -> None:
        index = cast(BundleTicket, ticket).index
        closed = _closed(reserved)
        best, least = -1, math.inf
        for number, bundle in self._bundles.open_bundles(self.group_id).items():
            if index in (-1, number) and number not in closed and bundle.pool.total.fits(ticket.demand):
                lacks = self._lacks(bundle, ticket.demand)
                if lacks < least:
                    best, least = number, lacks
                if not lacks:
                    break
        if best >= 0:
            reserved[f"{CLOSED}{best}"] = best

    def _lacks(self, bundle: Bundle, demand: Demand) -> float:
        """How much of `demand` actors leave no room for in a bundle, in parts of each amount; 0 when all of it will fit."""
        actors = self._actors.get(bundle)
        if actors is None:
            return 0.0
        total = bundle.pool.total
        return sum(max(0, units - total.get(name) + actors.get(name)) / units for name, units in demand.items() if units)

    def _pass(self, granted: list[Ticket], now: float, reserved: dict[str, int]) -> None:
        self._reserved = reserved
        super()._pass(granted, now, reserved)

    def _take(self, ticket: Ticket) -> None:
        ticket = cast(BundleTicket, ticket)
        lease = self._bundles.take(self.group_id, ticket.index, ticket.demand, ticket, but=_closed(self._reserved))
        assert lease is not None, "GB-1: it fitted"
        ticket.lease, ticket.devices = lease, lease.devices
        self._free.subtract(ticket.demand)
        if ticket.kind is TicketKind.ACTOR:
            self._actors.setdefault(self._bundles.bundle_of(lease), ResourceSet()).add(ticket.demand)

    def _give(self, ticket: Ticket) -> None:
        lease = cast(BundleTicket, ticket).lease
        assert lease is not None, "GB-1: a granted ticket has a lease"
        if ticket.kind is TicketKind.ACTOR:
            bundle = self._bundles.bundle_of(lease)
            actors = self._actors.get(bundle)  # None: those that are left in it hold nothing.
            if actors is not None:
                actors.subtract(ticket.demand)
                if not actors.names():
                    del self._actors[bundle]
        self._said += self._bundles.give(lease)

    def _lend_cpu(self, ticket: Ticket, cpu: int) -> None:
        lease = cast(BundleTicket, ticket).lease
        if lease is not None:
            self._bundles.lend(lease)

    def _take_back_cpu(self, ticket: Ticket, cpu: int) -> None:
        lease = cast(BundleTicket, ticket).lease
        if lease is not None:
            self._bundles.unlend(lease)

    # -- asking back

    def reclaim(self, now: float) -> list[Ticket]:
        """Leases that their owners should return because others wait for just those bundles (LS-1, LS-2)."""
        asked: list[Ticket] = []
        heads = [head for head in self._order.heads(WAITERS_MAX) if head.requested_at <= now - self.reclaim_after_s]
        if not heads:
            return asked
        held = [cast(BundleTicket, ticket) for ticket in self.tickets() if ticket.kind is TicketKind.TASK]
        coming = [t for t in held if t.lease is not None and t.asked_at is not None and now - t.asked_at < PATIENCE_S]
        for head in heads:
            waiter = cast(BundleTicket, head)
            if self._bundles.fits(self.group_id, waiter.index, waiter.demand):
                continue
            for_it = [ticket for ticket in coming if waiter.may_use(ticket)]
            if for_it:
                coming.remove(for_it[0])
                continue
            donor = _donor(waiter, [ticket for ticket in held if waiter.may_use(ticket)], now)
            if donor is not None:
                donor.asked_at = now
                asked.append(donor)
        return asked

    def check(self, elsewhere: Demand | None = None) -> None:
        """Assert every invariant; for tests."""
        leases = {lease for bundle in self._every_bundle() for lease in bundle.leases}
        for ticket in self.tickets():
            lease = cast(BundleTicket, ticket).lease
            if ticket.state is TicketState.WAITING:
                assert lease is None, f"GB-1: {ticket} waits and has a lease"
            else:
                assert lease in leases, f"GB-1: {ticket} is granted, and no bundle knows of it"
        actors: dict[Bundle, ResourceSet] = {}
        for ticket in self.tickets():
            lease = cast(BundleTicket, ticket).lease
            if ticket.kind is TicketKind.ACTOR and lease is not None:
                actors.setdefault(self._bundles.bundle_of(lease), ResourceSet()).add(ticket.demand)
        for bundle in actors.keys() | self._actors.keys():
            held, believed = (known.get(bundle, ResourceSet()) for known in (actors, self._actors))
            assert held == believed, f"GB-2: actors hold {held} of a bundle, and {believed} is believed"
        self._order.check()

    def _every_bundle(self) -> list[Bundle]:
        return [
            bundle
            for reservation in self._bundles.reservations()
            if reservation.group_id == self.group_id
            for bundle in reservation.bundles.values()
        ]


def _donor(waiter: BundleTicket, held: list[BundleTicket], now: float) -> BundleTicket | None:
    """The lease that had best be asked for: of whoever has the most where the waiter wants to be (LS-1)."""

    def side(ticket: BundleTicket) -> object:
        return ticket.client if ticket.client != waiter.client else (ticket.client, ticket.shape)

    gives: dict[object, int] = {}
    for ticket in held:
        if ticket.asked_at is None:
            gives[side(ticket)] = gives.get(side(ticket), 0) + 1
    for ticket in sorted(held, key=lambda ticket: -gives.get(side(ticket), 0)):
        settled = ticket.process and ticket.state is TicketState.HELD and now - ticket.granted_at >= HOLD_S
        if not settled or ticket.asked_at is not None or ticket.priority > waiter.priority:
            continue
        if ticket.client != waiter.client:
            has = sum(other.client == waiter.client for other in held)
        else:
            has = sum(side(other) == side(waiter) for other in held)
        if ticket.priority < waiter.priority or gives[side(ticket)] > has + 1 or has == 0:
            return ticket
    return None


def _closed(reserved: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(reserved.values())
