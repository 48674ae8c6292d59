"""A simulated process: its loops, its context, its ports, its signals and its end."""

from __future__ import annotations

import asyncio
import random
import signal as signals
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import TYPE_CHECKING, Any

from actorflow._core.io.ports import Ports
from actorflow.testing.errors import SimulationMisuse
from actorflow.testing.loop import SimHandle, SimLoop
from actorflow.testing.network import SimNetwork

if TYPE_CHECKING:
    from actorflow.testing.executor import SimThread
    from actorflow.testing.world import World

WALL_TIME_START_S = 1_750_000_000.0
HARMLESS_SIGNALS = frozenset({0, signals.SIGCHLD, signals.SIGCONT, signals.SIGURG, signals.SIGWINCH})
"""Their default action is to do nothing."""
FOR_EVER = 1 << 30
"""As many holds as nobody takes back."""


class SimLock:
    """The ports' lock. There is one thread, so it never waits; it checks what would deadlock or race
    outside.

    LK-1: it is released within the handle that took it (never held across an `await`) and before the code
          blocks.
    """

    __slots__ = ("_step", "_world", "depth", "owner")

    def __init__(self, world: World, owner: str) -> None:
        self._world = world
        self.owner = owner
        self.depth = 0
        self._step = 0

    def __enter__(self) -> SimLock:
        if self.depth == 0:
            self._step = self._world.steps
        elif self._step != self._world.steps:
            raise SimulationMisuse(f"LK-1: the ports' lock of {self.owner} was held across an await")
        self.depth += 1
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.depth -= 1


