"""A head that dies and comes back: running work goes on, and what was acknowledged is there (DESIGN 5, HM, HN, HR)."""

import asyncio

import pytest

import actorflow as af
from actorflow.testing import LinkProfile, SimCluster, World
from tests.sim import judged


@pytest.mark.parametrize("scenario", judged.QUIET)
def test_nobody_notices_a_head_that_dies(scenario: str, sim_seed: int) -> None:
    judged.while_the_head_dies(scenario, sim_seed)


class Counter(af.Actor, max_restarts=3):
    def __init__(self) -> None:
        self.value = 0

    async def add(self, by: int = 1) -> int:
        self.value += by
        return self.value


class Kept(af.Actor, max_restarts=-1, max_task_retries=-1, checkpoint_every="call"):
    def __init__(self) -> None:
        self.seen: list[int] = []

    def __checkpoint__(self) -> list[int]:
        return self.seen

    def __restore__(self, seen: list[int]) -> None:
        self.seen = seen

    async def note(self, number: int) -> int:
        if number not in self.seen:
            self.seen.append(number)
        return len(self.seen)


@af.remote
async def double(number: int) -> int:
    await asyncio.sleep(0.01)
    return number * 2


def test_calls_go_on_while_the_head_is_away() -> None:
    gaps = []

    async def main() -> int:
        counter = Counter.remote()
        await counter
        last = asyncio.get_running_loop().time()
        for _ in range(600):
            await asyncio.sleep(0.005)
            await counter.add()
            now = asyncio.get_running_loop().time()
            gaps.append(now - last)
            last = now
        return await counter.add(0)

    with World(1, links=LinkProfile(spike_chance=0)) as world:
        cluster = SimCluster(world, durable=True)
        driver = cluster.driver(main)
        for at in (1.0, 2.0, 3.0):
            world.at_time(at, lambda: cluster.sim_head.kill(machine_down=True))
        world.run_until(lambda: driver.ended)
        assert driver.result() == 600
        assert cluster.sim_head.lives == 4
        assert max(gaps) < 0.02
        cluster.stop()


def test_names_actors_jobs_and_checkpoints_are_there_again() -> None:
    async def main() -> list[object]:
        await Counter.options(name="counter", lifetime="detached").remote()
        counter = await af.get_actor("counter")
        kept = Kept.options(name="kept").remote()
        values: list[object] = [await counter.add(5), await kept.note(1), await kept.note(2)]
        await asyncio.sleep(2)
        again = await af.get_actor("counter")
        values += [await again.add(1), await kept.note(3)]
        rows = await af.state.list_actors()
        values.append(sorted((row["name"], row["state"]) for row in rows))
        await af.kill(kept, no_restart=False)
        values.append(await kept.note(4))
        values.append([row["state"] for row in await af.state.list_jobs()])
        return values

    with World(2) as world:
        cluster = SimCluster(world, durable=True, num_cpus=4)
        driver = cluster.driver(main)
        world.at_time(1.5, lambda: cluster.sim_head.kill(machine_down=True))
        world.run_until(lambda: driver.ended)
        assert driver.result() == [5, 1, 2, 6, 3, [("counter", "alive"), ("kept", "alive")], 4, ["running"]]
        cluster.stop()


def test_what_is_asked_while_the_head_is_away_is_answered_when_it_is_back() -> None:
    async def main() -> list[object]:
        counter = Counter.options(name="first").remote()
        await counter
        await asyncio.sleep(1.0)  # The head dies at 1.0 or so.
        begun = asyncio.get_running_loop().time()
        made = Counter.options(name="second").remote()
        found, rows = await asyncio.gather(af.get_actor("first"), af.state.list_actors())
        assert await made.add(2) == 2
        with pytest.raises(af.ActorNotFoundError):
            await af.get_actor("third")
        await af.kill(made)
        with pytest.raises(af.ActorError):
            await made.add()
        return [await found.add(), len(rows) >= 1, asyncio.get_running_loop().time() - begun < 2.0, await double(4)]

    for seed in range(20):
        with World(seed) as world:
            cluster = SimCluster(world, durable=True, num_cpus=4)
            driver = cluster.driver(main)
            world.at_time(1.0 + seed * 0.03, lambda: cluster.sim_head.kill(machine_down=seed % 2 == 0))
            world.run_until(lambda: driver.ended)
            assert driver.result() == [1, True, True, 8]
            cluster.stop()
