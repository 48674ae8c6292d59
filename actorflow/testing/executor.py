"""Blocking code under simulation: `def` code runs in greenlets, so that it can wait while the world goes
on.

A `SimThread` is a greenlet that stands for a thread: its code may `block`, which switches back to the world
and, once it is woken, resumes in a handle of its own. `SimExecutor` is the Executor port on top: one such
thread of user code, one callable at a time.

SX-1: callables run in order of submission, and the next one starts when the one before has returned,
however long it blocks. SX-2: a wake that comes after the time-out, or twice, does nothing. SX-3: on a
loop of its own, the executor blocks that loop as well while its code blocks, as a thread does.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import importlib.util
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import TYPE_CHECKING, Any, TypeVar

from actorflow.testing.errors import SimulationMisuse
from actorflow.testing.loop import SimHandle, SimLoop

if TYPE_CHECKING:
    from types import FrameType

    from actorflow.testing.host import Host

T = TypeVar("T")
Register = Callable[[Callable[[], None]], None]


@functools.cache
def load_greenlet() -> Any:
    """Import greenlet, which only blocking code needs.

    Raises ImportError with the command that installs it.
    """
    try:
        return importlib.import_module("greenlet")
    except ImportError as error:
        raise ImportError(
            "simulating blocking `def` code needs greenlets, which are not installed: "
            'pip install "actorflow[testing]"'
        ) from error


class SimThread:
    """One greenlet of a simulated process, from its start to its end."""

    __slots__ = ("_disposing", "_getcurrent", "_greenlet", "_hold", "_on_end", "_ticket", "host", "loop")

    def __init__(
        self,
        host: Host,
        loop: SimLoop,
        fn: Callable[[], None],
        *,
        hold: bool = False,
        on_end: Callable[[], None] | None = None,
    ) -> None:
        module = load_greenlet()
        self.host = host
        self.loop = loop
        self._hold = hold
        self._on_end = on_end
        self._ticket: object | None = None
        self._disposing = False
        self._getcurrent = module.getcurrent
        self._greenlet = module.greenlet(fn)
        # A context of its own: a blocked greenlet stays inside its context, and no other may enter it
        # meanwhile.
        self._greenlet.gr_context = host.context.copy()
        self._greenlet.sim_thread = self
        host.threads.append(self)

    @property
    def blocked(self) -> bool:
        """True while the code waits in `block`."""
        return self._ticket is not None

    def run(self, value: bool = True) -> None:
        """Let the code run, in this handle, until it ends or blocks. What it raises is raised here."""
        green = self._greenlet
        self._switch(lambda: green.switch(value) if green else green.switch())

    def _throw(self, error: BaseException) -> None:
        self._switch(lambda: self._greenlet.throw(error))

    def _switch(self, switch: Callable[[], object]) -> None:
        green = self._greenlet
        green.parent = self._getcurrent()
        self._ticket = None
        try:
            switch()
        finally:
            if green.dead:
                self.host.threads.remove(self)
                if self._on_end is not None:
                    self._on_end()

    def block(self, register: Register, timeout_s: float | None) -> bool:
        """See ports.Executor.block; called by the code of this greenlet."""
        host = self.host
        if self._disposing:
            raise RuntimeError(f"the simulated process {host.name} is over")
        if host.lock.depth:
            raise SimulationMisuse(
                f"LK-1: code of {host.name} blocks while it holds the ports' lock: a deadlock outside"
            )
        self._ticket = ticket = object()
        if self._hold:
            self.loop.hold()
        register(lambda: self._wake(ticket, True))
        timer = None
        if timeout_s is not None:
            timer = host.world.at_host(host, host.world.now + timeout_s, self._wake, ticket, False)
        try:
            result: bool = self._greenlet.parent.switch()
        finally:
            if timer is not None:
                timer.cancel()
        return result

    def _wake(self, ticket: object, value: bool) -> None:
        if self._ticket is not ticket or not self.host.alive:
            return  # SX-2
        self._resume(self.run, value)

    def throw(self, error: BaseException) -> None:
        """Raise in blocked code, where it blocks: what a signal's handler can do to a thread."""
        if self.blocked and self.host.alive:
            self._resume(self._throw, error)

    def _resume(self, fn: Callable[[Any], None], argument: Any) -> None:
        self._ticket = None
        resume = SimHandle(fn, (argument,), self.loop, self.host.context)
        if self._hold:
            self.loop.queue.appendleft(resume)  # before what came while the thread was blocked
            self.loop.resume()
        else:
            self.loop.push(resume)

    @property
    def frame(self) -> FrameType | None:
        """Where blocked code stands, innermost."""
        frame: FrameType | None = self._greenlet.gr_frame
        return frame

    def frames(self) -> list[FrameType]:
        """Where blocked code stands, outermost first."""
        frames: list[FrameType] = []
        frame = self.frame
        while frame is not None:
            frames.append(frame)
            frame = frame.f_back
        return frames[::-1]

    def dispose(self) -> None:
        """End blocked code of a dead process (see `disposal.py`): GreenletExit is raised where it stands."""
        self._disposing = True
        self._greenlet.parent = self._getcurrent()
        if not self._greenlet.dead:
            self._greenlet.throw()


