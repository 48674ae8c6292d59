"""`actorflow start` and `actorflow stop`: the nodes of a cluster on this host."""

from __future__ import annotations

import argparse
from typing import Any

from actorflow import _nodes

DRAIN_DEADLINE_S = 25.0
"""Service managers give a process 30 s or more after SIGTERM, and clouds a machine that they take back."""

def add_commands(commands: Any) -> None:
    """Add them to the parser's commands."""
    start = commands.add_parser("start", help="start a node: the first one of a cluster, or one that joins")
    which = start.add_mutually_exclusive_group(required=True)
    which.add_argument("--head", action="store_true", help="the first node of a new cluster")
    which.add_argument("--address", metavar="HOST:PORT", help="join the cluster whose first node listens there")
    start.add_argument(
        "--host",
        default="",
        help="where to listen (default: 127.0.0.1 with --head, else the address this host reaches the head from). "
        "Beyond loopback there is always TLS",
    )
    start.add_argument("--advertise-host", default="", metavar="HOST", help="where others reach this node, if that is not --host")
    start.add_argument(
        "--advertise-port", type=int, default=0, metavar="PORT", help="the port there, if that is not --port: behind NAT, or a proxy"
    )
    start.add_argument("--tls", action="store_true", help="TLS on loopback too")
    start.add_argument("--port", type=int, help=f"the one port of the node (default: {_nodes.DEFAULT_PORT} with --head, else any)")
    start.add_argument("--num-cpus", type=float, help="default: the CPUs of this host")
    start.add_argument("--num-gpus", type=float, help="default: those that are found; 0 hides them")
    start.add_argument("--memory", help='for example "4GiB" (default: 70 %% of what there is)')
    start.add_argument("--object-store-memory", help="shared memory for large values (default: 30 %% of what there is)")
    start.add_argument(
        "--object-spilling-directory",
        metavar="WHERE",
        help="a directory, or a URI as in s3://bucket/path, for large values that find no room in memory (default: the session directory)",
    )
    start.add_argument("--resource", action="append", default=[], metavar="NAME=AMOUNT", help="a resource of your own; may be repeated")
    start.add_argument("--label", action="append", default=[], metavar="NAME=VALUE", help="for label_selector=; may be repeated")
    start.add_argument(
        "--credentials",
        default="",
        metavar="DIRECTORY",
        help="with the cluster's secret: made by --head if it is not there, and read by a node that joins (default: that of the head here)",
    )
    start.add_argument(
        "--journal",
        default="",
        metavar="WHERE",
        help="with --head: where the head keeps what it knows, for one that is started anew: a directory, or a Redis, as in "
        "redis://HOST:6379/0#NAME (default: in its session, gone with it)",
    )
    start.add_argument("--token-file", default="", metavar="FILE", help="a join token, instead of the secret; or in ACTORFLOW_TOKEN")
    start.add_argument(
        "--cancel-grace",
        type=float,
        default=_nodes.CANCEL_GRACE_S,
        metavar="SECONDS",
        help="how long cancelled code on this node, and what drivers here have cancelled, may go on (default: %(default)g)",
    )
    start.add_argument(
        "--memory-usage-threshold",
        type=float,
        default=_nodes.THRESHOLD,
        metavar="SHARE",
        help="of this machine's memory, above which workers end; 0 leaves that to the system (default: %(default)g)",
    )
    start.add_argument(
        "--drain-deadline",
        type=float,
        default=DRAIN_DEADLINE_S,
        metavar="SECONDS",
        help="how long a node that has joined, and is asked to end by SIGTERM, may take to leave in order; `actorflow stop` ends it at "
        "once (default: %(default)g)",
    )
    start.set_defaults(run=_start)
    stop = commands.add_parser("stop", help="end the nodes that this user has started here, of all clusters, and what runs on them")
    stop.set_defaults(run=_stop)


def _start(options: argparse.Namespace) -> str:
    node = _nodes.start(
        address=options.address or "",
        host=options.host,
        advertise_host=options.advertise_host,
        advertise_port=options.advertise_port,
        port=options.port,
        tls=options.tls,
        num_cpus=options.num_cpus,
        num_gpus=options.num_gpus,
        memory=options.memory,
        object_store_memory=options.object_store_memory,
        object_spilling_directory=options.object_spilling_directory,
        resources=_resources(options.resource),
        labels=_labels(options.label),
        credentials=options.credentials,
        journal=options.journal,
        token_file=options.token_file,
        cancel_grace=options.cancel_grace,
        memory_usage_threshold=options.memory_usage_threshold,
        drain_deadline=options.drain_deadline,
    )
    head = options.address or node.tcp
    return (
        f"node at {node.tcp} (pid {node.pid}), logs in {node.path}/logs\n"
        f"join with:    actorflow start --address {head}\n"
        f'use it with:  af.init(address="{node.tcp}")\n'
        f"end it with:  actorflow stop"
    )


def _stop(options: argparse.Namespace) -> str:
    ended = [f"node at {node.tcp} (pid {node.pid}) has ended" for node in _nodes.stop()] or ["no node of this user runs here"]
    swept = _nodes.sweep()
    if swept:
        ended.append(f"removed what nodes that were killed or had begun again have left: {', '.join(swept)}")
    return "\n".join(ended)


def _labels(texts: list[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    for name, equals, _ in pairs:
        if not equals:
            raise ValueError(f"--label {name}: expected NAME=VALUE, for example --label zone=a")
    _check_once("--label", [name for name, _, _ in pairs])
    return {name: value for name, _, value in pairs}


def _resources(texts: list[str]) -> dict[str, float]:
    amounts: list[tuple[str, float]] = []
    for text in texts:
        name, equals, amount = text.partition("=")
        try:
            amounts.append((name, float(amount)))
        except ValueError:
            equals = ""
        if not equals or not name:
            raise ValueError(f"--resource {text}: expected NAME=AMOUNT, for example --resource disk=4")
    _check_once("--resource", [name for name, _ in amounts])
    return dict(amounts)


def _check_once(option: str, names: list[str]) -> None:
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise ValueError(f"{option} {twice[0]}=... is given {names.count(twice[0])} times: a node has one value for each name")
