"""Objects on other nodes: what readers ask for, what owners are told, and the chunks between nodes (docs/internals/transfers.md).

An object is named by its home, the node where its value was written, and its extent there.
"""

from actorflow._core.protocol.messages.base import Message


class Pull(Message, tag=120):
    """reader -> node: have this object copied here, and pin the copy for me. Answered by Pinned(token) with the copy's extent."""

    token: int
    home: str
    extent: int
    size: int
    owner: str
    owner_node: str


class LeavePull(Message, tag=121):
    """reader -> node: I do not wait for it any more. The Pull is answered all the same. Idempotent."""

    token: int


class TakeCopy(Message, tag=180):
    """owner -> its node: the copy here of this object of mine is an object of its own from now on, and mine.

    Answered by Allocated(token); without an extent where there is no copy any more.
    """

    token: int
    home: str
    extent: int


class CopyHere(Message, tag=122):
    """node -> owner, by its node: `node` has a copy of your object, or (`here`: False) no longer has one. Idempotent.

    An owner that does not know the object any more answers by FreeObject.
    """

    owner: str
    home: str
    extent: int
    node: str
    here: bool


class Locate(Message, tag=123):
    """node -> owner, by its node: who has this object? Answered by Located, to `node`."""

    owner: str
    home: str
    extent: int
    node: str


class Located(Message, tag=124):
    """owner -> node, by its own: these have it, or had it; or the object is freed. Idempotent."""

    home: str
    extent: int
    node: str
    nodes: list[str]
    freed: bool = False


class FreeObject(Message, tag=125):
    """owner -> its node -> `nodes`: nobody can ask for the object any more; free what you have of it. Idempotent.

    Between nodes it has a number, and is said again on the next connection until the answer, FreedUpTo, has come.
    """

    home: str
    extent: int
    nodes: list[str]
    number: int = 0


class FreedUpTo(Message, tag=133):
    """node -> node: every FreeObject of yours up to this number is done."""

    number: int


class Holding(Message, tag=126):
    """node -> node: I have what your process `owner` owns. Answered by OwnersGone, when it is gone: now or later."""

    owner: str


class OwnersGone(Message, tag=127):
    """node -> node: these processes of mine are gone, with what they owned. Idempotent."""

    owners: list[str]


class RequestChunks(Message, tag=128):
    """receiver -> source: send me `count` chunks from `first` on. The next of the same attempt goes on where this one ends."""

    home: str
    extent: int
    attempt: int
    first: int
    count: int


class LeaveSource(Message, tag=129):
    """receiver -> source: send me no more. `complete`: I have all of it. Idempotent."""

    home: str
    extent: int
    attempt: int
    complete: bool


class RefuseChunks(Message, tag=130):
    """source -> receiver: nothing (more) of this from me, for the reason `why` (a Refusal); `others` may have it."""

    home: str
    extent: int
    attempt: int
    why: str
    others: list[str]


class StillServing(Message, tag=131):
    """source -> receiver: you are not forgotten; you wait for your turn, or for what I am receiving myself."""

    home: str
    extent: int
    attempt: int


class Chunk(Message, tag=132):
    """source -> receiver, the last of its frame: `length` bytes of the object follow the frame, as they are."""

    home: str
    extent: int
    attempt: int
    index: int
    length: int
