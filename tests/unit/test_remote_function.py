"""`@af.remote` on functions: both forms of a call, options, errors before anything is sent, travelling."""

import functools
import inspect
import pickle
import sys
import types
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import cloudpickle
import pytest

import actorflow as af
from actorflow import _runtime
from actorflow._remote_function import RemoteFunction
from tests.unit.fake_runtime import FakeRuntime, FakeStream


@pytest.fixture
def runtime() -> Iterator[FakeRuntime]:
    fake = FakeRuntime()
    _runtime.set_process_runtime(fake)
    yield fake
    _runtime.set_process_runtime(None)


@af.remote
def square(x: int, *, scale: int = 1) -> int:
    """Multiply."""
    return x * x * scale


@af.remote(num_cpus=2, max_retries=0)
async def fetch(url: str) -> bytes:
    return url.encode()


@af.remote
async def tokens(n: int) -> AsyncIterator[str]:
    yield str(n)


@af.remote(num_returns=2)
def pair(x: int) -> tuple[int, int]:
    return x, -x


# Both forms of a call ---------------------------------------------------------------------------------------


async def test_a_direct_call_is_lazy(runtime: FakeRuntime) -> None:
    call = square(3, scale=2)
    assert inspect.iscoroutine(call)
    assert runtime.sent == []
    assert await call == 18
    assert [(sent.what, sent.name, sent.args, sent.kwargs) for sent in runtime.sent] == [
        ("call", "square", (3,), {"scale": 2})
    ]


async def test_remote_starts_now(runtime: FakeRuntime) -> None:
    ref = square.remote(3)
    assert [sent.what for sent in runtime.sent] == ["submit"]
    assert await ref == 9


async def test_a_generator_gives_a_stream_in_both_forms(runtime: FakeRuntime) -> None:
    assert isinstance(tokens(3), FakeStream)
    assert isinstance(tokens.remote(3), FakeStream)


async def test_several_returns_are_several_references(runtime: FakeRuntime) -> None:
    refs: Any = pair.remote(3)
    assert [await ref for ref in refs] == [3, -3]


async def test_submit_waits_for_room(runtime: FakeRuntime) -> None:
    runtime.full = 2
    with pytest.raises(af.PendingCallsLimitExceeded):
        square.remote(3)
    ref = await square.submit(3)
    assert await ref == 9
    assert runtime.waits_for_room == 1


def test_without_a_runtime_the_error_says_how_to_start() -> None:
    for call in (square, square.remote):
        with pytest.raises(af.NotInitializedError, match=r"af\.run\(main\)"):
            call(3)


# Wrong calls ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "kwargs", "words"),
    [
        ((), {}, "square() missing 1 required positional argument: 'x'"),
        ((1, 2), {}, "square() takes 1 positional argument but 2 were given"),
        ((1,), {"scal": 2}, "square() got an unexpected keyword argument 'scal'"),
        ((1,), {"x": 2}, "square() got multiple values for argument 'x'"),
    ],
)
def test_wrong_arguments_never_leave(
    runtime: FakeRuntime, args: tuple[int, ...], kwargs: dict[str, int], words: str
) -> None:
    wrong: Any = square
    for call in (wrong, wrong.remote, wrong.submit, wrong.options(num_cpus=0).remote):
        with pytest.raises(TypeError) as caught:
            call(*args, **kwargs)
        assert str(caught.value).startswith(words)
        assert f"defined at {__file__}:" in str(caught.value)
    assert runtime.sent == []


def test_a_parameter_may_be_called_self(runtime: FakeRuntime) -> None:
    @af.remote
    def odd(fn: int, target: int) -> int:
        return fn + target

    odd(fn=1, target=2).close()


# Options ----------------------------------------------------------------------------------------------------


async def test_options_make_another_function(runtime: FakeRuntime) -> None:
    strong = square.options(num_cpus=2, timeout=3)
    await strong(3)
    await square(3)
    first, second = (sent.options for sent in runtime.sent)
    assert (first.num_cpus, first.timeout, second.num_cpus, second.timeout) == (2, 3.0, 1, None)
    assert strong.options(max_retries=0)._options.num_cpus == 2
    assert strong._target is square._target
    assert strong.__name__ == "square"  # type: ignore[attr-defined]  # set by functools.update_wrapper


async def test_calls_share_one_options_object(runtime: FakeRuntime) -> None:
    await fetch("a")
    fetch.remote("b")
    first, second = (sent.options for sent in runtime.sent)
    assert first is second
    assert (first.resources, first.max_retries) == ({"CPU": 20_000}, 0)


def test_a_wrong_option_is_refused_at_decoration() -> None:
    wrong: Any = af.remote
    with pytest.raises(
        af.OptionError, match=r"@af.remote on nope: there is no option 'num_cpuz'.*'num_cpus'"
    ):

        @wrong(num_cpuz=3)
        def nope() -> None: ...

    with pytest.raises(af.OptionTypeError, match=r"square.options\(\): max_retries='3'"):
        square.options(max_retries="3")  # type: ignore[arg-type]  # the act under test


