"""Supervisions as a driver or worker uses them: begun, waited for, ended. Loaded by the first one of a process.

One that another process has begun can be waited for and ended here too: the head is asked about it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from actorflow._core.protocol import messages as m
from actorflow._core.worker.wakers import FutureWaiter

if TYPE_CHECKING:
    from actorflow._core.io.peers import Peer
    from actorflow._core.worker.core import Core

OVER_MAX = 1_000
"""Ends of supervisions that are remembered for who asks later."""


class _Known:
    """What this process knows of one."""

    __slots__ = ("asked", "over", "reply", "waiters")

    def __init__(self) -> None:
        self.asked: m.Supervise | None = None
        self.reply: m.SuperviseReply | None = None
        self.over: m.SupervisionOver | None = None
        self.waiters: list[FutureWaiter] = []


class SupervisionCalls:
    """All supervisions that this process has begun, or wants to hear the end of."""

    def __init__(self, core: Core) -> None:
        self._core = core
        core.head_line.on_return.append(self._ask_again)
        self._known: dict[str, _Known] = {}
        self._over: OrderedDict[str, _Known] = OrderedDict()

    async def begin(self, members: list[str], strategy: str, max_restarts: int, within_s: float, *, detached: bool) -> m.SuperviseReply:
        """Have the head begin one: its id, or why not."""
        core = self._core
        with core.lock:
            core.check_open()
            supervision_id = core.new_id()
            known = self._known[supervision_id] = _Known()
            asked = m.Supervise(supervision_id, members, strategy, max_restarts, within_s, detached)
            known.asked = asked
            core.flush_now(core.head_line.ask("supervise", supervision_id, asked))
        try:
            await self._wait(known, lambda: known.reply is not None)
        except BaseException:
            with core.lock:
                self._known.pop(supervision_id, None)
                if core.closed is None:
                    core.head_line.answered("supervise", supervision_id)
                    # By the line: a head that is away may have begun it.
                    core.flush_now(core.head_line.ask("unsupervise", supervision_id, m.Unsupervise(supervision_id)))
            raise
        assert known.reply is not None
        if known.reply.error:
            with core.lock:
                del self._known[supervision_id]
        return known.reply

    async def wait_over(self, supervision_id: str) -> m.SupervisionOver:
        """How it ended, when it has."""
        with self._core.lock:
            known = self._find(supervision_id)
        await self._wait(known, lambda: known.over is not None)
        assert known.over is not None
        return known.over

    async def end(self, supervision_id: str) -> None:
        """Have it ended; return when the head has."""
        with self._core.lock:
            known = self._find(supervision_id)
            if known.over is None:
                self._core.flush_now(self._core.head_line.ask("unsupervise", supervision_id, m.Unsupervise(supervision_id)))
        await self._wait(known, lambda: known.over is not None)

    def _find(self, supervision_id: str) -> _Known:
        """What is known here; of one that is not, the head is asked to tell the end. Under the lock."""
        found = self._known.get(supervision_id) or self._over.get(supervision_id)
        if found is not None:
            return found
        core = self._core
        core.check_open()
        known = self._known[supervision_id] = _Known()
        known.asked = m.Supervise(supervision_id, [], "", 0, 0.0, again=True)
        core.flush_now(core.head_line.ask("supervise", supervision_id, known.asked))
        return known

    async def _wait(self, known: _Known, there: Callable[[], bool]) -> None:
        """Return when it is there; looked at under the lock, so that no word is missed."""
        while True:
            waiter = FutureWaiter(self._core.gates.current())
            with self._core.lock:
                if there():
                    return
                self._core.check_open()
                known.waiters.append(waiter)
            try:
                await self._core.caller.blocked(waiter.future)
            finally:
                with self._core.lock:
                    if waiter in known.waiters:
                        known.waiters.remove(waiter)

    # -- word from the head

    def on_reply(self, peer: Peer, message: m.SuperviseReply) -> None:
        """It has begun, or not."""
        self._core.head_line.answered("supervise", message.supervision_id)
        known = self._known.get(message.supervision_id)
        if known is not None and known.reply is None:
            known.reply = message
            self._wake(known)

    def on_over(self, peer: Peer, message: m.SupervisionOver) -> None:
        """It has ended."""
        for what in ("supervise", "unsupervise"):
            self._core.head_line.answered(what, message.supervision_id)
        known = self._known.pop(message.supervision_id, None)
        if known is not None:
            known.over = message
            self._over[message.supervision_id] = known
            while len(self._over) > OVER_MAX:
                self._over.popitem(last=False)
            self._wake(known)

    def _ask_again(self) -> None:
        """The head is back: of those that have begun, which are over? It tells who has asked."""
        for known in self._known.values():
            if known.asked is not None and known.reply is not None:
                self._core.head.send(msgspec.structs.replace(known.asked, again=True))

    def fail_all(self) -> None:
        """The cluster is gone."""
        for known in self._known.values():
            self._wake(known)

    def _wake(self, known: _Known) -> None:
        waiters, known.waiters = known.waiters, []
        for waiter in waiters:
            waiter.settled(known)
