"""Where a driver gets the keys of its job, from the node on its host: over a unix socket that only this user may connect to.

    driver                              node
       | -- process id, 24 bytes ----->   |
       | <------------- ClusterAccess --   |   or an error in words; then the end

    AD-1  Nothing is given to another user, and no key to a process but that of the job that it is.
    AD-2  Whoever waits here is served or turned away within REQUEST_TIMEOUT_S, and at most REQUESTS_MAX wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Awaitable, Callable

from actorflow._core.base.errors import ActorflowError
from actorflow._core.io import forks
from actorflow._core.io.handover import NEWS_BYTES_MAX
from actorflow._core.io.sockets import Accepting, bind_unix, peer_credentials
from actorflow._core.security.keys import is_name
from actorflow._core.security.wire import NAME_BYTES_MAX

REQUESTS_MAX = 64
REQUEST_TIMEOUT_S = 15.0
_GIVEN, _REFUSED = b"\1", b"\0"


def access_path(directory: str) -> str:
    """Where the node of this session gives out keys."""
    return f"{directory}/access.sock"


class AccessDesk:
    """The node's side. `give` makes what a driver of this id needs; it raises ActorflowError, OSError."""

    def __init__(self, loop: asyncio.AbstractEventLoop, path: str, give: Callable[[str], Awaitable[bytes]]) -> None:
        self._loop = loop
        self._path = path
        self._give = give
        self._serving: set[asyncio.Task[None]] = set()
        self._listener = forks.own_socket(bind_unix(path, socket.SOCK_SEQPACKET))
        self._accepting = Accepting(loop, self._listener, path, self._on_accepted)

    def close(self) -> None:
        """Give out no more."""
        self._accepting.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        for task in self._serving:
            task.cancel()

    def _on_accepted(self, link: socket.socket) -> None:
        if peer_credentials(link)[1] != os.geteuid() or len(self._serving) >= REQUESTS_MAX:
            link.close()
            return
        task = self._loop.create_task(self._serve(forks.own_socket(link)), name="give a driver its keys")
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, link: socket.socket) -> None:
        with link:
            try:
                async with asyncio.timeout(REQUEST_TIMEOUT_S):
                    name = (await self._loop.sock_recv(link, NAME_BYTES_MAX)).rstrip(b"\0").decode("latin-1")
                    answer = await self._answer(name)
            except (TimeoutError, OSError):
                return  # It says nothing, or is gone again.
            with contextlib.suppress(OSError):
                link.send(answer)

    async def _answer(self, name: str) -> bytes:
        if not name or not is_name(name):
            return _REFUSED + b"that is no process id"
        try:
            return _GIVEN + await self._give(name)
        except (ActorflowError, OSError) as error:
            return _REFUSED + str(error).encode()[: NEWS_BYTES_MAX // 2]


async def fetch_access(loop: asyncio.AbstractEventLoop, directory: str, process_id: str) -> bytes:
    """Ask the node of this session for what a driver needs. Raises OSError with the reason."""
    path = access_path(directory)
    with forks.own_socket(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)) as link:
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S + 1):
                link.connect(path)
                if peer_credentials(link)[1] != os.geteuid():
                    raise PermissionError(errno.EPERM, "another user listens there, not our node", path)
                link.send(process_id.encode().ljust(NAME_BYTES_MAX, b"\0"))
                answer = await loop.sock_recv(link, NEWS_BYTES_MAX)
        except TimeoutError:
            raise TimeoutError(errno.ETIMEDOUT, f"the node did not answer for {REQUEST_TIMEOUT_S:g} s", path) from None
    if answer[:1] == _GIVEN:
        return answer[1:]
    raise ConnectionRefusedError(errno.ECONNREFUSED, answer[1:].decode(errors="replace") or "the node is going, or busy", path)
