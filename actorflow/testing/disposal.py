"""How dead processes are taken down, at the end of a world.

A killed process runs no `finally`. Python has no way to drop a suspended coroutine without running its
`finally` blocks, so the world keeps the tasks, timers and greenlets of dead hosts referenced and
untouched for as long as it lives. Here, when nothing can observe them any more (their loops run nothing,
their streams lead nowhere, the trace is complete), they are closed one by one. What their `finally`
blocks raise meanwhile has no one to go to, and is kept in `World.late_errors`. Only side effects on
objects outside the simulation (a list of the test, say) can be seen, and only after the world is closed.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actorflow.testing.host import Host
    from actorflow.testing.world import World


def dispose(world: World) -> None:
    """Close what all hosts of a closed world left behind."""
    with _silence(world):
        for host in world.hosts.values():
            _dispose_host(world, host)
        if world.has_run:
            gc.collect()


def _dispose_host(world: World, host: Host) -> None:
    loop_before = asyncio._get_running_loop()
    asyncio._set_running_loop(host.loop)
    try:
        tasks = [task for group in host.remains if isinstance(group, set) for task in group]
        for task in sorted(tasks, key=hash):
            _close_task(world, host, task)
        for thread in list(host.threads):
            _close(world, f"{host.name}: blocked code", thread.dispose)
        for loop in host.loops:
            loop.queue.clear()
        host.remains.clear()
    finally:
        asyncio._set_running_loop(loop_before)


def _close_task(world: World, host: Host, task: asyncio.Task[Any]) -> None:
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    coro = task.get_coro()
    if coro is not None:
        _close(world, f"{host.name}: {task.get_name()}", coro.close)


def _close(world: World, what: str, close: Callable[[], None]) -> None:
    try:
        close()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        world.late_errors.append(f"{what}: {error!r}")


@contextmanager
def _silence(world: World) -> Iterator[None]:
    """Objects of dead processes may complain while they are collected: keep the words, tell nobody."""
    hook = sys.unraisablehook

    def keep(unraisable: Any) -> None:
        world.late_errors.append(f"{unraisable.err_msg or 'ignored'}: {unraisable.exc_value!r}")

    sys.unraisablehook = keep
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        sys.unraisablehook = hook
