"""The state of an actor as bytes, as a checkpoint keeps it (SEMANTICS 21): with the references in it, and the last answers of the actor.

Only references whose objects the cluster owns are kept: all others end with their owners, and would be of no use to the next life.

A state with neither is its pickle. Otherwise a byte stands before it that no pickle begins with, the length of what is kept beside the
state, and that.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from actorflow._core.base.errors import SerializationError
from actorflow._core.base.ids import CLUSTER
from actorflow._core.serialization import values

if TYPE_CHECKING:
    from actorflow._core.worker.core import Core

MORE = b"\x01"
_LENGTH = struct.Struct("<I")

Part = tuple[bytes, list[bytes] | None]
"""A value that a call has returned: its pickle, and the buffers beside it."""


class Answered(msgspec.Struct, array_like=True, frozen=True):
    """A call that has ended: who made it, its number there, and what it has returned."""

    caller: str
    seq: int
    parts: list[Part]


class _Beside(msgspec.Struct, array_like=True):
    references: list[int]
    answers: list[Answered]


class Kept(NamedTuple):
    """What a checkpoint has."""

    state: Any
    answers: list[Answered]


_decoder = msgspec.msgpack.Decoder(_Beside)


def dumps(state: Any, name: str, answers: list[Answered]) -> bytes:
    """What `__checkpoint__` has given, as bytes. Raises SerializationError that says which part of `name` cannot be kept."""
    pickled = values.dumps_in_one(state, name)
    if not pickled.refs and not answers:
        return pickled.data
    for ref in pickled.refs or ():
        if getattr(ref._entry, "owner", "") != CLUSTER:
            raise SerializationError(f"{name} has {_of_no_use(ref)}")
    beside = msgspec.msgpack.encode(_Beside([ref._entry.index for ref in pickled.refs or ()], answers))
    return b"".join([MORE, _LENGTH.pack(len(beside)), beside, pickled.data])


def _of_no_use(ref: Any) -> str:
    """Why a reference cannot be kept: for people, who may not have seen it, as a handle of an actor has one."""
    for client in list(ref._core.actors.clients.values()):
        lifetime = client.lifetime
        if lifetime is not None and lifetime._entry is ref._entry:
            return (
                f"a handle of {client!r}, an actor that ends with whoever has made it: only handles of detached actors can be kept. "
                'Make it with lifetime="detached", or keep what __restore__ needs to make it anew'
            )
    return (
        f"{ref!r}, whose object ends with the process that owns it: only objects of the cluster outlive the actor. "
        "Put it with af.put(value, durable=True)"
    )


def loads(core: Core, data: bytes) -> Kept:
    """The inverse of `dumps`. Raises DeserializationError."""
    if data[:1] != MORE:
        return Kept(values.loads(data), [])
    view = memoryview(data)
    start = 1 + _LENGTH.size
    end = start + _LENGTH.unpack_from(data, 1)[0]
    beside = _decoder.decode(view[start:end])
    with core.lock:
        table = [core.references.handle(core.references.borrowed.get(CLUSTER, "", number)) for number in beside.references]
    return Kept(values.loads(view[end:], None, table), beside.answers)
