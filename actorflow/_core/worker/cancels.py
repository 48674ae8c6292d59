"""The end of calls, on the owner's side: asked for, given its grace, and then enforced (SEMANTICS 1-7).

    CN-1  A call that was cancelled is not tried again, and ends once: in its value, its own error, or as cancelled.
    CN-2  A worker is killed for a task only while that task is the first of its lease: those behind it have not begun.
    CN-3  A call whose caller was told of its end before its worker answers (a timeout, `CancelIgnored`) keeps its place, in the lease
          or the actor, until it does: it is an orphan.
    CN-4  Of the calls that a running call has made, those that have not ended can be found: by number, so that nothing is kept alive.

The worker's side is in `interrupts.py`; the story is told in docs/internals/cancellation.md.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from actorflow._core.base import current
from actorflow._core.base.errors import CancelIgnored, OptionError, TaskCancelledError
from actorflow._core.base.ids import CLUSTER, task_name
from actorflow._core.policy.ownership import Owned
from actorflow._core.protocol import messages as m
from actorflow._core.worker.actors import ActorClient
from actorflow._core.worker.calls import Call, CallState
from actorflow._core.worker.tasks import Lease
from actorflow._core.worker.wakers import FutureWaiter

if TYPE_CHECKING:
    from actorflow._core.io.peers import Peer
    from actorflow._core.worker.context import RunningCall
    from actorflow._core.worker.core import Core
    from actorflow._core.worker.references import Entry

log = logging.getLogger("actorflow")

GRACE_S = 5.0
"""How long a cancelled call may go on, unless `af.init(cancel_grace=...)` says otherwise."""
NEWS_S = 1.0
"""How much later than that an actor's worker may say that its method does not listen, before it is said without it."""
FORCE_S = 0.02
"""How often a task that is to end by force, and waits behind another, is looked at."""


