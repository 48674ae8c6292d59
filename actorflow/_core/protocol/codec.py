"""The codec: a frame carries a list of messages, so that one encoding serves all that a tick has to say."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from actorflow._core.base.errors import ProtocolError
from actorflow._core.protocol.framing import frame
from actorflow._core.protocol.messages import AnyMessage

PROTOCOL_VERSION = "1"
"""Peers of another version get a clear answer at the handshake."""

BATCH_MESSAGES_MAX = 256
"""Messages in one frame: bounds the frame's size, as inline values are at most 100 KiB each."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[AnyMessage]).decode


def encode(messages: Sequence[AnyMessage]) -> bytes:
    """Return the frames that carry `messages`, in order, as one byte string."""
    if len(messages) <= BATCH_MESSAGES_MAX:
        return frame(_encode(messages))
    parts = [frame(_encode(messages[i : i + BATCH_MESSAGES_MAX])) for i in range(0, len(messages), BATCH_MESSAGES_MAX)]
    return b"".join(parts)


def decode(body: bytes | memoryview) -> list[AnyMessage]:
    """Return the messages of one frame. Raises ProtocolError when the bytes are not a list of known messages."""
    try:
        return _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"a frame of {len(body)} bytes is not a list of actorflow messages: {error}") from error
