"""Actors that are supervised together, on real processes."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence

import pytest

import actorflow as af

pytestmark = pytest.mark.usefixtures("cluster")


class Member(af.Actor):
    def pid(self) -> int:
        return os.getpid()


class Tenant(af.Actor):
    async def pid(self) -> int:
        return os.getpid()


async def members(count: int = 3, **options: object) -> tuple[list[af.Handle[Member]], list[int]]:
    actors = [Member.options(num_cpus=0, max_task_retries=-1, **options).remote() for _ in range(count)]
    return actors, await asyncio.gather(*[actor.pid() for actor in actors])


def crash(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


async def new_pids(actors: Sequence[af.Handle[Member] | af.Handle[Tenant]], pids: list[int], changed: list[bool]) -> list[int]:
    """Wait until just those actors live in new processes."""
    while True:
        now = await asyncio.gather(*[actor.pid() for actor in actors])
        if [new != old for new, old in zip(now, pids, strict=True)] == changed:
            return now
        await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("strategy", "changed"),
    [("one_for_one", [False, True, False]), ("one_for_all", [True] * 3), ("rest_for_one", [False, True, True])],
)
async def test_who_is_restarted_with_whom(strategy: str, changed: list[bool]) -> None:
    actors, pids = await members()
    async with af.supervise(*actors, strategy=strategy):  # type: ignore[arg-type]
        crash(pids[1])
        now = await new_pids(actors, pids, changed)
        await asyncio.sleep(0.2)  # Nobody else is restarted a little later either.
        assert await asyncio.gather(*[actor.pid() for actor in actors]) == now


async def test_a_supervision_that_gives_up_ends_its_actors_and_cancels_its_block() -> None:
    actors, pids = await members(2)
    why = "2 failures within 60 s, and 1 is allowed; the last one: actor Member .*: worker .* SIGKILL"
    with pytest.raises(af.SupervisionError, match=why) as caught:
        async with af.supervise(*actors, max_restarts=1, within=60) as supervision:
            crash(pids[0])
            now = await new_pids(actors, pids, [True, False])
            crash(now[1])
            await asyncio.sleep(60)
    assert caught.value.supervision == supervision.id
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    for actor in actors:
        with pytest.raises(af.ActorDiedError, match="its supervision gave up: 2 failures"):
            await actor.pid()
    with pytest.raises(af.SupervisionError):
        await supervision.wait()


async def test_sv_2_the_end_of_a_process_is_one_failure_of_all_that_lived_in_it() -> None:
    actors = [Tenant.options(num_cpus=0, max_task_retries=-1, process="shared").remote() for _ in range(4)]
    pids = await asyncio.gather(*[actor.pid() for actor in actors])
    assert len(set(pids)) == 1
    async with af.supervise(*actors, max_restarts=1, within=60):
        crash(pids[0])
        pids = await new_pids(actors, pids, [True] * 4)
        await asyncio.sleep(0.2)
        assert await asyncio.gather(*[actor.pid() for actor in actors]) == pids


async def test_after_its_end_each_goes_by_its_own_restarts() -> None:
    actors, pids = await members(2)
    supervision = await af.supervise(*actors)
    crash(pids[0])
    pids = await new_pids(actors, pids, [True, False])
    waiting = asyncio.create_task(supervision.wait())
    await supervision.end()
    await waiting
    await supervision.end()
    crash(pids[0])
    assert "max_restarts=0" in await af.wait_dead(actors[0])
    assert await actors[1].pid() == pids[1]


async def test_one_that_is_killed_leaves_and_with_the_last_it_is_over() -> None:
    actors, pids = await members(2)
    supervision = await af.supervise(*actors, strategy="one_for_all")
    await af.kill(actors[0])
    assert await actors[1].pid() == pids[1]
    await af.kill(actors[1])
    await supervision.wait()


async def test_a_constructor_that_raises_after_a_restart_is_one_that_cannot_come_back(tmp_path: object) -> None:
    path = f"{tmp_path}/was-here"

    class Once(af.Actor):
        def __init__(self) -> None:
            open(path, "x").close()

        def pid(self) -> int:
            return os.getpid()

    once, (other, *_) = Once.options(num_cpus=0).remote(), (await members(1))[0]
    supervision = await af.supervise(once, other)
    crash(await once.pid())
    with pytest.raises(af.SupervisionError, match=r"actor .*Once \(.*\) cannot come back: .*FileExistsError") as caught:
        await supervision.wait()
    assert "max_restarts" not in str(caught.value), "no number of restarts would help"
    await af.wait_dead(other)


async def test_a_supervision_in_another_one() -> None:
    actors, pids = await members(3)
    with pytest.raises(af.SupervisionError, match="supervision .* has ended: 2 failures"):
        await nested(actors, pids)


async def nested(actors: list[af.Handle[Member]], pids: list[int]) -> None:
    async with af.supervise(*actors[:2], max_restarts=0) as inner:
        outer = await af.supervise(inner, actors[2], strategy="one_for_all", max_restarts=1)
        crash(pids[0])
        pids = await new_pids(actors, pids, [True, True, True])
        crash(pids[2])
        with pytest.raises(af.SupervisionError, match="2 failures"):
            await outer.wait()
        await asyncio.sleep(60)  # The block is cancelled, as its actors have ended.


async def test_a_detached_one_goes_on_without_its_process() -> None:
    actors, pids = await members(2)

    @af.remote(num_cpus=0)
    async def begins(first: af.Handle[Member], second: af.Handle[Member]) -> int:
        await af.supervise(first, second, strategy="one_for_all", lifetime="detached")
        return os.getpid()

    crash(await begins(*actors))
    crash(pids[0])
    await new_pids(actors, pids, [True, True])


async def test_wrong_use_says_what_is_wrong() -> None:
    actors, _ = await members(1)
    for arguments, options, error, words in (
        ((), {}, af.OptionError, "it takes actor handles, and has none"),
        ((3,), {}, TypeError, "takes actor handles and supervisions, not int"),
        (actors, {"strategy": "all"}, af.OptionError, "af.supervise: strategy='all'"),
        (actors, {"max_restarts": -1}, af.OptionError, "0 gives up at the first failure"),
        (actors, {"within": 0}, af.OptionError, r"is not a time\. Give a number of seconds above 0\.$"),
        (actors, {"within": None}, af.OptionTypeError, r"Seconds are right, as in within=2\.5\.$"),
        (actors * 2, {}, af.OptionError, "is named twice"),
    ):
        with pytest.raises(error, match=words):
            await af.supervise(*arguments, **options)  # type: ignore[arg-type]
    supervision = await af.supervise(*actors)
    with pytest.raises(af.OptionError, match=rf"actor Member \(.*\) is supervised already, by supervision {supervision.id}"):
        await af.supervise(*actors)
    await af.kill(actors[0])
    with pytest.raises(af.ActorDiedError):
        await af.supervise(*actors)
    await supervision.wait()
    with pytest.raises(af.OptionError, match=f"supervision {supervision.id} has ended: all its members have ended"):
        await af.supervise(supervision)


async def test_one_that_is_begun_in_a_task_says_that_it_would_not_last() -> None:
    actors, pids = await members(1)

    @af.remote(num_cpus=0)
    async def begins(actor: af.Handle[Member]) -> None:
        await af.supervise(actor)

    @af.remote(num_cpus=0)
    async def bears(actor: af.Handle[Member], pid: int) -> int:
        async with af.supervise(actor):
            crash(pid)
            return (await new_pids([actor], [pid], [True]))[0]

    with pytest.raises(af.OptionError, match="a moment after the task. Begin it in the driver or in an actor"):
        await begins(actors[0])
    assert await bears(actors[0], pids[0]) != pids[0]
