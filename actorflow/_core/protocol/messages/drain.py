"""A node that is to leave in order: docs/internals/draining.md has the way of these words."""

from actorflow._core.protocol.messages.base import Message


class DrainNode(Message, tag=155):
    """driver -> head: this node is to leave; `node_id` may be the beginning of one. Answered by DrainReply. Idempotent: the sooner deadline
    holds.
    """

    token: int
    node_id: str
    deadline_s: float
    reason: str


class DrainReply(Message, tag=156):
    """head -> driver: that node drains; or why not."""

    token: int
    node_id: str = ""
    error: str = ""


class Drain(Message, tag=157):
    """head -> node: take nothing new, and leave when nothing is left here, or after this time. Answered by Draining."""

    deadline_s: float
    reason: str


class Draining(Message, tag=158):
    """node -> head: I leave; or why not. Said once more whenever the node connects, so that the head need not remember it.

    `deadline_s`: what is left of the time. `left`: the last word, how it was when the node left; `empty`: nothing runs there, nor will.
    Answered by LastWordTaken.
    """

    deadline_s: float
    reason: str
    error: str = ""
    left: str = ""
    empty: bool = False


class LastWordTaken(Message, tag=183):
    """head -> node: it is known that you leave in order, also to a head that comes after me."""


class NodeLeaves(Message, tag=159):
    """node -> driver, worker: another node is to leave: fetch what you own and have only there."""

    node_id: str


class NotTaken(Message, tag=15):
    """worker -> caller: these calls of an actor have not started, and will not in this life of it: it moves or leaves, and they may follow.

    `all`: it is gone from here, and has answered all that it took: so it is with whatever else was sent on this connection.
    `goes_on`: it takes calls again, here and in this life.
    """

    actor: str
    incarnation: int
    seqs: list[int] = []
    all: bool = False
    goes_on: bool = False
