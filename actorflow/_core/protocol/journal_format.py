"""The bytes of a journal: what is in its files, and what of it can be trusted. Sans-io.

A segment is a header and records, each of them one or more changes of a state that is a map from (kind, key) to bytes:

    header   magic 8, schema u32, first u64, CRC32C u32              first: the number of its first record
    record   magic u32, length u32, CRC32C u32, number u64, durable u64, then `length` bytes: a list of changes in msgpack

all little-endian; the checksum covers what follows it, and the length. `durable` says that all records up to that number were on the disk
when this one was made. A snapshot is a header whose `first` is the number of the last record that it holds the outcome of, then records
numbered from 1 with parts of the state, then an empty one, without which it is not whole.

JF-1: of what was written, reading gives a prefix, record by record; what stands behind the first unsound byte is never given.
JF-2: an unsound end is cut where nobody was told that it is durable (a torn tail); where a sound record behind it says that it was, it is
damage, and an error. JF-3: a file of a later schema is refused, one of an earlier schema is brought forward, change by change.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import google_crc32c
import msgspec

SCHEMA = 1
"""Of the changes' kinds and values, not of the frames around them."""
FILE_MAGIC = b"afl-jrn\n"
RECORD_MAGIC = 0x6C0DAF1E
RECORD_BYTES_MAX = 1 << 30

_HEADER = struct.Struct("<8sIQ")
_SUM = struct.Struct("<I")
HEADER_BYTES = _HEADER.size + _SUM.size
_FRAME = struct.Struct("<II")
_REST = struct.Struct("<QQ")
FRAME_BYTES = _FRAME.size + _SUM.size + _REST.size
_MAGIC_BYTES = struct.pack("<I", RECORD_MAGIC)


class JournalDamagedError(Exception):
    """Bytes that were on the disk have changed or are gone: nobody can say what was there."""


class JournalSchemaError(Exception):
    """A later version of actorflow has written it."""


