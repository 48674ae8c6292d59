"""A Runtime that records what the public face asks for, and runs calls in this process, on this loop.

`runtime.sent` has every call in order. Calls run the user's code at once; `hold=True` keeps them pending until
the test settles them: `runtime.refs[0].settle(5)`.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from actorflow._core.base.errors import PendingCallsLimitExceeded, TaskCancelledError


class Sent(NamedTuple):
    """One request. `options` is the very object that the face handed over."""

    what: str
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    options: Any


class FakeRef:
    """An ObjectRef that a test can settle."""

    def __init__(self, cancel_takes: int = 0) -> None:
        self._future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.cancels = 0
        self.steps_to_cancel = cancel_takes
        """Turns of the loop from `cancel()` to the end of the call."""
        self.ends_in: BaseException = TaskCancelledError("cancelled")
        """What a cancelled call ends in."""

    def settle(self, value: Any) -> None:
        if self._future.done():
            return
        if isinstance(value, BaseException):
            self._future.set_exception(value)
            self._future.exception()
        else:
            self._future.set_result(value)

    def done(self) -> bool:
        return self._future.done()

    def cancel(self, *, force: bool = False, recursive: bool = True) -> bool:
        self.cancels += 1
        if self.steps_to_cancel:
            task = asyncio.ensure_future(self._end_later())
            self._future.add_done_callback(lambda _: task)
        else:
            self.settle(self.ends_in)
        return True

    async def _end_later(self) -> None:
        for _ in range(self.steps_to_cancel):
            await asyncio.sleep(0)
        self.settle(self.ends_in)

    def __await__(self) -> Generator[Any, None, Any]:
        return asyncio.shield(self._future).__await__()

    async def terminal(self) -> BaseException | None:
        await asyncio.wait([self._future])
        return self._future.exception()


class FakeStream:
    """A Stream that only knows whether it was closed."""

    def __init__(self) -> None:
        self.closed = False

    async def aclose(self) -> None:
        self.closed = True

    async def terminal(self) -> BaseException | None:
        return None


@dataclass
class FakeState:
    """The runtime's side of a handle."""

    actor_id: str
    lifetime: Any = None
    instance: Any = None
    max_pending_calls: int = -1
    max_task_retries: int = 0


@dataclass
class FakeRuntime:
    """See the module."""

    hold: bool = False
    full: int = 0
    """So many submissions find the mailbox full."""
    cancel_takes: int = 0
    sent: list[Sent] = field(default_factory=list)
    refs: list[FakeRef] = field(default_factory=list)
    states: dict[str, FakeState] = field(default_factory=dict)
    targets: list[Any] = field(default_factory=list)
    restored: list[tuple[str, Any, str, bytes]] = field(default_factory=list)
    waits_for_room: int = 0

    # -- functions

    def submit(self, target: Any, args: Any, kwargs: Any, options: Any) -> Any:
        return self._submit(Sent("submit", target.name, args, kwargs, options), target.kind, target.fn)

    def call(self, target: Any, args: Any, kwargs: Any, options: Any) -> Any:
        sent = Sent("call", target.name, args, kwargs, options)
        if target.kind in ("generator", "async_generator"):
            return self._submit(sent, target.kind, target.fn)
        return self._call(sent, target.fn)

    def _submit(self, sent: Sent, kind: str, fn: Callable[..., Any]) -> Any:
        if self.full:
            self.full -= 1
            raise PendingCallsLimitExceeded("full")
        self.sent.append(sent)
        if kind in ("generator", "async_generator"):
            return FakeStream()
        refs = [FakeRef(self.cancel_takes) for _ in range(max(sent.options.num_returns, 1))]
        self.refs += refs
        if not self.hold:
            task = asyncio.ensure_future(self._run(refs, fn, sent.args, sent.kwargs))
            refs[0]._future.add_done_callback(lambda _: task)
        return refs if len(refs) > 1 else refs[0]

    async def _run(self, refs: list[FakeRef], fn: Callable[..., Any], args: Any, kwargs: Any) -> None:
        try:
            value = await _value(fn, args, kwargs)
        except Exception as error:
            value = error
        for position, ref in enumerate(refs):
            ref.settle(value[position] if len(refs) > 1 and isinstance(value, tuple) else value)

    async def _call(self, sent: Sent, fn: Callable[..., Any]) -> Any:
        self.sent.append(sent)
        return await _value(fn, sent.args, sent.kwargs)

    # -- actors

    def create_actor(self, target: Any, args: Any, kwargs: Any, options: Any) -> FakeState:
        self.sent.append(Sent("create", target.name, args, kwargs, options))
        self.targets.append(target)
        state = FakeState(f"{len(self.states):012x}", "lifetime", target.cls(*args, **kwargs))
        self.states[state.actor_id] = state
        return state

    def submit_method(self, actor: FakeState, method: Any, args: Any, kwargs: Any, options: Any) -> Any:
        sent = Sent("submit_method", method.name, args, kwargs, options)
        return self._submit(sent, method.kind, getattr(actor.instance, method.name))

    def call_method(
        self, actor: FakeState, method: Any, args: Any, kwargs: Any, options: Any
    ) -> Coroutine[Any, Any, Any] | FakeStream:
        sent = Sent("call_method", method.name, args, kwargs, options)
        if method.kind in ("generator", "async_generator"):
            stream: FakeStream = self._submit(sent, method.kind, getattr(actor.instance, method.name))
            return stream
        return self._call(sent, getattr(actor.instance, method.name))

    def restore_actor(self, actor_id: str, lifetime: Any, class_name: str, class_blob: bytes) -> FakeState:
        self.restored.append((actor_id, lifetime, class_name, class_blob))
        return self.states[actor_id]

    async def wait_room(self, actor: Any, options: Any) -> None:
        self.waits_for_room += 1

    async def wait_alive(self, actor: FakeState) -> None:
        if isinstance(actor.instance, BaseException):
            raise actor.instance

    async def outcome(self, call: Any) -> BaseException | None:
        error: BaseException | None = await call.terminal()
        return error


async def _value(fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    value = fn(*args, **kwargs)
    return await value if inspect.isawaitable(value) else value
