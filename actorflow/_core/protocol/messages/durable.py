"""Objects that the cluster owns: docs/internals/durable-objects.md has the way of these words."""

from actorflow._core.protocol.messages.base import Message
from actorflow._core.protocol.messages.object import Outcome


class PutDurable(Message, tag=170):
    """process -> head: this object is the cluster's from now on; what is in a store I have written, and own until you have it. Answered by
    DurablePut. `index`: drawn by the sender. Idempotent. `lasts_s`: it is freed after that time; 0: not for that.
    """

    token: int
    index: int
    outcome: Outcome
    lasts_s: float = 0.0


class DurablePut(Message, tag=171):
    """head -> process: it is kept on so many nodes (0: with what the head knows itself), or why not; `full`: for want of room."""

    token: int
    copies: int = 0
    error: str = ""
    full: bool = False


class FetchDurable(Message, tag=172):
    """process -> head: what is this object, and where? Answered by FetchedDurable.

    `tried`: the nodes and the extents where I could not read it.
    """

    index: int
    tried: list[tuple[str, int]] = []


class FetchedDurable(Message, tag=173):
    """head -> process: the outcome; None when there is no such object (any more), or all that had it is lost (`error`)."""

    index: int
    outcome: Outcome | None = None
    error: str = ""


class FreeDurable(Message, tag=174):
    """process -> head: nobody is to have these any more. Answered by DurablesFreed. Idempotent."""

    token: int
    indices: list[int]


class DurablesFreed(Message, tag=175):
    """head -> process: so many of them were there."""

    token: int
    count: int


class AdoptObject(Message, tag=176):
    """head -> node: the extent that the process `writer` has written is the cluster's now, as object `index`. Answered by KeptHere.

    Idempotent.
    """

    index: int
    extent: int
    writer: str


class CopyObject(Message, tag=177):
    """head -> node: fetch this object from node `home`, and keep it. Answered by KeptHere. Idempotent."""

    index: int
    size: int
    home: str
    extent: int


class KeptHere(Message, tag=178):
    """node -> head: these objects of the cluster's I have, by index and extent; or I have not got that one (`failed`), and why.

    `all`: there is nothing else here, which is said on each new connection.
    """

    kept: list[tuple[int, int]]
    failed: int = 0
    error: str = ""
    all: bool = False


class DropObjects(Message, tag=179):
    """head -> node: these are freed: what you keep (by index), and copies of them (by home and extent). Idempotent."""

    indices: list[int]
    names: list[tuple[str, int]]
