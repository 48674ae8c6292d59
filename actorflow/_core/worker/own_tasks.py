"""What the code of shared actors has begun on the loop of their process: it ends with its actor, and not with the process (SEMANTICS 22).

An actor with a process of its own needs none of this: the process ends.
"""

from __future__ import annotations

import asyncio
import logging
from contextvars import Context
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from actorflow._core.worker.context import running_call

if TYPE_CHECKING:
    from actorflow._core.io.ports import Executor

log = logging.getLogger("actorflow")

NAMES_SHOWN = 3


class OwnTasks:
    """The tasks of each shared actor of this process, by the id of the actor. On the user's loop."""

    def __init__(self, executor: Executor) -> None:
        self._tasks: dict[str, WeakValueDictionary[int, asyncio.Task[object]]] = {}
        self._count = 0
        executor.watch_tasks(self._begun)

    def _begun(self, task: asyncio.Task[object], context: Context | None) -> None:
        running = running_call.get() if context is None else context.get(running_call)
        if running is not None and running.actor_id:
            self._count += 1
            self._tasks.setdefault(running.actor_id, WeakValueDictionary())[self._count] = task

    def end(self, actor_id: str) -> list[asyncio.Task[object]]:
        """Cancel what the actor has begun and has not ended; returns it, the oldest first."""
        current = asyncio.current_task()
        tasks = [task for task in self._tasks.pop(actor_id, {}).values() if task is not current and not task.done()]
        for task in tasks:
            if not task.cancelling():  # Twice, it would cut off what the first has begun.
                task.cancel("the actor that has begun it has ended")
        return tasks

    async def end_within(self, actor_id: str, label: str, grace_s: float) -> None:
        """As `end`, and wait for them, but not for ever: the others in this process are none the worse for an actor that has left."""
        if not (tasks := self.end(actor_id)):
            return
        _, left = await asyncio.wait(tasks, timeout=grace_s)
        if left:
            names = ", ".join(sorted(task.get_name() for task in left)[:NAMES_SHOWN])
            log.warning("%s has left, and %d of the tasks that it has begun go on: they do not end when they are cancelled: %s",
                        label, len(left), names)  # fmt: skip
