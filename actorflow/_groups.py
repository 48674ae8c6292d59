"""Many calls at once: `af.TaskGroup`, which outlives all of them, and `af.map`, which bounds them.

Nothing outlives its block: a group leaves only when each of its calls is terminal, near and far (SEMANTICS
4), and a map cancels what is in flight when its loop is left.
"""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import AsyncIterable, Callable, Coroutine, Generator, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, Generic, NoReturn, ParamSpec, Self, TypeVar, overload

from actorflow._core.base.errors import PendingCallsLimitExceeded, TaskCancelledError, TaskError
from actorflow._remote_function import Submit
from actorflow._runtime import Runtime, cancelled_calls, current

if TYPE_CHECKING:
    from actorflow._core.worker.object_ref import ObjectRef

P = ParamSpec("P")
I = TypeVar("I")  # noqa: E741  # the item
T = TypeVar("T")
X = TypeVar("X")

MAX_IN_FLIGHT = 256
"""Calls of `af.map` that are under way at most when nobody says: enough to keep many workers busy."""


def _check_submit(f: Any, who: str) -> None:
    if isinstance(f, Submit):
        return
    name = getattr(f, "__qualname__", None) or repr(f)
    hint = (
        "decorate a function that takes what varies with @af.remote; it may call another remote function with what does not"
        if isinstance(f, functools.partial) or name.endswith("<lambda>")
        else "decorate it with @af.remote"
        if callable(f)
        else "give the function itself, and its arguments after it"
    )
    raise TypeError(f"{who} takes a remote function or a method of a handle, and {name} is neither: {hint}")


async def _terminal(runtime: Runtime, call: Any) -> tuple[BaseException | None, bool]:
    """Wait until a call is terminal; return its error, and whether this task was cancelled meanwhile.

    The wait goes on through a cancel. It is bounded: the runtime ends what does not listen to a cancel after
    its grace period.
    """
    cancelled = False
    while True:
        try:
            return await runtime.outcome(call), cancelled
        except asyncio.CancelledError:
            cancelled = True


def _is_quiet(error: BaseException | None) -> bool:
    """True for no error, and for a call that was cancelled itself; not for one whose code raised that."""
    return error is None or (isinstance(error, TaskCancelledError) and not isinstance(error, TaskError))


