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


def test_a_placement_group_asks_for_resources_that_can_be_named(cluster: Any) -> None:
    with pytest.raises(af.OptionError, match=r"bundles\[0\].*is no text that UTF-8 can carry"):
        af.placement_group([{BAD: 1}])
    with pytest.raises(af.OptionError, match="name.*is no text that UTF-8 can carry"):
        af.placement_group([{"CPU": 1}], name=BAD)


# Exceptions whose text is of no use ---------------------------------------------------------------------------


class NoText(Exception):
    """An ordinary bug: the attribute was never set."""

    def __str__(self) -> str:
        return str(self.detail)  # type: ignore[attr-defined]


def wrong(kind: str) -> Exception:
    return NoText("x") if kind == "no text" else ValueError(f"no such file: {BAD}.txt")


def told(kind: str) -> str:
    """How the reason for an actor's end ends."""
    return "NoText: <its __str__ raised AttributeError>" if kind == "no text" else "ValueError: no such file: caf\\udce9.txt"


class Construct(af.Actor):
    def __init__(self, kind: str) -> None:
        raise wrong(kind)

    async def ping(self) -> int:
        return 1


class Enter(af.Actor):
    def __init__(self, kind: str) -> None:
        self.kind = kind

    async def __aenter__(self) -> None:
        raise wrong(self.kind)

    async def __aexit__(self, *error: object) -> None: ...

    async def ping(self) -> int:
        return 1


class Restore(af.Actor, max_restarts=1, checkpoint_every="call"):
    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __checkpoint__(self) -> int:
        return 1

    def __restore__(self, state: int) -> None:
        raise wrong(self.kind)

    async def ping(self) -> int:
        return 1


class Leave(af.Actor):
    def __init__(self, kind: str) -> None:
        self.kind = kind

    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *error: object) -> None:
        raise wrong(self.kind)

    async def ping(self) -> int:
        return 1


class SharedLeave(Leave, process="shared"):
    """Its process lives on, so it tells of its end itself."""


KINDS = ("no text", "bad text")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cls", [Construct, Enter])
async def test_an_error_without_text_ends_an_actor_that_cannot_start(cluster: Any, cls: Any, kind: str) -> None:
    actor = cls.remote(kind)
    async with asyncio.timeout(WAIT_S):
        with pytest.raises(type(wrong(kind))):
            await actor.ping()
        assert await af.wait_dead(actor) == f"its constructor raised {told(kind)}"


@pytest.mark.parametrize("kind", KINDS)
async def test_an_error_without_text_ends_an_actor_that_cannot_be_restored(cluster: Any, kind: str) -> None:
    actor = Restore.remote(kind)
    async with asyncio.timeout(WAIT_S):
        assert await actor.ping() == 1
        await af.kill(actor, no_restart=False)
        assert await af.wait_dead(actor) == f"its __restore__ raised {told(kind)}"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cls", [Leave, SharedLeave])
async def test_an_error_without_text_does_not_keep_an_actor_from_leaving(cluster: Any, cls: Any, kind: str) -> None:
    actor = cls.remote(kind)
    async with asyncio.timeout(WAIT_S):
        assert await actor.ping() == 1
        await af.kill(actor, graceful=True)
        await af.wait_dead(actor)


@pytest.mark.parametrize("kind", KINDS)
async def test_an_error_without_text_as_the_argument_of_an_actor_ends_it(cluster: Any, kind: str) -> None:
    @af.remote
    def fail() -> str:
        raise wrong(kind)

    actor = Leave.remote(fail.remote())  # type: ignore[arg-type]  # a reference stands for its value
    async with asyncio.timeout(WAIT_S):
        with pytest.raises(type(wrong(kind))):
            await actor.ping()


@pytest.mark.parametrize("kind", KINDS)
async def test_an_error_without_text_that_nobody_looked_at_is_logged(cluster: Any, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    @af.remote
    def fail() -> None:
        raise wrong(kind)

    ref = fail.remote()
    async with asyncio.timeout(WAIT_S):
        await af.wait([ref])
        del ref
        while "nobody looked at its result" not in caplog.text:
            await square(1)  # What was dropped is counted with the next thing that happens.
    assert told(kind) in caplog.text
