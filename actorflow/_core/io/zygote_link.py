"""What a node and its zygote say to each other: a packet is a message, and descriptors may go with it.

    node                                     zygote
      | -- Fork, with two pipe ends ------->   |   fork
      | <------------- Forked | NotForked --   |   exactly one for each Fork, in order
      | -- Signal -------------------------->  |
      | -- LetLive ------------------------->  |
      | <-------------------------- Exited --  |   exactly one for each Forked

Either side takes the end of the link for the death of the other.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
from dataclasses import dataclass

import msgspec

from actorflow._core.io.ports import WorkerSpec
from actorflow._core.io.sockets import receive_fds

logger = logging.getLogger(__name__)

PACKET_BYTES_MAX = 192 * 1024
"""A packet is never cut, so it must fit into the send buffer of a socket: 208 KiB where nobody changed it."""
REPORT_BYTES_MAX = 64 * 1024
REASON_CHARS_MAX = 8 * 1024
FDS_MAX = 2
EXIT_TIMEOUT_S = 6.0
"""How long a zygote may take to end: it kills its workers first, or is in the middle of its imports."""


class Fork(msgspec.Struct, tag=True, frozen=True):
    """node -> zygote. With the write ends of the worker's stdout and stderr."""

    spec: WorkerSpec


class Signal(msgspec.Struct, tag=True, frozen=True):
    """node -> zygote. No answer; nothing happens when the worker has been reaped."""

    worker_id: str
    signal: int


class LetLive(msgspec.Struct, tag=True, frozen=True):
    """node -> zygote. Kill all workers at this moment of the clock of this machine, unless a later one is said before. No answer."""

    until: float


class Forked(msgspec.Struct, tag=True, frozen=True):
    """zygote -> node. The process exists."""

    worker_id: str
    pid: int


class NotForked(msgspec.Struct, tag=True, frozen=True):
    """zygote -> node. There will be no process, and this is why."""

    worker_id: str
    reason: str


class Exited(msgspec.Struct, tag=True, frozen=True):
    """zygote -> node. The process is reaped. `code` is negative for a signal."""

    worker_id: str
    pid: int
    code: int
    peak_memory_bytes: int


ToZygote = Fork | Signal | LetLive
FromZygote = Forked | NotForked | Exited

_encode = msgspec.msgpack.Encoder().encode
decode_command = msgspec.msgpack.Decoder(ToZygote).decode
decode_report = msgspec.msgpack.Decoder(FromZygote).decode


@dataclass(slots=True)
class ZygoteHandle:
    """The node's side of a running zygote, which is a child process of the node."""

    pid: int
    link: socket.socket

    def fileno(self) -> int:
        """The descriptor of the link."""
        return self.link.fileno()

    def end(self, timeout_s: float = EXIT_TIMEOUT_S) -> None:
        """Close the link and wait for its end, SIGKILL after `timeout_s`: blocks. Does nothing when it has been reaped."""
        self.link.close()
        try:
            pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            if os.waitpid(self.pid, os.WNOHANG)[0]:
                return
            poll = select.poll()  # Not `select`, which takes no descriptor past 1023.
            poll.register(pidfd, select.POLLIN)
            if not poll.poll(timeout_s * 1e3):
                logger.error("the zygote (pid %d) does not end: killed", self.pid)
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        except ChildProcessError:
            pass  # Reaped, and the number may be another process's by now.
        finally:
            os.close(pidfd)


def link_pair() -> tuple[socket.socket, socket.socket]:
    """Return both ends of a link: the node's does not block, the zygote's does."""
    node, zygote = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    node.setblocking(False)
    return node, zygote


def send_packet(link: socket.socket, message: ToZygote | FromZygote, fds: tuple[int, ...] = ()) -> None:
    """Send one message. Raises BlockingIOError (only the node's side), ValueError when it is too large."""
    data = _encode(message)
    if len(data) > PACKET_BYTES_MAX:
        raise ValueError(
            f"the environment and the module search path of a worker take {len(data)} bytes, and {PACKET_BYTES_MAX} is the limit"
        )
    if fds:
        socket.send_fds(link, [data], list(fds))
    else:
        link.send(data)


def receive_packet(link: socket.socket, bytes_max: int = PACKET_BYTES_MAX, *, flags: int = 0) -> tuple[bytes, list[int]]:
    """Receive one packet with its descriptors; no bytes: the other side is gone. Raises BlockingIOError."""
    try:
        return receive_fds(link, bytes_max, FDS_MAX, flags=flags)
    except ConnectionResetError:
        return b"", []
