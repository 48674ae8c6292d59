"""The session of a program: what `af.init` gives, from the start of its cluster to the end."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import sys
import threading
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, TextIO

from actorflow import _runtime
from actorflow._core.base.errors import ClusterConnectionError, NotInitializedError
from actorflow._core.boot.driver import Driver
from actorflow._core.io.forks import keep_for_ever
from actorflow._leftovers import excuse_leftovers

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from actorflow._core.boot.node_launch import ClusterPlan, LocalCluster
    from actorflow._core.protocol.messages import WorkerLog
    from actorflow._lifecycle import InitOptions


class Session:
    """What `af.init` gives: await it, or enter it with `async with` or `with`; a bare call is enough too.

    Leaving the block shuts the runtime down. Awaiting it gives the session itself.
    """

    def __init__(self, options: InitOptions, plan: ClusterPlan, local: LocalCluster | None, forget: Callable[[Session], None]) -> None:
        self.options = options
        self._forget = forget
        self._driver = Driver(plan, local, print_log if options.log_to_driver else None)
        self._ready: concurrent.futures.Future[None] | None = None
        self._inline_loop: asyncio.AbstractEventLoop | None = None
        self._pid = os.getpid()
        self._ended = False
        self._asked_again = 0
        """How often `af.init` has given it to somebody who found it running, and has entered no block with it yet."""
        self._blocks: list[bool] = []
        """Those that are entered, innermost last: whether each has found it running."""
        if not options.inline:
            from actorflow._core.boot.protocol_thread import ProtocolThread

            protocol = self._driver.protocol = ProtocolThread()
            protocol.start()
            self._ready = protocol.run(self._join())

    def __repr__(self) -> str:
        state = "ended" if self._ended else "running" if self._driver.core else "starting"
        return f"<actorflow session, {state}>"

    @property
    def address(self) -> str:
        """Where the cluster can be joined: `af.init(address=...)` in another process."""
        return self._driver.node_address

    # -- start

    async def _join(self) -> None:
        core = await self._driver.join()
        _runtime.set_process_runtime(core)
        self._announce()

    def _announce(self) -> None:
        what = "joined the cluster" if self.options.address else "started a local cluster"
        sys.stderr.write(f"actorflow: {what} at {self._driver.node_address}\n")

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
            elif self._driver.core is None:
                self._inline_loop = asyncio.get_running_loop()
                await self._join()
        except BaseException:
            self._failed()
            raise
        return self

    def _failed(self) -> None:
        self._forget(self)
        self._ended = True
        self._driver.kill()
        if self._driver.protocol is not None:
            self._driver.protocol.stop()

    # -- end

    async def _end_async(self) -> None:
        if self._leave():
            driver = self._driver
            excuse_leftovers(self._says_that_it_ended)
            try:
                if driver.protocol is not None:
                    await asyncio.wrap_future(driver.protocol.run(driver.part()))
                    driver.protocol.stop()
                else:
                    await driver.part()
            finally:
                # Whatever went wrong with the farewell: the processes end.
                await asyncio.get_running_loop().run_in_executor(None, driver.reap)

    def _says_that_it_ended(self, error: BaseException) -> bool:
        """True for what those get who wait while it is shut down by this program itself."""
        from actorflow._core.worker.core import SHUT_DOWN  # not before the cluster starts

        return isinstance(error, ClusterConnectionError) and SHUT_DOWN in str(error)

    def _end(self) -> None:
        if self._leave():
            from actorflow._core.io.blocking import close_thread_loop

            driver = self._driver
            if driver.protocol is not None:
                driver.protocol.run(driver.part()).result()
                driver.protocol.stop()
                driver.reap()
            else:
                # The loop that carried the protocol is gone: the node sees our sockets close.
                driver.kill()
            close_thread_loop()

    def _forked(self) -> None:
        """In a child of the process that made it: it is not used any more, nor taken apart (FK-3)."""
        keep_for_ever(self)
        if self._driver.local is not None:
            self._driver.local.abandon()

    def _leave(self) -> bool:
        """True for the one who is to clean up."""
        self._forget(self)
        if self._ended or self._pid != os.getpid():
            return False
        self._ended = True
        return True

    # -- the four forms

    def __await__(self) -> Generator[Any, None, Self]:
        return self._wait_async().__await__()

    def _enter_block(self) -> None:
        """A block that has found it running leaves it running."""
        guest = self._asked_again > 0
        self._asked_again -= guest
        self._blocks.append(guest)

    def _leave_block(self) -> bool:
        """True when the block that ends is the one that has started it."""
        return not (self._blocks and self._blocks.pop())

    async def __aenter__(self) -> Self:
        self._enter_block()
        return await self._wait_async()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._leave_block():
            await self._end_async()

    def __enter__(self) -> Self:
        if self.options.inline:
            self._failed()
        self._wait()
        self._enter_block()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._leave_block():
            self._end()


def print_log(message: WorkerLog) -> None:
    """Show what a worker printed, with a short prefix."""
    out = sys.stderr if message.stream == "stderr" else sys.stdout
    prefix = f"({message.name} pid={message.pid})"
    lines = [f"{prefix} {line}\n" for line in message.lines]
    if message.dropped:
        lines.append(f"{prefix} ... {message.dropped} more lines were not sent; the worker's log file has them\n")
    _write_lines(out, "".join(lines))


_printing = threading.Lock()


def _in_child() -> None:
    """A fork by the user, at a moment when some other thread may have held it (SEMANTICS 29)."""
    global _printing
    _printing = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


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
