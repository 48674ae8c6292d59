"""Who comes to the port of a cluster without being asked: raw bytes, honest handshakes with wrong keys, and one who only listens."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import actorflow as af
from actorflow._core.boot.cluster_launch import StartedNode
from actorflow._core.io.access_desk import fetch_access
from actorflow._core.io.cluster_access import HANDSHAKE_PROTOCOL, ClusterAccess
from actorflow._core.io.tcp_handshake import Security
from actorflow._core.io.tcp_network import TcpNetwork
from actorflow._core.security.authority import new_request
from actorflow._core.security.challenge import Terms
from actorflow._core.security.credential_files import CredentialDir, SecretFile
from actorflow._core.security.keys import Key, Keyring
from actorflow._core.security.roles import KeyKind, Role
from actorflow._core.security.secret import Secrets
from actorflow._core.security.tls import Credentials, client_side
from actorflow._core.security.wire import Party
from tests.conformance.worlds import Recorder

BOUND_S = 8.0
"""5 s for a handshake, and a busy machine."""


class Counter(af.Actor, num_cpus=0):
    def __init__(self) -> None:
        self.value = 0

    @af.method
    async def add(self) -> int:
        self.value += 1
        return self.value


class Bystander:
    """A driver that works all the time, with an actor on each node: it notices what others suffer."""

    def __init__(self) -> None:
        places = [af.NodeAffinity(row["node_id"]) for row in af.sync(af.state.list_nodes()) if row["state"] == "alive"]
        self._counters = [Counter.options(scheduling_strategy=place).remote() for place in places]
        for counter in self._counters:
            af.sync(counter.add())
        self._ended = False
        self.calls = 0
        self.worst_s = 0.0
        self.problem: BaseException | None = None
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def _work(self) -> None:
        try:
            while not self._ended:
                begun = time.monotonic()
                af.sync(af.get([counter.add.remote() for counter in self._counters]), timeout=30)
                self.worst_s = max(self.worst_s, time.monotonic() - begun)
                self.calls += 1
                threading.Event().wait(0.005)
        except BaseException as error:
            self.problem = error

    def has_noticed_nothing(self) -> None:
        """Raise when it has, or does not work any more."""
        before, give_up_at = self.calls, time.monotonic() + 20
        while self.calls < before + 3 and self.problem is None and time.monotonic() < give_up_at:
            time.sleep(0.01)
        assert self.problem is None, self.problem
        assert self.calls >= before + 3, "its calls hang"
        assert self.worst_s < 5.0, f"a call took {self.worst_s:.1f} s"

    def end(self) -> None:
        self._ended = True
        self._thread.join()


class Target:
    """A cluster that is attacked, as the attacker may know it, and with what the tests of insiders need."""

    def __init__(self, nodes: list[StartedNode], tls: bool) -> None:
        self.nodes = nodes
        self.tls = tls
        self.host, _, port = nodes[0].tcp.rpartition(":")
        self.port = int(port)

    @property
    def secrets(self) -> Secrets:
        return SecretFile(CredentialDir(self.nodes[0].credentials).secret).secrets

    def credentials(self) -> Credentials | None:
        """Whom to trust, and no certificate."""
        if not self.tls:
            return None
        return Credentials(CredentialDir(self.nodes[0].credentials).load_authority_certificate())

    def certified(self, *names: str) -> Credentials | None:
        """A certificate of the cluster's authority under these names: of an insider."""
        if not self.tls:
            return None
        authority = CredentialDir(self.nodes[0].credentials).load_authority()
        key, request = new_request()
        return Credentials(authority.certificate_pem(), authority.issue(request, names, wall_time=time.time()), key)

    def security(
        self,
        role: Role,
        process_id: str,
        key: Key,
        credentials: Credentials | None = None,
        *,
        clock: Callable[[], float] = time.time,
        incarnation: int = 0,
    ) -> Security:
        """What a caller with this key proves itself with."""
        mine = credentials or self.credentials()
        terms = Terms(Party(role, process_id, incarnation), Keyring(keys=(key,)), os.urandom, HANDSHAKE_PROTOCOL)
        return Security(terms, lambda name: key, None, client_side(mine) if mine is not None else None, clock)

    def knock(self, name: str, security: Security, *, node: int = 0, port: int = 0) -> str:
        """Connect to a process of this name; returns why it was refused, and "" when it was let in. Bounded."""

        async def call() -> str:
            handler = Recorder()
            network = TcpNetwork(asyncio.get_running_loop(), security, None)
            host, _, node_port = self.nodes[node].tcp.rpartition(":")
            try:
                async with asyncio.timeout(BOUND_S):
                    handler.stream = await network.connect(f"tcp:{host}:{port or node_port}/{name}", handler)
            except TimeoutError as error:
                if isinstance(error, OSError) and error.errno:
                    return str(error)
                raise AssertionError("nobody said anything") from error
            except OSError as error:
                return str(error)
            handler.stream.abort()
            await handler.until(lambda: handler.lost)
            return ""

        return asyncio.run(call())

    def access(self, process_id: str) -> ClusterAccess:
        """What a driver of this id is given by the node on its host."""

        async def ask() -> bytes:
            return await fetch_access(asyncio.get_running_loop(), self.nodes[0].path, process_id)

        return ClusterAccess.from_bytes(asyncio.run(ask()))

    def driver_of(self, job_id: str) -> tuple[Key, Credentials | None]:
        """The key and the certificate of a driver of this job."""
        access = self.access(job_id)
        key = access._ring().pick(KeyKind.JOB, job_id)
        return key, Credentials(access.authorities, access.certificate, access.certificate_key) if self.tls else None

    def says(self, data: bytes, *more: bytes, wait_s: float = BOUND_S, port: int = 0) -> tuple[bytes, float]:
        """What the port answers until it closes, and how long that takes; `more` is said after each answer."""
        begun = time.monotonic()
        said = list(more)
        heard = b""
        with socket.create_connection((self.host, port or self.port), timeout=wait_s) as sock:
            sock.sendall(data)
            with contextlib.suppress(ConnectionError):
                while part := sock.recv(65_536):
                    heard += part
                    if said:
                        sock.sendall(said.pop(0))
        return heard, time.monotonic() - begun


