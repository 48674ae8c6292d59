"""Calls in the pause before they are tried again. How long it is: `policy/retry_pauses.py`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from actorflow._core.policy.retry_pauses import pause_after_error_s
from actorflow._core.serialization.duals import describe
from actorflow._core.worker.actors import ActorClient
from actorflow._core.worker.calls import CallState

if TYPE_CHECKING:
    from actorflow._core.worker.calls import Call
    from actorflow._core.worker.core import Core


class Retries:
    """The calls of one process that rest. Under the lock, all of it."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._resting: dict[Call, ActorClient | None] = {}
        """And their actor, for a call of a method."""

    def after_error(self, call: Call, error: BaseException) -> None:
        """Its code raised, and is to run again."""
        if isinstance(call.place, ActorClient) and call.place.state == "dead":
            # The word of its end was faster than this answer.
            self._core.caller.settle_error(call, self._core.actors.dead_error(call.place))
            return
        if call.retries_left > 0:
            call.retries_left -= 1
        call.errors += 1
        call.note(f"attempt {call.attempt + 1} raised {describe(error)}")
        self.rest(call, pause_after_error_s(call.errors, call.options.retry_delay, self._core.ports.rng))

    def rest(self, call: Call, pause_s: float) -> None:
        """The next attempt begins after a pause. Until then it may be cancelled, as a call that waits."""
        client = call.place if isinstance(call.place, ActorClient) else None
        call.attempt += 1
        call.state = CallState.QUEUED
        if client is None:
            call.place = None
        else:
            client.resting += 1
        self._resting[call] = client
        self._core.later(pause_s, partial(self._again, call))

    def forget(self, call: Call) -> None:
        """It is over, or will be in a moment."""
        client = self._resting.pop(call, None)
        if client is not None:
            client.resting -= 1

    def calls(self, client: ActorClient | None = None) -> list[Call]:
        """Those of an actor, or all tasks."""
        return [call for call, its in self._resting.items() if its is client and call.state is CallState.QUEUED]

    def take(self, client: ActorClient | None = None) -> list[Call]:
        """The same; they do not rest any more."""
        calls = self.calls(client)
        for call in calls:
            self.forget(call)
        return calls

    def _again(self, call: Call) -> None:
        if call not in self._resting:
            return
        client = self._resting[call]
        self.forget(call)
        over = call.state is not CallState.QUEUED
        if client is None:
            if not over:
                self._core.tasks.enqueue(call)
        elif over:
            self._core.actors.one_less(client)
        else:
            self._core.actors.submit(client, call)
