"""Tokens and the replacement of the secret, as the command line makes them. The way down to `security`, for callers above the core."""

from __future__ import annotations

import os
import time

from actorflow._core.base.errors import ClusterConnectionError
from actorflow._core.boot.session_dir import find_all
from actorflow._core.security.credential_files import CredentialDir, SecretFile
from actorflow._core.security.keys import Root
from actorflow._core.security.private_files import write_private
from actorflow._core.security.roles import KeyKind
from actorflow._core.security.secret import SECRET_BYTES, Secrets
from actorflow._core.security.tokens import make_token

__all__ = ["STEPS", "make", "replace_secret"]

STEPS = ("add", "promote", "retire")


def make(kind: str, *, credentials: str = "", valid_s: float | None, single_use: bool = False, output: str = "") -> str:
    """A token of the kind `join` or `client`, under the secret in use. With `output` it is written there and the path is returned.

    Raises CredentialError, ClusterConnectionError.
    """
    directory = _directory(credentials)
    authority = directory.load_authority()
    root = Root.of(SecretFile(directory.secret).secrets.current, KeyKind[kind.upper()])
    token = make_token(
        root,
        authority.certificate_der(),
        wall_time=time.time(),
        random_bytes=os.urandom,
        valid_s=valid_s,
        single_use=single_use,
    )
    if not output:
        return token.text()
    write_private(os.path.abspath(output), f"{token.text()}\n".encode(), listed=True)
    return output


def replace_secret(step: str, *, credentials: str = "") -> str:
    """Take the next step of a replacement; returns which secrets are accepted now, by their public ids, the one in use first.

    Raises CredentialError, ClusterConnectionError.
    """
    directory = _directory(credentials)
    secrets = SecretFile(directory.secret).secrets
    after: Secrets
    if step == "add":
        after = secrets.with_next(os.urandom(SECRET_BYTES))
    elif step == "promote":
        after = secrets.promoted()
    else:
        after = secrets.retired()
    directory.replace_secrets(after)
    return str(after)


def _directory(credentials: str) -> CredentialDir:
    """The directory that was named, else that of the head of this user on this host."""
    if credentials:
        return CredentialDir(os.path.abspath(credentials))
    found = dict.fromkeys(node.credentials for node in find_all() if node.credentials)
    if len(found) == 1:
        return CredentialDir(next(iter(found)))
    raise ClusterConnectionError.explain(
        what="the directory with the cluster's secret is not known",
        why="no node with a head runs here" if not found else f"{len(found)} clusters have their heads here",
        next_step="give it (--credentials DIRECTORY)",
    )
