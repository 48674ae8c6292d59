"""How the resources of a module are shared out over three hosts: none is lost, and none is made."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.three_hosts import WHOLE_AT, shares

OPTIONS: dict[str, Any] = {"num_cpus": 4, "num_gpus": 2, "resources": {"special": 2.0}, "memory": "8GiB"}


@pytest.mark.parametrize("why_whole", ["", "a task needs them on one node"])
def test_the_sums_are_those_of_one_node(why_whole: str) -> None:
    found = shares(OPTIONS, why_whole)
    for name in ("num_cpus", "num_gpus"):
        assert sum(share[name] for share in found) == OPTIONS[name]
    assert sum(share["resources"].get("special", 0) for share in found) == 2
    if why_whole:
        assert found[WHOLE_AT] == OPTIONS
    else:
        assert [share["num_cpus"] for share in found] == [2, 1, 1]
        assert sum(share["memory"] for share in found) == 8 << 30


@pytest.mark.parametrize("memory", ["8GB", "500MiB"])
def test_what_cannot_be_shared_out_is_told(memory: str) -> None:
    with pytest.raises(AssertionError, match="whole GiB"):
        shares({**OPTIONS, "memory": memory}, "")
