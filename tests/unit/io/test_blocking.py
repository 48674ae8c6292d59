"""Blocking code that waits for async code, and is torn out of it."""

import asyncio
import gc
import os
import select
from collections.abc import Iterator

import pytest

from actorflow._core.io.blocking import block_on, close_thread_loop


@pytest.fixture(autouse=True)
def _no_loop_is_left(_nothing_is_left: None) -> Iterator[None]:
    yield
    close_thread_loop()
    gc.collect()  # What was torn must not complain when it goes.


async def value() -> str:
    await asyncio.sleep(0)
    return "a value"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_what_is_interrupted_stops_where_it_waits_and_the_next_one_starts_afresh(error: type[BaseException], depth: int) -> None:
    left = list[int]()

    async def waits(depth: int) -> None:
        loop = asyncio.get_running_loop()
        try:
            if depth > 1:
                block_on(waits(depth - 1))
            else:
                loop.call_soon(raises)
                await loop.create_future()
        finally:
            left.append(depth)

    def raises() -> None:
        raise error

    for _ in range(3):
        with pytest.raises(error):
            block_on(waits(depth))
        assert left == list(range(1, depth + 1))
        left.clear()
        assert block_on(value()) == "a value"


def test_what_waits_on_its_way_out_is_left_there() -> None:
    async def stays() -> None:
        try:
            asyncio.get_running_loop().call_soon(interrupt)
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(0)

    with pytest.raises(KeyboardInterrupt):
        block_on(stays())
    assert block_on(value()) == "a value"


def test_a_registration_that_was_cut_in_two_is_forgotten_with_its_loop() -> None:
    """The kernel knows it, the loop does not: on this loop, every later registration of the same descriptor would fail."""
    read_fd, write_fd = os.pipe()
    os.write(write_fd, b"x")

    async def is_cut() -> None:
        loop = asyncio.get_running_loop()
        loop._selector._selector.register(read_fd, select.EPOLLIN)
        loop.call_soon(interrupt)
        await loop.create_future()

    async def watches() -> str:
        loop = asyncio.get_running_loop()
        readable = loop.create_future()
        loop.add_reader(read_fd, readable.set_result, "readable")
        try:
            return await readable
        finally:
            loop.remove_reader(read_fd)

    try:
        with pytest.raises(KeyboardInterrupt):
            block_on(is_cut())
        assert block_on(watches()) == "readable"
    finally:
        os.close(read_fd)
        os.close(write_fd)


def interrupt() -> None:
    raise KeyboardInterrupt
