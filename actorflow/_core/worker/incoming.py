"""A call that arrived here to be run: its arguments are rebuilt, its result packed, and the references on both ways counted."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from actorflow._core.base.errors import ObjectLostError, ObjectStoreFullError, TaskCancelledError
from actorflow._core.base.ids import CLUSTER, task_name
from actorflow._core.policy.ownership import Borrowed
from actorflow._core.protocol import messages as m
from actorflow._core.serialization import tracebacks, values
from actorflow._core.serialization.values import INLINE_BYTES_MAX, Pickled
from actorflow._core.worker.calls import Slot
from actorflow._core.worker.store import LostExtent

if TYPE_CHECKING:
    from actorflow._core.io.peers import Peer
    from actorflow._core.worker.context import RunningCall
    from actorflow._core.worker.core import Core
    from actorflow._core.worker.hosted import HostedActor
    from actorflow._core.worker.references import Entry


class Incoming:
    """One attempt of one call, as the worker keeps it until its reply is sent."""

    __slots__ = ("__dict__", "actor", "context", "fn", "is_async", "key", "message", "peer", "running", "started", "task")

    fn: Callable[..., Any]

    cancelled = False
    parting = False
    """It was cancelled because its process ends: its caller hears of that, and may try it again."""
    told = False
    """Its code has been told that it is cancelled, by an exception (IR-4)."""
    torn = False
    """... at an instruction of the signal's choice."""
    recursive = True
    """Its cancel ends the calls that it has made."""
    reported = False
    """Its caller was told that it does not listen."""
    patience_ends_at = 0.0
    blocking: asyncio.Task[Any] | None = None
    """What it waits for in `af.sync`."""
    asked: asyncio.Task[Any] | None = None
    """... and was asked to end there."""
    thread = 0
    """The thread that runs it, where that is not the user's."""
    suspended = False
    """Its first step is done, and its task goes on with it."""
    producer: Any = None
    borrowed: list[Entry] | None = None
    """References that arrived with the arguments: those still held at the end must be told to their owners."""

    def __init__(self, peer: Peer, message: m.TaskCall | m.ActorCall, actor: HostedActor | None) -> None:
        self.peer = peer
        self.message = message
        self.actor = actor
        self.context = message.context
        self.key = (peer.process_id, message.seq)
        """Unique among the calls that are here: caller and its number."""
        self.task: asyncio.Task[Any] | None = None
        self.running: RunningCall | None = None
        self.started = 0.0
        self.is_async = False
        """It runs as a task of the user's loop."""

    def cut_off(self) -> bool:
        """Its actor was killed, which is why it was cancelled: its caller hears of that (AE-3)."""
        return self.cancelled and self.actor is not None and self.actor.killed

    @property
    def returns(self) -> int:
        """How many values the caller wants of it."""
        return self.context.num_returns if self.context is not None else 1

    @property
    def name(self) -> str:
        """What runs, in words; the function's id until its code is there."""
        if self.running is not None:
            return self.running.name
        message = self.message
        if isinstance(message, m.ActorCall):
            return f"{self.actor.spec.class_name}.{message.method}" if self.actor is not None else message.method
        return message.function

    def needs_store(self) -> bool:
        """True when arguments lie in shared memory, and must be mapped before the code can run."""
        context = self.context
        if context is None:
            return False
        return context.stored is not None or any(type(outcome) is m.Stored for outcome in context.deps or ())


def load_arguments(core: Core, incoming: Incoming) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call that needs no shared memory."""
    message, context = incoming.message, incoming.context
    if context is None:
        return values.load_arguments(message.args, message.buffers, ())
    table = _table(core, incoming, context.refs)
    args, kwargs = values.load_arguments(message.args, message.buffers, table)
    if not context.deps:
        return args, kwargs
    resolved = []
    for outcome in context.deps:
        assert type(outcome) is m.Inline
        resolved.append(values.loads(outcome.data, outcome.buffers, _table(core, incoming, outcome.refs)))
    return _fill(args, kwargs, resolved)


async def load_arguments_async(core: Core, incoming: Incoming) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of any call; those in shared memory are pinned and mapped."""
    message, context = incoming.message, incoming.context
    assert context is not None
    data: Any = message.args
    buffers: Any = message.buffers
    if context.stored is not None:
        data, buffers = await core.store.read(context.stored)
    table = _table(core, incoming, context.refs)
    args, kwargs = values.load_arguments(data, buffers, table)
    resolved = []
    contents = await _read_all(core, [outcome for outcome in context.deps or () if type(outcome) is m.Stored])
    for outcome in context.deps or ():
        if type(outcome) is m.Stored:
            data, buffers = contents.popleft()
            resolved.append(values.loads(data, buffers, _table(core, incoming, outcome.refs)))
        else:
            assert type(outcome) is m.Inline
            resolved.append(values.loads(outcome.data, outcome.buffers, _table(core, incoming, outcome.refs)))
    return _fill(args, kwargs, resolved)


HOLD_S = 2.0
"""So long a call waits for an argument while it holds others, which take the room that somebody else waits for, and that one's its own."""


async def _read_all(core: Core, stored: Sequence[m.Stored]) -> deque[tuple[Any, Any]]:
    """Pin and map arguments. Those that come from disk may have to wait for room: then none is held meanwhile."""
    while True:
        contents: deque[tuple[Any, Any]] = deque()
        try:
            for outcome in stored:
                async with asyncio.timeout(HOLD_S if contents else None):
                    contents.append(await core.store.read(outcome))
            return contents
        except TimeoutError:
            contents.clear()
            with core.lock:
                core.store.drain()
            await asyncio.sleep(core.ports.rng.uniform(0.0, HOLD_S))


