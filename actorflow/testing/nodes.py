"""A cluster of several real nodes on this machine, for tests: each a process of its own, joined over loopback TCP.

    from actorflow.testing import Cluster

    async def test_it_survives_a_node() -> None:
        with Cluster(2, num_cpus=2) as cluster:
            spare = cluster.add_node(num_cpus=4, labels={"zone": "b"})
            async with af.init(address=cluster.address):
                refs = [work.options(max_retries=3).remote(n) for n in range(20)]
                cluster.kill(spare)                        # as when a machine loses its power
                assert await af.get(refs) == list(range(20))

The nodes are what `actorflow start` starts. Clusters that others of this user run on the machine are left alone. Under virtual time, with
faults at exact steps: SimCluster.

    TC-1  `close` ends every node, also after an error, and raises InvariantBroken with what one of them has left behind.
    TC-2  A process that ends without `close`, by SIGKILL too, takes its nodes along: they watch it.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from weakref import WeakSet

from actorflow import _nodes
from actorflow._core.base.errors import OptionTypeError
from actorflow.testing.errors import InvariantBroken, SimulationMisuse
from actorflow.testing.machine import birth_of, command_of, send, tree_of

GONE_S = 10.0
"""How long what a node has started may take to end after it."""
POLL_S = 0.01
HEAD_TITLE = "actorflow-head"


@dataclass(eq=False)
class Node:
    """One node of a Cluster."""

    address: str
    """HOST:PORT, for af.init and for nodes that join."""
    pid: int
    path: str
    """Its session directory, with its logs. One that was given up and begins again as another node has a new one."""
    ended: bool = False
    known: dict[int, str] = field(default_factory=dict)
    """Its processes, as they were when it was last looked at: pid -> time of birth."""
    last_log: str = ""
    """What it had logged when it was ended: its directory goes with it."""

    @property
    def alive(self) -> bool:
        """True while its process lives."""
        return not self.ended and bool(birth_of(self.pid))

    def processes(self) -> list[int]:
        """Its process and all that it has started, workers too."""
        self.known = {pid: birth for pid, birth in self.known.items() if birth_of(pid) == birth}
        if not self.ended:
            self.known |= tree_of(self.pid)
        return list(self.known)

    def log(self) -> str:
        """What it has logged, also when it has been ended."""
        try:
            self.last_log = (Path(self.path) / "logs" / "node.log").read_text(errors="replace")
        except FileNotFoundError:
            if not self.ended:
                raise
        return self.last_log


class Life:
    """A pipe that nobody writes to: it is at its end when this process is."""

    def __init__(self) -> None:
        self.read_fd, self._write_fd = os.pipe()
        _lives.add(self)

    def end(self) -> None:
        """Close it."""
        for fd in (self.read_fd, self._write_fd):
            if fd >= 0:
                os.close(fd)
        self.read_fd = self._write_fd = -1


_lives: WeakSet[Life] = WeakSet()


def _end_lives() -> None:
    """In a fork of this process, which may outlive it: the nodes would not see that it is gone."""
    for life in list(_lives):
        life.end()


os.register_at_fork(after_in_child=_end_lives)


class Cluster:
    """See the module. `options` are those of `add_node` for the first `nodes`; the first one has the head.

    Raises ClusterStartError, OptionError.
    """

    def __init__(self, nodes: int = 1, *, tls: bool = False, **options: Any) -> None:
        if isinstance(nodes, bool) or not isinstance(nodes, int):
            raise OptionTypeError(f"Cluster({nodes!r}): a whole number of nodes is needed, not {type(nodes).__name__}", option="nodes")
        if nodes < 1:
            raise SimulationMisuse(f"cannot make a cluster of {nodes} nodes: the head needs one")
        self.nodes: list[Node] = []
        """Those that have not been ended."""
        self._all: list[Node] = []
        self._tls = tls
        self._life = Life()
        try:
            for _ in range(nodes):
                self.add_node(**options)
        except BaseException:
            self.close()
            raise

    @property
    def head(self) -> Node:
        """The node with the head: the cluster does not outlive it."""
        return self._all[0]

    @property
    def address(self) -> str:
        """Where drivers and nodes join: that of the head."""
        return self.head.address

    def add_node(
        self,
        *,
        num_cpus: float = 1,
        num_gpus: float | None = 0,
        memory: int | str = "1GiB",
        object_store_memory: int | str = "64MiB",
        object_spilling_directory: str | os.PathLike[str] | None = None,
        memory_usage_threshold: float = 0.95,
        resources: dict[str, float] | None = None,
        labels: dict[str, str] | None = None,
        port: int = 0,
        advertise_port: int = 0,
        head_address: str = "",
    ) -> Node:
        """Start a node and return when it has joined. `num_gpus`: None for those that are found.

        With a proxy in front of it (FaultProxy) it listens on `port`, and others are told `advertise_port`; `head_address` is where it
        finds the head, when that is not where others do. Raises ClusterStartError, OptionError.
        """
        started = _nodes.start(
            address=(head_address or self.address) if self._all else "",
            port=port,
            advertise_port=advertise_port,
            credentials=self._credentials() if head_address else "",
            tls=self._tls,
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            memory=memory,
            object_store_memory=object_store_memory,
            object_spilling_directory=object_spilling_directory,
            memory_usage_threshold=memory_usage_threshold,
            resources=resources,
            labels=labels,
            life_fd=self._life.read_fd,
        )
        node = Node(started.tcp, started.pid, started.path)
        self.nodes.append(node)
        self._all.append(node)
        return node

    def remove(self, node: Node) -> None:
        """End a node in order, and wait for it. Raises InvariantBroken with what it leaves behind."""
        self._take_out(node)
        self._stop([node])
        self._require_gone([node])

    def kill(self, node: Node) -> None:
        """End a node as its machine would by losing its power: all its processes at once."""
        self._take_out(node)
        self._signal(node, signal.SIGKILL)
        self._require_gone([node])

    def head_pid(self) -> int:
        """The process of the head at the moment; 0 between two of its lives."""
        return next((pid for pid in tree_of(self.head.pid) if command_of(pid).startswith(HEAD_TITLE)), 0)

    def kill_head(self, timeout_s: float = GONE_S) -> int:
        """End the head's process as a crash does, as soon as there is one, and say which it was; the first node starts the next.

        Raises InvariantBroken.
        """
        give_up_at = time.monotonic() + timeout_s
        while not (pid := self.head_pid()):
            if time.monotonic() >= give_up_at:
                raise InvariantBroken(f"there is no head to kill within {timeout_s:g} s: see head.log in {self.head.path}/logs")
            time.sleep(POLL_S)
        send([pid], signal.SIGKILL)
        return pid

    def pause(self, node: Node) -> None:
        """Let all processes of a node stand still, until `resume`: it hangs."""
        self._check_mine(node)
        self._signal(node, signal.SIGSTOP)

    def resume(self, node: Node) -> None:
        """End a pause."""
        self._check_mine(node)
        self._signal(node, signal.SIGCONT)

    def close(self) -> None:
        """End all nodes, those that joined first."""
        nodes, self.nodes = self.nodes, []
        for node in nodes:
            self._signal(node, signal.SIGCONT)
            self.locate(node)
            node.ended = True
        self._stop(nodes[::-1])
        self._life.end()  # One that is between two lives hears no signal, and this in the next one.
        self._require_gone(self._all)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _credentials(self) -> str:
        """Where the secret of the cluster is: a node that finds the head at another address does not know that it is this one."""
        return next(iter(_nodes.find([self.head.pid]))).credentials

    def _check_mine(self, node: Node) -> None:
        if not isinstance(node, Node):
            raise OptionTypeError(f"a node of this cluster is needed, as in cluster.nodes[1], not {type(node).__name__}", option="node")
        if node not in self.nodes:
            raise SimulationMisuse(f"the node at {node.address} is not one of this cluster, or has been ended already")

    def _take_out(self, node: Node) -> None:
        self._check_mine(node)
        self._signal(node, signal.SIGCONT)
        self.locate(node)
        node.log()  # One that leaves in order takes it along.
        self.nodes.remove(node)
        node.ended = True

    def locate(self, node: Node) -> None:
        """Bring `node.path` up to date: it may have begun again. `remove`, `kill` and `close` do so by themselves."""
        for found in _nodes.find([node.pid]) if node.alive else ():
            if found.path != node.path:
                _nodes.forget(node.path)
                node.path = found.path

    def _stop(self, nodes: Sequence[Node]) -> None:
        _nodes.stop([node.pid for node in nodes if birth_of(node.pid)])

    def _signal(self, node: Node, number: signal.Signals) -> None:
        send(node.processes(), number)

    def _require_gone(self, nodes: list[Node]) -> None:
        give_up_at = time.monotonic() + GONE_S
        while (left := [pid for node in nodes for pid in node.processes()]) and time.monotonic() < give_up_at:
            time.sleep(POLL_S)
        named = [f"process {pid} ({command_of(pid) or 'gone meanwhile'})" for pid in left]
        for node in nodes:
            self._signal(node, signal.SIGKILL)
            node.log()
            _nodes.forget(node.path)  # Of one that was killed: nobody else has removed it.
        if named:
            raise InvariantBroken(f"TC-1: {GONE_S:g} s after the end of its nodes there still is: {', '.join(named)}")
