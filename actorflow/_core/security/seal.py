"""What the head keeps where others may read and write: sealed, so that they can do neither unnoticed. Pure but for the random salt.

Each value is encrypted and authenticated (AES-256-GCM) together with the name under which it is kept. Each life of a head has a key of its
own, of a random salt that stands before the value; so a nonce is a count, and none comes twice.

SB-1: what was not sealed with this cluster's key, or under another name, is never opened.
SB-2: an old value under its own name can be put back by whoever has the storage, or taken away: that is not seen.
"""

from __future__ import annotations

import os

from actorflow._core.security.errors import CredentialError
from actorflow._core.security.keys import NeverPickled, derive

SALT_BYTES, NONCE_BYTES, TAG_BYTES = 16, 12, 16
OVERHEAD_BYTES = SALT_BYTES + NONCE_BYTES + TAG_BYTES
_LABEL = b"actorflow 1 sealed state"


class Seal(NeverPickled):
    """Seals and opens. `key`: uniformly random, the same for all lives."""

    __slots__ = ("_count", "_key", "_keys", "_salt")

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._salt = os.urandom(SALT_BYTES)
        self._count = 0
        self._keys: dict[bytes, bytes] = {}

    def close(self, name: bytes, value: bytes) -> bytes:
        """Seal a value that is kept under `name`."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._count += 1
        nonce = self._count.to_bytes(NONCE_BYTES, "big")
        return self._salt + nonce + AESGCM(self._key_of(self._salt)).encrypt(nonce, value, name)

    def open(self, name: bytes, sealed: bytes) -> bytes:
        """The value. Raises CredentialError (SB-1)."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        salt, nonce = sealed[:SALT_BYTES], sealed[SALT_BYTES : SALT_BYTES + NONCE_BYTES]
        try:
            if len(sealed) < OVERHEAD_BYTES:
                raise InvalidTag
            return AESGCM(self._key_of(salt)).decrypt(nonce, sealed[SALT_BYTES + NONCE_BYTES :], name)
        except InvalidTag:
            raise CredentialError.explain(
                which=f"the entry {name!r}",
                what="cannot be opened",
                why="it was sealed with the key of another cluster, or has been changed",
                next_step="give the directory of the credentials that the cluster was created with, or begin under another name",
            ) from None

    def _key_of(self, salt: bytes) -> bytes:
        key = self._keys.get(salt)
        if key is None:
            key = self._keys[salt] = derive(self._key, _LABEL + salt)
        return key
