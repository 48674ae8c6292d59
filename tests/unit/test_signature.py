"""A call is checked before anything is sent, and Python itself says what is wrong with it."""

import functools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorflow._signature import (
    ANYTHING,
    check_arguments,
    checker,
    defined_at,
    kind_of,
    name_of,
    parameters_of,
)


def plain(x: int, y: int = 2) -> None: ...
def keywords(x: int, *, scale: int = 1, unit: str) -> None: ...
def positional(a: int, b: int = 1, /, c: int = 2) -> None: ...
def everything(a: int, /, b: int, *rest: int, c: int, d: int = 1, **more: int) -> None: ...
def nothing() -> None: ...
def three(x: int, y: int, z: int) -> None: ...


FUNCTIONS: list[Callable[..., Any]] = [plain, keywords, positional, everything, nothing, three]
NAMES = ["x", "y", "z", "a", "b", "c", "d", "scale", "unit", "self", "rest", "more"]


def words_of(act: Callable[[], Any]) -> str:
    """The words of the TypeError, if there is one."""
    try:
        act()
    except TypeError as error:
        return str(error)
    return ""


@given(
    fn=st.sampled_from(FUNCTIONS),
    args=st.lists(st.integers(), max_size=5).map(tuple),
    kwargs=st.dictionaries(st.sampled_from(NAMES), st.integers(), max_size=4),
)
def test_the_check_says_what_python_says(
    fn: Callable[..., Any], args: tuple[int, ...], kwargs: dict[str, int]
) -> None:
    def check() -> None:
        check_arguments(fn.__qualname__, parameters_of(fn), args, kwargs)

    assert words_of(check) == words_of(lambda: fn(*args, **kwargs))


def test_the_error_tells_where_the_function_is() -> None:
    with pytest.raises(TypeError) as caught:
        check_arguments("plain", parameters_of(plain), (), {}, defined_at(plain))
    words = "plain() missing 1 required positional argument: 'x'"
    assert str(caught.value) == f"{words} (defined at {__file__}:{plain.__code__.co_firstlineno})"
    assert caught.value.__suppress_context__


def test_parameters_are_plain_data() -> None:
    assert parameters_of(everything) == (
        ("a", "positional_only", False),
        ("b", "positional_or_keyword", False),
        ("rest", "var_positional", False),
        ("c", "keyword_only", False),
        ("d", "keyword_only", True),
        ("more", "var_keyword", False),
    )


class Counter:
    def __init__(self, start: int = 0) -> None: ...
    def add(self, by: int = 1) -> None: ...
    def variadic(*args: int) -> None: ...  # the act under test: no `self` to skip

    async def __call__(self) -> None: ...


def test_the_parameters_of_a_method_are_those_after_self() -> None:
    assert parameters_of(Counter.add, skip_first=True) == (("by", "positional_or_keyword", True),)
    assert parameters_of(Counter.variadic, skip_first=True) == (("args", "var_positional", False),)
    assert parameters_of(Counter) == (("start", "positional_or_keyword", True),)


def test_what_does_not_tell_takes_anything() -> None:
    assert parameters_of(int) == ANYTHING
    assert parameters_of(max) == ANYTHING
    check_arguments("max", ANYTHING, (1, 2), {"key": 3})


def test_checkers_are_made_once() -> None:
    assert checker("plain", parameters_of(plain)) is checker("plain", parameters_of(plain))


def test_a_name_that_is_no_name_is_not_compiled() -> None:
    odd = (("x): print('run'", "positional_or_keyword", False),)
    check_arguments("odd", odd, (1, 2), {"more": 3})
    check_arguments("odd", (("class", "positional_or_keyword", False),), (1, 2), {})


# Kinds ------------------------------------------------------------------------------------------------------


async def coroutine() -> int:
    return 1


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


def passing_on(fn: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(fn)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    return wrapper


def in_a_coroutine(fn: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(fn)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    return wrapper


@pytest.mark.parametrize(
    ("fn", "kind"),
    [
        (plain, "sync"),
        (coroutine, "async"),
        (generator, "generator"),
        (async_generator, "async_generator"),
        (len, "sync"),
        (lambda: 1, "sync"),
        (functools.partial(coroutine), "async"),
        (functools.partial(functools.partial(generator)), "generator"),
        (passing_on(coroutine), "async"),
        (passing_on(passing_on(async_generator)), "async_generator"),
        (in_a_coroutine(plain), "async"),
        (in_a_coroutine(generator), "async"),
        (Counter(), "async"),
        (functools.lru_cache(plain), "sync"),
    ],
)
def test_kinds(fn: Any, kind: str) -> None:
    assert kind_of(fn) == kind


def test_names_and_places() -> None:
    def inner() -> None: ...

    assert name_of(inner) == "inner"
    assert name_of(Counter.add) == "Counter.add"
    assert name_of(functools.partial(plain, 1)) == "plain"
    assert name_of(Counter()) == "Counter"
    line = inner.__code__.co_firstlineno
    assert defined_at(functools.partial(passing_on(inner))) == f"{__file__}:{line}"
    assert defined_at(len) == ""
