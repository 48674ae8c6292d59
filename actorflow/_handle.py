"""Handles: how a program talks to an actor, wherever the actor is.

A handle has the user's methods and nothing else; what it must know of them (the interface) is data, without
the class's code, and travels with it. A handle belongs to the runtime that made it. Handle and methods keep
the runtime's ActorState alive: when the last of them is gone, so is this process's interest in the actor.
"""

from __future__ import annotations

import dataclasses
import functools
import pickle
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, NoReturn, ParamSpec, Self, TypeVar, Unpack

from actorflow._core.base.errors import OptionError, PendingCallsLimitExceeded
from actorflow._core.base.targets import CallKind, MethodTarget
from actorflow._remote_function import Submit
from actorflow._runtime import ActorState, Runtime, current
from actorflow._signature import checker, streams, wrong_call
from actorflow.options import MethodKeywords, MethodOptions, method_options

P = ParamSpec("P")
R = TypeVar("R")
X = TypeVar("X")


@dataclass(frozen=True, slots=True, eq=False)
class Interface:
    """What a caller must know of an actor. `blob` is all of it as bytes, the form in which it travels."""

    name: str
    methods: Mapping[str, MethodTarget]
    groups: tuple[str, ...]
    max_pending_calls: int
    max_task_retries: int
    blob: bytes = b""


def make_interface(
    name: str,
    methods: Mapping[str, MethodTarget],
    groups: tuple[str, ...],
    *,
    max_pending_calls: int,
    max_task_retries: int,
) -> Interface:
    """Return the interface of a class, its blob included."""
    from actorflow._core.serialization.values import dumps_plain  # needed at the first call, not to define a class

    rows = [
        (target.name, target.kind, _spoken(target.options), target.parameters, target.defined)
        for target in methods.values()
    ]
    # Not plain pickle: retry_exceptions may name types of the user's `__main__`.
    return read_interface(dumps_plain((name, rows, groups, max_pending_calls, max_task_retries)))


@functools.lru_cache(maxsize=1024)
def read_interface(blob: bytes) -> Interface:
    """The inverse of `make_interface`; equal blobs give one instance."""
    name, rows, groups, max_pending_calls, max_task_retries = pickle.loads(blob)
    default = MethodOptions(max_task_retries=max_task_retries)
    methods = {}
    for method, kind, spoken, parameters, defined in rows:
        options = dataclasses.replace(default, **spoken) if spoken else default
        methods[method] = MethodTarget(method, kind, options, parameters, defined)
    return Interface(name, methods, groups, max_pending_calls, max_task_retries, blob)


def _spoken(options: MethodOptions) -> dict[str, Any]:
    """The options that are not as they are by default."""
    return {
        field.name: value
        for field in dataclasses.fields(options)
        if field.init and (value := getattr(options, field.name)) != field.default
    }


