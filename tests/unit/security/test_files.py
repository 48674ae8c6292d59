"""Files of secrets on a real disk: their modes, what is refused, and reading them again."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from actorflow._core.security import private_files, tls
from actorflow._core.security.credential_files import (
    SECRET_VARIABLE,
    TOKEN_VARIABLE,
    CredentialDir,
    SecretFile,
    load_token,
    secrets_in,
    without_secrets,
)
from actorflow._core.security.errors import CredentialError
from actorflow._core.security.private_files import make_private_dir, read_private, write_private
from actorflow._core.security.roles import KeyKind
from actorflow._core.security.secret import TEXT_BYTES_MAX, Secrets
from actorflow._core.security.tokens import make_token
from tests.unit.security.harness import SECRETS, WALL, A, B, C, randomness


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A private directory; the umask gives everything to everybody, so that nothing is private by luck."""
    before = os.umask(0)
    path = tmp_path / "private"
    make_private_dir(str(path))
    yield path
    os.umask(before)


def mode(path: Path | str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def why(path: Path, bytes_max: int = 100) -> str:
    """Why the file is refused."""
    with pytest.raises(CredentialError) as caught:
        read_private(str(path), bytes_max)
    assert str(path) in str(caught.value) or str(path.parent) in str(caught.value)
    return str(caught.value)


# Private files --------------------------------------------------------------------------------------------------------


def test_a_private_file_is_written_and_read(home: Path) -> None:
    path = home / "f"
    write_private(str(path), b"content")
    assert (mode(home), mode(path)) == (0o700, 0o600)
    assert read_private(str(path), 7)[0] == b"content"
    assert os.listdir(home) == ["f"], "nothing else is left"


def test_the_umask_does_not_matter(home: Path) -> None:
    """PV-2."""
    for umask in (0o777, 0):
        os.umask(umask)
        make_private_dir(str(home / str(umask)))
        write_private(str(home / str(umask) / "f"), b"x")
        assert (mode(home / str(umask)), mode(home / str(umask) / "f")) == (0o700, 0o600)


def test_a_file_that_is_there_is_not_written_over_by_accident(home: Path) -> None:
    path = home / "f"
    write_private(str(path), b"first")
    with pytest.raises(CredentialError, match="will not be written: it exists"):
        write_private(str(path), b"second")
    assert path.read_bytes() == b"first"
    write_private(str(path), b"second", replace=True)
    assert path.read_bytes() == b"second"
    assert (mode(path), os.listdir(home)) == (0o600, ["f"])


def test_a_link_is_replaced_and_not_followed(home: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"theirs")
    (home / "f").symlink_to(elsewhere)
    write_private(str(home / "f"), b"ours", replace=True)
    assert elsewhere.read_bytes() == b"theirs"
    assert not (home / "f").is_symlink()


@pytest.mark.parametrize("bits", [0o644, 0o640, 0o604, 0o660, 0o601, 0o610])
def test_a_file_with_rights_for_others_is_refused(home: Path, bits: int) -> None:
    """PV-1."""
    path = home / "f"
    write_private(str(path), b"x")
    path.chmod(bits)
    text = why(path)
    assert f"will not be used: others have rights on it (mode {bits:04o}) and may have read it" in text
    assert f"chmod 0600 {path}" in text
    path.chmod(0o400)
    assert read_private(str(path), 100)[0] == b"x"


@pytest.mark.parametrize("bits", [0o755, 0o750, 0o701, 0o777])
def test_a_directory_with_rights_for_others_is_refused(home: Path, bits: int) -> None:
    """PV-1."""
    path = home / "f"
    write_private(str(path), b"x")
    home.chmod(bits)
    assert f"others have rights on it (mode {bits:04o})" in why(path)
    with pytest.raises(CredentialError, match="others have rights on it"):
        write_private(str(home / "g"), b"x")
    with pytest.raises(CredentialError, match="others have rights on it"):
        make_private_dir(str(home))


@pytest.mark.parametrize("bits", [0o755, 0o711, 0o1777])
def test_pv_3_a_token_may_lie_where_others_read(home: Path, bits: int) -> None:
    home.chmod(bits)
    write_private(str(home / "f"), b"x", listed=True)
    assert read_private(str(home / "f"), 100, listed=True)[0] == b"x"
    assert stat.S_IMODE((home / "f").stat().st_mode) == 0o600
    (home / "f").chmod(0o640)
    with pytest.raises(CredentialError, match=r"f will not be used: others have rights on it \(mode 0640\)"):
        read_private(str(home / "f"), 100, listed=True)


@pytest.mark.parametrize("bits", [0o777, 0o770, 0o702])
def test_pv_3_a_token_may_not_lie_where_others_write(home: Path, bits: int) -> None:
    home.chmod(bits)
    for use in (lambda: write_private(str(home / "f"), b"x", listed=True), lambda: read_private(str(home / "f"), 100, listed=True)):
        with pytest.raises(CredentialError, match=rf"for a token: others may put files there \(mode {bits:04o}\). Name"):
            use()


def test_a_symbolic_link_is_refused(home: Path) -> None:
    write_private(str(home / "f"), b"x")
    (home / "link").symlink_to(home / "f")
    assert "will not be used: it is a symbolic link" in why(home / "link")
    (home.parent / "linked").symlink_to(home)
    assert "it is not a directory of its own (a file, or a symbolic link)" in why(home.parent / "linked" / "f")


def test_a_file_of_another_user_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_private(str(home / "f"), b"x")
    user = os.geteuid()
    monkeypatch.setattr(private_files.os, "geteuid", lambda: user + 1)
    assert f"it belongs to user {user}, and we are user {user + 1}" in why(home / "f")


def test_what_is_no_file_is_refused_and_never_waited_for(home: Path) -> None:
    os.mkfifo(home / "pipe", 0o600)
    assert "it is not a regular file" in why(home / "pipe")
    (home / "dir").mkdir(0o700)
    assert "it is not a regular file" in why(home / "dir")
    assert "cannot be read: No such file or directory" in why(home / "none")
    assert "cannot be entered: No such file or directory" in why(home / "none" / "f")


def test_a_huge_file_is_refused_before_it_is_read(home: Path) -> None:
    path = home / "f"
    write_private(str(path), b"")
    os.truncate(path, 2**40)
    assert f"it has {2**40} bytes, at most 100 are expected" in why(path)


def test_a_file_that_grows_while_it_is_read_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = home / "f"
    write_private(str(path), b"x" * 101)
    monkeypatch.setattr(private_files, "_check_file", lambda *_: None)
    assert "it has 101 bytes" in why(path)


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CredentialError, match="cannot be made"):
        make_private_dir(str(tmp_path / "file" / "dir"))
    with pytest.raises(CredentialError, match="not a directory of its own"):
        make_private_dir(str(tmp_path / "file"))


