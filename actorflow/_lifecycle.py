"""The life of a program's runtime: `af.init`, `af.shutdown`, `af.run`."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import importlib
import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TextIO, TypeVar

from actorflow import _runtime
from actorflow._core.base.errors import AlreadyInitializedError, NotInitializedError, OptionError, OptionTypeError

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from actorflow._core.boot.driver import Driver
    from actorflow._core.protocol.messages import WorkerLog

T = TypeVar("T")

ADDRESS_VARIABLE = "ACTORFLOW_ADDRESS"
MODES = ("processes", "in_process")


@dataclass(frozen=True, slots=True, kw_only=True)
class InitOptions:
    """The options of `af.init`, checked."""

    address: str = ""
    num_cpus: float | None = None
    num_gpus: float | None = None
    memory: int | None = None
    resources: tuple[tuple[str, float], ...] = ()
    object_store_memory: int | None = None
    namespace: str = "default"
    mode: str = "processes"
    inline: bool = False
    log_to_driver: bool = True
    cancel_grace: float = 5.0
    looks: bool = False

    def difference(self, other: InitOptions) -> str:
        """What is not the same, in words."""
        return ", ".join(
            f"{name}: {getattr(self, name)!r} is running, {getattr(other, name)!r} was asked for"
            for name in self.__slots__
            if getattr(self, name) != getattr(other, name)
        )


class Session:
    """What `af.init` gives: await it, or enter it with `async with` or `with`; a bare call is enough too.

    Leaving the block shuts the runtime down. Awaiting it gives the session itself.
    """

    def __init__(self, options: InitOptions) -> None:
        self.options = options
        self._driver: Driver | None = None
        self._ready: concurrent.futures.Future[None] | None = None
        self._inline_loop: asyncio.AbstractEventLoop | None = None
        self._wait_ready: Callable[[], None] | None = None
        self._pid = os.getpid()
        self._ended = False

    def __repr__(self) -> str:
        state = "ended" if self._ended else "running" if self._driver and self._driver.core else "starting"
        return f"<actorflow session, {state}>"

    # -- start

    def _begin(self) -> None:
        from actorflow._core.boot.driver import Driver

        driver = self._driver = Driver(self._driver_config(), print_log if self.options.log_to_driver else None)
        self._wait_ready = driver.begin(random.Random(os.urandom(32)))
        if self.options.inline:
            return
        from actorflow._core.boot.protocol_thread import ProtocolThread

        driver.protocol = ProtocolThread()
        driver.protocol.start()
        self._ready = driver.protocol.run(self._join())

    def _driver_config(self) -> Any:
        from actorflow._core.base.resources import parse_resources
        from actorflow._core.boot.driver import DriverConfig, arena_size, local_resources

        options = self.options
        own = local_resources(options.num_cpus, options.num_gpus, options.memory)
        totals = parse_resources(
            num_cpus=own["CPU"], num_gpus=own["GPU"], memory=int(own["memory"]), resources=dict(options.resources)
        )
        return DriverConfig(
            address=options.address,
            resources=totals,
            arena_bytes=arena_size(options.object_store_memory),
            namespace=options.namespace,
            inline=options.inline,
            in_process=options.mode == "in_process",
            looks=options.looks,
            cancel_grace_s=options.cancel_grace,
            prestart=max(1, min(int(own["CPU"]), 2)),
        )

    async def _join(self) -> None:
        assert self._driver is not None
        assert self._wait_ready is not None
        # While the node process starts: most of the time until the first result is imports.
        importlib.import_module("actorflow._core.worker.core")
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self._wait_ready)
        core = await self._driver.join()
        _runtime.set_process_runtime(core)
        self._announce()

    def _announce(self) -> None:
        driver = self._driver
        assert driver is not None
        what = "joined the cluster" if self.options.address else "started a local cluster"
        sys.stderr.write(f"actorflow: {what} at {driver.node_address}\n")

    def _wait(self) -> None:
        """Block until it runs."""
        if self._ready is None:
            raise NotInitializedError("af.init(inline=True) runs on your event loop: use `await af.init(inline=True)`")
        try:
            self._ready.result()
        except BaseException:
            self._failed()
            raise

    async def _wait_async(self) -> Self:
        try:
            if self._ready is not None:
                await asyncio.wrap_future(self._ready)
            elif self._driver is not None and self._driver.core is None:
                self._inline_loop = asyncio.get_running_loop()
                await self._join()
        except BaseException:
            self._failed()
            raise
        return self

    def _failed(self) -> None:
        _forget(self)
        self._ended = True
        if self._driver is not None:
            self._driver.kill()
            if self._driver.protocol is not None:
                self._driver.protocol.stop()

    # -- end

    async def _end_async(self) -> None:
        if self._leave():
            driver = self._driver
            assert driver is not None
            try:
                if driver.protocol is not None:
                    await asyncio.wrap_future(driver.protocol.run(driver.part()))
                    driver.protocol.stop()
                else:
                    await driver.part()
            finally:
                # Whatever went wrong with the farewell: the processes end.
                await asyncio.get_running_loop().run_in_executor(None, driver.reap)

    def _end(self) -> None:
        if self._leave():
            from actorflow._core.io.blocking import close_thread_loop

            driver = self._driver
            assert driver is not None
            if driver.protocol is not None:
                driver.protocol.run(driver.part()).result()
                driver.protocol.stop()
                driver.reap()
            else:
                # The loop that carried the protocol is gone: the node sees our sockets close.
                driver.kill()
            close_thread_loop()

    def _leave(self) -> bool:
        """True for the one who is to clean up."""
        _forget(self)
        if self._ended or self._pid != os.getpid() or self._driver is None:
            return False
        self._ended = True
        return True

    # -- the four forms

    def __await__(self) -> Generator[Any, None, Self]:
        return self._wait_async().__await__()

    async def __aenter__(self) -> Self:
        return await self._wait_async()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        await self._end_async()

    def __enter__(self) -> Self:
        if self.options.inline:
            self._failed()
        self._wait()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._end()


_session: Session | None = None
_guard = threading.Lock()


def _forget(session: Session) -> None:
    global _session
    with _guard:
        if _session is session:
            _session = None
            _runtime.set_process_runtime(None)


def _options(given: dict[str, Any]) -> InitOptions:
    from actorflow._core.base.resources import parse_bytes

    values = dict(given)
    if values["address"] is None:
        values["address"] = os.environ.get(ADDRESS_VARIABLE, "")
    for name in ("memory", "object_store_memory"):
        if values[name] is not None:
            values[name] = parse_bytes(name, values[name])
    values["resources"] = tuple(sorted((values["resources"] or {}).items()))
    if values["mode"] not in MODES:
        raise OptionError(f"af.init(mode={values['mode']!r}): known modes are {', '.join(map(repr, MODES))}")
    for name in ("num_cpus", "num_gpus"):
        number = values[name]
        if number is not None and (isinstance(number, bool) or not isinstance(number, (int, float))):
            raise OptionTypeError(f"af.init({name}={number!r}): a number is needed, not {type(number).__name__}")
        if number is not None and not number >= 0:
            raise OptionError(f"af.init({name}={number!r}): it cannot be negative; leave it out to use what this machine has")
    grace = values["cancel_grace"]
    if isinstance(grace, bool) or not isinstance(grace, (int, float)):
        raise OptionTypeError(f"af.init(cancel_grace={grace!r}): seconds are needed, a number and not {type(grace).__name__}")
    if not 0 <= grace < float("inf"):
        raise OptionError(f"af.init(cancel_grace={grace!r}): seconds are needed, 0 or more; 0 kills what does not end at once")
    if values["inline"] and values["mode"] != "processes":
        raise OptionError("af.init(inline=True) is for mode='processes': in_process runs in this process already")
    return InitOptions(**values)


def look(address: str) -> Session:
    """Join a cluster for `af.state` only: this program does not show up as a job there, and may call nothing."""
    return _start(InitOptions(address=address, log_to_driver=False, looks=True))


def init(
    *,
    address: str | None = None,
    num_cpus: float | None = None,
    num_gpus: float | None = None,
    memory: int | str | None = None,
    resources: dict[str, float] | None = None,
    object_store_memory: int | str | None = None,
    namespace: str = "default",
    mode: Literal["processes", "in_process"] = "processes",
    inline: bool = False,
    log_to_driver: bool = True,
    cancel_grace: float = 5.0,
) -> Session:
    """Start actorflow in this process. One object for every form: `await af.init()`, `async with`, `with`, or a bare call.

    `address`: None takes ACTORFLOW_ADDRESS, else starts a new local cluster; "auto" joins the cluster of this user on this host.
    `num_cpus`, `num_gpus`, `memory` (bytes or "4GiB"), `resources`: what the local cluster offers; by default what the machine has.
    `object_store_memory`: size of the shared memory for large objects; by default 30 % of the machine's.
    `namespace`: where the names of this program's actors live. `inline`: carry the protocol on the running loop and not in a thread of
    its own: faster by some microseconds a call, but code that blocks the loop then blocks the protocol too.
    `cancel_grace`: seconds that a cancelled task of this cluster has to end before its worker is killed.
    `mode="in_process"`: workers are threads of this process, for pdb and coverage.

    The same options twice give the same session. Raises AlreadyInitializedError for others, ClusterStartError, ClusterConnectionError,
    OptionError. No signal handler is installed.
    """
    return _start(_options(dict(locals())))


def _start(options: InitOptions) -> Session:
    global _session
    with _guard:
        running = _session
        if running is not None and running._pid == os.getpid():
            if running.options == options:
                return running
            raise AlreadyInitializedError(
                f"actorflow runs in this process with other options ({running.options.difference(options)}): "
                "call af.shutdown() first, or use the running one"
            )
        session = _session = Session(options)
    try:
        session._begin()
    except BaseException:
        _forget(session)
        raise
    if asyncio._get_running_loop() is None and not options.inline:
        session._wait()
    else:
        _runtime.set_starting(session._wait)
    return session


def is_initialized() -> bool:
    """True while actorflow runs in this process (a driver's own, or as a worker)."""
    return _session is not None or _runtime.current_or_none() is not None


class _Shutdown:
    """Work that is done at once in blocking code, and awaited on a loop."""

    def __init__(self, session: Session | None) -> None:
        self._session = session

    def __await__(self) -> Generator[Any, None, None]:
        return self._run().__await__()

    async def _run(self) -> None:
        if self._session is not None:
            await self._session._end_async()


def shutdown() -> _Shutdown:
    """End the runtime of this process: `await af.shutdown()` on a loop, a bare call elsewhere. A second call does nothing.

    A local cluster that this process started ends with it: no process, socket or shared memory is left.
    """
    session = _session
    if asyncio._get_running_loop() is None and session is not None:
        session._end()
    return _Shutdown(session)


def run(main: Callable[[], Coroutine[Any, Any, T]] | Coroutine[Any, Any, T], **init_options: Any) -> T:
    """Run `main` to its end: a new event loop (uvloop), a local cluster, `main()`, and a clean end of both. Returns what `main` returns.

    `init_options` are those of `af.init`. Ctrl-C or SIGTERM once cancels `main`, so that its `finally` blocks run; twice gives up on
    async cleanup, and the cluster cleans up by itself.
    """
    from actorflow._core.io.loops import new_loop

    if asyncio._get_running_loop() is not None:
        raise RuntimeError("af.run starts a loop of its own, and one is running here already: use `async with af.init(): ...`")

    terminated: list[int] = []

    async def program() -> T:
        with _sigterm_cancels(terminated):
            async with init(**init_options):
                return await (main() if callable(main) else main)

    try:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            return runner.run(program())
    except asyncio.CancelledError:
        if terminated:
            # What a shell expects of a program that SIGTERM has ended in order.
            raise SystemExit(128 + signal.SIGTERM) from None
        raise
    finally:
        if _session is not None:
            _session._end()


@contextlib.contextmanager
def _sigterm_cancels(terminated: list[int]) -> Generator[None, None, None]:
    """SIGTERM counts as the first Ctrl-C (SEMANTICS 27)."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    if task is None or threading.current_thread() is not threading.main_thread() or sys.platform == "win32":
        yield
        return

    def cancel() -> None:
        terminated.append(signal.SIGTERM)
        task.cancel()

    loop.add_signal_handler(signal.SIGTERM, cancel)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


def print_log(message: WorkerLog) -> None:
    """Show what a worker printed, with a short prefix."""
    out = sys.stderr if message.stream == "stderr" else sys.stdout
    prefix = f"({message.name} pid={message.pid})"
    lines = [f"{prefix} {line}\n" for line in message.lines]
    if message.dropped:
        lines.append(f"{prefix} ... {message.dropped} more lines were not sent; the worker's log file has them\n")
    _write_lines(out, "".join(lines))


_printing = threading.Lock()


def _write_lines(out: TextIO, text: str) -> None:
    """Write whole lines, in one go, and not into the middle of a line that the program itself is printing."""
    buffer = getattr(out, "buffer", None) if getattr(out, "line_buffering", False) else None
    with _printing:
        if buffer is not None:
            # A terminal. What Python's text layer keeps back is a line that is not complete yet: ours go in front of it.
            # (With `python -u` it keeps nothing back, and nobody knows whether a line is complete.)
            buffer.write(text.encode(out.encoding or "utf-8", out.errors or "replace"))
            buffer.flush()
        else:
            # It keeps complete lines back too, and those come first.
            out.write(text)
            out.flush()


@atexit.register
def _at_exit() -> None:
    """A program that forgot to shut down: in the pid that made the runtime only (SEMANTICS 26)."""
    session = _session
    if session is not None and session._pid == os.getpid():
        session._end()
