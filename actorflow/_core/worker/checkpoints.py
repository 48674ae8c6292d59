"""Checkpoints of an actor's state: taken between calls, stored off the worker, given back at a restart (SEMANTICS 21)."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from actorflow._core.base.errors import CheckpointError
from actorflow._core.protocol import messages as m
from actorflow._core.serialization.duals import describe
from actorflow._core.worker import actor_state, stored_replies

if TYPE_CHECKING:
    from actorflow._core.worker.core import Later
    from actorflow._core.worker.host import Host
    from actorflow._core.worker.hosted import HostedActor
    from actorflow._core.worker.incoming import Incoming

log = logging.getLogger("actorflow")

QUIET_S = 5.0
"""How long new calls are held for a checkpoint while those that run do not end. After that they go on, and none is taken."""
AGAIN_S = 60.0
"""When it is tried again after that, at the earliest: calls are held for a small part of the time, however long some of them run."""

NAMES_SHOWN = 3
"""Calls that the warning about it names."""
ANSWERED_S = 5.0
"""How long an actor that leaves waits until the last of its calls are answered."""


@dataclass(slots=True, eq=False)
class _Held:
    """A call that has ended and is not answered yet. `incoming`: its newest attempt. `copy`: of what it has returned."""

    incoming: Incoming
    copy: Any
    large: bool


class Checkpoints:
    """The checkpoints of one incarnation. `checkpoint_every="call"` holds each reply until the state is stored, or cannot be."""

    def __init__(self, host: Host, actor: HostedActor) -> None:
        self._host = host
        self.actor = actor
        self._number = 0
        self._changed = False
        self._waiting: dict[int, list[_Held]] = {}
        self._held: list[_Held] = []
        self._open: dict[tuple[str, int], _Held] = {}
        """All that have ended and are not answered."""
        self._trouble = False
        """The last one that was taken, or told of, could not be stored."""
        self._why = ""
        """Why one could not be stored the last time: said once."""
        self._taking = False
        """One is about to be taken, or is."""
        self._under_way = 0
        self._listening: list[asyncio.Future[None]] = []
        self._holding = False
        self._too_long: Later | None = None
        self._not_before = 0.0

    def start(self) -> None:
        """Begin: after each call, or every so many seconds in which there were calls."""
        self._host.checkpoints[self.actor.spec.actor_id] = self
        self.actor.after_call = self._after_call
        every = self.actor.spec.checkpoint_every
        if every == "call" and self.actor.answers is None:
            self.actor.answers = stored_replies.Answers()
        if isinstance(every, (int, float)):
            self._host.core.later(float(every), lambda: self._tick(float(every)))

    def _after_call(self, incoming: Incoming, value: Any) -> bool:
        """See HostedActor. What was returned is copied now, as the actor may go on changing it."""
        self._changed = True
        if self.actor.spec.checkpoint_every != "call":
            return False
        host = self._host
        copy, large = stored_replies.copied(incoming, value)
        with host.core.lock:
            held = self._open[incoming.key] = _Held(incoming, copy, large)
            self._held.append(held)
            self._take_soon()
        return True

    def knows(self, incoming: Incoming) -> bool:
        """True for a call that has ended already, in an earlier attempt: it is answered from there (AS-1). Under the lock."""
        host, answers = self._host, self.actor.answers
        if (held := self._open.get(incoming.key)) is not None:
            held.incoming = host.calls[incoming.key] = incoming
            return True
        if answers is None or (known := answers.find(incoming.key)) is None:
            return False
        host.end(incoming, known[0], [], known[1:] or None)
        return True

    def _answer(self, held: _Held, error: CheckpointError | None) -> None:
        """The state is stored, or cannot be."""
        host, incoming = self._host, held.incoming
        with host.core.lock:
            if self._open.get(incoming.key) is held:
                del self._open[incoming.key]
            if self.actor.answers is not None:
                (self.actor.answers.forget if error is not None else self.actor.answers.stored)(incoming.key)
        if error is not None:
            host.end(incoming, host.core.failed(error), [])
        elif held.large:
            host.executor.submit(lambda: host.deliver(incoming, held.copy))
        else:
            host.deliver(incoming, held.copy)

    def _tick(self, every_s: float) -> None:
        """It is time for a checkpoint, if there were calls. Under the lock."""
        if not self._is_alive():
            return
        host = self._host
        if self._changed and not self._holding and host.core.ports.monotonic() >= self._not_before:
            self._holding = True
            if self.actor.width > 1:
                # With one call at a time nobody waits for longer than that call takes.
                self._too_long = host.core.later(QUIET_S, self._give_up)
            self.actor.when_quiet(host, self._quiet)
        host.core.later(every_s, lambda: self._tick(every_s))

    def _is_alive(self) -> bool:
        return self._host.actors.get(self.actor.spec.actor_id) is self.actor

    def _quiet(self) -> None:
        """No call runs, and none starts (SEMANTICS 21). Under the lock."""
        if self._too_long is not None:
            self._too_long.cancel()
        self._changed = False
        loop, host = self._host.executor.loop, self._host
        loop.call_soon_threadsafe(lambda: host.keep(loop.create_task(self._take_quietly(), name=f"checkpoint {self.actor.label}")))

    async def _take_quietly(self) -> None:
        try:
            await self._take()
        finally:
            with self._host.core.lock:
                self._go_on()
                if self._held:
                    self._take_soon()

    def _give_up(self) -> None:
        """Calls do not end: that state may be half changed. Under the lock."""
        self.actor.on_quiet = None
        self._not_before = self._host.core.ports.monotonic() + AGAIN_S
        names = [incoming.name for incoming in self._host.calls.values() if incoming.actor is self.actor and incoming.started]
        more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
        log.warning(
            "%s: no checkpoint was taken: new calls were held for %g s, and these did not end: %s%s. Calls go on; the next try is in %g s",
            self.actor.label, QUIET_S, ", ".join(names[:NAMES_SHOWN]), more, AGAIN_S,
        )  # fmt: skip
        self._go_on()

    def _go_on(self) -> None:
        self._holding = False
        if self._is_alive():
            self._host.let_go(self.actor)

    def _take_soon(self) -> None:
        if not self._taking:
            self._taking = True
            host = self._host
            if self.actor.threads_max:
                # Its calls run on threads of their own, and would change the state while it is pickled.
                self._holding = True
                self.actor.when_quiet(host, self._quiet)
                return
            host.executor.loop.call_soon_threadsafe(
                lambda: host.keep(host.executor.loop.create_task(self._take(), name=f"checkpoint {self.actor.label}"))
            )

    async def last(self) -> bool:
        """No call comes any more: return when its state is stored, and every reply that waits for that has gone. False: it could not be."""
        while self._taking or self._under_way:
            await self._told(lambda: self._taking or self._under_way)
        self._trouble = False
        await self._take()
        while self._waiting:
            await self._told(lambda: self._waiting)
        return not self._trouble

    async def answered(self) -> None:
        """Return when no call waits for its answer any more, which takes as long as a head that is away. Bounded."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ANSWERED_S):
                while self._taking or self._under_way or self._waiting:
                    await self._told(lambda: self._taking or self._under_way or self._waiting)

    async def _told(self, not_yet: Callable[[], object]) -> None:
        """Return when one has been taken, or stored, unless that is so already."""
        told: asyncio.Future[None] = self._host.executor.loop.create_future()
        with self._host.core.lock:
            if not not_yet():
                return
            self._listening.append(told)
        await told

    def _tell(self) -> None:
        """One has been taken, or stored."""
        with self._host.core.lock:
            listening, self._listening = self._listening, []
        for told in listening:
            self._host.executor.loop.call_soon_threadsafe(_settle, told)

    async def _take(self) -> None:
        """One checkpoint. The value is pickled without an await, so that no call can change it half-way."""
        core, spec = self._host.core, self.actor.spec
        self.actor.runs_hook(self._host, "__checkpoint__")
        with core.lock:
            # Only these have ended by now: what ends while an async __checkpoint__ runs may not be in its value.
            held, self._held = self._held, []
        self._under_way += 1
        try:
            value = self.actor.instance.__checkpoint__()
            if inspect.isawaitable(value):
                value = await value
            data = actor_state.dumps(value, f"what __checkpoint__ of {self.actor.label} returned", self._answers_with(held))
        except BaseException as error:
            # CancelledError too: it may be that of something that the code awaits. Somebody waits for these answers.
            self._not_stored(held, f"__checkpoint__ failed: {describe(error)}", error)
        else:
            with core.lock:
                self._number += 1
                self._waiting[self._number] = held
                state = m.SaveCheckpoint(spec.actor_id, self.actor.incarnation, self._number, data)
                core.head_line.push("checkpoint", spec.actor_id, state, urgent=True)
        finally:
            self._taking = False
            self._under_way -= 1
        with core.lock:
            if self._held and not self._holding:
                self._take_soon()
        if self._listening:
            self._tell()

    def _answers_with(self, held: list[_Held]) -> list[actor_state.Answered]:
        """The last answers, these among them, for the state that has what their calls did (AS-1)."""
        answers = self.actor.answers
        if answers is None:
            return []
        with self._host.core.lock:
            for one in held:
                answers.add(one.incoming.key, one.copy, one.incoming.returns)
            return answers.all()

    def _not_stored(self, held: list[_Held], why: str, error: BaseException | None = None) -> None:
        """What has run has run, and a restart does not have it: whoever would take it for stored is told."""
        known, self._trouble, self._why = self._why == why, True, why
        if not held and not known:
            log.error("%s: its state is not stored: %s", self.actor.label, why, exc_info=error)
        for one in held:
            self._answer(
                one,
                CheckpointError.explain(
                    which=self.actor.label,
                    what="has run the call, and the state after it could not be stored, so that a restart would not have it",
                    why=why,
                    next_step="mend __checkpoint__ or what it returns; until then only the state that was stored before is safe",
                    actor_id=self.actor.spec.actor_id,
                    actor=self.actor.label,
                ),
            )

    def on_saved(self, message: m.CheckpointSaved) -> None:
        """The store's answer: what was held may go. Under the lock."""
        if message.incarnation != self.actor.incarnation:
            return  # Late word of a life before this one, in the same process.
        if message.number == self._number:
            self._host.core.head_line.answered("checkpoint", self.actor.spec.actor_id)
        held = [one for number in list(self._waiting) if number <= message.number for one in self._waiting.pop(number)]
        if message.error:
            self._not_stored(held, f"the head refused it: {message.error}")
        else:
            for one in held:
                self._answer(one, None)
        if self._listening:
            self._tell()


def _settle(told: asyncio.Future[None]) -> None:
    if not told.done():
        told.set_result(None)
