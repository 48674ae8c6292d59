"""A world: simulated processes, one clock, one seed.

All code of all processes runs in the thread that calls `run_until`, one handle at a time. Which process
goes next is drawn from the seed; the virtual clock moves only when no process has anything to do, to the
earliest timer.

WO-1: the same seed and the same program give the same trace (see `trace.py` for what may spoil it).
WO-2: draws for one purpose do not shift those for another: each has a generator of its own (`rng`).
WO-3: a run ends: by its result, by a failure, at its bound of virtual time, or at the bound of handles.
"""

from __future__ import annotations

import asyncio
import gc
import random
import signal as signals
from collections.abc import Callable, Coroutine
from heapq import heapify, heappop, heappush
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from actorflow._core.base.errors import OptionTypeError
from actorflow._core.io.ports import Ports
from actorflow.testing.disposal import dispose
from actorflow.testing.errors import SimulationFailed, SimulationMisuse, SimulationStuck
from actorflow.testing.fabric import Fabric
from actorflow.testing.hooks import Action, Hooks
from actorflow.testing.host import Host
from actorflow.testing.links import LinkProfile
from actorflow.testing.loop import SimLoop, SimTimer
from actorflow.testing.misuse import check_moment
from actorflow.testing.report import describe
from actorflow.testing.sandbox import Sandbox
from actorflow.testing.trace import Trace

T = TypeVar("T")

MACHINE = "machine-1"
STEPS_MAX = 2_000_000
TIMEOUT_S = 600.0
COLLECT_STEPS = 20_000
"""The cyclic garbage collector runs at multiples of this step, and at no other time."""


