"""Processes whose workers are given the keys of their job, and its certificate, before they are born.

The certificate comes from the head, once for each job and node; the worker that is the first of its job here waits for that.

    EW-1  No worker is born without what it needs to prove itself; one that cannot have it ends as one that could not be started.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from actorflow._core.base.errors import ActorflowError
from actorflow._core.boot.node_credentials import NodeCredentials
from actorflow._core.io.ports import Processes, ProcessEvents, ProcessExit, WorkerSpec
from actorflow._core.security.roles import Role


class EnrolledProcesses:
    """See the module; a Processes around another one. On `loop`."""

    _events: ProcessEvents

    def __init__(self, loop: asyncio.AbstractEventLoop, inner: Processes, credentials: NodeCredentials) -> None:
        self._loop = loop
        self._inner = inner
        self._credentials = credentials
        self._waiting: dict[str, asyncio.Task[None]] = {}

    async def start(self, events: ProcessEvents) -> None:
        """See Processes."""
        self._events = events
        await self._inner.start(events)

    def problem_with(self, env: Mapping[str, str], working_dir: str | None) -> str:
        """See Processes."""
        return self._inner.problem_with(env, working_dir)

    def spawn(self, spec: WorkerSpec) -> None:
        """See Processes."""
        if self._credentials.ready(spec.job_id):
            access = self._credentials.access_now(Role.WORKER, spec.worker_id, spec.job_id)
            self._inner.spawn(replace(spec, access=access))
            return
        task = self._loop.create_task(self._spawn(spec), name=f"enrol worker {spec.worker_id}")
        self._waiting[spec.worker_id] = task
        task.add_done_callback(partial(self._enrolled, spec.worker_id))

    async def _spawn(self, spec: WorkerSpec) -> None:
        try:
            access = await self._credentials.access(Role.WORKER, spec.worker_id, spec.job_id)
        except ActorflowError as error:
            self._never_was(spec.worker_id, str(error))
        else:
            del self._waiting[spec.worker_id]  # From now on the inner one knows it, and whoever kills it must get there.
            self._inner.spawn(replace(spec, access=access))

    def _enrolled(self, worker_id: str, task: asyncio.Task[None]) -> None:
        self._waiting.pop(worker_id, None)
        if task.cancelled():
            self._never_was(worker_id, "it was not wanted any more")

    def _never_was(self, worker_id: str, why: str) -> None:
        exit = ProcessExit(worker_id, 0, None, None, 0, f"could not be started: {why}")
        self._loop.call_soon(self._events.process_exited, exit)

    def kill(self, worker_id: str, signal: int) -> None:
        """See Processes."""
        waiting = self._waiting.get(worker_id)
        if waiting is not None:
            waiting.cancel()
        else:
            self._inner.kill(worker_id, signal)

    def let_live(self, seconds: float) -> None:
        """See Processes."""
        self._inner.let_live(seconds)

    def memory_bytes(self, worker_id: str) -> int:
        """See Processes."""
        return self._inner.memory_bytes(worker_id)

    async def stop(self, grace_s: float) -> None:
        """See Processes."""
        waiting = list(self._waiting.values())
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await self._inner.stop(grace_s)
