"""Which runtime the running code belongs to.

A process has at most one runtime of its own (a driver's or a worker's). `mode="in_process"` and the simulator run several in one process:
there the context variable tells them apart.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

_current: ContextVar[Any] = ContextVar("actorflow_runtime", default=None)
cancelled_calls: ContextVar[list[Any] | None] = ContextVar("actorflow_cancelled_calls", default=None)
"""Inside a TaskGroup: where the ObjectRef of a direct call goes that was cancelled and is not terminal yet.

The group leaves only when it is (SEMANTICS 4). None outside of groups, where nobody waits for it.
"""

_process_runtime: Any = None
_starting: Callable[[], None] | None = None


def get() -> Any:
    """The runtime of the running code, or None; one that is on its way is waited for."""
    runtime = _current.get() or _process_runtime
    if runtime is None and _starting is not None:
        # A bare af.init() on a running loop: whoever comes first waits for it.
        _starting()
        return _process_runtime
    return runtime


def peek() -> Any:
    """The runtime of the running code if it is there already, or None."""
    return _current.get() or _process_runtime


def set_process(runtime: Any) -> None:
    """Make `runtime` the one of this process (None: there is no more)."""
    global _process_runtime, _starting
    _process_runtime = runtime
    _starting = None


def set_starting(wait: Callable[[], None]) -> None:
    """A runtime is on its way: `wait` blocks until it is there."""
    global _starting
    if _process_runtime is None:
        _starting = wait


def enter(runtime: Any) -> None:
    """Make `runtime` the one of the running context and of all tasks that are started from it."""
    _current.set(runtime)