def _table(core: Core, incoming: Incoming, groups: list[m.RefGroup] | None) -> list[Any]:
    if not groups:
        return []
    with core.lock:
        table = core.references.table(groups)
    if incoming.borrowed is None:
        incoming.borrowed = []
    incoming.borrowed.extend(ref._entry for ref in table)
    return table


def _fill(args: tuple[Any, ...], kwargs: dict[str, Any], resolved: list[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if any(type(argument) is Slot for argument in args):
        args = tuple([resolved[a.position] if type(a) is Slot else a for a in args])
    if any(type(argument) is Slot for argument in kwargs.values()):
        kwargs = {key: resolved[a.position] if type(a) is Slot else a for key, a in kwargs.items()}
    return args, kwargs


def failure(core: Core, incoming: Incoming, error: BaseException) -> m.Failed:
    """An exception of user code as an outcome."""
    if incoming.cancelled and isinstance(error, asyncio.CancelledError | TaskCancelledError):
        # The second: what `af.check_cancelled()` raises, and what the code sees of a child that was cancelled with it.
        return core.failed(TaskCancelledError(f"{incoming.name} was cancelled while it ran"))
    message = incoming.message
    lost, why = None, ""
    if isinstance(error, LostExtent):
        # An argument, whose owner may be able to make it again.
        lost, why, error = [(error.node, error.extent)], error.why, ObjectLostError(str(error))
    data = tracebacks.capture(
        error,
        function_name=incoming.running.name if incoming.running is not None else incoming.name,
        task=task_name(incoming.peer.process_id, message.seq),
        process_id=core.identity.process_id,
        pid=core.identity.pid,
        actor=incoming.actor.label if incoming.actor is not None else "",
        dumps=values.dumps_plain,
    )
    return m.Failed(b"\1" + data, lost=lost, why=why)


Packed = tuple[m.Outcome, list["Entry"]]
"""An outcome, and the references in it that must be held until the receiver has registered."""


def pack_result(core: Core, incoming: Incoming, value: Any, then: Callable[[m.Outcome, list[Entry]], None]) -> None:
    """Pickle a result; `then` gets the outcome, at once (on this thread) for small ones, else when it lies in shared memory.

    Raises SerializationError.
    """
    if type(value) is Pickled:  # See stored_replies.
        pickled = value
    else:
        pickled = values.dumps(value, f"the result of {incoming.running.name if incoming.running else incoming.name}")
    entries = [ref._entry for ref in pickled.refs] if pickled.refs else []
    if pickled.size() <= INLINE_BYTES_MAX:
        if pickled.buffers is not None:
            pickled = values.owned_bytes(pickled)
        if not entries:
            then(m.Inline(pickled.data, pickled.buffers), [])  # type: ignore[arg-type]  # copied above
            return
        with core.lock:
            groups = core.references.groups(entries)
            hold = core.references.lend_all(entries, incoming.peer)
        then(m.Inline(pickled.data, pickled.buffers, groups), hold)  # type: ignore[arg-type]
        return

    def hand_over(stored: m.Stored) -> None:
        caller = incoming.peer
        hold = core.references.lend_all(entries, caller)
        stored.owner = caller.process_id
        if caller.node_id != core.node_id:
            stored.owner_node = caller.node_id
        # The extent goes over to the caller, who owns the object: it must outlive this worker.
        core.node.send(m.HandOver(stored.extent, caller.process_id, stored.owner_node))
        _when_node_knows(core, lambda: then(stored, hold))

    try:
        written = core.store.write_now(pickled)
    except ObjectStoreFullError as error:
        then(core.failed(error), [])
        return
    if written is not None:
        with core.lock:
            hand_over(written)
        return
    # An actor may go on changing what it returned: the copy is made now, the move into shared memory follows.
    copied = values.owned_bytes(pickled)

    def moved(result: m.Stored | Exception) -> None:
        if isinstance(result, Exception):
            then(core.failed(result), [])
        else:
            hand_over(result)

    with core.lock:
        core.store.write(Pickled(copied.data, copied.buffers, pickled.refs), moved)
        core.flush_now(core.node)


NODE_RETRY_S = 0.001


def _when_node_knows(core: Core, fn: Callable[[], None]) -> None:
    """Call `fn` when all that was said to the node is in the kernel's hands, whatever becomes of this process. Under the lock.

    Who hears of an extent reads it without asking the node, and the node frees what a dead process has not handed over: so the node's
    part must be on its way before the other's is.
    """
    core.node.flush()
    if core.node.buffered_bytes():
        core.later(NODE_RETRY_S, lambda: _when_node_knows(core, fn))
    else:
        fn()


def still_borrowed(core: Core, incoming: Incoming) -> tuple[list[int], dict[tuple[str, str], list[int]]]:
    """After the code has run: which references of the arguments are still held here and not known to their owners.

    Returns the caller's own (they travel with the reply) and, by (owner, address), those of third processes. Under the lock.
    """
    core.references.drain()
    own: list[int] = []
    third: dict[tuple[str, str], list[int]] = {}
    for entry in dict.fromkeys(incoming.borrowed or ()):
        if type(entry) is not Borrowed or entry.owner == CLUSTER or entry.owed or not entry.referred():
            continue
        entry.owed += 1
        if entry.owner == incoming.peer.process_id:
            own.append(entry.index)
        else:
            third.setdefault((entry.owner, entry.address), []).append(entry.index)
    return own, third
