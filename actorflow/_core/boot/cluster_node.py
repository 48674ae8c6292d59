"""A node process of a cluster of several nodes: the node role. The first of them keeps the head's process running.

It lives until it is told to end (SIGTERM: in order, unless it is the first one; SIGUSR1: at once), whatever drivers come and go; one that
a test has started ends with that at the latest. When the head says that it was given up, it ends with all that it runs, and begins again as
another node (`second_life`). Whoever speaks with it over TCP proves a key of the cluster first; beyond loopback that is under TLS.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import signal
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from actorflow._core.base.errors import ActorflowError
from actorflow._core.boot.session_dir import SessionDir

if TYPE_CHECKING:
    from types import FrameType

    from actorflow._core.boot.head_keeper import HeadKeeper
    from actorflow._core.boot.join_ticket import Ticket
    from actorflow._core.boot.node_credentials import NodeCredentials
    from actorflow._core.io.arena import MemfdArena
    from actorflow._core.io.enrolment import Enrolment
    from actorflow._core.io.ports import Network
    from actorflow._core.io.tcp_handshake import Security
    from actorflow._core.io.zygote_link import ZygoteHandle
    from actorflow._core.node.config import NodeConfig
    from actorflow._core.node.node import Node
    from actorflow._core.security.errors import HandshakeRefused
    from actorflow._core.security.fences import Fences

log = logging.getLogger("actorflow")

WORKERS_TOO = ("actorflow._core.io.cluster_access", "actorflow._core.worker.passes")
"""What this process and its workers need, besides what those of a local cluster do."""
_PR_SET_PDEATHSIG = 1
STOP = signal.SIGUSR1
"""What `actorflow stop` sends: end at once. SIGTERM may be the word that the machine is to go, so there is something to do before."""
ENDS = (signal.SIGTERM, STOP)
TURNS_TO_HEAR = 4
"""A loop reads that a signal has come in one turn, and calls its handler in the next."""
CANNOT_START = "this node cannot start: "
GIVEN_UP = 3
"""The exit code of a node that the head has given up and that cannot begin again: started anew it is another node."""


class ClusterNodeConfig(NamedTuple):
    """One argument, as JSON. `head`: host:port of the head, empty for the node that has it. `ready_fd` is told the port.

    `host` is listened on, `advertised` is where others reach it: at `advertised_port`, or at `port` where that is 0. Nothing here is
    secret: what a node joins with comes through `ticket_fd`.
    """

    session_dir: str
    host: str
    advertised: str
    port: int
    head: str
    tls: bool
    credentials: str
    """The directory with the secret and the authority, of the node with the head."""
    certificate_valid_s: float
    resources: dict[str, int]
    arena_bytes: int
    ready_fd: int
    ticket_fd: int
    labels: dict[str, str]
    life_fd: int = -1
    """At its end when whoever has started this node is gone, and this node is to end then; -1: it lives on."""
    advertised_port: int = 0
    cancel_grace_s: float = 5.0
    memory_threshold: float = 0.95
    devices: dict[str, int] | None = None
    """How many of which its user said there are, 0 for none; of the others the node has what it finds."""
    spill: str = ""
    """Where objects are spilled, as io/spill_target.py has it; empty: in the session directory."""
    journal: str = ""
    """Where the head's memory is, of the node that has it."""
    drain_s: float = 0.0
    """How long it may take to leave in order when it is asked to end (SIGTERM); not the first node, which the cluster ends with."""

    def to_json(self) -> str:
        """For the command line."""
        return json.dumps(self._asdict())


