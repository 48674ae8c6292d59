"""A whole cluster in one simulated machine: ordinary actorflow programs run against it, under virtual time.

    import actorflow as af
    from actorflow.testing import SimCluster, World, simulate

    assert simulate(main, seed=7, num_cpus=4) == 42        # one program from start to end

    with World(seed=7) as world:                           # or with faults of your own
        cluster = SimCluster(world, num_cpus=4)
        driver = cluster.driver(main)
        world.at_time(0.5, lambda: world.kill(cluster.workers()[0]))
        world.run_until(lambda: driver.ended)
        assert driver.result() == 42
        cluster.settle()                                   # nothing is left behind by the calls
        cluster.stop()                                     # and nothing by the cluster

The code of head, node, workers and drivers is the product's own; only their ports are simulated. They are
laid out as in a local cluster outside: one process has head and node, one each driver, one each worker.
"""

from __future__ import annotations

import asyncio
import functools
import gc
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, TypeVar

from actorflow import _runtime
from actorflow._core.base.addresses import with_job
from actorflow._core.base.errors import ActorflowError, ClusterStartError
from actorflow._core.base.ids import new_id
from actorflow._core.base.resources import parse_bytes, parse_resources
from actorflow._core.head.config import HeadConfig
from actorflow._core.head.head import Head
from actorflow._core.io.ports import WorkerSpec
from actorflow._core.node.node import Node
from actorflow._core.protocol.messages import Shutdown
from actorflow._core.protocol.session import Identity
from actorflow._core.security.keys import Keyring
from actorflow._core.security.roles import Role
from actorflow._core.security.secret import Secrets
from actorflow._core.security.wire import Party
from actorflow._core.worker.core import SENT_POLL_S, SENT_S, Core
from actorflow._core.worker.host import Host as CallHost
from actorflow._core.worker.inspect import Events
from actorflow.testing.arena import SimArena
from actorflow.testing.checkers import Violation, require
from actorflow.testing.cluster_leaks import cluster_leaks, machine_leaks
from actorflow.testing.errors import InvariantBroken, SimulationMisuse
from actorflow.testing.executor import SimExecutor, block_on
from actorflow.testing.host import Host
from actorflow.testing.members import Member
from actorflow.testing.misuse import begun, check_cluster, check_main
from actorflow.testing.processes import ProcessProfile, SimProcesses
from actorflow.testing.redis import SimRedisServer
from actorflow.testing.sim_head import SimHead
from actorflow.testing.sim_node import SimNode
from actorflow.testing.spill import SimSpill
from actorflow.testing.world import MACHINE, World

T = TypeVar("T")
Main = Callable[[], Coroutine[Any, Any, Any]]

MEMORY_BYTES = 8 << 30
ARENA_BYTES = 64 << 20
CLUSTER_LOST = 4
"""As in `_core/boot/worker_main.py`."""
NEWS_S = 0.000_2
"""How long a driver takes to hear that its cluster is ready: outside, it reads a pipe."""
REST_STEP_S = 0.25
DAY_S = 86_400.0


