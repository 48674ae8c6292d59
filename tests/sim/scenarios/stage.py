"""The stage of a scenario: a world with one cluster, a register outside of it, and the judgement at the end.

A scenario is a module with `prepare(stage)`, which draws a workload from `stage.rng` and returns the driver's
`main`. What user code does in any process it may note in `outside` (see `outside.py`), where no crash of the
cluster can lose it. After every run the stage checks, by name:

    CK-1 to CK-6   of actorflow.testing.checkers, over the history of calls
    CK-7           nothing leaked: no call, object, borrow, lease, pin, extent or actor at rest; then no process
    SG-1           the run ended, within `LIMIT_S` virtual seconds of the last fault
    SG-2           no process reported an error of the runtime's own (an exception that nobody caught)
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Coroutine
from typing import Any

import actorflow as af
from actorflow.testing import ALWAYS, Check, History, Host, LinkProfile, ProcessProfile, World, check
from actorflow.testing.cluster import SimCluster, SimDriver
from tests.sim.scenarios import outside

LIMIT_S = 60.0
STEPS_MAX = 150_000
Main = Callable[[], Coroutine[Any, Any, Any]]


def _leaves(error: BaseException | None) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for part in error.exceptions for leaf in _leaves(part)]
    return [error] if error is not None else []


class Bugs(logging.Handler):
    """Collects what the runtime logs about itself: an exception that reached its last net."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self.found.append(f"{record.getMessage()}: {record.exc_info[1]!r}")


class Stage:
    """One run of one scenario. Use it as a context manager."""

    def __init__(self, seed: int, *, detail: bool = False, **cluster_options: Any) -> None:
        self.seed = seed
        self.world = World(seed, links=LinkProfile(), steps_max=STEPS_MAX, detail=detail)
        self.rng: random.Random = self.world.rng("scenario")
        self.faults = self.world.rng("faults")
        self.history = History(lambda: self.world.now)
        self.register = outside.Register(self.history)
        options: dict[str, Any] = {"num_cpus": 2, "prestart": self.rng.randrange(3), "processes": ProcessProfile(), **cluster_options}
        self.cpus: int = options["num_cpus"]
        self.cluster = SimCluster(self.world, **options)
        self.driver: SimDriver | None = None
        self.began_at = 0
        """The step at which the program began."""
        self.steps = 0
        """Steps from there until it had ended."""
        self.on_begin: list[Callable[[], None]] = []
        self._bugs = Bugs()

    def __enter__(self) -> Stage:
        outside.current = self.register
        logging.getLogger("actorflow").addHandler(self._bugs)
        return self

    def __exit__(self, *exc_info: Any) -> None:
        logging.getLogger("actorflow").removeHandler(self._bugs)
        outside.current = None
        self.world.close()

    def begin(self, main: Main, *, inline: bool | None = None) -> SimDriver:
        """Start the driver."""

        async def program() -> Any:
            self.began_at = self.world.steps
            for action in self.on_begin:
                action()
            return await main()

        inline = self.rng.random() < 0.3 if inline is None else inline
        self.driver = self.cluster.driver(program, stay=True, inline=inline)
        return self.driver

    def run(self, main: Main) -> Any:
        """Run `main` to its end; return its result (SG-1)."""
        driver = self.begin(main)
        self.world.run_until(lambda: driver.ended, LIMIT_S)
        self.steps = self.world.steps - self.began_at
        return driver.result()

    def run_among_faults(self, main: Main) -> None:
        """Run `main` to its end, which may be an error of actorflow's own: whatever a fault leads to has a type and a name."""
        driver = self.begin(main)
        self.world.run_until(lambda: driver.ended, LIMIT_S)
        self.steps = self.world.steps - self.began_at
        for error in _leaves(driver.error):
            assert isinstance(error, af.ActorflowError), f"CK-3, seed {self.seed}: {error!r}"
        driver.forget()

    def begun(self) -> SimDriver:
        """The driver that runs the scenario."""
        assert self.driver is not None, "the scenario has begun"
        return self.driver

    def begin_owner(self) -> None:
        """The cluster belongs to a driver that does nothing; the scenario's own comes as a guest."""

        async def idle() -> None:
            return None

        owner = self.cluster.driver(idle, name="owner", stay=True)
        self.world.run_until(lambda: owner.ended, LIMIT_S)

    def at(self, step: int, action: Callable[[], None]) -> None:
        """Do something before the n-th handle after the program began."""
        self.on_begin.append(lambda: self.world.at_step(self.world.steps + step, action))

    def kill_a_worker(self) -> Host | None:
        """Kill one of the workers that live."""
        workers = self.cluster.workers()
        if not workers:
            return None
        victim = self.faults.choice(workers)
        self.world.kill(victim)
        return victim

    def kill_the_head(self) -> None:
        """The head's process ends, and half of the time its machine with it; it comes back."""
        head = self.cluster.sim_head
        assert head is not None, "a cluster with durable=True"
        if head.host.alive:
            head.kill(machine_down=self.faults.random() < 0.5)

    def break_a_connection(self) -> None:
        """Reset one that is up; those of handshakes go on by themselves or begin anew."""
        found = [ends for ends in self.world.fabric.connections() if not (ends[0].closed or ends[1].closed)]
        if found:
            self.world.fabric.reset(self.faults.choice(self.faults.choice(found)))

    def judge_the_end(self) -> None:
        """The owner is dead: nothing is left of the cluster."""
        self.cluster.stop()
        assert not self._bugs.found, f"SG-2, seed {self.seed}: {self._bugs.found}"

    def judge_the_rest(self) -> None:
        """Whatever became of the calls: nothing is left of them, nor of the cluster."""
        self.cluster.settle()
        self.judge_the_end()

    def judge(self, *checks: Check, at_rest: bool = True) -> None:
        """Check everything; end the cluster."""
        check(self.history, (*ALWAYS, *checks), seed=self.seed)
        if at_rest:
            self.cluster.settle()
        self.cluster.stop()
        assert not self._bugs.found, f"SG-2, seed {self.seed}: {self._bugs.found}"
