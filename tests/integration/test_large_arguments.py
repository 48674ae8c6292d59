"""Large arguments and a store that is short of room (SEMANTICS 15)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import actorflow as af

pytestmark = pytest.mark.local_only("the bounds of one small store")

ITEMS = 1_000_000  # int64: 8 MB each
STORE = 64_000_000


@pytest.fixture
def session(home: Path) -> Iterator[Any]:
    with af.init(num_cpus=2, object_store_memory=STORE, log_to_driver=False) as session:
        yield session


@af.remote
def total(array: Any) -> int:
    return int(array.sum())


class Holder(af.Actor):
    """Has a large argument of its constructor."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def total(self, more: Any) -> int:
        return int(self.array.sum() + more.sum())


def array(number: int) -> Any:
    return np.full(ITEMS, number, dtype=np.int64)


async def views_of_all_of_it() -> list[Any]:
    """Read as much as there is room for: none of it can go to disk meanwhile."""
    return [await (await af.put(array(number))) for number in range(7)]


def test_15_remote_never_waits_and_past_the_bound_it_raises_and_names_af_put(session: Any) -> None:
    core = session._driver.core
    core.large_arguments.bytes_max = 20_000_000

    async def main() -> None:
        held = await views_of_all_of_it()
        refs = [total.remote(array(number)) for number in (1, 2)]
        wanted = r"total.* 7\.6 MiB of arguments.*15\.3 MiB of earlier ones.*await af\.put"
        with pytest.raises(af.ObjectStoreFullError, match=wanted) as caught:
            total.remote(array(3))
        assert "19.1 MiB" in str(caught.value)
        assert not refs[0].done()
        held.clear()
        assert await af.get(refs) == [ITEMS, 2 * ITEMS]
        assert await total.remote(array(3)) == 3 * ITEMS

    af.sync(main())
    assert core.large_arguments.bytes == 0


def test_15_a_direct_call_waits_for_room(session: Any) -> None:
    core = session._driver.core
    core.large_arguments.bytes_max = 10_000_000

    async def main() -> None:
        held = await views_of_all_of_it()
        calls = [asyncio.ensure_future(total(array(number))) for number in range(4)]
        done, _ = await asyncio.wait(calls, timeout=0.3)
        assert not done
        assert core.large_arguments.bytes < 20_000_000, "the others wait without a copy"
        held.clear()
        assert await asyncio.gather(*calls) == [number * ITEMS for number in range(4)]

    af.sync(main())
    assert core.large_arguments.bytes == 0


def test_15_one_that_is_larger_than_the_bound_passes_alone(session: Any) -> None:
    session._driver.core.large_arguments.bytes_max = 1_000_000

    async def main() -> None:
        assert await total.remote(array(5)) == 5 * ITEMS

    af.sync(main())


def test_15_what_is_changed_after_remote_does_not_matter(session: Any) -> None:
    """Whether the arguments went into the slab at once or through private memory."""

    async def main() -> None:
        for items in (30_000, ITEMS):
            for _ in range(4):
                value = np.ones(items, dtype=np.int64)
                ref = total.remote(value)
                value[:] = 9
                assert await ref == items

    af.sync(main())


def test_15_arguments_of_actors_and_of_their_methods(session: Any) -> None:
    async def main() -> None:
        for items in (30_000, ITEMS):
            value = np.ones(items, dtype=np.int64)
            holder = Holder.remote(value)
            ref = holder.total.remote(value)
            value[:] = 9
            assert await ref == 2 * items
            assert await holder.total(np.ones(items, dtype=np.int64)) == 2 * items
            await af.kill(holder)

    af.sync(main())


def test_15_many_large_arguments_at_once_find_their_room_one_after_the_other(session: Any) -> None:
    async def main() -> None:
        refs = [total.remote(array(number)) for number in range(30)]  # 240 MB of arguments, a store of 64
        assert await af.get(refs) == [number * ITEMS for number in range(30)]

    af.sync(main())
    assert session._driver.core.large_arguments.bytes == 0
