"""References: who owns, who borrows, and that nothing stays behind (SEMANTICS 13, 14, 18). Each test ends at rest."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import actorflow as af
from tests.integration import leaks
from tests.integration.conftest import at_work

pytestmark = pytest.mark.usefixtures("cluster")
ON_ONE_NODE = "calls that take all 4 CPUs make others wait"

LARGE = 300_000
"""Items of eight bytes: far above what travels inline."""


@af.remote
def make(n: int) -> Any:
    return np.arange(n)


@af.remote
def total(array: Any) -> int:
    return int(array.sum())


@af.remote
async def total_of_refs(refs: list[af.ObjectRef[Any]]) -> int:
    return sum([int((await ref).sum()) for ref in refs])


@af.remote
def pass_on(value: Any) -> Any:
    return value


class Keeper(af.Actor):
    """Keeps references in its state."""

    def __init__(self) -> None:
        self.refs: list[Any] = []

    async def keep(self, refs: list[Any]) -> None:
        self.refs += refs

    async def values(self) -> list[Any]:
        return [await ref for ref in self.refs]

    async def give(self) -> list[Any]:
        return self.refs

    async def make(self, value: Any) -> Any:
        return [await af.put(value)]

    async def drop(self) -> None:
        self.refs.clear()

    async def pid(self) -> int:
        return os.getpid()


@pytest.mark.parametrize("size", [1, 10_000, LARGE])
async def test_put_and_get_small_and_large(size: int) -> None:
    ref = await af.put(np.arange(size))
    assert (await ref == np.arange(size)).all()
    assert await total(ref) == size * (size - 1) // 2


@pytest.mark.parametrize("size", [10, LARGE])
async def test_a_result_goes_from_worker_to_worker(size: int) -> None:
    ref = make.remote(size)
    for _ in range(3):
        ref = pass_on.remote(ref)
    assert await total(ref) == size * (size - 1) // 2


@pytest.mark.parametrize("size", [10, LARGE])
async def test_13_references_inside_arguments_and_results_stay_alive(size: int) -> None:
    refs = [make.remote(size) for _ in range(4)]
    wrapped = pass_on.remote(refs)
    del refs
    gc.collect()
    inner = await wrapped
    del wrapped
    assert await total_of_refs(inner) == 4 * (size * (size - 1) // 2)


async def test_13_a_reference_three_levels_deep_made_by_a_worker() -> None:
    @af.remote
    async def nest(depth: int) -> Any:
        return await af.put("the value") if depth == 0 else {"inner": nest.remote(depth - 1)}

    value: Any = nest.remote(3)
    while isinstance(value, af.ObjectRef | dict):
        value = await value if isinstance(value, af.ObjectRef) else value["inner"]
    assert value == "the value"


async def test_13_ten_thousand_references_in_one_object() -> None:
    refs = [await af.put(n) for n in range(10_000)]
    there = await pass_on(refs)
    assert there == refs
    assert await af.get(there[::1000]) == list(range(0, 10_000, 1000))


@pytest.mark.parametrize("size", [10, LARGE])
async def test_13_arguments_are_pinned_until_the_reply(size: int, cluster: Any) -> None:
    @af.remote
    def slow_total(array: Any, refs: list[Any]) -> int:
        time.sleep(0.3)
        return int(array.sum()) + len(af.sync(refs[0]))

    async def start(first: Any, second: Any) -> Any:
        # No reference of ours is left once this returns, and the second call has not even been sent.
        return [slow_total.options(num_cpus=4).remote(first, [second]) for _ in range(2)]

    calls = await start(make.remote(size), make.remote(size))
    gc.collect()
    await af.get([pass_on.remote(0) for _ in range(4)])
    assert await af.get(calls) == [size * (size - 1) // 2 + size] * 2
    del calls
    assert await asyncio.to_thread(leaks.until, lambda: not at_work(cluster)), at_work(cluster)


@pytest.mark.parametrize("size", [10, LARGE])
async def test_13_references_in_a_result_live_though_only_the_sender_knew_them(size: int) -> None:
    @af.remote
    async def give(n: int) -> list[Any]:
        return [make.remote(size) for _ in range(n)]

    class Giver(af.Actor):
        async def give(self, n: int) -> list[Any]:
            return [await af.put(np.arange(size)) for _ in range(n)]

        async def collect(self) -> None:
            gc.collect()

    giver = Giver.remote()
    for refs in (await give(5), await giver.give(5)):
        await giver.collect()
        assert [len(array) for array in await af.get(refs)] == [size] * 5
        # And on to a third process, which asks the owner.
        assert await total_of_refs(refs) == 5 * (size * (size - 1) // 2)


async def test_13_a_table_of_references_is_one_message_for_its_owner(cluster: Any) -> None:
    """SEMANTICS 13: borrow messages are batched (10,000 refs, one message)."""
    from actorflow._core.protocol import messages as m

    core = cluster._driver.core
    keeper = await Keeper.remote()
    seen: list[Any] = []
    kinds = (m.AddBorrow, m.DropBorrow, m.Reply)
    plain = {kind: core._route(kind) for kind in kinds}

    def counting(kind: type) -> Any:
        def handler(peer: Any, message: Any) -> None:
            seen.append(message)
            plain[kind](peer, message)

        return handler

    for kind in kinds:
        core._handlers[kind] = counting(kind)
    try:
        await keeper.keep([await af.put(n) for n in range(10_000)])
        [reply] = [message for message in seen if message.borrowed]
        assert len(reply.borrowed) == 10_000
        seen.clear()
        await keeper.drop()
        assert await asyncio.to_thread(leaks.until, lambda: not core.references.owned.entries or any(map(_drops_all, seen)))
        assert [type(message) for message in seen if not isinstance(message, m.Reply)] == [m.DropBorrow]
    finally:
        core._handlers.update(plain)


def _drops_all(message: Any) -> bool:
    return len(getattr(message, "indices", ())) == 10_000


@pytest.mark.parametrize("size", [10, LARGE])
async def test_references_in_the_state_of_an_actor_keep_objects_alive(size: int) -> None:
    keeper = Keeper.remote()
    await keeper.keep([make.remote(size)])
    gc.collect()
    assert [len(array) for array in await keeper.values()] == [size]
    again = await keeper.give()
    await keeper.drop()
    assert len(await again[0]) == size


async def test_an_actor_owns_what_it_puts_and_a_borrower_reads_it() -> None:
    keeper = Keeper.remote()
    [ref] = await keeper.make("owned there")
    assert await ref == "owned there"
    assert await pass_on(ref) == "owned there"
    [large] = await keeper.make(np.ones(LARGE))
    assert await total(large) == LARGE


async def test_17_the_death_of_an_owner_is_an_error_that_says_so() -> None:
    keeper = await Keeper.remote()
    [ref], pid = await keeper.make("gone with its owner"), await keeper.pid()
    await af.kill(keeper)
    # It is dead to the cluster before its process is: until then it may answer.
    assert await asyncio.to_thread(leaks.until, lambda: not Path(f"/proc/{pid}").exists())
    with pytest.raises(af.OwnerDiedError):
        await ref


async def test_14_each_get_gives_a_value_of_its_own_and_arrays_are_read_only() -> None:
    ref = await af.put({"list": [1], "array": np.zeros(LARGE)})
    first, second = await ref, await ref
    first["list"].append(2)
    assert second["list"] == [1]
    assert not first["array"].flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        first["array"][0] = 1

    @af.remote
    def writable(array: Any) -> bool:
        return bool(array.flags.writeable)

    assert await writable(await af.put(np.zeros(LARGE))) is False


async def test_14_only_out_of_band_buffers_are_shared() -> None:
    ref = await af.put({"large": np.zeros(LARGE), "text": ["a"], "bytes": b"x" * LARGE})
    first, second = await ref, await ref
    assert np.shares_memory(first["large"], second["large"])
    assert first["text"] is not second["text"]
    result = make.remote(LARGE)
    assert np.shares_memory(await result, await result)


async def test_14_a_tensor_may_be_written_to_and_nobody_else_sees_that() -> None:
    import torch

    @af.remote
    def change(tensor: torch.Tensor) -> float:
        tensor.add_(1)
        return float(tensor.float().sum())

    count = 2_000_000
    ref = await af.put({"weights": torch.ones(count, dtype=torch.bfloat16)})
    mine = (await ref)["weights"]
    mine[:10] = 7
    tensor = await af.put(torch.ones(count, dtype=torch.bfloat16))
    assert await af.get([change.remote(tensor), change.remote(tensor)]) == [2 * count, 2 * count]
    assert (await tensor).float().sum() == count
    assert (await ref)["weights"].float().sum() == count
    assert (mine[:10] == 7).all()
    assert (mine[10:] == 1).all()


async def test_14_arrow_tables_are_views_and_read_only() -> None:
    pa = pytest.importorskip("pyarrow")
    ref = await af.put(pa.table({"a": pa.array(np.arange(LARGE))}))
    first, second = await ref, await ref
    [buffers] = [[table["a"].chunk(0).buffers()[1] for table in (first, second)]]
    assert buffers[0].address == buffers[1].address
    assert not buffers[0].is_mutable
    array = first["a"].chunk(0).to_numpy(zero_copy_only=True)
    assert not array.flags.writeable

    @af.remote
    def look(table: Any) -> tuple[bool, int]:
        return table["a"].chunk(0).buffers()[1].is_mutable, table.num_rows

    assert await look(ref) == (False, LARGE)


async def test_14_a_small_array_is_read_only_too() -> None:
    ref = await af.put(np.zeros(4))
    assert not (await ref).flags.writeable


async def test_a_view_outlives_its_reference() -> None:
    ref = make.remote(LARGE)
    array = (await ref)[100:200]
    del ref
    gc.collect()
    await af.get([make.remote(LARGE) for _ in range(4)])
    assert (array == np.arange(100, 200)).all()


async def test_15_what_a_caller_changes_after_remote_does_not_matter() -> None:
    small, large = [1, 2, 3], np.zeros(LARGE)
    refs = [pass_on.remote(small), pass_on.remote(large)]
    small.append(4)
    large[:] = 7
    assert await refs[0] == [1, 2, 3]
    assert not (await refs[1]).any()


async def test_large_objects_are_freed_and_their_room_is_used_again() -> None:
    for _ in range(40):
        ref = await af.put(np.zeros(8_000_000))  # 64 MB each, 2.5 GB together
        assert len(await ref) == 8_000_000
        del ref


async def test_large_arguments_and_keyword_references() -> None:
    array = np.arange(LARGE)
    assert await total(array) == array.sum()
    assert await total(array=await af.put(array)) == array.sum()
    assert await total(array=make.remote(10)) == 45


async def test_a_failed_argument_fails_the_call_with_its_error() -> None:
    @af.remote
    def fail() -> int:
        raise LookupError("no such thing")

    with pytest.raises(LookupError, match="no such thing"):
        await total(fail.remote())
    with pytest.raises(LookupError, match="no such thing"):
        await pass_on(pass_on.remote(fail.remote()))


async def test_18_handles_may_be_dropped_anywhere_at_any_time(cluster: Any) -> None:
    refs = [make.remote(10) for _ in range(1000)]
    parts = [refs[start::4] for start in range(4)]
    del refs

    def drop(part: list[Any]) -> None:
        while part:
            part.pop()

    threads = [threading.Thread(target=drop, args=(part,)) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    cycle: list[Any] = [make.remote(10)]
    cycle.append(cycle)
    del cycle
    gc.collect()
    assert await asyncio.to_thread(leaks.until, lambda: not at_work(cluster)), at_work(cluster)


async def test_18_a_handle_goes_while_another_thread_holds_the_lock(cluster: Any) -> None:
    """SEMANTICS 18: `__del__` takes no lock: it may run in the middle of a collection, on a thread that holds one."""
    core = cluster._driver.core
    handles = [await af.put(n) for n in range(10)]
    locked, done = threading.Event(), threading.Event()

    def hold() -> None:
        with core.lock:
            locked.set()
            done.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    await asyncio.to_thread(locked.wait)
    dropper = threading.Thread(target=handles.clear)
    dropper.start()
    dropper.join(5)
    finished = not dropper.is_alive()
    done.set()
    holder.join()
    assert finished


async def test_18_dropped_handles_are_counted_by_a_timer_when_nothing_else_happens(cluster: Any) -> None:
    core = cluster._driver.core
    ref: Any = await af.put("kept")
    index = ref._entry.index
    assert index in core.references.owned.entries
    del ref
    # Nothing is called here, and nobody drains: only the timer is left.
    assert await asyncio.to_thread(leaks.until, lambda: index not in core.references.owned.entries)


async def test_18_a_borrowed_handle_that_is_dropped_is_told_to_its_owner_by_a_timer() -> None:
    class Owner(af.Actor):
        async def make(self) -> Any:
            self.ref = await af.put("owned there")
            return [self.ref]

        async def forget(self) -> None:
            from actorflow import _runtime

            self.index, self.core = self.ref._entry.index, _runtime.current()
            del self.ref

        async def is_gone(self) -> bool:
            return self.index not in self.core.references.owned.entries  # type: ignore[attr-defined]

    owner = Owner.remote()
    borrowed = await owner.make()
    await owner.forget()
    assert not await owner.is_gone()
    assert await borrowed[0] == "owned there"
    del borrowed
    gc.collect()
    while not await owner.is_gone():
        await asyncio.sleep(0.01)


async def test_a_reference_that_nobody_awaits_is_freed_when_its_call_ends(cluster: Any) -> None:
    @af.remote
    def slow() -> int:
        time.sleep(0.1)
        return 1

    for _ in range(8):
        slow.remote()
    assert await asyncio.to_thread(leaks.until, lambda: not at_work(cluster)), at_work(cluster)


async def test_a_borrower_that_outlives_its_call_keeps_the_object() -> None:
    keeper = await Keeper.remote()

    @af.remote
    async def hand_over(refs: list[Any], to: Any) -> None:
        await to.keep(refs)

    await hand_over([make.remote(LARGE)], keeper)
    gc.collect()
    await af.get([make.remote(10) for _ in range(20)])
    assert len((await keeper.values())[0]) == LARGE
    await keeper.drop()


async def test_a_borrower_dies_and_what_it_held_is_freed(cluster: Any) -> None:
    keeper = await Keeper.remote()
    await keeper.keep([make.remote(LARGE), await af.put("small")])
    await af.kill(keeper)
    del keeper
    assert await asyncio.to_thread(leaks.until, lambda: not at_work(cluster)), at_work(cluster)
