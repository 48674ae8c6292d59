"""The protocol's own thread and loop: user code that blocks stops nobody else (DESIGN, section 3)."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from actorflow._core.io.forks import abandon_loop, own
from actorflow._core.io.loops import new_loop
from actorflow._core.io.ports import Ports, Reads
from actorflow._core.io.real import real_ports

T = TypeVar("T")


class ProtocolThread:
    """A daemon thread that runs an event loop."""

    def __init__(self) -> None:
        self.loop = new_loop()
        self._reads: Reads | None = None
        self._thread = threading.Thread(target=self._run, name="actorflow-protocol", daemon=True)
        own(self)

    def abandon(self) -> None:
        """See forks.Owner."""
        if not self.loop.is_closed():
            abandon_loop(self.loop)

    def start(self) -> None:
        """Start it."""
        self._thread.start()

    def ports(self, *, share_reads: bool = True) -> Ports:
        """The ports of this process; to be called on the thread itself, once."""
        ports = real_ports(self.loop, lock=True, share_reads=share_reads)
        self._reads = ports.reads
        return ports

    def run(self, coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Run a coroutine there."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def stop(self) -> None:
        """Stop the loop, wait for the thread, close the loop."""
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self._stop)
            self._thread.join()
        self.loop.close()

    def _stop(self) -> None:
        if self._reads is not None:
            self._reads.close()
        self.loop.stop()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
