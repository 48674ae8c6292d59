"""The directory of one local cluster: its sockets, its logs, and the lock that says whether it lives.

<temporary directory>/actorflow-<uid>/<session id>/
    node.sock  arena.sock  <worker id>.sock    only this user may connect
    logs/                                      what the processes of the cluster wrote
    lock                                       held (flock) by the node process for as long as it lives
    session.json                               pid, address and start; there once the node can be reached

SD-1  Both directories are 0700 and ours, and neither is a symbolic link: nobody else can put a socket there.
SD-2  A directory is swept only by who holds its lock. The lock dies with the node process, however that ends.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from actorflow._core.base.errors import ClusterStartError
from actorflow._core.io.sockets import PATH_BYTES_MAX, SCHEME

logger = logging.getLogger(__name__)

SWEEP_AGE_S = 10.0
"""A directory younger than this may be one whose node has not yet taken its lock."""
LOCK_TIMEOUT_S = 2.0
"""How long the node waits for its lock: somebody who looks for clusters may hold it for a moment."""
LOCK_RETRY_S = 0.005
SOCKET_NAME_BYTES_MAX = 24
"""Room for `<worker id>.sock`."""
REMOVE_ATTEMPTS = 5

_FULL = (errno.ENOSPC, errno.EDQUOT)


def temp_dirs(environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Where session directories may be, in order of preference.

    What the user names is taken as it is, but when a name from TMPDIR is too long for a socket, /tmp is next.
    """
    environ = os.environ if environ is None else environ
    if chosen := environ.get("ACTORFLOW_TMPDIR"):
        return (os.path.abspath(chosen),)
    default = os.path.abspath(environ.get("TMPDIR") or tempfile.gettempdir())
    return (default,) if default == "/tmp" else (default, "/tmp")


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """What `session.json` says of a live cluster."""

    session_id: str
    path: Path
    pid: int
    address: str
    created: float


@dataclass(slots=True)
class SessionDir:
    """One session directory, in the process that made it or in the node that lives in it."""

    path: Path
    _lock_fd: int = -1

    @property
    def session_id(self) -> str:
        """The directory's own name."""
        return self.path.name

    @property
    def node_address(self) -> str:
        """Where the node listens."""
        return f"{SCHEME}{self.path}/node.sock"

    @property
    def arena_path(self) -> str:
        """Where the arena's descriptor is handed out."""
        return f"{self.path}/arena.sock"

    @property
    def logs(self) -> Path:
        """Where log files go."""
        return self.path / "logs"

    def worker_address(self, worker_id: str) -> str:
        """Where the worker `worker_id` listens."""
        return f"{SCHEME}{self.path}/{worker_id}.sock"

    def hold_lock(self) -> None:
        """Take the lock until this process ends. After the zygote has been forked: a child would share it."""
        give_up_at = time.monotonic() + LOCK_TIMEOUT_S
        while (fd := _try_lock(self.path / "lock")) is None:
            if time.monotonic() >= give_up_at:
                raise ClusterStartError.explain(which=str(self.path), what="is in use", why="another node process holds its lock")
            time.sleep(LOCK_RETRY_S)
        self._lock_fd = fd

    def abandon(self) -> None:
        """See forks.Owner: a fork that lives on must not make this cluster look alive."""
        fd, self._lock_fd = self._lock_fd, -1
        if fd >= 0:
            os.close(fd)

    def publish(self, address: str) -> None:
        """Say that the cluster can be reached: from now on `find_current` finds it."""
        info = {"pid": os.getpid(), "address": address, "created": time.time()}
        new = self.path / "session.json.new"
        with _explained(self.path):
            new.write_text(json.dumps(info))
            new.replace(self.path / "session.json")

    def remove(self) -> None:
        """Delete the directory with all that is in it, and give the lock back."""
        _remove_tree(self.path)
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1


def create_session_dir(session_id: str, directories: Sequence[str] | None = None) -> SessionDir:
    """Make the directory of a new session. Raises ClusterStartError: which directory, and what to do."""
    path = Path(_fitting(temp_dirs() if directories is None else directories, session_id), session_id)
    with _explained(path.parent.parent):
        with contextlib.suppress(FileExistsError):
            path.parent.mkdir(mode=0o700)
    _check_ours(path.parent)
    with _explained(path.parent.parent):
        path.mkdir(mode=0o700)
        # With content, so that a full disk is noticed here and not by whoever writes next.
        (path / "lock").write_text(f"made by process {os.getpid()}\n")
        (path / "logs").mkdir(mode=0o700)
    return SessionDir(path)


