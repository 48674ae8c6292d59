"""Where the large arguments of a task lie, by what this process knows: it had better run there. Under the ports' lock.

It is said with the request for a lease, and weighed by the node that is asked (policy/scheduling.py). Tasks whose arguments lie on another
node have a scheduling class of their own (worker/tasks.py), so that a lease which is got for them there is not used for others.

LH-1: it is a hint: where the holders have no room, or are gone, a task runs where it would have run without.
LH-2: classes for other nodes that have neither work nor leases are forgotten when the next one is made.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from actorflow._core.policy.locality import worth_going_to
from actorflow._core.protocol.messages import Stored

if TYPE_CHECKING:
    from actorflow._core.worker.calls import Call
    from actorflow._core.worker.core import Core


def bytes_by_node(core: Core, call: Call) -> dict[str, int]:
    """How many bytes of its arguments lie on each node that is worth the way, the most first."""
    return worth_going_to(_pieces(core, call), core.node_id)


def other_node(core: Core, call: Call) -> str:
    """The other node that has the most of its arguments; empty when none has, or this one has as much."""
    best = next(iter(bytes_by_node(core, call)), "")
    return best if best != core.node_id else ""


def _pieces(core: Core, call: Call) -> Iterator[tuple[str, int]]:
    """(node, bytes) for each holder of each argument; what is given twice is moved once."""
    entries = {id(entry): entry for entry in (*(call.deps or ()), call.stored) if entry is not None}
    for entry in entries.values():
        if type(entry.outcome) is Stored:
            for node_id in core.store.holders(entry.outcome):
                yield node_id, entry.outcome.size
