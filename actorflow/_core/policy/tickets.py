"""Tickets: requests for resources, and the texts that say why one cannot be served. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from actorflow._core.base.errors import OptionError
from actorflow._core.base.resources import (
    ACCELERATOR_TYPE,
    DeviceBook,
    ResourceSet,
    check_device_amount,
    format_amount,
    format_resources,
    nearest_name,
)

DEPTH_MAX = 64
"""Nested tasks deeper than this are all of one depth: a walk up the ancestors is bounded."""
CHAIN_SHOWN = 4
"""Names at each end of a chain in an error."""

Demand = Mapping[str, int]
Shape = tuple[tuple[str, int], ...]


class TicketKind(Enum):
    """What the resources are for: the lease of a task's owner, or the place of an actor."""

    TASK = "task"
    ACTOR = "actor"


class TicketState(Enum):
    """Where a ticket is in its life.

    WAITING -> HELD -> CLOSED. While all code on its worker waits for other results, a held ticket is
    BLOCKED, and its CPU lent; or STUCK, when the cap on extra workers is reached and the CPU is not lent.
    """

    WAITING = "waiting"
    HELD = "held"
    BLOCKED = "blocked"
    STUCK = "stuck"
    CLOSED = "closed"


class Book(Protocol):
    """Who has granted a ticket, or will: a node's own book, or that of the bundles of a placement group."""

    def assign(self, ticket: Ticket, process: str) -> None:
        """It got this worker."""

    def release(self, ticket: Ticket) -> None:
        """It has ended."""

    def block(self, ticket: Ticket) -> None:
        """All code on its worker waits."""

    def unblock(self, ticket: Ticket) -> None:
        """The code goes on."""


class Ticket:
    """One request for resources, from arrival to release.

    `client` is the process that asked, `process` the worker that got it. `parent` is the ticket under which
    the client itself runs, when it is a worker. `holder` is free for the shell: whose ticket this is.
    """

    __slots__ = (
        "asked_at", "book", "client", "demand", "depth", "devices", "granted_at", "holder", "kind", "name", "number",
        "parent", "priority", "process", "requested_at", "shape", "state",
    )  # fmt: skip

    def __init__(
        self, book: Book, number: int, kind: TicketKind, client: str, demand: Demand, priority: int, name: str, now: float
    ) -> None:
        self.book = book
        self.number = number
        self.kind = kind
        self.client = client
        self.demand = demand
        self.shape: Shape = tuple(sorted(demand.items())) if len(demand) > 1 else tuple(demand.items())
        self.priority = priority
        self.name = name
        self.depth = 0
        self.parent: Ticket | None = None
        self.process = ""
        self.state = TicketState.WAITING
        self.requested_at = now
        self.granted_at = 0.0
        self.asked_at: float | None = None
        self.devices: dict[str, list[int]] = {}
        self.holder: object = None

    def __repr__(self) -> str:
        demand = format_resources(self.demand)
        return f"Ticket({self.number} {self.name} of {self.client}: {demand}, {self.state.value})"


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a ticket cannot be. `kind`: infeasible | moved | full | too_deep."""

    kind: str
    reason: str


def nesting_depth(parent: Ticket | None) -> int:
    """How many tasks that still hold a worker wait for a ticket of this parent, DEPTH_MAX at most.

    A closed ancestor does not count: a task that starts its successor and ends is not nesting.
    """
    depth = 0
    while (
        parent is not None
        and depth < DEPTH_MAX
        and parent.kind is TicketKind.TASK
        and parent.state is not TicketState.CLOSED
    ):
        depth += 1
        parent = parent.parent
    return depth


def infeasible_reason(total: ResourceSet, books: Mapping[str, DeviceBook], demand: Demand) -> str:
    """Say why a node with `total` can never serve `demand`, or return an empty string when it can.

    Names the demand, the capacity, and the nearest demand that would fit.
    """
    for name in books:
        try:
            check_device_amount(name, demand.get(name, 0))
        except OptionError as error:
            return str(error)
    missing = total.missing(demand)
    if not missing:
        return _too_many_of_a_type(books, demand)
    asked = ", ".join(format_amount(name, demand[name]) for name in missing)
    text = f"it asks for {asked}, and this node has {_what_it_has(total, missing)}"
    names = [name for name in total.amounts if not name.startswith(ACCELERATOR_TYPE)]
    for name in missing:
        if name not in total.amounts and not name.startswith(ACCELERATOR_TYPE) and (guess := nearest_name(name, names)):
            text += f" (is {name!r} meant to be {guess!r}?)"
    return f"{text}. The nearest demand that fits: {format_resources(_nearest(total, demand))}"


def _what_it_has(total: ResourceSet, missing: Collection[str]) -> str:
    """The capacity of what is missing; for a type of accelerator that is not there: the types that are."""
    amounts = [format_amount(name, total.get(name)) for name in missing if not name.startswith(ACCELERATOR_TYPE)]
    parts = [f"{', '.join(amounts)} in all"] if amounts else []
    if len(amounts) < len(missing):
        types = ", ".join(_types(total))
        parts.append(f"accelerators of the type {types}" if types else "no accelerator of a known type")
    return " and ".join(parts)


def _types(total: ResourceSet) -> list[str]:
    return [name.removeprefix(ACCELERATOR_TYPE) for name in total.names() if name.startswith(ACCELERATOR_TYPE)]


def _nearest(total: ResourceSet, demand: Demand) -> dict[str, int]:
    """What of `demand` fits, with the type of accelerator that is there for one that is not."""
    nearest = {}
    for name, units in demand.items():
        if name.startswith(ACCELERATOR_TYPE) and not total.get(name):
            types = _types(total)
            if not types:
                continue
            name = f"{ACCELERATOR_TYPE}{nearest_name(name.removeprefix(ACCELERATOR_TYPE), types) or types[0]}"
        nearest[name] = min(units, total.get(name))
    return nearest


def _too_many_of_a_type(books: Mapping[str, DeviceBook], demand: Demand) -> str:
    """Why there are enough devices, and too few of the type that is asked for; empty when there are enough of it."""
    for name, book in books.items():
        type_ = book.wanted_type(demand)
        units, has = demand.get(name, 0), book.capacity(type_)
        if type_ and units > has:
            asked = f"{format_amount(name, units)} of the type {type_}"
            text = f"it asks for {asked}, and this node has {format_amount(name, has)} of it in all"
            return f"{text}. The nearest demand that fits: {format_resources({**demand, name: has})}"
    return ""


def chain(ticket: Ticket) -> str:
    """The names of a ticket and its ancestors, outermost first: `f -> g -> h`; a long one is shortened."""
    names = [ticket.name or "a task"]
    parent = ticket.parent
    while parent is not None and parent.state is not TicketState.CLOSED:
        names.append(parent.name or "a task")
        parent = parent.parent
    names.reverse()
    if len(names) > 2 * CHAIN_SHOWN + 1:
        left_out = f"... {len(names) - 2 * CHAIN_SHOWN} more ..."
        names = [*names[:CHAIN_SHOWN], left_out, *names[-CHAIN_SHOWN:]]
    return " -> ".join(names)


def too_deep_reason(ticket: Ticket, lending: int, blocked_max: int) -> str:
    """Say why nested tasks got no further: SEMANTICS 24."""
    return (
        f"{chain(ticket)}: {lending} tasks wait for tasks that they started, and each keeps a worker "
        f"process; this node allows {blocked_max}. Nest less deeply, make the outer functions `async def`, "
        f"or start the inner tasks from the driver"
    )
