# mypy: disable-error-code="import-not-found,untyped-decorator,attr-defined,misc"
"""Ray's rows of `benchmarks.objects`. Run by the peers' interpreter (`make peers`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import ray

from benchmarks import rows
from benchmarks.systems.serve import Step, Workload


@ray.remote(num_cpus=0)
class Putter:
    def put(self, count: int, size: int) -> None:
        array = np.zeros(size, dtype=np.uint8)
        for _ in range(count):
            ray.put(array)


@ray.remote
def items(count: int) -> Iterator[int]:
    for n in range(count):  # noqa: UP028  # Ray wants a generator that has `send`
        yield n


def put_many(*, get: bool) -> Workload:
    @contextmanager
    def workload() -> Iterator[Step]:
        array = np.zeros(rows.MIDDLE_BYTES, dtype=np.uint8)

        def step() -> None:
            refs = [ray.put(array) for _ in range(rows.MIDDLE_COUNT)]
            if get:
                for ref in refs:
                    ray.get(ref)

        yield step

    return workload


def put_one(size: int) -> Workload:
    @contextmanager
    def workload() -> Iterator[Step]:
        array = np.ones(size, dtype=np.uint8)
        yield lambda: ray.put(array)

    return workload


@contextmanager
def get_1g() -> Iterator[Step]:
    ref = ray.put(np.ones(rows.BULK_BYTES, dtype=np.uint8))
    yield lambda: ray.get(ref)


@contextmanager
def put_two() -> Iterator[Step]:
    putters = [Putter.remote() for _ in range(2)]
    yield lambda: ray.get([p.put.remote(rows.TWO_CLIENTS_PUTS, rows.TWO_CLIENTS_BYTES) for p in putters])
    for putter in putters:
        ray.kill(putter)


@contextmanager
def stream() -> Iterator[Step]:
    def step() -> None:
        for ref in items.remote(rows.STREAM_ITEMS):
            ray.get(ref)

    yield step


WORKLOADS: dict[str, Any] = {
    "obj_put_200k": put_many(get=False),
    "obj_put_get_200k": put_many(get=True),
    "obj_put_16m": put_one(rows.BLOCK_BYTES),
    "obj_put_1g": put_one(rows.BULK_BYTES),
    "obj_get_1g": get_1g,
    "obj_put_two": put_two,
    "obj_stream": stream,
}
