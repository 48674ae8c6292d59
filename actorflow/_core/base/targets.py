"""What is called: remote functions, actor methods and actor classes, as caller and runtime see them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

METHOD_OPTIONS = "__actorflow_method__"
"""Where `@af.method` leaves a method's options: an attribute of the function."""
CallKind = Literal["sync", "async", "generator", "async_generator"]


@dataclass(slots=True, eq=False)
class FunctionTarget:
    """A remote function as the runtime sees it. Pickled on its first use; `function_id` is the digest of that pickle."""

    fn: Callable[..., Any]
    name: str
    kind: CallKind
    function_id: str = ""
    pickle: bytes = b""


@dataclass(frozen=True, slots=True)
class MethodTarget:
    """A method of an actor, as its handles know it (it travels with them): no code, only what a caller must know."""

    name: str
    kind: CallKind
    options: Any
    parameters: tuple[tuple[str, str, bool], ...] = ()
    """(name, kind of parameter, has a default) of each parameter after self, enough to check a call before it is sent."""
    defined: str = ""
    """Where it is defined, as `file.py:12`, for the error of a wrong call; empty when nobody knows."""


@dataclass(slots=True, eq=False)
class ActorTarget:
    """An actor class as the runtime sees it."""

    cls: type
    name: str
    methods: dict[str, MethodTarget]
    is_async: bool
    class_id: str = ""
    pickle: bytes = b""
    constructor: tuple[tuple[str, str, bool], ...] = ()
    groups: dict[str, int] = field(default_factory=dict)
    interface: bytes = b""
    """The class blob: what a caller must know of such an actor, without its code. It travels with handles and is what
    `find_actor` gives; only the face reads it (`actorflow._handle`).
    """
