"""Starting and ending the nodes of a cluster: what `actorflow start` and `actorflow stop` do."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from actorflow._core.base.errors import ClusterStartError
from actorflow._core.boot import join_ticket
from actorflow._core.boot.cluster_node import CANNOT_START, STOP, ClusterNodeConfig
from actorflow._core.boot.node_place import Place, place_of
from actorflow._core.boot.session_dir import SessionDir, SessionInfo, create_session_dir, find_all
from actorflow._core.boot.which_node import node_at
from actorflow._core.io.redis_log import is_url
from actorflow._core.policy.memory_watch import THRESHOLD
from actorflow._core.security.authority import CERTIFICATE_VALID_S
from actorflow._core.security.credential_files import (
    TOKEN_FILE_VARIABLE,
    TOKEN_VARIABLE,
    CredentialDir,
    load_token,
    secrets_in,
    without_secrets,
)
from actorflow._core.security.roles import KeyKind

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0
KILL_TIMEOUT_S = 5.0
"""How long a node that was killed may take: only one stuck in the kernel takes time."""
DEFAULT_PORT = 6380
CANCEL_GRACE_S = 5.0


@dataclass(frozen=True, slots=True)
class NodePlan:
    """A node that is to be started. `head`: HOST:PORT of the node with the head, empty to have it itself. Resources in units."""

    resources: Mapping[str, int]
    arena_bytes: int
    head: str = ""
    host: str = ""
    """Where to listen; empty: loopback for the first node, for others the address that they reach the head from."""
    advertised: str = ""
    """Where other nodes reach it; empty: `host`, or if that is any address, the one that leads to the others."""
    port: int = 0
    advertised_port: int = 0
    """The port that other nodes reach it at, which leads to `port`; 0: `port` itself."""
    tls: bool = False
    """TLS on loopback too. Between hosts there always is."""
    credentials: str = ""
    """The directory with the cluster's secret. A new cluster makes it; empty: in its session. For a node that joins see `token_file`."""
    journal: str = ""
    """The directory of what the head knows, or the URL of a Redis, of the node that has it; empty: in its session."""
    token_file: str = ""
    """The file with a join token. Without it and `credentials`, a node that joins uses what is in the environment, else the directory of
    the head on this host."""
    certificate_valid_s: float = CERTIFICATE_VALID_S
    labels: Mapping[str, str] = field(default_factory=dict)
    life_fd: int = -1
    """The reading end of a pipe whose other end its starter holds: when that one is gone the node ends. -1: it lives until it is told."""
    cancel_grace_s: float = CANCEL_GRACE_S
    memory_threshold: float = THRESHOLD
    drain_s: float = 0.0
    devices: dict[str, int] | None = None
    spill: str = ""
    """All three as in ClusterNodeConfig."""


@dataclass(frozen=True, slots=True)
class StartedNode:
    """A node that runs. `tcp`: its host:port. `credentials`: the directory with the secret, of the node with the head."""

    path: str
    pid: int
    tcp: str
    credentials: str
    tls: bool


class _Keys(NamedTuple):
    """What a node goes by at its start: the directory of the head, or what a node joins with."""

    directory: str
    ticket: bytes
    tls: bool


def start_node(plan: NodePlan) -> StartedNode:
    """Start a node process of its own and wait until it is ready. Raises ClusterStartError, CredentialError."""
    place = place_of(plan.host, plan.advertised, plan.head)
    session = create_session_dir(os.urandom(6).hex())
    with contextlib.ExitStack() as undo:
        undo.callback(session.remove)
        keys = _to_join(plan, place) if plan.head else _to_lead(plan, place, session, undo)
        started = _start(plan, place, keys, session)
        undo.pop_all()
        return started


def _start(plan: NodePlan, place: Place, keys: _Keys, session: SessionDir) -> StartedNode:
    ready_fd, write_fd = os.pipe()
    ticket_fd, ticket_write_fd = os.pipe()
    config = ClusterNodeConfig(
        session_dir=session.path,
        host=place.host,
        advertised=place.advertised,
        port=plan.port,
        advertised_port=plan.advertised_port,
        head=plan.head,
        tls=keys.tls,
        credentials=keys.directory,
        certificate_valid_s=plan.certificate_valid_s,
        resources=dict(plan.resources),
        arena_bytes=plan.arena_bytes,
        ready_fd=write_fd,
        ticket_fd=ticket_fd,
        labels=dict(plan.labels),
        life_fd=plan.life_fd,
        cancel_grace_s=plan.cancel_grace_s,
        memory_threshold=plan.memory_threshold,
        devices=plan.devices,
        spill=plan.spill,
        journal=plan.journal,
        drain_s=plan.drain_s,
    )
    log_path = f"{session.logs}/node.log"
    try:
        os.write(ticket_write_fd, keys.ticket)  # A pipe has room for more than a ticket.
        os.close(ticket_write_fd)
        with open(log_path, "ab") as log_file:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "actorflow._core.boot.node_main", "cluster", config.to_json()],
                stdin=subprocess.DEVNULL,
                stdout=log_file,
                stderr=log_file,
                pass_fds=[write_fd, ticket_fd, *([plan.life_fd] if plan.life_fd >= 0 else [])],
                start_new_session=True,
                # Workers have the environment of the node: no secret in it.
                env={**without_secrets(os.environ), "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)},
            )
    finally:
        os.close(write_fd)
        os.close(ticket_fd)
    try:
        port = _hear(ready_fd)
    finally:
        os.close(ready_fd)
    if port:
        process.returncode = 0  # It lives on without us: no warning that it was not waited for.
        tcp = f"{_bracketed(place.advertised)}:{plan.advertised_port or port}"
        return StartedNode(session.path, process.pid, tcp, keys.directory, keys.tls)
    process.kill()
    process.wait()
    with open(log_path, errors="replace") as log_file:
        tail = log_file.read()[-4000:].strip()
    _, told, why = tail.rpartition(CANNOT_START)
    if told:
        raise ClusterStartError(f"the node cannot start: {why}")
    what = f"was not ready within {START_TIMEOUT_S:g} s" if port is None else "ended before it was ready"
    raise ClusterStartError(f"the node {what}; its log ends with:\n{tail}")


