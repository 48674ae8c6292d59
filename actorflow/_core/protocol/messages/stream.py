"""Streams: the values of a generator, one by one, with credit."""

from actorflow._core.protocol.messages.base import Message
from actorflow._core.protocol.messages.object import Outcome


class StreamItem(Message, tag=20):
    """producer -> consumer: item number `index` of the stream `seq`."""

    seq: int
    attempt: int
    index: int
    outcome: Outcome
    hold: int = 0


class StreamEnd(Message, tag=21):
    """producer -> consumer: no more items after `count`; `error` when the generator raised."""

    seq: int
    attempt: int
    count: int
    error: Outcome | None = None


class StreamCredit(Message, tag=22):
    """consumer -> producer: items below `until` may be sent. Idempotent: the largest wins."""

    seq: int
    until: int


class StreamClose(Message, tag=23):
    """consumer -> producer: stop; close the generator. Idempotent. Answered by `StreamEnd`."""

    seq: int
