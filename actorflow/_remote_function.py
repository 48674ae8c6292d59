"""Remote functions, and the `remote` decorator that makes them.

`@af.remote` turns a function into a RemoteFunction: a direct call gives a lazy coroutine, `.remote()` a
reference. On a plain class it gives an ActorClass (`actorflow._actor`). The type parameters are the same
everywhere: P are the parameters, C is what a direct call gives, X what `.remote()` gives.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, Generic, Never, ParamSpec, Self, TypeAlias, TypeVar, Unpack, overload

from actorflow._core.base.errors import OptionError, PendingCallsLimitExceeded
from actorflow._core.base.targets import FunctionTarget
from actorflow._runtime import current
from actorflow._signature import checker, defined_at, kind_of, name_of, parameters_of, streams, wrong_call
from actorflow.options import ActorKeywords, TaskKeywords, TaskOptions, task_options

if TYPE_CHECKING:
    from actorflow._actor import ActorClass
    from actorflow._core.worker.object_ref import ObjectRef
    from actorflow._core.worker.streams import Stream

P = ParamSpec("P")
C = TypeVar("C")
X = TypeVar("X")
T = TypeVar("T")
Co: TypeAlias = Coroutine[Any, Any, T]


class Submit(Generic[P, X]):
    """What can be started now and awaited later: remote functions and the methods of handles.

    A reference may stand wherever a value is expected. Type checkers see that in the first two places;
    `af.deref(ref)` tells them anywhere.
    """

    __slots__ = ()

    @overload
    def remote(self, a: ObjectRef[Any], /, *args: Any, **kwargs: Any) -> X: ...
    @overload
    def remote(self, a: Any, b: ObjectRef[Any], /, *args: Any, **kwargs: Any) -> X: ...
    @overload
    def remote(self, *args: P.args, **kwargs: P.kwargs) -> X: ...
    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Start the call now and return an ObjectRef, or a Stream for a generator.

        Dropping the reference does not cancel the call. Raises TypeError for wrong arguments,
        SerializationError for what cannot be sent, and PendingCallsLimitExceeded instead of waiting.
        """
        raise NotImplementedError

    @overload
    def submit(self, a: ObjectRef[Any], /, *args: Any, **kwargs: Any) -> Co[X]: ...
    @overload
    def submit(self, a: Any, b: ObjectRef[Any], /, *args: Any, **kwargs: Any) -> Co[X]: ...
    @overload
    def submit(self, *args: P.args, **kwargs: P.kwargs) -> Co[X]: ...
    def submit(self, *args: Any, **kwargs: Any) -> Any:
        """As `remote`, but awaited: waits for room where `remote` would raise PendingCallsLimitExceeded."""
        raise NotImplementedError


