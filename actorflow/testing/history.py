"""What a workload did, as it was seen from outside: the input of the checkers.

The harness records; nothing here judges. Times are virtual, and every entry has its number in the one
order of the world, so that two entries at the same time still have an order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class End:
    """How a call ended: `error` is None for a value."""

    order: int
    at: float
    value: Any = None
    error: BaseException | None = None


@dataclass(slots=True)
class Call:
    """One call as its caller sees it."""

    number: int
    caller: str
    target: str
    name: str
    args: tuple[Any, ...]
    order: int
    at: float
    ends: list[End] = field(default_factory=list)
    """One when all is well. More are recorded too, so that a checker can complain."""

    def __str__(self) -> str:
        args = ", ".join(map(repr, self.args))
        return f"call {self.number} by {self.caller}: {self.target}.{self.name}({args})"


@dataclass(slots=True)
class Execution:
    """The code of a call began to run."""

    call: int
    target: str
    incarnation: str
    order: int
    at: float


@dataclass(slots=True)
class Life:
    """One incarnation of an actor, from the moment it may answer to the moment it cannot any more."""

    target: str
    incarnation: str
    began: int
    at: float
    ended: int | None = None


class History:
    """The record of one run. `clock` gives the virtual time: `History(lambda: world.now)`."""

    def __init__(self, clock: Callable[[], float] = lambda: 0.0) -> None:
        self._clock = clock
        self._order = 0
        self.calls: list[Call] = []
        self.executions: list[Execution] = []
        self.lives: list[Life] = []
        self.dead_callers: dict[str, int] = {}
        """Callers that were killed, and when: their open calls need no end."""

    def _next(self) -> int:
        self._order += 1
        return self._order

    def invoked(self, caller: str, target: str, name: str, *args: Any) -> Call:
        """A caller makes a call. Keep the result: it takes the end, and its number can travel as an
        argument.
        """
        call = Call(len(self.calls), caller, target, name, args, self._next(), self._clock())
        self.calls.append(call)
        return call

    def ended(self, call: Call, value: Any = None) -> None:
        """The call returned."""
        call.ends.append(End(self._next(), self._clock(), value=value))

    def failed(self, call: Call, error: BaseException) -> None:
        """The call raised."""
        call.ends.append(End(self._next(), self._clock(), error=error))

    def executed(self, number: int, target: str, incarnation: str = "") -> None:
        """The code of call `number` began to run."""
        self.executions.append(Execution(number, target, incarnation, self._next(), self._clock()))

    def life_began(self, target: str, incarnation: str) -> None:
        """An incarnation of an actor may answer calls."""
        self.lives.append(Life(target, incarnation, self._next(), self._clock()))

    def life_ended(self, target: str, incarnation: str) -> None:
        """An incarnation can answer no more: its process is dead, or it was fenced."""
        for life in self.lives:
            if life.target == target and life.incarnation == incarnation and life.ended is None:
                life.ended = self._next()

    def caller_died(self, caller: str) -> None:
        """A caller was killed."""
        self.dead_callers.setdefault(caller, self._next())
