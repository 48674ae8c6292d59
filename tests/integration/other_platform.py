"""Makes this interpreter look like one on macOS or Windows to code that is imported after it: what only Linux has is not there.

It hides names; it does not change how the system behaves. What it shows is that nothing reaches for what those systems lack.
"""

from __future__ import annotations

import importlib.abc
import os
import select
import selectors
import signal
import socket
import sys
from typing import Any

POSIX_MODULES = ("fcntl", "grp", "pwd", "resource", "termios", "uvloop")

LINUX_ONLY: dict[Any, tuple[str, ...]] = {
    os: ("memfd_create", "MFD_CLOEXEC", "MFD_ALLOW_SEALING", "pidfd_open", "sched_getaffinity", "pipe2", "posix_fallocate", "P_PIDFD"),
    select: ("epoll", "EPOLLIN", "EPOLLOUT", "EPOLLERR"),
    signal: ("pidfd_send_signal",),
    socket: ("SO_PEERCRED", "SOCK_NONBLOCK", "SOCK_CLOEXEC", "MSG_CMSG_CLOEXEC", "SCM_CREDENTIALS"),
}
POSIX_ONLY: dict[Any, tuple[str, ...]] = {
    os: (
        "fork", "register_at_fork", "geteuid", "getuid", "setsid", "killpg", "waitid", "wait4", "sysconf", "O_CLOEXEC",
        "O_NOFOLLOW", "fchmod", "set_blocking",
    ),
    select: ("poll",),
    signal: ("SIGKILL", "SIGCHLD", "SIGHUP", "SIGURG", "pthread_kill", "pthread_sigmask", "setitimer"),
    socket: ("AF_UNIX", "send_fds", "recv_fds", "SCM_RIGHTS"),
}  # fmt: skip


class _Hidden(importlib.abc.MetaPathFinder):
    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.partition(".")[0] in self._names:
            raise ModuleNotFoundError(f"No module named {name!r} (hidden)", name=name)


def _keep_socketpair() -> None:
    """Python makes pairs of sockets in another way where there are no unix sockets; this system has no other."""
    import _socket

    family = socket.AF_UNIX

    def socketpair(*arguments: Any) -> tuple[socket.socket, socket.socket]:
        del arguments
        one, other = _socket.socketpair(family, socket.SOCK_STREAM, 0)
        return socket.socket(family, socket.SOCK_STREAM, 0, one.detach()), socket.socket(family, socket.SOCK_STREAM, 0, other.detach())

    socket.socketpair = socketpair


def pretend(platform: str) -> None:
    """Be `darwin` or `win32`, before anything of actorflow is imported."""
    import asyncio  # The standard library itself is that of this system, and loaded before.
    import concurrent.futures.thread
    import multiprocessing.util
    import subprocess
    import tempfile

    del asyncio, concurrent, multiprocessing, subprocess, tempfile
    hidden = ("uvloop",) if platform == "darwin" else POSIX_MODULES
    for name in hidden:
        sys.modules.pop(name, None)
    sys.meta_path.insert(0, _Hidden(hidden))
    _keep_socketpair()
    selectors.DefaultSelector = selectors.PollSelector if platform == "darwin" else selectors.SelectSelector  # type: ignore[misc]
    for names in (LINUX_ONLY, POSIX_ONLY) if platform == "win32" else (LINUX_ONLY,):
        for module, attributes in names.items():
            for attribute in attributes:
                if hasattr(module, attribute):
                    delattr(module, attribute)
    sys.platform = platform