def run_in_thread(
    loop: SimLoop, future: asyncio.Future[T], fn: Callable[..., T], args: tuple[Any, ...]
) -> None:
    """Run `fn` for `SimLoop.run_in_executor`: in a greenlet where those are installed, else at once."""

    def body() -> None:
        try:
            result = fn(*args)
        except BaseException as error:
            if not future.done():
                future.set_exception(error)
        else:
            if not future.done():
                future.set_result(result)

    if importlib.util.find_spec("greenlet") is None:
        body()
    else:
        SimThread(loop.host, loop, body).run()


class SimExecutor:
    """The user's thread of a simulated worker.

    `loop` is where the user's `async def` code runs: by default the host's own loop, shared with the
    protocol. With `SimExecutor(host, host.new_loop("user"))` the two have a loop each, as in a real worker:
    more interleavings, and blocked `def` code also holds up the user's coroutines.
    """

    loop: asyncio.AbstractEventLoop
    hides_loop = False  # One thread, and so one running loop, is shared by all of the simulation.

    def __init__(self, host: Host, loop: SimLoop | None = None) -> None:
        self.host = host
        self.loop = self._loop = loop or host.loop
        self._hold = self._loop is not host.loop
        self._queue: deque[Callable[[], None]] = deque()
        self._busy = False
        self._thread: SimThread | None = None
        self.on_interrupt: Callable[[FrameType | None], None] | None = None
        self.on_unraisable: Callable[[BaseException], bool] | None = None

    def watch_tasks(self, begun: Callable[[asyncio.Task[Any], Context | None], None]) -> None:
        """See ports.Executor."""
        self._loop.task_begun = begun

    def submit(self, fn: Callable[[], None]) -> None:
        """See ports.Executor."""
        self._queue.append(fn)
        if not self._busy:
            self._busy = True
            self._schedule()

    def block(self, register: Register, timeout_s: float | None) -> bool:
        """See ports.Executor."""
        return block(register, timeout_s)

    def interrupt(self) -> None:
        """See ports.Executor. Code runs between two blocks in no time: it is found at one, or not at all."""
        self.host.world.at_host(self.host, self.host.world.now, self._interrupt)

    def frame(self) -> FrameType | None:
        """See ports.Executor."""
        return self._thread.frame if self._thread is not None else None

    def _interrupt(self) -> None:
        thread = self._thread
        if thread is None or not thread.blocked or self.on_interrupt is None:
            return
        try:
            self.on_interrupt(thread.frame)
        except asyncio.CancelledError as error:
            thread.throw(error)

    def _schedule(self) -> None:
        self._loop.push(SimHandle(self._next, (), self._loop, self.host.context))

    def _next(self) -> None:
        fn = self._queue.popleft()
        thread = self._thread = SimThread(self.host, self._loop, fn, hold=self._hold, on_end=self._ended)
        thread.run()

    def _ended(self) -> None:
        self._thread = None
        if self._queue:
            self._schedule()
        else:
            self._busy = False


def block_on(coroutine: Coroutine[Any, Any, T], timeout_s: float | None = None) -> T:
    """Block the running greenlet until `coroutine` has ended; the twin of `_core.io.blocking.block_on`.

    It runs on a loop of its own, as there: the loop of the blocked code stands still.
    """
    thread = current_thread()
    host = thread.host
    loop = host.spare_loops.pop() if host.spare_loops else host.new_loop(f"blocked-{len(host.loops)}")
    outer = asyncio._get_running_loop()
    asyncio._set_running_loop(loop)
    try:
        task = loop.create_task(coroutine if timeout_s is None else _bounded(coroutine, timeout_s))
    finally:
        asyncio._set_running_loop(outer)
    thread.block(lambda wake: task.add_done_callback(lambda _: wake()), None)
    host.spare_loops.append(loop)
    result: T = task.result()
    return result


async def _bounded(coroutine: Coroutine[Any, Any, T], timeout_s: float) -> T:
    async with asyncio.timeout(timeout_s):
        return await coroutine


def block(register: Register, timeout_s: float | None) -> bool:
    """Block the running greenlet until woken; False after `timeout_s`."""
    return current_thread().block(register, timeout_s)


def current_thread() -> SimThread:
    """The thread whose code runs. Raises SimulationMisuse on a loop: blocking there would stop the world."""
    thread: SimThread | None = getattr(load_greenlet().getcurrent(), "sim_thread", None)
    if thread is None:
        raise SimulationMisuse("code on a loop blocks: only callables given to an executor may")
    return thread
