"""Wrong arguments of the functions of actorflow itself, while a cluster runs: each a specific error, and the cluster stays."""

from __future__ import annotations

import functools
import gc
import math
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

import actorflow as af


@af.remote
def square(x: int) -> int:
    return x * x


@af.remote
async def numbers(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


class Idle(af.Actor):
    async def ping(self) -> int:
        return 1


async def test_names_that_are_no_text(cluster: Any) -> None:
    for name, namespace in ((None, None), (3, None), ("", None), ("x", 3), ("a\udcff", None)):
        with pytest.raises(af.OptionError, match="af.get_actor: name"):
            await af.get_actor(name, namespace=namespace)  # type: ignore[arg-type]
        with pytest.raises(af.OptionError, match="af.get_placement_group: name"):
            await af.get_placement_group(name, namespace=namespace)  # type: ignore[arg-type]
    assert await square(3) == 9


async def test_flags_that_are_no_flags(cluster: Any) -> None:
    idle = Idle.remote()
    for flags in ({"graceful": "yes"}, {"no_restart": 1}):
        with pytest.raises(af.OptionTypeError, match="True or False"):
            await af.kill(idle, **flags)  # type: ignore[arg-type]
    assert await idle.ping() == 1


async def test_a_stream_cannot_be_sent(cluster: Any) -> None:
    stream = numbers(3)
    with pytest.raises(af.SerializationError, match=r"argument 0: a stream belongs to the process that reads it.*stream\.refs\(\)"):
        await square(stream)  # type: ignore[arg-type]
    assert [item async for item in stream] == [0, 1, 2]


async def test_what_is_no_reference(cluster: Any) -> None:
    call = square(1)
    with pytest.raises(TypeError, match=r"takes references or one of them, not coroutine.*gives the value itself"):
        await af.get(call)  # type: ignore[call-overload]
    call.close()  # type: ignore[attr-defined]
    ref = square.remote(1)
    with pytest.raises(TypeError, match=r"Put it into a list: `af.wait\(\[ref\]\)`"):
        await af.wait(ref)  # type: ignore[arg-type]
    for given in ({"timeout": "x"}, {"timeout": True}, {"num_returns": "1"}, {"num_returns": 1.0}):
        with pytest.raises(TypeError, match=next(iter(given))):
            await af.wait([ref], **given)  # type: ignore[arg-type]
    assert await ref == 1


WAITING: dict[str, Callable[[Any], Coroutine[Any, Any, Any]]] = {
    "af.get: timeout": lambda seconds: af.get([square.remote(1)], timeout=seconds),
    "af.wait: timeout": lambda seconds: af.wait([square.remote(1)], timeout=seconds),
    "af.as_completed: timeout": lambda seconds: first(seconds),
    "af.timeout: seconds": lambda seconds: within(seconds),
}


async def first(seconds: Any) -> None:
    async for _ in af.as_completed([square.remote(1)], timeout=seconds):
        return


async def within(seconds: Any) -> None:
    async with af.timeout(seconds):
        pass


NO_TIMES: list[tuple[Any, type[Exception], str]] = [
    ("1", af.OptionTypeError, r"'1' is of the type str\. Seconds are right, as in (timeout|seconds)=2\.5, or None for no limit\."),
    (True, af.OptionTypeError, "True is of the type bool"),
    (math.nan, af.OptionError, r"nan is not a time\. Give a number of seconds, or None for no limit\."),
    (math.inf, af.OptionError, "inf is not a time"),
]


@pytest.mark.filterwarnings("error::RuntimeWarning")  # A coroutine that nobody has awaited.
@pytest.mark.parametrize(("seconds", "kind", "text"), NO_TIMES)
@pytest.mark.parametrize("where", WAITING)
async def test_a_timeout_that_is_no_time(cluster: Any, where: str, seconds: Any, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=f"^{where}={text}"):
        await WAITING[where](seconds)
    gc.collect()


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize(("seconds", "kind", "text"), NO_TIMES)
def test_a_timeout_of_sync_that_is_no_time(cluster: Any, seconds: Any, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=f"^af.sync: timeout={text}"):
        af.sync(square(1), timeout=seconds)
    gc.collect()


@pytest.mark.parametrize("seconds", [0, -1.5])
async def test_a_timeout_may_be_over(cluster: Any, seconds: float) -> None:
    ref = square.remote(1)
    await ref
    assert await af.get([ref], timeout=seconds) == [1]
    assert await af.wait([ref], timeout=seconds) == ([ref], [])
    await WAITING["af.timeout: seconds"](seconds)


async def test_what_is_no_actor(cluster: Any) -> None:
    ref = square.remote(1)
    for function, given, hint in (
        (af.kill, ref, "ObjectRef; references are cancelled with ref.cancel()"),
        (af.kill, "x", "str; `await af.get_actor(name)` gives the handle for a name"),
        (af.wait_dead, ref, "ObjectRef; the result of a reference is awaited: `await ref`"),
        (af.wait_dead, "x", "str; `await af.get_actor(name)` gives the handle for a name"),
        (af.wait_dead, 1, "int"),
    ):
        with pytest.raises(TypeError) as caught:
            await function(given)
        assert str(caught.value) == f"af.{function.__name__} takes an actor handle, not {hint}"
    assert await ref == 1


async def test_draining_says_what_it_takes(cluster: Any) -> None:
    for node_id, given, text in (
        ("", {"deadline": 5}, "node_id='' is empty. Give the id of a node: `actorflow status` and af.state.list_nodes() have them."),
        ("a", {"deadline": -1}, "deadline=-1 is not a time. Give a number of seconds above 0."),
        ("a", {"deadline": None}, "deadline=None is of the type NoneType. Seconds are right, as in deadline=2.5."),
        ("a", {"deadline": 5, "reason": ""}, "reason='' is empty. Give one, or leave it out."),
    ):
        with pytest.raises(af.OptionError) as caught:
            await af.drain_node(node_id, **given)  # type: ignore[arg-type]
        assert str(caught.value) == f"af.drain_node: {text}"


async def test_map_says_what_it_takes(cluster: Any) -> None:
    for function in (lambda item: square(item), functools.partial(square, 1)):
        with pytest.raises(TypeError, match=r"decorate a function that takes what varies with @af\.remote"):
            af.map(function, [1])  # type: ignore[arg-type]
    mapped = af.map(square, [1, 2])
    with pytest.raises(TypeError, match=r"af.sync\(af.map"):
        list(mapped)  # type: ignore[call-overload]
    assert [item async for item in mapped] == [1, 4]


def test_sync_says_what_it_takes(cluster: Any) -> None:
    with pytest.raises(TypeError, match=r"not list: write af\.sync\(af\.get\(references\)\)"):
        af.sync([square.remote(1)])
    with pytest.raises(TypeError, match="not int"):
        af.sync(3)


async def test_a_call_that_nobody_awaits_has_the_name_of_its_function(cluster: Any) -> None:
    idle = Idle.remote()
    for call, name in ((square(1), "square"), (idle.ping(), "ping")):
        assert f"coroutine object {name}" in repr(call)
        call.close()  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match=r"write `await square\(\.\.\.\)` instead"):
        af.sync(square(1))
    assert {name for name in dir(idle) if not name.startswith("__")} == {"ping"}


def test_a_class_whose_init_is_async_is_refused(cluster: Any) -> None:
    class Wrong(af.Actor):
        async def __init__(self) -> None:  # type: ignore[misc]
            ...

        async def ping(self) -> None: ...

    with pytest.raises(TypeError, match=r"Wrong\.__init__ is `async def`.*__aenter__"):
        Wrong.remote()
