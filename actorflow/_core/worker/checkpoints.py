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
from actorflow._core.serialization import tracebacks
from actorflow._core.serialization.duals import describe
from actorflow._core.worker import actor_state, stored_replies
from actorflow._core.worker import incoming as arguments

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
    """A call that has ended and is not answered yet. `incoming`: its newest attempt. `word`: its answer.

    A copy of what it has returned; or how else it has ended, of which no copy is kept for calls that come again (AS-1): what has failed
    may be tried again, and the items of a stream are not here any more.
    """

    incoming: Incoming
    word: Any
    large: bool = False

    @property
    def returned(self) -> bool:
        return type(self.word) not in (m.Failed, m.StreamEnd)


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
        self._lasting: list[Incoming] = []
        """Calls on threads that did not end for a checkpoint: while one of them runs, the next ones do not wait for quiet."""
        self._warned_until = 0.0

    def start(self) -> None:
        """Begin: after each call, or every so many seconds in which there were calls."""
        self._host.checkpoints[self.actor.spec.actor_id] = self
        self.actor.after_call = self._after_call
        every = self.actor.spec.checkpoint_every
        if every == "call" and self.actor.answers is None:
            self.actor.answers = stored_replies.Answers()
        if isinstance(every, (int, float)):
            self._host.core.later(float(every), lambda: self._tick(float(every)))

    def _after_call(self, incoming: Incoming, word: Any) -> bool:
        """See HostedActor. What was returned is copied now, as the actor may go on changing it."""
        self._changed = True
        if self.actor.spec.checkpoint_every != "call":
            return False
        host = self._host
        held = None
        if type(word) is m.Failed or type(word) is m.StreamEnd:
            if incoming.parting:
                return False  # It is cut off with its process, and answered by nobody.
            # Who has cancelled it, or wants no more of it, does not wait: only what it has done is stored.
            if not (incoming.cancelled or (incoming.producer is not None and incoming.producer.closed)):
                held = _Held(incoming, word)
        else:
            held = _Held(incoming, *stored_replies.copied(incoming, word))
        with host.core.lock:
            if held is not None:
                self._open[incoming.key] = held
                self._held.append(held)
            self._take_soon()
        return held is not None

    def knows(self, incoming: Incoming) -> bool:
        """True for a call that has ended already, in an earlier attempt: it is answered from there (AS-1). Under the lock."""
        host, answers = self._host, self.actor.answers
        if (held := self._open.get(incoming.key)) is not None:
            if type(held.word) is m.StreamEnd:
                return False
            before = held.incoming
            # It has not run, and answers for what has: with what that was given and may hold.
            incoming.borrowed, incoming.running, incoming.started = before.borrowed, before.running, before.started
            held.incoming = host.calls[incoming.key] = incoming
            return True
        if answers is None or (known := answers.find(incoming.key)) is None:
            return False
        host.end(incoming, known[0], [], known[1:] or None)
        return True

    def _answer(self, held: _Held, error: CheckpointError | None) -> None:
        """The state is stored, or cannot be."""
        host, incoming, word = self._host, held.incoming, held.word
        with host.core.lock:
            if self.actor.answers is not None and held.returned:
                (self.actor.answers.forget if error is not None else self.actor.answers.stored)(incoming.key)
            if self._open.get(incoming.key) is not held:
                return  # It was cancelled, or runs again.
            del self._open[incoming.key]
        refused = _refusal(host, held, error) if error is not None else None
        if type(word) is m.StreamEnd:
            host.say_end(incoming, m.StreamEnd(word.seq, word.attempt, word.count, refused or word.error))
        elif refused is not None or type(word) is m.Failed:
            host.end(incoming, refused or word, [])
        elif held.large:
            host.executor.submit(lambda: host.deliver(incoming, word))
        else:
            host.deliver(incoming, word)

    def cancelled(self, incoming: Incoming) -> bool:
        """True for a call that has ended and is held: who cancels it does not wait for the state. Under the lock."""
        host, held = self._host, self._open.get(incoming.key)
        if held is None or held.incoming is not incoming:
            return False
        del self._open[incoming.key]
        failed = arguments.failure(host.core, incoming, asyncio.CancelledError())
        if type(held.word) is m.StreamEnd:
            host.say_end(incoming, m.StreamEnd(held.word.seq, held.word.attempt, held.word.count, failed))
        else:
            host.end(incoming, failed, [])
        return True

    def _tick(self, every_s: float) -> None:
        """It is time for a checkpoint, if there were calls. Under the lock."""
        if not self._is_alive():
            return
        host = self._host
        if self._changed and not self._holding and host.core.ports.monotonic() >= self._not_before:
            self._hold()
        host.core.later(every_s, lambda: self._tick(every_s))

    def _hold(self) -> None:
        """Start no calls, and take one when those that run have ended. Under the lock."""
        self._holding = True
        if self.actor.width > 1:
            # With one call at a time nobody waits for longer than that call takes.
            self._too_long = self._host.core.later(QUIET_S, self._give_up)
        self.actor.when_quiet(self._host, self._quiet)

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
        """Calls do not end. By time there is none then, as the state may be half changed. Under the lock.

        With "call" others wait for their answers, and those that run perhaps for them: it is taken beside these, as an async actor's is.
        """
        if not self._is_alive():
            return
        self.actor.on_quiet, self.actor.watched = None, self.actor.leaving
        now, by_call = self._host.core.ports.monotonic(), self.actor.spec.checkpoint_every == "call"
        self._not_before = now + AGAIN_S
        self._lasting = [incoming for incoming in self._host.calls.values() if self._runs(incoming)]
        if now >= self._warned_until:
            self._warned_until = now + AGAIN_S if by_call else 0.0
            names = [incoming.name for incoming in self._lasting]
            more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
            log.warning(
                "%s: %s: new calls were held for %g s, and these did not end: %s%s. %s",
                self.actor.label, "checkpoints are taken beside calls" if by_call else "no checkpoint was taken", QUIET_S,
                ", ".join(names[:NAMES_SHOWN]), more,
                "They may have what these have half done, unless __checkpoint__ takes a lock that these take and returns a copy" if by_call
                else f"Calls go on; the next try is in {AGAIN_S:g} s",
            )  # fmt: skip
        self._go_on()
        if by_call:
            self._take_now()

    def _runs(self, incoming: Incoming) -> bool:
        """Its code runs: it has begun, and does not only wait until its answer may go."""
        return incoming.actor is self.actor and bool(incoming.started) and incoming.key not in self._open

    def _go_on(self) -> None:
        self._holding = False
        if self._is_alive():
            self._host.let_go(self.actor)

    def _take_soon(self) -> None:
        """Under the lock."""
        if self._taking:
            return
        self._taking = True
        if self.actor.threads_max and not self._others_last():
            # Its calls run on threads of their own, and would change the state while it is pickled.
            self._hold()
        else:
            self._take_now()

    def _others_last(self) -> bool:
        calls = self._host.calls
        self._lasting = [incoming for incoming in self._lasting if calls.get(incoming.key) is incoming and self._runs(incoming)]
        return bool(self._lasting)

    def _take_now(self) -> None:
        loop, host = self._host.executor.loop, self._host
        loop.call_soon_threadsafe(lambda: host.keep(loop.create_task(self._take(), name=f"checkpoint {self.actor.label}")))

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
        """One checkpoint."""
        core = self._host.core
        self.actor.runs_hook(self._host, "__checkpoint__")
        with core.lock:
            # Only these have ended by now: what ends while an async __checkpoint__ runs may not be in its value.
            held, self._held = self._held, []
        self._under_way += 1
        try:
            if self._still_there(held):
                await self._store(held)
        finally:
            self._taking = False
            self._under_way -= 1
        with core.lock:
            if self._held and not self._holding:
                self._take_soon()
        if self._listening:
            self._tell()

    async def _store(self, held: list[_Held]) -> None:
        """Say the state to the head. The value is pickled without an await, so that no call of the loop can change it half-way."""
        core, spec = self._host.core, self.actor.spec
        try:
            value = self.actor.instance.__checkpoint__()
            if inspect.isawaitable(value):
                value = await value
            data = actor_state.dumps(value, f"what __checkpoint__ of {self.actor.label} returned", self._answers_with(held))
        except BaseException as error:
            # CancelledError too: it may be that of something that the code awaits. Somebody waits for these answers.
            if self._still_there(held):
                self._not_stored(held, f"__checkpoint__ failed: {describe(error)}", error)
            return
        with core.lock:
            if self._still_there(held):
                self._number += 1
                self._waiting[self._number] = held
                state = m.SaveCheckpoint(spec.actor_id, self.actor.incarnation, self._number, data)
                core.head_line.push("checkpoint", spec.actor_id, state, urgent=True)

    def _still_there(self, held: list[_Held]) -> bool:
        """False: it was killed meanwhile. Its callers hear of that, and its state must not stand in the way of that of its next life."""
        if self._is_alive():
            return True
        with self._host.core.lock:
            self._drop(held)
        return False

    def _drop(self, held: list[_Held]) -> None:
        """They are answered by nobody here: this life is over. Under the lock."""
        for one in held:
            self._open.pop(one.incoming.key, None)
            if self._host.calls.get(one.incoming.key) is one.incoming:
                del self._host.calls[one.incoming.key]

    def _answers_with(self, held: list[_Held]) -> list[actor_state.Answered]:
        """The last answers, these among them, for the state that has what their calls did (AS-1)."""
        answers = self.actor.answers
        if answers is None:
            return []
        with self._host.core.lock:
            for one in [one for one in held if one.returned]:
                answers.add(one.incoming.key, one.word, one.incoming.returns)
            return answers.all()

    def _not_stored(self, held: list[_Held], why: str, error: BaseException | None = None) -> None:
        """What has run has run, and a restart does not have it: whoever would take it for stored is told."""
        known, self._trouble, self._why = self._why == why, True, why
        if not held and not known:
            log.error("%s: its state is not stored: %s", self.actor.label, why, exc_info=error)
        for one in held:
            raised = f", which raised {tracebacks.told(data)}," if (data := _raised(one.word)) else ""
            self._answer(
                one,
                CheckpointError.explain(
                    which=self.actor.label,
                    what=f"has run the call{raised or ','} and the state after it could not be stored, so that a restart would not have it",
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
        held = [one for number in list(self._waiting) if number <= message.number for one in self._waiting.pop(number)]
        if message.over:
            # Fenced (AC-6): its callers hear from the head that it was lost, and try again what may be.
            self._trouble = True
            self._drop(held)
        elif message.error:
            self._not_stored(held, f"the head refused it: {message.error}")
        else:
            for one in held:
                self._answer(one, None)
        if self._listening:
            self._tell()


def _raised(word: Any) -> bytes:
    """What the call has raised, as `tracebacks.capture` gave it; empty when it has raised nothing."""
    failed = word.error if type(word) is m.StreamEnd else word
    return failed.error[1:] if type(failed) is m.Failed and failed.error[:1] == b"\1" else b""


def _refusal(host: Host, held: _Held, error: CheckpointError) -> m.Failed:
    """What a call ends in whose state is not stored. What it has raised itself is the cause, and is not made anew here for that."""
    if not (raised := _raised(held.word)):
        return host.core.failed(error)
    refused = arguments.failure(host.core, held.incoming, error)
    return m.Failed(refused.error[:1] + tracebacks.with_cause(refused.error[1:], raised))


def _settle(told: asyncio.Future[None]) -> None:
    if not told.done():
        told.set_result(None)
