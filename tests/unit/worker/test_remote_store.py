"""What a driver without shared memory cuts its values into: the content of their extents, as those have it who copy it there themselves."""

from __future__ import annotations

import random

import pytest

from actorflow._core.serialization.values import Pickled
from actorflow._core.worker.remote_store import _Cutter, _Upload
from actorflow._core.worker.store import SKEW_BYTES_MIN


def content_of(upload: _Upload) -> bytes:
    """The extent, written as StoreClient.fill does it."""
    extent = bytearray(upload.size)
    for (start, length), part in zip(upload.spans, [upload.pickled.data, *(upload.pickled.buffers or ())], strict=True):
        extent[start : start + length] = part
    return bytes(extent)


@pytest.mark.parametrize("seed", range(60))
def test_the_parts_together_are_the_extent(seed: int) -> None:
    rng = random.Random(seed)
    sizes = [rng.choice([0, 1, 63, 64, 65, 5000, SKEW_BYTES_MIN, SKEW_BYTES_MIN + 1]) for _ in range(rng.randrange(12))]
    buffers = [memoryview(rng.randbytes(size)) for size in sizes]
    upload = _Upload(Pickled(rng.randbytes(rng.choice([1, 100, 100_000])), buffers or None, None), lambda result: None)
    cutter, at, parts = _Cutter(upload), 0, []
    while at < upload.size:
        length = min(rng.choice([1, 64, 1000, 32_768, 262_144]) if upload.size < 50_000 else 32_768, upload.size - at)
        parts.append(bytes(cutter.cut(at, length)))
        at += length
    assert b"".join(parts) == content_of(upload)


def test_a_part_of_a_large_buffer_is_no_copy() -> None:
    data = bytearray(10 * SKEW_BYTES_MIN)
    upload = _Upload(Pickled(b"pickle", [memoryview(data)], None), lambda result: None)
    start = upload.spans[1][0]
    part = _Cutter(upload).cut(start + 100, 32_768)
    data[100] = 7
    assert part[0] == 7