class World:
    """One simulation. Use it as a context manager, so that what it leaves behind is taken down in order."""

    def __init__(
        self,
        seed: int,
        *,
        links: LinkProfile | None = None,
        steps_max: int = STEPS_MAX,
        detail: bool = False,
        clock_tick_s: float = 0.0,
    ) -> None:
        if isinstance(seed, bool) or not isinstance(seed, int):
            # Any object would do to draw from, but a run is to be repeated by what its report shows.
            raise OptionTypeError(f"World(seed={seed!r}): a whole number is needed, not {type(seed).__name__}", option="seed")
        self.seed = seed
        self.clock_tick_s = clock_tick_s
        """How far a monotonic clock moves, at least, between two readings of it. 0: all that runs in one moment reads the same time."""
        self.now = 0.0
        """Virtual seconds since the start."""
        self.steps = 0
        """Handles run so far."""
        self.messages = 0
        """Deliveries of bytes so far."""
        self.steps_max = steps_max
        self.ready: list[SimLoop] = []
        self.timers_cancelled = 0
        self.trace = Trace(detail)
        self.late_errors: list[str] = []
        """What code of dead processes raised while it was taken down: nobody's failure."""
        self.hosts: dict[str, Host] = {}
        """All processes ever made, dead ones included, by name, oldest first."""
        self._rngs: dict[str, random.Random] = {}
        self._order = self.rng("order").random
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._failures: list[tuple[str, BaseException | None]] = []
        self._numbers = 0
        self._timer_numbers = 0
        self._loop_indexes = 0
        self._pids = 1_000
        self._hooks = Hooks()
        self._next_collect = COLLECT_STEPS
        self._stop_at = 0
        self._sandbox = Sandbox()
        self.fabric = Fabric(self, links or LinkProfile())
        self.outside = self.host("outside", machine="outside")
        """A host for the harness itself: hooks run on its loop, and it may call into any process."""
        self._set_stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # -- numbers and chance

    def rng(self, purpose: str) -> random.Random:
        """The generator for one purpose: the same object for the same name (WO-2)."""
        rng = self._rngs.get(purpose)
        if rng is None:
            rng = self._rngs[purpose] = random.Random(f"{self.seed}/{purpose}")
        return rng

    def next_number(self) -> int:
        """A fresh number, for hashes and names that are the same in every run."""
        self._numbers += 1
        return self._numbers

    def next_loop_index(self) -> int:
        """The index of a new loop."""
        self._loop_indexes += 1
        return self._loop_indexes - 1

    def next_pid(self) -> int:
        """The process id of a new host."""
        self._pids += 1
        return self._pids

    def note(self, who: str, what: str) -> None:
        """Record something in the trace."""
        self.trace.note(self.now, who, what)

    # -- processes

    def host(self, name: str, *, machine: str = MACHINE) -> Host:
        """Return a new simulated process; `host.start(main)` gives it a program.

        Unix sockets join the processes of one machine. Names are not used again, not even after a death.
        """
        if name in self.hosts:
            raise SimulationMisuse(f"there is, or was, a host {name!r} already: give this life another name")
        host = Host(self, name, machine, len(self.hosts))
        self.hosts[name] = host
        return host

    def start(self, name: str, main: Callable[[Host], Any], *, machine: str = MACHINE) -> Host:
        """Make a process and start its program."""
        host = self.host(name, machine=machine)
        host.start(main)
        return host

    def ports(self, host: Host) -> Ports:
        """The ports of a process."""
        return host.ports

    def living(self) -> list[Host]:
        """The processes that are alive, oldest first, without `outside`."""
        return [host for host in self.hosts.values() if host.alive and host is not self.outside]

    def kill(self, host: Host, signal: int = signals.SIGKILL) -> None:
        """Send a signal from outside."""
        if host.alive:
            self.note(host.name, f"gets signal {int(signal)}")
            host.deliver_signal(int(signal))

    def power_off(self, host: Host) -> None:
        """The machine of this process loses its power: no peer is told, its connections are half open."""
        host.end(signal=int(signals.SIGKILL), quiet=True)

    # -- timers (for the loops and the adapters)

    def add_timer(self, when: float, timer: asyncio.TimerHandle) -> None:
        """Push `timer` to its loop at `when`."""
        self._timer_numbers += 1
        timers = self._timers
        heappush(timers, (when, self._timer_numbers, timer))
        if self.timers_cancelled > 200 and self.timers_cancelled * 2 > len(timers):
            timers[:] = [entry for entry in timers if not entry[2].cancelled()]
            heapify(timers)
            self.timers_cancelled = 0

    def at_host(
        self, host: Host, when: float, callback: Callable[..., object], *args: Any
    ) -> asyncio.TimerHandle:
        """Call back on the loop of `host` at a virtual time; dropped when the host is dead by then."""
        timer = SimTimer(when, callback, args, host.loop, host.context)
        if host.alive:
            self.add_timer(when, timer)
        return timer

    @property
    def has_run(self) -> bool:
        """True once simulated code has run."""
        return self.steps > 0

    def timers(self) -> list[tuple[float, SimLoop]]:
        """When which loop has a timer, earliest first."""
        return [(when, _loop_of(timer)) for when, _, timer in sorted(self._timers) if not timer.cancelled()]

    def take_timers(self, host: Host) -> list[asyncio.TimerHandle]:
        """Remove and return the timers of a host that ended."""
        taken = [timer for _, _, timer in self._timers if _loop_of(timer).host is host]
        self._timers[:] = [entry for entry in self._timers if _loop_of(entry[2]).host is not host]
        heapify(self._timers)
        return taken

    # -- hooks

    def at_step(self, step: int, action: Action) -> None:
        """Call `action` before handle number `step` of the world (counted from 0)."""
        check_moment("at_step", step, self.steps)
        self._hooks.add_step(step, action)
        self._set_stop()

    def at_message(self, number: int, action: Action) -> None:
        """Call `action` when delivery `number` (counted from 1) has arrived, before its receiver sees it."""
        self._hooks.add_message(number, action)

    def at_handle(self, host: Host, number: int, action: Action) -> None:
        """Call `action` before handle `number` (counted from 0) of the first loop of `host`."""
        self._hooks.add_handle(host.loop.index, number, action)
        host.loop.stop_at = self._hooks.next_handle(host.loop.index)

    def at_time(self, when: float, action: Action) -> asyncio.TimerHandle:
        """Call `action` at a virtual time."""
        check_moment("at_time", when, self.now)
        return self.at_host(self.outside, when, action)

    def delivered(self, host: Host, data: bytes) -> None:
        """Bytes arrived at `host` (called by the streams)."""
        self.messages += 1
        self.trace.message(self.now, host.index, host.name, data)
        for action in self._hooks.due_messages(self.messages):
            action()

    def _set_stop(self) -> None:
        self._stop_at = min(self.steps_max, self._next_collect, self._hooks.next_step())

    def _at_stop(self) -> None:
        """Do what is due before this step: rare, and off the hot path."""
        if self.steps >= self._next_collect:
            self._next_collect += COLLECT_STEPS
            self._act([gc.collect])
        self._act(self._hooks.due_steps(self.steps))
        if self.steps >= self.steps_max:
            raise SimulationStuck(describe(self, f"{self.steps} handles ran, which is the bound (steps_max)"))
        self._set_stop()

    def _at_handle(self, loop: SimLoop) -> None:
        self._act(self._hooks.due_handles(loop.index, loop.ran))
        loop.stop_at = self._hooks.next_handle(loop.index)

    def _act(self, actions: list[Action]) -> None:
        asyncio._set_running_loop(self.outside.loop)
        for action in actions:
            action()

    # -- failures

    def report(self, loop: SimLoop, context: dict[str, Any]) -> None:
        """Code of a living process let something escape: the run ends with SimulationFailed."""
        error = context.get("exception")
        what = context.get("message", "unhandled exception")
        culprit = context.get("task") or context.get("future") or context.get("handle")
        text = f"{loop.name}: {what}"
        if error is not None:
            text += f" ({error!r})"
        if culprit is not None:
            text += f" in {culprit!r}"
        self.note(loop.name, f"failure: {what}: {type(error).__name__}")
        self._failures.append((text, error))

    def _raise_failure(self) -> None:
        (text, error), more = self._failures[0], len(self._failures) - 1
        self._failures.clear()
        also = f" (and {more} more)" if more else ""
        where = f"seed {self.seed}, step {self.steps}, time {self.now:.6f}"
        tail = self.trace.tail(15)
        raise SimulationFailed(f"{where}: {text}{also}\nLast entries of the trace:\n{tail}") from error

    # -- running

    @overload
    def run_until(self, what: asyncio.Future[T], timeout_s: float = TIMEOUT_S) -> T: ...

    @overload
    def run_until(self, what: Callable[[], bool], timeout_s: float = TIMEOUT_S) -> None: ...

    def run_until(
        self, what: asyncio.Future[T] | Callable[[], bool], timeout_s: float = TIMEOUT_S
    ) -> T | None:
        """Run until the future is done, and return its result; or until the predicate is true.

        Raises SimulationStuck when that does not happen within `timeout_s` virtual seconds, or when nothing
        is left that could make it happen; SimulationFailed when code of a living process lets an exception
        escape.
        """
        done = what.done if isinstance(what, asyncio.Future) else what
        if not self._run(done, self.now + timeout_s):
            why = "nothing is left that could make it happen"
            if self._timers:
                why = f"it did not happen within {timeout_s} virtual seconds"
            raise SimulationStuck(describe(self, why))
        return what.result() if isinstance(what, asyncio.Future) else None

    def run(self, coro: Coroutine[Any, Any, T], timeout_s: float = TIMEOUT_S) -> T:
        """Run a coroutine of the harness on the `outside` host, and return its result."""
        task: asyncio.Task[T] = self.outside.run(coro)
        return self.run_until(task, timeout_s)

    def run_for(self, seconds: float) -> None:
        """Let that much virtual time pass, whatever happens or does not."""
        until = self.now + seconds
        self._run(lambda: False, until)
        self.now = until

    def step(self) -> bool:
        """Run one handle, after moving the clock if need be; False when nothing is left to do."""
        after = self.steps + 1
        return self._run(lambda: self.steps >= after, float("inf"))

    def _run(self, done: Callable[[], bool], deadline: float) -> bool:
        """The hot loop. True when `done()`; False at the deadline or when nothing is left."""
        ready, trace, failures, pick = self.ready, self.trace, self._failures, self._order
        set_running = asyncio._set_running_loop
        finished = True
        with self._sandbox.entered():
            while not failures and not done():
                if not ready and not self._advance(deadline):
                    finished = False
                    break
                if self.steps >= self._stop_at:
                    self._at_stop()
                    continue
                count = len(ready)
                at = int(pick() * count) if count > 1 else 0
                loop = ready[at]
                if loop.ran == loop.stop_at:
                    self._at_handle(loop)
                    continue
                queue = loop.queue
                handle: Any = queue.popleft()
                if not queue:
                    loop.listed = False
                    last = ready.pop()
                    if last is not loop:
                        ready[at] = last
                if handle._cancelled:
                    continue
                self.steps += 1
                loop.ran += 1
                trace.state = hash((trace.state, loop.index, self.now))
                if trace.detail:
                    trace.handle(self.now, loop.name, handle._callback)
                set_running(loop)
                try:
                    handle._context.run(handle._callback, *handle._args)
                except BaseException as error:
                    self._escaped(loop, handle, error)
        if failures:
            self._raise_failure()
        return finished

    def _escaped(self, loop: SimLoop, handle: asyncio.Handle, error: BaseException) -> None:
        if isinstance(error, KeyboardInterrupt):
            raise error
        if isinstance(error, SystemExit):
            code = error.code
            loop.host.exit(0 if code is None else code if isinstance(code, int) else 1)
            return
        message = "exception in a callback"
        loop.call_exception_handler({"message": message, "exception": error, "handle": handle})

    def _advance(self, deadline: float) -> bool:
        """Move the clock to the earliest timer and make ready what is due; False when none is in time."""
        timers = self._timers
        while timers and not self.ready:
            when = timers[0][0]
            timer: Any = timers[0][2]
            if timer._cancelled:
                heappop(timers)
                self.timers_cancelled -= 1
                continue
            if when > deadline:
                self.now = max(self.now, deadline)
                return False
            if when > self.now:
                self.now = when
            while timers and timers[0][0] <= self.now:
                timer = heappop(timers)[2]
                timer._scheduled = False
                if timer._cancelled:
                    self.timers_cancelled -= 1
                else:
                    timer._loop.push(timer)
        return bool(self.ready)

    def close(self) -> None:
        """End the world.

        What dead processes left is closed here, cut off from everything (HO-1, `disposal.py`).
        """
        if self._sandbox.inside:
            raise SimulationMisuse("the world runs: simulated code cannot close it")
        if not self._sandbox.closed:
            for host in self.hosts.values():
                host.end(exit_code=0, quiet=True)
            self._timers.clear()
            dispose(self)
            self._sandbox.close()


def _loop_of(timer: asyncio.TimerHandle) -> SimLoop:
    return timer._loop  # type: ignore[attr-defined,no-any-return]
