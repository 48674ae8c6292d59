"""Scenario 9: more objects than the arena has room for. They go to disk and come back; the disk is slow, and at times full.

Invariants of its own:
    SC-13  what was on disk reads as it was written, by its owner and by others, and while it is read it stays
    SC-14  all of it was on disk at some time, and no file is left when its object is gone (CK-7, checked at the end)
"""

from __future__ import annotations

import asyncio
from typing import Any

import actorflow as af
from tests.sim.scenarios.stage import Main, Stage
from tests.sim.scenarios.tasks import Blob

OPTIONS: dict[str, Any] = {"object_store_memory": "1MiB"}
SIZES = (105_000, 130_000, 200_000, 300_000)
OBJECTS_MAX = 30


def blob(byte: int, size: int) -> Blob:
    return Blob(bytes([byte]) * size)


def check_blob(value: Blob, byte: int) -> None:
    """SC-13."""
    assert value.is_all(byte), f"SC-13: {bytes(memoryview(value.data)[:8])!r}... is not {byte}"


@af.remote
def make_blob(byte: int, size: int) -> Blob:
    return blob(byte, size)


@af.remote
async def put_blob(byte: int, size: int) -> list[Any]:
    """A reference that the worker owns."""
    return [await af.put(blob(byte, size))]


@af.remote
def check_argument(value: Blob, byte: int) -> bool:
    check_blob(value, byte)
    return True


@af.remote
async def read_slowly(box: list[Any], byte: int, seconds: float) -> bool:
    """Looks again after a while: what is read must stay where it is."""
    value = await box[0]
    check_blob(value, byte)
    await asyncio.sleep(seconds)
    check_blob(value, byte)
    return True


def prepare(stage: Stage, *, disk_fails: bool = True) -> Main:
    """Draw what is made, read and dropped."""
    rng = stage.rng

    async def main() -> None:
        kept: list[tuple[list[Any], int]] = []
        background: list[Any] = []

        async def new() -> None:
            byte, size, how = rng.randrange(1, 200), rng.choice(SIZES), rng.randrange(4)
            if how == 0:
                kept.append(([make_blob.remote(byte, size)], byte))
            elif how == 1:
                kept.append((await put_blob(byte, size), byte))
            else:
                kept.append(([await af.put(blob(byte, size))], byte))

        async def look() -> None:
            box, byte = rng.choice(kept)
            check_blob(await box[0], byte)

        async def look_slowly() -> None:
            box, byte = rng.choice(kept)
            value = await box[0]
            await asyncio.sleep(rng.random() * 0.1)
            check_blob(value, byte)

        async def look_there() -> None:
            box, byte = rng.choice(kept)
            assert await check_argument(box[0], byte), "SC-13"

        async def look_there_slowly() -> None:
            box, byte = rng.choice(kept)
            background.append(read_slowly.remote(box, byte, rng.random() * 0.2))

        async def drop() -> None:
            kept.pop(rng.randrange(len(kept)))

        async def break_disk() -> None:
            if disk_fails:
                stage.cluster.spill.write_failures_planned += rng.randrange(2)

        actions = [new, new, new, look, look_slowly, look_there, look_there_slowly, drop, break_disk]
        for _ in range(rng.randrange(30, 70)):
            action = new if len(kept) < 8 else rng.choice(actions)
            if action is new and len(kept) >= OBJECTS_MAX:
                action = drop
            if rng.random() < 0.2:
                await asyncio.gather(action(), new())
            else:
                await action()
            if rng.random() < 0.1:
                await asyncio.sleep(rng.random())
        rng.shuffle(kept)
        for box, byte in kept:
            check_blob(await box[0], byte)
        for ref in background:
            assert await ref, "SC-13"

    return main


def all_went_to_disk(stage: Stage) -> None:
    """SC-14."""
    assert stage.cluster.spill.writes, "SC-14: the arena was large enough for this seed"
    assert stage.cluster.spill.reads, "SC-14: nothing came back"
