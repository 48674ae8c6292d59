"""What holds while simulated code runs: collections at fixed steps, async generators that know their loop, no way to a real cluster.

The cyclic collector runs `__del__` and weak-reference callbacks whenever its counters say so, and those
depend on all that the interpreter did before. In a world it runs at fixed steps only, and never looks at
objects from outside.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from actorflow import _lifecycle
from actorflow.testing.class_ids import named_marks
from actorflow.testing.errors import SimulationMisuse
from actorflow.testing.loop import SimHandle, SimLoop

COLLECT_WORLDS = 16
"""After so many worlds their remains are collected: a full collection takes longer than a small world."""


def _refuse_real_cluster(what: str) -> NoReturn:
    raise SimulationMisuse(
        f"{what} in a simulated program would start or join a real cluster: the program has a simulated one already, so leave it out"
    )


class Sandbox:
    """The conditions of one world."""

    _uncollected = 0

    def __init__(self) -> None:
        self.inside = False
        self.closed = False
        self._frozen = False
        self._generators: dict[int, SimLoop] = {}
        """By id: weak references are already cleared when a generator is finalised."""

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Run simulated code within this block."""
        if self.closed:
            raise SimulationMisuse("the world is closed")
        if self.inside:
            raise SimulationMisuse("the world runs already: simulated code cannot run it")
        self.inside = True
        collecting, loop_before = gc.isenabled(), asyncio._get_running_loop()
        gc.disable()
        if not self._frozen:
            # What exists already is not looked at: collections are cheap, and nothing foreign dies in here.
            self._frozen = True
            gc.freeze()
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(firstiter=self._generator_started, finalizer=self._generator_dropped)
        _lifecycle.refuse = _refuse_real_cluster
        try:
            with named_marks():
                yield
        finally:
            self.inside = False
            _lifecycle.refuse = None
            sys.set_asyncgen_hooks(*hooks)
            asyncio._set_running_loop(loop_before)
            if collecting:
                gc.enable()

    def close(self) -> None:
        """Forbid any further run, and give the collector back what was there before."""
        self.closed = True
        if self._frozen:
            gc.unfreeze()
            Sandbox._uncollected += 1
            if Sandbox._uncollected >= COLLECT_WORLDS:
                # A closed world is one large cycle, and the collector, switched off most of the time, comes too rarely.
                Sandbox._uncollected = 0
                gc.collect()

    def _generator_started(self, generator: AsyncGenerator[Any, Any]) -> None:
        loop = asyncio._get_running_loop()
        if isinstance(loop, SimLoop):
            self._generators[id(generator)] = loop

    def _generator_dropped(self, generator: AsyncGenerator[Any, Any]) -> None:
        """As asyncio: closed by a task when it is dropped before its end.

        One of a dead host is not touched.
        """
        loop = self._generators.pop(id(generator), None)
        if loop is not None and loop.host.alive:
            loop.push(SimHandle(loop.create_task, (generator.aclose(),), loop, loop.host.context))
