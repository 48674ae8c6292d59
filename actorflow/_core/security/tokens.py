"""Tokens: what a machine that joins, or a driver from outside, is given instead of the cluster secret. Pure.

A token is one word: its prefix says what it is for, then come its id, its end, its key and the certificate of the cluster's
authority, in base64. Its holder therefore knows whom to trust before it has ever spoken to the cluster.

TK-1: the head keeps no list of tokens. It derives the key of each from the id and the end that the holder names; who changes those has
      another key.
TK-2: a token for one use lets one process in. When the book of used tokens is full, such tokens are refused.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from actorflow._core.security.errors import CredentialError
from actorflow._core.security.keys import Key, KeyId, Keyring, NeverPickled, Root
from actorflow._core.security.roles import KeyKind

PREFIXES = {KeyKind.JOIN: "afjoin1_", KeyKind.CLIENT: "afclient1_"}
TEXT_BYTES_MAX = 4096
TOKEN_ID_BYTES = 8
SPENT_MAX = 10_000

_HEAD = struct.Struct("!8sB32sQ32s")
_CHECK_BYTES = 4

_FOR = {KeyKind.JOIN: "lets a machine join as a node", KeyKind.CLIENT: "lets a driver in from outside"}


@dataclass(frozen=True, slots=True)
class Token(NeverPickled):
    """A key of the kind JOIN or CLIENT, and the certificate (DER) of the authority that signs the cluster's certificates."""

    key: Key
    authority: bytes = field(repr=False)

    def keyring(self) -> Keyring:
        """What the holder of the token connects with."""
        return Keyring(keys=(self.key,))

    def text(self) -> str:
        """The token as one word."""
        key_id = self.key.id
        head = _HEAD.pack(key_id.secret_id, key_id.single_use, key_id.subject.encode(), key_id.expires, self.key.material)
        body = head + self.authority
        return PREFIXES[key_id.kind] + base64.urlsafe_b64encode(body + _checksum(body)).decode().rstrip("=")


def make_token(
    root: Root,
    authority: bytes,
    *,
    wall_time: float,
    random_bytes: Callable[[int], bytes],
    valid_s: float | None = None,
    single_use: bool = False,
) -> Token:
    """Make a token of the root's kind. One for a single use must join a machine (only the head sees all of its uses) and must end."""
    if single_use and (root.kind is not KeyKind.JOIN or valid_s is None):
        raise ValueError("only a join token with an end may be for a single use")
    expires = 0 if valid_s is None else max(1, int(wall_time + valid_s))
    subject = random_bytes(TOKEN_ID_BYTES).hex()
    return Token(root.key(subject, expires=expires, single_use=single_use), authority)


def parse_token(text: bytes, kind: KeyKind, where: str) -> Token:
    """Read a token of `kind`; `where` names the file or variable in errors. Raises CredentialError, which shows nothing of the text."""
    if len(text) > TEXT_BYTES_MAX:
        raise _unusable(kind, where, f"it has {len(text)} bytes, and a token has at most {TEXT_BYTES_MAX}")
    try:
        word = text.decode("ascii").strip()
    except UnicodeDecodeError:
        raise _unusable(kind, where, "it is not text") from None
    if not word:
        raise _unusable(kind, where, "it is empty")
    if not word.startswith(PREFIXES[kind]):
        raise _unusable(kind, where, _other_kind(word, kind))
    body = word.removeprefix(PREFIXES[kind])
    try:
        data = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise _unusable(kind, where, "it is damaged: not base64 after its prefix") from None
    if len(data) <= _HEAD.size + _CHECK_BYTES or _checksum(data[:-_CHECK_BYTES]) != data[-_CHECK_BYTES:]:
        raise _unusable(kind, where, "it is damaged: a part is missing or was changed")
    secret_id, flags, subject, expires, material = _HEAD.unpack_from(data)
    try:
        key_id = KeyId(kind, secret_id, subject.decode("ascii").rstrip("\0"), expires, bool(flags & 1))
    except (UnicodeDecodeError, ValueError):
        raise _unusable(kind, where, "it is damaged: its id is not text") from None
    token = Token(Key(key_id, material), data[_HEAD.size : -_CHECK_BYTES])
    if token.text() != word:
        raise _unusable(kind, where, "it is damaged: bits are set that mean nothing")
    return token


def has_expired(key_id: KeyId, wall_time: float) -> bool:
    """Whether the time of a key is over."""
    return key_id.expires != 0 and wall_time >= key_id.expires


class SpentTokens:
    """The book of tokens for a single use, at the head, which writes it into its journal (`rows`)."""

    def __init__(self, rows: Iterable[tuple[str, int]] = (), *, spent_max: int = SPENT_MAX) -> None:
        self._ends = dict(rows)
        self._spent_max = spent_max

    def rows(self) -> list[tuple[str, int]]:
        """(token id, its end) of each, to begin with again after a restart."""
        return list(self._ends.items())

    def spend(self, key_id: KeyId, wall_time: float) -> bool:
        """Use the token up. False: it was used before, or the book is full (TK-2)."""
        if not key_id.single_use:
            return True
        if key_id.subject in self._ends:
            return False
        if len(self._ends) >= self._spent_max:
            # Those that have ended need no entry: nobody gets in with them any more.
            self._ends = {subject: end for subject, end in self._ends.items() if end > wall_time}
            if len(self._ends) >= self._spent_max:
                return False
        self._ends[key_id.subject] = key_id.expires
        return True


def _checksum(body: bytes) -> bytes:
    """Against a slip of the hand; it proves nothing."""
    return hashlib.sha256(b"actorflow 1 token" + body).digest()[:_CHECK_BYTES]


def _other_kind(word: str, wanted: KeyKind) -> str:
    for kind, prefix in PREFIXES.items():
        if word.startswith(prefix):
            return f"it holds a token that {_FOR[kind]}, not one that {_FOR[wanted]}"
    if word.startswith("afsecret1_"):
        return "it holds the cluster secret itself, which stays with the head"
    return f"it does not begin with {PREFIXES[wanted]}"


def _unusable(kind: KeyKind, where: str, why: str) -> CredentialError:
    advice = f"have the head make a token that {_FOR[kind]}"
    return CredentialError.explain(which=where, what=f"does not hold a {kind.name.lower()} token", why=why, next_step=advice)