class Cancels:
    """How one process ends the calls it has made. All under the ports' lock."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.grace_s = GRACE_S
        self.orphans: dict[int, Call] = {}
        """CN-3, by number."""

    # -- who asks

    def cancel_entry(self, entry: Entry, *, force: bool = False, recursive: bool = True) -> bool:
        """`ref.cancel()`: acts for all who wait (SEMANTICS 3). False when there was nothing left to cancel."""
        core = self._core
        with core.lock:
            if type(entry) is not Owned:
                if entry.outcome is not None:
                    return False
                if entry.owner == CLUSTER:  # type: ignore[union-attr]
                    index = entry.index
                    core.directory.say(lambda token: m.CancelDetached(token, index))
                    return True
                # Its owner does it, for all who wait: whoever has a reference may say so.
                peer = core.peer(entry.owner, entry.address)  # type: ignore[union-attr]
                peer.send(m.CancelObject(entry.index, force, recursive))
                return True
            call: Call | None = entry.call
            if call is None:
                return False
            if force and isinstance(call.place, ActorClient):
                raise OptionError(
                    f"ref.cancel(force=True) would end the worker of {call.place!r}, and the actor with it: "
                    "use `await af.kill(handle)` for that, or cancel without force"
                )
            self.cancel(call, force=force, recursive=recursive)
            return True

    def on_cancel_object(self, peer: Peer, message: m.CancelObject) -> None:
        """A borrower wants the end of a call of ours."""
        entry = self._core.references.owned.entries.get(message.index)
        call: Call | None = entry.call if entry is not None else None
        if call is not None:
            force = message.force and not isinstance(call.place, ActorClient)
            self.cancel(call, force=force, recursive=message.recursive)

    def cancel(self, call: Call, *, force: bool = False, recursive: bool = True) -> None:
        """End a call. Queued: settled here. Pushed: the worker is asked, and its answer settles it."""
        if call.state is CallState.DONE:
            return
        if call.cancelled:
            if recursive and call.spares_children and call.state is CallState.PUSHED:
                # Asked for once more, and now for more of it. The time that it has had counts.
                call.spares_children = False
                if call.place.peer is not None:
                    call.place.peer.send(m.Cancel(call.entry.index, call.attempt))
        else:
            call.cancelled = call.extra = True
            call.spares_children = not recursive
            if isinstance(call.place, ActorClient):
                self._core.actors.cancel(call)
            elif call.state is CallState.PUSHED:
                self.ask(call.place.peer, call)
            else:
                self._core.caller.settle_cancelled(call)
        if force and call.state is CallState.PUSHED:
            self._force(call)

    def ask(self, peer: Peer, call: Call) -> None:
        """Tell the worker, and give it its grace."""
        peer.send(m.Cancel(call.entry.index, call.attempt, "", not call.spares_children))
        self._core.flush_now(peer)
        self.be_patient(call)

    # -- children

    def note_child(self, running: RunningCall, index: int) -> None:
        """The running call has made a call (CN-4)."""
        children = running.children
        if children is None:
            running.children = [index]
            return
        children.append(index)
        if len(children) >= running.children_max:
            entries = self._core.references.owned.entries
            running.children = [child for child in children if child in entries and entries[child].call is not None]
            running.children_max = max(64, 2 * len(running.children))

    def cancel_all(self, children: Sequence[int] | None) -> None:
        """End those that have not ended, and what they have called."""
        for index in list(children or ()):
            entry = self._core.references.owned.entries.get(index)
            if entry is not None and entry.call is not None:
                self.cancel(entry.call)

    # -- grace

    def be_patient(self, call: Call) -> None:
        """The call was asked to end: see to it when its time is up."""
        if call.timer is not None:
            call.timer.cancel()
        grace_s = self.grace_s + (NEWS_S if isinstance(call.place, ActorClient) else 0.0)
        call.timer = self._core.later(grace_s, lambda: self._overdue(call))

    def _overdue(self, call: Call) -> None:
        if call.state is not CallState.PUSHED:
            return
        if type(call.place) is not Lease:
            self._ignored(call, self._core.failed(self._no_answer(call)))
        elif self._is_first(call):
            self._kill(call, f"{call.target.name} did not end within {self.grace_s:g} s of its cancel")
        else:
            # It waits behind a task that does not even let its worker say so. That one is not to suffer for it (CN-2).
            self._ignored(call, self._core.failed(TaskCancelledError(f"{call.target.name} was cancelled before it started")))

    def _no_answer(self, call: Call) -> CancelIgnored:
        return CancelIgnored.explain(
            which=f"{call.place!r}.{call.target.name}",
            what=f"was cancelled {self.grace_s:g} s ago and did not end",
            why="its worker does not answer: most likely it runs code that keeps the interpreter to itself",
            next_step="`await af.kill(handle)` ends the actor",
            function_name=call.target.name,
            task=task_name(self._core.identity.process_id, call.entry.index),
            actor=repr(call.place),
        )

    @staticmethod
    def _is_first(call: Call) -> bool:
        return next(iter(call.place.inflight.values()), None) is call

    def _force(self, call: Call) -> None:
        if call.state is not CallState.PUSHED:
            return
        if self._is_first(call):
            self._kill(call, f"{call.target.name} was cancelled with force=True")
        else:
            self._core.later(FORCE_S, lambda: self._force(call))

    def _kill(self, call: Call, reason: str) -> None:
        lease: Lease = call.place
        lease.reclaimed = True
        call.killed = reason
        lease.node.send(m.KillLease(lease.lease_id, reason))
        self._core.flush_now(self._core.node)

    # -- orphans

    def on_not_listening(self, peer: Peer, message: m.NotListening) -> None:
        """The method of an actor was cancelled, and goes on: whoever waits is told so now."""
        entry = self._core.references.owned.entries.get(message.seq)
        call: Call | None = entry.call if entry is not None else None
        call = call or self.orphans.get(message.seq)
        if call is not None and call.attempt == message.attempt and call.state is CallState.PUSHED:
            self._ignored(call, message.error)

    def _ignored(self, call: Call, outcome: m.Failed) -> None:
        call.ignores = True
        self.settle_early(call, outcome)
        self._wake(call)

    def settle_early(self, call: Call, outcome: m.Failed) -> None:
        """The caller hears of the end now; the call keeps its place until its worker answers (CN-3)."""
        if call.state is CallState.PUSHED:
            self.orphans[call.entry.index] = call
        if call.stream is not None and not call.stream.ended:
            self._core.streams.end(call.stream, outcome)
        self._core.caller.settle_entries(call, outcome)

    def ended(self, call: Call) -> None:
        """It is over, for good."""
        if self.orphans.pop(call.entry.index, None) is not None:
            self._wake(call)

    @staticmethod
    def _wake(call: Call) -> None:
        waiters, call.over = call.over, None
        for waiter in waiters or ():
            waiter.settled(call)

    async def until_over(self, index: int) -> None:
        """Wait for the end of an orphan, unless it does not listen (SEMANTICS 4)."""
        while True:
            gate = self._core.gates.current()
            with self._core.lock:
                call = self.orphans.get(index)
                if call is None or call.ignores:
                    return
                waiter = FutureWaiter(gate)
                call.over = [*(call.over or ()), waiter]
            await self._core.caller.blocked(waiter.future)

    def left(self, entry: Owned) -> None:
        """A direct call is left by its caller: the task group around it waits until it is terminal (SEMANTICS 4)."""
        unfinished: list[Any] | None = current.cancelled_calls.get()
        if unfinished is not None and (entry.outcome is None or entry.index in self.orphans):
            unfinished.append(self._core.references.handle(entry))
