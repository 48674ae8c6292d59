"""Ctrl-C under `af.run`: what is said of a `main` that goes on after the first, and the end of it at the second (SEMANTICS 27)."""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import signal
import sys
import threading
import traceback
from collections.abc import Generator, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

LISTEN_S = 1.0
"""How long a `main` that was cancelled may go on before it is told of."""

GIVE_UP_S = 1.0
"""How long tasks may take to end after a second Ctrl-C."""

_MACHINERY = (f"{Path(__file__).parent}/", f"{Path(asyncio.__file__).parent}/", str(selectors.__file__))
"""Whose frames are not the program's."""


class Watch:
    """Tells, once, where a task stands that does not end."""

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self.task = task
        self._thread_id = threading.get_ident()
        self._timer: threading.Timer | None = None

    def cancelled(self, by: str) -> None:
        """The task was cancelled just now. A thread of its own looks after it: its loop may be blocked."""
        if not self.was_cancelled():
            self._timer = threading.Timer(LISTEN_S, self._tell, (by,))
            self._timer.name, self._timer.daemon = "actorflow-interrupt", True
            self._timer.start()

    def was_cancelled(self) -> bool:
        """True from the first Ctrl-C or SIGTERM on."""
        return self._timer is not None

    def stop(self) -> None:
        """The task has ended."""
        if self._timer is not None:
            self._timer.cancel()

    def _tell(self, by: str) -> None:
        if self.task.done():
            return
        frame = _running(self._thread_id) or _awaiting(self.task)
        where = _shown(frame) if frame is not None else "  a place that Python does not tell\n"
        sys.stderr.write(
            f"actorflow: {by} has cancelled main(), and after {LISTEN_S:g} s it goes on, at\n{where}"
            "Ctrl-C gives up on it, and on its cleanup.\n"
        )


def _shown(frame: FrameType) -> str:
    code = frame.f_code
    return "".join(traceback.format_list([traceback.FrameSummary(code.co_filename, frame.f_lineno, code.co_name)]))


def _is_program(frame: FrameType) -> bool:
    return not frame.f_code.co_filename.startswith(_MACHINERY)


def _running(thread_id: int) -> FrameType | None:
    """The innermost line of the program that runs on the thread; None while its loop waits."""
    frame = sys._current_frames().get(thread_id)
    while frame is not None and frame.f_code.co_filename != asyncio.runners.__file__:
        if _is_program(frame):
            return frame
        frame = frame.f_back
    return None


def _awaiting(task: asyncio.Task[Any]) -> FrameType | None:
    """The innermost line of the program where the task waits."""
    return next((frame for frame in reversed(list(_chain(task.get_coro()))) if _is_program(frame)), None)


def _chain(step: Any) -> Iterator[FrameType]:
    """The frames of a coroutine and of what it awaits, outermost first."""
    while step is not None:
        kind = next((kind for kind in ("cr", "gi", "ag") if hasattr(step, f"{kind}_frame")), None)
        if kind is None:
            return
        frame = getattr(step, f"{kind}_frame")
        if frame is not None:
            yield frame
        step = getattr(step, "gi_yieldfrom" if kind == "gi" else f"{kind}_await")


@contextlib.contextmanager
def watching() -> Generator[Watch, None, None]:
    """Watch the running task from its first Ctrl-C on. The handler that is there stays in charge."""
    task = asyncio.current_task()
    assert task is not None
    watch, before = Watch(task), signal.getsignal(signal.SIGINT)

    def interrupted(number: int, frame: FrameType | None) -> None:
        if watch.was_cancelled():
            raise KeyboardInterrupt
        watch.cancelled("Ctrl-C")
        assert callable(before)
        before(number, frame)

    # `asyncio.Runner` has its own handler exactly where the program has none.
    ours = threading.current_thread() is threading.main_thread() and _is_runners(before)
    if ours:
        signal.signal(signal.SIGINT, interrupted)
    try:
        yield watch
    finally:
        if ours:
            signal.signal(signal.SIGINT, before)
        watch.stop()


def _is_runners(handler: Any) -> bool:
    method = getattr(handler, "func", None)
    return isinstance(getattr(method, "__self__", None), asyncio.Runner)


def give_up(loop: asyncio.AbstractEventLoop) -> None:
    """End the tasks of a loop that stands; those that do not listen are left where they are. `asyncio.Runner` would wait for them."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks, timeout=GIVE_UP_S))
    for task in tasks:
        if not task.done():
            asyncio._unregister_task(task)
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # as asyncio does for tasks whose end is nobody's business
