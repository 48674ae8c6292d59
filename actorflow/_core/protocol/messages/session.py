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


class Welcome(Message, tag=2):
    """acceptor -> connector: accepted. `error` names what is wrong instead, and a close follows."""

    process_id: str
    role: str
    address: str = ""
    error: str = ""
    info: dict[str, str] = {}
    node_id: str = ""


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
