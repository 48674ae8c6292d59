"""Wrong arguments of the functions of actorflow itself, while a cluster runs: each a specific error, and the cluster stays."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
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
