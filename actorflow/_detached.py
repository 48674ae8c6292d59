"""Detached calls: `f.options(lifetime="detached").submit(...)`. An actor of its own makes each, and ends when the cluster has its result.

The actor is created by the head (`actorflow._core.worker.detached` has the way there), and starts by calling itself: so its call is one
like any other for the node that it runs on, which may have to wait for it, or to move it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
from typing import TYPE_CHECKING, Any, cast

from actorflow import _runtime
from actorflow._core.base.errors import TaskCancelledError
from actorflow._core.base.targets import ActorTarget, CallKind, MethodTarget
from actorflow._core.policy.retry_pauses import pause_after_error_s
from actorflow._core.protocol.messages import Failed
from actorflow._core.serialization import tracebacks, values
from actorflow._core.worker import detached
from actorflow._core.worker.context import running_call
from actorflow._core.worker.object_ref import ObjectRef
from actorflow.options import DEFAULT_METHOD, ActorOptions, TaskOptions

if TYPE_CHECKING:
    from actorflow._core.worker.core import Core
    from actorflow._remote_function import RemoteFunction

Work = tuple["RemoteFunction[..., Any, Any]", tuple[Any, ...], dict[str, Any]]


async def submit(function: RemoteFunction[..., Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> ObjectRef[Any]:
    """Start the call; returns when the head has it. Raises SerializationError, ObjectStoreFullError, and the error of a failed argument."""
    core = cast("Core", _runtime.current())
    work = values.dumps((function, args, kwargs))
    given = [arg for arg in (*args, *kwargs.values()) if isinstance(arg, ObjectRef)]
    if given:
        inside = values.dumps((function, [arg for arg in (*args, *kwargs.values()) if not isinstance(arg, ObjectRef)])).refs or ()
        seen = {ref._entry for ref in inside}
        given = [ref for ref in given if ref._entry not in seen]
    target = _target(function._target.name, function._target.kind)
    return await detached.start(core, target, actor_options(function._options), work, given)


async def run(function: RemoteFunction[..., Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`await f(...)`: nobody else has a reference to its result; so that goes when it has been read, or is not waited for."""
    ref = await submit(function, args, kwargs)
    try:
        return await ref
    finally:
        core = ref._core
        with core.lock:
            if core.closed is None:
                core.durables.free_soon([ref._entry.index])


@functools.lru_cache(maxsize=512)
def _target(name: str, kind: CallKind) -> ActorTarget:
    return ActorTarget(AsyncCall if kind == "async" else Call, name, {}, kind == "async")


@functools.lru_cache(maxsize=512)
def actor_options(options: TaskOptions) -> ActorOptions:
    """Those of the actor that makes a call with these options."""
    given = {each.name: getattr(options, each.name) for each in dataclasses.fields(options) if each.init}
    for mine in ("num_returns", "retry_exceptions", "retry_delay", "max_calls", "timeout"):
        del given[mine]
    given["max_restarts"] = given.pop("max_retries")
    made = ActorOptions(**given)
    object.__setattr__(made, "placement", options.placement)  # It may be captured by a group.
    return made


class _Call:
    """What both kinds have in common."""

    def __init__(self, work: tuple[bytes, list[bytes] | None] | list[ObjectRef[Any]], index: int) -> None:
        """`work`: function and arguments, or where they are. `index`: the object that this is to make."""
        self._core = core = cast("Core", _runtime.current())
        self._work = work
        self._index = index
        running = running_call.get()
        assert running is not None, "an actor is made by its worker"
        self._name = running.name.removesuffix(".__init__")
        client = core.actors.client(running.actor_id, self._name, watch=True)
        kind: CallKind = "async" if isinstance(self, AsyncCall) else "sync"
        self._self_call = core.submit_method(client, MethodTarget("run", kind, DEFAULT_METHOD), (), {}, DEFAULT_METHOD)

    async def _load(self) -> Work:
        if isinstance(self._work, list):
            function, args, kwargs = await self._work[0]
        else:
            function, args, kwargs = values.loads(*self._work)
        args = tuple([await arg if isinstance(arg, ObjectRef) else arg for arg in args])
        return function, args, {key: await arg if isinstance(arg, ObjectRef) else arg for key, arg in kwargs.items()}

    def _is_cancelled(self) -> bool:
        """This actor is to end: then nobody waits for it, or its next life makes the call anew."""
        running, host = running_call.get(), self._core.host
        return host is not None and any(call.running is running and call.cancelled for call in list(host.calls.values()))

    async def _pause(self, function: RemoteFunction[..., Any, Any], errors: int) -> None:
        await asyncio.sleep(pause_after_error_s(errors, function._options.retry_delay, self._core.ports.rng))

    async def _keep(self, value: Any) -> None:
        await detached.keep(self._core, self._index, value)

    async def _fail(self, error: BaseException) -> None:
        running = running_call.get()
        identity = self._core.identity
        data = tracebacks.capture(
            error,
            function_name=self._name,
            task=f"detached-{self._index}",
            process_id=identity.process_id,
            pid=identity.pid,
            actor=running.actor_id if running is not None else "",
            dumps=values.dumps_plain,
        )
        await detached.keep_error(self._core, self._index, Failed(b"\1" + data))


def _again(function: RemoteFunction[..., Any, Any], error: BaseException, tries: int) -> bool:
    """`retry_exceptions` and `max_retries`, in one life of the actor."""
    options = function._options
    wanted: Any = options.retry_exceptions
    if not wanted or not isinstance(error, Exception) or isinstance(error, TaskCancelledError):
        return False
    return (wanted is True or isinstance(error, wanted)) and (options.max_retries < 0 or tries < options.max_retries)


class Call(_Call):
    """A call of a `def` function."""

    def run(self) -> None:
        """The call."""
        wait = self._core.block_on
        try:
            function, args, kwargs = wait(self._load())
            wait(self._keep(self._call(function, args, kwargs)))
        except BaseException as error:
            # SystemExit too: it ends the call, and whoever waits is to know.
            if self._is_cancelled():
                raise
            wait(self._fail(error))

    def _call(self, function: RemoteFunction[..., Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        errors = 0
        while True:
            try:
                return function.__wrapped__(*args, **kwargs)
            except Exception as error:
                if not _again(function, error, errors):
                    raise
                errors += 1
            self._core.block_on(self._pause(function, errors))


class AsyncCall(_Call):
    """A call of an `async def` function."""

    async def run(self) -> None:
        """The call."""
        try:
            function, args, kwargs = await self._load()
            await self._keep(await self._call(function, args, kwargs))
        except BaseException as error:
            # An asyncio.CancelledError of something that the code itself has cancelled is its error like any other.
            if self._is_cancelled():
                raise
            await self._fail(error)

    async def _call(self, function: RemoteFunction[..., Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        errors = 0
        while True:
            try:
                return await function.__wrapped__(*args, **kwargs)
            except Exception as error:
                if not _again(function, error, errors):
                    raise
                errors += 1
            await self._pause(function, errors)
