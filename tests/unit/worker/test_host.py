"""Where calls meet in one turn of the user's loop: real parts, no sockets. Replies are read where they wait to be written."""

from __future__ import annotations

import asyncio
import pickle
from typing import Any

from actorflow._core.io.executor import MainThreadExecutor
from actorflow._core.io.peers import Peer
from actorflow._core.io.real import real_ports
from actorflow._core.protocol import messages as m
from actorflow._core.protocol.session import Identity
from actorflow._core.worker.core import Core
from actorflow._core.worker.host import Host
from actorflow._core.worker.hosted import HostedActor


class Waits:
    """Its calls end when they are told to."""

    def __init__(self) -> None:
        self.gates: list[asyncio.Event] = []

    async def nothing(self) -> None: ...

    async def wait(self) -> str:
        gate = asyncio.Event()
        self.gates.append(gate)
        await gate.wait()
        return "waited"


class Worker:
    """A worker that hosts one actor, and one caller of it."""

    def __init__(self, cls: type) -> None:
        loop = asyncio.get_running_loop()
        self.core = Core(real_ports(loop, lock=True), Identity("worker", "w" * 16, "job", "", 0))
        self.core.host = self.host = Host(self.core, MainThreadExecutor(loop), lambda code: None)
        self.host.holds_cpu = False
        spec = m.ActorSpec("a" * 16, "job", "owner", "", "class", cls.__name__, b"", b"", b"", None, None, None, {})
        self.actor = HostedActor(spec, 1, cls)
        self.actor.instance = cls()
        self.host.actors[spec.actor_id] = self.actor
        self.caller = Peer(self.core.ports, self.core.identity, self.core, lambda peer: None, acceptor=True)

    def receive(self, *messages: m.AnyMessage) -> None:
        """Messages of the caller, that were read together."""
        self.core.node_id = "node"
        self.core.messages_received(self.caller, list(messages))

    def call(self, seq: int, method: str) -> m.ActorCall:
        return m.ActorCall(seq, 0, self.actor.spec.actor_id, 1, method, b"")

    def replies(self) -> dict[int, Any]:
        """What the caller is to be told, by the number of the call."""
        said = [message for message in self.caller._out if isinstance(message, m.Reply)]
        return {reply.seq: pickle.loads(reply.outcome.data) if isinstance(reply.outcome, m.Inline) else reply.outcome for reply in said}


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_a_cancel_that_comes_too_late_does_not_hit_the_next_call_of_its_task(runner: asyncio.Runner) -> None:
    """The call could end in this turn, the next one starts in it, and then the cancel of the first has its turn."""

    async def scenario() -> None:
        worker = Worker(Waits)
        gates = worker.actor.instance.gates
        for seq in (1, 2):
            worker.receive(worker.call(seq, "nothing"))  # The first of them makes the task that stands by.
            await turns()
        worker.receive(worker.call(3, "wait"))
        await turns()
        gates.pop().set()
        worker.receive(worker.call(4, "wait"), m.Cancel(3, 0))
        await turns()
        assert worker.replies() == {1: None, 2: None, 3: "waited"}
        gates.pop().set()
        await turns()
        assert worker.replies()[4] == "waited"

    runner.run(scenario())


def test_lv_7_a_worker_whose_lease_is_over_begins_no_call(runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        worker = Worker(Waits)
        ends: list[str] = []
        left = [5.0]
        worker.host.tenure.left_s = lambda: left[0]
        worker.core.on_lost = ends.append
        worker.receive(worker.call(1, "wait"))
        await turns()
        assert len(worker.actor.instance.gates) == 1
        left[0] = -1.0
        worker.host.tenure.until = 0.0  # The time of the last look is over.
        worker.receive(worker.call(2, "wait"), worker.call(3, "nothing"))
        await turns()
        assert len(worker.actor.instance.gates) == 1
        assert worker.replies() == {}
        assert len(ends) == 1
        assert "its node was not heard" in ends[0]

    runner.run(scenario())


def test_lv_7_nor_one_that_has_waited_for_its_arguments(runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        worker = Worker(Waits)
        left = [5.0]
        worker.host.tenure.left_s = lambda: left[0]
        worker.core.on_lost = lambda reason: None
        await worker.actor.turn.acquire()  # An earlier call still gets its arguments.
        call = worker.call(1, "wait")
        call.context = m.CallContext()
        worker.receive(call)
        await turns()
        left[0], worker.host.tenure.until = -1.0, 0.0
        worker.actor.turn.release()
        await turns(20)
        assert worker.actor.instance.gates == []

    runner.run(scenario())


def test_lv_7_nor_a_constructor(runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        worker = Worker(Waits)
        worker.host.tenure.left_s = lambda: -1.0
        worker.core.on_lost = lambda reason: None
        worker.core.node = worker.caller
        spec = m.ActorSpec("b" * 16, "job", "owner", "", "class", "Waits", b"", b"", pickle.dumps(((), {})), None, None, None, {})
        worker.host._classes["class"] = Waits
        worker.host._on_host_actor(worker.caller, m.HostActor(spec, 1))
        await turns(20)
        assert spec.actor_id not in worker.host.actors

    runner.run(scenario())
