"""Values whose classes only the program itself has: they go to workers and come back, by every way there is."""

from __future__ import annotations

import pytest

from tests.integration.programs import Programs

pytestmark = pytest.mark.local_only("a program of its own, with a cluster of its own")

SLOTTED = """
import dataclasses

@dataclasses.dataclass(slots=True)
class Point:
    x: int
    y: int = 0

@dataclasses.dataclass(slots=True, frozen=True)
class Fixed:
    x: int

class Plain:
    __slots__ = ("a", "__b")

    def __init__(self, a):
        self.a = self.__b = a

    def __eq__(self, other):
        return type(other) is Plain and (self.a, self.__b) == (other.a, other.__b)

class Own(Exception):
    def __init__(self, point):
        super().__init__("own")
        self.point = point

ALL = [Point(1), Fixed(2), Plain(3), {"in": (Point(4, 5), [Plain(6)])}]

@af.remote
def same(value):
    return value

@af.remote
def made():
    return ALL

@af.remote
def closed(value):
    return not hasattr(value, "__dict__")

@af.remote
def raises():
    raise Own(Point(7))

@af.remote
async def each():
    for value in ALL:
        yield value

class Keeper(af.Actor):
    async def keep(self, value):
        self.value = value

    async def give(self):
        return self.value

async def main():
    for value in ALL:
        assert await same(value) == value
    assert await made() == ALL
    assert await same(made.remote()) == ALL
    assert await af.get(await af.put(ALL)) == ALL
    assert all([await closed(value) for value in ALL[:3]])
    assert [value async for value in each()] == ALL
    keeper = Keeper.remote()
    await keeper.keep(ALL)
    assert await keeper.give() == ALL
    try:
        await raises()
    except Own as error:
        assert type(error.point) is Point
        assert error.point == Point(7)
    print("all came back")

af.run(main, num_cpus=2)
"""


def test_slotted_classes_of_the_program_go_and_come_back(programs: Programs) -> None:
    assert programs.run(SLOTTED).out() == "all came back\n"
