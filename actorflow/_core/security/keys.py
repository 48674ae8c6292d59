"""Keys: what is derived from the cluster secret, and the ring of those that a process holds. Pure.

    secret --- root of NODE ------- the key of nodes
          |--- root of JOB -------- a key for each job ------- passes for visitors of the job (see passes)
          |--- root of JOIN ------- a key for each join token
          `--- root of CLIENT ----- a key for each client token

The head has the secret and so all roots. A node gets the roots of NODE and JOB when it joins, and never those of tokens: it cannot let
others in. A worker gets the key of its job, a driver from outside the key in its token, and with that the key of its job.

KY-1: every derivation has a label of its own, and what it is for is in it with a fixed size: no two keys are the same.
KY-2: derivation goes one way: a key tells nothing of its root, a root nothing of the secret or of other roots.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field

from actorflow._core.security.errors import CredentialError
from actorflow._core.security.roles import ROOT_KINDS, KeyKind

KEY_BYTES = 32
SECRET_ID_BYTES = 8
SUBJECT_BYTES_MAX = 32

_KEY_INFO = struct.Struct("!BBQ32s")
_ROOT = struct.Struct("!B8s32s")
ROOT_BYTES = _ROOT.size


def is_name(text: str) -> bool:
    """Whether `text` can be an id in a field of fixed size: printable ASCII without blanks. The empty text is."""
    return text.isascii() and all("!" <= char <= "~" for char in text)


def derive(material: bytes, label: bytes, size: int = KEY_BYTES) -> bytes:
    """HKDF with SHA-256 of a key that is uniformly random; `label` says what for."""
    # Late: a worker derives nothing, and shall not pay for the import.
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(SHA256(), size, None, label).derive(material)


def secret_id(secret: bytes) -> bytes:
    """What a secret is called in public: 8 bytes that tell nothing of it."""
    return derive(secret, b"actorflow 1 secret id", SECRET_ID_BYTES)


@dataclass(frozen=True, slots=True)
class KeyId:
    """Which key, without the key: this travels in the open."""

    kind: KeyKind
    secret_id: bytes
    subject: str = ""
    """The job of a key of a job, the id of a token, the job of a visitor; empty for nodes."""
    expires: int = 0
    """Wall time in whole seconds after which a token or a pass is no good; 0: never."""
    single_use: bool = False

    def __post_init__(self) -> None:
        if len(self.subject) > SUBJECT_BYTES_MAX or not is_name(self.subject):
            raise ValueError(f"the id {self.subject!r} is not 1 to {SUBJECT_BYTES_MAX} printable ASCII characters")
        if len(self.secret_id) != SECRET_ID_BYTES:
            raise ValueError(f"a secret's id has {SECRET_ID_BYTES} bytes, not {len(self.secret_id)}")
        if not 0 <= self.expires < 2**64:
            raise ValueError(f"expires={self.expires} is not a time in seconds")

    def __str__(self) -> str:
        subject = f" {self.subject}" if self.subject else ""
        return f"{self.kind.name} key{subject} of secret {self.secret_id.hex()}"


class NeverPickled:
    """A value that no pickle can hold: no secret leaves a process by accident: not in an argument, a result or an error."""

    __slots__ = ()

    def __reduce_ex__(self, protocol: object) -> str:
        raise TypeError(f"{type(self).__name__} is a secret and is never pickled")


@dataclass(frozen=True, slots=True)
class Key(NeverPickled):
    """A key with which a process proves what it is."""

    id: KeyId
    material: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Root(NeverPickled):
    """What all keys of one kind come from."""

    kind: KeyKind
    secret_id: bytes
    material: bytes = field(repr=False)

    @classmethod
    def of(cls, secret: bytes, kind: KeyKind) -> Root:
        """The root of `kind` under the cluster secret."""
        return cls(kind, secret_id(secret), derive(secret, b"actorflow 1 root " + kind.name.encode()))

    def key(self, subject: str = "", *, expires: int = 0, single_use: bool = False) -> Key:
        """The key for one subject."""
        return self.key_of(KeyId(self.kind, self.secret_id, subject, expires, single_use))

    def key_of(self, key_id: KeyId) -> Key:
        """The key that `key_id` names, which must be of this root."""
        info = _KEY_INFO.pack(key_id.kind, key_id.single_use, key_id.expires, key_id.subject.encode())
        return Key(key_id, derive(self.material, b"actorflow 1 key " + info))

    def export(self) -> bytes:
        """The root as bytes, for a node that has just proven itself. Nowhere else."""
        return _ROOT.pack(self.kind, self.secret_id, self.material)

    @classmethod
    def load(cls, data: bytes) -> Root:
        """What `export` gave. Raises CredentialError."""
        try:
            kind, root_secret_id, material = _ROOT.unpack(data)
            return cls(KeyKind(kind), root_secret_id, material)
        except (struct.error, ValueError) as error:
            raise CredentialError.explain(what="a root key from the head is damaged", why=f"{len(data)} bytes: {error}") from error


@dataclass(frozen=True, slots=True)
class Keyring(NeverPickled):
    """The roots and keys that one process holds. Of two for the same thing the first is in use; the others are accepted as well."""

    roots: tuple[Root, ...] = ()
    keys: tuple[Key, ...] = ()

    def find(self, key_id: KeyId) -> Key | None:
        """The key that a peer names, if this process has it or can make it."""
        for key in self.keys:
            if key.id == key_id:
                return key
        for root in self.roots:
            if root.kind is key_id.kind and root.secret_id == key_id.secret_id:
                return root.key_of(key_id)
        return None

    def pick(self, kind: KeyKind, subject: str = "") -> Key:
        """The key to connect with. Raises KeyError when this process has none of that kind for `subject`."""
        for key in self.keys:
            if key.id.kind is kind and subject in ("", key.id.subject):
                return key
        for root in self.roots:
            if root.kind is kind:
                return root.key(subject)
        raise KeyError(f"no {kind.name} key{f' for {subject}' if subject else ''}")

    def for_job(self, job_id: str) -> Keyring:
        """What a worker or driver of a job is given: its key under each secret that is valid."""
        return Keyring(keys=tuple(root.key(job_id) for root in self.roots if root.kind is KeyKind.JOB))

    def for_node(self) -> Keyring:
        """What a node is given: all roots but those of tokens."""
        return Keyring(tuple(root for root in self.roots if root.kind in (KeyKind.NODE, KeyKind.JOB)))


def keyring_of(secrets: Iterable[bytes]) -> Keyring:
    """The ring of the head: every root of every secret, those of the first one first."""
    return Keyring(tuple(Root.of(secret, kind) for secret in secrets for kind in ROOT_KINDS))
