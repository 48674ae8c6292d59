"""What a test must not leave behind: descriptors and child processes."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterator

import uvloop

# With its first loop libuv makes a pipe for the whole process, and keeps it: no leak of a test.
uvloop.new_event_loop().close()


def open_fds() -> dict[int, str]:
    """What is open in this process, by descriptor."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # The one through which we look.
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return found


def children() -> set[int]:
    """The child processes of this one, zombies included."""
    found: set[int] = set()
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(FileNotFoundError):
            with open(f"/proc/self/task/{task}/children") as file:
                found.update(map(int, file.read().split()))
    return found


@contextlib.contextmanager
def nothing_is_left() -> Iterator[None]:
    """Fail when the block leaves a descriptor or a child process."""
    fds, processes = open_fds(), children()

    def left() -> tuple[dict[int, str], set[int]]:
        return {fd: what for fd, what in open_fds().items() if fds.get(fd) != what}, children() - processes

    yield
    if left() != ({}, set()):
        gc.collect()  # Only then: it takes longer than most tests.
        assert left() == ({}, set())
