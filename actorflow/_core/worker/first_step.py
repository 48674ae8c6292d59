"""Async calls whose first step runs at once, in the name of a task that is there already.

Most calls of async actors end in their first step: they set a field, look into a cache, hand something to a queue. A task of their own,
made, registered, scheduled and forgotten, would cost more than the rest of the call. So a spare task stands by, parked. The first step
of a call runs as if that task ran it: `asyncio.current_task()` gives it, timeouts and task groups bind to it. When the call suspends,
it keeps the task, which goes on with it like any task; when it has ended, the task stands by for the next call.

    FT-1  A call has one task from its first step to its last, and no two calls have the same task at the same time.
    FT-2  Each call has a context of its own: what it sets no other call sees.
    FT-3  A task that was asked to cancel is never used again.
    FT-4  A task that somebody has kept when its call is over is over too: it is done, and to cancel it later cancels nobody else.
"""

from __future__ import annotations

import asyncio
import contextvars
import types
from asyncio.tasks import _enter_task, _leave_task  # what the eager tasks of later Pythons do themselves
from collections.abc import Callable, Coroutine, Generator
from contextvars import copy_context
from sys import getrefcount
from typing import Any

SPARES_MAX = 16


class FirstSteps:
    """The tasks of one loop that stand by. `ended(call, value, error)` is called when a call that had suspended is over."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ended: Callable[[Any, Any, BaseException | None], None]) -> None:
        self._loop = loop
        self._ended = ended
        self._spares: list[Carrier] = []
        self._coming = 0
        """Tasks that were made and have not begun to wait."""

    def run(self, call: Any, start: Callable[[Any], Coroutine[Any, Any, Any]]) -> tuple[asyncio.Task[None] | None, Any] | None:
        """Start a call: `start(call)` makes its coroutine. On the loop, outside of any task.

        Returns (None, value) when the call has ended, (its task, None) when it has suspended: `ended` is called later then. None, and
        nothing was started, when no task stands by: the call needs one of its own. Raises what the call, or `start`, raises.
        """
        spares = self._spares
        carrier = spares[-1] if spares else None
        if carrier is None or not carrier.fit():
            carrier = self._another()
            if carrier is None:
                return None
        context = copy_context()
        task, coroutine = carrier.task, None
        references = getrefcount(task)
        _enter_task(self._loop, task)
        try:
            coroutine, result = context.run(_first, call, start)
        finally:
            _leave_task(self._loop, task)
            if coroutine is None and getrefcount(task) > references:  # FT-4
                spares.pop()
                carrier.retire()
        if coroutine is None:
            return None, result
        spares.pop()
        carrier.carry(call, coroutine, context, result)
        return task, None

    def _another(self) -> Carrier | None:
        """The last of those that stand by is not fit, or there is none."""
        spares = self._spares
        while spares:
            carrier = spares[-1]
            if carrier.fit():
                return carrier
            spares.pop()
        if self._coming < SPARES_MAX:
            # It may stand for a call when it has begun to wait, which is after this turn of the loop.
            self._coming += 1
            Carrier(self, self._loop)
            self._loop.call_soon(self._has_come)
        return None

    def _has_come(self) -> None:
        """The task that was made before this was scheduled has had its first step."""
        self._coming -= 1

    def over(self, call: Any, value: Any, error: BaseException | None) -> None:
        """A carried call has ended."""
        self._ended(call, value, error)

    def stand_by(self, carrier: Carrier) -> bool:
        """A task has nothing to do (any more). False when it is not needed."""
        if len(self._spares) >= SPARES_MAX or carrier.task.cancelling():
            return False
        self._spares.append(carrier)
        return True


def _first(call: Any, start: Callable[[Any], Coroutine[Any, Any, Any]]) -> tuple[Coroutine[Any, Any, Any] | None, Any]:
    """The first step: (coroutine, what it waits for), or (None, its value)."""
    coroutine = start(call)
    try:
        return coroutine, coroutine.send(None)
    except StopIteration as stop:
        return None, stop.value


class Carrier:
    """A task that goes on with calls whose first step ran before."""

    __slots__ = ("_call", "_loop", "_owner", "_park", "task")

    def __init__(self, owner: FirstSteps, loop: asyncio.AbstractEventLoop) -> None:
        self._owner = owner
        self._loop = loop
        self._call: tuple[Any, Coroutine[Any, Any, Any], contextvars.Context, Any] | None = None
        self._park: asyncio.Future[None] = loop.create_future()
        self.task = loop.create_task(self._live(), name="actorflow: stands by")

    def fit(self) -> bool:
        """False when the task was asked to cancel, by a call it stood for or by anybody (FT-3)."""
        return not self._park.done() and not self.task.cancelling()

    def carry(self, call: Any, coroutine: Coroutine[Any, Any, Any], context: contextvars.Context, waits_for: Any) -> None:
        """Go on with a call that has suspended and waits for `waits_for`, what its coroutine has yielded."""
        self._call = call, coroutine, context, waits_for
        self.task.set_name(call.name)
        if not self._park.done():
            self._park.set_result(None)

    def retire(self) -> None:
        """Be done."""
        if not self._park.done():
            self._park.set_result(None)

    async def _live(self) -> None:
        references = getrefcount(self.task)
        while getrefcount(self.task) <= references and self._owner.stand_by(self):
            error: BaseException | None = None
            try:
                await self._park
            except asyncio.CancelledError as cancelled:
                # Meant for the call, if there is one: it was cancelled before its second step.
                error = cancelled
            if self._call is None:
                return
            (call, coroutine, context, waits_for), self._call = self._call, None
            if error is not None and self._hands_on(error, waits_for):
                error = None
            value, failed = await _go_on(coroutine, context, waits_for, error)
            self._owner.over(call, value, failed)
            del call, coroutine, context, waits_for, error, value, failed
            self._park = self._loop.create_future()

    def _hands_on(self, cancelled: BaseException, waits_for: Any) -> bool:
        """As with any task: what a cancelled call waits for is cancelled, a task for instance, and the call hears it from there."""
        if not asyncio.isfuture(waits_for) or waits_for is self.task or waits_for.get_loop() is not self._loop:
            return False
        return waits_for.cancel(*cancelled.args)


@types.coroutine
def _go_on(
    coroutine: Coroutine[Any, Any, Any], context: contextvars.Context, waits_for: Any, error: BaseException | None
) -> Generator[Any, Any, tuple[Any, BaseException | None]]:
    """Drive a coroutine that has suspended to its end, in its own context. Returns (value, error)."""
    sent = None
    while True:
        try:
            if error is None:
                sent = yield waits_for
        except BaseException as thrown:
            error = thrown
        try:
            if error is None:
                waits_for = context.run(coroutine.send, sent)
            else:
                into, error = error, None
                try:
                    waits_for = context.run(coroutine.throw, into)
                finally:
                    del into  # It holds this frame by its traceback, and everything that the call has had with it.
        except StopIteration as stop:
            return stop.value, None
        except BaseException as failed:
            return None, failed
