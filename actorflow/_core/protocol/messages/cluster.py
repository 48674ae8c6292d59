"""Nodes about one another: what each has free, and where work should rather go."""

from actorflow._core.protocol.messages.base import Message


class NodeLoad(Message, tag=8):
    """node -> head: what I have free now, in units; it may be a debt (SEMANTICS 24). Sent when it has changed, if there are other nodes.

    `version` grows with each; an older one never takes the place of a newer one.
    """

    version: int
    available: dict[str, int]
    draining: bool = False


class NodeEntry(Message):
    """One node, as the head knows it."""

    node_id: str
    address: str
    version: int
    total: dict[str, int]
    available: dict[str, int]
    labels: dict[str, str] = {}
    draining: bool = False


class GroupWord(Message, tag=90):
    """anyone -> anyone: a word about a placement group, encoded apart (messages/group.py): most processes never load those."""

    word: bytes


class NodesChanged(Message, tag=9):
    """head -> node: these nodes are new or have other amounts, and those are gone. To a node that has just joined: all of them."""

    nodes: list[NodeEntry]
    gone: list[str] = []
    whole: bool = False
    """These are all that there are: who was known and is not among them has gone meanwhile."""


class Beat(Message, tag=93):
    """node -> head: I live. Answered by BeatHeard: the node's lease is counted from when it sent this."""

    number: int


class BeatHeard(Message, tag=94):
    """head -> node: you live, as far as I am concerned. Also node -> node, from one that has passed on that beat (RelayBeat)."""

    number: int


class RelayBeat(Message, tag=160):
    """node -> node: the head does not answer me, so pass on this beat of mine. Answered by BeatHeard, if the head answers."""

    number: int


class BeatOf(Message, tag=161):
    """node -> head: that node lives, and has sent this beat. Answered by BeatHeardOf, unless the head has given that node up."""

    node_id: str
    number: int


class BeatHeardOf(Message, tag=162):
    """head -> node: tell that node that it lives, as far as I am concerned."""

    node_id: str
    number: int


class NodeGone(Message, tag=95):
    """node -> driver, worker: this node is lost, and every process on it, whatever their connections seem to be."""

    node_id: str
    reason: str
