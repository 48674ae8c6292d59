"""The one way down: the public face talks to a `Runtime`, and `current()` finds the one that the running code belongs to.

A process has at most one runtime of its own (a driver's or a worker's). `mode="in_process"` and the simulator run several in one
process: there the context variable tells them apart.
"""

from __future__ import annotations

from collections.abc import Coroutine
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from actorflow._core.base.errors import NotInitializedError
from actorflow._core.base.targets import ActorTarget, CallKind, FunctionTarget, MethodTarget

if TYPE_CHECKING:
    from actorflow.options import ActorOptions, MethodOptions, TaskOptions

class ActorState(Protocol):
    """The runtime's side of a handle: shared by all handles to one actor in this process. Opaque to the face."""

    actor_id: str


class Runtime(Protocol):
    """What the face may ask for. Every method may be called from any thread; coroutines run on the caller's own loop."""

    def submit(self, target: FunctionTarget, args: tuple[Any, ...], kwargs: dict[str, Any], options: TaskOptions) -> Any:
        """`f.remote(...)`: an ObjectRef, a list of them (num_returns > 1), or a Stream. Never waits; PendingCallsLimitExceeded when full."""

    def call(
        self, target: FunctionTarget, args: tuple[Any, ...], kwargs: dict[str, Any], options: TaskOptions
    ) -> Coroutine[Any, Any, Any]:
        """`await f(...)`: a lazy coroutine: nothing is sent before its first step; cancelling it cancels the call."""

    def create_actor(self, target: ActorTarget, args: tuple[Any, ...], kwargs: dict[str, Any], options: ActorOptions) -> ActorState:
        """`Cls.remote(...)`: at once."""

    def submit_method(
        self, actor: ActorState, method: MethodTarget, args: tuple[Any, ...], kwargs: dict[str, Any], options: MethodOptions
    ) -> Any:
        """`handle.m.remote(...)`."""

    def call_method(
        self, actor: ActorState, method: MethodTarget, args: tuple[Any, ...], kwargs: dict[str, Any], options: MethodOptions
    ) -> Coroutine[Any, Any, Any]:
        """`await handle.m(...)`: as `call`; waits for room in a full mailbox."""

    async def wait_room(self, actor: ActorState, options: MethodOptions) -> None:
        """`await handle.m.submit(...)`: return when one more call fits within `max_pending_calls`."""

    async def wait_alive(self, actor: ActorState) -> None:
        """`await handle`: return when the constructor is done; raise its error, or ActorDiedError."""

    async def wait_dead(self, actor: ActorState) -> str:
        """Return the reason when the actor is gone for good."""

    async def kill_actor(self, actor: ActorState, *, no_restart: bool, graceful: bool) -> None:
        """End it; return when the head has taken note."""

    async def find_actor(self, name: str, namespace: str | None) -> tuple[ActorState, bytes]:
        """The actor with this name and its class blob (see `actorflow._actor`). Raises ActorNotFoundError with near names."""

    async def state(self, kind: str, *, limit: int, timeout_s: float) -> list[dict[str, Any]]:
        """Rows of a state query."""


__all__ = ["ActorState", "ActorTarget", "CallKind", "FunctionTarget", "MethodTarget", "Runtime", "current", "current_or_none", "enter"]

_current: ContextVar[Runtime | None] = ContextVar("actorflow_runtime", default=None)
_process_runtime: Runtime | None = None


def current() -> Runtime:
    """Return the runtime of the running code. Raises NotInitializedError when there is none."""
    runtime = _current.get() or _process_runtime
    if runtime is None:
        raise NotInitializedError(
            "actorflow is not running in this process (never started, or shut down): use `af.run(main)`, or `await af.init()` first"
        )
    return runtime


def current_or_none() -> Runtime | None:
    """Return the runtime of the running code, or None."""
    return _current.get() or _process_runtime


def set_process_runtime(runtime: Runtime | None) -> None:
    """Make `runtime` the one of this process (None: there is no more)."""
    global _process_runtime
    _process_runtime = runtime


def enter(runtime: Runtime) -> None:
    """Make `runtime` the one of the running context and of all tasks that are started from it."""
    _current.set(runtime)
