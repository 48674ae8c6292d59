"""Objects that the cluster owns: docs/internals/durable-objects.md has the way of these words."""

from actorflow._core.protocol.messages.actor import ActorDied, ActorSpec
from actorflow._core.protocol.messages.base import Message
from actorflow._core.protocol.messages.object import Outcome


class PutDurable(Message, tag=170):
    """process -> head: this object is the cluster's from now on; what is in a store I have written, and own until you have it. Answered by
    DurablePut. `index`: drawn by the sender. Idempotent. `lasts_s`: it is freed after that time; 0: not for that.
    `promised`: it is what a detached call makes (StartDetached), and may be the error of that call.
    """

    token: int
    index: int
    outcome: Outcome
    lasts_s: float = 0.0
    promised: bool = False


class DurablePut(Message, tag=171):
    """head -> process: it is kept on so many nodes (0: with what the head knows itself), or why not; `full`: for want of room.

    `over`: it was promised, and nobody waits for it any more.
    """

    token: int
    copies: int = 0
    error: str = ""
    full: bool = False
    over: bool = False


class FetchDurable(Message, tag=172):
    """process -> head: what is this object, and where? Answered by FetchedDurable.

    `tried`: the nodes and the extents where I could not read it.
    """

    index: int
    tried: list[tuple[str, int]] = []


class FetchedDurable(Message, tag=173):
    """head -> process: the outcome; None when there is no such object (any more), or all that had it is lost (`error`).

    `died`: it was promised, and the actor that was to make it, by calling `name`, has ended.
    """

    index: int
    outcome: Outcome | None = None
    error: str = ""
    died: ActorDied | None = None
    name: str = ""


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


class StartDetached(Message, tag=181):
    """process -> head: have this actor make object `index`, which is the cluster's; it ends when that is kept. Answered by DurablePut.

    `work`: the objects that were made for its call, of its arguments, and are freed with its end. Idempotent.
    """

    token: int
    index: int
    spec: ActorSpec
    work: list[int] = []


class CancelDetached(Message, tag=182):
    """process -> head: nobody wants what this detached call makes. Answered by DurablesFreed. Idempotent."""

    token: int
    index: int
