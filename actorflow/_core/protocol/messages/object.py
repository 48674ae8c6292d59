"""Values, where they are, and who refers to them."""

from actorflow._core.protocol.messages.base import Message


class RefGroup(Message):
    """References to objects of one owner: `indices` are the owner's own numbers."""

    owner: str
    address: str
    indices: list[int]


class Inline(Message, tag=1):
    """A value that travels with the message: a pickle, its out-of-band buffers, and the references inside it."""

    data: bytes
    buffers: list[bytes] | None = None
    refs: list[RefGroup] | None = None


class Stored(Message, tag=2):
    """A value in a node's arena: `data` is the pickle, `spans` the (start, length) of its buffers inside the extent.

    `owner`: whose object it is; `owner_node`: the owner's node, empty for `node` itself.
    """

    node: str
    extent: int
    offset: int
    size: int
    data: bytes
    spans: list[tuple[int, int]]
    refs: list[RefGroup] | None = None
    owner: str = ""
    owner_node: str = ""


class Failed(Message, tag=3):
    """An error instead of a value: what `serialization.tracebacks.capture` made of it.

    `lost`: arguments that are gone, by node and extent, and why.
    """

    error: bytes
    refs: list[RefGroup] | None = None
    lost: list[tuple[str, int]] | None = None
    why: str = ""


Outcome = Inline | Stored | Failed
"""How a call ended, and everything that an owner needs to know of a finished object."""


class AddBorrow(Message, tag=40):
    """borrower -> owner: I hold these objects from now on. Answered by `BorrowAck(token)`. Counts once each (OW-4)."""

    token: int
    indices: list[int]


class BorrowAck(Message, tag=41):
    """owner -> borrower: the borrows are registered; `gone` are those that no longer exist."""

    token: int
    gone: list[int]


class DropBorrow(Message, tag=42):
    """borrower -> owner: I hold these objects no longer; I was sent each of them `counts` times (OW-4).

    A lost connection drops all borrows of that process.
    """

    indices: list[int]
    counts: list[int]


class Fetch(Message, tag=43):
    """borrower -> owner: tell me the outcome of this object when it is there. Answered by `Fetched`."""

    index: int


class Rebuild(Message, tag=46):
    """borrower -> owner: I cannot read this object: its bytes, in the extent that I know, are gone. Answered by `Fetched`, as a Fetch."""

    index: int
    extent: int
    why: str
    node: str = ""


class CancelObject(Message, tag=45):
    """borrower -> owner: end the call that makes this object, for all who wait (SEMANTICS 3). Idempotent."""

    index: int
    force: bool = False
    recursive: bool = True


class Fetched(Message, tag=44):
    """owner -> borrower: the outcome, or None when the object is gone (freed)."""

    index: int
    outcome: Outcome | None = None
