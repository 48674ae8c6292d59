"""Shared memory that is made resident before anybody asks for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import actorflow as af
from actorflow._core.worker.store import SLAB_SHARE, WARM_BYTES_MAX
from tests.integration.leaks import until

MIB = 1024 * 1024


def shared_bytes() -> int:
    """What of shared memory this process has mapped and resident."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssShmem")]
    return int(line.split()[1]) * 1024


def test_a_driver_finds_the_first_pages_of_its_cluster_resident_after_a_while() -> None:
    before = shared_bytes()
    with af.init(num_cpus=1, object_store_memory=8 * 1024 * MIB):
        assert until(lambda: shared_bytes() - before >= WARM_BYTES_MAX)
        data = np.arange(WARM_BYTES_MAX // 16, dtype=np.int64)
        ref = af.sync(af.put(data))
        assert shared_bytes() - before <= WARM_BYTES_MAX + MIB, "it lies in what was made resident"
        assert np.array_equal(af.sync(ref), data)


def test_a_small_arena_is_not_filled_with_pages_that_nobody_asked_for() -> None:
    before = shared_bytes()
    with af.init(num_cpus=1, object_store_memory=256 * MIB):
        assert until(lambda: shared_bytes() - before >= 256 * MIB // SLAB_SHARE)
        assert shared_bytes() - before <= 256 * MIB // SLAB_SHARE + MIB
