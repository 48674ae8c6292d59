"""The first and the last words on a connection."""

from actorflow._core.protocol.messages.base import Message


class Hello(Message, tag=1):
    """connector -> acceptor, first on every connection: who I am, what I speak. Answered by `Welcome` or a
    close.
    """

    version: str
    role: str
    process_id: str
    job_id: str
    address: str
    pid: int = 0
    namespace: str = ""
    sys_path: list[str] = []
    node_id: str = ""
    """The node on whose machine this process is, as far as it knows already."""
    link: str = ""
    """Between machines, the name of this connection: what goes on after a reset says it again."""
    received: int = -1
    """The frames of the acceptor that have arrived on this link; -1 on its first connection."""


class Welcome(Message, tag=2):
    """acceptor -> connector: accepted. `error` names what is wrong instead, and a close follows."""

    process_id: str
    role: str
    address: str = ""
    error: str = ""
    info: dict[str, str] = {}
    node_id: str = ""
    received: int = 0
    """The frames of the connector that have arrived on this link."""


class Received(Message, tag=91):
    """either -> either, on a link that outlives resets: so many frames have arrived, and need not be kept (SEMANTICS 6)."""

    frames: int


class Goodbye(Message, tag=92):
    """either -> either, last on a link that outlives resets: the close that follows is meant."""


class Shutdown(Message, tag=3):
    """driver -> node: end the local cluster that this driver owns. node -> worker: finish and leave.
    Idempotent.
    """

    reason: str = ""


class Leave(Message, tag=5):
    """node -> worker: nobody has used you for a while: leave, unless others hold what you own (SEMANTICS 17).
    Answered by its end, or by Needed.
    """

    reason: str = ""


class Needed(Message, tag=6):
    """worker -> node: the answer to Leave of a worker that owns what others hold: it stays, and may be used."""


class NodeInfo(Message, tag=4):
    """node -> head, right after the handshake and again whenever the totals change: what I am and have.
    Idempotent.

    `resources` are totals in units of 1/10000, `address` is where drivers and workers reach the node.
    """

    node_id: str
    address: str
    resources: dict[str, int]
    labels: dict[str, str] = {}
