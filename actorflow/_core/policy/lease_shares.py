"""Shares: which client holds how many leases, and who is asked to give some back because others wait. Pure.

The owner of tasks keeps a lease as long as it has tasks for it, so one that has a million tasks would keep
all workers. `reclaim` is the answer: the node asks, the owner lets the worker finish what it has pushed and
returns the lease.

LS-1: an owner is asked only for the sake of one that has fewer leases by two or more, or has none at all,
      or whose ticket has a higher priority. So leases do not move to and fro between two that are as well
      off as they can be.
LS-2: a lease is asked back once, and not before its owner has had it for HOLD_S.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from actorflow._core.base.resources import ResourceSet
from actorflow._core.policy.tickets import Demand, Shape, Ticket

HOLD_S = 0.1
"""The least time that a lease is left alone after its grant."""
PATIENCE_S = 1.0
"""A lease that does not come back within this time is not counted on any more, and others are asked."""


class _Client:
    """What one client holds; `asked` of its leases are to come back."""

    __slots__ = ("asked", "leases")

    def __init__(self) -> None:
        self.leases = 0
        self.asked = 0


class _Group:
    """The leases of one client with one demand and one priority; `unasked` in the order of their grants."""

    __slots__ = ("client", "demand", "held", "priority", "unasked")

    def __init__(self, client: str, demand: Demand, priority: int) -> None:
        self.client = client
        self.demand = demand
        self.priority = priority
        self.held = 0
        self.unasked: OrderedDict[int, Ticket] = OrderedDict()


class Shares:
    """The leases that are held, by client. Actors are not in here: nobody asks them to go."""

    __slots__ = ("_asked", "_clients", "_groups")

    def __init__(self) -> None:
        self._clients: dict[str, _Client] = {}
        self._groups: dict[tuple[str, Shape, int], _Group] = {}
        self._asked: dict[int, Ticket] = {}

    def leases_of(self, client: str) -> int:
        """How many leases a client holds."""
        share = self._clients.get(client)
        return share.leases if share is not None else 0

    def granted(self, ticket: Ticket) -> None:
        """Count a new lease."""
        client = self._clients.get(ticket.client)
        if client is None:
            client = self._clients[ticket.client] = _Client()
        client.leases += 1
        key = (ticket.client, ticket.shape, ticket.priority)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group(ticket.client, ticket.demand, ticket.priority)
        group.held += 1
        group.unasked[ticket.number] = ticket

    def released(self, ticket: Ticket) -> None:
        """Forget a lease."""
        client = self._clients[ticket.client]
        client.leases -= 1
        if self._asked.pop(ticket.number, None) is not None:
            client.asked -= 1
        if not client.leases:
            del self._clients[ticket.client]
        key = (ticket.client, ticket.shape, ticket.priority)
        group = self._groups[key]
        group.held -= 1
        group.unasked.pop(ticket.number, None)
        if not group.held:
            del self._groups[key]

    def blocked(self, ticket: Ticket) -> None:
        """Its CPU is lent already: to ask for it would bring nothing."""
        self._groups[ticket.client, ticket.shape, ticket.priority].unasked.pop(ticket.number, None)

    def unblocked(self, ticket: Ticket) -> None:
        """It runs again, and may be asked for unless it was before."""
        if ticket.asked_at is None:
            self._groups[ticket.client, ticket.shape, ticket.priority].unasked[ticket.number] = ticket

    def reclaim(self, waiters: Iterable[Ticket], free: ResourceSet, now: float) -> list[Ticket]:
        """Choose leases to ask back so that the waiting tickets get their turn."""
        soon = free.copy()
        for ticket in self._asked.values():
            if ticket.asked_at is not None and now - ticket.asked_at < PATIENCE_S:
                soon.add(ticket.demand)
        asked: list[Ticket] = []
        donors = sorted(self._groups.values(), key=lambda group: -group.held)
        for waiter in waiters:
            if not soon.fits(waiter.demand):
                self._ask(waiter, donors, soon, asked, now)
            if soon.fits(waiter.demand):
                soon.subtract(waiter.demand)
        return asked

    def _ask(self, waiter: Ticket, donors: list[_Group], soon: ResourceSet, asked: list[Ticket], now: float) -> None:
        missing = soon.missing(waiter.demand)
        for group in donors:
            if not missing.keys() & group.demand.keys():
                continue
            # Without a process yet, a lease is not known to its owner.
            old = [t for t in group.unasked.values() if t.process and now - t.granted_at >= HOLD_S]
            for ticket in old:
                if not self._may_ask(group, waiter):
                    break
                del group.unasked[ticket.number]
                ticket.asked_at = now
                self._asked[ticket.number] = ticket
                self._clients[group.client].asked += 1
                asked.append(ticket)
                soon.add(ticket.demand)
                missing = soon.missing(waiter.demand)
                if not missing:
                    return

    def _may_ask(self, group: _Group, waiter: Ticket) -> bool:
        """LS-1."""
        if group.priority != waiter.priority:
            return group.priority < waiter.priority
        if group.client == waiter.client:
            mine = self._groups.get((waiter.client, waiter.shape, waiter.priority))
            has, gives = (mine.held if mine is not None else 0), len(group.unasked)
        else:
            has, donor = self.leases_of(waiter.client), self._clients[group.client]
            gives = donor.leases - donor.asked
        return gives > has + 1 or (has == 0 and gives > 0)
