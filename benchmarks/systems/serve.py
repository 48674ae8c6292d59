"""The program side of the conversation: opens workloads, runs them for some seconds, reports the rate.

A system gives its workloads as context managers, one per row: entering sets up (actors, values), the value
is a step that does the row's `per_step` operations once, leaving cleans up. The timing loop is the same for
all: steps until the time is over, at least one, the rate over the time they really took.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import traceback
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, TextIO

from benchmarks.rows import BY_KEY

Step = Callable[[], object]
AsyncStep = Callable[[], Awaitable[object]]
Workload = Callable[[], AbstractContextManager[Step]]
AsyncWorkload = Callable[[], AbstractAsyncContextManager[AsyncStep]]


def claim_stdout() -> TextIO:
    """Keep stdout for answers: what anybody else prints goes where stderr goes."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return answers


def _rate(row: str, steps: int, elapsed: float) -> dict[str, Any]:
    return {"rate": BY_KEY[row].per_step * steps / elapsed, "steps": steps, "elapsed_s": elapsed}


def serve(workloads: dict[str, Workload], answers: TextIO) -> None:
    """Answer requests until stdin ends, for a system whose calls block."""
    opened: dict[str, tuple[AbstractContextManager[Step], Step]] = {}

    def handle(request: dict[str, Any]) -> dict[str, Any]:
        key = request["workload"]
        if request["do"] == "open":
            manager = workloads[key]()
            opened[key] = manager, manager.__enter__()
        elif request["do"] == "close":
            opened.pop(key)[0].__exit__(None, None, None)
        else:
            step, seconds, steps = opened[key][1], request["seconds"], 0
            start = now = time.perf_counter()
            while now - start < seconds:
                step()
                steps += 1
                now = time.perf_counter()
            return _rate(request["row"], steps, now - start)
        return {}

    for line in sys.stdin:
        try:
            answer = handle(json.loads(line))
        except Exception:
            answer = {"error": traceback.format_exc()}
        answers.write(json.dumps(answer) + "\n")


async def serve_async(workloads: dict[str, AsyncWorkload], answers: TextIO) -> None:
    """The same for a system whose calls are awaited; between requests the loop is free and idle."""
    opened: dict[str, tuple[AbstractAsyncContextManager[AsyncStep], AsyncStep]] = {}
    loop = asyncio.get_running_loop()

    async def handle(request: dict[str, Any]) -> dict[str, Any]:
        key = request["workload"]
        if request["do"] == "open":
            manager = workloads[key]()
            opened[key] = manager, await manager.__aenter__()
        elif request["do"] == "close":
            await opened.pop(key)[0].__aexit__(None, None, None)
        else:
            step, seconds, steps = opened[key][1], request["seconds"], 0
            start = now = time.perf_counter()
            while now - start < seconds:
                await step()
                steps += 1
                now = time.perf_counter()
            return _rate(request["row"], steps, now - start)
        return {}

    while line := await loop.run_in_executor(None, sys.stdin.readline):
        try:
            answer = await handle(json.loads(line))
        except Exception:
            answer = {"error": traceback.format_exc()}
        answers.write(json.dumps(answer) + "\n")