# The directory of a cluster -------------------------------------------------------------------------------------------


def test_a_cluster_is_created_with_private_files(home: Path) -> None:
    directory = CredentialDir(str(home / "c"))
    secrets, authority = directory.create("c1", wall_time=WALL)
    assert {name: mode(home / "c" / name) for name in os.listdir(home / "c")} == {
        "secret": 0o600, "authority.pem": 0o600, "authority.key": 0o600,
    }  # fmt: skip
    assert SecretFile(directory.secret).secrets == secrets
    assert directory.load_authority().certificate_pem() == authority.certificate_pem()
    assert len(set(secrets.current)) > 8, "32 bytes from the system"


def test_a_cluster_is_never_created_over_another_one(home: Path) -> None:
    directory = CredentialDir(str(home / "c"))
    secrets, _ = directory.create("c1", wall_time=WALL)
    with pytest.raises(CredentialError, match="it exists, and may be in use by a cluster"):
        directory.create("c2", wall_time=WALL)
    assert SecretFile(directory.secret).secrets == secrets


def test_two_halves_of_different_authorities_are_refused(home: Path) -> None:
    one, two = CredentialDir(str(home / "1")), CredentialDir(str(home / "2"))
    one.create("c1", wall_time=WALL)
    two.create("c2", wall_time=WALL)
    os.replace(two.authority_key, one.authority_key)
    with pytest.raises(CredentialError, match="its key belongs to another certificate"):
        one.load_authority()
    write_private(one.authority_key, b"-----BEGIN PRIVATE KEY-----\n", replace=True)
    with pytest.raises(CredentialError, match="it cannot be read"):
        one.load_authority()


@pytest.mark.parametrize(("content", "text"), [(b"", "it is empty"), (b"x" * (TEXT_BYTES_MAX + 1), "at most 1024 are expected")])
def test_an_empty_or_a_huge_secret_file_is_refused(home: Path, content: bytes, text: str) -> None:
    write_private(str(home / "secret"), content)
    with pytest.raises(CredentialError, match=text):
        SecretFile(str(home / "secret"))


# Reading again --------------------------------------------------------------------------------------------------------


def test_a_file_that_changes_is_read_again_through_a_whole_replacement(home: Path) -> None:
    directory = CredentialDir(str(home / "c"))
    directory.create("c1", wall_time=WALL, random_bytes=lambda size: A)
    source = SecretFile(directory.secret)
    assert not source.reload()
    for secrets in (Secrets(A, B), Secrets(B, A), Secrets(B)):
        directory.replace_secrets(secrets)
        assert source.reload()
        assert source.secrets == secrets
        assert not source.reload()


def test_a_file_that_is_written_again_with_the_same_is_no_change(home: Path) -> None:
    write_private(str(home / "s"), SECRETS.text().encode())
    source = SecretFile(str(home / "s"))
    write_private(str(home / "s"), SECRETS.text().encode(), replace=True)
    assert not source.reload()


