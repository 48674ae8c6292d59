"""What is left in a world at rest: the input of CK-7, nothing leaked."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

from actorflow.testing.arena import SimArena
from actorflow.testing.checkers import Violation
from actorflow.testing.host import Host
from actorflow.testing.world import World


@dataclass(slots=True)
class Leftovers:
    """What some processes still hold, in words."""

    hosts: list[str] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)
    connections: list[str] = field(default_factory=list)
    threads: list[str] = field(default_factory=list)
    views: list[str] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)

    def violations(self) -> list[Violation]:
        """CK-7: each of them, as a violation."""
        kinds = {
            "a process": self.hosts,
            "a task": self.tasks,
            "a connection": self.connections,
            "blocked code": self.threads,
            "a view": self.views,
            "an address": self.addresses,
        }
        return [Violation("CK-7", f"{kind} is left: {one}") for kind, many in kinds.items() for one in many]


def leftovers(
    world: World, hosts: Iterable[Host] = (), *, ended: Iterable[Host] = (), arena: SimArena | None = None
) -> Leftovers:
    """Look at a world at rest.

    `hosts` live and should hold nothing; `ended` should be gone. `arena` should have no view. The
    addresses of the world should be free when `ended` is given: a process that left in order removed its
    socket files.
    """
    left = Leftovers()
    for host in hosts:
        tasks = sorted((task for loop in host.loops for task in asyncio.all_tasks(loop)), key=hash)
        left.tasks += [f"{host.name}: {task.get_name()}" for task in tasks]
        left.connections += [repr(stream) for stream in host.network.streams()]
        left.threads += [host.name for thread in host.threads if thread.blocked]
    gone = list(ended)
    left.hosts += [host.name for host in gone if host.alive]
    if gone:
        left.addresses += world.fabric.addresses()
    if arena is not None:
        left.views += [f"[{start}, {stop})" for start, stop in arena.live_views()]
    return left
