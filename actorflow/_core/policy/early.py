"""Words about actors that the head has not heard of yet.

A handle can be faster than its actor: the creator sends `CreateActor` on its own connection and gives the
handle to a task, whose process asks the head on another one. So what is said of an unknown actor is kept for
a moment.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from actorflow._core.base.ids import ActorId, ProcessId
from actorflow._core.protocol.messages import ActorDied

EARLY_S = 10.0
"""How long a word waits for its actor: longer than a message is under way, shorter than a person waits."""
EARLY_MAX = 100_000
"""How many unknown actors are kept in mind; beyond it the oldest is given up."""

Unheard = list[tuple[ActorId, tuple[ProcessId, ...]]]
"""Actors that did not come, and who asked for them."""


@dataclass(slots=True)
class Early:
    """What was said of one unknown actor."""

    deadline: float
    watchers: tuple[ProcessId, ...] = ()
    killed: ActorDied | None = None


class EarlyWords:
    """What was said of unknown actors, oldest first.

    EA-1: every watcher kept here is handed out again exactly once, unless it is lost: by `take` when its
    actor comes, else by whoever makes room or looks at the time.
    """

    __slots__ = ("_by_actor",)

    def __init__(self) -> None:
        self._by_actor: OrderedDict[ActorId, Early] = OrderedDict()

    def watch(self, actor_id: ActorId, watcher: ProcessId, now: float) -> Unheard:
        """Somebody wants to know its state. Returns who was given up to make room."""
        early, given_up = self._keep(actor_id, now)
        if watcher not in early.watchers:
            early.watchers = (*early.watchers, watcher)
        return given_up

    def kill(self, actor_id: ActorId, died: ActorDied, now: float) -> Unheard:
        """Somebody wants it dead. Returns who was given up to make room."""
        early, given_up = self._keep(actor_id, now)
        early.killed = early.killed or died
        return given_up

    def take(self, actor_id: ActorId) -> Early | None:
        """The actor came: what was said of it."""
        return self._by_actor.pop(actor_id, None) if self._by_actor else None

    def expire(self, now: float) -> Unheard:
        """Those that did not come in time."""
        late: Unheard = []
        while self._by_actor and next(iter(self._by_actor.values())).deadline <= now:
            actor_id, early = self._by_actor.popitem(last=False)
            late.append((actor_id, early.watchers))
        return late

    def next_deadline(self) -> float | None:
        """When `expire` has something to say, or None."""
        return next(iter(self._by_actor.values())).deadline if self._by_actor else None

    def drop_watcher(self, watcher: ProcessId) -> None:
        """A process is gone and need not be told. Looks at all of the few words there are."""
        for early in self._by_actor.values():
            if watcher in early.watchers:
                early.watchers = tuple(known for known in early.watchers if known != watcher)

    def _keep(self, actor_id: ActorId, now: float) -> tuple[Early, Unheard]:
        early = self._by_actor.get(actor_id)
        if early is not None:
            return early, []
        given_up: Unheard = []
        while len(self._by_actor) >= EARLY_MAX:
            oldest, words = self._by_actor.popitem(last=False)
            given_up.append((oldest, words.watchers))
        early = self._by_actor[actor_id] = Early(now + EARLY_S)
        return early, given_up
