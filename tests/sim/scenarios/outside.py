"""What user code notes outside of the cluster: a register that no crash loses and no retry resets.

Simulated processes share this module, as real ones would share a database.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from actorflow.testing import History
from actorflow.testing.history import Call

current: Register | None = None


class Register:
    """Counts what ran, and judges by the history."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.runs: dict[Any, int] = {}
        self.values: dict[str, Any] = {}
        self.order: list[Any] = []


def register() -> Register:
    """The one of the running scenario."""
    assert current is not None, "there is a stage"
    return current


def ran(key: Any) -> int:
    """Count one run of `key`; returns how many there were before."""
    runs = register().runs
    before: int = runs.get(key, 0)
    runs[key] = before + 1
    return before


def note(what: Any) -> None:
    """Append to the one order of the world."""
    register().order.append(what)


def invoked(target: str, name: str, *args: Any, caller: str = "driver") -> Call:
    """See History.invoked."""
    return register().history.invoked(caller, target, name, *args)


def executed(number: int, target: str = "", incarnation: str = "") -> None:
    """See History.executed."""
    register().history.executed(number, target, incarnation)


async def end_of(call: Call, awaitable: Awaitable[Any]) -> Any:
    """Await the call and record its end; returns the value, or the error without raising it."""
    history = register().history
    try:
        value = await awaitable
    except asyncio.CancelledError:
        raise
    except Exception as error:
        # Its frames hold the reference.
        error.__traceback__ = error.__cause__ = error.__context__ = None
        history.failed(call, error)
        return error
    history.ended(call, value)
    return value