def test_a_file_that_breaks_is_told_once_and_changes_nothing(home: Path) -> None:
    """CF-1."""
    path = home / "s"
    write_private(str(path), SECRETS.text().encode())
    source = SecretFile(str(path))
    for breakage in (
        lambda: path.write_bytes(b"half a sec"),
        lambda: path.chmod(0o644),
        path.unlink,
    ):
        breakage()
        with pytest.raises(CredentialError):
            source.reload()
        assert not source.reload()
        assert source.secrets == SECRETS
    write_private(str(path), Secrets(C).text().encode())
    assert source.reload()
    assert source.secrets == Secrets(C)


def test_what_was_admitted_is_there_again(home: Path) -> None:
    directory = CredentialDir(str(home / "c"))
    directory.create("c", wall_time=WALL)
    spent, fences = directory.load_admitted()
    assert (spent.rows(), fences.rows()) == ([], []), "a new cluster"
    once = SECRETS.keyring().roots[0].key("t", expires=int(WALL) + 60, single_use=True)
    assert spent.spend(once.id, WALL)
    fences.raise_to("n1", 1)
    fences.remove("n2")
    directory.save_admitted(spent, fences)
    directory.save_admitted(spent, fences)
    assert stat.S_IMODE(os.stat(directory.admitted).st_mode) == 0o600
    again, fenced = directory.load_admitted()
    assert not again.spend(once.id, WALL)
    assert (fenced.admits("n1", 1), fenced.admits("n1", 0), fenced.admits("n2", 2**64 - 1)) == (True, False, False)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"spent": [1], "fences": []}', '{"spent": [], "fences": [["n"]]}', '{"spent": []}'])
def test_what_was_admitted_and_is_damaged_is_an_error(home: Path, text: str) -> None:
    directory = CredentialDir(str(home / "c"))
    directory.create("c", wall_time=WALL)
    write_private(directory.admitted, text.encode())
    with pytest.raises(CredentialError, match="admitted will not be used: it cannot be read"):
        directory.load_admitted()


def test_a_cluster_is_made_with_the_secret_that_is_given(home: Path) -> None:
    directory = CredentialDir(str(home / "c"))
    assert not directory.exists()
    assert directory.create("c", wall_time=WALL, secrets=SECRETS)[0] == SECRETS
    assert directory.exists()
    assert SecretFile(directory.secret).secrets == SECRETS
    assert directory.load_authority_certificate() == directory.load_authority().certificate_pem()


# Variables and tokens -------------------------------------------------------------------------------------------------


def test_a_secret_may_be_in_a_variable() -> None:
    assert secrets_in({}) is None
    assert secrets_in({SECRET_VARIABLE: Secrets(A, B).text()}) == Secrets(A, B)
    for text in ("", "\udcff", "x"):
        with pytest.raises(CredentialError, match="the variable ACTORFLOW_SECRET does not hold a cluster secret"):
            secrets_in({SECRET_VARIABLE: text})


def test_a_token_comes_from_a_file_or_a_variable(home: Path) -> None:
    root = next(root for root in SECRETS.keyring().roots if root.kind is KeyKind.CLIENT)
    token = make_token(root, b"a certificate", wall_time=WALL, random_bytes=randomness())
    write_private(str(home / "t"), token.text().encode())
    assert load_token(KeyKind.CLIENT, str(home / "t"), {}) == token
    assert load_token(KeyKind.CLIENT, None, {TOKEN_VARIABLE: token.text()}) == token
    with pytest.raises(CredentialError, match="there is no client token"):
        load_token(KeyKind.CLIENT, None, {})
    with pytest.raises(CredentialError, match="ACTORFLOW_TOKEN does not hold a join token"):
        load_token(KeyKind.JOIN, None, {TOKEN_VARIABLE: token.text()})
    (home / "t").chmod(0o644)
    with pytest.raises(CredentialError, match="others have rights on it"):
        load_token(KeyKind.CLIENT, str(home / "t"), {TOKEN_VARIABLE: token.text()})


def test_what_is_in_variables_does_not_pass_on_to_workers() -> None:
    environ = {SECRET_VARIABLE: "s", TOKEN_VARIABLE: "t", "PATH": "/bin"}
    assert without_secrets(environ) == {"PATH": "/bin"}
    assert len(environ) == 3


def test_a_key_is_in_no_file_when_it_is_given_to_tls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And where memory files are missing, in a private one that is gone afterwards."""
    with tls._readable(b"key") as path:
        assert path.startswith("/proc/self/fd/")
        assert Path(path).read_bytes() == b"key"
    monkeypatch.delattr(tls.os, "memfd_create")
    monkeypatch.setattr(tls.tempfile, "tempdir", str(tmp_path))
    with tls._readable(b"key") as path:
        assert Path(path).read_bytes() == b"key"
        assert (mode(path), mode(os.path.dirname(path))) == (0o600, 0o700)
    assert os.listdir(tmp_path) == []
