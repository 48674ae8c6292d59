"""The order in which waiting tickets are served. Pure.

Higher priority first. Then deeper first: what a running task asked for comes before what a driver asked
for, so that a thousand parents do not all start before the first child runs. Then the client that holds
fewer leases, then arrival. A ticket that has waited `starvation_s` goes by arrival alone.

LO-1: a queue stands in the order exactly while it holds a ticket, at the place that its rank says.
LO-2: within a queue the order is that of arrival: its tickets differ in nothing else.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict, deque

from actorflow._core.base.resources import CPU
from actorflow._core.policy.lease_shares import Shares
from actorflow._core.policy.tickets import Shape, Ticket, TicketState

RERANKED_MAX = 16
"""A client with more queues keeps their old places when it gets or returns a lease: bounded work."""

QueueKey = tuple[int, int, str, Shape]
Rank = tuple[int, int, bool, int, int]
"""-priority, -depth, not starving, leases of the client (0 when starving), number of the head."""


class Queue:
    """The waiting tickets of one client with one demand, priority and depth, in the order of arrival."""

    __slots__ = ("cpu", "key", "rank", "tickets")

    def __init__(self, key: QueueKey, cpu: int) -> None:
        self.key = key
        self.cpu = cpu
        self.rank: Rank = (0, 0, False, 0, 0)
        self.tickets: OrderedDict[int, Ticket] = OrderedDict()

    @property
    def starving(self) -> bool:
        """The head has waited so long that its demand is reserved."""
        return not self.rank[2]

    def head(self) -> Ticket:
        """The ticket to serve next."""
        return next(iter(self.tickets.values()))


class LeaseOrder:
    """All queues, in order. Every change costs the logarithm of their number (and a shift of a list)."""

    __slots__ = ("_aging", "_queues", "_shares", "_starving", "count", "entries", "starvation_s")

    def __init__(self, shares: Shares, starvation_s: float) -> None:
        self.starvation_s = starvation_s
        self.count = 0
        """Tickets that wait."""
        self.entries: list[tuple[Rank, Queue]] = []
        self._shares = shares
        self._queues: dict[str, dict[QueueKey, Queue]] = {}
        self._aging: deque[Ticket] = deque()
        self._starving = 0

    def add(self, ticket: Ticket) -> bool:
        """Queue a ticket; True when it is the first of its queue."""
        self.count += 1
        self._aging.append(ticket)
        queues = self._queues.get(ticket.client)
        if queues is None:
            queues = self._queues[ticket.client] = {}
        key = _key(ticket)
        queue = queues.get(key)
        if queue is not None:
            queue.tickets[ticket.number] = ticket
            return False
        queue = queues[key] = Queue(key, ticket.demand.get(CPU, 0))
        queue.tickets[ticket.number] = ticket
        self._insert(queue)
        return True

    def remove(self, ticket: Ticket) -> None:
        """Take a ticket out: it is granted or cancelled."""
        self.count -= 1
        queues = self._queues[ticket.client]
        queue = queues[_key(ticket)]
        del queue.tickets[ticket.number]
        if queue.rank[4] != ticket.number:
            return
        self._withdraw(queue)
        if queue.tickets:
            self._insert(queue)
            return
        del queues[queue.key]
        if not queues:
            del self._queues[ticket.client]

    def rerank(self, client: str) -> None:
        """The client has another number of leases now: put its queues in their new places."""
        queues = self._queues.get(client)
        if queues is not None and len(queues) <= RERANKED_MAX:
            for queue in queues.values():
                self._withdraw(queue)
                self._insert(queue)

    def age(self, now: float) -> None:
        """Move the queues whose heads starve forward. Tickets age in the order of arrival: no search."""
        aging, starving_since = self._aging, now - self.starvation_s
        while aging:
            ticket = aging[0]
            if ticket.state is TicketState.WAITING:
                if ticket.requested_at > starving_since:
                    return
                self._starving = ticket.number
                queue = self._queues[ticket.client][_key(ticket)]
                if queue.rank[4] == ticket.number:
                    self._withdraw(queue)
                    self._insert(queue)
            aging.popleft()

    def after(self, rank: Rank) -> int:
        """The index of the first entry that does not come before `rank`."""
        return bisect_left(self.entries, rank, key=_rank)

    def heads(self, count: int) -> list[Ticket]:
        """The tickets that are served next, at most one of each queue."""
        return [queue.head() for _, queue in self.entries[:count]]

    def check(self) -> None:
        """Assert the invariants; for tests."""
        queues = [queue for of_client in self._queues.values() for queue in of_client.values()]
        assert all(queue.tickets for queue in queues), "LO-1: no empty queue"
        assert [q for _, q in self.entries] == sorted(queues, key=lambda queue: queue.rank), "LO-1: order"
        assert all(list(q.tickets) == sorted(q.tickets) for q in queues), "LO-2"
        assert self.count == sum(len(queue.tickets) for queue in queues), "LO-1: count"

    def _insert(self, queue: Queue) -> None:
        priority, depth, client, _ = queue.key
        number = queue.head().number
        fresh = number > self._starving
        queue.rank = (priority, depth, fresh, self._shares.leases_of(client) if fresh else 0, number)
        insort(self.entries, (queue.rank, queue), key=_rank)

    def _withdraw(self, queue: Queue) -> None:
        del self.entries[self.after(queue.rank)]


def _key(ticket: Ticket) -> QueueKey:
    return (-ticket.priority, -ticket.depth, ticket.client, ticket.shape)


def _rank(entry: tuple[Rank, Queue]) -> Rank:
    return entry[0]