class SimDriver:
    """One driver process and what became of its program. Made by `SimCluster.driver`."""

    def __init__(
        self, cluster: SimCluster, host: Host, process_id: str, namespace: str, stay: bool, inline: bool, outside: bool
    ) -> None:
        self.cluster = cluster
        self.host = host
        self.process_id = process_id
        self.namespace = namespace
        self.core: Core | None = None
        """Its runtime, once it has joined the cluster."""
        self.value: Any = None
        self.error: BaseException | None = None
        self.returned = False
        """True when `main` has returned or raised. With `stay` the process lives on until `end`."""
        self._stay = stay
        self._outside = outside
        self.user_loop = host.loop if inline else host.new_loop("user")
        """The loop that runs `main`."""
        self._end: asyncio.Future[None] = host.loop.create_future()

    @property
    def ended(self) -> bool:
        """True when nothing more is to come of the program: it has returned, raised, or was killed."""
        return self.returned or not self.host.alive

    @property
    def parts(self) -> bool:
        """True when its process has ended, or is about to."""
        return not self.host.alive or (self.returned and (not self._stay or self._end.done()))

    def result(self) -> Any:
        """What `main` returned; raises what it raised. InvariantBroken when the process died before that."""
        if not self.returned:
            state = "has not ended" if self.host.alive else f"died (exit code {self.host.exit_code}, signal {self.host.signal})"
            raise InvariantBroken(f"{self.host.name} {state} and has no result")
        if self.error is not None:
            raise self.error
        return self.value

    def forget(self) -> None:
        """Drop the value or the error of `main`: an error's frames hold references, which `settle` would find."""
        self.value = self.error = None

    def end(self) -> None:
        """Let a driver with `stay` leave. Called from outside."""
        if self.host.alive and not self._end.done():
            self.host.loop.call_soon_threadsafe(self._finish)

    def _finish(self) -> None:
        if not self._end.done():
            self._end.set_result(None)

    async def live(self, main: Main, host: Host) -> None:
        """The program of the process: join, run, part."""
        try:
            await self.cluster.ready(host)
            core = await self._join()
            _runtime.enter(core)
            self.value = await self._run(main)
        except (Exception, asyncio.CancelledError) as error:
            self.error = error
        del main  # what it closes over may hold references
        self.returned = True
        if self._stay:
            await self._end
        if self.core is not None:
            if self.process_id != self.cluster.owner_id:
                await self.core.until_sent()
            self._part(self.core)

    async def _join(self) -> Core:
        cluster, host = self.cluster, self.host
        address = with_job(cluster.address(self.process_id), self.process_id)
        cluster.enrol(host, Role.DRIVER, self.process_id, self.process_id)
        identity = Identity("driver", self.process_id, self.process_id, address, host.pid, self.namespace, [])
        arena = None if self._outside else cluster.arena.attach(host)
        core = self.core = Core(host.ports, identity, arena, block_on, outside=self._outside)
        cluster.cores[host] = core
        await core.start(cluster.address("node"))
        return core

    async def _run(self, main: Main) -> Any:
        """Run `main` on the loop that is the user's: outside, the protocol has a thread of its own."""
        if self.user_loop is self.host.loop:
            return await begun(main)
        mine, done = self.host.loop, self.host.loop.create_future()

        def ended(task: asyncio.Task[Any]) -> None:
            self.host.programs.discard(task)
            mine.call_soon_threadsafe(done.set_result, task)

        def begin() -> None:
            task = self.user_loop.create_task(_program(main), name=f"program of {self.host.name}")
            self.host.programs.add(task)
            task.add_done_callback(ended)

        self.user_loop.call_soon_threadsafe(begin, context=self.host.context)
        return (await done).result()

    def _part(self, core: Core) -> None:
        if self.process_id == self.cluster.owner_id and core.closed is None:
            core.node.send(Shutdown("its driver has shut it down"))
            core.node.flush()
        core.close()


async def _program(main: Main) -> Any:
    return await begun(main)


