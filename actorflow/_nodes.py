"""Nodes as the command line starts and ends them. The way down to `boot`, for callers above the core."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from actorflow._core.base.errors import ClusterStartError, OptionError
from actorflow._core.base.resources import format_bytes, parse_bytes, parse_resources
from actorflow._core.boot.cluster_launch import CANCEL_GRACE_S, DEFAULT_PORT, NodePlan, StartedNode, find_nodes, start_node, stop_nodes
from actorflow._core.boot.node_launch import arena_size, check_simulated_devices, given_devices, local_resources
from actorflow._core.boot.session_dir import SessionDir, SessionInfo, find_all, sweep_stale
from actorflow._core.boot.which_node import node_at, stands_still
from actorflow._core.io.redis_log import check_url, is_url
from actorflow._core.io.spill_target import check_target
from actorflow._core.policy.label_selectors import check_labels
from actorflow._core.policy.memory_watch import THRESHOLD, check_memory_threshold
from actorflow._core.security.authority import CERTIFICATE_VALID_S

__all__ = ["CANCEL_GRACE_S", "DEFAULT_PORT", "THRESHOLD", "Cluster", "StartedNode", "clusters", "find", "forget", "start", "stop", "sweep"]

MEMORY_MIN = 1 << 20


def start(
    *,
    address: str = "",
    host: str = "",
    advertise_host: str = "",
    advertise_port: int = 0,
    port: int | None = None,
    tls: bool = False,
    num_cpus: float | None = None,
    num_gpus: float | None = None,
    memory: int | str | None = None,
    object_store_memory: int | str | None = None,
    object_spilling_directory: str | os.PathLike[str] | None = None,
    resources: Mapping[str, float] | None = None,
    labels: Mapping[str, str] | None = None,
    credentials: str = "",
    journal: str = "",
    token_file: str = "",
    certificate_valid_s: float = CERTIFICATE_VALID_S,
    life_fd: int = -1,
    cancel_grace: float = CANCEL_GRACE_S,
    memory_usage_threshold: float = THRESHOLD,
    drain_deadline: float = 0.0,
) -> StartedNode:
    """Start a node on this host and return when it takes drivers. `address`: HOST:PORT of the first node; empty for a new cluster.

    The options are those of `actorflow start`; of GPUs and TPUs the node has what it finds, but for those whose number is given. `life_fd`:
    the node ends when the other end of this pipe is closed.

    Raises ClusterStartError, CredentialError, OptionError.
    """
    if not 0 <= cancel_grace < float("inf"):
        raise OptionError(f"cancel_grace={cancel_grace!r}: seconds are needed, 0 or more; 0 kills what does not end at once")
    if not 0 <= advertise_port < 1 << 16:
        raise OptionError(f"advertise_port={advertise_port!r}: a port from 1 to 65535 is needed, or 0 for the one that is listened on")
    if port is not None and not 0 <= port < 1 << 16:
        raise OptionError(f"port={port!r}: a port from 1 to 65535 is needed, or 0 for any that is free")
    if journal and address:
        raise OptionError(f"journal={journal!r}: a node that joins has no head, and so no journal; give it to the first node")
    if token_file and not address:
        raise OptionError(f"token_file={token_file!r}: the first node joins nobody; a token is for nodes that do, with --address")
    if not 0 <= drain_deadline < float("inf"):
        raise OptionError(f"drain_deadline={drain_deadline!r}: seconds are needed, 0 or more; 0: it ends at once")
    check_memory_threshold("actorflow start", memory_usage_threshold)
    check_simulated_devices()
    devices = given_devices(num_gpus, resources or {}, "actorflow start")
    own = local_resources(num_cpus, num_gpus, _checked_memory(memory))
    totals = parse_resources(num_cpus=own["CPU"], num_gpus=own["GPU"], memory=int(own["memory"]), resources=dict(resources or {}))
    size = parse_bytes("object_store_memory", object_store_memory) if object_store_memory is not None else None
    spill = check_target("actorflow start", object_spilling_directory)
    if port is None:
        port = 0 if address else DEFAULT_PORT
    sweep_stale()
    checked = check_labels("labels", labels) if labels else {}
    plan = NodePlan(
        totals,
        arena_size(size, "actorflow start"),
        head=address,
        host=host,
        advertised=advertise_host,
        advertised_port=advertise_port,
        port=port,
        tls=tls,
        credentials=credentials,
        journal=_checked_journal(journal),
        token_file=token_file,
        certificate_valid_s=certificate_valid_s,
        cancel_grace_s=cancel_grace,
        memory_threshold=memory_usage_threshold,
        drain_s=drain_deadline,
        labels=checked,
        life_fd=life_fd,
        devices=devices,
        spill=spill,
    )
    return start_node(plan)


def _checked_memory(memory: int | str | None) -> int | None:
    """In bytes; one without a unit is most likely meant in another."""
    size = parse_bytes("memory", memory) if memory is not None else None
    if size is not None and 0 < size < MEMORY_MIN:
        least = format_bytes(MEMORY_MIN)
        raise OptionError(f'memory={memory!r}: that is {format_bytes(size)}, and a node needs {least} or more; write a unit, as in "4GiB"')
    return size


def _checked_journal(where: str) -> str:
    if not is_url(where):
        return os.path.abspath(where) if where else ""
    try:
        check_url(where)
    except ValueError as error:
        raise OptionError(f"the journal's URL: {error}") from None
    if importlib.util.find_spec("redis") is None:
        raise OptionError(f'journal={where!r} needs the package redis: pip install "actorflow[redis]"')
    return where


def stop(pids: Collection[int] | None = None) -> list[SessionInfo]:
    """End the nodes that this user has started on this host, or those with these processes, and return them."""
    return stop_nodes(pids)


def sweep() -> list[str]:
    """Remove what nodes and clusters of this user have left that were killed, and earlier lives of nodes. Returns the directories."""
    return sweep_stale(published=True)


class Cluster(NamedTuple):
    """One that can be joined on this host. `started`: by hand, and not by a program for itself."""

    address: str
    started: bool


def clusters() -> list[Cluster]:
    """Those of this user, the newest first, each by an address of it here: of a node that answers, if it has one (WN-3)."""
    nodes = find_all()
    found: dict[str, Cluster] = {}
    for node in sorted(nodes, key=lambda node: stands_still(node.pid)):
        found.setdefault(_name_of_cluster(node, nodes), Cluster(node.tcp or node.path, bool(node.tcp)))
    return list(found.values())


def _name_of_cluster(node: SessionInfo, nodes: Sequence[SessionInfo]) -> str:
    """Its first node's address: as that itself says, where it is here, as nodes that join may call it by another name."""
    with contextlib.suppress(ClusterStartError):  # A name that does not resolve now.
        if node.head and (first := node_at(node.head, nodes)):
            return first.tcp
    return node.head or node.path


def find(pids: Collection[int]) -> list[SessionInfo]:
    """The nodes with these processes, also those that wait to be let in again."""
    return find_nodes(pids)


def forget(path: str) -> None:
    """Remove what is left of the session directory of a node that is dead."""
    if os.path.exists(path):
        SessionDir(path).remove()
