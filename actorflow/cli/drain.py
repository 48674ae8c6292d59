"""`actorflow drain`: a node leaves its cluster in order."""

from __future__ import annotations

import argparse
import asyncio
import getpass
from typing import Any

import actorflow as af
from actorflow._lifecycle import look
from actorflow.cli import which

DEADLINE_S = 60.0
LOOK_S = 0.25
GRACE_S = 10.0
"""After its deadline a node ends with all that still runs there; so long may that take."""


def add_commands(commands: Any) -> None:
    """Add it to the parser's commands."""
    drain = commands.add_parser("drain", help="have a node leave the cluster in order: work ends or moves, then it is gone")
    drain.add_argument("node", metavar="NODE", help="its id, or the beginning of it; `actorflow status` lists them")
    drain.add_argument(
        "--deadline", type=float, default=DEADLINE_S, metavar="SECONDS", help="then it leaves, whatever still runs (default: %(default)g)"
    )
    drain.add_argument("--reason", default="", help="what others are told")
    drain.add_argument("--address", default=which.AUTO, help="the cluster's address (default: the one on this host)")
    drain.add_argument("--no-wait", action="store_true", help="return when it has begun")
    drain.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> str:
    begun: list[str] = []
    try:
        return asyncio.run(_drain(options, which.the_one(options.address), begun))
    except KeyboardInterrupt:
        if begun:
            raise KeyboardInterrupt(f"node {begun[0]} goes on draining; `actorflow status` shows it until it has left") from None
        raise


async def _drain(options: argparse.Namespace, address: str, begun: list[str]) -> str:
    """`begun` is told the node that drains."""
    reason = options.reason or f"`actorflow drain` by {getpass.getuser()}"
    async with look(address):
        node_id = await af.drain_node(options.node, deadline=options.deadline, reason=reason)
        begun.append(node_id)
        if options.no_wait:
            return f"node {node_id} drains, for up to {options.deadline:g} s"
        try:
            async with asyncio.timeout(options.deadline + GRACE_S):
                while True:
                    row = await _row(node_id)
                    if row is None or row["state"] == "lost":
                        break
                    await asyncio.sleep(LOOK_S)
        except af.ClusterConnectionError:
            row = None  # It was the one through which we looked.
    return f"node {node_id} has left" + (f": {row['reason']}" if row is not None else "")


async def _row(node_id: str) -> Any:
    return next((row for row in await af.state.list_nodes() if row["node_id"] == node_id), None)
