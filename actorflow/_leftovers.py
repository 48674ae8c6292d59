"""The tasks of a program that are still there when its runtime ends: background work that nobody has awaited.

Under `af.run` they are cancelled while the runtime still runs, so that they see what they would see under `asyncio.run`. Where the loop is
the program's own they are not ours to cancel: what they wait for fails, and no traceback is printed for those that nobody awaits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

LISTEN_S = 1.0
"""How long cancelled tasks may take to end before the runtime ends all the same."""

_CORE = Path(__file__).parent / "_core"
_OWN = (f"{_CORE / 'boot'}/", f"{_CORE / 'io'}/")
"""Whose coroutines carry the protocol where that is on the program's loop (`inline=True`): those are needed to the last."""


async def cancel_leftovers() -> None:
    """Cancel the tasks of the running loop but this one, and wait for them, for LISTEN_S at most.

    Those that do not listen are left to `asyncio.Runner`, which waits for them as ever.
    """
    loop, current = asyncio.get_running_loop(), asyncio.current_task()
    tasks = {task for task in asyncio.all_tasks(loop) if task is not current and not _is_own(task)}
    if not tasks:
        return
    for task in tasks:
        task.cancel()
    done, _ = await asyncio.wait(tasks, timeout=LISTEN_S)
    for task in done:
        if not task.cancelled() and (error := task.exception()) is not None:
            # As asyncio.Runner does: nobody is left who could ask for it.
            message = "unhandled exception of a task that was cancelled as main() had ended"
            loop.call_exception_handler({"message": message, "exception": error, "task": task})


def _is_own(task: asyncio.Task[Any]) -> bool:
    code = getattr(task.get_coro(), "cr_code", None)
    return code is not None and code.co_filename.startswith(_OWN)


def excuse_leftovers(is_the_end: Callable[[BaseException], bool]) -> None:
    """Have no traceback printed for tasks of the running loop that nobody awaits and that fail with `is_the_end` alone.

    Whoever does await one of them gets its error nevertheless.
    """

    def ended(task: asyncio.Task[Any]) -> None:
        # Not by `exception()`: asking for an error of another kind would silence that too.
        error = None if task.cancelled() else getattr(task, "_exception", None)
        if error is not None and _says_only(error, is_the_end):
            task.exception()

    current = asyncio.current_task()
    for task in asyncio.all_tasks():
        if task is not current:
            task.add_done_callback(ended)


def _says_only(error: BaseException, is_the_end: Callable[[BaseException], bool]) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(_says_only(member, is_the_end) for member in error.exceptions)
    return is_the_end(error)