def run(config: ClusterNodeConfig) -> int:
    """Run the process. Returns the exit code."""
    from actorflow._core.boot.node_process import prepare

    arena, zygote = prepare(config.arena_bytes, WORKERS_TOO, leased=True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    session = SessionDir(config.session_dir)
    session.hold_lock()
    gc.freeze()
    gc.enable()

    from actorflow._core.io.loops import new_loop

    loop = new_loop()
    asyncio.set_event_loop(loop)
    try:
        node = NodeProcess(config, session)
        try:
            code = loop.run_until_complete(node.serve(arena, zygote))
        except BaseException as error:
            session.remove_sockets()  # In a second life nobody else knows of them.
            if config.ready_fd < 0 or not isinstance(error, (ActorflowError, OSError)):
                raise
            # Whoever waits for this node shows the last line of its log.
            sys.stderr.write(f"{CANNOT_START}{error}\n")
            return 1
        if not code:
            session.remove()
        else:
            session.remove_sockets()  # The log stays: whoever has started us, or looks for our first life, reads there why.
    finally:
        loop.close()
        zygote.end()  # A node that was not let in has not started, and so not stopped it.
    if code == GIVEN_UP and node.again:
        from actorflow._core.boot.second_life import begin_again

        begin_again(config, node.port, node.again)
    return code


def continue_without_parent() -> None:
    """Should this process stand still (SIGSTOP) when its parent dies, it goes on, and sees that. Otherwise this does nothing."""
    from actorflow._core.boot.process_title import prctl

    prctl()(_PR_SET_PDEATHSIG, signal.SIGCONT, 0, 0, 0)


class NodeProcess:
    """What is wired together in this process. On its loop."""

    def __init__(self, config: ClusterNodeConfig, session: SessionDir) -> None:
        from actorflow._core.base.ids import new_id
        from actorflow._core.io.cluster_access import HANDSHAKE_PROTOCOL
        from actorflow._core.io.gateway import Gateway
        from actorflow._core.io.real import real_ports

        self._config = config
        self._session = session
        self._loop = loop = asyncio.get_event_loop()
        self._ended: asyncio.Future[str] = loop.create_future()
        self._code = 0
        self._for_good = False
        self._awaited = config.ready_fd >= 0
        """Somebody waits to hear that this node is ready, or why not."""
        self.again = ""
        """What it may join once more with."""
        self._ports = real_ports(loop, lock=False)
        self._node_id = new_id(self._ports.rng)
        self._keeper: HeadKeeper | None = None
        self._in_order: Node | None = None
        """What is to leave in order when this process is asked to end."""
        self._gateway = Gateway(loop, protocol_version=HANDSHAKE_PROTOCOL, tls=config.tls)
        self._node: Node | None = None
        self.port = 0
        self._joining: Enrolment | None = None
        self._credentials: NodeCredentials | None = None

    def _end(self, reason: str) -> None:
        if not self._ended.done():
            self._ended.set_result(reason)

    def _end_for_good(self, reason: str) -> None:
        """Somebody wants it so, also where it is about to end because the head has given it up: it does not begin again."""
        self._for_good = True
        self._end(reason)

    def _asked_to_leave(self) -> None:
        """SIGTERM: the machine is to go, or a service manager stops us. The second time it ends at once."""
        node, self._in_order = self._in_order, None
        if node is None or not self._config.head or not self._config.drain_s:
            self._end_for_good("this node was asked to end (SIGTERM)")
            return
        self._for_good = True
        node.drain(self._config.drain_s, "it was asked to end (SIGTERM)")

    def _starter_gone(self, zygote: ZygoteHandle) -> None:
        self._loop.remove_reader(self._config.life_fd)
        os.close(self._config.life_fd)
        self._awaited = False
        self._end_for_good("the process that has started this node is gone")
        with contextlib.suppress(ProcessLookupError):
            os.kill(zygote.pid, signal.SIGCONT)  # As for this process: it may stand still, and it is to end the workers.

    async def serve(self, arena: MemfdArena, zygote: ZygoteHandle) -> int:
        """Start, and wait until this node is to end. Returns the exit code."""
        self._loop.add_signal_handler(signal.SIGTERM, self._asked_to_leave)
        self._loop.add_signal_handler(STOP, self._end_for_good, "this node was asked to end")
        if self._config.life_fd >= 0:
            continue_without_parent()
            self._loop.add_reader(self._config.life_fd, self._starter_gone, zygote)
        if not self._awaited:
            self.port = self._config.port  # As in its first life.
            self._session.publish("", tcp=self._tcp(), head=self._config.head)
        async with contextlib.AsyncExitStack() as stack:
            starting = self._loop.create_task(self._start(stack, arena, zygote), name="start this node")
            either: list[asyncio.Future[Any]] = [starting, self._ended]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not (starting.done() or self._awaited or self._code):
                # To be let in again may take an hour: nobody is to wait for that who wants it to end.
                starting.cancel()
                await asyncio.wait([starting])
                if starting.cancelled():
                    return self._code
            node, credentials = await starting
            self._node = node
            self._in_order = node if not self._for_good else None
            reason = await self._ended
            self.again = credentials.again
            self._in_order = None
            await node.stop(reason)
        await self._hear_the_last_signals()
        return 0 if self._for_good else self._code

    async def _hear_the_last_signals(self) -> None:
        """No signal is lost that comes when the loop does not run any more, or has come when this task was faster than its handler."""
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)
        try:
            for _ in range(TURNS_TO_HEAR):
                await asyncio.sleep(0)
            for number in ENDS:
                self._loop.remove_signal_handler(number)
                if not self._for_good:
                    signal.signal(number, self._end_between_lives)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDS)

    def _end_between_lives(self, number: int, frame: FrameType | None) -> None:
        """Nothing runs here any more, and nothing will: in order, as after `_end_for_good`."""
        self._session.remove()
        os._exit(0)

    async def _start(self, stack: contextlib.AsyncExitStack, arena: MemfdArena, zygote: ZygoteHandle) -> tuple[Node, NodeCredentials]:
        """Open the port, get keys, start the roles, and say that they are ready."""
        from actorflow._core.boot.enrolled_processes import EnrolledProcesses
        from actorflow._core.io.access_desk import AccessDesk, access_path
        from actorflow._core.io.arena import ArenaServer
        from actorflow._core.io.cluster_access import handover_path
        from actorflow._core.io.handover import HandoverServer
        from actorflow._core.io.memory import Gauge
        from actorflow._core.io.processes import ZygoteProcesses
        from actorflow._core.io.spill_files import FileSpill
        from actorflow._core.io.spill_target import place_of
        from actorflow._core.node.node import Node
        from actorflow._core.security.roles import Role

        config, session, loop = self._config, self._session, self._loop
        stack.callback(self._gateway.close)
        self.port = await self._gateway.listen(config.host, config.port)
        handover = HandoverServer(loop, handover_path(session.path), self._gateway)
        stack.callback(handover.close)
        if not config.head:
            await self._begin_head(stack)
        credentials, security = await self._join(stack)
        self._credentials = credentials
        credentials.serve(handover)
        stack.callback(credentials.close)
        ports = replace(self._ports, network=self._network(security))
        processes = EnrolledProcesses(loop, ZygoteProcesses(loop, zygote), credentials)
        spill = FileSpill(loop, arena, place_of(config.spill, session.spill, session.session_id))
        node = Node(ports, self._settings(), processes, arena, self._node_ends, spill, Gauge())
        server = ArenaServer(loop, session.arena_path, arena)
        stack.callback(server.close)
        desk = AccessDesk(loop, access_path(session.path), lambda driver: credentials.access(Role.DRIVER, driver, driver))
        stack.callback(desk.close)
        await node.start()
        if config.head:
            await node.others_know()
        tls = "yes" if config.tls else ""
        session.publish(session.node_address, tcp=self._tcp(), credentials=config.credentials, tls=tls, head=config.head or self._tcp())
        if config.ready_fd >= 0:  # In a second life nobody waits.
            os.write(config.ready_fd, f"{self.port}".encode())
            os.close(config.ready_fd)
        return node, credentials

    # -- addresses and networks

    def _network(self, security: Security) -> Network:
        from actorflow._core.io.sockets import UnixNetwork
        from actorflow._core.io.tcp_network import ClusterNetwork, TcpNetwork

        tcp = TcpNetwork(self._loop, security, self._gateway.open_door, on_refused=self._on_refused)
        return ClusterNetwork(UnixNetwork(self._loop), tcp, self._session.path)

    def _address(self, name: str, path: str) -> str:
        from actorflow._core.base.addresses import TcpAddress

        return f"{TcpAddress(self._config.advertised, self._advertised_port, name)},{path}"

    def _tcp(self) -> str:
        host, port = self._config.advertised, self._advertised_port
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def _advertised_port(self) -> int:
        return self._config.advertised_port or self.port

    def _own_address(self, name: str) -> str:
        return self._address(name, f"unix:{self._session.path}/{name}.sock")

    def _at_head(self, name: str) -> str:
        return f"tcp:{self._config.head or self._from_here()}/{name}"

    def _from_here(self) -> str:
        """Where this process reaches its own port."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(self._config.host, self._config.host)
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    def _on_refused(self, error: HandshakeRefused) -> None:
        from actorflow._core.security.errors import Code

        if self._joining is not None and error.code not in (Code.TARGET, Code.BUSY, Code.TIMEOUT):
            # A cut may be the line's, which a node that begins again waits for; the first time it is most likely the wrong port.
            if not (error.cut and self._config.ready_fd < 0):
                self._joining.give_up(error)  # It would be the same the next time.
        elif error.code is Code.FENCED and error.told:
            self._give_up(f"the head has given this node up: {error}")
        elif error.code is Code.CLOCK and self._credentials is not None and self._credentials.ended:
            self._give_up(f"the certificate of this node has ended before the head could be reached again: {error}")

    def _node_ends(self, reason: str) -> None:
        from actorflow._core.node.draining import DRAINED
        from actorflow._core.node.tenancy import GIVEN_UP as UNHEARD

        if reason.startswith(DRAINED):
            self._end_for_good(reason)
        elif reason == UNHEARD:
            self._give_up(reason)
        else:
            self._end(reason)

    def _give_up(self, why: str) -> None:
        if self._node is not None and self._node.last_word:
            # That was heard, so the head does not want it back; only that it was heard was not.
            self._end_for_good(self._node.last_word)
            return
        if not self._code:
            log.error("%s. It ends with all that it runs", why)
            self._code = GIVEN_UP
            self._end(why)

    # -- keys

    def _new_credentials(self, fences: Fences, others: list[Security]) -> tuple[NodeCredentials, Security]:
        from actorflow._core.boot.node_credentials import NodeCredentials
        from actorflow._core.io.cluster_access import security_of
        from actorflow._core.security.keys import Keyring
        from actorflow._core.security.roles import KeyKind, Role

        security = security_of(Role.NODE, self._node_id, Keyring(), KeyKind.NODE)
        security.terms.fences = fences
        return NodeCredentials(self._session.path, [security, *others], fences, tls=self._config.tls), security

    async def _begin_head(self, stack: contextlib.AsyncExitStack) -> None:
        """Have the head beside this node. Raises ClusterStartError."""
        from actorflow._core.boot.head_keeper import HeadKeeper
        from actorflow._core.boot.head_process import HeadProcessConfig

        config, session = self._config, self._session

        def settings(ready_fd: int, go_fd: int, life_fd: int) -> HeadProcessConfig:
            return HeadProcessConfig(
                session.path, config.advertised, self._advertised_port, config.tls, config.credentials, config.certificate_valid_s,
                self._node_id, self._node_address(), config.journal or f"{session.path}/journal", ready_fd, go_fd, life_fd,
            )  # fmt: skip

        self._keeper = HeadKeeper(self._loop, settings, f"{session.logs}/head.log", self._end_for_good)
        stack.push_async_callback(self._keeper.stop)
        await self._keeper.start()

    async def _join(self, stack: contextlib.AsyncExitStack) -> tuple[NodeCredentials, Security]:
        """Be let in by the head."""
        from actorflow._core.io.enrolment import ENROL_TIMEOUT_S, JOIN_AGAIN_TIMEOUT_S, Enrolment
        from actorflow._core.io.tcp_network import ENROLMENT
        from actorflow._core.protocol.session import Identity
        from actorflow._core.security.fences import Fences
        from actorflow._core.security.roles import Role
        from actorflow._core.security.tls import Credentials, client_side
        from actorflow._core.security.wire import Party

        ticket = self._ticket()
        credentials, security = self._new_credentials(Fences(), [])
        security.key = lambda name: ticket.key
        if self._config.tls:
            security.client = client_side(Credentials(ticket.authorities))
        ports = replace(self._ports, network=self._network(security))
        identity = Identity("node", self._node_id, pid=os.getpid())
        timeout_s = JOIN_AGAIN_TIMEOUT_S if self._config.ready_fd < 0 else ENROL_TIMEOUT_S
        desk = Enrolment(ports, identity, self._at_head(ENROLMENT), credentials.keys_changed, timeout_s=timeout_s)
        credentials.issuer = self._joining = desk
        stack.callback(desk.close)
        desk.connect()
        answer, key = await credentials.ask()
        security.terms.me = Party(Role.NODE, self._node_id, answer.incarnation)
        credentials.certified(answer, key)
        # From now on with a key and a certificate of its own.
        self._joining = None
        desk.timeout_s = ENROL_TIMEOUT_S
        desk.close()
        desk.connect()
        return credentials, security

    def _ticket(self) -> Ticket:
        from actorflow._core.boot.join_ticket import ticket_from

        with open(self._config.ticket_fd, "rb") as pipe:
            return ticket_from(pipe.read())

    def _node_address(self) -> str:
        return self._address(self._node_id, self._session.node_address)

    def _settings(self) -> NodeConfig:
        from actorflow._core.boot.node_devices import own_devices
        from actorflow._core.node.config import NodeConfig

        config, session = self._config, self._session
        own = own_devices(config.resources, config.devices)
        return NodeConfig(
            address=self._node_address(),
            head_address=self._at_head("head") if config.head else self._own_address("head"),
            has_lease=bool(config.head),
            info={"head_returns": "yes"},
            resources=own.resources,
            worker_address=lambda worker_id: self._address(worker_id, session.worker_address(worker_id)),
            node_id=self._node_id,
            pid=os.getpid(),
            labels={**own.labels, **config.labels},
            device_ids=own.ids,
            device_types=own.types,
            device_displays=own.displays,
            cancel_grace_s=config.cancel_grace_s,
            memory_threshold=config.memory_threshold,
            log_dir=session.logs,
        )