class SimCluster:
    """Head and node in one process of `world`, workers in others, drivers as they are started.

    The cluster belongs to the first driver: it ends with it. `num_cpus`, `num_gpus`, `memory`, `resources`,
    `object_store_memory` are those of `af.init`; `processes` says how long workers take to start;
    `node_options` are further fields of NodeConfig. `scheme`: "unix", or "tcp" for connections as between
    machines. `durable`: the head has a process and a disk of its own, or keeps what it knows in this Redis, and
    comes back when that process ends.
    """

    def __init__(
        self,
        world: World,
        *,
        num_cpus: float = 2,
        num_gpus: float = 0,
        memory: int | str = MEMORY_BYTES,
        resources: Mapping[str, float] | None = None,
        object_store_memory: int | str = ARENA_BYTES,
        prestart: int = 1,
        processes: ProcessProfile | None = None,
        name: str = "cluster",
        scheme: str = "unix",
        node_options: Mapping[str, Any] | None = None,
        durable: bool | SimRedisServer = False,
    ) -> None:
        check_cluster(scheme, node_options or {})
        self.world = world
        self.name = name
        self._scheme = scheme
        self.cores: dict[Host, Core] = {}
        """The runtime of every driver and worker that ever joined, by its process."""
        self.call_hosts: dict[Host, CallHost] = {}
        """The part of each worker that runs calls."""
        self.drivers: list[SimDriver] = []
        self.head: Head | None = None
        self.owner_id = new_id(world.rng(f"ids of {name}"))
        self.secrets = Secrets(world.rng(f"secret of {name}").randbytes(32))
        """Only between machines is there a use for it; `use_secrets` replaces it."""
        self.ring = Keyring()
        self._arena_bytes = parse_bytes("object_store_memory", object_store_memory)
        self._profile = processes
        self._node_options = dict(node_options or {})
        self._is_ready = False
        self._waiting: list[tuple[Host, asyncio.Future[None]]] = []
        settings = self._settings("node", num_cpus, num_gpus, memory, resources) | {"owner": self.owner_id, "prestart": prestart}
        settings |= self._node_options
        self.sim_head: SimHead | None = None
        """The head's process, when it has one of its own."""
        if durable:
            redis = durable if isinstance(durable, SimRedisServer) else None
            self.sim_head = SimHead(world, f"head of {name}", self.address("head"), redis=redis)
            self.sim_head.on_change = self._head_changed
            self._node_options |= {"info": {"head_returns": "yes"}}
            settings |= self._node_options
        begin = self._begin_head if not durable else None
        first = SimNode(world, f"node of {name}", settings, self._arena_bytes, self._work, processes, begin, self._node_ready)
        self.nodes = [first]
        """The first one shares its process with the head, and the cluster ends with it."""
        first.host.on_end.append(self._node_ended)
        first.start()

    def add_node(
        self,
        *,
        num_cpus: float = 2,
        num_gpus: float = 0,
        memory: int | str = MEMORY_BYTES,
        resources: Mapping[str, float] | None = None,
        labels: Mapping[str, str] | None = None,
        object_store_memory: int | str | None = None,
    ) -> SimNode:
        """Start another node; it joins when its process is there. `world.kill(node.host)` takes it away again."""
        name = f"node-{len(self.nodes)}"
        settings = self._settings(name, num_cpus, num_gpus, memory, resources) | self._node_options
        settings |= {"labels": dict(labels or {}), "has_lease": True}
        arena_bytes = self._arena_bytes if object_store_memory is None else parse_bytes("object_store_memory", object_store_memory)
        return self._start_node(name, settings, arena_bytes)

    def _start_node(self, name: str, settings: dict[str, Any], arena_bytes: int) -> SimNode:
        # Over TCP a node may be cut off from the others: then it is a machine of its own.
        machine = f"machine of {name}" if self._scheme == "tcp" else MACHINE
        title = f"{name} of {self.name}"
        node = SimNode(self.world, title, settings, arena_bytes, self._work, self._profile, machine=machine)
        self.nodes.append(node)
        node.host.on_end.append(lambda host: self._again(node, settings, arena_bytes))
        node.start()
        return node

    def _again(self, node: SimNode, settings: dict[str, Any], arena_bytes: int) -> None:
        """A node that has given itself up comes back as a new one, as its process does outside."""
        if node.gave_up and self.node_host.alive:
            name = f"node-{len(self.nodes)}"
            node.successor = self._start_node(name, settings | {"address": self.address(name)}, arena_bytes)

    def _settings(
        self, name: str, num_cpus: float, num_gpus: float, memory: int | str, resources: Mapping[str, float] | None
    ) -> dict[str, Any]:
        totals = parse_resources(
            num_cpus=num_cpus, num_gpus=num_gpus, memory=parse_bytes("memory", memory), resources=dict(resources or {})
        )
        return {
            "address": self.address(name),
            "head_address": self.address("head"),
            "resources": totals,
            "worker_address": self.address,
            "warm_pages_s": 0.0,  # what is freed is overwritten at once, so that whoever still reads it is found (SA-1)
        }

    # -- the first node

    @property
    def node_host(self) -> Host:
        """The process of the first node and of the head."""
        return self.nodes[0].host

    @property
    def node(self) -> Node | None:
        """The first node."""
        return self.nodes[0].node

    @property
    def arena(self) -> SimArena:
        """The memory of the first node, which drivers share."""
        return self.nodes[0].arena

    @property
    def spill(self) -> SimSpill:
        """Its disk."""
        return self.nodes[0].spill

    @property
    def processes(self) -> SimProcesses:
        """Its workers."""
        return self.nodes[0].processes

    def address(self, name: str) -> str:
        """Where the process with this name or id listens."""
        return f"tcp:{self.name}:7000/{name}" if self._scheme == "tcp" else f"unix:/{self.name}/{name}.sock"

    # -- keys, between machines

    def enrol(self, host: Host, role: Role, process_id: str, job_id: str) -> None:
        """Give a process the keys of its job; where connections are as within a machine, it needs none."""
        if self._scheme == "tcp":
            host.network.member = Member(Party(role, process_id), lambda: self.ring.for_job(job_id))

    def use_secrets(self, secrets: Secrets) -> None:
        """Replace the secret by its next step, everywhere and at once."""
        self.secrets = secrets
        if self._scheme == "tcp":
            self.ring = secrets.keyring()
            if self.head is not None:
                self.head.pass_ring = self.ring.for_node()

    # -- drivers

    def driver(
        self,
        main: Main,
        *,
        name: str = "",
        namespace: str = "default",
        stay: bool = False,
        inline: bool = False,
        outside: bool = False,
    ) -> SimDriver:
        """Start a driver that runs `main()`: ordinary code that uses `import actorflow as af`, without af.run.

        The process ends when `main` returns; with `stay` it lives on until `driver.end()`, so that what it
        still holds can be looked at. `inline`: the protocol shares the program's loop, as with
        `af.init(inline=True)`. `outside`: it runs on a machine of its own that is no node of the cluster, and has
        no shared memory with any; for clusters over "tcp".
        """
        check_main("SimCluster.driver", main)
        number = len(self.drivers)
        title = name or (f"driver-{number}" if self.name == "cluster" else f"driver-{number} of {self.name}")
        host = self.world.host(title, machine=f"machine of {title}" if outside else MACHINE)
        process_id = new_id(self.world.rng(f"ids of {self.name}")) if self.drivers else self.owner_id
        driver = SimDriver(self, host, process_id, namespace, stay, inline, outside)
        self.drivers.append(driver)
        host.start(functools.partial(driver.live, main))
        return driver

    def run(self, main: Main, timeout_s: float = 600.0, **options: Any) -> Any:
        """Start a driver, run the world until its program has ended, and return what `main` returned.

        Once for each SimCluster, which ends with its first driver, unless that one has `stay`.
        """
        if self.drivers and self.drivers[0].parts:
            raise SimulationMisuse(
                "one run for each SimCluster: it has ended with its first driver. Make a new World with a new SimCluster, "
                "or start the first driver with stay=True"
            )
        driver = self.driver(main, **options)
        self.world.run_until(lambda: driver.ended, timeout_s)
        return driver.result()

    async def ready(self, host: Host) -> None:
        """Return when drivers may connect. Raises ClusterStartError when that will never be. On the loop of `host`."""
        if not self.node_host.alive:
            raise ClusterStartError("the node process of the simulated cluster is dead")
        if not self._is_ready:
            future: asyncio.Future[None] = host.loop.create_future()
            self._waiting.append((host, future))
            await future

    # -- the node process

    async def _begin_head(self, host: Host) -> Callable[[], Awaitable[None]]:
        self.head = head = Head(host.ports, HeadConfig(address=self.address("head"), pid=host.pid))
        self.use_secrets(self.secrets)
        await head.start()
        return head.stop

    def _head_changed(self, head: Head | None) -> None:
        self.head = head
        self.use_secrets(self.secrets)

    def _node_ready(self) -> None:
        self._is_ready = True
        self._tell_waiting(None)

    def _tell_waiting(self, error: Exception | None) -> None:
        waiting, self._waiting = self._waiting, []
        for host, future in waiting:
            if error is None:
                self.world.at_host(host, self.world.now + NEWS_S, future.set_result, None)
            else:
                self.world.at_host(host, self.world.now + NEWS_S, future.set_exception, error)

    def _node_ended(self, host: Host) -> None:
        for node in self.nodes[1:]:
            node.end("the cluster is over")
        if self.sim_head is not None:
            self.sim_head.stop()
        self._tell_waiting(ClusterStartError("the node process of the simulated cluster died before it was ready"))

    # -- workers

    def _work(self, node: SimNode, spec: WorkerSpec, host: Host) -> None:
        """The program of a worker: as in `_core/boot/worker_main.py`."""
        identity = Identity(
            "worker",
            spec.worker_id,
            spec.job_id,
            spec.address,
            host.pid,
            sys_path=list(spec.sys_path),
            node_id=spec.node_id,
        )
        self.enrol(host, Role.WORKER, spec.worker_id, spec.job_id)
        core = Core(host.ports, identity, node.arena.attach(host), block_on)
        core.on_lost = lambda reason: host.exit(CLUSTER_LOST)
        executor = SimExecutor(host, host.new_loop("user"))
        core.host = call_host = CallHost(core, executor, functools.partial(self._leave, core, host))
        call_host.events = Events(host.ports.wall_time() - host.ports.monotonic())
        call_host.tenure.left_s = node.processes.lease_left_s
        self.cores[host] = core
        self.call_hosts[host] = call_host
        _runtime.enter(core)
        host.run(self._join(core, spec, host), name=f"start of worker {spec.worker_id}")

    async def _join(self, core: Core, spec: WorkerSpec, host: Host) -> None:
        try:
            await core.start(spec.node_address)
        except (ActorflowError, OSError) as error:
            self.world.note(host.name, f"cannot join: {error}")
            host.exit(1)

    def _leave(self, core: Core, host: Host, code: int) -> None:
        """Leave in order: what has been said is written first, and meanwhile no code of the user runs. On the user's loop."""
        core.tasks.return_all_idle()
        for peer in core.all_peers():
            peer.flush()
        if not core.has_unsent():
            host.exit(code)
            return
        give_up_at = self.world.now + SENT_S
        for loop in host.loops:
            if loop is not host.loop:
                loop.hold()

        def gone_when_written() -> None:
            if core.has_unsent() and self.world.now < give_up_at:
                host.loop.call_later(SENT_POLL_S, gone_when_written)
            else:
                host.exit(code)

        host.loop.call_soon_threadsafe(gone_when_written)

    # -- looking

    def workers(self) -> list[Host]:
        """The worker processes that are alive, oldest first."""
        return [host for host in self.call_hosts if host.alive]

    def leaks(self) -> list[Violation]:
        """CK-7: what calls and objects have left behind: nothing, at rest, when no program holds a reference or a handle."""
        return cluster_leaks(self)

    # -- the end

    def settle(self, timeout_s: float = 30.0, *, ignore: Callable[[str], bool] | None = None) -> None:
        """Run until nothing is left of the calls that were made. Raises InvariantBroken with what stays.

        The drivers that live must hold no reference. `ignore(text)` says what is to stay.
        """
        world = self.world
        give_up_at = world.now + timeout_s
        while True:
            left = [one for one in self.leaks() if ignore is None or not ignore(one.text)]
            if not left:
                return
            if world.now >= give_up_at:
                require(left, seed=world.seed)
            self.collect()
            world.run_for(REST_STEP_S)

    def collect(self) -> None:
        """Let the cyclic collector run in the next handle."""
        self.world.at_time(self.world.now, gc.collect)

    def stop(self, timeout_s: float = 30.0) -> None:
        """Let the drivers leave, and run until the whole cluster is gone. Raises InvariantBroken with what stays."""
        world = self.world
        for driver in self.drivers[::-1]:
            driver.end()
        give_up_at = world.now + timeout_s
        while left := machine_leaks(self):
            if world.now >= give_up_at:
                require(left, seed=world.seed)
            world.run_for(REST_STEP_S)


def simulate(
    main: Callable[[], Coroutine[Any, Any, T]], seed: int = 0, *, timeout_s: float = DAY_S, **cluster_options: Any
) -> T:
    """Run one program on a simulated cluster, under virtual time, and return what it returns.

    `main` is what you would give to `af.run`; `timeout_s` bounds its virtual time; `cluster_options` are those
    of SimCluster. Raises what `main` raises, InvariantBroken when the end of the program and of its cluster leaves something behind (a
    process, a connection, a file; not what is meant to outlive the program, as detached actors are), SimulationStuck when it cannot end.
    The same seed gives the same run.
    """
    check_main("simulate", main)
    with World(seed) as world:
        cluster = SimCluster(world, **cluster_options)
        value: T = cluster.run(main, timeout_s)
        cluster.stop()
        return value
