"""More objects than the arena has room for, on real processes and a real disk (ST-7, ST-8; SEMANTICS 14 and 16)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import actorflow as af
from actorflow.testing import Cluster
from tests.integration.leaks import until

pytestmark = pytest.mark.local_only("one small store, and its files on the disk of this host")

MB = 1_000_000
STORE = 64 * MB
ITEMS = 1_000_000  # int64: 8 MB each


@pytest.fixture
def session(home: Path) -> Iterator[Any]:
    with af.init(num_cpus=2, object_store_memory=STORE, log_to_driver=False) as session:
        yield session


def files(home: Path) -> list[Path]:
    return list(home.glob("actorflow-*/*/spill/*"))


def array(number: int) -> Any:
    return np.full(ITEMS, number, dtype=np.int64)


def check(value: Any, number: int) -> None:
    assert value.shape == (ITEMS,)
    assert not value.flags.writeable, "SEMANTICS 14"
    assert (value == number).all(), number


@af.remote
def make(number: int) -> Any:
    return array(number)


@af.remote
def total(value: Any) -> int:
    return int(value.sum())


@af.remote
async def total_of_box(box: list[Any]) -> int:
    return int((await box[0]).sum())


def test_three_times_the_store_goes_to_disk_and_comes_back_and_leaves_no_file(session: Any, home: Path) -> None:
    async def main() -> None:
        refs = [await af.put(array(number)) for number in range(24)]
        assert files(home), "192 MB do not fit in 64"
        for number in reversed(range(24)):
            check(await refs[number], number)
        for number in range(24):
            check(await refs[number], number)

    af.sync(main())
    assert until(lambda: not files(home)), "ST-8"


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_objects_go_where_the_user_says(home: Path, tmp_path: Path, scheme: str) -> None:
    where = tmp_path / "scratch" / "spill"

    async def main() -> None:
        refs = [await af.put(array(number)) for number in range(20)]
        [ours] = where.iterdir()
        assert any(path.name != "lock" for path in ours.iterdir()), "160 MB do not fit in 64"
        assert not files(home)
        for number in range(20):
            check(await refs[number], number)
        assert await af.get([total.remote(ref) for ref in refs]) == [number * ITEMS for number in range(20)]

    with af.init(num_cpus=2, object_store_memory=STORE, object_spilling_directory=f"{scheme}{where}"):
        af.sync(main())
    assert until(lambda: list(where.iterdir()) == []), "DI-3"


async def test_nodes_have_a_place_of_their_own_in_one_directory(tmp_path: Path) -> None:
    with Cluster(2, object_store_memory=STORE, object_spilling_directory=tmp_path) as cluster:
        async with af.init(address=cluster.address):
            nodes = [row["node_id"] for row in await af.state.list_nodes()]
            refs = [make.options(scheduling_strategy=af.NodeAffinity(nodes[number % 2])).remote(number) for number in range(24)]
            await af.wait(refs, num_returns=24)
            assert len(list(tmp_path.iterdir())) == 2
            for number, ref in enumerate(refs):
                check(await ref, number)
                refs[number] = None
    assert list(tmp_path.iterdir()) == []


def test_results_and_arguments_that_are_on_disk_are_read_by_others(session: Any, home: Path) -> None:
    async def main() -> None:
        refs = [make.remote(number) for number in range(20)]
        await af.wait(refs, num_returns=20)
        assert files(home)
        assert await af.get([total.remote(ref) for ref in refs]) == [number * ITEMS for number in range(20)]
        assert await af.get([total_of_box.remote([ref]) for ref in refs]) == [number * ITEMS for number in range(20)]

    af.sync(main())
    assert until(lambda: not files(home))


def test_what_is_being_read_stays_where_it_is(session: Any) -> None:
    """A view shows the same bytes for as long as somebody has it, whatever goes to disk around it."""

    async def main() -> None:
        first = await (await af.put(array(1)))
        ref = await af.put(array(2))
        second = await ref
        refs = [await af.put(array(number)) for number in range(3, 20)]
        check(first, 1)
        check(second, 2)
        for number, ref in enumerate(refs, 3):
            check(await ref, number)
        check(first, 1)
        check(second, 2)

    af.sync(main())


def test_many_readers_of_what_is_on_disk_share_one_copy(session: Any) -> None:
    async def main() -> None:
        refs = [await af.put(array(number)) for number in range(16)]
        values = await asyncio.gather(*(refs[0] for _ in range(20)))
        for value in values:
            check(value, 0)
        assert len({value.ctypes.data for value in values}) == 1

    af.sync(main())


def test_objects_of_200_kb_from_slabs_go_too(session: Any, home: Path) -> None:
    async def main() -> None:
        small = [np.full(25_000, number, dtype=np.int64) for number in range(1_000)]  # 200 KB each
        refs = [await af.put(value) for value in small]
        assert files(home)
        for number in range(0, 1_000, 7):
            assert (await refs[number] == number).all()

    af.sync(main())
    assert until(lambda: not files(home))


def test_semantics_16_what_is_held_by_views_stays_and_the_error_says_who_holds_it(session: Any) -> None:
    """Nothing can go: the whole store is being read."""

    async def main() -> None:
        held = [await (await af.put(array(number))) for number in range(7)]
        with pytest.raises(af.ObjectStoreFullError, match=r"object store has 61 MiB.*driver|Drop references and views"):
            await asyncio.gather(*(af.put(array(number)) for number in range(3)))
        for number, value in enumerate(held):
            check(value, number)
        del held, value
        check(await (await af.put(array(9))), 9)

    af.sync(main())


def test_a_store_that_was_shut_down_leaves_no_file(home: Path) -> None:
    with af.init(num_cpus=1, object_store_memory=STORE, log_to_driver=False):
        refs = [af.sync(af.put(array(number))) for number in range(20)]
        assert files(home)
        assert refs
    assert not files(home)


def test_a_file_that_somebody_has_deleted_is_an_error_that_says_so(session: Any, home: Path) -> None:
    async def main() -> None:
        refs = [await af.put(array(number)) for number in range(20)]
        for path in files(home):
            os.unlink(path)
        failed = 0
        for number, ref in enumerate(refs):
            try:
                check(await ref, number)
            except af.ObjectLostError as error:
                assert "cannot be read: No such file or directory" in str(error)
                failed += 1
        assert failed

    af.sync(main())
