"""A head in a simulated world, and the processes that talk to it."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self, TypeVar

from actorflow._core.base.resources import UNIT
from actorflow._core.head.config import HeadConfig
from actorflow._core.head.head import Head
from actorflow._core.io.journal import Journal
from actorflow._core.io.peers import Peer, Peers
from actorflow._core.protocol.messages import (
    ActorReady,
    ActorSpec,
    ActorState,
    AnyMessage,
    CreateActor,
    KillActor,
    Message,
    NodeInfo,
    PlaceActor,
)
from actorflow._core.protocol.session import Identity
from actorflow.testing.files import SimDisk, SimFiles
from actorflow.testing.world import World

HEAD = "unix:/head.sock"

M = TypeVar("M", bound=Message)


def spec(actor_id: str, owner: str, **options: Any) -> ActorSpec:
    job_id = options.pop("job_id", "job-1")
    resources = options.pop("resources", {})
    return ActorSpec(
        actor_id, job_id, owner, f"unix:/{owner}", "class-1", "Counter", b"pickle", b"methods", b"args", None,
        None, None, resources, **options,
    )  # fmt: skip


class Party:
    """A process that is connected to the head and remembers what it is told."""

    def __init__(self, cluster: Cluster, role: str, name: str, job_id: str, namespace: str, host: str) -> None:
        self.name = name
        self.host = cluster.world.host(host)
        self.received: list[AnyMessage] = []
        self.lost = ""
        identity = Identity(role, name, job_id, f"unix:/{name}", 42, namespace)
        self.peer: Peer = Peers(self.host.ports, identity, self).connect(HEAD)

    def peer_ready(self, peer: Peer) -> None:
        pass

    def messages_received(self, peer: Peer, messages: list[AnyMessage]) -> None:
        self.received += messages

    def peer_lost(self, peer: Peer, reason: str) -> None:
        self.lost = reason

    def send(self, *messages: AnyMessage) -> None:
        for message in messages:
            self.peer.send(message)

    def take(self, kind: type[M]) -> list[M]:
        """What came of this kind since the last time."""
        taken: list[M] = [message for message in self.received if isinstance(message, kind)]
        self.received = [message for message in self.received if not isinstance(message, kind)]
        return taken

    def states(self) -> list[str]:
        return [message.state for message in self.take(ActorState)]


class Cluster:
    """A head, and whoever is connected to it. Virtual time passes only in what calls `run`."""

    def __init__(self, seed: int = 0, *, durable: bool = False, **config: Any) -> None:
        self.world = World(seed)
        self.config = config
        self.disk = SimDisk(self.world, "machine-1")
        self.durable = durable
        self.lives = 0
        self.begin()

    def begin(self) -> None:
        """A life of the head begins."""
        self.lives += 1
        self.host = self.world.host("head" if self.lives == 1 else f"head {self.lives}")
        self.world.run_until(self.host.run(self._start()))

    async def _start(self) -> None:
        memory = await Journal.open(SimFiles(self.host, self.disk)) if self.durable else None
        config = HeadConfig(HEAD, process_id=f"head-{self.lives}", **self.config)
        self.head = Head(self.host.ports, config, memory)
        self.world.fabric.remove_file(HEAD, self.host.machine)
        await self.head.start()

    def come_back(self) -> None:
        """The head and its machine go down, and the next life of the head begins."""
        self.world.power_off(self.host)
        self.disk.crash()
        self.begin()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.world.close()

    def run(self, seconds: float = 0.5) -> None:
        self.world.run_for(seconds)

    def party(self, role: str, name: str, job_id: str = "job-1", namespace: str = "", host: str = "") -> Party:
        party = Party(self, role, name, job_id, namespace, host or name)
        self.run()
        return party

    def node(self, name: str = "node-1", cpus: int = 4) -> Party:
        node = self.party("node", name, job_id="")
        node.send(NodeInfo(name, f"unix:/{name}", {"CPU": cpus * UNIT}, {"zone": "a"}))
        self.run()
        return node

    def driver(self, name: str = "driver-1", job_id: str = "job-1", namespace: str = "") -> Party:
        return self.party("driver", name, job_id, namespace)

    def kill(self, party: Party) -> None:
        self.world.kill(party.host)
        self.run()

    def make_alive(self, driver: Party, node: Party, actor_id: str = "actor-a", **options: Any) -> PlaceActor:
        """Create an actor and play its node until it is alive."""
        driver.send(CreateActor(spec(actor_id, driver.name, **options)))
        self.run()
        return self.answer_ready(node)

    def answer_ready(self, node: Party) -> PlaceActor:
        (place,) = node.take(PlaceActor)
        worker = f"worker-of-{place.spec.actor_id}"
        node.send(ActorReady(place.spec.actor_id, place.incarnation, worker, f"unix:/{worker}"))
        self.run()
        return place

    def kills(self, node: Party) -> list[tuple[str, int, bool]]:
        return [(m.actor_id, m.incarnation, m.graceful) for m in node.take(KillActor)]