def test_a_generator_has_one_stream() -> None:
    with pytest.raises(af.OptionError, match="num_returns=2 is not for a generator"):
        tokens.options(num_returns=2)


# What can be remote -----------------------------------------------------------------------------------------


def test_decoration_with_and_without_options() -> None:
    def f(x: int) -> int:
        return x

    for remote in (af.remote, af.remote(), af.remote(num_cpus=1), af.remote(num_cpus=3)(num_cpus=1)):
        function = remote(f)
        assert isinstance(function, RemoteFunction)
        assert function.__wrapped__ is f
        assert function._options.num_cpus == 1


def test_a_remote_function_looks_like_its_function() -> None:
    assert square.__doc__ == "Multiply."
    assert repr(square) == "<remote function square>"
    assert list(inspect.signature(square).parameters) == ["x", "scale"]
    assert square.__wrapped__(3) == 9


async def test_whatever_can_be_called_can_be_remote(runtime: FakeRuntime) -> None:
    def add(x: int, y: int) -> int:
        return x + y

    assert await af.remote(len)([1, 2]) == 2
    assert await af.remote(functools.partial(add, 1))(2) == 3
    assert await af.remote("abc".index)("c") == 2


def wrongly_used() -> list[tuple[str, Callable[[], Any], str]]:
    remote: Any = af.remote

    class Holder:
        def method(self) -> None: ...

    async def coroutine() -> None: ...

    def awaited() -> Any:
        call = coroutine()
        try:
            return remote(call)
        finally:
            call.close()

    return [
        ("twice", lambda: remote(square), "square is remote already"),
        ("an actor", lambda: remote(type("A", (af.Actor,), {})), "is an af.Actor already"),
        ("an actor class", lambda: remote(remote(type("B", (), {}))), "remote already"),
        ("a number", lambda: remote(2), "@af.remote(num_cpus=2)"),
        ("a coroutine", awaited, "with the function itself"),
        ("a method", lambda: remote(Holder.method), "class Holder(af.Actor)"),
        ("a static method", lambda: remote(staticmethod(len)), "not for methods"),
        ("both", lambda: remote(len, num_cpus=2), "options go first"),
        ("two", lambda: remote(len, len), "options go first"),
    ]


@pytest.mark.parametrize(("act", "text"), [case[1:] for case in wrongly_used()])
def test_what_cannot_be_remote_says_what_to_do(act: Callable[[], Any], text: str) -> None:
    with pytest.raises(TypeError) as caught:
        act()
    assert text in str(caught.value)


# Travelling -------------------------------------------------------------------------------------------------


def test_an_importable_function_travels_by_its_name() -> None:
    data = pickle.dumps(square)
    assert len(data) < 100
    assert pickle.loads(data) is square
    assert pickle.loads(cloudpickle.dumps([square, square]))[1] is square


def test_with_other_options_too() -> None:
    copy = pickle.loads(pickle.dumps(square.options(num_cpus=2)))
    assert copy._target is square._target
    assert copy._options.num_cpus == 2
    assert copy._options.max_retries == 3


def test_another_function_travels_with_its_code() -> None:
    factor = 3

    @af.remote(num_cpus=2)
    def times(x: int) -> int:
        return x * factor

    copy = pickle.loads(cloudpickle.dumps(times))
    assert copy is not times
    assert copy.__wrapped__(2) == 6
    assert copy._options.num_cpus == 2
    assert repr(copy) == repr(times)


def test_a_function_that_calls_itself_travels_with_its_code() -> None:
    module = types.ModuleType("__main__")
    code = "import actorflow as af\n@af.remote\ndef fib(n):\n    return fib if n == 0 else n\n"
    exec(code, vars(module))
    fib = vars(module)["fib"]
    fib.__wrapped__.__module__ = fib.__module__ = "__main__"
    copy = pickle.loads(cloudpickle.dumps(fib))
    assert copy.__wrapped__(0) is copy
    code_of_the_function = cloudpickle.dumps(fib.__wrapped__)
    again = pickle.loads(code_of_the_function)
    assert again(0).__wrapped__ is again


def test_a_module_registered_by_value_is_not_imported() -> None:
    module = types.ModuleType("af_test_by_value")
    sys.modules[module.__name__] = module
    try:
        exec("import actorflow as af\n@af.remote\ndef f():\n    return 1\n", vars(module))
        vars(module)["f"].__module__ = module.__name__
        vars(module)["f"].__wrapped__.__module__ = module.__name__
        assert pickle.loads(cloudpickle.dumps(vars(module)["f"])) is vars(module)["f"]
        cloudpickle.register_pickle_by_value(module)
        copy = pickle.loads(cloudpickle.dumps(vars(module)["f"]))
        assert copy is not vars(module)["f"]
        assert copy.__wrapped__() == 1
        cloudpickle.unregister_pickle_by_value(module)
    finally:
        del sys.modules[module.__name__]
