"""A journal on a simulated disk: whatever happens to its machine, what was acknowledged is there (DL-1 to DL-3, JL-1 to JL-3)."""

import random
from collections.abc import Iterator

import pytest

from actorflow._core.io.journal import Journal
from actorflow._core.io.state_log import State
from actorflow._core.protocol.journal_format import Change, JournalDamagedError
from actorflow.testing import Host, SimDisk, SimFiles, World

KINDS = ("actor", "job", "checkpoint")
SNAPSHOT_BYTES_MIN = 1_500


class Life:
    """One life of a process that writes to the journal, and what it was told."""

    def __init__(self, journal: Journal, outcomes: list[State]) -> None:
        self.journal = journal
        self.outcomes = outcomes
        """The state after each write, from the beginning of time."""
        self.acknowledged = len(outcomes) - 1

    def write(self, rng: random.Random) -> None:
        state = dict(self.outcomes[-1])
        changes = []
        for _ in range(rng.randrange(1, 4)):
            key = (rng.choice(KINDS), f"key-{rng.randrange(12)}")
            value = None if rng.random() < 0.25 else rng.randbytes(rng.randrange(120))
            changes.append(Change(*key, value))
            if value is None:
                state.pop(key, None)
            else:
                state[key] = value
        self.outcomes.append(state)
        number = self.journal.write(changes)
        assert number == len(self.outcomes) - 1
        self.journal.when_durable(number, lambda: self.acknowledge(number))

    def acknowledge(self, number: int) -> None:
        assert number == self.acknowledged + 1, "in the order of the numbers"
        self.acknowledged = number


class Machine:
    """A disk, and one process after another."""

    def __init__(self, world: World, capacity_bytes: int | None = None) -> None:
        self.world = world
        self.disk = SimDisk(world, "m", capacity_bytes)
        self.lives = 0

    def begin(self, outcomes: list[State]) -> tuple[Host, Life]:
        self.lives += 1
        host = self.world.host(f"head-{self.lives}", machine="m")
        opening = host.run(Journal.open(SimFiles(host, self.disk), snapshot_bytes_min=SNAPSHOT_BYTES_MIN))
        journal = self.world.run_until(opening)
        return host, Life(journal, outcomes)


@pytest.fixture
def machine() -> Iterator[Machine]:
    with World(5) as world:
        yield Machine(world)


def test_dl_1_and_dl_2_lives_that_end_at_any_moment(sim_seed: int) -> None:
    rng = random.Random(f"journal {sim_seed}")
    outcomes: list[State] = [{}]
    with World(sim_seed) as world:
        machine = Machine(world)
        for _ in range(rng.randrange(2, 6)):
            host, life = machine.begin(outcomes)
            among = rng.random() < 0.5
            for _ in range(rng.randrange(40)):
                if among and rng.random() < 0.1:
                    machine.disk.sync_errors_planned += rng.randrange(1, 3)
                if among and rng.random() < 0.1:
                    machine.disk.capacity_bytes = None if machine.disk.capacity_bytes else machine.disk.used_bytes() + rng.randrange(2_000)
                world.at_host(host, world.now, life.write, rng)
                world.run_for(rng.choice((0.0, 0.0001, 0.003, 0.02)))
            if rng.random() < 0.5:
                world.power_off(host)
                machine.disk.crash()
            else:
                world.kill(host)
            machine.disk.capacity_bytes, machine.disk.sync_errors_planned = None, 0
            acknowledged = life.acknowledged
            world.run_for(0.01)
            outcomes = after(machine, outcomes, acknowledged)


def after(machine: Machine, outcomes: list[State], acknowledged: int) -> list[State]:
    """Look at what the next life would find, and return the outcomes up to there."""
    host, life = machine.begin(outcomes)
    found, number = dict(life.journal.state), life.journal.number
    assert acknowledged <= number < len(outcomes), f"{acknowledged} were acknowledged, {number} are there, {len(outcomes) - 1} were written"
    assert found == outcomes[number]
    machine.world.kill(host)
    return outcomes[: number + 1]


def test_jl_1_a_disk_that_fails_acknowledges_nothing_until_it_is_well_again(machine: Machine) -> None:
    rng = random.Random(1)
    host, life = machine.begin([{}])
    for _ in range(5):
        machine.world.at_host(host, machine.world.now, life.write, rng)
        machine.world.run_for(0.1)
    assert (life.acknowledged, life.journal.problem) == (5, "")
    machine.disk.capacity_bytes = machine.disk.used_bytes() + 10
    for _ in range(5):
        machine.world.at_host(host, machine.world.now, life.write, rng)
    machine.world.run_for(5)
    assert life.acknowledged == 5
    assert "no space left" in life.journal.problem
    machine.disk.capacity_bytes = None
    machine.world.run_until(lambda: life.acknowledged == 10, 5)
    assert life.journal.problem == ""
    machine.world.power_off(host)
    machine.disk.crash()
    assert len(after(machine, life.outcomes, 10)) == 11


def test_jl_2_the_files_do_not_grow_with_the_number_of_writes(machine: Machine) -> None:
    rng = random.Random(2)
    host, life = machine.begin([{}])
    largest = 0
    for _ in range(1_000):
        machine.world.at_host(host, machine.world.now, life.write, rng)
        machine.world.run_for(0.004)
        largest = max(largest, machine.disk.used_bytes())
    assert largest < 4 * (36 * 140) + SNAPSHOT_BYTES_MIN
    assert len(machine.disk.files) <= 3
    machine.world.run_until(lambda: life.acknowledged == 1_000)
    ended = host.run(life.journal.close())
    machine.world.run_until(ended)
    assert len(after(machine, life.outcomes, 1_000)) == 1_001


def test_closing_writes_what_is_left_and_ends_on_a_broken_disk_too(machine: Machine) -> None:
    rng = random.Random(3)
    host, life = machine.begin([{}])
    machine.world.at_host(host, machine.world.now, life.write, rng)
    machine.world.run_until(lambda: life.journal.number == 1)
    machine.world.run_until(host.run(life.journal.close()))
    assert life.acknowledged == 1
    host, life = machine.begin(life.outcomes)
    machine.disk.sync_errors_planned = 1_000
    machine.world.at_host(host, machine.world.now, life.write, rng)
    machine.world.run_until(lambda: life.journal.number == 2)
    machine.world.run_until(host.run(life.journal.close()), 10)
    assert life.acknowledged == 1


def test_jl_3_damage_is_an_error_and_not_a_guess(sim_seed: int) -> None:
    rng = random.Random(f"damage {sim_seed}")
    with World(sim_seed) as world:
        machine = Machine(world)
        host, life = machine.begin([{}])
        for _ in range(60):
            world.at_host(host, world.now, life.write, rng)
            world.run_for(0.006)
        world.run_until(lambda: life.acknowledged == 60)
        world.kill(host)
        name = rng.choice(sorted(machine.disk.files))
        content = machine.disk.files[name].content
        at = rng.randrange(len(content))
        content[at] ^= 1 << rng.randrange(8)
        try:
            _, second = machine.begin(life.outcomes)
        except JournalDamagedError:
            return
        # Nothing stood behind it that tells what was lost: as with a tail that was torn, some of the last writes are gone, whole.
        assert second.journal.state == life.outcomes[second.journal.number]
        last_file = max(path for path in machine.disk.files if path.startswith("journal-"))
        assert name.startswith("journal-")
        assert name >= last_file