class TaskGroup(asyncio.TaskGroup):
    """An asyncio.TaskGroup that also holds remote calls: `async with af.TaskGroup() as tg: tg.submit(f, x)`.

    The first failure cancels everything else in the group, here and in the workers, and the block raises an
    ExceptionGroup. The block is left only when each of its calls is terminal: those of `submit`, and direct
    calls (`await f(x)`) that were cancelled inside. Streams of the group are closed at its end.
    """

    def __init__(self) -> None:
        super().__init__()
        self._calls: set[Any] = set()
        """Those of `submit` that are not terminal."""
        self._streams: list[Any] = []
        self._cancelled_calls: list[Any] = []
        self._outer_calls: list[Any] | None = None

    @overload
    def submit(self, f: Submit[..., X], a: ObjectRef[Any], /, *args: Any, **kwargs: Any) -> X: ...
    @overload
    def submit(self, f: Submit[..., X], a: Any, b: ObjectRef[Any], /, *args: Any, **kwargs: Any) -> X: ...
    @overload
    def submit(self, f: Submit[P, X], /, *args: P.args, **kwargs: P.kwargs) -> X: ...
    def submit(self, f: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Start a call now, as `f.remote(...)` does, and return its ObjectRef (a Stream for a generator).

        A call that somebody cancels by `ref.cancel()` is not a failure of the group. Raises RuntimeError when
        the group is not entered or is over, and whatever `f.remote` raises.
        """
        _check_submit(f, "TaskGroup.submit")
        started: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        watch = self._watch(current(), started)
        try:
            task = self.create_task(watch)
        except RuntimeError:
            watch.close()
            raise
        try:
            result = f.remote(*args, **kwargs)
        except BaseException:
            task.cancel()
            raise
        # Several return values are one call, which any of its references stands for.
        call = result[0] if isinstance(result, list) else result
        if hasattr(call, "aclose"):
            self._streams.append(call)
            call = None
        if call is not None:
            self._calls.add(call)
        started.set_result(call)
        return result

    async def _watch(self, runtime: Runtime, started: asyncio.Future[Any]) -> None:
        """One task of the group for each call: it ends when the call is terminal, with the call's error."""
        call = await started
        if call is None:
            return
        try:
            error = await runtime.outcome(call)
        except asyncio.CancelledError:
            call.cancel()
            error, _ = await _terminal(runtime, call)
            if _is_quiet(error):
                raise
        finally:
            self._calls.discard(call)
        if error is not None and not _is_quiet(error):
            raise error

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self._outer_calls = cancelled_calls.get()
        cancelled_calls.set(self._cancelled_calls)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        try:
            await super().__aexit__(kind, error, tb)
        except BaseException:
            await self._settle()
            raise
        if await self._settle():
            raise asyncio.CancelledError

    async def _settle(self) -> bool:
        """Outlive what the group's tasks could not wait for. True when this task was cancelled meanwhile.

        That is: streams, direct calls whose `await` was cancelled, and calls whose task was cancelled before
        its first step.
        """
        cancelled_calls.set(self._outer_calls)
        for stream in self._streams:
            await stream.aclose()
        for call in self._calls:
            call.cancel()
        self._cancelled_calls.extend([*self._streams, *self._calls])
        self._streams.clear()
        self._calls.clear()
        cancelled = False
        while self._cancelled_calls:
            _, again = await _terminal(current(), self._cancelled_calls.pop())
            cancelled = cancelled or again
        return cancelled


# map --------------------------------------------------------------------------------------------------------


def map(
    f: Submit[Concatenate[I, P], ObjectRef[T]],
    items: Iterable[I] | AsyncIterable[I],
    *,
    max_in_flight: int | None = None,
    ordered: bool = True,
) -> Map[T]:
    """Call `f` with each item and iterate over the results: `async for value in af.map(f, items)`.

    `max_in_flight` bounds the calls that are under way or whose results have not been taken (256 when not
    given); items are taken from `items`, which may be endless, only when there is room. Results come in the
    order of the items, or with `ordered=False` as they are done. A call that failed raises its error in its
    place; who goes on with `anext` gets the next one. Leaving the loop cancels what is in flight; `await
    m.aclose()`, or `async with`, also waits until it is terminal.

    Raises TypeError, ValueError for what cannot be mapped.
    """
    return Map(f, items, max_in_flight, ordered=ordered)


class Map(Generic[T]):
    """The results of `af.map`: an async iterator. Calls start with its first step."""

    __slots__ = ("__weakref__", "_flow")

    def __init__(self, f: Any, items: Any, max_in_flight: int | None = None, *, ordered: bool = True) -> None:
        _check_submit(f, "af.map")
        if not isinstance(items, Iterable | AsyncIterable):
            raise TypeError(f"af.map takes items to iterate over, not a {type(items).__name__}")
        if max_in_flight is None:
            max_in_flight = MAX_IN_FLIGHT
        if isinstance(max_in_flight, bool) or not isinstance(max_in_flight, int):
            raise TypeError(f"af.map: max_in_flight={max_in_flight!r} must be a whole number")
        if max_in_flight < 1:
            raise ValueError(f"af.map: max_in_flight={max_in_flight} would let no call start: give 1 or more")
        # The work is not in this object: what runs must not keep it alive, as dropping it ends the work.
        self._flow = _Flow(f, items, max_in_flight, ordered=ordered)

    def __iter__(self) -> NoReturn:
        raise TypeError("af.map is async: write `async for item in af.map(...)`, or `af.sync(af.map(...))` for a list in blocking code")

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Coroutine[Any, Any, T]:
        """The next result; StopAsyncIteration at the end, or the error of a call in its place."""
        return self._flow.next()

    async def aclose(self) -> None:
        """Cancel what is in flight, and return when all of it is terminal."""
        await self._flow.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        flow: _Flow | None = getattr(self, "_flow", None)
        if flow is not None:
            flow.drop()


class _Failure:
    """Stands in the line of results for an error of the items, or of a call that could not be started."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def _raise(self) -> NoReturn:
        raise self.error

    def __await__(self) -> Generator[Any, None, NoReturn]:
        return self._raise().__await__()


class _Flow:
    """The work of one map.

    A feeder task takes items and starts calls while there is room; `_line` has what may be handed out, in
    order: every call (ordered), or those that are done (unordered).
    """

    def __init__(self, f: Any, items: Any, bound: int, *, ordered: bool) -> None:
        self._f = f
        self._items = items
        self._ordered = ordered
        self._room = asyncio.Semaphore(bound)
        self._changed = asyncio.Event()
        self._line: deque[Any] = deque()
        self._flying: set[Any] = set()
        """Calls whose result has not been handed out."""
        self._watchers: set[asyncio.Task[Any]] = set()
        self._feeder: asyncio.Task[None] | None = None
        self._fed = False
        self._closed = False
        self._runtime: Runtime | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._group_calls: list[Any] | None = None

    def _start(self) -> None:
        self._runtime = current()
        self._loop = asyncio.get_running_loop()
        self._group_calls = cancelled_calls.get()
        self._feeder = self._loop.create_task(self._feed(), name="af.map")

    async def next(self) -> Any:
        """See Map.__anext__."""
        if self._feeder is None and not self._closed:
            self._start()
        try:
            while not self._line:
                if self._closed or (self._fed and not self._flying):
                    raise StopAsyncIteration
                self._changed.clear()
                await self._changed.wait()
            call = self._line.popleft()
            try:
                value = await call
            except Exception:
                self._taken(call)
                raise
            self._taken(call)
            return value
        except asyncio.CancelledError:
            self.close()
            raise

    def _taken(self, call: Any) -> None:
        self._flying.discard(call)
        self._room.release()

    # -- feeding

    async def _feed(self) -> None:
        try:
            if isinstance(self._items, AsyncIterable):
                source = aiter(self._items)
                while await self._has_room():
                    self._add(await self._submit(await anext(source)))
            else:
                iterator = iter(self._items)
                while await self._has_room():
                    try:
                        item = next(iterator)
                    except StopIteration:
                        return
                    self._add(await self._submit(item))
        except StopAsyncIteration:
            return
        except Exception as error:
            # Of the items, or of a call that could not be started: raised in its place in the line.
            self._add(_Failure(error))
        finally:
            self._fed = True
            self._changed.set()

    async def _has_room(self) -> bool:
        """Wait until one more call may be under way; False when there is to be none."""
        await self._room.acquire()
        return not self._closed

    async def _submit(self, item: Any) -> Any:
        try:
            call = self._f.remote(item)
        except PendingCallsLimitExceeded:
            call = await self._f.submit(item)
        if not hasattr(call, "done"):
            if hasattr(call, "aclose"):
                await call.aclose()
            raise TypeError(f"af.map is for calls with one result, and {self._f!r} does not give one")
        return call

    def _add(self, call: Any) -> None:
        self._flying.add(call)
        if self._ordered or isinstance(call, _Failure):
            self._line.append(call)
            self._changed.set()
            return
        assert self._loop is not None
        assert self._runtime is not None
        watcher = self._loop.create_task(_when_terminal(self._runtime, call, self._done))
        self._watchers.add(watcher)
        watcher.add_done_callback(self._watchers.discard)

    def _done(self, call: Any) -> None:
        if not self._closed:
            self._line.append(call)
            self._changed.set()

    # -- the end

    def _calls(self) -> list[Any]:
        return [call for call in self._flying if not isinstance(call, _Failure)]

    def close(self) -> list[Any]:
        """Start nothing more, cancel what is in flight; return it."""
        self._closed = True
        calls = self._calls()
        self._flying.clear()
        self._line.clear()
        self._changed.set()
        if self._feeder is not None:
            self._feeder.cancel()
        for watcher in self._watchers:
            watcher.cancel()
        for call in calls:
            call.cancel()
        if self._group_calls is not None:
            self._group_calls.extend(calls)
        return calls

    async def aclose(self) -> None:
        """See Map.aclose."""
        calls = self.close()
        if self._feeder is None or self._runtime is None:
            return
        await asyncio.wait([self._feeder])
        cancelled = False
        for call in calls:
            _, again = await _terminal(self._runtime, call)
            cancelled = cancelled or again
        if cancelled:
            raise asyncio.CancelledError

    def drop(self) -> None:
        """The iterator is gone, perhaps on another thread or in a collection: close on the loop, soon."""
        if self._loop is None or self._closed or (self._fed and not self._flying):
            return
        self._closed = True
        if self._group_calls is not None:
            # The group may be left before `close` runs, and waits for these.
            self._group_calls.extend(self._calls())
        try:
            self._loop.call_soon_threadsafe(self.close)
        except RuntimeError:
            # The loop is closed, and nothing of it runs any more; the runtime ends the calls.
            self._flying.clear()


async def _when_terminal(runtime: Runtime, call: Any, then: Callable[[Any], None]) -> None:
    try:
        await runtime.outcome(call)
    finally:
        # Whatever happened: the `await` of the call tells.
        then(call)
