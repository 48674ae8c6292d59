"""The messages of the handshake as bytes. Each has one size, and no field of one says how long another is. Pure.

    preface   64   connector -> acceptor, in the open: what we speak, and to which process of this port we wish to speak
    opening  116   connector -> acceptor: who I am, which key I have, my nonce
    answer   100   acceptor -> connector: who I am, my nonce, and the proof that I have that key
    proof     36   connector -> acceptor: the proof that I have it
    verdict   24   acceptor -> connector: admitted, or why not; it may come instead of any answer, in the open too

WI-1: whatever the bytes are, decoding gives a value or raises HandshakeRefused.
WI-2: nothing is decoded before all of it is there, and no more than WANTED_BYTES_MAX is kept.
WI-3: the first ten bytes of a preface and the first eight of a verdict stay as they are in every version to come.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from actorflow._core.security.errors import Code, refused
from actorflow._core.security.keys import KeyId, is_name
from actorflow._core.security.roles import KeyKind, Role

HANDSHAKE_VERSION = 1
NONCE_BYTES = 32
MAC_BYTES = 32
NAME_BYTES_MAX = 24
"""Of a process id, and of the name of a target."""

MAGIC = b"\xafAFLOW\r\n"
"""No text begins so, TLS does not, and whoever turns line ends around is noticed."""
VERDICT_MAGIC = b"\xa4AFLOW"
OPENING_TAG, ANSWER_TAG, PROOF_TAG, VERDICT_TAG = 0xA1, 0xA2, 0xA3, VERDICT_MAGIC[0]

_PREFACE = struct.Struct("!8sHBxIQ24s16s")
_OPENING = struct.Struct("!BBBB8s32sQ24sQ32s")
_ANSWER = struct.Struct("!BBxx24sQ32s32s")
_PROOF = struct.Struct("!Bxxx32s")
_VERDICT = struct.Struct("!6sHHIQxx")
PREFACE_BYTES, OPENING_BYTES, ANSWER_BYTES = _PREFACE.size, _OPENING.size, _ANSWER.size
PROOF_BYTES, VERDICT_BYTES = _PROOF.size, _VERDICT.size
WANTED_BYTES_MAX = max(PREFACE_BYTES, OPENING_BYTES, ANSWER_BYTES, PROOF_BYTES, VERDICT_BYTES)
ACCEPTED_BYTES_MAX = PREFACE_BYTES + OPENING_BYTES + PROOF_BYTES
"""All that one connection may say before it is known."""

_SINGLE_USE = 1


@dataclass(frozen=True, slots=True)
class Preface:
    """The first bytes of a connection. `target`: a process id, a name such as `head`, or nothing for whoever owns the port."""

    target: str
    tls: bool
    protocol_version: int
    wall_time: float
    handshake_version: int = HANDSHAKE_VERSION

    def encode(self) -> bytes:
        """The 64 bytes."""
        milliseconds = _milliseconds(self.wall_time)
        target = _name_bytes(self.target)
        return _PREFACE.pack(MAGIC, self.handshake_version, self.tls, self.protocol_version, milliseconds, target, b"")

    @classmethod
    def decode(cls, data: bytes) -> Preface:
        """From 64 bytes. A preface of another version is decoded as far as the version."""
        magic, version, tls, protocol_version, milliseconds, target, rest = _unpack(_PREFACE, data)
        if magic != MAGIC:
            raise refused(Code.MALFORMED, "the connection does not begin with our preface")
        if version != HANDSHAKE_VERSION:
            return cls("", False, 0, 0.0, version)
        # Nothing may hide in what is not used: the encoding of a preface is the only one.
        preface = cls(_name_of(target), bool(tls), protocol_version, milliseconds / 1000)
        if tls > 1 or any(rest) or preface.encode() != data:
            raise refused(Code.MALFORMED, "the preface has bits set that mean nothing")
        return preface


@dataclass(frozen=True, slots=True)
class Party:
    """A process as it names itself. `incarnation` grows with each life of what has several under one id."""

    role: Role
    process_id: str
    incarnation: int = 0

    def __str__(self) -> str:
        life = f" (incarnation {self.incarnation})" if self.incarnation else ""
        return f"{self.role.name.lower()} {self.process_id}{life}"


@dataclass(frozen=True, slots=True)
class Opening:
    """The connector's first message."""

    party: Party
    key_id: KeyId
    nonce: bytes

    def encode(self) -> bytes:
        """The 116 bytes."""
        party, key_id = self.party, self.key_id
        flags = _SINGLE_USE if key_id.single_use else 0
        subject = key_id.subject.encode()
        name = _name_bytes(party.process_id)
        head = (OPENING_TAG, party.role, key_id.kind, flags, key_id.secret_id, subject, key_id.expires)
        return _OPENING.pack(*head, name, party.incarnation, self.nonce)

    @classmethod
    def decode(cls, data: bytes) -> Opening:
        """From 116 bytes."""
        tag, role, kind, flags, secret_id, subject, expires, name, incarnation, nonce = _unpack(_OPENING, data)
        _check(tag == OPENING_TAG and flags in (0, _SINGLE_USE), "the opening has a wrong tag or flag")
        try:
            key_id = KeyId(KeyKind(kind), secret_id, _name_of(subject), expires, bool(flags))
        except ValueError:
            raise refused(Code.MALFORMED, f"the opening names a key of an unknown kind ({kind})") from None
        return cls(_party(role, name, incarnation), key_id, nonce)


