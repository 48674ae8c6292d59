"""Actor classes: `class Counter(af.Actor)`, `@af.remote` on a plain class, and `@af.method`.

The user's class stays what it is: in the worker, and in a test without a cluster, `Counter()` makes an
ordinary object whose methods are ordinary methods. What a program calls is a handle (`actorflow._handle`),
made by `Counter.remote()` from what is found out here about the class: its options, methods and their kinds.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Concatenate,
    Generic,
    Never,
    ParamSpec,
    Self,
    TypeAlias,
    TypeVar,
    Unpack,
    cast,
    overload,
)

from actorflow._core.base.errors import OptionError
from actorflow._core.base.targets import METHOD_OPTIONS, ActorTarget, CallKind, MethodTarget
from actorflow._handle import (
    ActorHandle,
    BoundMethod,
    Interface,
    check_method_options,
    handle_of,
    make_interface,
    new_handle,
    state_of,
)
from actorflow._remote_function import RemoteFunction, importable
from actorflow._runtime import current
from actorflow._signature import checker, defined_at, kind_of, name_of, parameters_of, wrong_call
from actorflow.options import (
    DEFAULT_METHOD,
    ActorKeywords,
    ActorOptions,
    MethodKeywords,
    MethodOptions,
    actor_options,
)

if TYPE_CHECKING:
    from actorflow._core.worker.object_ref import ObjectRef
    from actorflow._core.worker.streams import Stream

__all__ = [
    "Actor",
    "ActorClass",
    "ActorHandle",
    "BoundMethod",
    "Handle",
    "Method",
    "MethodDecorator",
    "decorate_class",
    "handle_of",
    "method",
    "state_of",
]

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
T = TypeVar("T")
X = TypeVar("X")
A = TypeVar("A", bound="Actor")
Co: TypeAlias = Coroutine[Any, Any, T]

Handle: TypeAlias = Annotated[A, "a handle"]
"""`af.Handle[Counter]` says in a signature that a handle is meant; to type checkers it is `Counter`."""

CLASS_OPTIONS = "__actorflow_options__"
CLASS_PLAN = "__actorflow_plan__"


# Methods ----------------------------------------------------------------------------------------------------


class Method(Generic[S, P, R, X]):
    """What type checkers see in a method with `@af.method`: `.remote`, `.submit` and `.options` on a handle.

    R is what a direct call gives in the class itself, X what `.remote()` gives. At run time the method is the
    user's own function, with its options beside it.
    """

    @overload
    def __get__(self, instance: None, owner: type[Any]) -> Self: ...
    @overload
    def __get__(self, instance: S, owner: type[Any]) -> BoundMethod[P, R, X]: ...
    def __get__(self, instance: Any, owner: Any) -> Any:
        raise NotImplementedError


class MethodDecorator:
    """`af.method`: options for a method of an actor, and full static types for its handle.

    `@af.method` or `@af.method(timeout=3, concurrency_group="io")`. Methods without it can be called all the
    same. Raises OptionError, or TypeError for what is not a method.
    """

    __slots__ = ("_given",)

    def __init__(self, given: dict[str, Any] | None = None) -> None:
        self._given = given or {}

    @overload
    def __call__(  # type: ignore[overload-overlap]  # a body of type Any
        self, fn: Callable[Concatenate[S, P], Never], /
    ) -> Method[S, P, Any, ObjectRef[Any]]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, fn: Callable[Concatenate[S, P], AsyncIterator[T]], /
    ) -> Method[S, P, AsyncIterator[T], Stream[T]]: ...
    @overload
    def __call__(self, fn: Callable[Concatenate[S, P], Co[T]], /) -> Method[S, P, Co[T], ObjectRef[T]]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, fn: Callable[Concatenate[S, P], Iterator[T]], /
    ) -> Method[S, P, Iterator[T], Stream[T]]: ...
    @overload
    def __call__(self, fn: Callable[Concatenate[S, P], T], /) -> Method[S, P, T, ObjectRef[T]]: ...
    @overload
    def __call__(self, **options: Unpack[MethodKeywords]) -> Self: ...
    def __call__(self, *targets: Any, **given: Any) -> Any:
        if not targets:
            return MethodDecorator({**self._given, **given})
        if len(targets) > 1 or given:
            raise TypeError("@af.method takes a method alone; options go first: @af.method(timeout=3)")
        function = targets[0]
        if isinstance(function, type) or not _is_method(function):
            what = "a class" if isinstance(function, type) else f"{function!r}, which is not a method"
            raise TypeError(
                f"@af.method is for methods of an actor class, not for {what}. Options have names"
            )
        where = f"@af.method on {name_of(function)}"
        options = check_method_options(None, where, self._given, kind_of(function), None)
        setattr(function, METHOD_OPTIONS, options)
        return function


method = MethodDecorator()


def _is_method(value: Any) -> bool:
    """True for what Python binds to an instance and can be called then."""
    if isinstance(value, staticmethod | classmethod | functools.partialmethod):
        return True
    return callable(value) and hasattr(type(value), "__get__") and not isinstance(value, type)


# Classes ----------------------------------------------------------------------------------------------------


class ClassPlan:
    """What callers must know of one actor class, found out once.

    It stays in its process: a pickled class makes its own again.
    """

    __slots__ = ("_targets", "check", "cls", "constructor", "defined", "kinds", "methods", "name", "options")

    def __init__(self, cls: type, options: ActorOptions) -> None:
        self.cls = cls
        self.options = options
        self.name = name_of(cls)
        if inspect.iscoroutinefunction(inspect.getattr_static(cls, "__init__")):
            raise TypeError(
                f"{self.name}.__init__ is `async def`, and Python awaits no constructor: make it a plain `def`, and do what "
                "must be awaited in `async def __aenter__(self)`, which runs before the first call"
            )
        self.kinds = method_kinds(cls)
        self.constructor = parameters_of(cls)
        self.check = checker(f"{self.name}.__init__", self.constructor)
        self.defined = defined_at(inspect.getattr_static(cls, "__init__"))
        self.methods = {name: _method_target(cls, name, kind) for name, kind in self.kinds.items()}
        self._targets: dict[tuple[int, int], tuple[ActorTarget, Interface]] = {}

    def target(self, options: ActorOptions) -> tuple[ActorTarget, Interface]:
        """The class for the runtime, and its interface; made anew only for options that callers must know."""
        key = (options.max_pending_calls, options.max_task_retries)
        found = self._targets.get(key)
        if found is None:
            found = self._targets[key] = self._make_target(options)
        return found

    def _make_target(self, options: ActorOptions) -> tuple[ActorTarget, Interface]:
        if abstract := getattr(self.cls, "__abstractmethods__", None):
            raise TypeError(f"{self.name} is abstract: it does not implement {', '.join(sorted(abstract))}")
        groups = dict(options.concurrency_groups)
        interface = make_interface(
            self.name,
            self.methods,
            tuple(groups),
            max_pending_calls=options.max_pending_calls,
            max_task_retries=options.max_task_retries,
        )
        target = ActorTarget(self.cls, self.name, dict(interface.methods), is_async_class(self.kinds))
        target.constructor = self.constructor
        target.groups = groups
        target.interface = interface.blob
        for known, _ in self._targets.values():
            # The same class: it need not be pickled once more.
            target.class_id, target.pickle = known.class_id, known.pickle
        return target, interface

    def create(self, options: ActorOptions, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ActorHandle:
        """Make an actor. Raises TypeError for wrong arguments of the constructor, before anything is sent."""
        target, interface = self.target(options)
        try:
            self.check(*args, **kwargs)
        except TypeError as error:
            raise wrong_call(error, self.defined) from None
        runtime = current()
        return new_handle(runtime, runtime.create_actor(target, args, kwargs, options), interface)

    def changed(self, options: ActorOptions, given: Any) -> ActorOptions:
        """`Cls.options(...)`: checked like those of the class itself."""
        where = f"{self.name}.options()"
        if "concurrency_groups" in given:
            raise OptionError.explain(
                which=f"{where}: concurrency_groups",
                what="belong to the class, as its methods name them",
                next_step=f"write them at the class: class {self.name}(af.Actor, concurrency_groups=...)",
                option="concurrency_groups",
            )
        changed = actor_options(options, where, given)
        check_class(self.cls, changed, where, self.kinds)
        return changed

    def __reduce__(self) -> tuple[Any, ...]:
        return _no_plan, ()


def _no_plan() -> None:
    return None


def _method_target(cls: type, name: str, kind: CallKind) -> MethodTarget:
    attribute = inspect.getattr_static(cls, name)
    bound = isinstance(attribute, staticmethod | classmethod)
    parameters = parameters_of(getattr(cls, name), skip_first=not bound)
    options = _decorated_options(attribute) or DEFAULT_METHOD
    return MethodTarget(name, kind, options, parameters, defined_at(attribute))


def _decorated_options(attribute: Any) -> MethodOptions | None:
    """What `@af.method` left, above or below a @staticmethod or @classmethod."""
    options: MethodOptions | None = getattr(attribute, METHOD_OPTIONS, None)
    return options or getattr(getattr(attribute, "__func__", None), METHOD_OPTIONS, None)


def method_kinds(cls: type) -> dict[str, CallKind]:
    """The public methods of a class, those of its parents first, and what a call of each gives."""
    kinds: dict[str, CallKind] = {}
    for parent in reversed(cls.__mro__):
        if parent in (object, Actor, Generic):
            continue
        for name, value in vars(parent).items():
            if name.startswith("_"):
                continue
            if _is_method(value):
                kinds[name] = kind_of(value)
            else:
                kinds.pop(name, None)
    return kinds


def is_async_class(kinds: dict[str, CallKind]) -> bool:
    """SEMANTICS 19: one public `async def` method makes an actor async; hooks do not count."""
    return any(kind in ("async", "async_generator") for kind in kinds.values())


def check_class(cls: type, options: ActorOptions, where: str, kinds: dict[str, CallKind]) -> None:
    """Check a class's options against its methods. Raises OptionError."""
    groups = tuple(options.concurrency_groups)
    for name, kind in kinds.items():
        given = _decorated_options(inspect.getattr_static(cls, name))
        if given is not None:
            check_method_options(given, f"@af.method on {name_of(cls)}.{name}", {}, kind, groups)
    if options.process == "shared" and (blocking := [n for n, kind in kinds.items() if not _on_loop(kind)]):
        # SEMANTICS 22.
        listed = ", ".join(f"{name}()" for name in sorted(blocking))
        raise OptionError.explain(
            which=f'{where}: process="shared"',
            what=f"does not go with `def` methods: {listed}",
            why="many shared actors run on one loop, where a method that blocks stops them all",
            next_step='make them `async def`, or take process="dedicated"',
            option="process",
        )
    _check_hook(cls, where, "__checkpoint__", "(self)")
    _check_hook(cls, where, "__restore__", "(self, state)")
    if options.checkpoint_every is not None and not hasattr(cls, "__checkpoint__"):
        raise OptionError.explain(
            which=f"{where}: checkpoint_every={options.checkpoint_every!r}",
            what="needs a method that gives the state to keep",
            next_step="define __checkpoint__(self), and __restore__(self, state) to take it back",
            option="checkpoint_every",
        )
    if options.checkpoint_every is not None and not hasattr(cls, "__restore__"):
        raise OptionError.explain(
            which=f"{where}: checkpoint_every={options.checkpoint_every!r}",
            what="keeps a state that nothing takes back",
            why="__checkpoint__ is there and __restore__ is not, so the next life of the actor would start afresh",
            next_step="define __restore__(self, state)",
            option="checkpoint_every",
        )


