"""`actorflow status`: what a cluster is and has, in lines that fit on a screen or two."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import actorflow as af
from actorflow._lifecycle import look
from actorflow.cli import which

NODES_MAX = 50
"""How many nodes are listed."""
ROWS_MAX = 20
"""How many of each other kind, the living first."""


def add_commands(commands: Any) -> None:
    """Add it to the parser's commands."""
    status = commands.add_parser("status", help="show the cluster of this user on this host")
    status.add_argument("--address", default=which.AUTO, help="the cluster's address (default: the one on this host)")
    status.set_defaults(run=lambda options: asyncio.run(_status(which.newest(options.address))))


async def _status(address: str) -> str:
    async with look(address):
        resources = await af.state.list_resources()
        workers = await af.state.list_workers()
        actors = await af.state.list_actors()
        jobs = await af.state.list_jobs()
        groups = await af.state.list_placement_groups()
        nodes = await af.state.list_nodes()
    lines = [f"nodes: {_count(nodes, 'state')}"]
    lines += _listed(nodes, _node, NODES_MAX, "list_nodes")
    lines.append("resources")
    totals: dict[str, dict[str, Any]] = {}
    for row in resources:
        total = totals.setdefault(row["resource"], {"resource": row["resource"], "free": 0.0, "total": 0.0})
        total["free"] += row["free"]
        total["total"] += row["total"]
    lines += [f"  {row['resource']}: {_amount(row, 'free')} free of {_amount(row, 'total')}" for row in totals.values()]
    lines.append(f"workers: {_count(workers, 'state')}")
    lines.append(f"actors: {_count(actors, 'state')}")
    lines += _listed(actors, _actor, ROWS_MAX, "list_actors")
    if groups:
        lines.append(f"placement groups: {_count(groups, 'state')}")
        lines += _listed([row for row in groups if row["state"] != "removed"], _group, ROWS_MAX, "list_placement_groups")
    lines.append(f"jobs: {_count(jobs, 'state')}")
    return "\n".join(lines)


def _listed(rows: Sequence[Any], text: Callable[[Any], str], most: int, function: str) -> list[str]:
    """A line for each of the first rows, and how many more there are."""
    lines = [f"  {text(row)}" for row in rows[:most]]
    if (more := len(rows) - most) > 0:
        lines.append(f"  ... and {more} more: af.state.{function}() has all")
    return lines


def _actor(row: Any) -> str:
    return f"{row['class_name']}(af-actor-{row['actor_id'][:6]}) {row['state']} {row['name']}".rstrip()


def _node(row: Any) -> str:
    address = row["address"].partition(",")[0].removeprefix("tcp:").partition("/")[0]
    where = "" if address.startswith("unix:") else address
    return " ".join(filter(None, (row["node_id"], row["state"], where, row["reason"].partition("\n")[0])))


def _group(row: Any) -> str:
    where = f"on {len(set(filter(None, row['nodes'])))} nodes" if row["state"] == "created" else row["reason"]
    return f"{row['group_id']} {row['name']}".rstrip() + f" {row['strategy']} of {len(row['bundles'])} {row['state']} {where}".rstrip()


def _amount(row: Any, column: str) -> str:
    value: float = row[column]
    return f"{value / 2**30:.1f} GiB" if row["resource"] == "memory" else f"{value:g}"


def _count(rows: Sequence[Any], column: str) -> str:
    counts: dict[str, int] = {}
    for row in rows:
        counts[row[column]] = counts.get(row[column], 0) + 1
    return ", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "none"
