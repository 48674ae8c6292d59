"""The simulated event loop: asyncio's interface, driven by a `World` under virtual time.

Ordinary asyncio code runs on it unchanged. A loop only keeps its queue; which loop runs next, and when time
moves, is the world's affair (`world.py`).

SL-1: the handles of one loop run in the order in which they became ready; between loops the world's seed
      decides.
SL-2: while a handle runs, its loop is the running loop, and no other handle runs. SL-3: code that runs on
one loop reaches another loop of its process by `call_soon_threadsafe` only, and never a loop of another
process: what would be a race, or impossible, outside is an error here.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

from actorflow.testing.errors import SimulationMisuse
from actorflow.testing.unsupported import UnsupportedCalls

if TYPE_CHECKING:
    from actorflow.testing.host import Host
    from actorflow.testing.world import World

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_running_loop = asyncio._get_running_loop


class SimHandle(asyncio.Handle):
    """A callback in a queue.

    The base class's own constructor asks the loop for its debug mode: too slow here.
    """

    __slots__ = ()

    def __init__(
        self, callback: Callable[..., object], args: tuple[Any, ...], loop: SimLoop, context: Context | None
    ) -> None:
        self._callback = callback
        self._args = args
        self._loop = loop
        self._context = copy_context() if context is None else context
        self._cancelled = False
        self._repr = None
        self._source_traceback = None


class SimTimer(asyncio.TimerHandle):
    """A callback that waits for its time."""

    __slots__ = ()

    def __init__(
        self,
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: SimLoop,
        context: Context | None,
    ) -> None:
        self._callback = callback
        self._args = args
        self._loop = loop
        self._context = copy_context() if context is None else context
        self._cancelled = False
        self._repr = None
        self._source_traceback = None
        self._when = when
        self._scheduled = True


class SimFuture(asyncio.Future[T]):
    """A future that hashes by a number of its world: sets of futures have the same order in every run."""

    __slots__ = ("_number",)

    _number: int

    def __hash__(self) -> int:
        try:
            return self._number
        except AttributeError:
            loop = self.get_loop()
            self._number = number = loop.world.next_number() if isinstance(loop, SimLoop) else id(self)
            return number


class SimTask(asyncio.Task[T]):
    """A task that hashes by a number of its world: a TaskGroup cancels its tasks in the order of a set."""

    __slots__ = ("_number",)

    def __init__(self, coro: Any, *, loop: SimLoop, number: int, **kwargs: Any) -> None:
        self._number = number  # first: the base class puts the task into a WeakSet
        super().__init__(coro, loop=loop, **kwargs)

    def __hash__(self) -> int:
        return self._number


class SimLoop(UnsupportedCalls):
    """One loop of one simulated process. Made by `Host`."""

    def __init__(self, world: World, host: Host, name: str, index: int) -> None:
        self.world = world
        self.host = host
        self.name = name
        self.index = index
        self.queue: deque[asyncio.Handle] = deque()
        self.listed = False
        """True while the world lists this loop as ready; also while it is held, so that nobody lists it."""
        self.holds = 0
        self.task_begun: Callable[[asyncio.Task[Any], Context | None], None] | None = None
        """Told of each task that is made here, with the context it was given."""
        self.ran = 0
        self.stop_at = -1
        """The world calls its hooks before this loop's handle number `stop_at` (counted from 0)."""
        self._closed = False
        self._exception_handler: Callable[[asyncio.AbstractEventLoop, dict[str, Any]], object] | None = None
        self._task_factory: Callable[..., asyncio.Future[Any]] | None = None

    def __repr__(self) -> str:
        return f"SimLoop({self.name})"

    # -- callbacks and time

    def push(self, handle: asyncio.Handle) -> None:
        """Append a ready handle (for the world and its parts; simulated code uses call_soon)."""
        self.queue.append(handle)
        if not self.listed:
            self.listed = True
            self.world.ready.append(self)

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """See asyncio. Another loop's code is refused (SL-3)."""
        if _running_loop() is not self:
            self._check_caller("call_soon", same_process_allowed=False)
        handle = SimHandle(callback, args, self, context)
        self.queue.append(handle)
        if not self.listed:
            self.listed = True
            self.world.ready.append(self)
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """See asyncio. Another loop of the same process may call it."""
        if _running_loop() is not self:
            self._check_caller("call_soon_threadsafe", same_process_allowed=True)
        handle = SimHandle(callback, args, self, context)
        self.push(handle)
        return handle

    def call_later(
        self, delay: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """See asyncio."""
        return self.call_at(self.world.now + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """See asyncio."""
        if _running_loop() is not self:
            self._check_caller("call_at", same_process_allowed=False)
        timer = SimTimer(when, callback, args, self, context)
        self.world.add_timer(when, timer)
        return timer

    def _check_caller(self, name: str, *, same_process_allowed: bool) -> None:
        if self._closed:
            raise RuntimeError("Event loop is closed")
        caller = _running_loop()
        if caller is None or not isinstance(caller, SimLoop):
            return  # the test itself, between two runs of the world
        if caller.host is self.host:
            if not same_process_allowed:
                raise SimulationMisuse(
                    f"{caller.name} called {name}() of {self.name}, another thread's loop: "
                    "use call_soon_threadsafe"
                )
        elif caller.host is not self.world.outside:
            raise SimulationMisuse(
                f"{caller.name} called {name}() of {self.name}, a loop of another process: only bytes cross"
            )

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        if handle._scheduled:  # type: ignore[attr-defined]
            self.world.timers_cancelled += 1

    def time(self) -> float:
        """The virtual time of the world, in seconds from its start."""
        return self.world.now

    # -- futures and tasks

    def create_future(self) -> asyncio.Future[Any]:
        """See asyncio."""
        return SimFuture(loop=self)

    def create_task(
        self, coro: Any, *, name: str | None = None, context: Context | None = None, **kwargs: Any
    ) -> asyncio.Task[Any]:
        """See asyncio. Unnamed tasks are numbered per world, so that names repeat too."""
        if self._closed:
            coro.close()
            raise RuntimeError("Event loop is closed")
        number = self.world.next_number()
        if self._task_factory is not None:
            if context is not None:
                kwargs["context"] = context
            task: Any = self._task_factory(self, coro, **kwargs)
            task.set_name(name or f"task-{number}")
            return task  # type: ignore[no-any-return]
        made: asyncio.Task[Any] = SimTask(coro, loop=self, number=number, name=name or f"task-{number}", context=context, **kwargs)
        if self.task_begun is not None:
            self.task_begun(made, context)
        return made

    def set_task_factory(self, factory: Callable[..., asyncio.Future[Any]] | None) -> None:
        """See asyncio."""
        self._task_factory = factory

    def get_task_factory(self) -> Any:
        """See asyncio."""
        return self._task_factory

    # -- threads

    def run_in_executor(self, executor: Any, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """Run `func` a little later, on this loop; where greenlets are installed it may block.

        `executor` is not used: a thread of it would be a real one.
        """
        from actorflow.testing.executor import run_in_thread

        future: asyncio.Future[T] = self.create_future()
        delay_s = self.world.rng("threads").random() * 0.000_1
        self.call_later(delay_s, run_in_thread, self, future, func, args)
        return future

    def set_default_executor(self, executor: Any) -> None:
        """Accepted and not used: see run_in_executor."""

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Nothing to shut down."""

    async def shutdown_asyncgens(self) -> None:
        """Nothing to do: a dropped generator is closed by a task, and the rest ends with the world."""

    # -- signals

    def add_signal_handler(self, sig: int, callback: Callable[[*Ts], object], *args: *Ts) -> None:
        """Call `callback` when the process gets `sig` (from `Processes.kill` or `World.kill`)."""
        self.host.signal_handlers[int(sig)] = (self, callback, args)

    def remove_signal_handler(self, sig: int) -> bool:
        """Back to the default action, which ends the process."""
        return self.host.signal_handlers.pop(int(sig), None) is not None

    # -- errors

    def set_exception_handler(
        self, handler: Callable[[asyncio.AbstractEventLoop, dict[str, Any]], object] | None
    ) -> None:
        """See asyncio. Without one, an unhandled exception fails the simulation."""
        self._exception_handler = handler

    def get_exception_handler(self) -> Any:
        """See asyncio."""
        return self._exception_handler

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """Fail the simulation."""
        self.world.report(self, context)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """See asyncio. What a dead process leaves behind is nobody's failure."""
        if not self.host.alive:
            return
        if self._exception_handler is None:
            self.default_exception_handler(context)
            return
        try:
            self._exception_handler(self, context)
        except Exception as error:
            self.default_exception_handler(
                {
                    "message": "the exception handler of the loop failed",
                    "exception": error,
                    "context": context,
                }
            )

    # -- state

    def hold(self) -> None:
        """Run no handle until as many `resume` calls have come (a stopped process, a blocked thread)."""
        self.holds += 1
        if self.holds == 1:
            if self.listed:
                self.world.ready.remove(self)
            self.listed = True

    def resume(self) -> None:
        """Take back one `hold`."""
        self.holds -= 1
        if self.holds == 0:
            self.listed = bool(self.queue)
            if self.listed:
                self.world.ready.append(self)

    def is_running(self) -> bool:
        """True until it is closed: the world runs it all the time."""
        return not self._closed

    def is_closed(self) -> bool:
        """See asyncio."""
        return self._closed

    def stop(self) -> None:
        """Refused: a loop ends with its process."""
        raise SimulationMisuse("a simulated loop is stopped by its world: host.exit() ends the process")

    def close(self) -> None:
        """No further tasks and calls from elsewhere; what is queued still runs."""
        self._closed = True

    def get_debug(self) -> bool:
        """False: asyncio's debug mode costs time and tells what the world checks anyway."""
        return False

    def set_debug(self, enabled: bool) -> None:
        """Accepted and not used."""
