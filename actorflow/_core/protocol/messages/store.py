"""The node's arena: extents of shared memory, and pins on them."""

from actorflow._core.protocol.messages.base import Message


class Allocate(Message, tag=70):
    """any process -> node: an extent of `size` bytes, please. Answered by Allocated(token), when there is room; a slab at once or not."""

    token: int
    size: int
    slab: bool = False


class Allocated(Message, tag=71):
    """node -> asker: the extent, written by the asker before anyone else hears of it; or an error with the numbers."""

    token: int
    extent: int = 0
    offset: int = 0
    error: str = ""


class HandOver(Message, tag=76):
    """writer -> node: this extent is written and belongs to the process `owner` from now on. Idempotent.

    Sent before the reply that names the extent. Until then, and always for a put, an extent belongs to who
    allocated it. When its owner's connection is lost it is freed. `node`: the owner's, where that is another one.
    """

    extent: int
    owner: str
    node: str = ""


class Carved(Message, tag=77):
    """client -> node: I have taken the object `extent`, of `size` bytes, from the front of my slab. In the order of the numbers."""

    extent: int
    size: int


class ReturnSlabs(Message, tag=78):
    """node -> client: room is short; free what is left of your slabs (FreeExtent). Idempotent."""


class WriterLost(Message, tag=79):
    """node -> owner: the process that has handed these over to you is gone. If its word of one never came, nobody else will free it.

    For an owner on another node by way of that one: `owner`, and in `node` where the extents are.
    """

    process_id: str
    extents: list[int]
    owner: str = ""
    node: str = ""


class FreeExtent(Message, tag=72):
    """owner of the object -> node: nobody can ask for it any more; free it when the last pin is gone. Idempotent."""

    extent: int


class Pin(Message, tag=73):
    """reader -> node: I map this extent. Answered by Pinned(token). A lost connection drops its pins."""

    token: int
    extent: int


class Pinned(Message, tag=74):
    """node -> reader: pinned, and there it is now; or not there any more; or on disk, and it cannot come back for the reason `error`.

    `full`: for want of room, which may come free. `extent`: not 0 in the answer to a Pull: the copy's. `others`: another node may have it.
    """

    token: int
    ok: bool = True
    offset: int = 0
    error: str = ""
    full: bool = False
    extent: int = 0
    others: bool = False


class MaySpill(Message, tag=83):
    """node -> owner: may these go to disk? Answered by Spillable, in one or several parts."""

    extents: list[int]


class Spillable(Message, tag=84):
    """owner -> node: `yes` are written and nobody reads them here, and from now on I pin them before I do; `no` must stay for now."""

    yes: list[int]
    no: list[int]


class Unpin(Message, tag=75):
    """reader -> node: my last view of the extent is gone."""

    extent: int
