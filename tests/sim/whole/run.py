"""One run of a plan: faults first, and nothing may go wrong; then all heals, and all that is under way ends; then nothing is left.

Invariants, besides CK-1 to CK-7 of actorflow.testing.checkers:

    WH-1  liveness: when all has healed, every program ends within LIMIT_S virtual seconds
    WH-2  promises: what is promised to survive the faults of the plan ends in its value
    WH-3  what an actor with `checkpoint_every="call"` has acknowledged is in its state
    WH-4  a stream gives its values in order, each once
    WH-5  the books agree with themselves (books.py)
    WH-6  what code has begun its `finally` has ended, unless its process was killed
    WH-7  no program fails, and no process reports an error of the runtime's own
"""

from __future__ import annotations

import logging
import traceback
from collections import Counter
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, Self

import actorflow as af
from actorflow.testing import (
    Check,
    History,
    Host,
    InvariantBroken,
    LinkProfile,
    SimulationError,
    Violation,
    World,
    at_most_once_where,
    errors_allowed_by,
    one_live_incarnation,
    one_terminal_result,
    per_caller_order,
    values_match,
)
from actorflow.testing.cluster import SimCluster, SimDriver
from actorflow.testing.history import Call
from actorflow.testing.sim_node import SimNode
from tests.sim.scenarios.stage import Bugs
from tests.sim.whole.books import Watchman, check_books
from tests.sim.whole.faults import Strikes
from tests.sim.whole.markers import Seen
from tests.sim.whole.plan import Args, Plan
from tests.sim.whole.program import Program, sweep
from tests.sim.whole.register import Register, used
from tests.sim.whole.verbs import VERBS

LIMIT_S = 60.0
"""Between the last of the faults and the end of all programs."""
AGAIN_S = 1.0
LEAD_S = 0.5
"""Programs begin so long after their drivers were started: all have joined by then."""
STEPS_MAX = 60_000
CHUNK_BYTES = 64 * 1024
"""Small, so that a large value has several."""
THRESHOLD = 0.9
TEXT_MAX = 6_000


@dataclass
class Outcome:
    """What became of a plan."""

    plan: Plan
    violations: list[Violation] = field(default_factory=list)
    steps: int = 0
    virtual_s: float = 0.0
    operations: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    markers: Counter[str] = field(default_factory=Counter)
    digest: str = ""

    @property
    def invariants(self) -> frozenset[str]:
        """Which of them do not hold."""
        return frozenset(violation.invariant for violation in self.violations)


