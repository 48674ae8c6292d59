"""The one way down: the public face talks to a `Runtime`, and `current()` finds the one that the running code belongs to.

A process has at most one runtime of its own (a driver's or a worker's). `mode="in_process"` and the simulator run several in one
process: there the context variable tells them apart.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Protocol

from actorflow._core.base import current as _current
from actorflow._core.base.errors import NotInitializedError
from actorflow._core.base.targets import ActorTarget, CallKind, FunctionTarget, MethodTarget

if TYPE_CHECKING:
    from actorflow.options import ActorOptions, MethodOptions, TaskOptions

class ActorState(Protocol):
    """The runtime's side of a handle: shared by all handles to one actor in this process. Opaque to the face."""

    actor_id: str
    lifetime: Any
    """The ObjectRef that stands for the actor's life, or None. Handles take it along when they travel (SEMANTICS 23)."""
    max_pending_calls: int
    """Calls of this process that may be under way; -1: any number. Set by the face when it makes a handle."""
    max_task_retries: int
    """As `max_pending_calls`. A call's own `options.max_task_retries` has this value already where the method has none."""


class Runtime(Protocol):
    """What the face may ask for. Every method may be called from any thread; coroutines run on the caller's own loop.

    An `actor` is the runtime's own ActorState, given back to it.
    """

    def submit(self, target: FunctionTarget, args: tuple[Any, ...], kwargs: dict[str, Any], options: TaskOptions) -> Any:
        """`f.remote(...)`: an ObjectRef, a list of them (num_returns > 1), or a Stream. Never waits."""

    def call(
        self, target: FunctionTarget, args: tuple[Any, ...], kwargs: dict[str, Any], options: TaskOptions
    ) -> Coroutine[Any, Any, Any]:
        """`await f(...)`: a lazy coroutine: nothing is sent before its first step; cancelling it cancels the call."""

    def create_actor(self, target: ActorTarget, args: tuple[Any, ...], kwargs: dict[str, Any], options: ActorOptions) -> ActorState:
        """`Cls.remote(...)`: at once."""

    def submit_method(
        self, actor: Any, method: MethodTarget, args: tuple[Any, ...], kwargs: dict[str, Any], options: MethodOptions
    ) -> Any:
        """`handle.m.remote(...)`."""

    def call_method(
        self, actor: Any, method: MethodTarget, args: tuple[Any, ...], kwargs: dict[str, Any], options: MethodOptions
    ) -> Coroutine[Any, Any, Any]:
        """`await handle.m(...)`: as `call`; waits for room in a full mailbox."""

    async def wait_room(self, actor: Any, options: MethodOptions | TaskOptions) -> None:
        """`.submit(...)` after PendingCallsLimitExceeded: return when one more call fits. `actor` is None for a task."""

    async def outcome(self, call: Any) -> BaseException | None:
        """Return when the call behind an ObjectRef or a Stream is terminal: None, or the error it ended in.

        The value is not read, and cancelling this wait cancels nothing. An error that is returned counts as retrieved.
        """

    def restore_actor(self, actor_id: str, lifetime: Any, class_name: str, class_blob: bytes) -> ActorState:
        """A handle arrived: the state that all handles to this actor share."""

    async def wait_alive(self, actor: Any) -> None:
        """`await handle`: return when the constructor is done; raise its error, or ActorDiedError."""

    async def wait_dead(self, actor: Any) -> str:
        """Return the reason when the actor is gone for good."""

    async def kill_actor(self, actor: Any, *, no_restart: bool, graceful: bool) -> None:
        """End it; return when the head has taken note."""

    async def find_actor(self, name: str, namespace: str | None) -> tuple[ActorState, bytes]:
        """The actor with this name and its class blob (see `actorflow._actor`). Raises ActorNotFoundError with near names."""

    async def state(self, kind: str, *, limit: int, timeout_s: float) -> list[dict[str, Any]]:
        """Rows of a state query."""


__all__ = [
    "ActorState", "ActorTarget", "CallKind", "FunctionTarget", "MethodTarget", "Runtime", "cancelled_calls", "current", "current_or_none",
    "enter", "forked", "set_process_runtime", "set_starting",
]  # fmt: skip

cancelled_calls = _current.cancelled_calls


def current() -> Runtime:
    """Return the runtime of the running code. Raises NotInitializedError when there is none."""
    runtime: Runtime | None = _current.get()
    if runtime is None:
        if _current.was_forked():
            raise _current.forked_error()
        raise NotInitializedError(
            "actorflow is not running in this process (never started, or shut down): use `af.run(main)`, or `await af.init()` first"
        )
    return runtime


def current_or_none() -> Runtime | None:
    """Return the runtime of the running code, or None."""
    runtime: Runtime | None = _current.peek()
    return runtime


set_process_runtime = _current.set_process
set_starting = _current.set_starting
enter = _current.enter
forked = _current.forked
