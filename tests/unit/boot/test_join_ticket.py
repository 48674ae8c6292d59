"""What a node joins with, through the pipe and out of it again."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from actorflow._core.boot import join_ticket
from actorflow._core.security.authority import Authority
from actorflow._core.security.credential_files import CredentialDir
from actorflow._core.security.errors import CredentialError
from actorflow._core.security.keys import Root, keyring_of
from actorflow._core.security.roles import KeyKind
from actorflow._core.security.secret import Secrets
from actorflow._core.security.tokens import make_token

SECRET = b"s" * 32


def test_a_token_there_and_back() -> None:
    authority = Authority.create("c", wall_time=time.time())
    token = make_token(Root.of(SECRET, KeyKind.JOIN), authority.certificate_der(), wall_time=0.0, random_bytes=bytes, valid_s=9.0)
    ticket = join_ticket.ticket_from(join_ticket.of_token(token))
    assert ticket.key == token.key
    assert ticket.authorities == authority.certificate_pem()


@pytest.mark.parametrize("tls", [True, False])
def test_the_secret_makes_itself_a_key_that_the_head_knows(tmp_path: Path, tls: bool) -> None:
    directory = CredentialDir(str(tmp_path / "c"))
    secrets, authority = directory.create("c", wall_time=time.time())
    ticket = join_ticket.ticket_from(join_ticket.of_directory(directory.path, tls=tls))
    assert keyring_of(secrets.valid()).find(ticket.key.id) == ticket.key
    assert ticket.key.id.kind is KeyKind.JOIN
    assert ticket.authorities == (authority.certificate_pem() if tls else b"")
    again = join_ticket.ticket_from(join_ticket.of_directory(directory.path, tls=tls))
    assert again.key != ticket.key, "one for each node"


def test_during_a_replacement_the_one_in_use_is_taken() -> None:
    ticket = join_ticket.ticket_from(join_ticket.of_secret(Secrets(SECRET, b"o" * 32)))
    assert ticket.key.id.secret_id == Root.of(SECRET, KeyKind.JOIN).secret_id


def test_without_the_certificate_of_the_authority_there_is_no_tls(tmp_path: Path) -> None:
    directory = CredentialDir(str(tmp_path / "c"))
    directory.create("c", wall_time=0.0)
    Path(directory.authority).unlink()
    with pytest.raises(CredentialError, match="authority.pem cannot be read"):
        join_ticket.of_directory(directory.path, tls=True)
    assert join_ticket.of_directory(directory.path, tls=False)


def test_a_ticket_shows_nothing() -> None:
    ticket = join_ticket.ticket_from(join_ticket.of_secret(Secrets(SECRET)))
    assert ticket.key.material.hex() not in repr(ticket)
    with pytest.raises(TypeError, match="never pickled"):
        ticket.__reduce_ex__(5)
