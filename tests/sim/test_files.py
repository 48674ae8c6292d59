"""A simulated disk keeps what was synced, and no more than it must."""

import errno
from collections.abc import Iterator

import pytest

from actorflow.testing import Host, SimDisk, SimFiles, World


class Machine:
    """A disk, and a process that writes to it."""

    def __init__(self, world: World, capacity_bytes: int | None = None) -> None:
        self.world = world
        self.disk = SimDisk(world, "m", capacity_bytes)
        self.host: Host = world.host("head")
        self.files = SimFiles(self.host, self.disk)

    def sync(self, path: str) -> None:
        self.world.run_until(self.host.run(self.files.sync(path)))

    def replace(self, path: str, data: bytes) -> None:
        self.world.run_until(self.host.run(self.files.replace(path, [data])))


@pytest.fixture
def machine() -> Iterator[Machine]:
    with World(1) as world:
        yield Machine(world)


def test_what_is_appended_is_read_at_once(machine: Machine) -> None:
    machine.files.write("log", b"one ")
    machine.files.write("log", b"two")
    assert machine.files.read("log") == b"one two"


def test_fi_1_synced_bytes_survive_and_fi_2_of_the_rest_a_prefix() -> None:
    lengths, torn = set(), 0
    for seed in range(100):
        with World(seed) as world:
            machine = Machine(world)
            machine.files.write("log", b"synced.")
            machine.sync("log")
            machine.files.write("log", b"unsynced")
            machine.disk.crash()
            content = machine.files.read("log")
            kept = content.rstrip(b"\0")
            assert b"synced.unsynced".startswith(kept)
            assert kept.startswith(b"synced.")
            lengths.add(len(kept))
            torn += content != kept
    assert lengths == set(range(7, 16))
    assert 5 < torn < 60


def test_fi_1_what_is_appended_during_a_sync_is_not_covered_by_it() -> None:
    survived = set()
    for seed in range(40):
        with World(seed) as world:
            machine = Machine(world)
            machine.files.write("log", b"a")
            sync = machine.host.run(machine.files.sync("log"))
            world.step()
            machine.files.write("log", b"b")
            world.run_until(sync)
            machine.disk.crash()
            survived.add(machine.files.read("log").rstrip(b"\0"))
    assert survived == {b"a", b"ab"}


def test_a_file_that_was_never_synced_may_vanish() -> None:
    there = set()
    for seed in range(20):
        with World(seed) as world:
            machine = Machine(world)
            machine.files.write("log", b"x")
            machine.disk.crash()
            there.add(bool(machine.files.paths("")))
    assert there == {True, False}


def test_fi_3_replace_is_all_or_nothing() -> None:
    contents = set()
    for seed in range(40):
        with World(seed) as world:
            machine = Machine(world)
            machine.replace("state", b"old")
            machine.host.run(machine.files.replace("state", [b"new ", b"content"]))
            world.run_for(0.002)
            world.kill(machine.host)
            machine.disk.crash()
            contents.add(machine.files.read("state"))
    assert contents == {b"old", b"new content"}


def test_fi_4_the_death_of_a_process_loses_nothing(machine: Machine) -> None:
    machine.files.write("log", b"unsynced")
    machine.world.kill(machine.host)
    after = SimFiles(machine.world.host("head again"), machine.disk)
    assert after.read("log") == b"unsynced"


def test_paths_and_remove(machine: Machine) -> None:
    for path in ("a/2", "b/1", "a/1"):
        machine.files.write(path, b"x")
    assert machine.files.paths("a/") == ["a/1", "a/2"]
    machine.files.remove("a/1")
    assert machine.files.paths("") == ["a/2", "b/1"]
    for action in (machine.files.read, machine.files.remove):
        with pytest.raises(FileNotFoundError):
            action("a/1")


def test_a_full_disk_says_so() -> None:
    with World(1) as world:
        machine = Machine(world, capacity_bytes=10)
        machine.files.write("log", bytes(8))
        with pytest.raises(OSError, match="no space") as caught:
            machine.files.write("log", bytes(3))
        assert caught.value.errno == errno.ENOSPC
        assert len(machine.files.read("log")) == 10, "as much of it as fits"
        machine.replace("log", bytes(10))
        with pytest.raises(OSError, match="no space"):
            machine.replace("log", bytes(11))


def test_a_sync_may_fail(machine: Machine) -> None:
    machine.files.write("log", b"x")
    machine.disk.sync_errors_planned = 1
    with pytest.raises(OSError, match="failed to sync"):
        machine.sync("log")
    machine.sync("log")
