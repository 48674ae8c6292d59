"""SEMANTICS 21: what people are told of an actor that is to go on from its stored state, and cannot; or that has none."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

import actorflow as af
from actorflow.testing import simulate


async def restarted(actor: Any) -> None:
    await af.kill(actor, no_restart=False)
    await asyncio.sleep(1.0)


def rebuild(text: str) -> Any:
    raise ValueError(f"cannot rebuild {text}")


class Unreadable:
    """Can be pickled, and not unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return rebuild, ("this",)


class Kept(af.Actor, num_cpus=0, max_restarts=5, checkpoint_every="call"):
    def __init__(self, how: str) -> None:
        self.how = how

    def __checkpoint__(self) -> Any:
        return Unreadable() if self.how == "unreadable" else self.how

    async def __restore__(self, state: str) -> None:
        if state == "raises":
            raise KeyError("cannot restore")
        await asyncio.Event().wait()

    async def call(self) -> int:
        return 1


@pytest.mark.parametrize("how", ["unreadable", "raises"])
def test_21_an_actor_that_cannot_go_on_from_its_state_says_so_and_is_dead_for_good(how: str) -> None:
    async def main() -> tuple[str, str, list[str]]:
        kept = Kept.remote(how)
        await kept.call()
        await restarted(kept)
        with pytest.raises(af.ActorDiedError) as caught:
            await kept.call()
        [row] = await af.state.list_actors()
        return str(caught.value), await af.wait_dead(kept), row["story"]

    told, reason, story = simulate(main)
    why = {"unreadable": "its stored state cannot be unpickled: DeserializationError: ", "raises": "its __restore__ raised KeyError: "}[how]
    assert told.startswith("Kept(af-actor-")
    assert "could not go on from its checkpoint when it was restarted (incarnation 2), and is dead for good, whatever max_re" in told
    assert why in told and "make the actor anew" in told
    assert ("cannot rebuild this" if how == "unreadable" else "cannot restore") in told
    assert reason.startswith(why)
    assert why in story[-1]


def test_21_the_story_says_that_the_state_is_given_back_for_as_long_as_that_takes() -> None:
    async def main() -> str:
        kept = Kept.remote("hangs")
        await kept.call()
        await restarted(kept)
        await asyncio.sleep(10.0)
        [row] = await af.state.list_actors()
        return str(row["story"][-1])

    assert simulate(main).endswith("s  runs __init__ there, then __restore__ with the state that was stored last")


class Plain(af.Actor, num_cpus=0):
    async def call(self) -> int:
        return 1


class Keeper(af.Actor, num_cpus=0, max_restarts=5, checkpoint_every="call"):
    def __init__(self) -> None:
        self.handle: Any = None

    def __checkpoint__(self) -> Any:
        return self.handle

    def __restore__(self, handle: Any) -> None:
        self.handle = handle

    async def keep(self, handles: list[Any]) -> None:
        [self.handle] = handles

    async def use(self) -> int:
        return int(await self.handle.call())


def test_21_only_handles_of_detached_actors_are_kept_with_a_state() -> None:
    async def main() -> int:
        keeper, plain, detached = Keeper.remote(), Plain.remote(), Plain.options(name="plain", lifetime="detached").remote()
        with pytest.raises(af.CheckpointError, match=r"has a handle of Plain\(af-actor-.*only handles of detached actors can be kept"):
            await keeper.keep([plain])
        await keeper.keep([detached])
        await restarted(keeper)
        return int(await keeper.use())

    assert simulate(main) == 1


class Both(af.Actor, num_cpus=0, max_restarts=5):
    """Has the hooks, and no checkpoints."""

    def __checkpoint__(self) -> int:
        return 1

    def __restore__(self, state: int) -> None:
        raise AssertionError

    async def call(self) -> int:
        return 1


def test_21_an_actor_that_begins_anew_as_nothing_was_stored_says_so(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        both = Both.remote()
        await both.call()
        await restarted(both)
        await both.call()

    with caplog.at_level(logging.WARNING, "actorflow"):
        simulate(main)
    [told] = [record.getMessage() for record in caplog.records if "without a state" in record.getMessage()]
    assert told.endswith("was restarted (incarnation 2) without a state: none had been stored, as it has no checkpoint_every")
