"""A proxy that harms: each harm is felt, and nothing else."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from actorflow.testing.fault_proxy import HELD_BYTES_MAX, FaultProxy
from tests.conformance.leaks import nothing_is_left


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    with nothing_is_left():
        yield


class Echo:
    """Says what it hears, and counts."""

    def __init__(self) -> None:
        self.heard = 0
        self.resets = 0
        self.ends = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                self.heard += len(data)
                writer.write(data)
                await writer.drain()
            self.ends += 1
        except ConnectionResetError:
            self.resets += 1
        finally:
            writer.close()


@asynccontextmanager
async def behind(seed: int = 0) -> AsyncIterator[tuple[FaultProxy, Echo]]:
    echo = Echo()
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    proxy = FaultProxy("127.0.0.1", server.sockets[0].getsockname()[1], seed=seed)
    async with server, proxy:
        yield proxy, echo


@asynccontextmanager
async def connected(proxy: FaultProxy) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def until(true: object) -> None:
    async with asyncio.timeout(10):
        while not true():  # type: ignore[operator]
            await asyncio.sleep(0.005)


async def test_bytes_pass_whole_and_in_order_and_the_end_too() -> None:
    """FP-1, with jitter."""
    data = bytes(range(256)) * 4_000
    async with behind() as (proxy, echo), connected(proxy) as (reader, writer):
        proxy.shape(delay_s=0.001, jitter_s=0.003)

        async def speak() -> None:
            for start in range(0, len(data), 50_001):
                writer.write(data[start : start + 50_001])
                await writer.drain()
            writer.write_eof()

        async with asyncio.TaskGroup() as group:
            group.create_task(speak())
            got = group.create_task(reader.read(-1))
        assert got.result() == data
        assert echo.ends == 1
        await until(lambda: proxy.connections == 0)


async def test_a_delay_is_felt_both_ways() -> None:
    async with behind() as (proxy, _), connected(proxy) as (reader, writer):
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        proxy.shape(delay_s=0.05)
        begun = time.monotonic()
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        assert time.monotonic() - begun >= 0.1


async def test_a_narrow_line_takes_its_time() -> None:
    async with behind() as (proxy, _), connected(proxy) as (reader, writer):
        proxy.shape(bytes_per_s=1_000_000, direction="there")
        begun = time.monotonic()
        writer.write(bytes(200_000))
        await reader.readexactly(200_000)
        assert time.monotonic() - begun >= 0.15


async def test_what_is_sent_into_a_cut_line_arrives_when_it_is_healed() -> None:
    async with behind() as (proxy, echo), connected(proxy) as (reader, writer):
        proxy.cut("there")
        writer.write(b"hello")
        await asyncio.sleep(0.05)
        assert echo.heard == 0
        proxy.heal()
        assert await reader.readexactly(5) == b"hello"
        proxy.cut("back")
        writer.write(b"again")
        await until(lambda: echo.heard == 10)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.05)
        proxy.heal()
        assert await reader.readexactly(5) == b"again"


async def test_a_connection_that_is_made_while_the_line_is_cut_leads_nowhere_until_then() -> None:
    async with behind() as (proxy, echo):
        proxy.cut()
        async with connected(proxy) as (reader, writer):
            writer.write(b"x")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.read(1), 0.05)
            assert echo.heard == 0
            proxy.heal()
            assert await reader.readexactly(1) == b"x"


async def test_a_reset_is_one_for_both() -> None:
    async with behind() as (proxy, echo), connected(proxy) as (reader, writer):
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            await reader.read(1)
        await until(lambda: echo.resets == 1)
        async with connected(proxy) as (again, other):
            other.write(b"y")
            assert await again.readexactly(1) == b"y"


async def test_who_sends_into_a_cut_line_feels_it_after_a_while() -> None:
    """FP-2."""
    async with behind() as (proxy, _), connected(proxy) as (_, writer):
        proxy.cut()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                for _ in range(64):
                    writer.write(bytes(HELD_BYTES_MAX))
                    await writer.drain()


async def test_nobody_behind_it_is_a_reset() -> None:
    proxy = FaultProxy("127.0.0.1", 1)
    async with proxy, connected(proxy) as (reader, _):
        with pytest.raises(ConnectionResetError):
            await reader.read(1)


async def test_it_can_refuse() -> None:
    async with behind() as (proxy, echo):
        proxy.refuses = True
        async with connected(proxy) as (reader, _):
            with pytest.raises(ConnectionResetError):
                await reader.read(1)
        assert echo.heard == 0


@pytest.mark.parametrize("wrong", [{"delay_s": -1}, {"jitter_s": -0.1}, {"bytes_per_s": 0}, {"direction": "up"}])
async def test_what_no_line_is(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="delays are 0 or more|'there'"):
        FaultProxy("127.0.0.1", 1).shape(**wrong)  # type: ignore[arg-type]


async def test_a_side_that_ends_with_a_reset_is_no_error_of_the_proxy() -> None:
    told: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
    async with behind() as (proxy, _), connected(proxy) as (reader, writer):
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        async with asyncio.timeout(10):
            while proxy.connections:
                await asyncio.sleep(0.01)
    assert not told
