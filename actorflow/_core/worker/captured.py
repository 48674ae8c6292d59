"""Child capture: what runs in a placement group with `capture_child_tasks=True` has its children run there too, and theirs.

The group travels with the declared context (SEMANTICS 8), which goes on from call to call by itself; so a program that captures nothing
pays nothing.

CC-1: a child is captured unless it says itself where it runs; the methods of an actor capture for the actor's own group, and never
      for that of their caller.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from actorflow._core.policy.placement_wish import group_of
from actorflow._core.worker.context import CAPTURED, declared

if TYPE_CHECKING:
    from actorflow._core.worker.calls import Call
    from actorflow._core.worker.hosted import HostedActor


def capture(call: Call, actor: object) -> None:
    """A call is on its way (`actor`: to that one) that takes a group along, or begins to capture (CC-1)."""
    values = dict(call.values or {})
    group_id = values.pop(CAPTURED, "")
    if actor is None:
        options = call.options
        if options.placement:
            group_id = group_of(options.placement)[0] if options.capture_child_tasks else ""
        elif group_id:
            call.options = options.inside(group_id)
        if group_id:
            values[CAPTURED] = group_id
    call.values = values or None


def capture_in_methods(actor: HostedActor, group_id: str) -> None:
    """Have the methods of an actor declare its group for what they call."""
    for name in dir(actor.cls):
        if name.startswith("_") or not callable(inspect.getattr_static(actor.cls, name)):
            continue
        method, is_async, label = actor.method(name)
        actor.keep_method(name, _capturing(method, group_id, is_async), is_async, label)


def _capturing(method: Callable[..., Any], group_id: str, is_async: bool) -> Callable[..., Any]:
    def declare() -> None:
        declared.set({**(declared.get() or {}), CAPTURED: group_id})

    @functools.wraps(method)
    async def run_async(*args: Any, **kwargs: Any) -> Any:
        declare()
        return await method(*args, **kwargs)

    @functools.wraps(method)
    def run(*args: Any, **kwargs: Any) -> Any:
        declare()
        return method(*args, **kwargs)  # Of a generator method the iterator, whose body runs in the same context.

    return run_async if is_async else run
