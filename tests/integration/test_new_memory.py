"""Shared memory that is made resident before anybody asks for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import actorflow as af
from actorflow._core.worker import store
from actorflow._core.worker.store import SLAB_BYTES_MAX, SLAB_SHARE, StoreClient
from tests.integration.leaks import until

pytestmark = pytest.mark.local_only("the memory of a local cluster, page by page")

MIB = 1024 * 1024


def client(session: Any) -> StoreClient:
    found: StoreClient = session._driver.core.store
    return found


def shared_bytes() -> int:
    """What of shared memory this process has mapped and resident."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssShmem")]
    return int(line.split()[1]) * 1024


def test_a_driver_finds_the_first_pages_of_its_cluster_resident_after_a_while() -> None:
    before = shared_bytes()
    with af.init(num_cpus=1, object_store_memory=8 * 1024 * MIB):
        assert until(lambda: shared_bytes() - before >= SLAB_BYTES_MAX)
        data = np.arange(SLAB_BYTES_MAX // 16, dtype=np.int64)
        ref = af.sync(af.put(data))
        assert shared_bytes() - before <= SLAB_BYTES_MAX + MIB, "it lies in what was made resident"
        assert np.array_equal(af.sync(ref), data)


def test_a_large_put_into_resident_memory_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(StoreClient, "ask_room", lambda self, size, then: asked.append(size))
    with af.init(num_cpus=1, object_store_memory=8 * 1024 * MIB) as session:
        assert until(lambda: client(session)._next_slab is not None)
        refs = [af.sync(af.put(np.full(24 * MIB, number, dtype=np.uint8))) for number in range(2)]
        assert asked == []
        assert [int(af.sync(ref).sum()) for ref in refs] == [0, 24 * MIB]
        slab = client(session)._slab
        assert slab is not None
        assert slab.left < 24 * MIB, "the third does not fit, and the slab is kept for what does"
        with pytest.raises(TimeoutError):
            af.sync(af.put(np.zeros(24 * MIB, dtype=np.uint8)), timeout=0.1)
        assert len(asked) == 1
        assert client(session)._slab is slab


def test_what_nobody_has_put_anything_into_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "WARM_FOR_S", 0.2)
    with af.init(num_cpus=1, object_store_memory=512 * MIB) as session:
        assert until(lambda: client(session)._next_slab is not None)
        assert until(lambda: client(session)._next_slab is None)
        assert not client(session)._asked


def test_a_small_arena_is_not_filled_with_pages_that_nobody_asked_for() -> None:
    before = shared_bytes()
    with af.init(num_cpus=1, object_store_memory=256 * MIB):
        assert until(lambda: shared_bytes() - before >= 256 * MIB // SLAB_SHARE)
        assert shared_bytes() - before <= 256 * MIB // SLAB_SHARE + MIB
