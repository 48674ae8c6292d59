"""actorflow's rows of `benchmarks.objects`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np

import actorflow as af
from benchmarks import rows
from benchmarks.systems.serve import AsyncStep, AsyncWorkload


class Putter(af.Actor):
    """Puts arrays from a process of its own."""

    @af.method
    async def put(self, count: int, size: int) -> None:
        array = np.zeros(size, dtype=np.uint8)
        for _ in range(count):
            await af.put(array)


@af.remote
def items(count: int) -> Iterator[int]:
    yield from range(count)


@asynccontextmanager
async def put_200k() -> AsyncIterator[AsyncStep]:
    array = np.zeros(rows.MIDDLE_BYTES, dtype=np.uint8)

    async def step() -> None:
        _ = [await af.put(array) for _ in range(rows.MIDDLE_COUNT)]

    yield step


@asynccontextmanager
async def put_get_200k() -> AsyncIterator[AsyncStep]:
    array = np.zeros(rows.MIDDLE_BYTES, dtype=np.uint8)

    async def step() -> None:
        refs = [await af.put(array) for _ in range(rows.MIDDLE_COUNT)]
        for ref in refs:
            await ref

    yield step


def put_one(size: int) -> AsyncWorkload:
    @asynccontextmanager
    async def workload() -> AsyncIterator[AsyncStep]:
        array = np.ones(size, dtype=np.uint8)

        async def step() -> None:
            await af.put(array)

        yield step

    return workload


@asynccontextmanager
async def get_1g() -> AsyncIterator[AsyncStep]:
    ref = await af.put(np.ones(rows.BULK_BYTES, dtype=np.uint8))

    async def step() -> None:
        await ref

    yield step


@asynccontextmanager
async def put_two() -> AsyncIterator[AsyncStep]:
    putters = [await Putter.remote() for _ in range(2)]

    async def step() -> None:
        await af.get([p.put.remote(rows.TWO_CLIENTS_PUTS, rows.TWO_CLIENTS_BYTES) for p in putters])

    yield step
    for putter in putters:
        await af.kill(putter)


@asynccontextmanager
async def stream() -> AsyncIterator[AsyncStep]:
    async def step() -> None:
        async for _ in items(rows.STREAM_ITEMS):
            pass

    yield step


WORKLOADS: dict[str, Any] = {
    "obj_put_200k": put_200k,
    "obj_put_get_200k": put_get_200k,
    "obj_put_16m": put_one(rows.BLOCK_BYTES),
    "obj_put_1g": put_one(rows.BULK_BYTES),
    "obj_get_1g": get_1g,
    "obj_put_two": put_two,
    "obj_stream": stream,
}