@dataclass(frozen=True, slots=True)
class Answer:
    """The acceptor's message; `mac` proves that it has the key."""

    party: Party
    nonce: bytes
    mac: bytes = bytes(MAC_BYTES)

    def encode(self) -> bytes:
        """The 100 bytes, of which the last 32 are the proof."""
        name = _name_bytes(self.party.process_id)
        return _ANSWER.pack(ANSWER_TAG, self.party.role, name, self.party.incarnation, self.nonce, self.mac)

    @classmethod
    def decode(cls, data: bytes) -> Answer:
        """From 100 bytes."""
        tag, role, name, incarnation, nonce, mac = _unpack(_ANSWER, data)
        _check(tag == ANSWER_TAG and data[2:4] == b"\0\0", "the answer has a wrong tag")
        return cls(_party(role, name, incarnation), nonce, mac)


@dataclass(frozen=True, slots=True)
class Proof:
    """The connector's second message."""

    mac: bytes

    def encode(self) -> bytes:
        """The 36 bytes."""
        return _PROOF.pack(PROOF_TAG, self.mac)

    @classmethod
    def decode(cls, data: bytes) -> Proof:
        """From 36 bytes."""
        tag, mac = _unpack(_PROOF, data)
        _check(tag == PROOF_TAG and data[1:4] == bytes(3), "the proof has a wrong tag")
        return cls(mac)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The acceptor's last message, with what it speaks and what its clock says: the connector can then tell what differs."""

    code: int
    protocol_version: int
    wall_time: float
    handshake_version: int = HANDSHAKE_VERSION

    def encode(self) -> bytes:
        """The 24 bytes."""
        milliseconds = _milliseconds(self.wall_time)
        return _VERDICT.pack(VERDICT_MAGIC, self.code, self.handshake_version, self.protocol_version, milliseconds)

    @classmethod
    def decode(cls, data: bytes) -> Verdict:
        """From 24 bytes. A code of a later version is kept as a number."""
        magic, code, version, protocol_version, milliseconds = _unpack(_VERDICT, data)
        _check(magic == VERDICT_MAGIC, "the verdict has a wrong tag")
        return cls(code, protocol_version, milliseconds / 1000, version)


def _party(role: int, name: bytes, incarnation: int) -> Party:
    try:
        return Party(Role(role), _name_of(name), incarnation)
    except ValueError:
        raise refused(Code.MALFORMED, f"role {role} is none that we know") from None


def _name_bytes(name: str) -> bytes:
    if len(name) > NAME_BYTES_MAX or not is_name(name):
        raise ValueError(f"{name!r} cannot be named in a handshake: at most {NAME_BYTES_MAX} printable ASCII characters")
    return name.encode()


def _name_of(field: bytes) -> str:
    """The name in a field that is filled up with zeros."""
    name = field.rstrip(b"\0").decode("latin-1")
    _check(is_name(name), "a name holds what no name of ours does")
    return name


def _milliseconds(wall_time: float) -> int:
    return min(max(0, round(wall_time * 1000)), 2**64 - 1)


def _unpack(form: struct.Struct, data: bytes) -> tuple[Any, ...]:
    _check(len(data) == form.size, f"a message has {len(data)} bytes, not {form.size}")
    return form.unpack(data)


def _check(right: bool, problem: str) -> None:
    if not right:
        raise refused(Code.MALFORMED, problem)
