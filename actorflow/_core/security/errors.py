"""What goes wrong with files of secrets and in the handshake, and the codes that a peer is told."""

from __future__ import annotations

from enum import IntEnum

from actorflow._core.base.errors import ActorflowError, ProtocolError


class Code(IntEnum):
    """The last word of the side that accepts. A peer that has proven no key is told nothing from EXPIRED on."""

    ADMITTED = 0
    MALFORMED = 1
    """What came is not our handshake."""
    VERSION = 2
    PLAIN = 3
    """No TLS where it is required, or TLS where there is none."""
    CLOCK = 4
    TARGET = 5
    """No process of that name is here."""
    BUSY = 6
    TIMEOUT = 7
    NOT_ADMITTED = 8
    """The one answer to every wrong key, name, role and certificate. The reason is in the log of who refused."""
    EXPIRED = 9
    SPENT = 10
    FENCED = 11


class CredentialError(ActorflowError):
    """A file, variable or text that should hold a secret, a token or a certificate cannot be used.

    The message says which and why, and never shows what is in it.
    """

    reason: str = ""


class HandshakeRefused(ProtocolError):
    """The handshake has failed. The message is for the local log; the peer gets the code at most.

    Whoever gets this writes what the machine still has to say (`outgoing()`), and closes.
    """

    code: Code = Code.NOT_ADMITTED
    told: bool = False
    """The other side has said so, after it had proven itself: nobody in between can have made it up."""
    cut: bool = False
    """The connection has ended in the middle: nobody has refused anything, and the next try may go well."""


def refused(code: Code, message: str) -> HandshakeRefused:
    """Make the error with its code."""
    return HandshakeRefused(message, code=code)
