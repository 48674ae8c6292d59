"""A failure with less and less beside it."""

from __future__ import annotations

import asyncio
import random

import pytest

from actorflow.testing import FaultPlan, Host, Nemesis, SimulationMisuse, World, shrink


def test_sk_1_what_is_left_is_what_it_takes() -> None:
    for seed in range(50):
        rng = random.Random(seed)
        items = list(range(rng.randint(1, 40)))
        needed = sorted(rng.sample(items, rng.randint(0, min(4, len(items)))))
        assert shrink(items, lambda part, needed=needed: set(needed) <= set(part)) == needed  # type: ignore[misc]


def test_sk_1_what_does_not_fail_with_all_is_refused() -> None:
    with pytest.raises(SimulationMisuse, match="does not fail with all of them"):
        shrink([1, 2], lambda part: False)


@pytest.mark.parametrize("runs_max", [1, 2, 7, 30])
def test_sk_2_so_many_runs_at_most(runs_max: int) -> None:
    ran: list[list[int]] = []

    def fails(part: list[int]) -> bool:
        ran.append(part)
        return {3, 60} <= set(part)

    assert {3, 60} <= set(shrink(range(100), fails, runs_max))
    assert len(ran) <= runs_max


def made(seed: int, only: list[int] | None) -> list[str]:
    with World(seed) as world:
        for number in range(4):
            world.host(f"host-{number}").start(ticks)
        nemesis = Nemesis(world, plan=FaultPlan(gap_steps_mean=20, reset=0, delay=0), only=only)
        nemesis.start()
        world.run_for(100.0)
        return nemesis.made


async def ticks(host: Host) -> None:
    while True:
        await asyncio.sleep(0.1)


def test_the_faults_of_a_seed_are_made_again_by_number() -> None:
    for seed in range(20):
        all_of_them = made(seed, None)
        assert len(all_of_them) == 5
        assert made(seed, list(range(5))) == all_of_them
        assert made(seed, [0]) == all_of_them[:1]
        assert made(seed, [0, 1]) == all_of_them[:2]
        assert len(made(seed, [1, 3])) == 2
        assert made(seed, []) == []
