"""The user's thread of a worker process: an executor on top of the user's own event loop."""

from __future__ import annotations

import asyncio
import contextvars
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sized
from types import FrameType
from typing import Any

from actorflow._core.io.busy_poll import BusyTurns

_running_loop = asyncio._get_running_loop

INTERRUPT: int = getattr(signal, "SIGURG", 0)
"""The signal that interrupts `def` code: docs/decisions/0009-interrupts.md says why this one. (Windows has none, and no `take_signals`.)"""
BATCH_CALLABLES_MAX = 256
BATCH_S_MAX = 0.002
"""After that many callables, or that long, the loop's own `async def` code has a turn."""


class MainThreadExecutor:
    """Runs callables on the thread that runs `loop`, in order of submission; the Executor of a real worker.

    EX-1: a callable that was submitted is run once, or the loop was closed before.
    """

    hides_loop = True

    def __init__(
        self, loop: asyncio.AbstractEventLoop, context: contextvars.Context | None = None, busy_turns: BusyTurns | None = None
    ) -> None:
        """`context`: what the callables see; by default that of whoever makes the executor. `busy_turns`: what keeps `loop` awake."""
        self.loop = loop
        self._busy_turns = busy_turns
        self.calls: Sized = ()
        """What is here and has not ended. With more than one this is no caller that waits for each answer, and the loop sleeps."""
        self._context: contextvars.Context = context if context is not None else contextvars.copy_context()
        self._queue: deque[Callable[[], None]] = deque()
        self._scheduled = False
        self._thread = 0
        self.on_interrupt: Callable[[FrameType | None], None] | None = None
        self.on_unraisable: Callable[[BaseException], bool] | None = None

    def take_signals(self) -> None:
        """Let `interrupt` work: only the main thread of a process can be interrupted. On that thread, before user code runs."""
        self._thread = threading.get_ident()
        signal.signal(INTERRUPT, self._on_signal)
        previous = sys.unraisablehook

        def hook(told: Any) -> None:
            if self.on_unraisable is None or not self.on_unraisable(told.exc_value):
                previous(told)

        sys.unraisablehook = hook

    def interrupt(self) -> None:
        """See ports.Executor. To the thread and not to the process: a blocking call of another thread must not be what ends."""
        if self._thread:
            signal.pthread_kill(self._thread, INTERRUPT)

    def watch_tasks(self, begun: Callable[[asyncio.Task[Any], contextvars.Context | None], None]) -> None:
        """See ports.Executor."""

        def make(loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **options: Any) -> asyncio.Task[Any]:
            task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, **options)
            begun(task, options.get("context"))
            return task

        self.loop.set_task_factory(make)  # type: ignore[arg-type]  # typeshed wants generators to be taken too

    def frame(self) -> FrameType | None:
        """See ports.Executor."""
        return sys._current_frames().get(self._thread)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.on_interrupt is not None:
            self.on_interrupt(frame)

    def submit(self, fn: Callable[[], None]) -> None:
        """Run `fn` on the user's thread. Any thread; wakes the loop only when it is not on its way."""
        self._queue.append(fn)
        if not self._scheduled:
            self._scheduled = True
            if _running_loop() is self.loop:
                self.loop.call_soon(self._drain, context=self._context)
            else:
                self.loop.call_soon_threadsafe(self._drain, context=self._context)

    def turn(self, read: Callable[[], None]) -> None:
        """Read messages on the user's thread, and run at once what they submit: no turn of the loop between the two."""
        busy_turns, crowded = self._busy_turns, False
        if busy_turns is not None:
            busy_turns.end()
        on_its_way, self._scheduled = self._scheduled, True
        try:
            read()
            crowded = len(self.calls) > 1
        finally:
            if on_its_way:
                self._scheduled = True
            else:
                self._context.run(self._drain)
                if busy_turns is not None and not self._scheduled:
                    busy_turns.begin(alone=not crowded)

    def block(self, register: Callable[[Callable[[], None]], None], timeout_s: float | None) -> bool:
        """Block the calling thread until woken; False after `timeout_s`. A signal handler may raise here."""
        gate = threading.Lock()
        gate.acquire()

        def wake() -> None:
            try:
                gate.release()
            except RuntimeError:
                return  # Already open: woken twice.

        register(wake)
        if timeout_s is None:
            return gate.acquire()
        return gate.acquire(timeout=min(max(timeout_s, 0.0), threading.TIMEOUT_MAX))

    def _drain(self) -> None:
        queue = self._queue
        give_way_at = time.monotonic() + BATCH_S_MAX
        try:
            for _ in range(BATCH_CALLABLES_MAX):
                if not queue:
                    break
                self._run(queue.popleft())
                if time.monotonic() >= give_way_at:
                    break
        finally:
            # In this order: a `submit` that still saw True has appended before, so that we see it here.
            self._scheduled = False
            if queue and not self._scheduled:
                self._scheduled = True
                self.loop.call_soon(self._drain, context=self._context)

    def _run(self, fn: Callable[[], None]) -> None:
        try:
            fn()
        except (SystemExit, KeyboardInterrupt):
            raise  # As asyncio's own callbacks: these end the loop.
        except BaseException as error:
            self.loop.call_exception_handler({"message": f"{fn!r} failed on the user's thread", "exception": error})
