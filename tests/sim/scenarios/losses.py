"""Scenario 10: what went to disk is lost there, again and again, and results are made again from their lineage.

Invariants of its own:
    SC-15  a lost result has the value that it had, whoever reads it, and however long the chain of calls that made it is
    SC-16  what cannot be made again is an ObjectLostError that says why
"""

from __future__ import annotations

import asyncio
from typing import Any

import actorflow as af
from tests.sim.scenarios.memory import blob
from tests.sim.scenarios.stage import Main, Stage
from tests.sim.scenarios.tasks import Blob

OPTIONS: dict[str, Any] = {"object_store_memory": "2MiB"}
SIZES = (105_000, 130_000, 200_000)


@af.remote(max_retries=-1)
def make_blob(byte: int, size: int) -> Blob:
    return blob(byte, size)


@af.remote(max_retries=-1)
def add_one(value: Blob, step: int) -> Blob:
    """A link of a chain; `step` is a small result, which is kept."""
    data = bytes(memoryview(value.data))
    assert data == bytes([data[0]]) * len(data), "SC-15"
    return blob(data[0] + step, len(data))


@af.remote(max_retries=-1)
def one() -> int:
    return 1


@af.remote(max_retries=-1)
def two_blobs(byte: int, size: int) -> tuple[Blob, Blob]:
    return blob(byte, size), blob(byte + 1, size)


@af.remote(max_retries=-1)
def check_argument(value: Blob, byte: int) -> bool:
    assert value.is_all(byte), "SC-15"
    return True


@af.remote(max_retries=-1)
async def check_box(box: list[Any], byte: int) -> bool:
    assert (await box[0]).is_all(byte), "SC-15"
    return True


class Reader(af.Actor):
    """Reads arguments in the order of the calls."""

    def __init__(self) -> None:
        self.read: list[int] = []

    def check(self, value: Blob, byte: int) -> int:
        assert value.is_all(byte), "SC-15"
        self.read.append(byte)
        return len(self.read)


def prepare(stage: Stage) -> Main:
    """Draw what is made, lost and read."""
    rng = stage.rng

    async def main() -> None:
        reader = Reader.remote()
        kept: list[tuple[Any, int]] = []
        puts: list[tuple[Any, int]] = []
        asked = 0

        async def new() -> None:
            byte, size = rng.randrange(1, 100), rng.choice(SIZES)
            how = rng.randrange(4)
            if how == 0:
                first, second = two_blobs.options(num_returns=2).remote(byte, size)
                kept.append((first, byte))
                if rng.random() < 0.5:
                    kept.append((second, byte + 1))
            elif how == 1:
                ref, links = make_blob.remote(byte, size), rng.randrange(1, 5)
                for _ in range(links):
                    ref = add_one.remote(ref, one.remote() if rng.random() < 0.5 else 1)
                kept.append((ref, byte + links))
            else:
                kept.append((make_blob.remote(byte, size), byte))

        async def put() -> None:
            byte = rng.randrange(1, 100)
            puts.append((await af.put(blob(byte, rng.choice(SIZES))), byte))

        async def settle() -> None:
            await af.wait([ref for ref, _ in kept], num_returns=len(kept), timeout=2.0)

        async def lose() -> None:
            stage.cluster.spill.lose_files()

        async def look() -> None:
            ref, byte = rng.choice(kept)
            assert (await ref).is_all(byte), "SC-15"

        async def look_at_the_same() -> None:
            ref, byte = rng.choice(kept)
            for value in await asyncio.gather(ref, ref, check_box(([ref]), byte)):
                assert value is True or value.is_all(byte), "SC-15"

        async def look_there() -> None:
            nonlocal asked
            ref, byte = rng.choice(kept)
            how = rng.randrange(3)
            if how == 0:
                assert await check_argument(ref, byte)
            elif how == 1:
                assert await check_box([ref], byte)
            else:
                asked += 1
                assert await reader.check(ref, byte) == asked

        async def drop() -> None:
            kept.pop(rng.randrange(len(kept)))

        actions = [new, new, put, settle, lose, lose, look, look_at_the_same, look_there, look_there, drop]
        for _ in range(rng.randrange(25, 50)):
            action = new if len(kept) < 6 else rng.choice(actions)
            if action in (new, put) and len(kept) + len(puts) > 25:
                action = drop
            await action()
        stage.cluster.spill.lose_files()
        rng.shuffle(kept)
        for ref, byte in kept:
            assert (await ref).is_all(byte), "SC-15"
        for ref, byte in puts:
            try:
                assert (await ref).is_all(byte), "SC-15"
            except af.ObjectLostError as error:
                assert "only results of tasks" in str(error), "SC-16"

    return main