class Change(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One entry of the state has a new value, or, with None, is gone."""

    kind: str
    key: str
    value: bytes | None


class Record(NamedTuple):
    """What was written at once, and is there as a whole or not at all."""

    number: int
    durable: int
    changes: list[Change]


class Segment(NamedTuple):
    """What reading a segment gives."""

    first: int
    records: list[Record]
    sound_bytes: int
    """So many bytes from the beginning are good; the rest is a torn tail."""


Migration = Callable[[Change], Iterable[Change]]
MIGRATIONS: dict[int, Migration] = {}
"""By the schema that they begin with: each brings a change to the next one."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Change]).decode


def encode_header(first: int, schema: int = SCHEMA) -> bytes:
    """The beginning of a file."""
    head = _HEADER.pack(FILE_MAGIC, schema, first)
    return head + _SUM.pack(google_crc32c.value(head))


def encode_record(number: int, durable: int, changes: list[Change]) -> bytes:
    """One record. Raises ValueError when it is larger than a record may be."""
    payload = _encode(changes)
    if len(payload) > RECORD_BYTES_MAX:
        raise ValueError(f"a record of {len(payload)} bytes: at most {RECORD_BYTES_MAX} fit")
    rest = _REST.pack(number, durable) + payload
    frame = _FRAME.pack(RECORD_MAGIC, len(payload))
    return b"".join((frame, _SUM.pack(_checksum(frame, rest)), rest))


def encode_snapshot(number: int, state: Iterable[Change], part_bytes: int = 1 << 20) -> Iterator[bytes]:
    """A file with the outcome of all records up to `number`, in pieces."""
    yield encode_header(number)
    part: list[Change] = []
    size = parts = 0
    for change in state:
        part.append(change)
        size += len(change.value or b"") + len(change.key)
        if size >= part_bytes:
            parts += 1
            yield encode_record(parts, 0, part)
            part, size = [], 0
    if part:
        parts += 1
        yield encode_record(parts, 0, part)
    yield encode_record(parts + 1, 0, [])


def read_header(data: bytes, name: str) -> tuple[int, int] | None:
    """The schema and the first number of a file; None when its header is not sound. Raises JournalSchemaError."""
    if len(data) < HEADER_BYTES:
        return None
    magic, schema, first = _HEADER.unpack_from(data)
    (told,) = _SUM.unpack_from(data, _HEADER.size)
    if magic != FILE_MAGIC or told != google_crc32c.value(data[: _HEADER.size]):
        return None
    if schema > SCHEMA:
        raise JournalSchemaError(
            f"{name} has schema {schema}, and this version of actorflow knows schemas up to {SCHEMA}: start the head with the version"
            " that wrote it, or a later one"
        )
    return schema, first


def read_segment(data: bytes, name: str, known: int = 0) -> Segment | None:
    """What of a segment can be trusted; None when not even its header can, as in one that was only begun.

    `known`: the state up to this number is had from elsewhere, so that damage to records below does not matter.
    Raises JournalDamagedError (JF-2), JournalSchemaError (JF-3).
    """
    header = read_header(data, name)
    if header is None:
        if any(True for _ in _sound_after(data, 0)):
            raise JournalDamagedError(f"{name}: its header is damaged, and records follow it")
        return None
    schema, first = header
    records: list[Record] = []
    offset, number = HEADER_BYTES, first
    while offset < len(data):
        found = _record_at(data, offset)
        if found is None or found[0].number != number:
            _cut_or_raise(data, offset, name, number, known)
            break
        record, offset = found
        records.append(record._replace(changes=migrated(record.changes, schema)))
        number += 1
    return Segment(first, records, offset)


def read_snapshot(data: bytes, name: str) -> tuple[int, list[Change]]:
    """The number of the last record in it, and the state. Raises JournalDamagedError, JournalSchemaError."""
    header = read_header(data, name)
    if header is None:
        raise JournalDamagedError(f"{name}: its header is damaged")
    schema, number = header
    state: list[Change] = []
    offset, part = HEADER_BYTES, 1
    while True:
        found = _record_at(data, offset)
        if found is None or found[0].number != part:
            raise JournalDamagedError(f"{name}: what stands at byte {offset} is damaged, or the end of the file is missing")
        record, offset = found
        if not record.changes:
            return number, state
        state += migrated(record.changes, schema)
        part += 1


def migrated(changes: list[Change], schema: int) -> list[Change]:
    """These, in the schema of today."""
    for step in range(schema, SCHEMA):
        migrate = MIGRATIONS[step]
        changes = [after for before in changes for after in migrate(before)]
    return changes


def _checksum(frame: bytes, rest: bytes) -> int:
    return int(google_crc32c.extend(google_crc32c.value(frame), rest))


def _record_at(data: bytes, offset: int) -> tuple[Record, int] | None:
    """The record that begins there, and where it ends; None when no sound one does."""
    if offset + FRAME_BYTES > len(data):
        return None
    magic, length = _FRAME.unpack_from(data, offset)
    end = offset + FRAME_BYTES + length
    if magic != RECORD_MAGIC or length > RECORD_BYTES_MAX or end > len(data):
        return None
    body = offset + _FRAME.size + _SUM.size
    (told,) = _SUM.unpack_from(data, offset + _FRAME.size)
    if told != _checksum(data[offset : offset + _FRAME.size], data[body:end]):
        return None
    number, durable = _REST.unpack_from(data, body)
    try:
        changes = _decode(memoryview(data)[offset + FRAME_BYTES : end])
    except msgspec.DecodeError:
        return None
    return Record(number, durable, changes), end


def _sound_after(data: bytes, offset: int) -> Iterator[Record]:
    """All sound records that begin behind an offset, wherever they are."""
    while (offset := data.find(_MAGIC_BYTES, offset + 1)) >= 0:
        found = _record_at(data, offset)
        if found is not None:
            yield found[0]


def _cut_or_raise(data: bytes, offset: int, name: str, number: int, known: int) -> None:
    for record in _sound_after(data, offset):
        if record.durable >= number > known:
            raise JournalDamagedError(
                f"{name}: record {number}, at byte {offset}, is damaged, and record {record.number} behind it says that it was on the disk:"
                " what was acknowledged is lost. Restore the directory from a copy, or start a new cluster in an empty one"
            )
