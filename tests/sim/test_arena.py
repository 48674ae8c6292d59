"""The simulated arena is shared by the processes of a machine, and notices what would corrupt memory."""

from collections.abc import Iterator

import pytest

from actorflow.testing import Host, SimArena, SimulationMisuse, World, leftovers
from actorflow.testing.arena import POISON


@pytest.fixture
def world() -> Iterator[World]:
    with World(1) as world:
        yield world


@pytest.fixture
def node(world: World) -> Host:
    return world.host("node")


@pytest.fixture
def arena(node: Host) -> SimArena:
    return SimArena(4096, node)


def test_what_one_process_writes_another_reads(world: World, arena: SimArena) -> None:
    other = arena.attach(world.host("worker"))
    other.view(100, 5, writable=True)[:] = b"hello"
    assert bytes(arena.view(98, 9)) == b"\0\0hello\0\0"


def test_views_are_read_only_unless_asked_for(arena: SimArena) -> None:
    with pytest.raises(TypeError):
        arena.view(0, 4)[0] = 1
    assert arena.view(0, 4).format == "B"


@pytest.mark.parametrize(("offset", "size"), [(-1, 2), (0, 4097), (4096, 1), (0, -1)])
def test_a_range_outside_is_refused(arena: SimArena, offset: int, size: int) -> None:
    with pytest.raises(ValueError, match="outside"):
        arena.view(offset, size)


def test_an_empty_view_is_possible_anywhere(arena: SimArena) -> None:
    assert bytes(arena.view(0, 0)) == bytes(arena.view(4096, 0)) == b""


def test_on_gone_comes_with_the_last_view(arena: SimArena) -> None:
    gone: list[int] = []
    view = arena.view(0, 100)
    arena.watch(view, lambda: gone.append(1))
    part = view[10:20]
    del view
    assert gone == []
    del part
    assert gone == [1]
    assert arena.live_views() == []


def test_sa_1_released_memory_is_poisoned(arena: SimArena) -> None:
    view = arena.view(0, 100, writable=True)
    view[:] = bytes(100)
    arena.release(10, 20)
    assert bytes(view) == bytes(10) + bytes([POISON]) * 20 + bytes(70)


def test_sa_1_large_ranges_are_poisoned_at_their_ends(node: Host) -> None:
    arena = SimArena(8 << 20, node)
    arena.release(0, 8 << 20)
    view = arena.view(0, 8 << 20)
    assert (view[0], view[4 << 20], view[-1]) == (POISON, 0, POISON)


def test_sa_2_what_is_read_may_not_be_released(world: World, arena: SimArena) -> None:
    reader = arena.attach(world.host("reader"))
    view = reader.view(50, 10)
    with pytest.raises(SimulationMisuse, match="SA-2"):
        arena.release(0, 51)
    arena.release(0, 50)
    arena.release(60, 50)
    del view
    arena.release(0, 100)


def test_sa_2_a_dead_reader_is_no_reader(world: World, arena: SimArena) -> None:
    reader = world.host("reader")
    view = arena.attach(reader).view(50, 10)
    assert leftovers(world, arena=arena).views == ["[50, 60)"]
    world.kill(reader)
    arena.release(0, 100)
    assert view[0] == POISON
    assert leftovers(world, arena=arena).views == []


def test_sa_3_a_dead_process_hears_of_nothing(world: World, arena: SimArena) -> None:
    gone: list[int] = []
    worker = world.host("worker")
    mapped = arena.attach(worker)
    view = mapped.view(0, 1)
    mapped.watch(view, lambda: gone.append(1))
    world.kill(worker)
    del view
    assert gone == []


def test_after_close_views_stay_valid_and_no_new_ones_are_made(arena: SimArena) -> None:
    view = arena.view(0, 1)
    arena.close()
    assert view[0] == 0
    with pytest.raises(ValueError, match="closed"):
        arena.view(0, 1)


def test_only_own_views_are_watched(arena: SimArena) -> None:
    with pytest.raises(TypeError, match="made by this arena"):
        arena.watch(memoryview(b"abc"), lambda: None)
