"""What no message can carry: text with lone surrogates, as of undecodable file names, and numbers over 64 bits.

It fails what it belongs to, in words, and nothing beside it (PE-3, UN-1).
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import actorflow as af

BAD = "caf\udce9"
WAIT_S = 20.0
"""What would hang for ever has failed by then."""


@af.remote
def square(number: int) -> int:
    return number * number


class Echo(af.Actor):
    def say(self, number: int) -> int:
        return number


def with_a_bad_name(number: int) -> int:
    return -number


with_a_bad_name.__name__ = with_a_bad_name.__qualname__ = BAD


def poisoned(options: Any, **values: Any) -> None:
    """Give options a value that no check at the door would let pass: whatever slips past those must not hang.

    Equal options are one object: let these differ from all others.
    """
    for name, value in values.items():
        object.__setattr__(options, name, value)


async def test_un_1_a_call_that_cannot_be_sent_fails_alone(cluster: Any) -> None:
    odd = type("Odd", (af.Actor,), {BAD: lambda self: 1, "fine": lambda self: 2})
    actor = odd.remote()  # type: ignore[attr-defined]
    await actor
    refs = [actor.fine.remote(), getattr(actor, BAD).remote(), actor.fine.remote(), square.remote(3)]
    async with asyncio.timeout(WAIT_S):
        assert [await refs[0], await refs[2], await refs[3]] == [2, 2, 9]
        with pytest.raises(af.SerializationError, match=r"method='caf\\udce9' is no text that UTF-8 can carry"):
            await refs[1]


async def test_un_1_a_lease_that_cannot_be_asked_for_fails_its_tasks_alone(cluster: Any) -> None:
    bad = square.options(priority=987)
    poisoned(bad._options, priority=10**30)
    refs = [square.remote(2), bad.remote(3), square.remote(4)]
    async with asyncio.timeout(WAIT_S):
        assert [await refs[0], await refs[2]] == [4, 16]
        with pytest.raises(af.SerializationError, match=r"priority=10+ is a number of more than 64 bits. Give a number of at most"):
            await refs[1]


async def test_un_1_an_actor_that_cannot_be_asked_for_fails_alone(cluster: Any) -> None:
    good, bad_options = Echo.remote(), Echo.options(max_restarts=77)
    poisoned(bad_options._options, max_restarts=10**30)
    bad, other = bad_options.remote(), Echo.remote()
    calls = [good.say.remote(1), bad.say.remote(2), other.say.remote(3)]
    async with asyncio.timeout(WAIT_S):
        assert [await calls[0], await calls[2]] == [1, 3]
        with pytest.raises(af.SerializationError, match="Echo cannot be created: spec.max_restarts="):
            await calls[1]
        with pytest.raises(af.SerializationError, match="Echo cannot be created"):
            await bad


async def test_un_2_a_result_too_large_for_a_frame_is_told(cluster: Any) -> None:
    """Each value travels inline; all of them together are over the limit of a frame."""

    @af.remote
    def many(count: int) -> list[bytes]:
        return [bytes(100_000)] * count

    count = 2_800
    refs = many.options(num_returns=count).remote(count)
    async with asyncio.timeout(WAIT_S * 3):
        with pytest.raises(af.SerializationError, match="is over the frame limit"):
            await refs[-1]
        assert await square(3) == 9


async def test_a_function_may_have_a_name_that_cannot_be_encoded(cluster: Any) -> None:
    async with asyncio.timeout(WAIT_S):
        assert await af.remote(with_a_bad_name)(3) == -3
