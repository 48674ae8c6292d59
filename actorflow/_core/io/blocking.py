"""Blocking code waits for async code: on a private event loop of the blocked thread."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Coroutine
from typing import Any

from actorflow._core.io.forks import abandon_loop

_thread = threading.local()


class _ThreadLoop:
    """The private loop of one thread, closed with the thread."""

    def __init__(self) -> None:
        self.loop = _new_loop()
        self._pid = os.getpid()

    def abandon(self) -> None:
        """In a fork of the process that made it: the loop's epoll set is the parent's too (FK-1, FK-3). Once."""
        pid, self._pid = self._pid, 0
        if pid:
            abandon_loop(self.loop)

    def __del__(self) -> None:
        if self._pid != os.getpid():
            self.abandon()  # With a thread that is not in the child; the loop of the one that forked is abandoned already.
        elif not self.loop.is_running():
            self.loop.close()


def block_on(coroutine: Coroutine[Any, Any, Any], timeout_s: float | None = None) -> Any:
    """Run `coroutine` to its end on a loop that belongs to this thread. Raises TimeoutError after `timeout_s`.

    A `def` task runs inside a callback of its worker's loop; that loop stands still meanwhile, as for any blocking call, and a private
    one takes its place on the thread. Cancelling and waking come from the protocol's thread, so nothing depends on the loop that stands.
    """
    own: _ThreadLoop | None = getattr(_thread, "own", None)
    if own is None:
        own = _thread.own = _ThreadLoop()
    nested = own.loop.is_running()
    loop = _new_loop() if nested else own.loop
    errors: list[BaseException] = []
    outer = asyncio._get_running_loop()
    asyncio._set_running_loop(None)
    try:
        if timeout_s is not None:
            coroutine = _bounded(coroutine, timeout_s)
        task = loop.create_task(_ended(coroutine, errors))
        try:
            value = loop.run_until_complete(task)
        except BaseException:
            try:
                _end(loop, task)
            finally:
                # It was torn out of whatever it did, in the middle of a change to its own state perhaps: it is not used again.
                if not nested:
                    del _thread.own
                    loop.close()
            errors.clear()
            raise
    finally:
        asyncio._set_running_loop(outer)
        if nested:
            loop.close()
    if not errors:
        return value
    error = errors.pop()
    try:
        raise error
    finally:
        del error


async def _ended(coroutine: Coroutine[Any, Any, Any], errors: list[BaseException]) -> Any:
    """The value, or the error beside it. Raised through the loop, an error and the frames in its traceback would hold one another, and
    with them all references of the blocked code, until the next collection.
    """
    try:
        return await coroutine
    except (Exception, asyncio.CancelledError) as error:
        errors.append(error)
        return None


def _new_loop() -> asyncio.AbstractEventLoop:
    # Whatever the program's policy is: of this loop it is known that an interrupt gets through to whoever blocks in it.
    return asyncio.new_event_loop() if sys.platform == "win32" else asyncio.SelectorEventLoop()


def _end(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
    """After an error, most often the task's own. After an interrupt it still waits, and is cancelled: nobody will come back for it."""
    if not task.done():
        task.cancel()
        try:
            loop.run_until_complete(asyncio.wait([task]))
        except (RuntimeError, LookupError, OSError):
            # This is what a loop with half of a change to its state does, and it has been told to stop perhaps. Once more, then.
            loop.run_until_complete(asyncio.wait([task]))
    if not task.cancelled():
        task.exception()  # Looked at: the error that is on its way is the one that counts.


async def _bounded(coroutine: Coroutine[Any, Any, Any], timeout_s: float) -> Any:
    async with asyncio.timeout(timeout_s):
        return await coroutine


def close_thread_loop() -> None:
    """Close this thread's private loop, if it has one that does not run."""
    own: _ThreadLoop | None = getattr(_thread, "own", None)
    if own is not None and not own.loop.is_running():
        del _thread.own


def abandon_thread_loop() -> None:
    """Forget this thread's private loop, in a forked child."""
    own: _ThreadLoop | None = getattr(_thread, "own", None)
    if own is not None:
        own.abandon()
        del _thread.own
