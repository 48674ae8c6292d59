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

from actorflow.testing import machine

# With its first loop libuv makes a pipe for the whole process, and keeps it: no leak of a test.
uvloop.new_event_loop().close()

DEADLINE_S = 10.0
"""What ends by itself has ended by then, on a busy machine too."""
POLL_S = 0.01
FDS_GROWTH_MAX = 2
"""Descriptors that Python and its libraries may open for good at a first use (random devices, time zones)."""

processes = machine.processes_of
files = machine.files_of
leftovers = machine.leftovers_of
shared_memory = machine.shared_memory


def until(condition: Callable[[], bool], timeout_s: float = DEADLINE_S) -> bool:
    """Poll until the condition holds; False when it does not within the time."""
    give_up_at = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= give_up_at:
            return False
        time.sleep(POLL_S)
    return True


def parent(pid: int) -> int | None:
    """Whose child this process is; None when it is gone."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return None


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


@contextlib.contextmanager
def nothing_is_left(directory: str | Path) -> Iterator[None]:
    """Fail when the block leaves a process, a session directory, shared memory, a thread of ours, or descriptors."""
    memory, fds, running = shared_memory(directory), open_fds(), threads()
    yield
    gc.collect()
    assert until(lambda: not leftovers(directory)), leftovers(directory)
    assert until(lambda: shared_memory(directory) <= memory), shared_memory(directory) - memory
    assert until(lambda: threads() <= running), threads() - running
    assert until(lambda: len(open_fds()) <= len(fds) + FDS_GROWTH_MAX), {fd: what for fd, what in open_fds().items() if fds.get(fd) != what}
