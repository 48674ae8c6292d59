"""Files that nobody else may read: written at once and whole, and looked at before they are believed.

PV-1: a private file is a file of its own (no symbolic link), ours, with no right for anybody else, in a directory of which the same is
      true. Otherwise nothing of it is used.
PV-2: a private file is there with all its content, or not at all. It never has another mode, not for a moment.
PV-3: of a token only the file is a secret: its directory may be one that others read, and not one where they could put another in its
      place. A directory of the system's (root's), and one where everybody keeps own files (sticky, as /tmp), will do.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat

from actorflow._core.security.errors import CredentialError

_HAS_OWNERS = hasattr(os, "geteuid")
"""Not on Windows, where a home directory is what keeps others out."""
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
_FLAGS = getattr(os, "O_CLOEXEC", 0) | _NO_FOLLOW
_NON_BLOCK = getattr(os, "O_NONBLOCK", 0)

Signature = tuple[int, int, int, int]


def make_private_dir(path: str) -> None:
    """Make the directory with mode 0700, or see that the one there is private. Raises CredentialError."""
    try:
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
            os.chmod(path, 0o700)
    except OSError as error:
        raise _cannot(path, "cannot be made", error) from error
    _check_dir(path)


def write_private(path: str, data: bytes, *, replace: bool = False, listed: bool = False) -> None:
    """Write a file with mode 0600. `listed`: see PV-3. Raises CredentialError; also when the file exists, unless `replace`."""
    _check_dir(os.path.dirname(os.path.abspath(path)), listed=listed)
    new = f"{path}.{secrets.token_hex(6)}.new"
    try:
        try:
            fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, 0o600)
            with open(fd, "wb") as file:
                if _HAS_OWNERS:
                    os.fchmod(file.fileno(), 0o600)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if replace or not _HAS_OWNERS:
                os.replace(new, path)
            else:
                os.link(new, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(new)
    except FileExistsError as error:
        why = "it exists, and may be in use by a cluster"
        raise _unusable(path, "will not be written", why, "choose another place, or remove it") from error
    except OSError as error:
        raise _cannot(path, "cannot be written", error) from error


def read_private(path: str, bytes_max: int, *, listed: bool = False) -> tuple[bytes, Signature]:
    """Return the content, and a signature that changes when the file does. `listed`: see PV-3. Raises CredentialError (PV-1)."""
    _check_dir(os.path.dirname(os.path.abspath(path)), listed=listed)
    try:
        fd = os.open(path, os.O_RDONLY | _FLAGS | _NON_BLOCK)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _unusable(path, "will not be used", "it is a symbolic link", "name the file itself, or copy it") from error
        raise _cannot(path, "cannot be read", error) from error
    try:
        found = os.fstat(fd)
        _check_file(path, found, bytes_max)
        # A file may grow while it is read: one byte more than allowed tells.
        data = _read(fd, bytes_max + 1)
    finally:
        os.close(fd)
    if len(data) > bytes_max:
        raise _too_large(path, len(data), bytes_max)
    return data, signature_of(found)


def _read(fd: int, size: int) -> bytes:
    """Up to `size` bytes: a read may bring less than it could."""
    data = b""
    while len(data) < size and (more := os.read(fd, size - len(data))):
        data += more
    return data


def signature_of(found: os.stat_result) -> Signature:
    """What differs between two versions of a file that was replaced or written to."""
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _check_dir(path: str, *, listed: bool = False) -> None:
    try:
        found = os.lstat(path)
    except OSError as error:
        raise _cannot(path, "cannot be entered", error) from error
    if not stat.S_ISDIR(found.st_mode):
        why = "it is not a directory of its own (a file, or a symbolic link)"
        raise _unusable(path, "will not be used", why, "name the directory itself")
    if listed:
        _check_writers(path, found)
    else:
        _check_rights(path, found, "0700")


def _check_file(path: str, found: os.stat_result, bytes_max: int) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise _unusable(path, "will not be used", "it is not a regular file", "name the file itself")
    _check_rights(path, found, "0600")
    if found.st_size > bytes_max:
        raise _too_large(path, found.st_size, bytes_max)


def _check_writers(path: str, found: os.stat_result) -> None:
    """PV-3."""
    if not _HAS_OWNERS:
        return
    if found.st_uid not in (os.geteuid(), 0):
        why = f"it belongs to user {found.st_uid}, and we are user {os.geteuid()}"
    elif found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX:
        why = f"others may put files there (mode {stat.S_IMODE(found.st_mode):04o})"
    else:
        return
    raise _unusable(path, "will not be used for a token", why, "name a directory that only this user can write to")


def _check_rights(path: str, found: os.stat_result, mode: str) -> None:
    if not _HAS_OWNERS:
        return
    if found.st_uid != os.geteuid():
        why = f"it belongs to user {found.st_uid}, and we are user {os.geteuid()}"
        raise _unusable(path, "will not be used", why, "copy it to a directory of this user")
    if found.st_mode & 0o077:
        why = f"others have rights on it (mode {stat.S_IMODE(found.st_mode):04o}) and may have read it"
        advice = f"`chmod {mode} {path}`, and replace the secret if anybody else uses this machine"
        raise _unusable(path, "will not be used", why, advice)


def _too_large(path: str, size: int, bytes_max: int) -> CredentialError:
    return _unusable(path, "will not be used", f"it has {size} bytes, at most {bytes_max} are expected", "see that it is the right file")


def _cannot(path: str, what: str, error: OSError) -> CredentialError:
    return _unusable(path, what, error.strerror or str(error), "see that the path is right and that this user may use it")


def _unusable(path: str, what: str, why: str, advice: str) -> CredentialError:
    return CredentialError.explain(which=path, what=what, why=why, next_step=advice)
