"""The verbs of the public face: objects, waiting, the end of work, looking."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import operator
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, TypeVar, cast, overload

from actorflow import _option_checks as check
from actorflow import _runtime
from actorflow._core.base.errors import GetTimeoutError, OptionError, TaskCancelledError
from actorflow._core.io.notebook import in_notebook
from actorflow._core.worker.context import deadline as _deadline
from actorflow._core.worker.context import running_call
from actorflow._core.worker.core import Core
from actorflow._core.worker.object_ref import ObjectRef
from actorflow._core.worker.streams import Stream

T = TypeVar("T")


def _core() -> Core:
    return cast("Core", _runtime.current())


def _as_list(refs: Any, function: str) -> list[Any]:
    if not isinstance(refs, Iterable):
        what = "references or one of them" if function == "get" else "references"
        hint = f"Put it into a list: `af.{function}([ref])`" if isinstance(refs, ObjectRef) else _NO_REFERENCE
        raise TypeError(f"af.{function} takes {what}, not {type(refs).__name__}. {hint}")
    return list(refs)


def _check_refs(refs: Iterable[Any], function: str) -> list[ObjectRef[Any]]:
    result = _as_list(refs, function)
    if set(map(type, result)) <= {ObjectRef}:
        return result
    for position, ref in enumerate(result):
        if type(ref) is not ObjectRef:
            raise TypeError(
                f"af.{function} takes references; item {position} is a {type(ref).__name__}. {_NO_REFERENCE}"
            )
    return result


_NO_REFERENCE = "`f.remote(...)` and `await af.put(value)` give references; a direct call `await f(...)` gives the value itself"


async def put(value: T, *, durable: bool = False, ttl: float | None = None) -> ObjectRef[T]:
    """Make an object of `value` and return a reference to it; this process owns it.

    Up to 100 KiB it stays in this process, larger ones go into the node's shared memory. The value is copied: later changes to it do
    not matter.

    `durable=True`: the cluster owns it, and it outlives this process. It returns when two nodes have it, or as many as there are, and the
    head has written it down; a value up to 100 KiB is with the head itself. References inside `value` become durable too. It goes with
    `af.free(ref)`, after `ttl` seconds, or when no program and no detached actor of its namespace is left.

    Raises SerializationError, which names what cannot be pickled, and ObjectStoreFullError; with `durable` ObjectLostError, and the error
    of a failed call whose reference is inside.
    """
    if isinstance(value, ObjectRef):
        raise TypeError("af.put of a reference: pass the reference itself, or put a list that contains it")
    check.flag("af.put: durable", durable)
    lasts_s = check.seconds("af.put: ttl", ttl)
    if not durable:
        if lasts_s is not None:
            raise OptionError(f"af.put: ttl={ttl!r} is for objects that the cluster owns: say durable=True too")
        return await _core().put(value)
    return await _core().durables.put(value, lasts_s or 0.0)


async def free(refs: ObjectRef[Any] | Sequence[ObjectRef[Any]]) -> int:
    """Free objects that the cluster owns (`af.put(value, durable=True)`), for everybody. Returns how many of them there still were.

    Whoever reads one a moment later gets ObjectFreedError, but for a small value that it has read before. All others are freed when their
    last reference is gone, without a word.
    """
    from actorflow._core.worker.durable import is_durable

    entries = [ref._entry for ref in ([refs] if isinstance(refs, ObjectRef) else _check_refs(refs, "free"))]
    for position, entry in enumerate(entries):
        if not is_durable(entry):
            raise OptionError(
                f"af.free: a process owns the object of reference {position}: it goes when its last reference is dropped (`del ref`)"
            )
    return await _core().durables.free([entry.index for entry in entries])


@overload
async def get(refs: ObjectRef[T], *, timeout: float | None = None) -> T: ...
@overload
async def get(refs: Sequence[ObjectRef[T]], *, timeout: float | None = None) -> list[T]: ...
async def get(refs: Any, *, timeout: float | None = None) -> Any:
    """The value of one reference, or a list of values in the order of the references.

    Raises the error of the first failed one, in their order. `timeout` in seconds only stops waiting, with GetTimeoutError; 0 polls.
    """
    if timeout is not None:
        timeout = check.patience("af.get: timeout", timeout)
    single = isinstance(refs, ObjectRef)
    checked = _check_refs([refs] if single else refs, "get")
    core = _core()
    entries = [ref._entry for ref in checked]
    if any(entry.outcome is None for entry in entries):
        waiting = core.objects.wait_many(entries, len(entries))
        if timeout is None:
            await waiting
        else:
            try:
                async with asyncio.timeout(timeout):
                    await waiting
            except TimeoutError:
                done = sum(entry.outcome is not None for entry in entries)
                raise GetTimeoutError(
                    f"{done} of {len(entries)} results were there after {timeout:g} s. The calls go on: wait again, or cancel them"
                ) from None
    elif core.turns.due():
        await core.turns.give()
    values = await core.objects.open_all(entries)
    return values[0] if single else values


async def wait(
    refs: Iterable[ObjectRef[T]], *, num_returns: int = 1, timeout: float | None = None
) -> tuple[list[ObjectRef[T]], list[ObjectRef[T]]]:
    """Wait until `num_returns` of the references are done; return (ready, pending), both in the order given.

    `timeout` in seconds stops waiting; fewer may be ready then. Nothing is cancelled.
    """
    checked = _as_list(refs, "wait")
    try:
        entries = list(map(_entry_of, checked))
    except AttributeError:
        # The common case pays for no check of its own: this one says which of them is no reference.
        entries = [ref._entry for ref in _check_refs(checked, "wait")]
    if len(set(entries)) != len(entries):
        raise ValueError("af.wait: the same reference stands twice in the list; each may stand there once")
    if isinstance(num_returns, bool) or not isinstance(num_returns, int):
        raise TypeError(f"af.wait: num_returns={num_returns!r} is of the type {type(num_returns).__name__}; a whole number is right")
    if not 0 < num_returns <= len(entries):
        raise ValueError(f"af.wait: num_returns={num_returns} of {len(entries)} references; it must be between 1 and their number")
    if timeout is not None:
        timeout = check.patience("af.wait: timeout", timeout)
    done = _first_done(entries, num_returns)
    if len(done) < num_returns:
        waiting = _core().objects.wait_many(entries, num_returns)
        if timeout is None:
            await waiting
        else:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await waiting
        done = _first_done(entries, num_returns)
    elif (turns := checked[0]._core.turns).due():
        await turns.give()
    pending = checked.copy()
    for position in reversed(done):
        del pending[position]
    return [checked[position] for position in done], pending


_entry_of = operator.attrgetter("_entry")


def _first_done(entries: list[Any], count: int) -> list[int]:
    """The positions of the first `count` entries that are done, or of fewer; it looks no further than it must."""
    done: list[int] = []
    for position, entry in enumerate(entries):
        if entry.outcome is not None:
            done.append(position)
            if len(done) == count:
                break
    return done


class as_completed(AsyncIterator[ObjectRef[T]]):  # the name is asyncio's
    """An async iterator over references in the order in which they are done. Leaving the loop cancels nothing.

    `timeout` in seconds for the whole iteration; then GetTimeoutError.
    """

    def __init__(self, refs: Iterable[ObjectRef[T]], *, timeout: float | None = None) -> None:
        if timeout is not None:
            timeout = check.patience("af.as_completed: timeout", timeout)
        self._pending = _check_refs(refs, "as_completed")
        self._ready: list[ObjectRef[T]] = []
        self._timeout = timeout
        self._until: float | None = None

    def __aiter__(self) -> as_completed[T]:
        return self

    async def __anext__(self) -> ObjectRef[T]:
        if not self._ready:
            if not self._pending:
                raise StopAsyncIteration
            await self._more()
        return self._ready.pop()

    async def _more(self) -> None:
        left = None
        if self._timeout is not None:
            now = asyncio.get_running_loop().time()
            self._until = self._until or now + self._timeout
            left = max(self._until - now, 0.0)
        await wait(self._pending, num_returns=1, timeout=left)
        done = [ref for ref in self._pending if ref.done()]
        if not done:
            raise GetTimeoutError(f"{len(self._pending)} results were not there after {self._timeout:g} s. The calls go on")
        self._pending = [ref for ref in self._pending if not ref.done()]
        self._ready = done[::-1]


def deref(ref: ObjectRef[T]) -> T:
    """For type checkers: a reference where a value is expected, as an argument of a call. Returns the reference itself."""
    return cast("T", ref)


async def kill(handle: Any, *, no_restart: bool = True, graceful: bool = False) -> None:
    """End an actor now: calls under way fail with ActorDiedError. `no_restart=False`: it restarts if `max_restarts` allows.

    `graceful`: what is in its mailbox runs first, then its exit hooks. Returns when it is dead (for `no_restart`).
    """
    for option, value in (("no_restart", no_restart), ("graceful", graceful)):
        check.flag(f"af.kill: {option}", value)
    await _core().kill_actor(_actor_of(handle, "kill"), no_restart=no_restart, graceful=graceful)


async def drain_node(node_id: str, *, deadline: float, reason: str = "asked by a program") -> str:
    """Have a node leave the cluster in order: nothing new goes there, what runs may end, actors that may restart move with their state.

    Returns its whole id when it has begun (`node_id` may be the beginning of one); the node is gone when nothing is left there, or after
    `deadline` seconds. Raises OptionError for a node that is not known, or is the first one, which the cluster ends with.
    """
    check.name("af.drain_node: node_id", node_id, check.NODE_ID_NEEDED)
    check.span("af.drain_node: deadline", deadline)
    check.name("af.drain_node: reason", reason, "Give one, or leave it out")
    from actorflow._core.worker.drains import drain_node as drain

    return await drain(_core(), node_id, float(deadline), reason)


async def wait_dead(handle: Any) -> str:
    """Wait until an actor is gone for good; returns the reason. To wait for it keeps no actor alive."""
    waiting = _core().wait_dead(_actor_of(handle, "wait_dead"))
    del handle
    return await waiting


def _actor_of(handle: Any, function: str) -> Any:
    from actorflow._actor import ActorHandle, state_of

    if not isinstance(handle, ActorHandle):
        hint = ""
        if isinstance(handle, ObjectRef):
            cancel, wait = "references are cancelled with ref.cancel()", "the result of a reference is awaited: `await ref`"
            hint = f"; {cancel if function == 'kill' else wait}"
        elif isinstance(handle, str):
            hint = "; `await af.get_actor(name)` gives the handle for a name"
        raise TypeError(f"af.{function} takes an actor handle, not {type(handle).__name__}{hint}")
    return state_of(handle)


async def get_actor(name: str, *, namespace: str | None = None) -> Any:
    """A handle to the actor with this name. Raises ActorNotFoundError, which shows near names, and OptionError."""
    check.name("af.get_actor: name", name)
    check.name_or_none("af.get_actor: namespace", namespace)
    from actorflow._actor import handle_of

    state, blob = await _core().find_actor(name, namespace)
    return handle_of(state, blob)


@contextlib.asynccontextmanager
async def timeout(seconds: float | None) -> AsyncIterator[None]:
    """Bound this block and everything nested in it, near and far: calls made inside carry the deadline (SEMANTICS 7).

    At the deadline the block is cancelled, with all direct calls it waits for, and TimeoutError is raised.
    """
    if seconds is None:
        yield
        return
    seconds = check.patience("af.timeout: seconds", seconds)
    core = _core()
    mine = core.ports.monotonic() + seconds
    outer = _deadline.get()
    token = _deadline.set(mine if outer is None else min(mine, outer))
    try:
        async with asyncio.timeout(seconds):
            yield
    finally:
        _deadline.reset(token)


def check_cancelled() -> None:
    """Raise TaskCancelledError when the running call has been cancelled; for `def` methods of actors, which nothing else interrupts."""
    call = running_call.get()
    if call is not None and call.cancelled:
        raise TaskCancelledError(f"{call.name} was cancelled")


def sync(awaitable: Any, *, timeout: float | None = None) -> Any:
    """Wait for any awaitable, reference, stream or async iterator in blocking code: a script, a thread, a `def` task.

    A stream or async iterator gives a list. `timeout` in seconds only stops waiting, with GetTimeoutError. On a thread whose event loop
    runs, `await` is the way: there it raises RuntimeError, which says so. A loop runs in every cell of a notebook: there it takes
    references, streams and whatever else actorflow has made, and refuses coroutines of yours, which may need that loop.
    """
    if asyncio._get_running_loop() is not None and running_call.get() is None and not (in_notebook() and _is_ours(awaitable)):
        raise _would_block(awaitable)
    if not (inspect.isawaitable(awaitable) or hasattr(awaitable, "__aiter__")):
        hint = "write af.sync(af.get(references))" if isinstance(awaitable, list | tuple) else "call it with what you would `await`"
        raise TypeError(f"af.sync takes an awaitable, a stream or an async iterator, not {type(awaitable).__name__}: {hint}")
    if timeout is not None:
        try:
            timeout = check.patience("af.sync: timeout", timeout)
        except OptionError:
            if asyncio.iscoroutine(awaitable):
                awaitable.close()  # Nobody can await it: the program gave it away.
            raise
    core = _core()
    try:
        return core.block_on(_gather(awaitable), timeout)
    except TimeoutError as error:
        if timeout is None or isinstance(error, GetTimeoutError) or type(error) is not TimeoutError:
            raise
        raise GetTimeoutError(f"no result after {timeout:g} s. The call goes on: wait again, or cancel it") from None


_OURS = ("actorflow", "actorflow_data", "actorflow_serve", "actorflow_train", "actorflow_tune")


def _is_ours(awaitable: Any) -> bool:
    """True for what actorflow or one of its libraries has made: that needs no particular loop."""
    frame = getattr(awaitable, "cr_frame", None) or getattr(awaitable, "ag_frame", None)
    module: str = frame.f_globals.get("__name__", "") if frame is not None else type(awaitable).__module__
    return module.partition(".")[0] in _OURS


def _would_block(awaitable: Any) -> RuntimeError:
    name = getattr(awaitable, "__qualname__", "")
    if asyncio.iscoroutine(awaitable):
        awaitable.close()
    example = f"{name}(...)" if name else "..."
    what = f"async for item in {example}" if hasattr(awaitable, "__aiter__") else f"await {example}"
    where = "the notebook's event loop, which your coroutine may need" if in_notebook() else "the event loop that runs on this thread"
    return RuntimeError(f"af.sync would block {where}: write `{what}` instead")


async def _gather(awaitable: Any) -> Any:
    if isinstance(awaitable, Stream) or hasattr(awaitable, "__aiter__"):
        return [item async for item in awaitable]
    return await awaitable


class RuntimeContext:
    """What the running code is and where: of a driver, a task or an actor."""

    def __init__(self, core: Core) -> None:
        call = running_call.get()
        self.job_id = core.identity.job_id
        self.node_id = core.node_id
        self.process_id = core.identity.process_id
        self.pid = core.identity.pid
        self.role = core.identity.role
        self.namespace = core.identity.namespace
        self.task_id = f"task-{call.owner[:6]}-{call.seq}" if call is not None else ""
        self.task_name = call.name if call is not None else ""
        self.actor_id = call.actor_id if call is not None else ""
        self.attempt = call.attempt if call is not None else 0

    def is_cancelled(self) -> bool:
        """True when the running call has been cancelled."""
        call = running_call.get()
        return call is not None and call.cancelled

    def __repr__(self) -> str:
        return f"RuntimeContext({', '.join(f'{key}={value!r}' for key, value in vars(self).items() if value != '')})"


def get_runtime_context() -> RuntimeContext:
    """The context of the running code. Raises NotInitializedError."""
    return RuntimeContext(_core())
