"""How a node, or a driver from outside, gets its keys and certificates: the messages between it and the enrolment desk of the head.

They travel on connections of their own, to the name `enrolment` behind the head's port. None of them shows what it carries.
"""

from actorflow._core.protocol.messages.base import Message


class ClusterKeys(Message, tag=100):
    """desk -> node or driver, when it is connected and whenever something has changed: what it goes by from now on. Idempotent.

    `roots`: for a node, as `Root.export` gives them. `keys`: for a driver, those of its job, as (id of the secret, key). Of both the first
    are in use, and the others are accepted as well. `fences`: for a node, (process id, oldest incarnation that is admitted; -1: none is).
    """

    authorities: bytes = b""
    roots: list[bytes] = []
    keys: list[tuple[bytes, bytes]] = []
    fences: list[tuple[str, int]] = []

    def __repr__(self) -> str:
        return f"ClusterKeys({len(self.roots)} roots, {len(self.keys)} keys, {len(self.fences)} fences)"


class Enrol(Message, tag=101):
    """node or driver -> desk: sign this. Answered by Enrolled. A token for a single use is good for one connection.

    `job_id`: for which job, of a node that wants a certificate for its workers; empty for the asking process itself. `request`: a
    certificate request; empty in a cluster without TLS.
    """

    number: int
    job_id: str = ""
    request: bytes = b""


class Enrolled(Message, tag=102):
    """desk -> node or driver: the answer to Enrol of this number; `error` says why not.

    `incarnation`: of a node that has joined. `node_address`: which node a driver is to speak with. `again`: the token with which a node may
    join once more, under another name, when this life of it was given up.
    """

    number: int
    certificate: bytes = b""
    incarnation: int = 0
    node_address: str = ""
    keys: ClusterKeys | None = None
    error: str = ""
    again: str = ""

    def __repr__(self) -> str:
        return f"Enrolled({self.number}, {self.error or 'admitted'})"