class BoundMethod(Submit[P, X], Generic[P, R, X]):
    """A method of an actor, ready to be called: what `handle.name` gives.

    `await handle.add(2)` calls and waits, also for room in a full mailbox, and cancelling it cancels the
    call; `handle.add.remote(2)` gives a reference at once, `await handle.add.submit(2)` when there is room.
    """

    __slots__ = ("_call", "_check", "_interface", "_options", "_runtime", "_state", "_submit", "_target")

    def __init__(
        self,
        runtime: Runtime,
        state: ActorState,
        interface: Interface,
        target: MethodTarget,
        options: MethodOptions | None = None,
    ) -> None:
        # It refers to the state and not to the handle, which keeps its methods: no cycle for the collector.
        self._runtime = runtime
        self._state = state
        self._interface = interface
        self._target = target
        self._options: MethodOptions = options or target.options
        self._call = runtime.call_method
        self._submit = runtime.submit_method
        self._check = checker(f"{interface.name}.{target.name}", target.parameters)

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            self._check(*args, **kwargs)
        except TypeError as error:
            raise wrong_call(error, self._target.defined) from None
        call = self._call
        return call(self._state, self._target, args, kwargs, self._options)  # type: ignore[return-value]

    if not TYPE_CHECKING:  # checkers take the overloads of Submit

        def remote(self, /, *args, **kwargs):
            try:
                self._check(*args, **kwargs)
            except TypeError as error:
                raise wrong_call(error, self._target.defined) from None
            return self._submit(self._state, self._target, args, kwargs, self._options)

        def submit(self, /, *args, **kwargs):
            try:
                self._check(*args, **kwargs)
            except TypeError as error:
                raise wrong_call(error, self._target.defined) from None
            return self._submit_when_room(args, kwargs)

    async def _submit_when_room(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        while True:
            try:
                return self._submit(self._state, self._target, args, kwargs, self._options)
            except PendingCallsLimitExceeded:
                await self._runtime.wait_room(self._state, self._options)

    def options(self, **given: Unpack[MethodKeywords]) -> Self:
        """The same method with other options: `await h.add.options(timeout=3)(2)`. Raises OptionError."""
        where = f"{self._interface.name}.{self._target.name}.options()"
        options = check_method_options(self._options, where, given, self._target.kind, self._interface.groups)
        if options.interruptible != self._options.interruptible:
            raise OptionError.explain(
                which=f"{where}: interruptible",
                what="belongs to the method, not to one call",
                next_step="write @af.method(interruptible=True) in the class",
                option="interruptible",
            )
        return type(self)(self._runtime, self._state, self._interface, self._target, options)

    @property
    def __name__(self) -> str:
        return self._target.name

    def __repr__(self) -> str:
        return f"{_show(self._interface, self._state)}.{self._target.name}"

    def __reduce__(self) -> tuple[Any, ...]:
        handle = ActorHandle(self._runtime, self._state, self._interface)
        return _restore_method, (handle, self._target.name, _spoken(self._options))


def _restore_method(handle: ActorHandle, name: str, spoken: dict[str, Any]) -> BoundMethod[..., Any, Any]:
    method: BoundMethod[..., Any, Any] = getattr(handle, name)
    method._options = dataclasses.replace(MethodOptions(), **spoken)
    return method


def check_method_options(
    base: MethodOptions | None, where: str, given: Any, kind: CallKind, groups: tuple[str, ...] | None
) -> MethodOptions:
    """Check options against the kind of method, and against the class's groups when they are known.

    Raises OptionError.
    """
    options = method_options(base, where, given)
    if options.num_returns != 1 and streams(kind):
        raise OptionError.explain(
            which=f"{where}: num_returns={options.num_returns}",
            what="is not for a generator, which gives one stream",
            next_step="leave num_returns out; `stream.refs()` has a reference for each value",
            option="num_returns",
        )
    group = options.concurrency_group
    if group and groups is not None and group not in groups:
        have = f"the class has {', '.join(map(repr, groups))}" if groups else "the class has none"
        raise OptionError.explain(
            which=f"{where}: concurrency_group={group!r}",
            what="does not exist",
            why=have,
            next_step=f'add it to the class: concurrency_groups={{"{group}": 2}}',
            option="concurrency_group",
        )
    return options


class ActorHandle:
    """Refers to an actor, from any process. It has the actor's public methods, and nothing else.

    `await handle` waits until the actor is alive, or raises its constructor's error. Handles to one actor are
    equal. What is done to an actor is a function: `af.kill(handle)`, `af.wait_dead(handle)`.
    """

    # Methods that have been asked for are kept in `__dict__`: the next look-up costs what an attribute does.
    __slots__ = ("__dict__", "__weakref__", "_af_interface", "_af_runtime", "_af_state")

    _af_interface: Interface
    _af_runtime: Runtime
    _af_state: ActorState

    def __init__(self, runtime: Runtime, state: ActorState, interface: Interface) -> None:
        keep = object.__setattr__
        keep(self, "_af_runtime", runtime)
        keep(self, "_af_state", state)
        keep(self, "_af_interface", interface)

    def __getattr__(self, name: str) -> BoundMethod[..., Any, Any]:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        interface = self._af_interface
        target = interface.methods.get(name)
        if target is None:
            raise AttributeError(_no_method(interface, name), name=name, obj=self)
        method: BoundMethod[..., Any, Any] = BoundMethod(self._af_runtime, self._af_state, interface, target)
        self.__dict__[name] = method
        return method

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(
            f"cannot set {name!r} on a handle to {self._af_interface.name}: it would not reach the actor. "
            "Give the class a method that sets it.",
            name=name,
            obj=self,
        )

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(
            f"cannot delete {name!r} of a handle: it has nothing of its own", name=name, obj=self
        )

    def __await__(self) -> Generator[Any, None, Self]:
        yield from self._af_runtime.wait_alive(self._af_state).__await__()
        return self

    def __dir__(self) -> list[str]:
        own = (name for name in super().__dir__() if not name.startswith("_af_"))
        return sorted({*own, *self._af_interface.methods})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ActorHandle) and other._af_state.actor_id == self._af_state.actor_id

    def __hash__(self) -> int:
        return hash(self._af_state.actor_id)

    def __repr__(self) -> str:
        return _show(self._af_interface, self._af_state)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        state = self._af_state
        return restore_handle, (self._af_interface.blob, state.actor_id, state.lifetime)


def new_handle(runtime: Runtime, state: ActorState, interface: Interface) -> ActorHandle:
    """Make a handle, and tell the runtime's side what callers must keep to."""
    state.max_pending_calls = interface.max_pending_calls
    state.max_task_retries = interface.max_task_retries
    return ActorHandle(runtime, state, interface)


def handle_of(state: ActorState, blob: bytes) -> ActorHandle:
    """The handle for an actor that the current runtime has found (`Runtime.find_actor`)."""
    return new_handle(current(), state, read_interface(blob))


def state_of(handle: ActorHandle) -> ActorState:
    """The runtime's side of a handle."""
    return handle._af_state


def restore_handle(blob: bytes, actor_id: str, lifetime: Any) -> ActorHandle:
    """Unpickle a handle. Raises NotInitializedError where there is no runtime."""
    runtime, interface = current(), read_interface(blob)
    return new_handle(runtime, runtime.restore_actor(actor_id, lifetime, interface.name, blob), interface)


def _show(interface: Interface, state: ActorState) -> str:
    return f"{interface.name}(af-actor-{state.actor_id})"


_FUNCTIONS = ("kill", "wait_dead", "checkpoint")


def _no_method(interface: Interface, name: str) -> str:
    """The words for a method that a handle does not have."""
    if name.startswith("_"):
        return f"{interface.name}.{name} is private: a handle has only the public methods of its class"
    import difflib

    text = f"the actor class {interface.name} has no method {name!r}"
    if near := difflib.get_close_matches(name, interface.methods, n=3):
        return f"{text}. Did you mean {' or '.join(map(repr, near))}?"
    if name in _FUNCTIONS:
        return f"{text}. Write `await af.{name}(handle)`: what is done to an actor is a function."
    if name in ("remote", "options"):
        return f"{text}: this is a handle to an actor that exists. Write `handle.method.{name}(...)`."
    have = (
        f"It has {', '.join(sorted(interface.methods))}." if interface.methods else "It has no public method."
    )
    return f"{text}. {have} Values are read by a method too: a handle has no other attributes."
