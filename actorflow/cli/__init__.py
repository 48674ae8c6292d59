"""The command line: `actorflow start`, `stop`, `status`, `drain`, `token` and `secret`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import actorflow as af
from actorflow._lifecycle import look
from actorflow.cli import drain, nodes, security

NODES_MAX = 50
"""How many nodes `status` lists."""


class _Parser(argparse.ArgumentParser):
    """Where an option is unknown and another one is missing, argparse says only what is missing: of a misspelt one that misleads.

    The parsers of the commands are of this class too.
    """

    _given: Sequence[str] = ()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As in the base."""
        self._given = sys.argv[1:] if args is None else args
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Print `message`, and what is unknown, and exit with 2."""
        unknown = [word for word in self._given if word[:2] == "--" and word[2:] and not self._may_know(word.partition("=")[0])]
        if unknown and "required" in message:
            message = f"unrecognized arguments: {' '.join(unknown)}; {message}"
        super().error(message)

    def _may_know(self, option: str) -> bool:
        return any(known.startswith(option) for known in self._option_string_actions)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Returns the exit code: 0, 1 for an error of the cluster's, 2 for wrong arguments."""
    parser = _Parser(prog="actorflow", description="actorflow: asyncio-native actors and tasks")
    parser.add_argument("--version", action="version", version=f"actorflow {af.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    status = commands.add_parser("status", help="show the cluster of this user on this host")
    status.add_argument("--address", default="auto", help="the cluster's address (default: the one on this host)")
    status.set_defaults(run=lambda options: asyncio.run(_status(options.address)))
    nodes.add_commands(commands)
    drain.add_commands(commands)
    security.add_commands(commands)
    options = parser.parse_args(arguments)
    try:
        print(options.run(options))
    except (af.ActorflowError, ValueError) as error:
        print(f"actorflow {options.command}: {error}", file=sys.stderr)
        return 1
    return 0


async def _status(address: str) -> str:
    async with look(address):
        resources = await af.state.list_resources()
        workers = await af.state.list_workers()
        actors = await af.state.list_actors()
        jobs = await af.state.list_jobs()
        groups = await af.state.list_placement_groups()
        nodes_ = await af.state.list_nodes()
    lines = [f"nodes: {_count(nodes_, 'state')}"]
    lines += [f"  {_node(row)}" for row in nodes_[:NODES_MAX]]
    lines.append("resources")
    totals: dict[str, dict[str, Any]] = {}
    for row in resources:
        total = totals.setdefault(row["resource"], {"resource": row["resource"], "free": 0.0, "total": 0.0})
        total["free"] += row["free"]
        total["total"] += row["total"]
    lines += [f"  {row['resource']}: {_amount(row, 'free')} free of {_amount(row, 'total')}" for row in totals.values()]
    lines.append(f"workers: {_count(workers, 'state')}")
    lines.append(f"actors: {_count(actors, 'state')}")
    lines += [f"  {row['class_name']}(af-actor-{row['actor_id'][:6]}) {row['state']} {row['name']}".rstrip() for row in actors[:20]]
    if groups:
        lines.append(f"placement groups: {_count(groups, 'state')}")
        lines += [f"  {_group(row)}" for row in groups if row["state"] != "removed"][:20]
    lines.append(f"jobs: {_count(jobs, 'state')}")
    return "\n".join(lines)


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
