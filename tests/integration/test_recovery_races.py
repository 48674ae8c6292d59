"""Losses that meet calls under way: queued ones, pushed ones, constructors, readers that give up (docs/internals/objects.md)."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import actorflow as af

pytestmark = pytest.mark.local_only("the files of one small store are deleted")

ITEMS = 1_000_000  # int64: 8 MB each
STORE = 64_000_000
PATIENCE_S = 30.0


@pytest.fixture
def session(home: Path) -> Iterator[Any]:
    with af.init(num_cpus=3, object_store_memory=STORE, log_to_driver=False) as session:
        yield session


@af.remote
def make(number: int, seconds: float = 0.3) -> Any:
    """Takes its time, so that others meet it while it runs again."""
    time.sleep(seconds)
    return np.full(ITEMS, number, dtype=np.int64)


@af.remote
def total(array: Any) -> int:
    return int(array.sum())


@af.remote
def both(left: Any, right: Any) -> int:
    time.sleep(0.1)
    return int(left[0] + right[0])


@af.remote
async def later(value: Any, seconds: float) -> Any:
    await asyncio.sleep(seconds)
    return value


@af.remote
async def boxed() -> list[Any]:
    return [await af.put("inner")]


@af.remote
def use_box(box: list[Any]) -> Any:
    return np.ones(ITEMS)


@af.remote
def fail() -> int:
    time.sleep(0.1)
    raise ValueError("no argument")


class Slow(af.Actor):
    """Calls wait for it."""

    def __init__(self, *arguments: Any) -> None:
        self.sums = [int(np.sum(argument)) for argument in arguments]
        time.sleep(0.5)

    def total(self, array: Any) -> int:
        return int(array.sum())

    def of_constructor(self) -> list[int]:
        return self.sums


class Shared(af.Actor, process="shared", num_cpus=0):
    """Calls itself."""

    async def keep(self, me: Any) -> None:
        self.me = me

    async def go(self) -> int:
        return int(await self.me.add_one.remote(later.remote(5, 0.2)))

    async def add_one(self, number: int) -> int:
        return number + 1


async def lost(home: Path, *refs: Any) -> list[Any]:
    """Have these pushed out to disk, and lose them there. Returns what fills the store."""
    await af.wait(refs, num_returns=len(refs))
    kept = [await af.put(np.zeros(ITEMS)) for _ in range(8)]
    files = list(home.glob("actorflow-*/*/spill/*"))
    assert len(files) >= len(refs)
    for path in files:
        os.unlink(path)
    return kept


@pytest.mark.parametrize("count", [2, 12])
def test_all_calls_that_need_what_was_lost_wait_for_it(session: Any, home: Path, count: int) -> None:
    """Some are at workers when the first of them finds out, others are queued."""

    async def main() -> None:
        ref = make.remote(3)
        kept = await lost(home, ref)
        async with asyncio.timeout(PATIENCE_S):
            assert await af.get([total.remote(ref) for _ in range(count)]) == [3 * ITEMS] * count
        assert kept

    af.sync(main())


def test_a_call_to_an_actor_that_starts_waits_for_its_argument_again(session: Any, home: Path) -> None:
    async def main() -> None:
        ref = make.remote(3, 1.0)
        kept = await lost(home, ref)
        actor = Slow.remote()
        call, after = actor.total.remote(ref), actor.of_constructor.remote()
        reader = asyncio.ensure_future(af.get([ref]))
        async with asyncio.timeout(PATIENCE_S):
            assert await call == 3 * ITEMS
            assert await after == []
            await reader
        assert kept

    af.sync(main())


def test_a_constructor_that_waits_for_another_argument_waits_for_a_lost_one_too(session: Any, home: Path) -> None:
    async def main() -> None:
        ref = make.remote(3, 1.0)
        kept = await lost(home, ref)
        actor = Slow.remote(ref, later.remote(1, 0.5))
        reader = asyncio.ensure_future(af.get([ref]))
        async with asyncio.timeout(PATIENCE_S):
            assert await actor.of_constructor.remote() == [3 * ITEMS, 1]
            await reader
        assert kept

    af.sync(main())


def test_readers_that_meet_in_the_middle(session: Any, home: Path) -> None:
    async def main() -> None:
        refs = [make.remote(1), make.remote(2)]
        kept = await lost(home, *refs)
        async with asyncio.timeout(PATIENCE_S):
            for values in await asyncio.gather(af.get(refs), af.get(refs[::-1]), af.get(refs)):
                assert sorted(int(value[0]) for value in values) == [1, 2]
        assert kept

    af.sync(main())


@pytest.mark.parametrize("read", [lambda ref: ref.as_task(), lambda ref: af.get([ref])], ids=["await", "get"])
def test_who_gives_up_waiting_does_not_end_what_makes_it_again(session: Any, home: Path, read: Any) -> None:
    async def main() -> None:
        ref = make.remote(3, 0.5)
        kept = await lost(home, ref)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(read(ref), 0.1)
        async with asyncio.timeout(PATIENCE_S):
            assert (await ref)[0] == 3
        assert kept

    af.sync(main())


def test_a_small_argument_with_references_inside_is_not_kept(session: Any, home: Path) -> None:
    async def main() -> None:
        box = boxed.remote()
        ref = use_box.remote(box)
        await af.wait([ref])
        del box
        kept = await lost(home, ref)
        with pytest.raises(af.ObjectLostError, match="references inside"):
            await ref
        assert await total(np.ones(3)) == 3
        assert kept

    af.sync(main())


def test_arguments_that_do_not_fit_together_with_those_of_others_are_read_one_call_after_the_other(session: Any) -> None:
    """Each of three calls has one argument and waits for the room of the other: none of them holds on."""

    async def main() -> None:
        items = 2_300_000  # 18 MB: two of a call fit, those of three do not
        refs = [await af.put(np.full(items, number)) for number in range(6)]
        async with asyncio.timeout(PATIENCE_S):
            assert await af.get([both.remote(refs[n], refs[3 + n]) for n in range(3)]) == [3, 5, 7]

    af.sync(main())


def test_a_constructor_whose_argument_failed_lets_go_of_the_others(session: Any) -> None:
    async def main() -> None:
        keep = await af.put(np.ones(ITEMS))
        for _ in range(3):
            actor = Slow.remote(fail.remote(), keep, np.ones(ITEMS))
            with pytest.raises(af.ActorflowError, match="no argument"):
                await actor.of_constructor.remote()
            del actor
        assert keep._entry.pins == 0
        del keep
        values = [await (await af.put(np.ones(ITEMS))) for _ in range(7)]
        assert len(values) == 7, "there is room for all of it"

    af.sync(main())


def test_a_shared_actor_that_calls_itself_with_what_is_not_there_yet(session: Any) -> None:
    async def main() -> None:
        shared = Shared.remote()
        await shared.keep(shared)
        async with asyncio.timeout(PATIENCE_S):
            assert await shared.go() == 6

    af.sync(main())


def test_functions_and_classes_may_have_arrays_and_tensors_in_them(session: Any) -> None:
    import torch

    tensor, array = torch.arange(4.0), np.arange(5)

    @af.remote
    def of_closure() -> float:
        return float(tensor.sum() + array.sum())

    class OfClosure(af.Actor):
        def total(self) -> float:
            return float(tensor.sum() + array.sum())

    assert af.sync(of_closure()) == 16
    assert af.sync(OfClosure.remote().total.remote()) == 16


def test_many_tensors_take_no_descriptors(session: Any) -> None:
    import torch

    async def main() -> None:
        ref = await af.put({number: torch.full((300_000,), float(number)) for number in range(40)})
        before = len(os.listdir("/proc/self/fd"))
        tensors = await ref
        assert len(os.listdir("/proc/self/fd")) <= before + 2
        assert all((tensor == number).all() for number, tensor in tensors.items())

    af.sync(main())