def _check_hook(cls: type, where: str, name: str, like: str) -> None:
    """Else it would fail when the actor is made anew, and nobody is there to mend it. Raises OptionError."""
    attribute = inspect.getattr_static(cls, name, None)
    if attribute is None:
        return
    parameters = parameters_of(getattr(cls, name), skip_first=not isinstance(attribute, staticmethod | classmethod))
    try:
        checker(name, parameters)(*[None] * like.count(","))
    except TypeError as error:
        raise OptionError.explain(
            which=f"{where}: {name}",
            what=f"cannot be called as {name}{like}",
            why=str(error),
            next_step=f"define it as `def {name}{like}`, or with `async def`",
        ) from None


def _on_loop(kind: CallKind) -> bool:
    return kind in ("async", "async_generator")


class ActorClass(Generic[P, R]):
    """An actor class with its options: what `Counter.options(...)` gives, and `@af.remote` on a plain class.

    R is what `.remote()` gives: for type checkers an instance of the class.
    """

    __wrapped__: type

    def __init__(
        self, plan: ClassPlan, options: ActorOptions, origin: ActorClass[P, R] | None = None
    ) -> None:
        functools.update_wrapper(self, plan.cls, updated=())
        self._plan = plan
        self._options = options
        self._origin = origin
        """The decorated class whose `.options()` this is; it travels in its stead."""

    def remote(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Make an actor and return its handle at once; `await` the handle to know that it is alive.

        Raises TypeError for wrong arguments of the constructor.
        """
        return cast(R, self._plan.create(self._options, args, kwargs))

    def options(self, **given: Unpack[ActorKeywords]) -> ActorClass[P, R]:
        """The same class with other options. Raises OptionError."""
        return ActorClass(self._plan, self._plan.changed(self._options, given), self._origin or self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        name = self._plan.name
        raise TypeError(
            f"{name} is an actor class: {name}.remote(...) makes an actor. An ordinary object, for a test "
            f"without a cluster, is made by {name}.__wrapped__(...)"
        )

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        # `class Child(Decorated)`: inherit from the plain class behind it.
        return (self.__wrapped__,)

    def __repr__(self) -> str:
        return f"<actor class {self._plan.name}>"

    def __reduce__(self) -> str | tuple[Any, ...]:
        if self._origin is not None:
            return _class_with_options, (self._origin, self._options)
        if importable(self):
            name: str = self.__qualname__  # type: ignore[attr-defined]  # set by update_wrapper
            return name
        return _empty_class, (), (self._plan.cls, self._options)

    def __setstate__(self, state: tuple[type, ActorOptions]) -> None:
        cls, options = state
        ActorClass.__init__(self, plan_of(cls), options)


def _empty_class() -> ActorClass[..., Any]:
    return object.__new__(ActorClass)


def _class_with_options(origin: ActorClass[..., Any], options: ActorOptions) -> ActorClass[..., Any]:
    return ActorClass(origin._plan, options, origin)


def decorate_class(cls: type, given: dict[str, Any]) -> ActorClass[..., Any]:
    """`@af.remote(...)` on a plain class. Raises OptionError, or TypeError for an af.Actor."""
    name = name_of(cls)
    if issubclass(cls, Actor):
        raise TypeError(
            f"{name} is an af.Actor already and needs no @af.remote; its options are keywords of the class: "
            f"class {name}(af.Actor, max_restarts=3)"
        )
    where = f"@af.remote on {name}"
    options = actor_options(None, where, given)
    _check_attributes(cls)
    check_class(cls, options, where, method_kinds(cls))
    return ActorClass(ClassPlan(cls, options), options)


def plan_of(cls: type) -> ClassPlan:
    """The plan of a class, made at its first use."""
    plan: ClassPlan | None = vars(cls).get(CLASS_PLAN)
    if plan is None:
        plan = ClassPlan(cls, getattr(cls, CLASS_OPTIONS, None) or actor_options(None, name_of(cls), {}))
        setattr(cls, CLASS_PLAN, plan)
    return plan


def _check_attributes(cls: type) -> None:
    for name, value in vars(cls).items():
        if isinstance(value, RemoteFunction):
            raise TypeError(
                f"{name_of(cls)}.{name} has @af.remote, which is for functions: methods of an actor need no "
                "decorator, and @af.method gives them options"
            )


class Actor:
    """The base of actor classes: `class Counter(af.Actor, max_restarts=3): ...`.

    `Counter.remote(...)` makes an actor in a worker process and gives a handle to it, which type checkers
    take for a `Counter`. The public methods can be called through it: `def`, `async def` and generators of
    both kinds. One public `async def` method makes the actor async: many calls run at once on its loop. The
    options of a class are its keywords (`actorflow.options.ActorOptions`), and its children inherit them.

    Hooks, all optional: `__checkpoint__` and `__restore__`; `__aenter__`/`__aexit__` or
    `__enter__`/`__exit__` around the actor's life.
    """

    def __init_subclass__(cls, **given: Unpack[ActorKeywords]) -> None:
        super().__init_subclass__()
        name = name_of(cls)
        where = f"class {name}(af.Actor)"
        for taken in ("remote", "options"):
            if taken in vars(cls):
                raise TypeError(
                    f"{name}.{taken}: an af.Actor cannot have a method of this name, as af.Actor has it"
                )
        _check_attributes(cls)
        # A copy of the class (a slotted dataclass, an unpickled class) brings its options along.
        base = vars(cls).get(CLASS_OPTIONS) or _inherited(cls)
        options = actor_options(base, where, given)
        check_class(cls, options, where, method_kinds(cls))
        setattr(cls, CLASS_OPTIONS, options)
        setattr(cls, CLASS_PLAN, None)

    @classmethod  # pyright: ignore[reportArgumentType]
    def remote(cls: Callable[P, A], *args: P.args, **kwargs: P.kwargs) -> A:
        """Make an actor and return its handle at once; `await` the handle to know that it is alive.

        Raises TypeError for wrong arguments of the constructor, before anything is sent.
        """
        plan = plan_of(cast(type, cls))
        return cast(A, plan.create(plan.options, args, kwargs))

    @classmethod  # pyright: ignore[reportArgumentType]
    def options(cls: Callable[P, A], **given: Unpack[ActorKeywords]) -> ActorClass[P, A]:
        """The class with other options: `Counter.options(name="c").remote()`. Raises OptionError."""
        plan = plan_of(cast(type, cls))
        return ActorClass(plan, plan.changed(plan.options, given))

    def __await__(self) -> Generator[Any, None, Self]:
        # Here for type checkers, which take a handle for an instance. Handles have their own.
        raise TypeError(
            f"{type(self).__name__}() is an ordinary object, not a handle: {type(self).__name__}.remote() "
            "makes an actor that can be awaited"
        )


def _inherited(cls: type) -> ActorOptions | None:
    """The options of the parents: of the first that has some. A name is not inherited: it is one actor's."""
    options: ActorOptions | None = getattr(cls, CLASS_OPTIONS, None)
    if options is None or options.name is None:
        return options
    return actor_options(options, name_of(cls), {"name": None, "get_if_exists": False})