class RemoteFunction(Submit[P, X], Generic[P, C, X]):
    """A function that runs in a worker process. Made by `@af.remote`.

    `await f(x)` calls and waits, and cancelling it cancels the call; `f.remote(x)` starts the call and gives
    a reference; `await f.submit(x)` does so when there is room. The function itself is `f.__wrapped__`.
    """

    __wrapped__: Callable[P, Any]

    def __init__(self, fn: Callable[P, Any], options: TaskOptions) -> None:
        functools.update_wrapper(self, fn)
        self._target = FunctionTarget(fn, name_of(fn), kind_of(fn))
        self._options = options
        self._origin: RemoteFunction[P, C, X] | None = None
        """The function whose `.options()` this is; it travels in its stead."""
        self._defined = defined_at(fn)
        self._check = checker(self._target.name, parameters_of(fn))

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> C:
        try:
            self._check(*args, **kwargs)
        except TypeError as error:
            raise wrong_call(error, self._defined) from None
        if self._options.lifetime is not None:
            return _await_detached(self, args, kwargs)  # type: ignore[return-value]
        return current().call(self._target, args, kwargs, self._options)  # type: ignore[return-value]

    if not TYPE_CHECKING:  # checkers take the overloads of Submit

        def remote(self, /, *args, **kwargs):
            try:
                self._check(*args, **kwargs)
            except TypeError as error:
                raise wrong_call(error, self._defined) from None
            if self._options.lifetime is not None:
                raise OptionError.explain(
                    which=f'{self._target.name}.remote() with lifetime="detached"',
                    what="cannot say when the cluster has taken the call over",
                    next_step=f"write `ref = await {self._target.name}.submit(...)`, which returns then",
                    option="lifetime",
                )
            return current().submit(self._target, args, kwargs, self._options)

        def submit(self, /, *args, **kwargs):
            try:
                self._check(*args, **kwargs)
            except TypeError as error:
                raise wrong_call(error, self._defined) from None
            if self._options.lifetime is not None:
                return _submit_detached(self, args, kwargs)
            return self._submit_when_room(args, kwargs)

    async def _submit_when_room(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        runtime = current()
        while True:
            try:
                return runtime.submit(self._target, args, kwargs, self._options)
            except PendingCallsLimitExceeded:
                await runtime.wait_room(None, self._options)

    def options(self, **given: Unpack[TaskKeywords]) -> Self:
        """The same function with other options: `await f.options(num_cpus=2)(x)`. Raises OptionError."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._options = check_task_options(
            self._options, f"{self._target.name}.options()", given, self._target
        )
        other._origin = self._origin or self
        return other

    def __repr__(self) -> str:
        return f"<remote function {self._target.name}>"

    # A remote function travels by its name where the receiver can import it, else with its code. The state is
    # set after the object exists, as a function that calls itself contains itself.

    def __reduce__(self) -> str | tuple[Any, ...]:
        if self._origin is not None:
            return _with_options, (self._origin, self._options)
        if importable(self):
            name: str = self.__qualname__  # type: ignore[attr-defined]  # set by update_wrapper
            return name
        return _empty, (type(self),), (self.__wrapped__, self._options)

    def __setstate__(self, state: tuple[Callable[P, Any], TaskOptions]) -> None:
        RemoteFunction.__init__(self, *state)


async def _submit_detached(function: RemoteFunction[..., Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> ObjectRef[Any]:
    from actorflow._detached import submit

    return await submit(function, args, kwargs)


async def _await_detached(function: RemoteFunction[..., Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    from actorflow._detached import run

    return await run(function, args, kwargs)


def _empty(cls: type[RemoteFunction[..., Any, Any]]) -> RemoteFunction[..., Any, Any]:
    return object.__new__(cls)


def _with_options(fn: RemoteFunction[..., Any, Any], options: TaskOptions) -> RemoteFunction[..., Any, Any]:
    other = fn.options()
    other._options = options
    return other


def importable(wrapper: Any) -> bool:
    """True when `wrapper` is a global of a module that other processes can import: its name stands for it.

    Not so for `__main__`, for what is made inside a function, and for modules that the user wants pickled by
    value (`cloudpickle.register_pickle_by_value`).
    """
    module = sys.modules.get(wrapper.__module__)
    if module is None or wrapper.__module__ == "__main__":
        return False
    found: Any = module
    for part in wrapper.__qualname__.split("."):
        found = getattr(found, part, None)
    if found is not wrapper:
        return False
    cloudpickle = sys.modules.get("cloudpickle.cloudpickle")
    by_value: set[str] = cloudpickle.list_registry_pickle_by_value() if cloudpickle is not None else set()
    parts = wrapper.__module__.split(".")
    return by_value.isdisjoint(".".join(parts[:end]) for end in range(1, len(parts) + 1))


def check_task_options(
    base: TaskOptions | None, where: str, given: Any, target: FunctionTarget | None = None
) -> TaskOptions:
    """Check options against each other and against the kind of function. Raises OptionError."""
    options = task_options(base, where, given)
    if target is not None and options.lifetime is not None and streams(target.kind):
        raise OptionError.explain(
            which=f'{where}: lifetime="detached"',
            what="is not for a generator: nobody may be there to take what it yields",
            next_step="return a list, or write to a detached actor",
            option="lifetime",
        )
    if target is not None and options.num_returns != 1 and streams(target.kind):
        raise OptionError.explain(
            which=f"{where}: num_returns={options.num_returns}",
            what="is not for a generator, which gives one stream",
            next_step="leave num_returns out; `stream.refs()` has a reference for each value",
            option="num_returns",
        )
    return options


# The decorator ----------------------------------------------------------------------------------------------


class ClassDecorator:
    """`@af.remote(...)` with options that only actors have: for a plain class."""

    __slots__ = ("_given",)

    def __init__(self, given: dict[str, Any]) -> None:
        self._given = given

    def __call__(self, cls: type[Any], /) -> ActorClass[..., Any]:
        return _remote_class(cls, self._given)


class RemoteDecorator:
    """`af.remote`: makes a function or a plain class remote; with options as `@af.remote(num_cpus=2)`.

    A function may be `def`, `async def`, a generator or an async generator. A class becomes an actor class of
    the untyped form; `class Counter(af.Actor)` is the typed one. Raises OptionError, or TypeError for what is
    neither function nor class.
    """

    __slots__ = ("_given",)

    def __init__(self, given: dict[str, Any] | None = None) -> None:
        self._given = given or {}

    @overload
    def __call__(self, cls: type[Any], /) -> ActorClass[..., Any]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(  # type: ignore[overload-overlap]  # what returns Any
        self, fn: Callable[P, Never], /
    ) -> RemoteFunction[P, Co[Any], ObjectRef[Any]]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, fn: Callable[P, AsyncIterator[T]], /
    ) -> RemoteFunction[P, Stream[T], Stream[T]]: ...
    @overload
    def __call__(self, fn: Callable[P, Co[T]], /) -> RemoteFunction[P, Co[T], ObjectRef[T]]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, fn: Callable[P, Iterator[T]], /
    ) -> RemoteFunction[P, Stream[T], Stream[T]]: ...
    @overload
    def __call__(self, fn: Callable[P, T], /) -> RemoteFunction[P, Co[T], ObjectRef[T]]: ...
    @overload
    def __call__(self, **options: Unpack[TaskKeywords]) -> Self: ...
    @overload
    def __call__(self, **options: Unpack[ActorKeywords]) -> ClassDecorator: ...
    def __call__(self, *targets: Any, **given: Any) -> Any:
        if not targets:
            return RemoteDecorator({**self._given, **given})
        if len(targets) > 1 or given:
            raise TypeError(
                "@af.remote takes a function or a class alone; options go first: @af.remote(num_cpus=2)"
            )
        target = targets[0]
        if isinstance(target, type):
            return _remote_class(target, self._given)
        _check_function(target)
        found = FunctionTarget(target, name_of(target), kind_of(target))
        options = check_task_options(None, f"@af.remote on {found.name}", self._given, found)
        return RemoteFunction(target, options)


def _remote_class(cls: type[Any], given: dict[str, Any]) -> ActorClass[..., Any]:
    from actorflow._actor import decorate_class

    return decorate_class(cls, given)


def _check_function(target: Any) -> None:
    """Raise TypeError with the way out for everything that is not a function to be made remote."""
    name = getattr(target, "__qualname__", None) or repr(target)
    if isinstance(target, Submit) or hasattr(type(target), "__mro_entries__"):
        raise TypeError(
            f"{name} is remote already: @af.remote once is enough, and .options(...) changes options"
        )
    if isinstance(target, staticmethod | classmethod):
        raise TypeError(f"@af.remote is for functions and classes, not for methods: take it off {name}")
    if not callable(target):
        what = (
            "a call of it" if hasattr(target, "__await__") or hasattr(target, "__next__") else "this object"
        )
        raise TypeError(
            f"@af.remote is for a function or a class, and {name} is {what}. Write af.remote(f) with the "
            "function itself; options have names: @af.remote(num_cpus=2)"
        )
    parent = name.rpartition(".")[0]
    if parent and not parent.endswith("<locals>") and not hasattr(target, "__self__"):
        first = parameters_of(target)[:1]
        if first and first[0][0] == "self":
            raise TypeError(
                f"@af.remote on the method {name}: methods of an actor need none. Make the class an actor "
                f"(class {parent.rpartition('.')[2]}(af.Actor)), and use @af.method for a method's options"
            )


remote = RemoteDecorator()
