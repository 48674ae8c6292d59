"""Blocking code waits for async code: on a private event loop of the blocked thread."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any

_thread = threading.local()


class _ThreadLoop:
    """The private loop of one thread, closed with the thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()

    def __del__(self) -> None:
        if not self.loop.is_running():
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
    loop = asyncio.new_event_loop() if nested else own.loop
    outer = asyncio._get_running_loop()
    asyncio._set_running_loop(None)
    try:
        if timeout_s is not None:
            coroutine = _bounded(coroutine, timeout_s)
        return loop.run_until_complete(coroutine)
    except (KeyboardInterrupt, SystemExit):
        # The loop was torn out of whatever it did, in the middle of a change to its own state perhaps: it is not used again.
        _abandon(loop)
        if not nested:
            del _thread.own
            loop.close()
        raise
    finally:
        asyncio._set_running_loop(outer)
        if nested:
            loop.close()


def _abandon(loop: asyncio.AbstractEventLoop) -> None:
    """Let go of what ran on a loop that will not go on: it stops where it waits, and nothing is cancelled far away."""
    for task in asyncio.all_tasks(loop):
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        coroutine = task.get_coro()
        if isinstance(coroutine, Coroutine):
            # RuntimeError: it waits on its way out too, and cannot.
            with contextlib.suppress(RuntimeError):
                coroutine.close()


async def _bounded(coroutine: Coroutine[Any, Any, Any], timeout_s: float) -> Any:
    async with asyncio.timeout(timeout_s):
        return await coroutine


def close_thread_loop() -> None:
    """Close this thread's private loop, if it has one that does not run."""
    own: _ThreadLoop | None = getattr(_thread, "own", None)
    if own is not None and not own.loop.is_running():
        del _thread.own
