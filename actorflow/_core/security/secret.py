"""The cluster secret, and its replacement by a new one while the cluster runs. Pure: texts in, values out.

The text is one or two lines, `afsecret1_` and 64 hex digits each. The first secret is in use; both are accepted. A secret is replaced
in three steps, and after each one every process reads the text again before the next:

    A         in the beginning
    A  B      `with_next`: all accept B, nobody uses it yet
    B  A      `promoted`: all use B, A is still accepted
    B         `retired`

SC-1: of two processes that are one step apart, each accepts what the other uses.
"""

from __future__ import annotations

import string
from dataclasses import dataclass, field

from actorflow._core.security.errors import CredentialError
from actorflow._core.security.keys import Keyring, NeverPickled, keyring_of, secret_id

SECRET_BYTES = 32
PREFIX = "afsecret1_"
TEXT_BYTES_MAX = 1024

_TOKEN_PREFIXES = ("afjoin1_", "afclient1_")
_HEX = frozenset(string.hexdigits)


@dataclass(frozen=True, slots=True)
class Secrets(NeverPickled):
    """The secret in use, and the other one that is accepted during a replacement."""

    current: bytes = field(repr=False)
    other: bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for secret in self.valid():
            if len(secret) != SECRET_BYTES:
                raise ValueError(f"a cluster secret has {SECRET_BYTES} bytes, not {len(secret)}")
        if self.current == self.other:
            raise ValueError("the two secrets are the same")

    def __str__(self) -> str:
        return " and ".join(secret_id(secret).hex() for secret in self.valid())

    def valid(self) -> tuple[bytes, ...]:
        """All that are accepted, the one in use first."""
        return (self.current,) if self.other is None else (self.current, self.other)

    def keyring(self) -> Keyring:
        """The ring of a process that holds the secret itself: the head."""
        return keyring_of(self.valid())

    def with_next(self, new: bytes) -> Secrets:
        """Step 1: accept `new` as well. Raises CredentialError during another replacement."""
        if self.other is not None:
            raise _wrong_step("already holds two secrets", "a replacement is under way", "promote and retire first")
        return Secrets(self.current, new)

    def promoted(self) -> Secrets:
        """Step 2: use the other one. Raises CredentialError when there is none."""
        if self.other is None:
            raise _wrong_step("holds one secret only", "no new one was added", "add one first")
        return Secrets(self.other, self.current)

    def retired(self) -> Secrets:
        """Step 3: accept the one in use only. Raises CredentialError when there is no other one."""
        if self.other is None:
            raise _wrong_step("holds one secret only", "there is nothing to retire", "")
        return Secrets(self.current)

    def text(self) -> str:
        """What `parse_secrets` reads."""
        return "".join(f"{PREFIX}{secret.hex()}\n" for secret in self.valid())


def parse_secrets(text: bytes, where: str) -> Secrets:
    """Read the text of a secret file or variable; `where` names it in errors. Raises CredentialError, which shows nothing of the text."""
    if len(text) > TEXT_BYTES_MAX:
        raise _unusable(where, f"it has {len(text)} bytes, and a secret file has at most {TEXT_BYTES_MAX}")
    try:
        words = text.decode("ascii").split()
    except UnicodeDecodeError:
        raise _unusable(where, "it is not text") from None
    if not words:
        raise _unusable(where, "it is empty")
    if len(words) > 2:
        raise _unusable(where, f"it holds {len(words)} words, and at most two secrets may be valid at once")
    found = [_parse_one(word, number, where) for number, word in enumerate(words, start=1)]
    if len(found) == 2 and found[0] == found[1]:
        raise _unusable(where, "it holds the same secret twice")
    return Secrets(*found)


def _parse_one(word: str, number: int, where: str) -> bytes:
    if word.startswith(_TOKEN_PREFIXES):
        raise _unusable(where, "it holds a token, which is for joining or for a driver: the cluster secret is another thing")
    digits = word.removeprefix(PREFIX)
    if digits == word:
        raise _unusable(where, f"secret {number} does not begin with {PREFIX}")
    if len(digits) != 2 * SECRET_BYTES or not _HEX.issuperset(digits):
        raise _unusable(where, f"secret {number} is not {2 * SECRET_BYTES} hex digits after {PREFIX} ({len(digits)} characters)")
    return bytes.fromhex(digits)


def _unusable(where: str, why: str) -> CredentialError:
    advice = "copy the file of the head again; it is made when a cluster is created, with mode 0600"
    return CredentialError.explain(which=where, what="does not hold a cluster secret", why=why, next_step=advice)


def _wrong_step(what: str, why: str, advice: str) -> CredentialError:
    return CredentialError.explain(which="the secret file", what=what, why=why, next_step=advice)
