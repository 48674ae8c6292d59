"""Which runtime the running code belongs to.

A process has at most one runtime of its own (a driver's or a worker's). `mode="in_process"` and the simulator run several in one process:
there the context variable tells them apart.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from actorflow._core.base.errors import ForkedError

_current: ContextVar[Any] = ContextVar("actorflow_runtime", default=None)
cancelled_calls: ContextVar[list[Any] | None] = ContextVar("actorflow_cancelled_calls", default=None)
"""Inside a TaskGroup: where the ObjectRef of a direct call goes that was cancelled and is not terminal yet.

The group leaves only when it is (SEMANTICS 4). None outside of groups, where nobody waits for it.
"""

_process_runtime: Any = None
_starting: Callable[[], None] | None = None
_parent: tuple[int, str] | None = None
"""In a process that the user forked: the pid of the one whose runtime it cannot use, and the address of its cluster."""


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
    global _process_runtime, _starting, _parent
    _process_runtime = runtime
    _starting = None
    if runtime is not None:
        _parent = None


def set_starting(wait: Callable[[], None]) -> None:
    """A runtime is on its way: `wait` blocks until it is there."""
    global _starting
    if _process_runtime is None:
        _starting = wait


def enter(runtime: Any) -> None:
    """Make `runtime` the one of the running context and of all tasks that are started from it."""
    _current.set(runtime)


def forked(pid: int, address: str) -> None:
    """This process is a fork of `pid`, and the runtime that it has inherited is not its own (SEMANTICS 29)."""
    global _process_runtime, _starting, _parent
    _parent = (pid, address)
    _process_runtime = _starting = None
    _current.set(None)


def was_forked() -> bool:
    """True in a child that the user forked, until it has a runtime of its own."""
    return _parent is not None


def forked_error() -> ForkedError:
    """What to raise when the runtime of the parent is used in a child."""
    pid, address = _parent or (os.getppid(), "")
    join = f"af.init(address={address!r})" if address else "af.init(address=...)"
    return ForkedError(
        f"this process was forked by process {pid}, in which actorflow runs: connections, references and handles of that process cannot "
        f"be used here. Call {join} in this process first: in the post_fork hook of gunicorn or uWSGI, in the lifespan handler of an ASGI "
        "application, in the worker_init_fn of a DataLoader. Or start processes with the method 'spawn'"
    )
