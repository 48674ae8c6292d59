"""The nemesis: faults at random moments, all drawn from the seed.

nemesis = Nemesis(world, victims=lambda host: host.name.startswith("worker"))
nemesis.start()
world.run_until(workload)      # safety: nothing wrong happens under faults
nemesis.stop()                 # heal
world.run_until(all_settled)   # liveness: everything ends soon after the last fault
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, fields

from actorflow._core.base.errors import OptionError, OptionTypeError
from actorflow.testing.host import Host
from actorflow.testing.world import World


@dataclass(frozen=True, slots=True)
class FaultPlan:
    """How often which fault happens. The chances are weights: 0 switches a fault off."""

    gap_steps_mean: int = 300
    """Handles between two faults, on average."""
    faults_max: int = 5
    kill: float = 1.0
    reset: float = 1.0
    delay: float = 1.0
    pause: float = 1.0
    delay_max_s: float = 1.0
    pause_max_s: float = 2.0

    def __post_init__(self) -> None:
        for field in fields(self):
            name, value = field.name, getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise OptionTypeError(f"FaultPlan({name}={value!r}): a number is needed, not {type(value).__name__}", option=name)
            if not 0 <= value < math.inf or (name == "gap_steps_mean" and value < 1):
                least = "1 or more" if name == "gap_steps_mean" else "0 or more"
                raise OptionError(f"FaultPlan({name}={value!r}): a number is needed, {least}", option=name)


Fault = tuple[str, Callable[[], None]]
"""In words, and what does it."""


class Nemesis:
    """Makes faults until it is stopped or has made `faults_max`.

    `victims` says which processes may be killed or paused; connections and links are fair game everywhere. `only`: the faults with these
    numbers, from 0, are made, and the others left out; `shrink` finds those that a failure needs.
    """

    def __init__(
        self,
        world: World,
        victims: Callable[[Host], bool] | None = None,
        plan: FaultPlan | None = None,
        only: Collection[int] | None = None,
    ) -> None:
        self.world = world
        self.plan = plan or FaultPlan()
        self.made: list[str] = []
        """What was done so far, in words. A run without any has shown nothing: look at it."""
        self.drawn = 0
        """The faults so far, those that were left out too."""
        self._only = only
        self._victims = victims or (lambda host: True)
        self._rng = world.rng("nemesis")
        self._running = False

    def start(self) -> None:
        """Begin; the first fault comes after a random number of handles."""
        self._running = True
        self._schedule()

    def stop(self) -> None:
        """No more faults, and none stays: links are healed, paused processes go on. The dead stay dead."""
        self._running = False
        self.world.fabric.heal()
        for host in self.world.living():
            host.unpause()

    def _schedule(self) -> None:
        if self._running and self.drawn < self.plan.faults_max:
            gap = 1 + int(self._rng.expovariate(1.0 / self.plan.gap_steps_mean))
            self.world.at_step(self.world.steps + gap, self._strike)

    def _strike(self) -> None:
        if not self._running:
            return
        plan = self.plan
        faults = [self._kill, self._reset, self._delay, self._pause]
        weights = [plan.kill, plan.reset, plan.delay, plan.pause]
        if any(weights):
            fault = self._rng.choices(faults, weights)[0]()
            if fault is not None:
                what, strike = fault
                if self._only is None or self.drawn in self._only:
                    strike()
                    self.made.append(what)
                self.drawn += 1
        self._schedule()

    def _victim(self) -> Host | None:
        hosts = [host for host in self.world.living() if self._victims(host)]
        return self._rng.choice(hosts) if hosts else None

    def _kill(self) -> Fault | None:
        victim = self._victim()
        if victim is None:
            return None
        return f"killed {victim.name}", lambda: self.world.kill(victim)

    def _pause(self) -> Fault | None:
        victim = self._victim()
        if victim is None or victim.paused:
            return None
        seconds = self._rng.random() * self.plan.pause_max_s

        def strike() -> None:
            victim.pause()
            self.world.note(victim.name, f"is paused for {seconds:.6f} s")
            self.world.at_time(self.world.now + seconds, victim.unpause)

        return f"paused {victim.name}", strike

    def _reset(self) -> Fault | None:
        connections = self.world.fabric.connections()
        if not connections:
            return None
        stream = self._rng.choice(self._rng.choice(connections))
        return f"reset {stream!r}", lambda: self.world.fabric.reset(stream)

    def _delay(self) -> Fault | None:
        connections = self.world.fabric.connections()
        if not connections:
            return None
        near, far = self._rng.choice(connections)
        one, other = near.host, far.host
        fabric, extra_s = self.world.fabric, self._rng.random() * self.plan.delay_max_s

        def strike() -> None:
            fabric.delay(one, other, extra_s)
            self.world.at_time(self.world.now + extra_s * 2, lambda: fabric.delay(one, other, 0.0))

        return f"delayed {one.name} and {other.name}", strike
