"""Looking at a running cluster: rows of nodes, actors, tasks, objects, workers and jobs.

    for row in await af.state.list_actors():
        print(row["class_name"], row["state"], row["story"])

Every function returns a list of dicts; the columns of each kind are in the TypedDicts of the same name. The processes are asked when you
ask: nothing is collected while nobody looks. Who does not answer within `timeout` seconds is named in a warning, and left out.
"""

from __future__ import annotations

from typing import Any, cast

import msgspec

from actorflow import _runtime
from actorflow._core.base.state_rows import (
    ActorRow,
    EventRow,
    JobRow,
    LeaseRow,
    NodeRow,
    ObjectRow,
    PlacementGroupRow,
    ResourceRow,
    TaskRow,
    WorkerRow,
)

__all__ = [
    "ActorRow", "EventRow", "JobRow", "LeaseRow", "NodeRow", "ObjectRow", "PlacementGroupRow", "ResourceRow", "TaskRow", "WorkerRow",
    "available_resources", "cluster_resources", "list_actors", "list_jobs", "list_leases", "list_nodes", "list_objects",
    "list_placement_groups", "list_resources", "list_tasks", "list_workers", "nodes", "timeline",
]  # fmt: skip

LIMIT = 10_000
TIMEOUT_S = 5.0


async def _rows(kind: str, limit: int, timeout: float) -> list[Any]:
    if limit < 1:
        raise ValueError(f"af.state: limit={limit}; at least 1 row must be asked for")
    return await _runtime.current().state(kind, limit=limit, timeout_s=timeout)


async def list_nodes(*, limit: int = LIMIT, timeout: float = TIMEOUT_S) -> list[NodeRow]:
    """The nodes of the cluster."""
    return await _rows("nodes", limit, timeout)


async def list_jobs(*, limit: int = LIMIT, timeout: float = TIMEOUT_S) -> list[JobRow]:
    """The programs (drivers) that use the cluster, the ended ones too."""
    return await _rows("jobs", limit, timeout)


async def list_actors(*, limit: int = LIMIT, timeout: float = TIMEOUT_S) -> list[ActorRow]:
    """Actors, the dead ones with the cause, each with its story."""
    return await _rows("actors", limit, timeout)


async def list_tasks(*, limit: int = LIMIT, timeout: float = TIMEOUT_S) -> list[TaskRow]:
    """Calls of functions and methods: those under way, and the last ones that each worker ran."""
    return await _rows("tasks", limit, timeout)


async def list_objects(*, limit: int = LIMIT, timeout: float = TIMEOUT_S) -> list[ObjectRow]:
    """Objects that somebody refers to."""
    return await _rows("objects", limit, timeout)


async def list_workers(*, limit: int = LIMIT, timeout: float = TIMEOUT_S) -> list[WorkerRow]:
    """Worker processes."""
    return await _rows("workers", limit, timeout)


async def list_leases(*, limit: int = LIMIT, timeout: float = TIMEOUT_S) -> list[LeaseRow]:
    """Who may push tasks to which worker, and who waits for one."""
    return await _rows("leases", limit, timeout)


async def list_placement_groups(*, limit: int = LIMIT, timeout: float = TIMEOUT_S) -> list[PlacementGroupRow]:
    """Placement groups and where their bundles are; those that wait with the reason, the removed too."""
    return await _rows("placement_groups", limit, timeout)


async def list_resources(*, limit: int = LIMIT, timeout: float = TIMEOUT_S) -> list[ResourceRow]:
    """Each resource of each node: its total, what is free and what waits for it."""
    return await _rows("resources", limit, timeout)


async def nodes() -> list[NodeRow]:
    """The nodes of the cluster that are alive."""
    return [row for row in await list_nodes() if row["state"] == "alive"]


async def cluster_resources() -> dict[str, float]:
    """What all nodes have together, by resource: {"CPU": 2.0, "memory": ...}. Memory in bytes."""
    return _sum(await list_resources(), "total")


async def available_resources() -> dict[str, float]:
    """What of it is free now."""
    return _sum(await list_resources(), "free")


def _sum(rows: list[ResourceRow], column: str) -> dict[str, float]:
    sums: dict[str, float] = {}
    for row in rows:
        sums[row["resource"]] = sums.get(row["resource"], 0.0) + cast("dict[str, float]", row)[column]
    return sums


async def timeline(path: str | None = None, *, limit: int = LIMIT, timeout: float = TIMEOUT_S) -> list[dict[str, Any]]:
    """What ran when, as Chrome trace events; written to `path` as JSON when one is given. Open it in https://ui.perfetto.dev.

    Each worker remembers its last 10,000 calls. Times are microseconds since the epoch.
    """
    rows: list[EventRow] = await _rows("events", limit, timeout)
    events: list[dict[str, Any]] = []
    named: set[int] = set()
    for row in rows:
        pid = row["pid"]
        if pid not in named:
            named.add(pid)
            label = f"worker {row['process_id']}"
            events.append({"ph": "M", "name": "process_name", "pid": pid, "tid": 0, "args": {"name": label}})
        events.append(
            {
                "ph": "X",
                "name": row["name"],
                "cat": row["kind"],
                "pid": pid,
                "tid": 0,
                "ts": row["time"] * 1e6,
                "dur": row["duration_s"] * 1e6,
                "args": {"task": row["subject"], "detail": row["detail"]},
            }
        )
    if path is not None:
        _write(path, msgspec.json.encode({"traceEvents": events, "displayTimeUnit": "ms"}))
    return events


def _write(path: str, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
