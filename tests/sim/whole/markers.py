"""The rare paths that the seeds are to reach, by name, and how each of them is seen. What no seed reaches is not tested, and is named.

MK-1  after enough seeds every marker was seen
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from actorflow._core.io.lasting_peers import LastingPeer
from actorflow._core.node.parts import Parts
from actorflow._core.node.store import Store
from actorflow._core.node.tenancy import Tenancy
from actorflow._core.policy.actors import ActorTable
from actorflow._core.policy.checkpoints import CheckpointStore
from actorflow._core.policy.durable_objects import DurableObjects
from actorflow._core.policy.leases import LeaseBook
from actorflow._core.policy.mailbox import Mailbox
from actorflow._core.policy.membership import Membership
from actorflow._core.policy.object_store import ExtentBook
from actorflow._core.policy.ownership import Borrows, Ownership
from actorflow._core.policy.placement_groups import PlacementGroups
from actorflow._core.policy.pulls import PullBook
from actorflow._core.policy.start_failures import StartFailures
from actorflow._core.policy.supervision import SupervisionBook
from actorflow._core.policy.worker_pool import WorkerPool
from actorflow._core.protocol.links import Ledger
from actorflow._core.worker.actors import ActorCalls
from actorflow._core.worker.caller import Caller
from actorflow._core.worker.cancels import Cancels
from actorflow._core.worker.copies import Copies
from actorflow._core.worker.durable import DurableCalls
from actorflow._core.worker.passes import Passes
from actorflow._core.worker.recovery import Recovery
from actorflow._core.worker.retries import Retries
from actorflow._core.worker.store import StoreClient
from actorflow._core.worker.streams import StreamCalls
from actorflow._core.worker.tasks import TaskSubmitter
from tests.sim.whole.watching import Tell, watching

See = Callable[[Any, tuple[Any, ...], Any], Any]
"""Of the object, the arguments and the result of a call: whether it is what the name says."""


class Marker(NamedTuple):
    """Seen when `method` of `owner` has returned and `see` says so."""

    name: str
    owner: type
    method: str
    see: See


def _always(self: Any, args: tuple[Any, ...], result: Any) -> bool:
    return True


def _result(self: Any, args: tuple[Any, ...], result: Any) -> bool:
    return bool(result)


def _from_another_source(self: Any, args: tuple[Any, ...], result: Any) -> bool:
    pull = args[0]
    return bool(pull.source and pull.have)


def _of_an_older_life(self: Any, args: tuple[Any, ...], result: Any) -> bool:
    actor = self._actors.get(args[0])
    return result is None and actor is not None and args[1] < actor.incarnation


def _in_the_middle(self: Any, args: tuple[Any, ...], result: Any) -> bool:
    """A stream that is made again after some of it has come."""
    call = args[0]
    return call.stream is not None and call.attempt > 0 and call.stream.received > 0


def _asked_again(self: Any, args: tuple[Any, ...], result: Any) -> bool:
    return bool(args[0].asks > 1)


def _a_bounce(self: Any, args: tuple[Any, ...], result: Any) -> bool:
    return any(type(decision).__name__ == "Bounce" for decision in result)


MARKERS: tuple[Marker, ...] = (
    # leases and tasks
    Marker("a lease was redirected", TaskSubmitter, "on_redirect", _always),
    Marker("a lease was lost with its worker", TaskSubmitter, "_lose", _always),
    Marker("a worker gave back what it had not started", TaskSubmitter, "on_gave_back", _always),
    Marker("a node was lost to a driver", TaskSubmitter, "_node_lost", _always),
    Marker("a lease was asked back", TaskSubmitter, "on_reclaim", _always),
    Marker("a lease's owner was lost", LeaseBook, "client_lost", _result),
    Marker("a blocked task has lent its CPU", LeaseBook, "block", _always),
    Marker("a late or double reply was dropped", Caller, "_drop_reply", _always),
    Marker("a call raised and was tried again", Retries, "after_error", _always),
    Marker("a call that was lost twice waits before it is tried again", Retries, "rest", lambda self, args, result: args[0].losses > 1),
    Marker("a worker did not come up", StartFailures, "failed", _always),
    Marker("a worker that had to leave was needed", WorkerPool, "needed", _always),
    Marker("a call timed out", Caller, "_timed_out", _always),
    Marker("a task waits after memory ran out", TaskSubmitter, "_again_later", lambda self, args, result: args[0].memory_tries > 0),
    # cancels and streams
    Marker("a call was cancelled before it ran", Mailbox, "withdraw", lambda self, args, result: result is not None),
    Marker("a running call was asked to end", Cancels, "ask", _always),
    Marker("a stream was left early", StreamCalls, "close_stream", lambda self, args, result: not args[0].ended),
    Marker(
        "a stream went on in another attempt", TaskSubmitter, "_push", lambda self, args, result: _in_the_middle(self, args[1:], result)
    ),
    # nodes that leave
    Marker("a call came back from an actor that moves", ActorCalls, "_take_back", lambda self, args, result: bool(args[1])),
    Marker("an actor was told to move", ActorTable, "move_away", _result),
    Marker("a word was kept back until an old connection had said all", ActorCalls, "_says_more", _result),
    Marker("an object was fetched from a node that leaves", Copies, "_moved", _always),
    # objects
    Marker("an object was made again from its lineage", Recovery, "_make_again", _always),
    Marker("arguments of a call were lost", Recovery, "arguments_lost", _result),
    Marker("an object went to disk", ExtentBook, "written", _always),
    Marker("a spilled object came back", ExtentBook, "restored", _always),
    Marker("a spilled object could not be read", ExtentBook, "not_restored", _always),
    Marker("the disk was full", ExtentBook, "disk_failed", _always),
    Marker("an allocation waited", ExtentBook, "_wait", _always),
    Marker("the store was pressed for memory", Store, "press", lambda self, args, result: args[0]),
    Marker("the extents of a dead writer were freed", StoreClient, "_free_unheard", lambda self, args, result: bool(args[0])),
    Marker("a borrower was lost", Ownership, "borrower_lost", _result),
    Marker("an owner was lost", Borrows, "owner_lost", _result),
    # transfers
    Marker("a transfer resumed from another source", PullBook, "_next_source", _from_another_source),
    Marker("a transfer asked its owner again", PullBook, "_ask_owner", _asked_again),
    Marker("copies made room", PullBook, "make_room", _result),
    Marker("a transfer failed", PullBook, "_lose", _always),
    Marker("a driver from outside gave a value in parts", Parts, "part", _always),
    # actors
    Marker("an actor was restarted", ActorTable, "_restart", _always),
    Marker("word of a stale incarnation was fenced", ActorTable, "_current", _of_an_older_life),
    Marker("a late checkpoint was refused", CheckpointStore, "save", _result),
    Marker("a supervision restarted the others", SupervisionBook, "_failed", _a_bounce),
    Marker("a pass to another job was given", Passes, "on_given", _always),
    # placement groups
    Marker("a placement group was placed again", PlacementGroups, "_lose", _always),
    Marker("a reservation race was lost", PlacementGroups, "refused", _result),
    Marker("a placement group found no room", PlacementGroups, "_no_plan", _always),
    # objects of the cluster
    Marker("an object of the cluster was fetched once more", DurableObjects, "node_lost", lambda self, args, result: bool(self._copying)),
    Marker("an object of the cluster was refused", DurableObjects, "failed", _result),
    Marker("an object of the cluster was read elsewhere", DurableCalls, "lost", _always),
    Marker("a node said what it keeps", DurableObjects, "all_here", _always),
    # nodes and links
    Marker("a node was lost", Membership, "lost", _result),
    Marker("a node gave itself up", Tenancy, "_beat", lambda self, args, result: self._timer is None),
    Marker("a link broke and went on", LastingPeer, "_go_on", _always),
    Marker("frames were sent again", Ledger, "missing", _result),
    Marker("a link was given up", LastingPeer, "_fail", _always),
)


class Seen:
    """What was seen in one run."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def watch(self) -> Any:
        """A block within which they are looked for."""
        return watching(self._all())

    def _all(self) -> Iterator[tuple[type, str, Tell]]:
        for marker in MARKERS:
            yield marker.owner, marker.method, self._teller(marker)

    def _teller(self, marker: Marker) -> Tell:
        def tell(self_: Any, args: tuple[Any, ...], result: Any) -> None:
            if marker.see(self_, args, result):
                self.counts[marker.name] += 1

        return tell
