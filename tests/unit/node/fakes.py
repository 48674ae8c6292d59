"""Everybody a node talks to, played by scripts in a simulated world: a head, drivers, workers."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any, TypeVar

from actorflow._core.base.resources import UNIT
from actorflow._core.io.peers import Peer, Peers
from actorflow._core.io.ports import WorkerSpec
from actorflow._core.node.config import NodeConfig
from actorflow._core.node.node import Node
from actorflow._core.protocol.messages import (
    ActorExit,
    ActorLost,
    ActorReady,
    ActorSpec,
    AnyMessage,
    HostActor,
    Leave,
    Message,
    Needed,
    PlaceActor,
    RequestLease,
    Shutdown,
)
from actorflow._core.protocol.session import Identity
from actorflow.testing import Host, ProcessProfile, SimArena, SimProcesses, World

M = TypeVar("M", bound=Message)

HEAD = "unix:/c/head.sock"
NODE = "unix:/c/node.sock"
CPU = {"CPU": UNIT}


class Speaker:
    """A process that says what a test tells it to say, and remembers what it was told."""

    def __init__(self, host: Host, role: str, process_id: str, job_id: str = "", address: str = "") -> None:
        self.host = host
        self.process_id = process_id
        identity = Identity(role, process_id, job_id, address, host.pid, sys_path=["/src/" + job_id])
        self.peers = Peers(host.ports, identity, self)
        self.peer: Peer | None = None
        self.received: list[AnyMessage] = []
        self.on_message: Callable[[AnyMessage], None] = lambda message: None
        self.lost = ""

    def join(self, address: str = NODE) -> None:
        self.host.loop.call_soon_threadsafe(self._join, address)

    def _join(self, address: str) -> None:
        self.peer = self.peers.connect(address)

    def send(self, *messages: AnyMessage) -> None:
        assert self.peer is not None
        for message in messages:
            self.peer.send(message)

    def got(self, kind: type[M]) -> list[M]:
        return [message for message in self.received if isinstance(message, kind)]

    def peer_ready(self, peer: Peer) -> None:
        self.peer = peer

    def messages_received(self, peer: Peer, messages: list[AnyMessage]) -> None:
        for message in messages:
            self.received.append(message)
            self.on_message(message)

    def peer_lost(self, peer: Peer, reason: str) -> None:
        self.lost = reason or "lost"


class FakeWorker(Speaker):
    """A worker that makes every actor at once, and leaves when it is told to, unless `deaf`."""

    def __init__(self, spec: WorkerSpec, host: Host) -> None:
        super().__init__(host, "worker", spec.worker_id, spec.job_id, spec.address)
        self.spec = spec
        self.deaf = False
        self.slow = False
        self.needed = False
        """Others hold what it owns: it refuses to leave."""
        self.actors: dict[str, HostActor] = {}
        self.on_message = self._act
        self._join(spec.node_address)

    def _act(self, message: AnyMessage) -> None:
        if isinstance(message, HostActor):
            self.actors[message.spec.actor_id] = message
            if not self.slow:
                self.ready(message.spec.actor_id)
        elif isinstance(message, ActorExit) and not self.deaf and message.actor_id in self.actors:
            order = self.actors.pop(message.actor_id)
            if order.spec.shared:
                self.send(ActorLost(message.actor_id, order.incarnation, "it was told to end", expected=True))
            else:
                self.host.exit(0)
        elif isinstance(message, Leave) and self.needed:
            self.send(Needed())
        elif isinstance(message, Shutdown | Leave) and not self.deaf:
            self.host.exit(0)

    def ready(self, actor_id: str) -> None:
        order = self.actors[actor_id]
        self.send(ActorReady(actor_id, order.incarnation, self.process_id, self.spec.address))

    def peer_lost(self, peer: Peer, reason: str) -> None:
        super().peer_lost(peer, reason)
        if not self.deaf:
            self.host.exit(0)


class Cluster:
    """One node with its surroundings."""

    def __init__(self, world: World, *, seed_profile: ProcessProfile | None = None, **config: Any) -> None:
        self.world = world
        self.workers: dict[str, FakeWorker] = {}
        self.make_worker: Callable[[WorkerSpec, Host], Any] = FakeWorker
        self.gone: list[str] = []
        self.head = Speaker(world.host("head"), "head", "head")
        self.host = world.host("node")
        self.processes = SimProcesses(self.host, self._born, seed_profile)
        self.arena = SimArena(64 * 4096, self.host)
        memory = config.pop("memory", None)
        settings: dict[str, Any] = {
            "address": NODE,
            "head_address": HEAD,
            "resources": {"CPU": 2 * UNIT, "disk": 4 * UNIT},
            "worker_address": lambda worker_id: f"unix:/c/{worker_id}.sock",
            "node_id": "node",
            "warm_pages_s": 0.0,
        }
        self.node = Node(self.host.ports, NodeConfig(**settings | config), self.processes, self.arena, self.gone.append, None, memory)
        self.run(self.head.host, self.head.peers.listen(HEAD))
        self.run(self.host, self.node.start())
        self.until(lambda: self.head.received)

    def _born(self, spec: WorkerSpec, host: Host) -> None:
        worker = self.make_worker(spec, host)
        if isinstance(worker, FakeWorker):
            self.workers[spec.worker_id] = worker

    def run(self, host: Host, coro: Any) -> Any:
        return self.world.run_until(host.run(coro))

    def until(self, condition: Callable[[], Any]) -> None:
        self.world.run_until(lambda: bool(condition()), timeout_s=60.0)

    def driver(self, name: str = "driver", job_id: str | None = None) -> Speaker:
        driver = Speaker(self.world.host(name), "driver", name, name if job_id is None else job_id)
        driver.join()
        self.until(lambda: driver.peer is not None and driver.peer.role == "node")
        return driver

    def lease(self, client: Speaker, number: int = 1, **fields: Any) -> FakeWorker:
        """A granted lease; returns its worker."""
        from actorflow._core.protocol.messages import LeaseGranted

        client.send(RequestLease(number, **{"resources": CPU} | fields))
        self.until(lambda: [granted for granted in client.got(LeaseGranted) if granted.lease == number])
        [granted] = [granted for granted in client.got(LeaseGranted) if granted.lease == number]
        return self.workers[granted.worker_id]

    def place(self, actor_id: str, incarnation: int = 1, **fields: Any) -> None:
        self.head.send(PlaceActor(spec(actor_id, **fields), incarnation))

    def actor(self, actor_id: str, **fields: Any) -> FakeWorker:
        """A living actor; returns its worker."""
        self.place(actor_id, **fields)
        self.until(lambda: [ready for ready in self.head.got(ActorReady) if ready.actor_id == actor_id])
        [ready] = [ready for ready in self.head.got(ActorReady) if ready.actor_id == actor_id]
        return self.workers[ready.worker_id]

    def kill(self, worker: FakeWorker, number: int = signal.SIGKILL) -> None:
        self.world.kill(worker.host, number)

    def settle(self, seconds: float = 3.0) -> None:
        """Let everything come to rest."""
        self.world.run_for(seconds)

    def free(self) -> dict[str, float]:
        return {name: units / UNIT for name, units in self.node._book.free().amounts.items()}

    def check(self) -> None:
        self.node._book.check()
        self.node._pool.check()
        self.node._store.book.check()


def spec(actor_id: str, **fields: Any) -> ActorSpec:
    """A spec with only what a node looks at."""
    values: dict[str, Any] = {
        "actor_id": actor_id, "job_id": "driver", "owner": "driver", "owner_address": "", "class_id": "c",
        "class_name": "Counter", "class_pickle": b"", "methods": b"", "args": b"", "buffers": None, "deps": None,
        "refs": None, "resources": {},
    }  # fmt: skip
    return ActorSpec(**values | fields)
