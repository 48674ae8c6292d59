"""Classes with `__slots__` that travel by value: in another process they have the layout that they have here.

Each class is a local one of its test, which no module can give to the other process.
"""

from __future__ import annotations

import abc
import dataclasses
import enum
import pickle
import struct
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import pytest

from actorflow._core.base.errors import DeserializationError
from actorflow._core.serialization import values
from actorflow._core.serialization.slots import slots_of

T = TypeVar("T")

OTHER = """
import struct, sys
from actorflow._core.serialization import values

while head := sys.stdin.buffer.read(4):
    code, args = values.loads(sys.stdin.buffer.read(*struct.unpack("<I", head)))
    data = values.dumps(code(*args)).data
    sys.stdout.buffer.write(struct.pack("<I", len(data)) + data)
    sys.stdout.buffer.flush()
"""


class Other:
    """Another process, which knows none of our classes."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._in, self._out = process.stdin, process.stdout

    def call(self, code: Callable[..., Any], *args: Any) -> Any:
        """What `code(*args)` gives there."""
        assert self._in is not None
        assert self._out is not None
        data = values.dumps((code, args)).data
        self._in.write(struct.pack("<I", len(data)) + data)
        self._in.flush()
        head = self._out.read(4)
        assert head, "the other process has failed: its traceback is on stderr"
        return values.loads(self._out.read(*struct.unpack("<I", head)))

    def back(self, value: T) -> T:
        """The value, after it was there."""
        there_and_back: T = self.call(lambda value: value, value)
        return there_and_back


@pytest.fixture(scope="module")
def other() -> Iterator[Other]:
    command = [sys.executable, "-c", OTHER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[3]) as process:
        yield Other(process)
        assert process.stdin is not None
        process.stdin.close()


def test_a_slotted_class_comes_back_as_itself(other: Other) -> None:
    class Point:
        __slots__ = ("x", "y")

        def __init__(self, x: int) -> None:
            self.x = x  # And `y` stays empty.

    point = other.back(Point(3))
    assert type(point) is Point
    assert point.x == 3
    assert not hasattr(point, "y")


def test_it_has_no_dict_there_and_refuses_other_names(other: Other) -> None:
    class Point:
        __slots__ = ("x",)

    def told(point: Any) -> tuple[bool, str]:
        try:
            point.z = 1
        except AttributeError as error:
            return hasattr(point, "__dict__"), str(error)
        return hasattr(point, "__dict__"), "it took another name"

    has_dict, text = other.call(told, Point())
    assert not has_dict
    assert "'z'" in text


def test_instances_that_are_made_there(other: Other) -> None:
    @dataclasses.dataclass(slots=True)
    class Point:
        x: int
        y: int = 7
        more: list[int] = dataclasses.field(default_factory=list)
        kind: ClassVar[str] = "point"

    made = other.call(lambda: [Point(1), Point(2, 3, [4])])
    assert made == [Point(1), Point(2, 3, [4])]
    assert type(made[0]) is Point
    assert Point.kind == "point"
    assert Point.__slots__ == ("x", "y", "more")


def test_a_frozen_dataclass(other: Other) -> None:
    @dataclasses.dataclass(slots=True, frozen=True, order=True)
    class Point:
        x: int
        y: int = 7

    def frozen(point: Any) -> bool:
        try:
            point.x = 2
        except dataclasses.FrozenInstanceError:
            return True
        return False

    assert other.back({Point(1): [Point(2)]}) == {Point(1): [Point(2)]}
    assert other.call(frozen, Point(1))


def test_inheritance_of_slotted_and_other_classes(other: Other) -> None:
    class Base:
        __slots__ = ("a",)

        def __init__(self, a: int) -> None:
            self.a = a

    class Derived(Base):
        __slots__ = ("b",)

        def __init__(self, a: int, b: int) -> None:
            super().__init__(a)
            self.b = b

    class Open(Derived):
        def __init__(self) -> None:
            super().__init__(1, 2)
            self.c = 3

    class Closed(Base):
        __slots__ = Base.__slots__  # The same object, and a slot of its own that hides the other one.

    derived, opened = other.back([Derived(1, 2), Open()])
    assert (derived.a, derived.b) == (1, 2)
    assert (opened.a, opened.b, vars(opened)) == (1, 2, {"c": 3})
    assert other.call(lambda: [hasattr(x, "__dict__") for x in (Base(1), Derived(1, 2), Open(), Closed(4))]) == [False, False, True, False]
    assert other.call(lambda: Closed(4)).a == 4


def test_slots_for_a_dict_and_for_weak_references(other: Other) -> None:
    class Roomy:
        __slots__ = ("__dict__", "a")

    class Watched:
        __slots__ = ("__weakref__", "a")

    roomy, watched = Roomy(), Watched()
    roomy.a, watched.a = 1, 2
    roomy.b = 3  # type: ignore[attr-defined]  # that is what the slot is for
    back = other.back([roomy, watched])
    assert (back[0].a, vars(back[0]), back[1].a) == (1, {"b": 3}, 2)

    def kinds() -> list[bool]:
        def referable(thing: Any) -> bool:
            try:
                return weakref.ref(thing)() is thing
            except TypeError:
                return False

        return [hasattr(thing(), "__dict__") for thing in (Roomy, Watched)] + [referable(Roomy()), referable(Watched())]

    assert other.call(kinds) == kinds() == [True, False, False, True]


def test_a_dataclass_with_a_weakref_slot(other: Other) -> None:
    @dataclasses.dataclass(slots=True, weakref_slot=True)
    class Point:
        x: int

    point = other.back(Point(1))
    assert point == Point(1)
    assert other.call(lambda point: weakref.ref(point)() is point, Point(1))


def test_private_slots(other: Other) -> None:
    class Safe:
        __slots__ = ("__secret", "_half")

        def __init__(self, secret: int) -> None:
            self.__secret = self._half = secret

        def secret(self) -> int:
            return self.__secret

    assert slots_of(Safe) == ("_Safe__secret", "_half")
    assert other.back(Safe(5)).secret() == 5
    assert other.call(lambda: Safe(6)).secret() == 6
    assert Safe.__slots__ == ("__secret", "_half")


@pytest.mark.parametrize("slots", ["word", {"word": "with a text"}, ["word"]], ids=["str", "dict", "list"])
def test_all_ways_to_write_slots(slots: Any, other: Other) -> None:
    class Thing:
        __slots__ = slots
        word: int

    thing = Thing()
    thing.word = 1
    assert other.back(thing).word == 1
    assert other.call(lambda thing: hasattr(thing, "__dict__"), thing) is False


def test_slots_that_were_written_after_the_class_was_made(other: Other) -> None:
    class Late:
        pass

    Late.__slots__ = ("a",)  # type: ignore[attr-defined]  # it says so, and has a dict all the same
    late = Late()
    late.b = 1  # type: ignore[attr-defined]
    assert vars(other.back(late)) == {"b": 1}


def test_a_generic_class(other: Other) -> None:
    class Box(Generic[T]):
        __slots__ = ("content",)

        def __init__(self, content: T) -> None:
            self.content = content

    box = other.back(Box[int](3))
    assert type(box) is Box
    assert box.content == 3
    assert other.call(lambda: hasattr(Box("x"), "__dict__")) is False


def test_abstract_classes(other: Other) -> None:
    class Shape(abc.ABC):
        __slots__ = ("name",)

        @abc.abstractmethod
        def area(self) -> int: ...

    class Square(Shape):
        __slots__ = ("side",)

        def area(self) -> int:
            return int(self.side**2)

    @Shape.register
    class Guest:
        __slots__ = ()

    square = Square()
    square.name, square.side = "s", 3
    assert other.back(square).area() == 9
    assert other.call(lambda: [isinstance(Guest(), Shape), issubclass(Square, Shape), len(Shape.__abstractmethods__)]) == [True, True, 1]


def test_named_tuples_enums_and_numbers(other: Other) -> None:
    class Pair(NamedTuple):
        a: int
        b: int = 2

    class Wide(Pair):
        __slots__ = ()

        def total(self) -> int:
            return self.a + self.b

    class Colour(enum.Enum):
        RED = Pair(1)

    class Metres(int):
        __slots__ = ()

    back = other.back((Pair(1), Wide(3), Colour.RED, Metres(4)))
    assert back == (Pair(1), Wide(3), Colour.RED, 4)
    assert back[1].total() == 5
    assert back[2] is Colour.RED
    assert [type(part) for part in back] == [Pair, Wide, Colour, Metres]
    assert other.call(lambda: [hasattr(x, "__dict__") for x in (Pair(1), Wide(1), Metres(1))]) == [False, False, False]
    assert other.call(lambda: Wide(5)) == (5, 2)


def test_a_class_that_travels_twice_is_one_class_there(other: Other) -> None:
    class Point:
        __slots__ = ("x",)

    def is_known(cls: type) -> bool:
        seen = sys.__dict__.setdefault("_seen_by_the_test", cls)
        return seen is cls

    assert other.call(is_known, Point)
    assert other.call(is_known, Point)
    assert other.back(Point) is Point


def test_a_class_that_refers_to_itself(other: Other) -> None:
    class Node:
        __slots__ = ("next",)

        def grow(self) -> Node:
            node = Node()
            node.next = self
            return node

    node = Node()
    node.next = node
    back = other.back(node)
    assert back.next is back
    assert other.call(lambda node: node.grow(), node).next.next is not None


def test_it_is_the_same_for_code_and_for_exceptions(other: Other) -> None:
    class Point:
        __slots__ = ("x",)

    class Own(Exception):
        def __init__(self, point: Point) -> None:
            super().__init__(point)

    def through(data: bytes) -> Any:
        return values.dumps_plain(values.loads_plain(data))

    point = Point()
    point.x = 1
    error = values.loads_plain(other.call(through, values.dumps_plain(Own(point))))
    assert type(error) is Own
    assert error.args[0].x == 1
    assert values.loads(values.dumps_code(Point, "Point")) is Point


def test_classes_of_modules_travel_by_name() -> None:
    assert len(values.dumps(pickle.Pickler).data) < 50
    assert len(values.dumps(values.Pickled).data) < 80


def test_what_is_of_the_main_program_gets_no_advice_about_modules() -> None:
    with pytest.raises(DeserializationError, match="in the main program") as caught:
        values.loads(b"c__main__\nNoSuchThing\n.")
    assert "importable" not in str(caught.value)


def test_an_error_of_what_rebuilds_gets_no_advice_about_modules() -> None:
    with pytest.raises(DeserializationError, match="__setstate__") as caught:
        values.loads(b"cbuiltins\nint\n(S'x'\ntR.")
    assert "importable" not in str(caught.value)
