"""Leases: who may use how much of this node, and who waits. Pure: `now` is seconds on a monotonic clock.

LE-1: a grant never takes an allocated amount over the capacity; only `unblock` may, for CPU, and then
      nothing that needs CPU is granted until the debt is repaid (SEMANTICS 24).
LE-2: what a ticket holds, amounts and device ids, is given back exactly once.
LE-3: a ticket that has waited `starvation_s` reserves its demand: whoever comes later in the order may take
      only what leaves the reserved amounts free. So small requests cannot starve a big one for ever. Higher
      priorities and deeper tickets come earlier: the first are meant to, the second are finite.
LE-4: a pass looks at the heads of the first WINDOW queues, never at every ticket.
LE-5: `wanted` is the sum of the demands of all tickets that wait.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice

from actorflow._core.base.resources import CPU, ResourceSet
from actorflow._core.policy.lease_order import LeaseOrder
from actorflow._core.policy.lease_shares import Shares
from actorflow._core.policy.resource_pool import ResourcePool
from actorflow._core.policy.tickets import (
    Demand,
    Refused,
    Ticket,
    TicketKind,
    TicketState,
    infeasible_reason,
    nesting_depth,
    too_deep_reason,
)

WINDOW = 128
"""Queues that one pass looks at."""
WAITERS_MAX = 32
"""Waiting queues for which one `reclaim` makes room."""


class _Client:
    """The tickets of one client."""

    __slots__ = ("held", "waiting")

    def __init__(self) -> None:
        self.waiting: dict[int, Ticket] = {}
        self.held: dict[int, Ticket] = {}


class LeaseBook:
    """All tickets of a node. After any change `admit` says who is granted."""

    __slots__ = (
        "_clients", "_devices", "_dirty", "_free", "_lending", "_number", "_order", "_running",
        "_shares", "_stuck", "blocked_max", "by_process", "pool", "reclaim_after_s", "starvation_s", "total", "waiting_max", "wanted",
    )  # fmt: skip

    def __init__(
        self,
        total: Demand,
        devices: Mapping[str, Iterable[int]] | None = None,
        *,
        device_types: Mapping[str, Mapping[int, str]] | None = None,
        starvation_s: float = 5.0,
        reclaim_after_s: float = 0.1,
        blocked_max: int = 256,
        waiting_max: int = 1_000_000,
    ) -> None:
        self.pool = ResourcePool(total, devices, device_types)
        """The resources of the node, which bundles of placement groups take from as well."""
        self.total = self.pool.total
        self.starvation_s = starvation_s
        self.reclaim_after_s = reclaim_after_s
        self.blocked_max = blocked_max
        """Tickets whose CPU may be lent at one time: each stands for an extra worker process."""
        self.waiting_max = waiting_max
        self._devices = self.pool.devices
        self._free = self.pool.free
        self.wanted: dict[str, int] = {}
        """What all waiting tickets ask for together. Written here only."""
        self._shares = Shares()
        self._order = LeaseOrder(self._shares, starvation_s)
        self._number = 0
        self._clients: dict[str, _Client] = {}
        self.by_process: dict[str, Ticket] = {}
        """The ticket under which a worker runs. The books of bundles on this node share it."""
        self._dirty = False
        self._running = 0
        self._lending = 0
        self._stuck: dict[int, Ticket] = {}

    # -- asking and leaving

    def infeasible(self, demand: Demand) -> str:
        """Why `demand` can never be served here, or an empty string."""
        return infeasible_reason(self.total, self._devices, demand)

    def request(
        self,
        kind: TicketKind,
        client: str,
        demand: Demand,
        now: float,
        *,
        priority: int = 0,
        name: str = "",
    ) -> Ticket | Refused:
        """Queue a request, which `admit` grants, now or later; or refuse what can never be granted."""
        if self._devices or not self.total.fits(demand):
            reason = self.infeasible(demand)
            if reason:
                return Refused("infeasible", reason)
        if self._order.count >= self.waiting_max:
            return Refused("full", f"{self._order.count} requests wait on this node, as many as it keeps")
        self._number += 1
        return self._enter(Ticket(self, self._number, kind, client, demand, priority, name, now))

    def _enter(self, ticket: Ticket) -> Ticket:
        client = ticket.client
        ticket.parent = parent = self.by_process.get(client)
        ticket.depth = nesting_depth(parent) if parent is not None else 0
        record = self._clients.get(client)
        if record is None:
            record = self._clients[client] = _Client()
        record.waiting[ticket.number] = ticket
        self._want(ticket, 1)
        if self._order.add(ticket):  # else the head of its queue does not fit, so it does not either
            self._dirty = True
        return ticket

    def assign(self, ticket: Ticket, process: str) -> None:
        """A granted ticket got this worker: what that process asks for from now on is nested in it."""
        assert ticket.state is not TicketState.WAITING, "LE-2: only a granted ticket gets a worker"
        ticket.process = process
        self.by_process[process] = ticket

    def release(self, ticket: Ticket) -> None:
        """End a ticket: cancel it when it waits, take back what it has when it is granted. Idempotent."""
        if ticket.state is TicketState.CLOSED:
            return
        client = self._clients[ticket.client]
        if ticket.state is TicketState.WAITING:
            del client.waiting[ticket.number]
            self._want(ticket, -1)
            self._order.remove(ticket)
        else:
            del client.held[ticket.number]
            self._give_back(ticket)
            if self.by_process.get(ticket.process) is ticket:
                del self.by_process[ticket.process]
        self._dirty = True  # also after a cancel: it may have held others up (LE-3)
        ticket.state = TicketState.CLOSED
        ticket.parent = None
        if not client.waiting and not client.held:
            del self._clients[ticket.client]

    def client_lost(self, client: str) -> list[Ticket]:
        """A client is gone: close what it waits for, return what it holds. The caller ends the workers."""
        record = self._clients.get(client)
        if record is None:
            return []
        held = list(record.held.values())
        for ticket in list(record.waiting.values()):
            self.release(ticket)
        return held

    # -- blocking (SEMANTICS 24)

    def block(self, ticket: Ticket) -> None:
        """All code on the ticket's worker waits: lend its CPU, and nothing else. Idempotent."""
        if ticket.state is not TicketState.HELD:
            return
        if ticket.kind is TicketKind.TASK:
            self._running -= 1
            self._shares.blocked(ticket)
        if self._lending >= self.blocked_max and CPU in ticket.demand:
            ticket.state = TicketState.STUCK
            self._stuck[ticket.number] = ticket
        else:
            self._lend(ticket)

    def unblock(self, ticket: Ticket) -> None:
        """The code goes on, at once: the CPU is taken back even when that leaves a debt. Idempotent."""
        if ticket.state is TicketState.BLOCKED:
            self._take_back(ticket)
        elif ticket.state is TicketState.STUCK:
            del self._stuck[ticket.number]
        else:
            return
        ticket.state = TicketState.HELD
        if ticket.kind is TicketKind.TASK:
            self._running += 1
            self._shares.unblocked(ticket)

    def too_deep(self, now: float) -> list[tuple[Ticket, Refused]]:
        """Tickets that keep a stuck parent waiting, closed here and refused with the chain that led to them.

        While another lease runs it may still end and make room, so these get `starvation_s` before they are
        refused.
        """
        refused = []
        for parent in list(self._stuck.values()):
            children = self._clients.get(parent.process)
            for child in list(children.waiting.values()) if children is not None else ():
                if self._running == 0 or now - child.requested_at >= self.starvation_s:
                    reason = too_deep_reason(child, self._lending, self.blocked_max)
                    self.release(child)
                    refused.append((child, Refused("too_deep", reason)))
        return refused

    # -- granting

    def touch(self) -> None:
        """Somebody else has given back something to the pool, or needs less of it than before."""
        self._dirty = True

    def admit(self, now: float, aside: Demand | None = None) -> list[Ticket]:
        """Grant what can be granted, in order, and leave free what is set `aside`. Cheap when nothing has changed."""
        granted: list[Ticket] = []
        while self._dirty:
            before, queues = len(granted), len(self._order.entries)
            self._pass(granted, now, dict(aside or {}))
            # Queues beyond the window move up when one before them is empty.
            self._dirty = queues > WINDOW and len(granted) > before
        return granted

    def _pass(self, granted: list[Ticket], now: float, reserved: dict[str, int]) -> None:
        order, free = self._order, self._free.amounts
        order.age(now)
        entries = order.entries
        at = looked = 0
        while at < len(entries) and looked < WINDOW:
            rank, queue = entries[at]
            if queue.cpu <= free.get(CPU, 0) or queue.starving:
                head = queue.head()
                if self._fits(head, reserved):
                    self._grant(head, now)
                    granted.append(head)
                    at = order.after(rank)  # a grant moves queues back and none forward: none is passed over
                    continue
                if queue.starving:
                    self._reserve(head, reserved)
            at += 1
            looked += 1

    def _fits(self, ticket: Ticket, reserved: dict[str, int]) -> bool:
        if reserved:
            free = self._free.amounts
            for name, units in ticket.demand.items():
                if units > free.get(name, 0) - reserved.get(name, 0):
                    return False
        elif not self._free.fits(ticket.demand):
            return False
        for name, book in self._devices.items():
            units = ticket.demand.get(name, 0)
            if units and not book.fits(units, book.wanted_type(ticket.demand)):
                return False
        return True

    def _reserve(self, ticket: Ticket, reserved: dict[str, int]) -> None:
        """LE-3. Where whole devices are missing all of their kind is reserved: shares of them come and go."""
        for name, units in ticket.demand.items():
            book = self._devices.get(name)
            if book is not None and not book.fits(units, book.wanted_type(ticket.demand)):
                units = self.total.get(name)
            reserved[name] = reserved.get(name, 0) + units

    def _grant(self, ticket: Ticket, now: float) -> None:
        self._order.remove(ticket)
        client = self._clients[ticket.client]
        del client.waiting[ticket.number]
        self._want(ticket, -1)
        client.held[ticket.number] = ticket
        ticket.state = TicketState.HELD
        ticket.granted_at = now
        self._take(ticket)
        if ticket.kind is TicketKind.TASK:
            self._running += 1
            self._shares.granted(ticket)
            self._order.rerank(ticket.client)

    def _take(self, ticket: Ticket) -> None:
        self._free.subtract(ticket.demand)
        for name, book in self._devices.items():
            units = ticket.demand.get(name, 0)
            if units:
                ticket.devices[name] = book.take(units, book.wanted_type(ticket.demand))

    def _give(self, ticket: Ticket) -> None:
        self._free.add(ticket.demand)
        for name, ids in ticket.devices.items():
            self._devices[name].give(ids, ticket.demand[name])

    def _give_back(self, ticket: Ticket) -> None:
        if ticket.state is TicketState.BLOCKED:
            self._take_back(ticket)
        elif ticket.state is TicketState.STUCK:
            del self._stuck[ticket.number]
        elif ticket.kind is TicketKind.TASK:
            self._running -= 1
        self._give(ticket)
        if ticket.kind is TicketKind.TASK:
            self._shares.released(ticket)
            self._order.rerank(ticket.client)

    def _lend(self, ticket: Ticket) -> None:
        ticket.state = TicketState.BLOCKED
        cpu = ticket.demand.get(CPU, 0)
        if cpu:
            self._lending += 1
            self._lend_cpu(ticket, cpu)
            self._dirty = True

    def _take_back(self, ticket: Ticket) -> None:
        cpu = ticket.demand.get(CPU, 0)
        if not cpu:
            return
        self._lending -= 1
        self._take_back_cpu(ticket, cpu)
        if self._stuck:
            self._lend(self._stuck.pop(next(iter(self._stuck))))

    def _lend_cpu(self, ticket: Ticket, cpu: int) -> None:
        self._free.amounts[CPU] += cpu
        self.pool.lent += cpu

    def _take_back_cpu(self, ticket: Ticket, cpu: int) -> None:
        self._free.amounts[CPU] -= cpu
        self.pool.lent -= cpu

    # -- looking

    @property
    def waiting(self) -> int:
        """Tickets that wait."""
        return self._order.count

    def reclaim(self, now: float) -> list[Ticket]:
        """Leases that their owners should return because others wait for room. Ask each owner once."""
        latest = now - self.reclaim_after_s
        waiters = [head for head in self._order.heads(WAITERS_MAX) if head.requested_at <= latest]
        return self._shares.reclaim(waiters, self._free, now) if waiters else []

    def ticket_of(self, process: str) -> Ticket | None:
        """The ticket under which a worker runs."""
        return self.by_process.get(process)

    def free(self) -> ResourceSet:
        """What is free now; a negative amount of CPU is the debt of LE-1."""
        return self._free.copy()

    def _want(self, ticket: Ticket, sign: int) -> None:
        for name, units in ticket.demand.items():
            self.wanted[name] = self.wanted.get(name, 0) + sign * units

    def oldest_waiting(self, kind: TicketKind, limit: int) -> list[Ticket]:
        """Some tickets of a kind that wait, of each client the oldest first."""
        found: list[Ticket] = []
        for client in self._clients.values():
            found += [ticket for ticket in islice(client.waiting.values(), limit) if ticket.kind is kind]
        return found[:limit]

    def tickets(self) -> list[Ticket]:
        """All open tickets, oldest first: for the state API."""
        found = [t for c in self._clients.values() for part in (c.waiting, c.held) for t in part.values()]
        return sorted(found, key=lambda ticket: ticket.number)

    def check(self, elsewhere: Demand | None = None) -> None:
        """Assert every invariant, given what others have taken `elsewhere` from the pool; for tests."""
        used, lent = ResourceSet(elsewhere), 0
        for ticket in self.tickets():
            if ticket.state is not TicketState.WAITING:
                used.add(ticket.demand)
            if ticket.state is TicketState.BLOCKED:
                used.subtract({CPU: ticket.demand.get(CPU, 0)})
                lent += ticket.demand.get(CPU, 0)
        assert lent == self.pool.lent, f"LE-1: {self.pool.lent} units of CPU are lent, and blocked tickets lend {lent}"
        used.add(self._free.amounts)
        assert used == self.total, f"LE-2: used and free make {used}, the node has {self.total}"
        for name, book in self._devices.items():
            assert sum(book.free().values()) == self._free.get(name), (
                f"LE-2: the ids of {name} and its amount"
            )
        assert all(u >= 0 for n, u in self._free.amounts.items() if n != CPU), "LE-1: only CPU may be owed"
        wanted = ResourceSet()
        for ticket in self.tickets():
            if ticket.state is TicketState.WAITING:
                wanted.add(ticket.demand)
        assert wanted == ResourceSet(self.wanted), "LE-5: what is wanted is the sum over those who wait"
        self._order.check()
