"""Looking: state queries that are answered from each process's own tables, and the output of workers."""

from actorflow._core.protocol.messages.base import Message


class StateQuery(Message, tag=80):
    """asker -> head -> every process: rows of `kind` (nodes | jobs | actors: the head's own; tasks | objects
    | workers | resources | events | leases: from the nodes, which ask their processes). The columns of each
    kind are in `base/state_rows.py`.

    Answered by StateReply(token); whoever does not answer within `timeout_s` is named in `missing`. Each hop
    gives the next one less time than it has. `actor_id` narrows the kinds that know actors to one of them.
    """

    token: int
    kind: str
    limit: int = 10000
    timeout_s: float = 5.0
    actor_id: str = ""


class StateReply(Message, tag=81):
    """whoever was asked -> asker: the rows as one JSON array (bytes), and the processes that did not answer in time.

    `truncated`: there are more rows than `limit`. `error`: the question itself was wrong, in words.
    """

    token: int
    rows: bytes
    missing: list[str] = []
    truncated: bool = False
    error: str = ""


class WorkerLog(Message, tag=82):
    """node -> driver: lines that a worker printed. `dropped` counts lines left out because the driver did not
    keep up.
    """

    worker_id: str
    pid: int
    name: str
    stream: str
    lines: list[str]
    dropped: int = 0
