"""The figures of the acceptance list (issue 2), in one place. `--check` compares a run with them.

"Must" holds at the end of the issue; the aim of every rate row is ten times Ray. Which rows a sentence of
the list means where it names a kind and not a row:
  - "pipelined async-actor calls" (10 x Ray, 3 x xoscar, 40 % of the floor) is the 1:1 async-actor async row;
  - "batched tasks" (15 x) are the async, multi client async and batch rows of tasks;
  - "other batched rows" (8 x) are all other rows with many calls in flight;
  - "small put and get" (10 x) includes the multi client put.
The gigabyte rows have no must: they are memcpy, which is Ray's floor as well.
"""

from __future__ import annotations

from dataclasses import dataclass

AIM_OVER_RAY = 10.0


@dataclass(frozen=True, slots=True)
class CoreTarget:
    """What a column of a row must reach, and aims at."""

    row: str
    column: str = "actorflow"
    over_ray: float | None = None
    over_xoscar: float | None = None
    of_floor: float | None = None
    of_floor_aim: float | None = None


CORE: tuple[CoreTarget, ...] = (
    CoreTarget("async_async", over_ray=10, over_xoscar=3, of_floor=0.40, of_floor_aim=0.50),
    CoreTarget("async_sync", over_ray=6, of_floor=0.45),
    CoreTarget("async_sync", "actorflow:inline", over_ray=6, of_floor=0.60),
    *(CoreTarget(row, over_ray=15) for row in ("tasks_async", "tasks_async_multi", "tasks_batch")),
    *(CoreTarget(row, over_ray=4) for row in ("tasks_sync", "actor_sync")),
    *(CoreTarget(row, over_ray=10) for row in ("get_small", "put_small", "put_small_multi", "get_10k_refs")),
    CoreTarget("wait_1k", over_ray=7),
    *(
        CoreTarget(row, over_ray=8)
        for row in (
            "actor_async",
            "actor_concurrent",
            "actor_1n",
            "actor_nn",
            "actor_nn_arg",
            "async_args",
            "async_1n",
            "async_nn",
        )
    ),
)


@dataclass(frozen=True, slots=True)
class StartupTarget:
    """A bound on one figure of startup.py."""

    measure: str
    bound: float
    at_most: bool = True


STARTUP: tuple[StartupTarget, ...] = (
    StartupTarget("first_result_s", 0.5),
    StartupTarget("idle_cluster_mb", 90),
    StartupTarget("idle_cpu_percent", 1),
    StartupTarget("dedicated_per_s", 200, at_most=False),
    StartupTarget("dedicated_mb_each", 8),
    StartupTarget("shared_per_s", 5000, at_most=False),
    StartupTarget("shared_kb_each", 8),
    StartupTarget("million_kb_each", 1.2),
)


@dataclass(frozen=True, slots=True)
class ClusterTarget:
    """What a column of cluster.py must reach of its floor."""

    row: str
    column: str
    floor: str
    of_floor: float


CLUSTER: tuple[ClusterTarget, ...] = (
    ClusterTarget("cross_sync", "actorflow", "floor", 0.40),
    ClusterTarget("cross_sync", "actorflow inline", "floor", 0.60),
    ClusterTarget("cross_async", "actorflow", "floor", 0.35),
    ClusterTarget("cross_sync", "actorflow tls", "floor tls", 0.40),
    ClusterTarget("cross_sync", "actorflow tls inline", "floor tls", 0.60),
    ClusterTarget("cross_async", "actorflow tls", "floor tls", 0.35),
)
JOIN_S_MAX = 0.5


@dataclass(frozen=True, slots=True)
class TransferTarget:
    """A bound on one figure of transfers.py."""

    measure: str
    bound: float
    at_most: bool = True


TRANSFERS: tuple[TransferTarget, ...] = (
    TransferTarget("pull_of_floor", 0.6, at_most=False),
    TransferTarget("broadcast_over_pull", 2.0),
)


@dataclass(frozen=True, slots=True)
class PlacementTarget:
    """How many times Ray's rate a row of placement.py must reach."""

    row: str
    over_ray: float


PLACEMENT: tuple[PlacementTarget, ...] = (
    PlacementTarget("concurrent", 10),
    PlacementTarget("sequential", 4),
)
