"""Large values between a node and a driver that has no shared memory with it: in parts, over their one link (policy/part_window.py)."""

from actorflow._core.protocol.messages.base import Message


class Part(Message, tag=134):
    """Some bytes of a value, from `start` on; the parts of a value come in order.

    driver -> node: of the extent `number`, which the driver was given by Allocated. node -> driver: of the value that it asked for by
    ReadParts(token=`number`); no bytes at all: it is not there any more.
    """

    number: int
    start: int
    data: bytes


class PartsTaken(Message, tag=135):
    """receiver -> sender of Parts: I have taken so many bytes of you, of all values together, since our link began."""

    bytes_total: int


class ReadParts(Message, tag=136):
    """driver -> node: send me the `size` bytes of this extent, which I have pinned. Answered by Part(number=`token`)."""

    token: int
    extent: int
    size: int


class LeaveParts(Message, tag=137):
    """driver -> node: I do not want the rest of it. Idempotent; parts that are under way may still come."""

    token: int
