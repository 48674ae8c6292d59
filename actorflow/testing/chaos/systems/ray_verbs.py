# mypy: disable-error-code="import-not-found"
"""The program's verbs in Ray. Run by the Python that has it (`make peers`)."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import ray
from ray import cloudpickle, exceptions
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from actorflow.testing.chaos import units
from actorflow.testing.chaos.systems import TASK_CPUS
from actorflow.testing.chaos.work import COMPARABLE, CRASHED, DIED, LOST, UNAVAILABLE

SPREAD = "SPREAD"
AT_REST_S = 30.0
POLL_S = 0.1
SORTS: list[tuple[type[Exception], str]] = [
    (exceptions.ActorUnavailableError, UNAVAILABLE),
    (exceptions.ActorDiedError, DIED),
    (exceptions.RayActorError, UNAVAILABLE),
    (exceptions.WorkerCrashedError, CRASHED),
    (exceptions.NodeDiedError, CRASHED),
    (exceptions.LocalRayletDiedError, CRASHED),
    (exceptions.ObjectLostError, LOST),
]
ANY = frozenset({CRASHED, DIED, LOST, UNAVAILABLE})


class RayVerbs:
    """See Verbs. Without retries Ray says in one of several ways that a process was lost: all of them are right."""

    has = COMPARABLE

    def __init__(self) -> None:
        self.errors_of = dict.fromkeys(("task once", "objects once", "actor once", "actor mortal"), ANY)
        cloudpickle.register_pickle_by_value(units)
        self._remote: dict[Any, Any] = {}

    async def start(self, address: str) -> None:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")

    async def stop(self) -> list[str]:
        left: list[str] = []
        for _ in range(round(AT_REST_S / POLL_S)):
            free, total = ray.available_resources().get("CPU", 0.0), ray.cluster_resources()["CPU"]
            left = [] if free == total else [f"{free:g} of {total:g} CPU are free"]
            if not left:
                break
            await asyncio.sleep(POLL_S)
        ray.shutdown()
        return left

    def _of(self, code: Any) -> Any:
        if code not in self._remote:
            self._remote[code] = ray.remote(code)
        return self._remote[code]

    def task(self, function: Callable[..., Any], *arguments: Any, again: bool) -> Any:
        options = self._of(function).options(max_retries=-1 if again else 0, num_cpus=TASK_CPUS, scheduling_strategy=SPREAD)
        return options.remote(*arguments)

    async def stream(self, function: Callable[..., Any], *arguments: Any) -> AsyncIterator[Any]:
        options = self._of(function).options(max_retries=-1, num_cpus=TASK_CPUS, scheduling_strategy=SPREAD, num_returns="streaming")
        async for ref in options.remote(*arguments):
            yield await ref

    async def put(self, value: Any) -> Any:
        return ray.put(value)

    async def grouped(self, function: Callable[..., Any], arguments: Sequence[Sequence[Any]]) -> list[Any]:
        group = placement_group([{"CPU": TASK_CPUS}] * len(arguments), strategy=SPREAD)
        try:
            refs = []
            for index, each in enumerate(arguments):
                inside = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index)
                refs.append(self._of(function).options(max_retries=-1, num_cpus=TASK_CPUS, scheduling_strategy=inside).remote(*each))
            return [await ref for ref in refs]
        finally:
            remove_placement_group(group)

    async def actor(self, cls: type, *arguments: Any, restarts: bool, again: bool, name: str = "", kept: bool = False) -> Any:
        assert not kept, "Ray takes no checkpoints"
        options: dict[str, Any] = {"num_cpus": 0, "scheduling_strategy": SPREAD}
        options |= {"max_restarts": -1 if restarts else 0, "max_task_retries": -1 if again else 0}
        options |= {"name": name, "lifetime": "detached"} if name else {}
        return self._of(cls).options(**options).remote(*arguments)

    async def find(self, name: str) -> Any:
        return await asyncio.to_thread(ray.get_actor, name)

    def call(self, handle: Any, method: str, *arguments: Any) -> Awaitable[Any]:
        called: Awaitable[Any] = getattr(handle, method).remote(*arguments)
        return called

    async def kill(self, handle: Any) -> None:
        ray.kill(handle)

    def sort(self, error: BaseException) -> str:
        cause = getattr(error, "cause", None)
        found = [sort for kind, sort in SORTS if isinstance(error, kind) or isinstance(cause, kind)]
        return found[0] if found else type(error).__name__

    async def explain(self) -> str:
        free = await asyncio.to_thread(ray.available_resources)
        return f"free at {time.monotonic():.1f}: {free}"