def _hear(ready_fd: int) -> str | None:
    """The node's port; empty when it has ended, None when it has said nothing in time."""
    if not select.select([ready_fd], [], [], START_TIMEOUT_S)[0]:
        return None
    return os.read(ready_fd, 16).decode()


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _to_lead(plan: NodePlan, place: Place, session: SessionDir, undo: contextlib.ExitStack) -> _Keys:
    """For the node with the head: its directory, which is made for a new cluster, and with `undo` removed where that does not begin."""
    directory = CredentialDir(os.path.abspath(plan.credentials) if plan.credentials else f"{session.path}/credentials")
    if not directory.exists():
        if not is_url(plan.journal):  # A Redis may have by then what only these keys can read.
            undo.callback(directory.remove, directory.files())
        directory.create(session.session_id, wall_time=time.time(), secrets=secrets_in(os.environ))
    tls = plan.tls or place.wide
    if tls and not os.path.exists(directory.authority_key):
        raise ClusterStartError.explain(
            which=f"the head at {place.host}",
            what="cannot speak TLS, and without it will not listen where other hosts may reach it",
            why=f"{directory.path} has a secret and no authority to sign certificates (authority.key)",
            next_step="use the directory that was made when the cluster was created, or choose an empty one for a new cluster",
        )
    return _Keys(directory.path, join_ticket.of_directory(directory.path, tls=tls), tls)


def _to_join(plan: NodePlan, place: Place) -> _Keys:
    """For a node that joins: what was named, else what the environment has, else what the head on this host has."""
    environ = os.environ
    beside = node_at(plan.head, find_all())
    if beside is not None and not beside.credentials:
        raise ClusterStartError.explain(
            which=plan.head,
            what="cannot be joined",
            why="the node there is not the first one of its cluster, which has the head",
            next_step=f"give the address of that one: --address {beside.head}",
        )
    tls = plan.tls or place.wide or (beside is not None and bool(beside.tls))
    if plan.token_file:
        return _Keys("", join_ticket.of_token(load_token(KeyKind.JOIN, plan.token_file, {})), tls)
    if plan.credentials:
        return _Keys("", join_ticket.of_directory(os.path.abspath(plan.credentials), tls=tls), tls)
    if TOKEN_VARIABLE in environ or TOKEN_FILE_VARIABLE in environ:
        return _Keys("", join_ticket.of_token(load_token(KeyKind.JOIN, environ.get(TOKEN_FILE_VARIABLE), environ)), tls)
    secrets = secrets_in(environ)  # Also where the one beside is better: one that is wrong is not passed over.
    if beside is not None:
        return _Keys("", join_ticket.of_directory(beside.credentials, tls=tls), tls)
    if secrets is not None and not tls:
        return _Keys("", join_ticket.of_secret(secrets), tls)
    why = "no head of this user on this host listens there, so its secret is not known"
    if secrets is not None:
        why = "ACTORFLOW_SECRET does not say whom to trust under TLS, which the certificate of the cluster's authority does"
    raise ClusterStartError.explain(
        which=plan.head,
        what="cannot be joined",
        why=why,
        next_step="start the head first, or give a join token (`actorflow token join` at the head, then --token-file here or "
        "ACTORFLOW_TOKEN), or a directory with the files secret and authority.pem of the head (--credentials)",
    )


def find_nodes(pids: Collection[int] | None = None) -> list[SessionInfo]:
    """The nodes that this user has started on this host with `start_node`, also those that wait to be let in again.

    `pids`: only those with these processes. A node that begins again has another directory, and is the same process.
    """
    return [node for node in find_all(joining=True) if node.tcp and (pids is None or node.pid in pids)]


def stop_nodes(pids: Collection[int] | None = None) -> list[SessionInfo]:
    """End nodes as `find_nodes` has them, and wait for it. Returns them."""
    nodes = find_nodes(pids)
    with contextlib.ExitStack() as stack:
        ends = [(node, pidfd) for node in nodes if (pidfd := _watched(node.pid, stack)) is not None]
        for _, pidfd in ends:
            _signal(pidfd, STOP)
        give_up_at = time.monotonic() + STOP_TIMEOUT_S
        for node, pidfd in ends:
            if not _ends(pidfd, max(0.0, give_up_at - time.monotonic())):
                _signal(pidfd, signal.SIGKILL)
                _ends(pidfd, KILL_TIMEOUT_S)
            if os.path.exists(node.path):
                SessionDir(node.path).remove()  # It was killed, or had begun to end for another reason.
    return nodes


def _watched(pid: int, stack: contextlib.ExitStack) -> int | None:
    """A descriptor of this process, readable at its end: the number alone may be another process's by then. None: it is gone."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    stack.callback(os.close, pidfd)
    return pidfd


def _ends(pidfd: int, timeout_s: float) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(timeout_s * 1e3))


def _signal(pidfd: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # It has ended, and whoever started it knows.
        signal.pidfd_send_signal(pidfd, number)
