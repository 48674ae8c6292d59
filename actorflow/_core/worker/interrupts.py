"""Ending code that runs: `def` code is interrupted by a signal, what does not listen is reported (SEMANTICS 4, 5).

The protocol's thread learns of a cancel. It has the executor's `interrupt` sent to the user's thread, again every REDELIVER_S. There
`_on_interrupt` decides, in the middle of whatever runs, whether this is the moment:

    IR-1  Only the code of a call that was cancelled itself is interrupted. `_open` is the call whose code runs, set immediately before
          and cleared immediately after; the mark `cancelled` is on the call and its attempt, not on the worker. So a cancel that comes
          late finds another call there, or none, and does nothing.
    IR-2  Nothing is raised in code of ours. The innermost frame that is ours or the user's decides: raised is only in the user's, or in
          what the user's has called. Where our code called the user's (pickling, a coroutine in `af.sync`) it expects exceptions anyway.
          While ours runs, the beginning of the user's next line is waited for.
    IR-3  Nothing is raised while the user's thread holds the ports' lock.
    IR-4  It is raised once. When it was raised where nobody can catch it (in a `__del__`), the interpreter says so, and it is raised
          again. Cleanup in `except` and `finally` is left in peace, until the owner's patience ends (SEMANTICS 4).
    IR-5  A call that was told of its end ends as cancelled, whatever it returns.
    IR-6  A worker whose task was interrupted runs no other call: libraries need not survive an exception at any instruction.

Code that blocks in `af.sync` is told there: the coroutine it waits for is cancelled, as by asyncio.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import traceback
from collections.abc import Callable, Coroutine, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

from actorflow._core.base.errors import CancelIgnored
from actorflow._core.base.ids import task_name
from actorflow._core.protocol import messages as m
from actorflow._core.worker import incoming as arguments
from actorflow._core.worker.context import running_call

if TYPE_CHECKING:
    from actorflow._core.worker.host import Host
    from actorflow._core.worker.incoming import Incoming

log = logging.getLogger("actorflow")

REDELIVER_S = 0.05
"""A signal may come a moment before the call that it should interrupt, or while code of ours runs: it comes again."""
STDLIB = (os.path.dirname(os.__file__) + os.sep, "<frozen ")
SIMULATED = "actorflow.testing."
"""What stands for blocking C code under simulation."""
END: Any = object()


def run_user_code(incoming: Incoming, fn: Callable[..., Any], host: Host) -> Any:
    """The outermost frame of interruptible code: what it calls may raise CancelledError anywhere."""
    args, kwargs = arguments.load_arguments(host.core, incoming)
    return fn(*args, **kwargs)


def call_user_code(fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """As `run_user_code`, when the arguments are there already."""
    return fn(*args, **kwargs)


def step_user_code(iterator: Iterator[Any]) -> Any:
    """As `run_user_code`, for the next item of a generator; END at its end."""
    return next(iterator, END)


BOUNDARIES = frozenset(function.__code__ for function in (run_user_code, call_user_code, step_user_code))


class Interrupts:
    """See the module. One per host; all but `_on_interrupt` under the ports' lock or on the user's thread."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._core = host.core
        self._executor = host.executor
        self._open: Incoming | None = None
        self._raised: BaseException | None = None
        """What was raised in the code that runs."""
        self._cancelled: dict[tuple[str, int], Incoming] = {}
        """Calls that were cancelled and have not ended."""
        self._ticking = False
        self._sync = getattr(host.core.blocker, "__code__", None)
        """Where code blocks that waits in `af.sync`."""
        self._lock_is_ours: Callable[[], bool] = getattr(host.core.lock, "_is_owned", lambda: False)
        host.executor.on_interrupt = self._on_interrupt
        host.executor.on_unraisable = self._on_unraisable

    # -- running user code, on the user's thread

    @staticmethod
    def may_tear(incoming: Incoming) -> bool:
        """Its code is `def` code that a cancel interrupts (SEMANTICS 5)."""
        actor, message = incoming.actor, incoming.message
        return actor is None or message.method in actor.interruptible  # type: ignore[union-attr]  # an actor's call has one

    def run(self, incoming: Incoming, fn: Callable[..., Any]) -> Any:
        """Load the arguments and run the code of a call."""
        self._open = incoming
        try:
            if incoming.cancelled:
                raise asyncio.CancelledError
            value = run_user_code(incoming, fn, self._host)
        finally:
            self._open = None
            if incoming.cancelled:
                self._close(incoming)
        if incoming.told:
            raise asyncio.CancelledError  # IR-5
        return value

    def call(self, incoming: Incoming, fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """As `run`, when the arguments are there already."""
        return self._within(incoming, call_user_code, fn, args, kwargs)

    def step(self, incoming: Incoming, iterator: Iterator[Any]) -> Any:
        """The next item of a generator; END at its end."""
        return self._within(incoming, step_user_code, iterator)

    def _within(self, incoming: Incoming, code: Callable[..., Any], *arguments: Any) -> Any:
        self._open = incoming
        try:
            if incoming.cancelled:
                raise asyncio.CancelledError
            value = code(*arguments)
        finally:
            self._open = None
            if incoming.cancelled:
                self._close(incoming)
        if incoming.told:
            raise asyncio.CancelledError  # IR-5
        return value

    def _close(self, incoming: Incoming) -> None:
        self._raised = None
        if sys.gettrace() is _trace_nothing:
            sys.settrace(None)
        if incoming.torn and incoming.actor is None:
            self._host.waiting_tasks.wear_out(incoming)

    def blocking(self, coroutine: Coroutine[Any, Any, Any]) -> Coroutine[Any, Any, Any]:
        """`af.sync` is about to run this on a loop of its own."""
        incoming = self._open
        if incoming is None or running_call.get() is not incoming.running:
            return coroutine
        return self._block(incoming, coroutine)

    async def _block(self, incoming: Incoming, coroutine: Coroutine[Any, Any, Any]) -> Any:
        if incoming.cancelled and not incoming.told:
            coroutine.close()
            self.tell(incoming)
            raise asyncio.CancelledError(_what(incoming))
        outer, incoming.blocking = incoming.blocking, asyncio.current_task()
        try:
            return await coroutine
        except asyncio.CancelledError:
            if incoming.cancelled and not incoming.told:
                self.tell(incoming)
            raise
        finally:
            incoming.blocking = outer
            incoming.asked = None

    # -- cancelling

    def cancel(self, incoming: Incoming) -> None:
        """A call that runs here was cancelled. Under the lock, any thread."""
        incoming.patience_ends_at = self._core.ports.monotonic() + self._core.cancels.grace_s
        self._cancelled[incoming.key] = incoming
        if incoming.blocking is not None:
            self._ask(incoming, incoming.blocking)
        else:
            self._deliver(incoming)
        if not self._ticking:
            self._ticking = True
            self._core.later(REDELIVER_S, self._tick)

    def _deliver(self, incoming: Incoming) -> None:
        if self._open is incoming and not incoming.told:
            self._executor.interrupt()

    def _tick(self) -> None:
        now = self._core.ports.monotonic()
        for key, incoming in list(self._cancelled.items()):
            if self._host.calls.get(key) is not incoming:
                del self._cancelled[key]
                continue
            self._deliver(incoming)
            if not incoming.told:
                self.cancel_children(incoming)
            if incoming.actor is not None and not incoming.reported and now >= incoming.patience_ends_at:
                incoming.reported = True
                self._report(incoming)
        self._ticking = bool(self._cancelled)
        if self._ticking:
            self._core.later(REDELIVER_S, self._tick)

    def _on_interrupt(self, frame: FrameType | None) -> None:
        """The signal's handler, on the user's thread, in the middle of anything."""
        incoming = self._open
        if incoming is None or not incoming.cancelled or incoming.told:  # IR-1, IR-4
            return
        interrupted = "ours" if self._lock_is_ours() else self._whose(frame)  # IR-3, IR-2
        if interrupted == "user":
            self.tell(incoming)
            incoming.torn = True
            self._raised = asyncio.CancelledError(_what(incoming))
            raise self._raised
        task = incoming.blocking
        if interrupted == "ours":
            self._wait_for_users_line(frame)
        elif task is not None:
            self._ask(incoming, task)

    def _wait_for_users_line(self, frame: FrameType | None) -> None:
        """Code of ours runs, for a moment: decide again when it has returned and the user's code begins its next line.

        Code that does little else than call ours would hardly ever be met at a line of its own by a signal every 50 ms.
        """
        on_this_stack = sys._getframe()
        while on_this_stack.f_back is not None and on_this_stack is not frame:
            on_this_stack = on_this_stack.f_back
        if on_this_stack is not frame or sys.gettrace() is not None:
            return  # Simulated, or somebody debugs: the next signal may meet a better moment.
        while frame is not None and frame.f_code not in BOUNDARIES:
            name, file = frame.f_globals.get("__name__", ""), frame.f_code.co_filename
            if not name.startswith("actorflow.") and not file.startswith(STDLIB):
                frame.f_trace = self._on_users_line
                sys.settrace(_trace_nothing)
                return
            frame = frame.f_back

    def _on_users_line(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event not in ("line", "return"):
            return self._on_users_line
        sys.settrace(None)
        frame.f_trace = None
        if event == "line":  # What is raised at a return would pass the function's own `finally` by.
            self._on_interrupt(frame)
        return None

    @staticmethod
    def _ask(incoming: Incoming, task: asyncio.Task[Any]) -> None:
        """It blocks in `af.sync`: what it waits for is cancelled there. Any thread."""
        if incoming.asked is task:
            return
        incoming.asked = task
        try:
            task.get_loop().call_soon_threadsafe(task.cancel)
        except RuntimeError:
            log.debug("%s has just ended to wait", incoming.name)  # Its loop is closed: the next look finds it elsewhere.

    def _whose(self, frame: FrameType | None) -> str:
        """IR-2: whose code is this: "user", "sync" (it blocks in `af.sync`) or "ours"?"""
        is_users = False
        while frame is not None:
            code = frame.f_code
            if code in BOUNDARIES:
                return "user"
            name = frame.f_globals.get("__name__", "")
            if code is self._sync:
                return "user" if is_users else "sync"
            if name.startswith(SIMULATED):
                pass
            elif name.startswith("actorflow."):
                return "user" if is_users else "ours"
            elif not code.co_filename.startswith(STDLIB):
                is_users = True
            frame = frame.f_back
        return "ours"

    def tell(self, incoming: Incoming) -> None:
        """The code learns of its end now. What it has called by then ends too; what it calls from now on is its cleanup."""
        incoming.told = True
        self.cancel_children(incoming)

    def cancel_children(self, incoming: Incoming) -> None:
        """After the code itself was told: to see its children end first would be another story. A signal's handler takes no lock."""
        running = incoming.running
        if running is not None and running.children and incoming.recursive:
            doomed = list(running.children)
            self._core.later(0.0, lambda: self._core.cancels.cancel_all(doomed))

    def _on_unraisable(self, error: BaseException) -> bool:
        """IR-4: it was raised where nobody can catch it."""
        if error is not self._raised or self._open is None:
            return False
        self._raised = None
        self._open.told = False
        return True

    # -- what does not listen

    def _report(self, incoming: Incoming) -> None:
        name, actor = incoming.name, incoming.actor.label if incoming.actor is not None else ""
        stack = self._stack_of(incoming)
        error = CancelIgnored.explain(
            which=f"{name} of {actor}",
            what=f"was cancelled {self._core.cancels.grace_s:g} s ago and does not listen",
            why=f"it is here:\n{stack}" if stack else "nobody can tell where it is",
            next_step="await something in it, call af.check_cancelled(), or declare it @af.method(interruptible=True). It goes on",
            function_name=name,
            task=task_name(incoming.peer.process_id, incoming.message.seq),
            actor=actor,
            stack=stack,
        )
        log.warning("%s", error)
        incoming.peer.send(m.NotListening(incoming.message.seq, incoming.message.attempt, self._core.failed(error)))

    def _stack_of(self, incoming: Incoming) -> str:
        """Where the code of a call is now, outermost first."""
        if incoming.task is not None and not incoming.task.done() and self._open is not incoming:
            coroutine: Any = incoming.task.get_coro()
            frames: list[tuple[FrameType, int]] = []
            while coroutine is not None:
                frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
                if frame is not None:
                    frames.append((frame, frame.f_lineno))
                coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)
        else:
            running = sys._current_frames().get(incoming.thread) if incoming.thread else self._executor.frame()
            frames = [(frame, frame.f_lineno) for frame in _outwards(running)][::-1]
        shown = [pair for pair in frames if not pair[0].f_globals.get("__name__", "").startswith(("actorflow._core.", SIMULATED))]
        return "".join(traceback.StackSummary.extract(iter(shown)).format()).rstrip()


def _trace_nothing(frame: FrameType, event: str, argument: Any) -> None:
    """For frames that begin while the user's next line is waited for."""


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    """The frames of a call that runs on a thread, innermost first, as far as its own code goes."""
    while frame is not None and frame.f_globals.get("__name__") != "actorflow._core.worker.host":
        yield frame
        frame = frame.f_back


def _what(incoming: Incoming) -> str:
    return f"{incoming.name} was cancelled"
