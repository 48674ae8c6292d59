"""What a simulated loop refuses: everything by which asyncio would reach the real world.

Simulated code gets its streams, processes and files from its ports. The refusals also make `SimLoop` a
complete `AbstractEventLoop` for the type checker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NoReturn, TypeVarTuple

from actorflow.testing.errors import SimulationMisuse

Ts = TypeVarTuple("Ts")


def _refuse(name: str) -> NoReturn:
    raise SimulationMisuse(
        f"loop.{name}() reaches for the real world, and this loop is simulated: use the ports instead"
    )


class UnsupportedCalls(asyncio.AbstractEventLoop):
    """An event loop without sockets, pipes and child processes."""

    def run_forever(self) -> NoReturn:
        raise SimulationMisuse("a simulated loop is run by its world: world.run_until(...)")

    def run_until_complete(self, future: Any) -> NoReturn:
        raise SimulationMisuse("a simulated loop is run by its world: world.run_until(...)")

    async def getaddrinfo(self, *args: Any, **kwargs: Any) -> NoReturn:
        _refuse("getaddrinfo")

    async def getnameinfo(self, *args: Any, **kwargs: Any) -> NoReturn:
        _refuse("getnameinfo")

    async def create_connection(self, *args: Any, **kwargs: Any) -> NoReturn:
        _refuse("create_connection")

    async def create_server(self, *args: Any, **kwargs: Any) -> NoReturn:
        _refuse("create_server")

    async def start_tls(self, *args: Any, **kwargs: Any) -> NoReturn:
        _refuse("start_tls")

    async def create_unix_connection(self, *args: Any, **kwargs: Any) -> NoReturn:
        _refuse("create_unix_connection")

    async def create_unix_server(self, *args: Any, **kwargs: Any) -> NoReturn:
        _refuse("create_unix_server")

    async def connect_accepted_socket(self, *args: Any, **kwargs: Any) -> NoReturn:
        _refuse("connect_accepted_socket")

    async def sendfile(self, *args: Any, **kwargs: Any) -> NoReturn:
        _refuse("sendfile")

    async def sock_sendfile(self, *args: Any, **kwargs: Any) -> NoReturn:
        _refuse("sock_sendfile")

    async def create_datagram_endpoint(self, *args: Any, **kwargs: Any) -> NoReturn:
        _refuse("create_datagram_endpoint")

    async def connect_read_pipe(self, *args: Any, **kwargs: Any) -> NoReturn:
        _refuse("connect_read_pipe")

    async def connect_write_pipe(self, *args: Any, **kwargs: Any) -> NoReturn:
        _refuse("connect_write_pipe")

    async def subprocess_shell(self, *args: Any, **kwargs: Any) -> NoReturn:
        _refuse("subprocess_shell")

    async def subprocess_exec(self, *args: Any, **kwargs: Any) -> NoReturn:
        _refuse("subprocess_exec")

    def add_reader(self, fd: Any, callback: Callable[[*Ts], Any], *args: *Ts) -> NoReturn:
        _refuse("add_reader")

    def remove_reader(self, fd: Any) -> NoReturn:
        _refuse("remove_reader")

    def add_writer(self, fd: Any, callback: Callable[[*Ts], Any], *args: *Ts) -> NoReturn:
        _refuse("add_writer")

    def remove_writer(self, fd: Any) -> NoReturn:
        _refuse("remove_writer")

    async def sock_recv(self, *args: Any, **kwargs: Any) -> NoReturn:
        _refuse("sock_recv")

    async def sock_recv_into(self, *args: Any, **kwargs: Any) -> NoReturn:
        _refuse("sock_recv_into")

    async def sock_recvfrom(self, *args: Any, **kwargs: Any) -> NoReturn:
        _refuse("sock_recvfrom")

    async def sock_recvfrom_into(self, *args: Any, **kwargs: Any) -> NoReturn:
        _refuse("sock_recvfrom_into")

    async def sock_sendto(self, *args: Any, **kwargs: Any) -> NoReturn:
        _refuse("sock_sendto")

    async def sock_sendall(self, *args: Any, **kwargs: Any) -> NoReturn:
        _refuse("sock_sendall")

    async def sock_connect(self, *args: Any, **kwargs: Any) -> NoReturn:
        _refuse("sock_connect")

    async def sock_accept(self, *args: Any, **kwargs: Any) -> NoReturn:
        _refuse("sock_accept")
