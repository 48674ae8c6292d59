"""Objects that the cluster owns, while two things go wrong at one time."""

from __future__ import annotations

import actorflow as af
from actorflow.testing import World
from tests.sim.test_durable_objects import SMALL, ended, keepers, nothing, stage, table
from tests.sim.test_transfers import value


def test_17_a_namespace_that_was_over_when_the_head_died_is_over_when_it_is_back(sim_seed: int) -> None:
    """The head had not looked yet whether that was the last one of it."""

    async def main() -> None:
        await af.put(value(2), durable=True)
        await af.put(SMALL, durable=True)

    with World(sim_seed) as world:
        cluster, _ = stage(world, 2, durable=True)
        cluster.driver(nothing, stay=True)
        ended(world, cluster.driver(main, namespace="fleeting"))
        world.run_for(0.3)
        assert len(table(cluster)) == 2
        assert cluster.sim_head is not None
        cluster.sim_head.kill(machine_down=False)
        world.run_for(60.0)
        assert len(table(cluster)) == 0
        assert keepers(cluster) == []
