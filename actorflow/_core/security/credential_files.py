"""Where the secrets of a cluster are kept, and how a process gets at them.

<directory>/            0700
    secret              the cluster secret, during a replacement two
    authority.pem       the certificate of the authority
    authority.key       its key, which stays with the head
    admitted            tokens that were used, and lives of nodes that are over: a head that starts again goes on with them

The head reads the directory. Whoever comes from outside reads a token, from a file or from the variable ACTORFLOW_TOKEN, and never
from the command line, which everybody on the machine can see. What is in a variable does not pass on to workers (`without_secrets`).

CF-1: a file that cannot be used changes nothing: whoever has read it before goes on with what it said then.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from actorflow._core.security import secret as secret_text
from actorflow._core.security import tokens
from actorflow._core.security.authority import Authority
from actorflow._core.security.errors import CredentialError
from actorflow._core.security.fences import Fences
from actorflow._core.security.private_files import Signature, make_private_dir, read_private, signature_of, write_private
from actorflow._core.security.roles import KeyKind
from actorflow._core.security.secret import SECRET_BYTES, Secrets, parse_secrets
from actorflow._core.security.tokens import SpentTokens, Token, parse_token

SECRET_VARIABLE = "ACTORFLOW_SECRET"
TOKEN_VARIABLE = "ACTORFLOW_TOKEN"
TOKEN_FILE_VARIABLE = "ACTORFLOW_TOKEN_FILE"
PEM_BYTES_MAX = 16 * 1024
ADMITTED_BYTES_MAX = 16 * 1024 * 1024
"""Room for the rows of a full book of fences and one of tokens."""


@dataclass(frozen=True, slots=True)
class CredentialDir:
    """The directory of a cluster's secrets, by its path."""

    path: str

    @property
    def secret(self) -> str:
        """The file of the cluster secret."""
        return os.path.join(self.path, "secret")

    @property
    def authority(self) -> str:
        """The authority's certificate."""
        return os.path.join(self.path, "authority.pem")

    @property
    def authority_key(self) -> str:
        """The authority's key."""
        return os.path.join(self.path, "authority.key")

    @property
    def admitted(self) -> str:
        """What the head has admitted and fenced."""
        return os.path.join(self.path, "admitted")

    def create(
        self,
        cluster_id: str,
        *,
        wall_time: float,
        random_bytes: Callable[[int], bytes] = os.urandom,
        secrets: Secrets | None = None,
    ) -> tuple[Secrets, Authority]:
        """Make the files of a new cluster, with the secret that is given, else with a new one.

        Raises CredentialError; also when there are some already: they are never overwritten.
        """
        made = secrets if secrets is not None else Secrets(random_bytes(SECRET_BYTES))
        authority = Authority.create(cluster_id, wall_time=wall_time)
        make_private_dir(self.path)
        write_private(self.secret, made.text().encode())
        write_private(self.authority_key, authority.key_pem())
        write_private(self.authority, authority.certificate_pem())
        return made, authority

    def files(self) -> frozenset[str]:
        """Those of ours that are there."""
        return frozenset(filter(os.path.lexists, (self.secret, self.authority, self.authority_key, self.admitted)))

    def remove(self, before: frozenset[str]) -> None:
        """Take back what `create` has made, and the head has added, for a cluster that never began. `before`: what was there stays."""
        for path in self.files() - before:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        with contextlib.suppress(OSError):
            os.rmdir(self.path)  # It may have been there, and there may be more in it.

    def exists(self) -> bool:
        """Whether a cluster has been created here."""
        return os.path.lexists(self.secret)

    def load_authority(self) -> Authority:
        """Read the authority, at the head. Raises CredentialError."""
        certificate, _ = read_private(self.authority, PEM_BYTES_MAX)
        key, _ = read_private(self.authority_key, PEM_BYTES_MAX)
        return Authority.load(certificate, key, self.path)

    def load_authority_certificate(self) -> bytes:
        """The authority's certificate (PEM), for whoever joins with the secret. Raises CredentialError."""
        return read_private(self.authority, PEM_BYTES_MAX)[0]

    def load_admitted(self) -> tuple[SpentTokens, Fences]:
        """What an earlier life of the head has written; nothing for a new cluster. Raises CredentialError."""
        if not os.path.lexists(self.admitted):
            return SpentTokens(), Fences()
        data, _ = read_private(self.admitted, ADMITTED_BYTES_MAX)
        try:
            rows = json.loads(data)
            spent = [(str(subject), int(end)) for subject, end in rows["spent"]]
            return SpentTokens(spent), Fences([(str(name), int(oldest)) for name, oldest in rows["fences"]])
        except (ValueError, KeyError, TypeError) as error:
            why, advice = f"it cannot be read ({error})", "restore it; without it used tokens and removed nodes would be admitted again"
            raise CredentialError.explain(which=self.admitted, what="will not be used", why=why, next_step=advice) from None

    def save_admitted(self, spent: SpentTokens, fences: Fences) -> None:
        """Write it, whole. Raises CredentialError."""
        write_private(self.admitted, json.dumps({"spent": spent.rows(), "fences": fences.rows()}).encode(), replace=True)

    def replace_secrets(self, secrets: Secrets) -> None:
        """Write the next step of a replacement. Raises CredentialError."""
        write_private(self.secret, secrets.text().encode(), replace=True)


class SecretFile:
    """Reads a file of secrets, and reads it again when it has changed."""

    __slots__ = ("_path", "_seen", "secrets")

    def __init__(self, path: str) -> None:
        """Read it. Raises CredentialError."""
        self._path = path
        self.secrets, self._seen = self._read()

    def reload(self) -> bool:
        """Whether the secrets are others now. Raises CredentialError, once for each change of the file that makes it useless (CF-1)."""
        try:
            seen: Signature | None = signature_of(os.lstat(self._path))
        except OSError:
            seen = None
        if seen == self._seen:
            return False
        self._seen = seen
        before = self.secrets
        self.secrets, self._seen = self._read()
        return self.secrets != before

    def _read(self) -> tuple[Secrets, Signature | None]:
        data, seen = read_private(self._path, secret_text.TEXT_BYTES_MAX)
        return parse_secrets(data, self._path), seen


def secrets_in(environ: Mapping[str, str]) -> Secrets | None:
    """The secret in ACTORFLOW_SECRET, for where files are a burden (containers); None when it is not set. Raises CredentialError."""
    text = environ.get(SECRET_VARIABLE)
    return None if text is None else parse_secrets(_as_bytes(text), f"the variable {SECRET_VARIABLE}")


def load_token(kind: KeyKind, path: str | None, environ: Mapping[str, str]) -> Token:
    """Read a token from the file `path`, else from ACTORFLOW_TOKEN. Raises CredentialError."""
    if path is not None:
        return parse_token(read_private(path, tokens.TEXT_BYTES_MAX, listed=True)[0], kind, path)
    text = environ.get(TOKEN_VARIABLE)
    if text is None:
        advice = f"have the head make one, and give its file, or its text in {TOKEN_VARIABLE}"
        raise CredentialError.explain(what=f"there is no {kind.name.lower()} token", why="neither file nor variable", next_step=advice)
    return parse_token(_as_bytes(text), kind, f"the variable {TOKEN_VARIABLE}")


def without_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for a process that runs the user's code."""
    return {name: value for name, value in environ.items() if name not in (SECRET_VARIABLE, TOKEN_VARIABLE, TOKEN_FILE_VARIABLE)}


def _as_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
