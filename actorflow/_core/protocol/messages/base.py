"""The common base of all messages."""

import msgspec


class Message(msgspec.Struct, array_like=True, gc=False):
    """A message is a flat record, encoded as a MessagePack array that begins with its tag.

    Structs are not tracked by the collector: a message never refers to itself. Modules of messages do without
    `from __future__ import annotations`: msgspec would evaluate each of them again, 3 ms at every start of a process.
    """
