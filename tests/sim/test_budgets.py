"""What is counted is counted exactly: attempts, restarts, calls that run at once, workers that are kept (core.md 1.2, 1.3).

Whoever dies here does so by itself, at a moment that its call draws.
"""

import asyncio
import random
from typing import Any

import pytest

import actorflow as af
from actorflow.testing import SimCluster, World, simulate

RUNS: dict[str, int] = {}
"""How often each thing ran. All simulated processes share this module."""


def ran(key: str) -> int:
    """Count one run; returns how many there are now."""
    RUNS[key] = RUNS.get(key, 0) + 1
    return RUNS[key]


async def die(after_s: float) -> None:
    """End this process, without another word."""

    def end() -> None:
        raise SystemExit(3)

    asyncio.get_running_loop().call_later(after_s, end)
    await asyncio.Event().wait()


@af.remote(num_cpus=0.1)
async def mortal(key: str, deaths: int, seconds: float) -> int:
    """Its first attempts die."""
    run = ran(key)
    await asyncio.sleep(seconds)
    if run <= deaths:
        await die(seconds)
    return run


@af.remote(num_cpus=0.1)
async def moody(key: str, failures: int) -> int:
    """Its first attempts raise."""
    run = ran(key)
    await asyncio.sleep(0.001)
    if run <= failures:
        raise ValueError(f"attempt {run}")
    return run


def test_a_task_is_tried_as_often_as_max_retries_says(sim_seed: int) -> None:
    rng = random.Random(f"retries {sim_seed}")
    calls = [(n, rng.randrange(4), rng.randrange(6), rng.choice((0.0, 0.002, 0.03))) for n in range(8)]
    RUNS.clear()

    async def one(number: int, retries: int, deaths: int, seconds: float) -> None:
        key = f"t{number}"
        # Each of a class of its own: behind another one on the same worker it may die before the result of that one has left.
        call = mortal.options(max_retries=retries, num_cpus=0.1 + number / 100)(key, deaths, seconds)
        if deaths <= retries:
            assert await call == deaths + 1
        else:
            with pytest.raises(af.WorkerCrashedError):
                await call
        assert RUNS[key] == min(deaths, retries) + 1, f"{key}: {deaths} deaths, {retries} retries"

    async def main() -> None:
        await asyncio.gather(*(one(*call) for call in calls))

    simulate(main, sim_seed, num_cpus=2)


def test_errors_are_retried_as_often_as_max_retries_says_and_only_where_they_are_to_be(sim_seed: int) -> None:
    rng = random.Random(f"errors {sim_seed}")
    calls = [(f"e{n}", rng.randrange(4), rng.randrange(6), rng.random() < 0.7) for n in range(8)]
    RUNS.clear()

    async def one(key: str, retries: int, failures: int, wanted: bool) -> None:
        call = moody.options(max_retries=retries, retry_exceptions=[ValueError] if wanted else [KeyError])(key, failures)
        budget = retries if wanted else 0
        if failures <= budget:
            assert await call == failures + 1
        else:
            with pytest.raises(ValueError, match=f"attempt {budget + 1}"):
                await call
        assert RUNS[key] == min(failures, budget) + 1

    async def main() -> None:
        await asyncio.gather(*(one(*call) for call in calls))

    simulate(main, sim_seed, num_cpus=2)


class Mortal(af.Actor, num_cpus=0.1):
    def __init__(self, key: str) -> None:
        self.key = key
        self.life = ran(key)

    async def live(self) -> int:
        return self.life

    async def die(self, after_s: float) -> None:
        ran(f"{self.key} calls")
        await die(after_s)


def test_an_actor_lives_as_often_as_max_restarts_says(sim_seed: int) -> None:
    rng = random.Random(f"lives {sim_seed}")
    actors = [(f"a{n}", rng.randrange(4), rng.randrange(3)) for n in range(5)]
    RUNS.clear()

    async def one(key: str, restarts: int, call_retries: int) -> None:
        actor = Mortal.options(max_restarts=restarts, max_task_retries=call_retries).remote(key)
        life, calls = 1, 0
        while life <= restarts + 1:
            async with asyncio.timeout(60):
                while await alive(actor) < life:
                    await asyncio.sleep(0.01)
            with pytest.raises((af.ActorDiedError, af.ActorUnavailableError)):
                await actor.die(rng.choice((0.0, 0.003)))
            lives = min(call_retries + 1, restarts + 2 - life)
            life, calls = life + lives, calls + lives
        with pytest.raises(af.ActorDiedError, match=f"max_restarts={restarts}|{restarts} restarts|more often"):
            await actor.live()
        assert (RUNS[key], RUNS[f"{key} calls"]) == (restarts + 1, calls)

    async def main() -> None:
        await asyncio.gather(*(one(*actor) for actor in actors))

    simulate(main, sim_seed, num_cpus=2)


async def alive(actor: Any) -> int:
    """Which life it has; 0 while it has none."""
    try:
        return await actor.live()
    except af.ActorUnavailableError:
        return 0


class Wide(af.Actor, num_cpus=0.1):
    """Counts how many of its calls run at once."""

    def __init__(self) -> None:
        self.now = self.most = 0

    async def work(self, seconds: float) -> int:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(seconds)
        finally:
            self.now -= 1
        return self.most


def test_as_many_calls_run_at_once_as_max_concurrency_says_and_no_more(sim_seed: int) -> None:
    rng = random.Random(f"width {sim_seed}")
    width = rng.randrange(1, 6)

    async def main() -> None:
        wide = Wide.options(max_concurrency=width).remote()
        calls = [wide.work.remote(rng.choice((0.001, 0.01, 0.05))) for _ in range(12)]
        await asyncio.sleep(rng.choice((0.0, 0.01)))
        for call in rng.sample(calls, 3):
            call.cancel()
        done = [value for value in await asyncio.gather(*calls, return_exceptions=True) if isinstance(value, int)]
        more = await asyncio.gather(*(wide.work(0.05) for _ in range(width + 3)))
        assert max([*done, *more]) == width

    simulate(main, sim_seed, num_cpus=2)


@af.remote
async def short(seconds: float) -> None:
    await asyncio.sleep(seconds)


def test_workers_that_nobody_needs_any_more_end_but_for_those_that_are_kept(sim_seed: int) -> None:
    rng = random.Random(f"idle {sim_seed}")
    keep, cpus = rng.randrange(1, 3), rng.randrange(3, 6)

    def idle(cluster: SimCluster) -> int:
        return sum(host.alive and host not in {driver.host for driver in cluster.drivers} for host in cluster.cores)

    async def main() -> None:
        await asyncio.gather(*(short(rng.choice((0.05, 0.3))) for _ in range(4 * cpus)))
        await asyncio.sleep(20)

    with World(sim_seed) as world:
        cluster = SimCluster(world, num_cpus=cpus, node_options={"idle_keep": keep, "idle_timeout_s": 1.0})
        driver = cluster.driver(main)
        world.run_until(lambda: idle(cluster) > keep, 5)
        world.run_until(lambda: idle(cluster) == keep, 15)
        world.run_until(lambda: driver.ended, 60)
        driver.result()
        cluster.stop()
