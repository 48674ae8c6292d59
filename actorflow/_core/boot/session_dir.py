"""The directory of one local cluster: its sockets, its logs, and the lock that says whether it lives.

<temporary directory>/actorflow-<uid>/<session id>/
    node.sock  arena.sock                      only this user may connect
    w/<worker id>.sock                         a link to /dev/shm/actorflow-<uid>-<session id>, if that can be;
                                               `session` in there leads back
    spill/                                     objects for which there was no room in memory
    logs/                                      what the processes of the cluster wrote
    lock                                       held (flock) by the node process for as long as it lives
    session.json                               pid, address and start; there once the node can be reached

SD-1  All directories are 0700 and ours, and what leads to them only we can change: nobody else can put a socket there.
SD-2  A directory is swept only by who holds its lock. The lock dies with the node process, however that ends.

A driver imports this before it can start its node process, so it imports little itself: no pathlib, tempfile or shutil.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from actorflow._core.base.addresses import PATH_BYTES_MAX, SCHEME
from actorflow._core.base.errors import ClusterStartError

SWEEP_AGE_S = 10.0
"""A directory younger than this may be one whose node has not yet taken its lock."""
LOCK_TIMEOUT_S = 2.0
"""How long the node waits for its lock: somebody who looks for clusters may hold it for a moment."""
LOCK_RETRY_S = 0.005
SOCKET_NAME_BYTES_MAX = 26
"""Room for `w/<worker id>.sock`."""
MEMORY_DIR = "/dev/shm"
"""Where the sockets of workers are: ext4 takes several times as long to make one where others were deleted a moment ago."""
REMOVE_ATTEMPTS = 5

_FULL = (errno.ENOSPC, errno.EDQUOT)


def temp_dirs(environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Where session directories may be, in order of preference.

    What the user names is taken as it is, but when a name from TMPDIR is too long for a socket, /tmp is next.
    """
    environ = os.environ if environ is None else environ
    if chosen := environ.get("ACTORFLOW_TMPDIR"):
        return (os.path.abspath(chosen),)
    default = os.path.abspath(environ.get("TMPDIR") or _system_temp_dir(environ))
    return (default,) if default == "/tmp" else (default, "/tmp")


def _system_temp_dir(environ: Mapping[str, str]) -> str:
    if not (environ.get("TEMP") or environ.get("TMP")) and os.path.isdir("/tmp") and os.access("/tmp", os.W_OK | os.X_OK):
        return "/tmp"  # As tempfile would say.
    import tempfile

    return tempfile.gettempdir()


class SessionInfo(NamedTuple):
    """What `session.json` says of a live cluster. `address`: empty for a node that waits to be let in again."""

    session_id: str
    path: str
    pid: int
    address: str
    created: float
    tcp: str = ""
    """Of a node that other nodes can reach: host:port."""
    credentials: str = ""
    """... and the directory with its cluster's secret, where the head is."""
    tls: str = ""
    """... and `yes` where TLS is spoken."""
    head: str = ""
    """... and host:port of the node with the head, as this one has joined it."""