class Host:
    """One simulated process. Made by `World.host`; lives until it exits, is killed, or its world is closed.

    HO-1: after its end no code of the host runs: not a callback, not a `finally`. Its tasks stay referenced
          and untouched until the world is closed; then, cut off from everything, they are closed
          (`disposal.py`).
    HO-2: all its callbacks see the context variables that `main` set at the start.
    """

    def __init__(self, world: World, name: str, machine: str, index: int) -> None:
        self.world = world
        self.name = name
        self.machine = machine
        self.index = index
        self.pid = world.next_pid()
        self.context = Context()
        self.alive = True
        self.exit_code: int | None = None
        self.signal: int | None = None
        self.ended_at = 0.0
        self.paused = False
        """True between `pause` and `unpause`."""
        self.wall_jump_s = 0.0
        """How far its wall clock has been set; the monotonic one cannot be."""
        self.signal_handlers: dict[int, tuple[SimLoop, Callable[..., object], tuple[Any, ...]]] = {}
        self.ignored_signals: set[int] = set()
        self.on_end: list[Callable[[Host], None]] = []
        """Called once, at the very moment of the end, by the world: for adapters such as SimProcesses."""
        self.on_output: Callable[[str, bytes], None] | None = None
        self.threads: list[SimThread] = []
        """Greenlets that hold user code of this process."""
        self.spare_loops: list[SimLoop] = []
        """Loops of blocked threads that wait for the next one (`executor.block_on`)."""
        self.programs: set[asyncio.Task[Any]] = set()
        """What runs as a program here. asyncio refers to tasks weakly, and one that waits for ever may be referred to by nothing but what
        it waits for: `asyncio.run` keeps its task outside, and so does its process here."""
        self.remains: list[Any] = []
        """What a dead host leaves behind, kept alive so that no `finally` runs (HO-1)."""
        self._pending_signals: list[int] = []
        self.loops: list[SimLoop] = []
        self.loop = self.new_loop("")
        self.network = SimNetwork(self)
        self.lock = SimLock(world, name)
        self.ports = self._make_ports()

    def __repr__(self) -> str:
        return f"Host({self.name})"

    def _make_ports(self) -> Ports:
        world = self.world
        # Each process counts from an origin of its own, far from the others': a timestamp that crosses by
        # mistake is absurd and not slightly wrong. Wall clocks differ by up to half a second.
        clocks = world.rng(f"clocks of {self.name}")
        origin_s = float(clocks.randrange(1, 1_000) * 4_096)
        wall_start_s = WALL_TIME_START_S + clocks.uniform(-0.5, 0.5)
        return Ports(
            loop=self.loop,
            network=self.network,
            rng=random.Random(f"{world.seed}/host/{self.name}"),
            monotonic=_ticking(world, origin_s) if world.clock_tick_s else lambda: world.now + origin_s,
            wall_time=lambda: world.now + wall_start_s + self.wall_jump_s,
            lock=self.lock,
            in_loop_thread=self.in_loop_thread,
        )

    def in_loop_thread(self) -> bool:
        """True for code of the host's first loop, as `Ports.in_loop_thread` wants it."""
        return asyncio._get_running_loop() is self.loop

    def new_loop(self, name: str) -> SimLoop:
        """Return one more loop of this process: it stands for a thread with a loop, such as the user's."""
        full_name = f"{self.name}/{name}" if name else self.name
        loop = SimLoop(self.world, self, full_name, self.world.next_loop_index())
        self.loops.append(loop)
        return loop

    # -- running code

    def start(self, main: Callable[[Host], Any]) -> None:
        """Run `main(host)` as the program of this process.

        When it returns a coroutine, the process ends with it: exit code 0, or the code of a SystemExit. Any
        other exception fails the simulation. When it returns something else, the process lives on until
        `exit` or a signal.
        """
        self.loop.push(SimHandle(self._boot, (main,), self.loop, self.context))

    def _boot(self, main: Callable[[Host], Any]) -> None:
        result = main(self)
        if asyncio.iscoroutine(result):
            task = self.loop.create_task(result, name=f"main of {self.name}", context=self.context)
            self.programs.add(task)
            task.add_done_callback(self._main_ended, context=self.context)

    def _main_ended(self, task: asyncio.Task[Any]) -> None:
        error: BaseException | None = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is not None:
            message = f"the main coroutine of {self.name} failed"
            self.loop.call_exception_handler({"message": message, "exception": error})
        self.exit(0 if error is None else 1)

    def run(self, coro: Coroutine[Any, Any, Any], name: str | None = None) -> asyncio.Task[Any]:
        """Start a task in this process from outside (a test); `world.run_until(task)` returns its result."""
        return self.loop.create_task(coro, name=name, context=self.context.copy())

    def write_output(self, stream: str, data: bytes) -> None:
        """Write to `stdout` or `stderr`; whoever started the process is told."""
        if self.alive and self.on_output is not None:
            self.on_output(stream, data)

    # -- the end

    def exit(self, code: int = 0) -> None:
        """End the process here and now, like `os._exit`: no further handle runs, and no `finally`."""
        self.end(exit_code=code)

    def end(self, *, exit_code: int | None = None, signal: int | None = None, quiet: bool = False) -> None:
        """Take the process out of the world. `quiet`: nobody is told, as when a machine loses its power.

        A host that ends itself finishes the handle it is in, but nothing that it does there leaves it.
        """
        if not self.alive:
            return
        world = self.world
        self.exit_code, self.signal, self.ended_at = exit_code, signal, world.now
        world.note(self.name, f"ends: exit code {exit_code}, signal {signal}{', unseen' if quiet else ''}")
        for loop in self.loops:
            self.remains.append(asyncio.all_tasks(loop))
            loop.hold()
            loop.holds += FOR_EVER
            loop.close()
        self.programs.clear()  # Those that wait are among the remains.
        self.remains.append(world.take_timers(self))
        self.network.host_ended(quiet=quiet)
        self.alive = False
        callbacks, self.on_end = self.on_end, []
        for callback in callbacks:
            callback(self)

    # -- signals

    def deliver_signal(self, signal: int) -> None:
        """What the kernel does with a signal: end, stop or continue the process, or call its handler."""
        if not self.alive:
            return
        if signal == signals.SIGKILL:
            self.end(signal=signal)
        elif signal == signals.SIGSTOP:
            self.pause()
        elif self.paused and signal != signals.SIGCONT:
            self._pending_signals.append(signal)
        else:
            if signal == signals.SIGCONT:
                self.unpause()
            self._handle_signal(signal)

    def _handle_signal(self, signal: int) -> None:
        handler = self.signal_handlers.get(signal)
        if handler is not None:
            loop, callback, args = handler
            loop.push(SimHandle(callback, args, loop, self.context))
        elif signal not in HARMLESS_SIGNALS and signal not in self.ignored_signals:
            self.end(signal=signal)

    def pause(self) -> None:
        """Stop the process (SIGSTOP, or a machine under load): nothing of it runs, bytes for it queue up."""
        if not self.paused and self.alive:
            self.paused = True
            for loop in self.loops:
                loop.hold()

    def unpause(self) -> None:
        """Let a stopped process go on."""
        if self.paused and self.alive:
            self.paused = False
            for loop in self.loops:
                loop.resume()
            pending, self._pending_signals = self._pending_signals, []
            for signal in pending:
                self.deliver_signal(signal)


def _ticking(world: World, origin_s: float) -> Callable[[], float]:
    """A clock that no two readings find at the same time, as a real one. It is ahead of the world's by no more than these."""
    last = origin_s

    def read() -> float:
        nonlocal last
        last = max(last + world.clock_tick_s, world.now + origin_s)
        return last

    return read
