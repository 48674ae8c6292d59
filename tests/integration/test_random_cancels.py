"""The cancel test, small: call trees cancelled at random moments in every way (SEMANTICS 1-7). At length: `make cancel-test`."""

from __future__ import annotations

import pytest

from tests.soak import random_cancels

CLUSTER_OPTIONS = {"num_cpus": random_cancels.CPUS, "cancel_grace": random_cancels.GRACE_S}


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("seed", [1, 2])
async def test_two_hundred_cancels_leave_nothing(seed: int) -> None:
    report = await random_cancels.run(200, seed)
    assert report.wrong == []
    assert sum(report.ends.values()) == 200


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("cluster")
async def test_ten_thousand_cancels_leave_nothing() -> None:
    report = await random_cancels.run(10_000, seed=7)
    assert report.wrong == []
