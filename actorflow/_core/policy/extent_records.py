"""The records of the object store: an extent, and what the book decides about it. See object_store.py. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True)
class Granted:
    """Room for an allocation: `size` bytes at `offset`."""

    client: str
    token: int
    extent: int
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Denied:
    """No room for an allocation; `reason` has the numbers."""

    client: str
    token: int
    reason: str


@dataclass(frozen=True, slots=True)
class Freed:
    """A range that nobody uses any more: its pages may go back to the system. `size` 0: it was on disk only.

    `on_disk`: there is a file of it, of no use any more. (A range whose content has gone to disk has none to be deleted.)
    """

    extent: int
    offset: int
    size: int
    on_disk: bool = False


@dataclass(frozen=True, slots=True)
class AskOwner:
    """May these leave memory? To be answered by `owner_says`."""

    owner: str
    extents: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class WriteOut:
    """Write this range to disk, then call `written` or `disk_failed`."""

    extent: int
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class ReadIn:
    """Read this range from disk, then call `restored` or `not_restored`."""

    extent: int
    offset: int
    size: int


class Place(Enum):
    """Where the content of an extent is."""

    HERE = "here"
    LEAVING = "leaving"
    AWAY = "away"
    COMING = "coming"


NOWHERE = -1
"""The offset of an extent that has no range."""


class Extent:
    """One allocated range. `size` is what was asked; the range has whole pages. `carved`: objects taken from a slab; None: no slab.

    `writer`: who has handed it over to its owner. `asks`: its owner pins it before it reads it (ST-7). `asked`: we have asked for that.
    """

    __slots__ = (
        "asked", "asks", "carved", "freed", "number", "offset", "on_disk", "owner", "pins", "place", "size", "writer",
    )  # fmt: skip

    def __init__(self, number: int, offset: int, size: int, owner: str) -> None:
        self.number = number
        self.offset = offset
        self.size = size
        self.owner = owner
        self.freed = False
        self.pins = 0
        self.carved: int | None = None
        self.writer = ""
        self.place = Place.HERE
        self.on_disk = False
        self.asks = False
        self.asked = False
