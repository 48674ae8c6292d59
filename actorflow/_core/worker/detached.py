"""Detached calls: they outlive the program that makes them, and the cluster owns what they return (docs/internals/detached-calls.md).

    DC-1  A call is started when the head has it in its journal, and not before: then it is made as long as its retries last, whoever
          dies. Its arguments are the cluster's by then.
    DC-2  It has one result: of what its maker has made in several lives, the first that the head has kept.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from actorflow._core.base.errors import (
    ActorDiedError,
    ObjectFreedError,
    ObjectLostError,
    ObjectStoreFullError,
    RuntimeEnvError,
    TaskCancelledError,
    TaskPlacementGroupRemoved,
    TaskUnschedulableError,
    WorkerCrashedError,
)
from actorflow._core.base.ids import CLUSTER
from actorflow._core.base.targets import ActorTarget, MethodTarget
from actorflow._core.protocol import messages as m
from actorflow._core.serialization import values
from actorflow._core.serialization.values import Pickled
from actorflow._core.worker.calls import Call, pack
from actorflow._core.worker.context import CAPTURED, declared_values
from actorflow._core.worker.create import give_class_id, spec_of
from actorflow._core.worker.durable import new_index
from actorflow._core.worker.object_ref import ObjectRef

if TYPE_CHECKING:
    from actorflow._core.worker.core import Core
    from actorflow._core.worker.references import Entry

log = logging.getLogger("actorflow")

TRIES_MAX = 5
"""So often a result is put that the nodes lose before it is kept."""
_CONSTRUCTOR = MethodTarget("__init__", "sync", None)


async def start(core: Core, target: ActorTarget, options: Any, work: Pickled, unseen: Sequence[ObjectRef[Any]]) -> ObjectRef[Any]:
    """Have an actor of the class `target` call what is in `work`, a pickle of function and arguments. Returns when the head has it (DC-1).

    Its constructor gets the pickle (bytes, buffers) or a reference to it, and the number of the object that it makes. `unseen`: references
    whose values the function gets in their stead, so that nobody has what is made of them when the call is over.
    """
    core.check_open()
    give_class_id(target)
    held: ObjectRef[Any] | None = None
    made: dict[Entry, ObjectRef[Any]] = {}
    args: tuple[Any, ...]
    if work.refs or work.size() > values.INLINE_BYTES_MAX:
        held = await core.durables.put_pickled(work, made=made)
        args = ([held],)  # In a list: its actor reads it itself, so that an error is the call's and not its constructor's.
    else:
        inline = values.owned_bytes(work)
        args = ((inline.data, inline.buffers),)
    call = Call(_CONSTRUCTOR, options, 0)
    call.values = declared_values()
    if options.capture_child_tasks or (call.values is not None and CAPTURED in call.values):
        from actorflow._core.worker.captured import capture

        capture(call, None)
    with core.lock:
        index = new_index(core)
    too_large = pack(call, (*args, index), {})
    assert too_large is None, "what is large has been put"
    with core.lock:
        spec = spec_of(core, core.new_id(), target, call.options, call)
    durable = [made[ref._entry]._entry.index for ref in unseen if ref._entry in made]
    if held is not None:
        durable.append(held._entry.index)
    try:
        answer: m.DurablePut = await core.directory.ask(lambda token: m.StartDetached(token, index, spec, durable))
        if answer.error:
            kind = ObjectStoreFullError if answer.full else ActorDiedError
            raise kind(f"{target.name} (detached) could not be started: {answer.error}")
    except BaseException:
        with core.lock:
            if core.closed is None:
                core.durables.free_soon([index, *durable])
        raise
    with core.lock:
        return core.references.handle(core.references.borrowed.get(CLUSTER, "", index))


async def keep(core: Core, index: int, value: Any) -> None:
    """The call has returned. Raises what the value's own fault is; that nobody wants it any more is nothing to raise."""
    for left in reversed(range(TRIES_MAX)):
        try:
            await core.durables.make(index, value)
        except ObjectFreedError as error:
            log.info("the result of a detached call is not kept: %s", error)
        except ObjectLostError:
            if left:
                continue
            raise
        return


async def keep_error(core: Core, index: int, failed: m.Failed) -> None:
    """The call has raised."""
    await core.directory.ask(lambda token: m.PutDurable(token, index, failed, promised=True))


def broken(name: str, died: m.ActorDied) -> BaseException:
    """Why the cluster will never have it."""
    words = f"{name} (detached)"
    if died.kind == "cancelled":
        return TaskCancelledError(f"{words}: {died.reason}")
    if died.kind == "unschedulable":
        return TaskUnschedulableError(f"{words} cannot run here: {died.reason}", function_name=name, reason=died.reason)
    if died.kind == "environment":
        return RuntimeEnvError.explain(which=words, what="cannot run", why=died.reason)
    if died.kind == "group_removed":
        return TaskPlacementGroupRemoved(f"{words}: {died.reason}", function_name=name)
    text = f"{words} has not returned, and is not tried again: {died.reason}"
    return WorkerCrashedError(text, function_name=name, reason=died.reason)
