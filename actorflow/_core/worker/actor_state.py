"""The state of an actor as bytes, as a checkpoint keeps it: with the references in it whose objects the cluster owns (SEMANTICS 21).

A state without references is its pickle. Before one with references stand their numbers: a byte that no pickle begins with, how many there
are, and each in eight bytes. All others would be of no use to the next life: their objects end with their owners, who would not know of it.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from actorflow._core.base.errors import SerializationError
from actorflow._core.base.ids import CLUSTER
from actorflow._core.serialization import values

if TYPE_CHECKING:
    from actorflow._core.worker.core import Core

WITH_REFERENCES = b"\x01"
_COUNT = struct.Struct("<I")


def dumps(state: Any, name: str) -> bytes:
    """What `__checkpoint__` has given, as bytes. Raises SerializationError that says which part of `name` cannot be kept."""
    pickled = values.dumps_in_one(state, name)
    if not pickled.refs:
        return pickled.data
    for ref in pickled.refs:
        if getattr(ref._entry, "owner", "") != CLUSTER:
            raise SerializationError(
                f"{name} has {ref!r}, whose object ends with the process that owns it: only objects of the cluster outlive the actor. "
                "Put it with af.put(value, durable=True)"
            )
    count = len(pickled.refs)
    numbers = struct.pack(f"<{count}Q", *[ref._entry.index for ref in pickled.refs])
    return b"".join([WITH_REFERENCES, _COUNT.pack(count), numbers, pickled.data])


def loads(core: Core, data: bytes) -> Any:
    """The inverse of `dumps`. Raises DeserializationError."""
    if data[:1] != WITH_REFERENCES:
        return values.loads(data)
    (count,) = _COUNT.unpack_from(data, 1)
    start = 1 + _COUNT.size
    numbers = struct.unpack_from(f"<{count}Q", data, start)
    with core.lock:
        table = [core.references.handle(core.references.borrowed.get(CLUSTER, "", number)) for number in numbers]
    return values.loads(memoryview(data)[start + 8 * count :], None, table)
