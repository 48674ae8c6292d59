"""The records of transfers: what an object is called between nodes, and what pulls.py and uploads.py decide. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from actorflow._core.base.ids import ProcessId

CHUNK_BYTES = 1 << 21
"""An object travels in pieces of this size; the last may be shorter."""
NOWHERE = -1
"""Where the bytes of a chunk go that nobody wants (any more)."""


class ObjectName(NamedTuple):
    """What an object is called between nodes: where its value was written, and its extent there. Never used again (ST-3)."""

    home: ProcessId
    extent: int


@dataclass(frozen=True, slots=True)
class Held:
    """What a node has of an object: its first `chunks` chunks, in `extent`. `on_disk`: in the file of that extent, and not in memory."""

    extent: int
    size: int
    chunks: int
    on_disk: bool = False


def chunks_of(size: int, chunk_bytes: int) -> int:
    """How many chunks an object has."""
    return -(-size // chunk_bytes)


def chunk_length(size: int, index: int, chunk_bytes: int) -> int:
    """The length of one chunk."""
    return min(chunk_bytes, size - index * chunk_bytes)


# What both say to each other: the shell puts these on the wire as they are.


@dataclass(frozen=True, slots=True)
class Request:
    """receiver -> source: send me `count` chunks from `first` on. The next one of the same attempt continues where this one ends."""

    peer: ProcessId
    name: ObjectName
    attempt: int
    first: int
    count: int


@dataclass(frozen=True, slots=True)
class Leave:
    """receiver -> source: send me no more. `complete`: I have all of it, and could serve it myself. Idempotent."""

    peer: ProcessId
    name: ObjectName
    attempt: int
    complete: bool


class Refusal(Enum):
    """Why a source sends nothing (more)."""

    GONE = "gone"
    """It does not have the object (any more)."""
    BUSY = "busy"
    """It has more of it than the one that asks, and other peers."""
    BEHIND = "behind"
    """It is itself not ahead of the one that asks, and has not been for a while."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """source -> receiver: nothing (more) of this from me. `others` have it, or will soon have more of it than you."""

    peer: ProcessId
    name: ObjectName
    attempt: int
    why: Refusal
    others: tuple[ProcessId, ...] = ()


@dataclass(frozen=True, slots=True)
class StillHere:
    """source -> receiver: you are not forgotten; you wait for your turn, or for what I am receiving myself."""

    peer: ProcessId
    name: ObjectName
    attempt: int


# What a receiver decides besides.


@dataclass(frozen=True, slots=True)
class AskRoom:
    """Allocate `size` bytes for pull number `pull`. To be answered by `room_granted` or `room_denied`."""

    pull: int
    size: int


@dataclass(frozen=True, slots=True)
class CancelRoom:
    """That allocation is wanted no more. Should it be granted all the same, `room_granted` gives it back."""

    pull: int


@dataclass(frozen=True, slots=True)
class GiveRoom:
    """Free the extent, and serve no more of it to anybody: what was of the object is gone from here. Without a name: nothing was in it."""

    name: ObjectName | None
    extent: int


@dataclass(frozen=True, slots=True)
class Grew:
    """So many chunks of the object are here: peers may have them (`grown`)."""

    name: ObjectName
    chunks: int


@dataclass(frozen=True, slots=True)
class AskLocations:
    """node -> owner: who has it? To be answered by `locations`, or `freed`."""

    owner: ProcessId
    name: ObjectName


@dataclass(frozen=True, slots=True)
class TellOwner:
    """node -> owner: there is a copy here, or no longer. An owner that has freed the object answers by freeing the copy."""

    owner: ProcessId
    name: ObjectName
    here: bool


class Why(Enum):
    """Why an object does not come."""

    LOST = "lost"
    """No node has it: its owner may make it again."""
    FREED = "freed"
    OWNER_LOST = "owner lost"
    NO_ROOM = "no room"
    """Here is no room for it, or too many wait already: it may come another time."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """The object is here, in `extent`. Pin it for the reader before anything else happens, and answer."""

    reader: ProcessId
    token: int
    name: ObjectName
    extent: int


@dataclass(frozen=True, slots=True)
class NotComing:
    """The reader will not get it; `reason` says so in words."""

    reader: ProcessId
    token: int
    name: ObjectName
    why: Why
    reason: str


PullDecision = Request | Leave | AskRoom | CancelRoom | GiveRoom | Grew | AskLocations | TellOwner | Arrived | NotComing


# What a sender decides besides.


@dataclass(frozen=True, slots=True)
class Hold:
    """Pin the extent for the peer, or open its file. An open file stays readable though it is deleted, so it is as good as a pin."""

    upload: int
    peer: ProcessId
    extent: int
    on_disk: bool


@dataclass(frozen=True, slots=True)
class LetGo:
    """Undo the Hold of this upload: unpin the extent, or close the file."""

    upload: int
    peer: ProcessId
    extent: int
    on_disk: bool


@dataclass(frozen=True, slots=True)
class Send:
    """Send a chunk: `length` bytes from `start` of the extent, or of its file. Keep the order of these for each peer.

    Say `sent` once, when the bytes are no more needed: they are in the kernel, or the connection is lost.
    """

    upload: int
    peer: ProcessId
    name: ObjectName
    attempt: int
    index: int
    extent: int
    start: int
    length: int
    on_disk: bool


@dataclass(frozen=True, slots=True)
class Again:
    """There may be a place for this request now: look what is held of the object and hand it in again, at once."""

    request: Request


@dataclass(frozen=True, slots=True)
class Cut:
    """The peer takes nothing from its connection: reset it, so that what it pins comes free."""

    peer: ProcessId
    reason: str


UploadDecision = Refuse | StillHere | Hold | LetGo | Send | Again | Cut
