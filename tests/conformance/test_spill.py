"""The contract of SpillFiles."""

import asyncio
import random

import pytest

from actorflow._core.io.ports import SpilledFile
from tests.conformance.worlds import SpillWorld


async def written(world: SpillWorld, number: int, offset: int, size: int) -> str:
    done: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    world.spill.write(number, offset, size, done.set_result)
    return await done


async def read(world: SpillWorld, number: int, offset: int, size: int) -> str:
    done: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    world.spill.read(number, offset, size, done.set_result)
    return await done


@pytest.mark.parametrize("size", [1, 4096, 100_000])
def test_what_was_written_is_read_to_another_place(spill_world: SpillWorld, size: int) -> None:
    data = random.Random(size).randbytes(size)

    async def scenario() -> None:
        spill_world.arena.write(4096, data)
        assert await written(spill_world, 1 << 20 | 1, 4096, size) == ""
        spill_world.arena.write(4096, b"x" * size)
        assert await read(spill_world, 1 << 20 | 1, 200_704, size) == ""
        assert bytes(spill_world.arena.view(200_704, size)) == data
        assert await read(spill_world, 1 << 20 | 1, 0, size) == "", "it is there until it is deleted"
        assert bytes(spill_world.arena.view(0, size)) == data
        spill_world.spill.delete(1 << 20 | 1)

    spill_world.run(scenario())


def test_many_at_once(spill_world: SpillWorld) -> None:
    size, count = 5_000, 20

    async def scenario() -> None:
        for number in range(count):
            spill_world.arena.write(number * 8192, bytes([number]) * size)
        assert await asyncio.gather(*(written(spill_world, number, number * 8192, size) for number in range(count))) == [""] * count
        places = list(range(count))
        random.Random(3).shuffle(places)
        assert await asyncio.gather(*(read(spill_world, number, places[number] * 8192, size) for number in range(count))) == [""] * count
        for number in range(count):
            assert bytes(spill_world.arena.view(places[number] * 8192, size)) == bytes([number]) * size

    spill_world.run(scenario())


def test_what_fails_says_why_and_leaves_no_file(spill_world: SpillWorld) -> None:
    async def scenario() -> None:
        spill_world.fail_next()
        assert "disk" in await written(spill_world, 1, 0, 4096)
        assert spill_world.files() == 0
        assert await written(spill_world, 1, 0, 4096) == "", "it may be tried again"
        spill_world.fail_next()
        assert "disk" in await read(spill_world, 1, 8192, 4096)
        assert await read(spill_world, 1, 8192, 4096) == ""

    spill_world.run(scenario())


def test_delete_is_idempotent_and_close_deletes_everything(spill_world: SpillWorld) -> None:
    async def scenario() -> None:
        for number in range(3):
            assert await written(spill_world, number, 0, 4096) == ""
        spill_world.spill.delete(0)
        spill_world.spill.delete(0)
        spill_world.spill.delete(77)
        async with asyncio.timeout(20):
            while spill_world.files() != 2:
                await asyncio.sleep(0.001)
        spill_world.spill.close()
        assert spill_world.files() == 0

    spill_world.run(scenario())


def test_an_open_file_stays_readable_though_it_is_deleted(spill_world: SpillWorld) -> None:
    data = random.Random(7).randbytes(20_000)

    async def part(file: SpilledFile, start: int, length: int) -> tuple[bytes, str]:
        done: asyncio.Future[tuple[bytes, str]] = asyncio.get_running_loop().create_future()
        file.read_part(start, length, lambda *answer: done.set_result(answer))
        return await done

    async def scenario() -> None:
        spill_world.arena.write(4096, data)
        assert await written(spill_world, 5, 4096, len(data)) == ""
        file = spill_world.spill.open(5)
        spill_world.spill.delete(5)
        assert await part(file, 0, 1_000) == (data[:1_000], "")
        assert await part(file, 19_000, 1_000) == (data[19_000:], "")
        spill_world.fail_next()
        broken, problem = await part(file, 0, 10)
        assert problem
        assert not broken
        file.close()

    spill_world.run(scenario())