class SessionDir:
    """One session directory, in the process that made it or in the node that lives in it."""

    __slots__ = ("_lock_fd", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock_fd = -1

    @property
    def session_id(self) -> str:
        """The directory's own name."""
        return os.path.basename(self.path)

    @property
    def node_address(self) -> str:
        """Where the node listens."""
        return f"{SCHEME}{self.path}/node.sock"

    @property
    def arena_path(self) -> str:
        """Where the arena's descriptor is handed out."""
        return f"{self.path}/arena.sock"

    @property
    def logs(self) -> str:
        """Where log files go."""
        return f"{self.path}/logs"

    @property
    def spill(self) -> str:
        """Where objects go for which the arena has no room."""
        return f"{self.path}/spill"

    def worker_address(self, worker_id: str) -> str:
        """Where the worker `worker_id` listens."""
        return f"{SCHEME}{self.path}/w/{worker_id}.sock"

    def hold_lock(self) -> None:
        """Take the lock until this process ends. After the zygote has been forked: a child would share it."""
        give_up_at = time.monotonic() + LOCK_TIMEOUT_S
        while (fd := _try_lock(f"{self.path}/lock")) is None:
            if time.monotonic() >= give_up_at:
                raise ClusterStartError.explain(which=self.path, what="is in use", why="another node process holds its lock")
            time.sleep(LOCK_RETRY_S)
        self._lock_fd = fd

    def abandon(self) -> None:
        """See forks.Owner: a fork that lives on must not make this cluster look alive."""
        fd, self._lock_fd = self._lock_fd, -1
        if fd >= 0:
            os.close(fd)

    def publish(self, address: str, **more: str) -> None:
        """Say that the cluster can be reached: from now on `find_current` finds it. `more`: fields of SessionInfo.

        Without an address it says only which process is here: who ends nodes finds it, and nobody else.
        """
        info = {"pid": os.getpid(), "address": address, "created": time.time(), **more}
        new = f"{self.path}/session.json.new"
        with _explained(self.path):
            _write(new, json.dumps(info))
            os.replace(new, f"{self.path}/session.json")

    def remove_sockets(self) -> None:
        """Delete the sockets of workers. What else is in the directory stays for whoever reads it, and is swept later."""
        import shutil

        if os.path.islink(f"{self.path}/w"):  # Else it is a directory, which goes with the rest.
            shutil.rmtree(_in_memory(self.path), ignore_errors=True)
            os.unlink(f"{self.path}/w")

    def remove(self) -> None:
        """Delete the directory with all that is in it, and give the lock back."""
        _remove_tree(self.path)
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1


def create_session_dir(session_id: str, directories: Sequence[str] | None = None) -> SessionDir:
    """Make the directory of a new session. Raises ClusterStartError: which directory, and what to do."""
    root = _fitting(temp_dirs() if directories is None else directories, session_id)
    session = SessionDir(f"{root}/{session_id}")
    with _explained(os.path.dirname(root)):
        with contextlib.suppress(FileExistsError):
            os.mkdir(root, 0o700)
    _check_ours(root)
    with _explained(os.path.dirname(root)):
        os.mkdir(session.path, 0o700)
        # With content, so that a full disk is noticed here and not by whoever writes next.
        _write(f"{session.path}/lock", f"made by process {os.getpid()}\n")
        os.mkdir(session.logs, 0o700)
        _make_socket_dir(session)
    return session


def _make_socket_dir(session: SessionDir) -> None:
    """Make `w`, in memory if that can be."""
    link, in_memory = f"{session.path}/w", _in_memory(session.path)
    try:
        os.symlink(in_memory, link)  # First, so that whoever sweeps finds what it leads to.
        os.mkdir(in_memory, 0o700)
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(link)
        os.mkdir(link, 0o700)
    else:
        with contextlib.suppress(OSError):
            os.symlink(session.path, f"{in_memory}/session")  # For whoever finds it there.


def _in_memory(path: str) -> str:
    return f"{MEMORY_DIR}/actorflow-{os.geteuid()}-{os.path.basename(path)}"


def find_current(directories: Sequence[str] | None = None) -> SessionInfo | None:
    """The newest live cluster of this user that can be reached, for `address="auto"`."""
    return next(iter(find_all(directories)), None)


def find_all(directories: Sequence[str] | None = None, *, joining: bool = False) -> list[SessionInfo]:
    """All live clusters and nodes of this user that can be reached, the newest first.

    `joining`: also nodes that wait to be let in again.
    """
    live = [info for path in _sessions(directories) if _is_locked(path) and (info := _read_info(path)) and (info.address or joining)]
    return sorted(live, key=lambda info: info.created, reverse=True)


def sweep_stale(directories: Sequence[str] | None = None, *, age_s: float = SWEEP_AGE_S, published: bool = False) -> list[str]:
    """Remove the directories of clusters that are dead (SD-2), and return them.

    `published`: also younger ones whose node could be reached once. It had its lock by then, so without it is dead.
    """
    removed = []
    for path in _sessions(directories):
        with contextlib.suppress(FileNotFoundError):
            young = time.time() - os.stat(path).st_mtime < age_s
            if young and not (published and os.path.exists(f"{path}/session.json")):
                continue
            lock = f"{path}/lock"
            if not os.path.exists(lock):
                os.close(os.open(lock, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
            fd = _try_lock(lock)
            if fd is not None:
                try:
                    _remove_tree(path)
                finally:
                    os.close(fd)
                removed.append(path)
    return removed


def _root(directory: str) -> str:
    return os.path.join(directory, f"actorflow-{os.geteuid()}")


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def _fitting(directories: Sequence[str], session_id: str) -> str:
    """The first root whose sockets have names that fit into a socket address."""
    for directory in directories:
        size = len(os.fsencode(f"{_root(directory)}/{session_id}")) + 1 + SOCKET_NAME_BYTES_MAX
        if size <= PATH_BYTES_MAX:
            return _root(directory)
    raise ClusterStartError.explain(
        which=directories[0],
        what="cannot hold the sockets of a cluster",
        why=f"their names would be longer than the {PATH_BYTES_MAX} bytes that the system allows",
        next_step="set ACTORFLOW_TMPDIR to a directory with a shorter name",
    )


def _check_ours(root: str) -> None:
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
        which=root,
        what="cannot be trusted with the sockets of a cluster",
        why=why,
        next_step=f"{advice}, or set ACTORFLOW_TMPDIR to another directory",
    )


@contextlib.contextmanager
def _explained(directory: str) -> Iterator[None]:
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


def _sessions(directories: Sequence[str] | None) -> Iterator[str]:
    """Every session directory of this user, dead or alive."""
    for directory in temp_dirs() if directories is None else directories:
        root = _root(directory)
        with contextlib.suppress(FileNotFoundError, ClusterStartError):
            _check_ours(root)
            yield from [entry.path for entry in os.scandir(root) if entry.is_dir(follow_symlinks=False)]


def _try_lock(path: str) -> int | None:
    """Take the lock of a session: its descriptor, or None when it is held. Raises FileNotFoundError."""
    import fcntl  # Not on Windows, where this module must import.

    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # A sweep may have removed the directory between our two steps: then this is the lock of nothing.
        if os.stat(path).st_ino != os.fstat(fd).st_ino:
            raise FileNotFoundError(errno.ENOENT, "the session was removed", path)
    except BlockingIOError:
        os.close(fd)
        return None
    except BaseException:
        os.close(fd)
        raise
    return fd


def _is_locked(path: str) -> bool:
    try:
        fd = _try_lock(f"{path}/lock")
    except FileNotFoundError:
        return False
    if fd is None:
        return True
    os.close(fd)
    return False


def _read_info(path: str) -> SessionInfo | None:
    try:
        with open(f"{path}/session.json", "rb") as file:
            info = json.loads(file.read())
        return SessionInfo(os.path.basename(path), path, int(info["pid"]), str(info["address"]), float(info["created"]), *_cluster_of(info))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None  # Not published yet.


def _cluster_of(info: Mapping[str, object]) -> tuple[str, str, str, str]:
    return str(info.get("tcp", "")), str(info.get("credentials", "")), str(info.get("tls", "")), str(info.get("head", ""))


def _remove_tree(path: str) -> None:
    """Delete a directory whose processes may still be removing their own sockets from it."""
    import shutil

    if os.path.islink(f"{path}/w"):
        shutil.rmtree(_in_memory(path), ignore_errors=True)
    problem: OSError | None = None
    for _ in range(REMOVE_ATTEMPTS):
        try:
            shutil.rmtree(path)
            return
        except OSError as error:
            if not os.path.exists(path):
                return
            problem = error
    import logging

    logging.getLogger(__name__).warning("cannot remove the session directory %s: %s", path, problem)