class Whole:
    """A plan on its way. Use it as a context manager; `play` it once."""

    def __init__(self, plan: Plan, *, detail: bool = False) -> None:
        self.plan = plan
        latency_s = float(plan.args.get("latency", 0.3)) / 1000
        links = LinkProfile(latency_min_s=latency_s / 15, latency_max_s=latency_s)
        self.world = World(plan.seed, links=links, steps_max=STEPS_MAX, detail=detail)
        self.history = History(lambda: self.world.now)
        self.register = Register(self.history)
        self.lenient = False
        """The cluster ended with its owner: every call may end in an error of ours."""
        self.objects_lost = False
        """A disk has lost what was there: what nobody can make again may be lost."""
        self.node_gave_head_up = False
        """Then an actor may live twice until the node has joined again (`lose-head`)."""
        self.slept: set[Host] = set()
        """Processes that stood still for as long as a lease: they end as if they were killed (LV-7)."""
        self.still_until: dict[Host, float] = {}
        """Processes that stand still, or stood, and until when."""
        self.spawns_failed: set[str] = set()
        """Nodes on which a worker did not come up."""
        self.seen = Seen()
        self.cluster = self.register.cluster = self._make_cluster()
        self.places = [self.cluster.nodes[0], *(self._add(node) for node in plan.nodes[1:])]
        """The nodes of the plan, each as it was when it was made last."""
        self.owner = self.cluster.driver(_nothing, name="owner", stay=True)
        self.drivers: list[SimDriver] = []
        self.programs: list[Program] = []
        self.strikes = Strikes(self, plan.faults)
        self._watchman = Watchman(self.cluster)
        self._bugs = Bugs()
        self._stack = ExitStack()

    def _make_cluster(self) -> SimCluster:
        args, first = self.plan.args, self.plan.nodes[0]
        node_options: dict[str, Any] = {"transfer_chunk_bytes": CHUNK_BYTES, "idle_timeout_s": 0.3}
        if any(fault.verb == "short-memory" for fault in self.plan.faults):
            node_options["memory_threshold"] = THRESHOLD
        return SimCluster(
            self.world,
            num_cpus=float(first["cpus"]),
            object_store_memory=str(first["store"]),
            prestart=int(args.get("prestart", 1)),
            scheme=str(args.get("scheme", "unix")),
            node_options=node_options,
            durable=bool(args.get("durable", 0)),
        )

    def _add(self, args: Args) -> SimNode:
        return self.cluster.add_node(num_cpus=float(args["cpus"]), object_store_memory=str(args["store"]))

    def __enter__(self) -> Self:
        self._stack.callback(self.world.close)
        logger = logging.getLogger("actorflow")
        logger.addHandler(self._bugs)
        self._stack.callback(logger.removeHandler, self._bugs)
        self._stack.enter_context(used(self.register))
        self._stack.enter_context(self.seen.watch())
        self._stack.enter_context(self._watchman.watch() if self.plan.args.get("books") else nullcontext())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    # -- for faults and programs

    def last(self, number: int) -> SimNode:
        """The node of the plan with this number, as it came back last."""
        node = self.places[number % len(self.places)]
        while node.successor is not None:
            node = node.successor
        return node

    def node(self, number: int) -> SimNode | None:
        """The same, if it is there and has joined."""
        node = self.last(number)
        return node if node.host.alive and node.node is not None else None

    def node_id(self, number: int) -> str:
        """Who it is; empty when it is not there."""
        node = self.node(number)
        return node.node.node_id if node is not None and node.node is not None else ""

    def replace(self, number: int) -> None:
        """A node that is dead has another one in its place."""
        number %= len(self.places)
        if not self.last(number).host.alive and self.cluster.node_host.alive and not self.lenient:
            node = self.places[number] = self._add(self.plan.nodes[number])
            node.host.on_end.append(lambda host: self._once_more(number, node))

    def _once_more(self, number: int, node: SimNode) -> None:
        """One that could not join is started again, as those are who look after nodes."""
        if node.not_joined:
            self.world.at_time(self.world.now + AGAIN_S, lambda: self.replace(number))

    # -- the run

    def play(self) -> list[Violation]:
        """All of it. Returns what was wrong."""
        try:
            self._begin()
            self._end_within_limits()
            if self.programs_are_open():
                return self._hung()
            found = self._judge()
            return found or self._rest()
        except InvariantBroken as error:
            return [Violation(_first_name(str(error)), str(error)[:TEXT_MAX])]
        except AssertionError as error:
            return [Violation("WH-5", "".join(traceback.format_exception(error))[-TEXT_MAX:])]
        except SimulationError as error:
            return [Violation("WH-7", f"{type(error).__name__}: {str(error)[:TEXT_MAX]}")]

    def _begin(self) -> None:
        world, cluster = self.world, self.cluster
        world.run_until(lambda: self.owner.returned and self._all_have_joined(), LIMIT_S)
        began_at = world.now + LEAD_S
        for number, driver in enumerate(self.plan.drivers):
            name = f"driver-{number}"
            program = Program(name, driver, began_at, self.history, self.node_id)
            args = driver.args
            options: dict[str, Any] = {"inline": bool(args.get("inline")), "outside": bool(args.get("outside"))}
            self.programs.append(program)
            self.drivers.append(cluster.driver(program.main, name=name, stay=True, **options))
        self.strikes.plan(began_at)
        world.run_for(LEAD_S + float(self.plan.args.get("heal", 0.0)))
        self.strikes.heal()

    def _all_have_joined(self) -> bool:
        """Every node that lives has a head."""
        living = [node.node for node in self.cluster.nodes if node.host.alive]
        return all(node is not None and node._head.ready.done() for node in living)

    def programs_are_open(self) -> bool:
        """Some of them have not ended."""
        return any(not driver.ended for driver in self.drivers)

    def _end_within_limits(self) -> None:
        until = self.world.now + LIMIT_S
        self.world.at_time(until, lambda: None)
        self.world.run_until(lambda: not self.programs_are_open() or self.world.now >= until, LIMIT_S + 1.0)

    def _hung(self) -> list[Violation]:
        """WH-1."""
        open_calls = [str(call) for call in self.history.calls if not call.ends and call.caller not in self.history.dead_callers]
        text = f"{LIMIT_S:g} s after all had healed these were open: " + "; ".join(open_calls or ["a program"])
        return [Violation("WH-1", text[:TEXT_MAX])]

    # -- judging

    def _judge(self) -> list[Violation]:
        check_books(self.cluster)
        for driver in self.drivers:
            if self.cluster.node_host.alive is False and driver.host.alive is False:
                self.history.caller_died(driver.host.name)
        lives = () if self.node_gave_head_up else (one_live_incarnation,)
        checks: tuple[Check, ...] = (
            one_terminal_result,
            per_caller_order,
            *lives,
            values_match(lambda call: VERBS[call.name].expected(call.args[0].args)),
            errors_allowed_by(self._may_raise),
            at_most_once_where(lambda call: VERBS[call.name].once(call.args[0].args)),
            self._begun_is_ended,
        )
        found = [violation for check in checks for violation in check(self.history)]
        found = [self._named(violation) for violation in found]
        for program, driver in zip(self.programs, self.drivers, strict=True):
            found += program.violations
            if driver.error is not None and not (self.lenient and isinstance(driver.error, af.ActorflowError)):
                found.append(Violation("WH-7", f"{program.name} failed: {driver.error!r}"))
        return found

    def _may_raise(self, call: Call) -> tuple[type[BaseException], ...]:
        step = call.args[0]
        allowed = VERBS[step.verb].may_raise(step.args)
        if self.lenient:
            allowed = (*allowed, af.ActorflowError)
        if self.objects_lost:
            allowed = (*allowed, af.ObjectLostError)
        return allowed

    @staticmethod
    def _named(violation: Violation) -> Violation:
        """Errors and values that break a promise go by the promise."""
        return Violation("WH-2", violation.text) if violation.invariant == "CK-3" else violation

    def _begun_is_ended(self, history: History) -> list[Violation]:
        """WH-6."""
        return [
            Violation("WH-6", f"{key} was begun in {host.name} and not ended")
            for key, host in self.register.begun.items()
            if (host.alive or host.signal is None) and host not in self.slept
        ]

    def _rest(self) -> list[Violation]:
        """CK-7, and WH-7."""
        cluster, world = self.cluster, self.world
        drivers = list(self.drivers)
        if not self.lenient:  # Who is about to join would not find a cluster that has ended.
            world.run_until(self._all_have_joined, LIMIT_S)
        slots = sorted({int(call.args[0].args["slot"]) for call in self.history.calls if call.args[0].args.get("kind") == "named"})
        if cluster.node_host.alive:
            if slots:
                sweeper = cluster.driver(partial(sweep, slots), name="sweeper", stay=True)
                world.run_until(lambda: sweeper.ended, LIMIT_S)
                sweeper.result()
                drivers.append(sweeper)
            for driver in drivers:
                driver.forget()
            for call in self.history.calls:
                for end in call.ends:
                    end.error = end.value = None
            if (durable := cluster.head and cluster.head._durable) is not None:
                # What attempts and drivers that died have put, and detached calls of theirs; the sweeper's namespace is theirs.
                durable.namespace_over("default")
                actors = cluster.head._actors.table  # type: ignore[union-attr]
                world.run_until(lambda: not any(actor.spec.detached for actor in actors.living()), LIMIT_S)
                world.run_for(1.0)  # The last words of those who made it are on their way.
                durable.namespace_over("default")
            cluster.settle()
        cluster.stop()
        return [Violation("WH-7", f"an error that nobody caught: {text}") for text in self._bugs.found]


def run(plan: Plan, *, detail: bool = False) -> Outcome:
    """Run a plan and judge it."""
    outcome = Outcome(plan)
    with Whole(plan, detail=detail) as whole:
        outcome.violations = whole.play()
        outcome.steps, outcome.virtual_s = whole.world.steps, whole.world.now
        outcome.operations = Counter(call.name for call in whole.history.calls)
        outcome.faults = whole.strikes.made
        outcome.markers = whole.seen.counts
        outcome.digest = whole.world.trace.digest
    return outcome


async def _nothing() -> None:
    """What the owner of the cluster does."""


def _first_name(text: str) -> str:
    """The first invariant that a text names."""
    return next((word.rstrip(":") for word in text.split() if word.startswith("CK-")), "CK-7")
