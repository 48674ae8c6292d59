"""What a call may look like, checked before anything is sent: parameters as tuples, Python as the judge.

The parameters of a function are kept as `(name, kind, has a default)`, small enough to travel with a handle.
To check a call, an empty function with the same parameters is called with the same arguments: what there is
to say about a wrong call Python says itself, and a right one costs about 0.05 microseconds.
"""

from __future__ import annotations

import functools
import inspect
import keyword
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

from actorflow._core.base.targets import CallKind
from actorflow._core.base.texts import made_fit

Parameter: TypeAlias = "tuple[str, str, bool]"
"""(name, kind, has a default); the kinds are the names of `inspect.Parameter`'s, in lower case."""
Parameters: TypeAlias = "tuple[Parameter, ...]"

ANYTHING: Parameters = (("args", "var_positional", False), ("kwargs", "var_keyword", False))
"""The parameters of what does not tell: some builtins, and callables written in C."""


def parameters_of(fn: Callable[..., Any], *, skip_first: bool = False) -> Parameters:
    """The parameters of a function or class; `skip_first`: without `self`. ANYTHING when it does not tell."""
    try:
        found = list(inspect.signature(fn).parameters.values())
    except (ValueError, TypeError):
        return ANYTHING
    if skip_first and found and found[0].kind is not inspect.Parameter.VAR_POSITIONAL:
        del found[0]
    return tuple([(p.name, p.kind.name.lower(), p.default is not inspect.Parameter.empty) for p in found])


@functools.lru_cache(maxsize=2048)
def checker(name: str, parameters: Parameters) -> Callable[..., None]:
    """A function that takes exactly the arguments these parameters take, and does nothing.

    Any other call raises TypeError in Python's own words, in which the function is called `name`.
    """
    if not all(part.isidentifier() and not keyword.iskeyword(part) for part, _, _ in parameters):
        parameters = ANYTHING
    namespace: dict[str, Any] = {}
    exec(f"def stand_in({_source(parameters)}): pass", namespace)
    stand_in: Callable[..., None] = namespace["stand_in"]
    stand_in.__name__ = stand_in.__qualname__ = name
    return stand_in


_PREFIX: Mapping[str, str] = {"var_positional": "*", "var_keyword": "**"}


def _source(parameters: Sequence[Parameter]) -> str:
    """The parameters as they stand in a `def`: `x, /, y=None, *, z`."""
    parts: list[str] = []
    before = ""
    for name, kind, has_default in parameters:
        if before == "positional_only" and kind != "positional_only":
            parts.append("/")
        if kind == "keyword_only" and before not in ("keyword_only", "var_positional"):
            parts.append("*")
        parts.append(f"{_PREFIX.get(kind, '')}{name}{'=None' if has_default else ''}")
        before = kind
    if before == "positional_only":
        parts.append("/")
    return ", ".join(parts)


def check_arguments(
    name: str, parameters: Parameters, args: tuple[Any, ...], kwargs: Mapping[str, Any], defined: str = ""
) -> None:
    """Raise TypeError when a function with these parameters cannot be called so.

    The message is Python's own, then where the function is defined, if that is known.
    """
    try:
        checker(name, parameters)(*args, **kwargs)
    except TypeError as error:
        raise wrong_call(error, defined) from None


def wrong_call(error: TypeError, defined: str) -> TypeError:
    """The error for the caller: what the checker said, and where the function is defined."""
    return TypeError(f"{error} (defined at {defined})" if defined else str(error))


# What a callable is -----------------------------------------------------------------------------------------


def defined_at(fn: Any) -> str:
    """`file.py:12`, or an empty string for what is not written in Python."""
    code = getattr(innermost(fn), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else ""


def innermost(fn: Any) -> Any:
    """The function inside partials and behind decorators that use functools.wraps."""
    while (inner := _inside(fn)) is not None:
        fn = inner
    return getattr(fn, "__func__", fn)


def _inside(fn: Any) -> Any:
    """One layer less; None when there is no other."""
    if isinstance(fn, functools.partial | functools.partialmethod):
        return fn.func
    if isinstance(fn, staticmethod | classmethod):
        return fn.__func__
    if hasattr(fn, "__wrapped__"):
        return fn.__wrapped__
    if not hasattr(fn, "__code__") and hasattr(type(fn).__call__, "__code__"):
        return type(fn).__call__
    return None


def kind_of(fn: Any) -> CallKind:
    """What a call of `fn` gives: a value ("sync"), an awaitable, or values one after another.

    A `def` that wraps an `async def` or a generator function (functools.wraps) is taken for what it wraps, as
    it most often returns what that returned.
    """
    layer = fn
    while layer is not None:
        if inspect.isasyncgenfunction(layer):
            return "async_generator"
        if inspect.iscoroutinefunction(layer):
            return "async"
        if inspect.isgeneratorfunction(layer):
            return "generator"
        layer = _inside(layer)
    return "sync"


def name_of(fn: Any) -> str:
    """What people call it: `square`, `Counter.add`, without the functions it is nested in."""
    function = fn
    while isinstance(function, functools.partial | functools.partialmethod):
        function = function.func
    name: str = getattr(function, "__qualname__", "") or getattr(type(function), "__qualname__", "function")
    return made_fit(name.rpartition("<locals>.")[2])


def streams(kind: CallKind) -> bool:
    """True when a call gives a Stream."""
    return kind in GENERATORS


GENERATORS: frozenset[Literal["generator", "async_generator"]] = frozenset({"generator", "async_generator"})