def find_current(directories: Sequence[str] | None = None) -> SessionInfo | None:
    """The newest live cluster of this user that can be reached, for `address="auto"`."""
    live = [info for path in _sessions(directories) if _is_locked(path) and (info := _read_info(path))]
    return max(live, key=lambda info: info.created, default=None)


def sweep_stale(directories: Sequence[str] | None = None, *, age_s: float = SWEEP_AGE_S) -> list[Path]:
    """Remove the directories of clusters that are dead (SD-2), and return them."""
    removed = []
    for path in _sessions(directories):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime < age_s:
                continue
            if not (path / "lock").exists():
                (path / "lock").touch(mode=0o600)
            fd = _try_lock(path / "lock")
            if fd is not None:
                try:
                    _remove_tree(path)
                finally:
                    os.close(fd)
                removed.append(path)
    return removed


def _root(directory: str) -> Path:
    return Path(directory, f"actorflow-{os.geteuid()}")


def _fitting(directories: Sequence[str], session_id: str) -> Path:
    """The first root whose sockets have names that fit into a socket address."""
    for directory in directories:
        size = len(os.fsencode(_root(directory) / session_id)) + 1 + SOCKET_NAME_BYTES_MAX
        if size <= PATH_BYTES_MAX:
            return _root(directory)
    raise ClusterStartError.explain(
        which=directories[0],
        what="cannot hold the sockets of a cluster",
        why=f"their names would be longer than the {PATH_BYTES_MAX} bytes that the system allows",
        next_step="set ACTORFLOW_TMPDIR to a directory with a shorter name",
    )


def _check_ours(root: Path) -> None:
    """SD-1. Raises ClusterStartError."""
    found = os.lstat(root)
    if not stat.S_ISDIR(found.st_mode):
        why, advice = "it is not a directory of its own (a file, or a symbolic link)", "remove it"
    elif found.st_uid != os.geteuid():
        why, advice = f"it belongs to user {found.st_uid}, and we are user {os.geteuid()}", "remove it"
    elif found.st_mode & 0o077:
        why, advice = f"others may enter it (mode {stat.S_IMODE(found.st_mode):04o})", f"chmod 700 {root}"
    else:
        return
    raise ClusterStartError.explain(
        which=str(root),
        what="cannot be trusted with the sockets of a cluster",
        why=why,
        next_step=f"{advice}, or set ACTORFLOW_TMPDIR to another directory",
    )


@contextlib.contextmanager
def _explained(directory: Path) -> Iterator[None]:
    """Turn a failure to write into an error that names the directory and the way out."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            what = "is full"
        elif isinstance(error, FileNotFoundError | NotADirectoryError):
            what = "is not a directory that exists"
        else:
            what = "cannot be written to"
        raise ClusterStartError.explain(
            which=f"the temporary directory {directory}",
            what=what,
            why=error.strerror or str(error),
            next_step="set TMPDIR or ACTORFLOW_TMPDIR to a directory with room where this user may write",
        ) from error


def _sessions(directories: Sequence[str] | None) -> Iterator[Path]:
    """Every session directory of this user, dead or alive."""
    for directory in temp_dirs() if directories is None else directories:
        root = _root(directory)
        with contextlib.suppress(FileNotFoundError, ClusterStartError):
            _check_ours(root)
            yield from [path for path in root.iterdir() if path.is_dir() and not path.is_symlink()]


def _try_lock(path: Path) -> int | None:
    """Take the lock of a session: its descriptor, or None when it is held. Raises FileNotFoundError."""
    import fcntl  # Not on Windows, where this module must import.

    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # A sweep may have removed the directory between our two steps: then this is the lock of nothing.
        if os.stat(path).st_ino != os.fstat(fd).st_ino:
            raise FileNotFoundError(errno.ENOENT, "the session was removed", str(path))
    except BlockingIOError:
        os.close(fd)
        return None
    except BaseException:
        os.close(fd)
        raise
    return fd


def _is_locked(path: Path) -> bool:
    try:
        fd = _try_lock(path / "lock")
    except FileNotFoundError:
        return False
    if fd is None:
        return True
    os.close(fd)
    return False


def _read_info(path: Path) -> SessionInfo | None:
    try:
        info = json.loads((path / "session.json").read_bytes())
        return SessionInfo(path.name, path, int(info["pid"]), str(info["address"]), float(info["created"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None  # Not published yet.


def _remove_tree(path: Path) -> None:
    """Delete a directory whose processes may still be removing their own sockets from it."""
    problem: OSError | None = None
    for _ in range(REMOVE_ATTEMPTS):
        try:
            shutil.rmtree(path)
            return
        except OSError as error:
            if not path.exists():
                return
            problem = error
    logger.warning("cannot remove the session directory %s: %s", path, problem)
