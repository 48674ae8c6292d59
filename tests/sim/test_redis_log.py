"""The log of a head in a simulated Redis: whatever is late, lost or forgotten, what was acknowledged is there (DL-1 to DL-3, RG)."""

import random
from collections.abc import Iterator

import pytest

from actorflow._core.io.redis_log import LEASE_S, RENEW_S, RedisLog
from actorflow._core.io.state_log import State
from actorflow.testing import Host, World
from actorflow.testing.redis import SimRedis, SimRedisServer
from tests.sim.test_journal import Life


class Cluster:
    """A Redis, and one head after another."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.redis = SimRedisServer(world)
        self.lives = 0
        self.taken: list[str] = []

    def begin(self, outcomes: list[State], holder: str = "the head") -> tuple[Host, Life]:
        self.lives += 1
        host = self.world.host(f"life-{self.lives}", machine=f"m-{self.lives}")
        while True:  # As the one who starts it does.
            opening = host.run(RedisLog.open(SimRedis(host, self.redis), holder, self.taken.append))
            try:
                return host, Life(self.world.run_until(opening, 60), outcomes)  # type: ignore[arg-type]
            except ConnectionError:
                continue

    def written(self, count: int, rng: random.Random) -> tuple[Host, Life]:
        """A life with so many writes that were acknowledged."""
        host, life = self.begin([{}])
        for _ in range(count):
            self.write(host, life, rng)
        self.world.run_until(lambda: life.acknowledged == count)
        return host, life

    def write(self, host: Host, life: Life, rng: random.Random) -> None:
        self.world.at_host(host, self.world.now, life.write, rng)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with World(7) as world:
        yield Cluster(world)


def test_dl_1_and_rg_1_lives_that_end_at_any_moment_with_a_redis_that_loses_messages(sim_seed: int) -> None:
    rng = random.Random(f"redis {sim_seed}")
    outcomes: list[State] = [{}]
    with World(sim_seed) as world:
        cluster = Cluster(world)
        cluster.redis.lost = rng.choice((0, 0, 5, 30))
        for _ in range(rng.randrange(2, 6)):
            host, life = cluster.begin(outcomes)
            for _ in range(rng.randrange(40)):
                if rng.random() < 0.05:
                    cluster.redis.replicate()
                    cluster.redis.away = not cluster.redis.away
                cluster.write(host, life, rng)
                world.run_for(rng.choice((0.0, 0.0001, 0.003, 0.02, 0.3)))
            cluster.redis.away = False
            if rng.random() < 0.3:
                cluster.redis.fail_over()
                cluster.write(host, life, rng)
                world.run_for(0.001)
                world.run_until(lambda life=life: life.acknowledged == len(life.outcomes) - 1, 900)
            world.kill(host)
            acknowledged = life.acknowledged
            world.run_for(rng.choice((0.0, 0.001, 0.1)))
            outcomes = after(cluster, outcomes, acknowledged)
        assert not cluster.taken


def after(cluster: Cluster, outcomes: list[State], acknowledged: int) -> list[State]:
    """Look at what the next life finds, and return the outcomes up to there. What its predecessor has under way does not count (RG-2)."""
    host, life = cluster.begin(outcomes)
    found, number = dict(life.journal.state), life.journal.number
    assert acknowledged <= number < len(outcomes), f"{acknowledged} were acknowledged, {number} are there, {len(outcomes) - 1} were written"
    assert found == outcomes[number]
    cluster.world.run_for(1)
    assert (cluster.redis.content.number, cluster.redis.content.state) == (number, found)
    cluster.world.kill(host)
    return outcomes[: number + 1]


def test_rg_2_a_head_that_another_has_followed_is_told_and_acknowledges_nothing(cluster: Cluster) -> None:
    rng = random.Random(1)
    world = cluster.world
    host, life = cluster.written(1, rng)
    next_host, following = cluster.begin(list(life.outcomes))
    cluster.write(host, life, rng)
    world.run_until(lambda: bool(cluster.taken), RENEW_S)
    world.run_for(20)
    assert life.acknowledged == 1
    cluster.write(next_host, following, rng)
    world.run_until(lambda: following.acknowledged == 2)
    assert cluster.redis.content.state == following.outcomes[2]
    world.run_until(host.run(life.journal.close()), 10)
    assert cluster.redis.lease_of() == "the head", "only who has it gives it back"


def test_rg_2_one_that_has_nothing_to_write_is_told_when_it_renews_its_lease(cluster: Cluster) -> None:
    cluster.begin([{}])
    cluster.begin([{}])
    cluster.world.run_until(lambda: bool(cluster.taken), RENEW_S + 1)


def test_rg_3_a_redis_that_has_forgotten_all_gets_the_whole_state_anew(cluster: Cluster) -> None:
    rng = random.Random(2)
    world = cluster.world
    host, life = cluster.written(20, rng)
    cluster.redis.fail_over()
    assert cluster.redis.content.state == {}
    cluster.write(host, life, rng)
    cluster.write(host, life, rng)
    world.run_until(lambda: life.acknowledged == 22)
    assert cluster.redis.content.state == life.outcomes[22]
    assert not cluster.taken
    world.kill(host)
    after(cluster, life.outcomes, 22)


def test_rg_3_that_is_noticed_too_where_nothing_is_written(cluster: Cluster) -> None:
    _, life = cluster.written(20, random.Random(2))
    cluster.redis.fail_over()
    cluster.world.run_for(2 * RENEW_S)
    assert cluster.redis.content.state == life.outcomes[20]
    assert cluster.redis.content.number == life.journal.number


def test_rg_4_another_head_waits_for_the_end_of_a_lease_and_the_same_one_does_not(cluster: Cluster) -> None:
    world = cluster.world
    host, _ = cluster.begin([{}], "a")
    world.run_for(1)
    world.kill(host)
    began = world.now
    host, _ = cluster.begin([{}], "a")
    assert world.now - began < 1
    world.kill(host)
    began = world.now
    cluster.begin([{}], "b")
    assert LEASE_S - 1.5 < world.now - began < LEASE_S + 1


def test_rg_4_a_lease_that_is_renewed_is_an_error_that_says_who_has_it(cluster: Cluster) -> None:
    cluster.begin([{}], "a")
    host = cluster.world.host("other", machine="other")
    opening = host.run(RedisLog.open(SimRedis(host, cluster.redis), "b", cluster.taken.append))
    with pytest.raises(BlockingIOError, match="the head a keeps its state there and is alive"):
        cluster.world.run_until(opening, 30)
    assert not cluster.taken


def test_a_log_that_is_closed_leaves_no_lease_and_everything_that_was_written(cluster: Cluster) -> None:
    rng = random.Random(3)
    host, life = cluster.begin([{}], "a")
    cluster.write(host, life, rng)
    cluster.world.run_until(lambda: life.journal.number == 1)
    cluster.world.run_until(host.run(life.journal.close()), 10)
    assert life.acknowledged == 1
    began = cluster.world.now
    _, following = cluster.begin(life.outcomes, "b")
    assert cluster.world.now - began < 1
    assert following.journal.state == life.outcomes[1]


def test_closing_ends_where_the_redis_is_away(cluster: Cluster) -> None:
    rng = random.Random(4)
    host, life = cluster.begin([{}])
    cluster.redis.away = True
    cluster.write(host, life, rng)
    cluster.world.run_for(20)
    assert "does not answer" in life.journal.problem
    cluster.world.run_until(host.run(life.journal.close()), 20)
    assert life.acknowledged == 0