class Tap:
    """One in between who passes everything on, and keeps it."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.said: list[bytes] = []
        """What the connector said, piece by piece."""
        self.answered: list[bytes] = []
        self._fars: list[socket.socket] = []
        self._near_stays = False
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
                relay = threading.Thread(target=self._relay, args=(near, far))
                self._threads.append(relay)
                relay.start()

    def _relay(self, near: socket.socket, far: socket.socket) -> None:
        self._fars.append(far)
        with near, far:
            back = threading.Thread(target=self._pass, args=(far, near, self.answered))
            back.start()
            self._pass(near, far, self.said)
            back.join()

    def cut_far(self) -> None:
        """The far side sees its connections end; the near side is told nothing, until it says something or `cut_near`."""
        self._near_stays = True
        for far in self._fars:
            with contextlib.suppress(OSError):
                far.shutdown(socket.SHUT_RDWR)
        self._fars.clear()

    def cut_near(self) -> None:
        """... and now the near side sees it as well; who comes again gets through."""
        self._near_stays = False

    def _pass(self, one: socket.socket, other: socket.socket, kept: list[bytes]) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65_536):
                kept.append(data)
                other.sendall(data)
        while self._near_stays:
            time.sleep(0.01)
        for sock in (one, other):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._near_stays = False
        for far in self._fars:
            with contextlib.suppress(OSError):
                far.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()


@contextlib.contextmanager
def tap(target: Any) -> Iterator[Tap]:
    between = Tap(target.host, target.port)
    try:
        yield between
    finally:
        between.close()
