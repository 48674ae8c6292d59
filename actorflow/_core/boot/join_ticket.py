"""What a node joins with: a join token, or the cluster secret from which it makes itself the key of one.

It travels from the command that starts the node to the node process through a pipe: what stands on a command line or in an environment can
be read by others, and what is in memory at the fork of the zygote is in that of every worker.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field

from actorflow._core.security.credential_files import CredentialDir, SecretFile
from actorflow._core.security.keys import Key, NeverPickled, Root
from actorflow._core.security.roles import KeyKind
from actorflow._core.security.secret import Secrets, parse_secrets
from actorflow._core.security.tls import authorities_of_token
from actorflow._core.security.tokens import TOKEN_ID_BYTES, Token, parse_token


@dataclass(frozen=True, slots=True)
class Ticket(NeverPickled):
    """The key to join with, and the authorities to trust (PEM); empty where there is no TLS."""

    key: Key
    authorities: bytes = field(default=b"", repr=False)


def of_token(token: Token) -> bytes:
    """A token, for the pipe."""
    return json.dumps({"token": token.text()}).encode()


def of_directory(path: str, *, tls: bool) -> bytes:
    """The secret in a directory, and with TLS the authority's certificate beside it, for the pipe. Raises CredentialError."""
    directory = CredentialDir(path)
    authorities = directory.load_authority_certificate() if tls else b""
    return of_secret(SecretFile(directory.secret).secrets, authorities)


def of_secret(secrets: Secrets, authorities: bytes = b"") -> bytes:
    """The secret, for the pipe."""
    return json.dumps({"secret": secrets.text(), "authorities": authorities.decode("ascii")}).encode()


def ticket_from(data: bytes) -> Ticket:
    """At the other end of the pipe. Raises CredentialError."""
    said = json.loads(data)
    where = "what this node was started with"
    if "token" in said:
        token = parse_token(said["token"].encode(), KeyKind.JOIN, where)
        return Ticket(token.key, authorities_of_token(token.authority))
    secret = parse_secrets(said["secret"].encode(), where).current
    return Ticket(Root.of(secret, KeyKind.JOIN).key(os.urandom(TOKEN_ID_BYTES).hex()), said["authorities"].encode())

