"""The program's verbs in actorflow: its public face, and nothing below."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import cloudpickle

import actorflow as af
from actorflow.testing.chaos import units
from actorflow.testing.chaos.systems import TASK_CPUS
from actorflow.testing.chaos.work import CRASHED, DIED, LOST, UNAVAILABLE, WORK

AT_REST_S = 30.0
"""How long after the last call the cluster may take until nothing of the program is left in it."""
POLL_S = 0.1
SORTS: list[tuple[type[Exception], str]] = [
    (af.WorkerCrashedError, CRASHED),
    (af.NodeDiedError, CRASHED),
    (af.ActorUnavailableError, UNAVAILABLE),
    (af.ActorDiedError, DIED),
    (af.ObjectLostError, LOST),
]


class ActorflowVerbs:
    """See Verbs."""

    has = frozenset(WORK)

    def __init__(self) -> None:
        self.errors_of: dict[str, frozenset[str]] = {}
        # By value: a worker that imported this package would be a second later.
        cloudpickle.register_pickle_by_value(units)
        self._remote: dict[Any, Any] = {}

    async def start(self, address: str) -> None:
        await af.init(address=address, log_to_driver=False)

    async def stop(self) -> list[str]:
        left: list[str] = []
        for _ in range(round(AT_REST_S / POLL_S)):
            if not (left := await _at_work()):
                break
            await asyncio.sleep(POLL_S)
        await asyncio.to_thread(af.shutdown)
        return left

    def _of(self, code: Any) -> Any:
        if code not in self._remote:
            self._remote[code] = af.remote(code)
        return self._remote[code]

    def task(self, function: Callable[..., Any], *arguments: Any, again: bool) -> Any:
        options = self._of(function).options(max_retries=-1 if again else 0, num_cpus=TASK_CPUS, scheduling_strategy="spread")
        return options.remote(*arguments)

    async def stream(self, function: Callable[..., Any], *arguments: Any) -> AsyncIterator[Any]:
        options = self._of(function).options(max_retries=-1, num_cpus=TASK_CPUS, scheduling_strategy="spread")
        async with options.remote(*arguments) as stream:
            async for item in stream:
                yield item

    async def put(self, value: Any) -> Any:
        return await af.put(value)

    async def grouped(self, function: Callable[..., Any], arguments: Sequence[Sequence[Any]]) -> list[Any]:
        async with af.placement_group([{"CPU": TASK_CPUS}] * len(arguments), "SPREAD") as group:
            inside = self._of(function).options(max_retries=-1, num_cpus=TASK_CPUS, placement_group=group)
            refs = [inside.options(bundle_index=index).remote(*each) for index, each in enumerate(arguments)]
            return list(await af.get(refs))

    async def actor(self, cls: type, *arguments: Any, restarts: bool, again: bool, name: str = "", kept: bool = False) -> Any:
        options: dict[str, Any] = {"num_cpus": 0, "scheduling_strategy": "spread"}
        options |= {"max_restarts": -1 if restarts else 0, "max_task_retries": -1 if again else 0}
        options |= {"name": name, "lifetime": "detached"} if name else {}
        options |= {"checkpoint_every": "call"} if kept else {}
        return self._of(cls).options(**options).remote(*arguments)

    async def find(self, name: str) -> Any:
        return await af.get_actor(name)

    def call(self, handle: Any, method: str, *arguments: Any) -> Awaitable[Any]:
        called: Awaitable[Any] = getattr(handle, method)(*arguments)
        return called

    async def kill(self, handle: Any) -> None:
        await af.kill(handle)

    def sort(self, error: BaseException) -> str:
        return next((sort for kind, sort in SORTS if isinstance(error, kind)), type(error).__name__)

    async def explain(self) -> str:
        tasks = [row for row in await af.state.list_tasks() if row["state"] in ("waiting", "queued", "pushed")]
        actors = [row for row in await af.state.list_actors() if row["state"] not in ("alive", "dead")]
        nodes = [(row["node_id"], row["state"]) for row in await af.state.list_nodes()]
        return f"tasks under way: {tasks}; actors that are neither alive nor dead: {actors}; nodes: {nodes}"


async def _at_work() -> list[str]:
    """What of the program is still in the cluster, in words."""
    left = [
        f"{row['free']} of {row['total']} {row['resource']} are free on {row['node_id']}"
        for row in await af.state.list_resources()
        if row["free"] != row["total"]
    ]
    left += [
        f"actor {row['class_name']} {row['actor_id']} is {row['state']}" for row in await af.state.list_actors() if row["state"] != "dead"
    ]
    left += [f"placement group {row}" for row in await af.state.list_placement_groups() if row["state"] != "removed"]
    return left
