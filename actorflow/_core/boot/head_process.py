"""The head's process, of a cluster of several nodes: beside the first node, which starts it, and starts it again when it ends.

It has no port of its own: the node hands over the connections that name the head or the enrolment desk, as it does for every process on its
host. What the head knows is in a journal, so that the next life knows it too. It ends with its node.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from actorflow._core.io.gateway import Take
    from actorflow._core.io.ports import Network
    from actorflow._core.io.state_log import StateLog
    from actorflow._core.io.tcp_handshake import Security

log = logging.getLogger("actorflow")

READY = b"ready"
GO = b"g"
MODULES = (
    "actorflow._core.boot.cluster_head",
    "actorflow._core.boot.node_credentials",
    "actorflow._core.head.groups",
    "actorflow._core.head.ledger",
    "actorflow._core.head.returning",
    "actorflow._core.head.supervision",
    "actorflow._core.head.watch",
    "actorflow._core.io.cluster_access",
    "actorflow._core.io.files",
    "actorflow._core.io.journal",
    "actorflow._core.io.real",
)
"""Imported while it waits for its time."""
REDIS_MODULES = ("actorflow._core.io.redis_log", "actorflow._core.io.redis_server")
"""Those too when its journal is in a Redis."""
CANNOT_START = "the head cannot start: "
"""What follows in its log is for whoever starts it."""
UNUSABLE = 4
"""The exit code of a head that cannot go on with what is on its disk: to start it again is of no use."""


class JournalAwayError(Exception):
    """The journal cannot be had now; later it may be."""


class HeadProcessConfig(NamedTuple):
    """One argument, as JSON. A byte comes through `go_fd` when its time has come, and `ready_fd` is told when it listens; `life_fd` is at
    its end when the node is gone.

    `advertised`: host and port of the node, where others reach the head too. `journal`: the directory of what it knows, or a Redis' URL.
    """

    session_dir: str
    advertised: str
    port: int
    tls: bool
    credentials: str
    certificate_valid_s: float
    node_id: str
    node_address: str
    journal: str
    ready_fd: int
    go_fd: int
    life_fd: int

    def to_json(self) -> str:
        """For the command line."""
        return json.dumps(self._asdict())


def run(config: HeadProcessConfig) -> int:
    """Run the process. Returns the exit code."""
    from actorflow._core.boot.process_title import set_process_title
    from actorflow._core.io.loops import new_loop
    from actorflow._core.io.redis_log import LogTakenError, is_url
    from actorflow._core.protocol.journal_format import JournalDamagedError, JournalSchemaError

    for name in (*MODULES, *(REDIS_MODULES if is_url(config.journal) else ())):
        importlib.import_module(name)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    gc.freeze()
    gc.enable()
    set_process_title("actorflow-spare-head")
    if os.read(config.go_fd, 1) != GO:
        return 0  # Its node is gone, or needs it no more.
    os.close(config.go_fd)
    set_process_title("actorflow-head")
    loop = new_loop()
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(_serve(config, loop))
    except (JournalDamagedError, JournalSchemaError, BlockingIOError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        log.error("%sits journal in %s: %s", CANNOT_START, config.journal, why)
        return UNUSABLE
    except LogTakenError as error:
        log.error("%s%s", CANNOT_START, error)
        return UNUSABLE
    except JournalAwayError as error:
        log.error("%s%s", CANNOT_START, error)
        return 1
    finally:
        loop.close()
    return 0


async def _serve(config: HeadProcessConfig, loop: asyncio.AbstractEventLoop) -> None:
    from actorflow._core.base.addresses import TcpAddress
    from actorflow._core.base.ids import new_id
    from actorflow._core.boot.cluster_head import ClusterHead
    from actorflow._core.boot.node_credentials import NodeCredentials
    from actorflow._core.io.real import real_ports
    from actorflow._core.security.credential_files import CredentialDir

    ended: asyncio.Future[None] = loop.create_future()

    def end() -> None:
        if not ended.done():
            ended.set_result(None)

    def node_gone() -> None:
        loop.remove_reader(config.life_fd)
        end()

    def address(name: str) -> str:
        return f"{TcpAddress(config.advertised, config.port, name)},unix:{config.session_dir}/{name}.sock"

    loop.add_signal_handler(signal.SIGTERM, end)
    loop.add_reader(config.life_fd, node_gone)
    ports = real_ports(loop, lock=False)
    async with contextlib.AsyncExitStack() as stack:
        memory = await _open_log(config, ended, stack)
        stack.push_async_callback(memory.close)
        directory = CredentialDir(config.credentials)
        lead = ClusterHead(new_id(ports.rng), directory, tls=config.tls, certificate_valid_s=config.certificate_valid_s)
        lead.prepare(ports, _network_maker(config, loop), address, config.node_address, os.getpid(), memory)
        credentials = NodeCredentials(config.session_dir, lead.securities, lead.fences, tls=config.tls)
        credentials.issuer = lead
        stack.callback(credentials.close)
        await credentials.certify()
        credentials.keep_valid()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{config.session_dir}/head.sock")  # Of an earlier life that was killed.
        await lead.start()
        stack.push_async_callback(lead.stop)
        lead.watch()
        os.write(config.ready_fd, READY)
        os.close(config.ready_fd)
        await ended


async def _open_log(config: HeadProcessConfig, ended: asyncio.Future[None], stack: contextlib.AsyncExitStack) -> StateLog:
    """What the lives of this head know."""
    from actorflow._core.io.files import RealFiles
    from actorflow._core.io.journal import Journal
    from actorflow._core.io.redis_log import PASSWORD_FILE_VARIABLE, LogTakenError, RedisLog, is_url

    if not is_url(config.journal):
        try:
            files = RealFiles(config.journal)
        except BlockingIOError:
            raise
        except OSError as error:
            why = "it is a file" if isinstance(error, FileExistsError) else error.strerror
            advice = "give a directory that this user may make and write to"
            raise JournalAwayError(f"its journal cannot be in {config.journal}: {why}; {advice}") from None
        stack.callback(files.close)
        return await Journal.open(files)

    from actorflow._core.io.redis_server import RealRedis
    from actorflow._core.security.credential_files import CredentialDir
    from actorflow._core.security.seal import Seal

    def taken(reason: str) -> None:
        if not ended.done():
            ended.set_exception(LogTakenError(reason))

    seal = Seal(CredentialDir(config.credentials).load_authority().state_key())
    password_file = os.environ.get(PASSWORD_FILE_VARIABLE, "")
    try:
        server = RealRedis(config.journal, seal, password_file)
    except OSError as error:
        why = f"{PASSWORD_FILE_VARIABLE}={password_file}: {error.strerror}; it should name the file with the password"
        raise JournalAwayError(why) from None
    try:
        return await RedisLog.open(server, config.node_id, taken)
    except BaseException as error:
        await server.close()
        if isinstance(error, OSError) and not isinstance(error, BlockingIOError):
            raise JournalAwayError(f"its journal is in {config.journal}, and that says: {error}") from error
        raise


def _network_maker(config: HeadProcessConfig, loop: asyncio.AbstractEventLoop) -> Callable[[Security], Network]:
    from actorflow._core.io.cluster_access import handover_path
    from actorflow._core.io.handover import HandoverClient
    from actorflow._core.io.sockets import UnixNetwork
    from actorflow._core.io.tcp_network import ClusterNetwork, TcpNetwork

    async def register(name: str, take: Take) -> Callable[[], object]:
        return await HandoverClient.register(loop, handover_path(config.session_dir), name, take)

    def network(security: Security) -> Network:
        return ClusterNetwork(UnixNetwork(loop), TcpNetwork(loop, security, register), config.session_dir)

    return network


def main(config: str) -> int:
    """As `node_main` calls it."""
    return run(HeadProcessConfig(**json.loads(config)))


def command(config: HeadProcessConfig) -> list[str]:
    """How the process is started."""
    return [sys.executable, "-P", "-m", "actorflow._core.boot.node_main", "head", config.to_json()]
