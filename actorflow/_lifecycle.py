"""The life of a program's runtime: `af.init`, `af.shutdown`, `af.run`.

The node process is started before asyncio and the rest are imported here: most of the time until the first result is imports.
"""

from __future__ import annotations

import atexit
import contextlib
import math
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar

from actorflow import _runtime
from actorflow._core.base.errors import AlreadyInitializedError, OptionError, OptionTypeError
from actorflow._core.base.texts import check_encodable

if TYPE_CHECKING:
    from actorflow._core.boot.node_launch import ClusterPlan
    from actorflow._interrupt import Watch
    from actorflow._session import Session

T = TypeVar("T")

ADDRESS_VARIABLE = "ACTORFLOW_ADDRESS"
MODES = ("processes", "in_process")

refuse: Callable[[str], NoReturn] | None = None
"""Raises, where a program has a runtime that is not this process's: set by the simulation while its code runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InitOptions:
    """The options of `af.init`, checked."""

    address: str = ""
    num_cpus: float | None = None
    num_gpus: float | None = None
    memory: int | None = None
    resources: tuple[tuple[str, float], ...] = ()
    object_store_memory: int | None = None
    object_spilling_directory: str = ""
    namespace: str = "default"
    mode: str = "processes"
    inline: bool = False
    log_to_driver: bool = True
    cancel_grace: float = 5.0
    memory_usage_threshold: float = 0.95
    looks: bool = False

    def difference(self, other: InitOptions) -> str:
        """What is not the same, in words."""
        return ", ".join(
            f"{name}: {getattr(self, name)!r} is running, {getattr(other, name)!r} was asked for"
            for name in self.__slots__
            if getattr(self, name) != getattr(other, name)
        )


_session: Session | None = None
_guard = threading.RLock()


def _forget(session: Session) -> None:
    global _session
    with _guard:
        if _session is session:
            _session = None
            _runtime.set_process_runtime(None)


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise OptionTypeError(f"af.init({name}={value!r}): text is needed, not {type(value).__name__}")
    if "\0" in value:
        raise OptionError(f"af.init({name}={value!r}): it has a NUL character; take that out")
    check_encodable(name, value)


def _options(given: dict[str, Any]) -> InitOptions:
    from actorflow._core.base.resources import parse_bytes, parse_resources
    from actorflow._core.policy.memory_watch import check_memory_threshold

    values = dict(given)
    if values["address"] is None:
        values["address"] = os.environ.get(ADDRESS_VARIABLE, "")
    for name in ("address", "namespace"):
        _check_text(name, values[name])
    if not values["namespace"].strip():
        raise OptionError(f"af.init(namespace={values['namespace']!r}): it is empty; give it a name, or leave it out")
    for name in ("inline", "log_to_driver"):
        if not isinstance(values[name], bool):
            raise OptionTypeError(f"af.init({name}={values[name]!r}): True or False is needed, not {type(values[name]).__name__}")
    for name in ("memory", "object_store_memory"):
        if values[name] is not None:
            values[name] = parse_bytes(name, values[name])
    if values["object_spilling_directory"] is not None:
        from actorflow._core.io.spill_target import check_target

        values["object_spilling_directory"] = check_target("af.init", values["object_spilling_directory"])
    else:
        values["object_spilling_directory"] = ""
    if values["resources"] is not None:
        parse_resources(resources=values["resources"])
    values["resources"] = tuple(sorted((values["resources"] or {}).items()))
    if values["mode"] not in MODES:
        raise OptionError(f"af.init(mode={values['mode']!r}): known modes are {', '.join(map(repr, MODES))}")
    for name in ("num_cpus", "num_gpus"):
        number = values[name]
        if number is not None and (isinstance(number, bool) or not isinstance(number, (int, float))):
            raise OptionTypeError(f"af.init({name}={number!r}): a number is needed, not {type(number).__name__}")
        if number is not None and not math.isfinite(number):
            raise OptionError(f"af.init({name}={number!r}): a finite number is needed; leave it out to use what this machine has")
        if number is not None and number < 0:
            raise OptionError(f"af.init({name}={number!r}): it cannot be negative; leave it out to use what this machine has")
    grace = values["cancel_grace"]
    if isinstance(grace, bool) or not isinstance(grace, (int, float)):
        raise OptionTypeError(f"af.init(cancel_grace={grace!r}): seconds are needed, a number and not {type(grace).__name__}")
    if not 0 <= grace < float("inf"):
        raise OptionError(f"af.init(cancel_grace={grace!r}): seconds are needed, 0 or more; 0 kills what does not end at once")
    check_memory_threshold("af.init", values["memory_usage_threshold"])
    if values["inline"] and values["mode"] != "processes":
        raise OptionError("af.init(inline=True) is for mode='processes': in_process runs in this process already")
    return InitOptions(**values)


def init(
    *,
    address: str | None = None,
    num_cpus: float | None = None,
    num_gpus: float | None = None,
    memory: int | str | None = None,
    resources: dict[str, float] | None = None,
    object_store_memory: int | str | None = None,
    object_spilling_directory: str | os.PathLike[str] | None = None,
    namespace: str = "default",
    mode: Literal["processes", "in_process"] = "processes",
    inline: bool = False,
    log_to_driver: bool = True,
    cancel_grace: float = 5.0,
    memory_usage_threshold: float = 0.95,
) -> Session:
    """Start actorflow in this process. One object for every form: `await af.init()`, `async with`, `with`, or a bare call.

    `address`: None takes ACTORFLOW_ADDRESS, else starts a new local cluster, as "" does in any case; "auto" joins the cluster of this
    user on this host.
    `num_cpus`, `num_gpus`, `memory` (bytes or "4GiB"), `resources`: what the local cluster offers; by default what the machine has.
    GPUs and TPUs are found; `num_gpus=0` hides them, and `resources={"TPU": 0}` those.
    `object_store_memory`: size of the shared memory for large objects; by default 30 % of the machine's. `object_spilling_directory`: where
    the local cluster puts those for which there is no room, a directory or a URI (s3://bucket/path); by default the session directory.
    `namespace`: where the names of this program's actors live. `inline`: carry the protocol on the running loop and not in a thread of
    its own: faster by some microseconds a call, but code that blocks the loop then blocks the protocol too.
    `cancel_grace`: seconds that a cancelled task of the local cluster has to end before its worker is killed. Where a program joins, that
    is for the nodes to say (`actorflow start --cancel-grace`), as their resources are.
    `memory_usage_threshold`: the share of the machine's memory, or of the control group's, above which workers of the local cluster are
    ended, the newest work that is tried again first; 0 leaves that to the system.
    `mode="in_process"`: workers are threads of this process, for pdb and coverage.

    The same options twice give the same session. Raises AlreadyInitializedError for others, ClusterStartError, ClusterConnectionError,
    OptionError. No signal handler is installed.
    """
    session = _open(_options(dict(locals())))
    if not session.options.inline and _may_block():
        session._wait()
    return session


def look(address: str) -> Session:
    """Join a cluster for `af.state` only: this program does not show up as a job there, and may call nothing."""
    return _open(InitOptions(address=address, log_to_driver=False, looks=True))


def _open(options: InitOptions) -> Session:
    """The running session, or a new one that is on its way."""
    global _session
    if refuse is not None:
        refuse("af.init")
    with _guard:
        running = _session
        if running is not None and running._pid == os.getpid():
            if running.options == options:
                running._asked_again += 1
                return running
            raise AlreadyInitializedError(
                f"actorflow runs in this process with other options ({running.options.difference(options)}): "
                "call af.shutdown() first, or use the running one"
            )
        plan = _plan(options)
        from actorflow._core.boot.node_launch import launch

        local = launch(plan)
        try:
            from actorflow._session import Session

            _session = Session(options, plan, local, _forget)
        except BaseException:
            if local is not None:
                local.kill()
            raise
    _runtime.set_starting(_session._wait)
    return _session


def _on_a_loop() -> bool:
    """True while an event loop runs on this thread."""
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and asyncio._get_running_loop() is not None


def _may_block() -> bool:
    """False on a loop that has other things to do: anywhere but in a notebook, whose cells block it as they like (SEMANTICS 28)."""
    if not _on_a_loop():
        return True
    from actorflow._core.io.notebook import in_notebook

    return in_notebook()


def _plan(options: InitOptions) -> ClusterPlan:
    from actorflow._core.base.resources import parse_resources
    from actorflow._core.boot.node_launch import ClusterPlan, arena_size, check_simulated_devices, given_devices, local_resources

    own = local_resources(options.num_cpus, options.num_gpus, options.memory)
    devices = given_devices(options.num_gpus, dict(options.resources))
    if not options.address:
        check_simulated_devices()
    totals = parse_resources(num_cpus=own["CPU"], num_gpus=own["GPU"], memory=int(own["memory"]), resources=dict(options.resources))
    return ClusterPlan(
        address=options.address,
        resources=totals,
        arena_bytes=arena_size(options.object_store_memory, "af.init"),
        spill=options.object_spilling_directory,
        namespace=options.namespace,
        in_process=options.mode == "in_process",
        cancel_grace_s=options.cancel_grace,
        memory_threshold=options.memory_usage_threshold,
        looks=options.looks,
        devices=devices,
        prestart=max(1, min(int(own["CPU"]), 2)),
    )


_INIT_DEFAULTS: dict[str, Any] = dict(init.__kwdefaults__ or {})


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
    if session is not None and _may_block() and not (session.options.inline and _on_a_loop()):
        session._end()
    return _Shutdown(session)


def run(main: Callable[[], Coroutine[Any, Any, T]] | Coroutine[Any, Any, T], **init_options: Any) -> T:
    """Run `main` to its end: a new event loop (uvloop), a local cluster, `main()`, and a clean end of both. Returns what `main` returns.

    Tasks of the loop that are left when `main` has ended are cancelled, and may still call: the cluster ends after them, or after 1 s.

    `init_options` are those of `af.init`. Ctrl-C or SIGTERM once cancels `main`, so that its `finally` blocks run, and
    prints the line where it stands when it goes on; twice gives up on async cleanup, and the cluster cleans up by itself.
    """
    if refuse is not None:
        refuse("af.run")
    if _on_a_loop():
        raise RuntimeError(
            "af.run starts a loop of its own, and one is running here already: use `async with af.init(): ...`, "
            "or in a notebook `af.init()` in a cell and `await main()` in the next"
        )
    if unknown := init_options.keys() - _INIT_DEFAULTS.keys():
        known = ", ".join(_INIT_DEFAULTS)
        raise TypeError(f"run() got an unexpected keyword argument {min(unknown)!r}; the options of af.init are {known}")
    if not callable(main) and not isinstance(main, Awaitable):
        raise TypeError(f"af.run takes an `async def` function or what it returns, not {type(main).__name__}: write af.run(main)")
    before = _session
    try:
        session = _open(_options({**_INIT_DEFAULTS, **init_options}))
    except BaseException:
        if isinstance(main, Coroutine):
            main.close()
        raise
    try:
        return _run(main, session)
    finally:
        if _session is not None and _session is not before:
            _session._end()


def _run(main: Callable[[], Coroutine[Any, Any, T]] | Coroutine[Any, Any, T], session: Session) -> T:
    import asyncio
    import signal

    from actorflow._core.io.loops import new_loop
    from actorflow._interrupt import give_up, watching
    from actorflow._leftovers import cancel_leftovers

    terminated: list[int] = []
    watches: list[Watch] = []

    async def program() -> T:
        with watching() as watch, _sigterm_cancels(terminated, watch):
            watches.append(watch)
            async with session:
                try:
                    return await (main() if callable(main) else main)
                finally:
                    watch.stop()  # From here on it is not main() that does not end.
                    await cancel_leftovers()

    try:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            try:
                return runner.run(program())
            except KeyboardInterrupt:
                if watches and not watches[0].task.done():
                    give_up(runner.get_loop())
                raise
    except asyncio.CancelledError:
        if terminated:
            # What a shell expects of a program that SIGTERM has ended in order.
            raise SystemExit(128 + signal.SIGTERM) from None
        raise


@contextlib.contextmanager
def _sigterm_cancels(terminated: list[int], watch: Watch) -> Generator[None, None, None]:
    """SIGTERM counts as the first Ctrl-C (SEMANTICS 27)."""
    import asyncio
    import signal

    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    if task is None or threading.current_thread() is not threading.main_thread() or sys.platform == "win32":
        yield
        return

    def cancel() -> None:
        terminated.append(signal.SIGTERM)
        watch.cancelled("SIGTERM")
        task.cancel()

    loop.add_signal_handler(signal.SIGTERM, cancel)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


def _in_child() -> None:
    """A fork by the user: the session is the parent's, and so is whoever holds a lock (SEMANTICS 29)."""
    global _session, _guard
    session, _session = _session, None
    _guard = threading.RLock()
    if session is not None:
        session._forked()
        _runtime.forked(session._pid, session.address)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


@atexit.register
def _at_exit() -> None:
    """A program that forgot to shut down: in the pid that made the runtime only (SEMANTICS 26)."""
    session = _session
    if session is not None and session._pid == os.getpid():
        session._end()
