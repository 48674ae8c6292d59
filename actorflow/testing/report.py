"""Who waits where: the text of SimulationStuck."""

from __future__ import annotations

import asyncio
import os
import traceback
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actorflow.testing.host import Host
    from actorflow.testing.world import World

TASKS_MAX = 40
"""Tasks shown for each host."""


def describe(world: World, why: str) -> str:
    """Say why a run stopped, what each host waits for, and what happened last."""
    lines = [f"seed {world.seed}, step {world.steps}, time {world.now:.6f}: {why}."]
    timers: dict[str, tuple[int, float]] = {}
    for when, loop in reversed(world.timers()):
        count, _ = timers.get(loop.host.name, (0, 0.0))
        timers[loop.host.name] = (count + 1, when)
    for host in world.hosts.values():
        if host.alive:
            lines += _describe_host(host, timers.get(host.name))
    dead = [f"{host.name} at {host.ended_at:.6f}" for host in world.hosts.values() if not host.alive]
    if dead:
        lines.append("Dead: " + ", ".join(dead))
    lines += ["Last entries of the trace:", world.trace.tail()]
    return "\n".join(lines)


def _describe_host(host: Host, timers: tuple[int, float] | None) -> list[str]:
    state = [f"{len(loop.queue)} handles ready on {loop.name}" for loop in host.loops if loop.queue]
    if host.paused:
        state.append("stopped")
    if timers is not None:
        state.append(f"{timers[0]} timers, the first at {timers[1]:.6f}")
    tasks = sorted((task for loop in host.loops for task in asyncio.all_tasks(loop)), key=hash)
    threads = [thread for thread in host.threads if thread.blocked]
    if not tasks and not state and not threads:
        return []
    lines = [f"{host.name} ({', '.join(state) or 'idle'}):"]
    for task in tasks[:TASKS_MAX]:
        lines.append(f"  task {task.get_name()}")
        lines += _frames(_await_chain(task.get_coro()))
    if len(tasks) > TASKS_MAX:
        lines.append(f"  and {len(tasks) - TASKS_MAX} more tasks")
    for thread in threads:
        lines.append("  blocked def code")
        lines += _frames(thread.frames())
    return lines


def _await_chain(coro: Any) -> list[FrameType]:
    """The frames of a suspended coroutine, outermost first, through everything that it awaits."""
    frames: list[FrameType] = []
    while coro is not None:
        frame = (
            getattr(coro, "cr_frame", None)
            or getattr(coro, "gi_frame", None)
            or getattr(coro, "ag_frame", None)
        )
        if frame is None:
            break
        frames.append(frame)
        coro = (
            getattr(coro, "cr_await", None)
            or getattr(coro, "gi_yieldfrom", None)
            or getattr(coro, "ag_await", None)
        )
    return frames


def _frames(frames: list[FrameType]) -> list[str]:
    lines = []
    for frame in frames:
        summary = traceback.extract_stack(frame, limit=1)[0]
        lines.append(
            f"    {os.path.basename(summary.filename)}:{summary.lineno} {summary.name}: {summary.line or ''}"
        )
    return lines
