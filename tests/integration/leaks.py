"""What a test with real processes must not leave behind, and how to find it.

Every test run keeps its clusters in a temporary directory of its own (ACTORFLOW_TMPDIR). Processes inherit that
variable, so whoever has it in its environment is ours, wherever it stands in the process tree.
"""

from __future__ import annotations

import contextlib
import gc
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import uvloop

# With its first loop libuv makes a pipe for the whole process, and keeps it: no leak of a test.
uvloop.new_event_loop().close()

DEADLINE_S = 10.0
"""What ends by itself has ended by then, on a busy machine too."""
POLL_S = 0.01
FDS_GROWTH_MAX = 2
"""Descriptors that Python and its libraries may open for good at a first use (random devices, time zones)."""


def until(condition: Callable[[], bool], timeout_s: float = DEADLINE_S) -> bool:
    """Poll until the condition holds; False when it does not within the time."""
    give_up_at = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= give_up_at:
            return False
        time.sleep(POLL_S)
    return True


def _environ(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/environ").read_bytes()
    return b""


def processes(directory: str | Path) -> dict[int, str]:
    """The living processes that work under this ACTORFLOW_TMPDIR, this one aside: pid -> command line."""
    needle = f"ACTORFLOW_TMPDIR={directory}\0".encode()
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid() and needle in b"\0" + _environ(int(name)):
            with contextlib.suppress(OSError):
                found[int(name)] = Path(f"/proc/{name}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return found


def parent(pid: int) -> int | None:
    """Whose child this process is; None when it is gone."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return None


def files(directory: str | Path) -> list[str]:
    """The session directories under this ACTORFLOW_TMPDIR, with their sockets and logs."""
    return sorted(str(path) for path in Path(directory).glob("actorflow-*/*"))


def shared_memory(directory: str | Path) -> set[str]:
    """The names in /dev/shm, those aside that clusters under another ACTORFLOW_TMPDIR have there."""
    with contextlib.suppress(FileNotFoundError):
        return {name for name in os.listdir("/dev/shm") if not _is_foreign(name, str(directory))}
    return set()


def _is_foreign(name: str, directory: str) -> bool:
    if name.startswith("sem.mp-"):
        # A semaphore of multiprocessing, as tests beside this one may have: nothing in it says whose it is, but who has it open.
        users = [int(pid) for pid in os.listdir("/proc") if pid.isdigit() and f"/dev/shm/{name}".encode() in _maps(int(pid))]
        return bool(users) and os.getpid() not in users and not processes(directory).keys() & set(users)
    try:
        return not os.readlink(f"/dev/shm/{name}/session").startswith(f"{directory}/")
    except OSError:
        return False


def _maps(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/maps").read_bytes()
    return b""


def open_fds() -> dict[int, str]:
    """What is open in this process, by descriptor."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # The one through which we look.
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return found


def threads() -> set[str]:
    """The threads of actorflow in this process."""
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("actorflow")}


def leftovers(directory: str | Path) -> list[str]:
    """What clusters under this directory have left, in words."""
    left = [f"process {pid}: {command}" for pid, command in processes(directory).items()]
    return left + [f"file {path}" for path in files(directory)]


@contextlib.contextmanager
def nothing_is_left(directory: str | Path) -> Iterator[None]:
    """Fail when the block leaves a process, a session directory, shared memory, a thread of ours, or descriptors."""
    memory, fds, running = shared_memory(directory), open_fds(), threads()
    yield
    gc.collect()
    assert until(lambda: not leftovers(directory)), leftovers(directory)
    assert until(lambda: shared_memory(directory) <= memory), shared_memory(directory) - memory
    assert until(lambda: threads() <= running), threads() - running
    assert until(lambda: len(open_fds()) <= len(fds) + FDS_GROWTH_MAX), {
        fd: what for fd, what in open_fds().items() if fds.get(fd) != what
    }
