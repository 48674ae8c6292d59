"""Actors that are called by other jobs, between nodes: what visitors can do, and what they cannot."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import actorflow as af
from actorflow import _nodes
from tests.security.strangers import Target

pytestmark = pytest.mark.timeout(240)
OPTIONS: dict[str, Any] = {"num_cpus": 2, "memory": "1GiB", "object_store_memory": "64MiB"}
LARGE = 3_000_000


class Shelf(af.Actor, num_cpus=0):
    """Keeps what it is given, and gives it back."""

    def __init__(self) -> None:
        self.kept: list[Any] = []

    @af.method
    async def size(self, value: Any) -> int:
        return len(value)

    @af.method
    async def make(self, size: int) -> bytes:
        return bytes(size)


@pytest.fixture
def nothing_is_left() -> None:
    """The cluster of this module looks itself."""


@pytest.fixture(scope="module", params=[True, False], ids=["TLS", "in the open"])
def two_nodes(request: pytest.FixtureRequest, home: Path) -> Iterator[Target]:
    nodes = [_nodes.start(port=0, tls=request.param, **OPTIONS)]
    try:
        nodes.append(_nodes.start(address=nodes[0].tcp, **OPTIONS))
        yield Target(nodes, request.param)
    finally:
        _nodes.stop()


def on(target: Target, number: int) -> Any:
    """Where this node is, for an actor."""
    place = f"tcp:{target.nodes[number].tcp}"
    [node_id] = [row["node_id"] for row in af.sync(af.state.list_nodes()) if row["address"].startswith(f"{place}/")]
    return af.NodeAffinity(node_id)


def test_a_detached_actor_of_another_job_on_another_node(two_nodes: Target) -> None:
    with af.init(address=two_nodes.nodes[0].tcp):
        place = on(two_nodes, 0)
        shelf = Shelf.options(name="shelf", lifetime="detached", scheduling_strategy=place).remote()
        assert af.sync(shelf.size(b"12")) == 2
    with af.init(address=two_nodes.nodes[1].tcp):
        found = af.sync(af.get_actor("shelf"))
        assert af.sync(found.size(b"123"), timeout=30) == 3
        af.sync(af.kill(found))
