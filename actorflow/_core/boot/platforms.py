"""What there is on which system (SEMANTICS 31): clusters of processes on Linux, `mode="in_process"` everywhere."""

from __future__ import annotations

import os
import sys

from actorflow._core.base.errors import ClusterStartError

UNKNOWN_MEMORY_BYTES = 8 << 30
"""Taken for the memory of a machine that does not tell it."""


def has_processes() -> bool:
    """True where a cluster can have processes: where memory files, epoll and sockets that know their peers are."""
    return sys.platform == "linux"


def check_processes(what: str) -> None:
    """Raise ClusterStartError where a cluster cannot have processes."""
    if not has_processes():
        raise ClusterStartError(
            f"{what} needs Linux, and this is {sys.platform}: workers share memory and are forked in ways that it does not have. "
            'Here there is af.init(mode="in_process"): the same program, with threads for workers. On Windows, WSL 2 is Linux'
        )


def cpu_count() -> int:
    """The CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_bytes() -> int:
    """The memory of this machine."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return UNKNOWN_MEMORY_BYTES
