"""The node as the store of a driver without shared memory: what it takes, what it sends, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from actorflow._core.node.parts import READS_MAX
from actorflow._core.policy.part_window import PART_BYTES_MIN, WINDOW_BYTES_MIN
from actorflow._core.protocol.messages import (
    Allocate,
    Allocated,
    FreeExtent,
    HandOver,
    LeaveParts,
    Part,
    PartsTaken,
    Pin,
    Pinned,
    ReadParts,
    Unpin,
)
from actorflow.testing import World
from tests.unit.node.fakes import Cluster, Speaker

SIZE = 6 * PART_BYTES_MIN
"""More than what is under way at a time in the beginning."""


@pytest.fixture
def world() -> Iterator[World]:
    with World(3) as world:
        yield world


@pytest.fixture
def cluster(world: World) -> Cluster:
    return Cluster(world)


def content(size: int = SIZE) -> bytes:
    return bytes(number * 7 % 251 for number in range(size))


def part(number: int, start: int, data: bytes) -> Part:
    return Part(number, start, data)


def room(cluster: Cluster, client: Speaker, size: int = SIZE, token: int = 1) -> Allocated:
    client.send(Allocate(token, size))
    cluster.until(lambda: [answer for answer in client.got(Allocated) if answer.token == token])
    return next(answer for answer in client.got(Allocated) if answer.token == token)


def filled(cluster: Cluster, driver: Speaker) -> int:
    """An object of the driver; its extent."""
    place, data = room(cluster, driver), content()
    driver.send(*(part(place.extent, at, data[at : at + PART_BYTES_MIN]) for at in range(0, SIZE, PART_BYTES_MIN)))
    cluster.until(lambda: [taken for taken in driver.got(PartsTaken) if taken.bytes_total == SIZE])
    return place.extent


def sent(driver: Speaker) -> bytes:
    return b"".join(bytes(one.data) for one in driver.got(Part))


def left_over(cluster: Cluster) -> list[str]:
    assert cluster.node._parts is not None
    return cluster.node._parts.left_over()


def test_what_comes_is_written_where_it_belongs_and_told_as_taken(cluster: Cluster) -> None:
    driver = cluster.driver()
    extent = filled(cluster, driver)
    assert [taken.bytes_total for taken in driver.got(PartsTaken)] == list(range(PART_BYTES_MIN, SIZE + 1, PART_BYTES_MIN))
    offset = cluster.node._store.book.offset(extent)
    assert bytes(cluster.arena.view(offset, SIZE)) == content()


def test_ps_1_what_is_read_comes_as_fast_as_it_is_taken(cluster: Cluster) -> None:
    driver = cluster.driver()
    extent = filled(cluster, driver)
    driver.send(Pin(5, extent), ReadParts(9, extent, SIZE))
    cluster.settle(1.0)
    assert len(sent(driver)) == WINDOW_BYTES_MIN
    driver.send(PartsTaken(PART_BYTES_MIN))
    cluster.settle(1.0)
    assert len(sent(driver)) > WINDOW_BYTES_MIN
    driver.send(PartsTaken(len(sent(driver))))
    cluster.settle(1.0)
    assert sent(driver) == content()
    assert {one.number for one in driver.got(Part)} == {9}
    driver.send(PartsTaken(SIZE), FreeExtent(extent), Unpin(extent))
    cluster.settle(1.0)
    assert left_over(cluster) == []
    assert cluster.node._store.book.used_bytes() == 0


def test_what_is_read_stays_until_the_last_part_is_sent(cluster: Cluster) -> None:
    driver = cluster.driver()
    extent = filled(cluster, driver)
    driver.send(Pin(5, extent), ReadParts(9, extent, SIZE), FreeExtent(extent), Unpin(extent))
    cluster.settle(1.0)
    assert cluster.node._store.book.used_bytes() > 0
    driver.send(PartsTaken(WINDOW_BYTES_MIN))
    cluster.settle(1.0)
    assert sent(driver) == content()
    assert cluster.node._store.book.used_bytes() == 0


def test_who_gives_up_gets_no_more(cluster: Cluster) -> None:
    driver = cluster.driver()
    extent = filled(cluster, driver)
    driver.send(Pin(5, extent), ReadParts(9, extent, SIZE))
    cluster.settle(1.0)
    driver.send(LeaveParts(9), LeaveParts(9), Unpin(extent), FreeExtent(extent), PartsTaken(WINDOW_BYTES_MIN))
    cluster.settle(1.0)
    assert len(sent(driver)) == WINDOW_BYTES_MIN
    assert left_over(cluster) == []
    assert cluster.node._store.book.used_bytes() == 0


def test_ps_2_what_was_begun_ends_with_its_driver(cluster: Cluster, world: World) -> None:
    driver, other = cluster.driver(), cluster.driver("other")
    extent, half = filled(cluster, driver), room(cluster, driver, 100, 2)
    owned_by_other = room(cluster, other, 100).extent
    driver.send(part(half.extent, 0, b"x" * 50), Pin(5, extent), ReadParts(9, extent, SIZE), Pin(6, owned_by_other))
    cluster.until(lambda: driver.got(Part))
    cluster.until(lambda: len(driver.got(Pinned)) == 2)
    world.kill(driver.host)
    cluster.settle(1.0)
    assert left_over(cluster) == []
    assert [(one.number, one.pins) for one in cluster.node._store.book.extents()] == [(owned_by_other, 0)]
    cluster.check()


def test_what_is_not_there_any_more_is_told(cluster: Cluster) -> None:
    driver = cluster.driver()
    extent = filled(cluster, driver)
    driver.send(FreeExtent(extent), ReadParts(9, extent, SIZE), ReadParts(10, 12345, 1))
    cluster.until(lambda: len(driver.got(Part)) == 2)
    assert [(one.number, bytes(one.data)) for one in driver.got(Part)] == [(9, b""), (10, b"")]
    assert left_over(cluster) == []


@pytest.mark.parametrize("case", ["beyond the end", "before the beginning", "another's", "nobody's", "handed over"])
def test_ps_3_a_driver_writes_nowhere_else(cluster: Cluster, case: str) -> None:
    driver, other = cluster.driver(), cluster.driver("other")
    mine, theirs = room(cluster, driver, 100).extent, room(cluster, other, 100).extent
    if case == "handed over":
        driver.send(HandOver(mine, "other"))
    wrong = {
        "beyond the end": part(mine, 60, b"x" * 41),
        "before the beginning": part(mine, -1, b"x"),
        "another's": part(theirs, 0, b"x"),
        "nobody's": part(999, 0, b"x"),
        "handed over": part(mine, 0, b"x"),
    }
    before = bytes(cluster.arena.view(0, cluster.arena.size))
    driver.send(wrong[case])
    cluster.until(lambda: driver.lost)
    assert not other.lost
    after = bytes(cluster.arena.view(0, cluster.arena.size))
    assert after.count(b"x") == before.count(b"x"), "what the lost driver had is given back, and nothing is written"


def test_ps_1_nobody_reads_more_at_a_time_than_is_allowed(cluster: Cluster) -> None:
    driver, other = cluster.driver(), cluster.driver("other")
    extent = filled(cluster, driver)
    driver.send(Pin(5, extent), *(ReadParts(token, extent, SIZE) for token in range(READS_MAX)))
    cluster.settle(1.0)
    assert not driver.lost
    driver.send(ReadParts(READS_MAX, extent, SIZE))
    cluster.until(lambda: driver.lost)
    cluster.settle(1.0)
    assert not other.lost
    assert cluster.node._store.book.used_bytes() == 0


def test_who_takes_what_was_not_sent_is_cut_off(cluster: Cluster) -> None:
    driver = cluster.driver()
    driver.send(PartsTaken(1))
    cluster.until(lambda: driver.lost)


def test_a_worker_has_no_use_for_parts(cluster: Cluster) -> None:
    worker = cluster.lease(cluster.driver(), 1)
    worker.send(ReadParts(1, 1, 1))
    cluster.until(lambda: worker.lost)
