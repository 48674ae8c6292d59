"""Starting and ending the nodes of a cluster: what `actorflow start` and `actorflow stop` do."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from actorflow._core.base.errors import ClusterStartError
from actorflow._core.boot.cluster_node import ClusterNodeConfig
from actorflow._core.boot.session_dir import SessionDir, SessionInfo, create_session_dir, find_all

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0
DEFAULT_PORT = 6380


@dataclass(frozen=True, slots=True)
class NodePlan:
    """A node that is to be started. `head`: HOST:PORT of the node with the head, empty to have it itself. Resources in units."""

    resources: Mapping[str, int]
    arena_bytes: int
    head: str = ""
    host: str = "127.0.0.1"
    port: int = 0
    credentials: str = ""
    """The directory with the cluster's secret; empty: a new cluster makes one, and a joining node finds that of the head on this host."""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StartedNode:
    """A node that runs. `tcp`: its host:port."""

    path: str
    pid: int
    tcp: str
    credentials: str


def start_node(plan: NodePlan) -> StartedNode:
    """Start a node process of its own and wait until it is ready. Raises ClusterStartError, CredentialError."""
    session = create_session_dir(os.urandom(6).hex())
    try:
        return _start(plan, session)
    except BaseException:
        session.remove()
        raise


def _start(plan: NodePlan, session: SessionDir) -> StartedNode:
    credentials = _credentials(plan, session)
    ready_fd, write_fd = os.pipe()
    config = ClusterNodeConfig(
        session_dir=session.path,
        host=plan.host,
        port=plan.port,
        head=f"tcp:{plan.head}/head" if plan.head else "",
        credentials=credentials,
        resources=dict(plan.resources),
        arena_bytes=plan.arena_bytes,
        ready_fd=write_fd,
        labels=dict(plan.labels),
    )
    log_path = f"{session.logs}/node.log"
    try:
        with open(log_path, "ab") as log_file:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "actorflow._core.boot.node_main", "cluster", config.to_json()],
                stdin=subprocess.DEVNULL,
                stdout=log_file,
                stderr=log_file,
                pass_fds=[write_fd],
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)},
            )
    finally:
        os.close(write_fd)
    try:
        port = _hear(ready_fd)
    finally:
        os.close(ready_fd)
    if port:
        process.returncode = 0  # It lives on without us: no warning that it was not waited for.
        return StartedNode(session.path, process.pid, f"{plan.host}:{port}", credentials)
    process.kill()
    process.wait()
    with open(log_path, errors="replace") as log_file:
        tail = log_file.read()[-4000:].strip()
    raise ClusterStartError(f"the node did not start within {START_TIMEOUT_S:g} s or ended before it was ready; its log ends with:\n{tail}")


def _hear(ready_fd: int) -> str:
    if not select.select([ready_fd], [], [], START_TIMEOUT_S)[0]:
        return ""
    return os.read(ready_fd, 16).decode()


def _credentials(plan: NodePlan, session: SessionDir) -> str:
    """The directory with the secret: that of the plan, else made for a new cluster, else that of the head on this host."""
    if plan.credentials:
        return os.path.abspath(plan.credentials)
    if plan.head:
        for node in find_all():
            if node.tcp == plan.head:
                return node.credentials
        raise ClusterStartError.explain(
            which=plan.head,
            what="cannot be joined",
            why="no node of this user on this host listens there, so its secret is not known",
            next_step="start the head first, or give the directory with the secret (--credentials)",
        )
    from actorflow._core.security.credential_files import CredentialDir

    directory = f"{session.path}/credentials"
    CredentialDir(directory).create(session.session_id, wall_time=time.time())
    return directory


def stop_nodes() -> list[SessionInfo]:
    """End the nodes that this user has started on this host with `start_node`, and wait for it. Returns them."""
    nodes = [node for node in find_all() if node.tcp]
    for node in nodes:
        _signal(node.pid, signal.SIGTERM)
    give_up_at = time.monotonic() + STOP_TIMEOUT_S
    for node in nodes:
        while os.path.exists(node.path) and time.monotonic() < give_up_at:
            time.sleep(0.02)
        if os.path.exists(node.path):
            _signal(node.pid, signal.SIGKILL)
    return nodes


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
