"""Large arguments on their way into shared memory (SEMANTICS 15): at once into the slab that this process has, or through private memory.

`.remote(big)` never waits. What finds no room in the slab is copied into private memory, and moves from there when the node has room
for it; the private memory has a bound. Past it `.remote` raises, and a direct call, which waits anyway, waits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from actorflow._core.base.errors import ObjectStoreFullError
from actorflow._core.base.resources import format_bytes
from actorflow._core.protocol import messages as m
from actorflow._core.serialization import values
from actorflow._core.serialization.values import Pickled
from actorflow._core.worker.wakers import FutureWaiter

if TYPE_CHECKING:
    from actorflow._core.worker.core import Core

PRIVATE_BYTES_MAX = 256 * 1024 * 1024

Large = m.Stored | Pickled
"""Arguments that are in shared memory already, or have their place in private memory."""


class LargeArguments:
    """The private memory of one process for arguments that wait."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.bytes_max = PRIVATE_BYTES_MAX
        self.bytes = 0
        self._waiters: list[FutureWaiter] = []

    def place(self, large: Pickled, name: str) -> Large:
        """Find room for arguments. Any thread, not under the lock: the copy may take long. Raises ObjectStoreFullError."""
        stored = self._core.store.write_now(Pickled(large.data, large.buffers, None))
        if stored is not None:
            return stored
        with self._core.lock:
            if not self._take(large.size()):
                raise ObjectStoreFullError(
                    f"{name} was given {format_bytes(large.size())} of arguments, and {format_bytes(self.bytes)} of earlier ones wait in "
                    f"this process for room in the object store, of at most {format_bytes(self.bytes_max)}: `.remote` never waits. "
                    "Write `ref = await af.put(value)`, which does, and pass the reference; or await the call itself"
                )
        return values.owned_bytes(large)

    async def place_soon(self, large: Pickled) -> Large:
        """As `place`, but waits until there is room."""
        stored = self._core.store.write_now(Pickled(large.data, large.buffers, None))
        if stored is not None:
            return stored
        while True:
            with self._core.lock:
                self._core.check_open()
                if self._take(large.size()):
                    return values.owned_bytes(large)
                waiter = FutureWaiter(self._core.gates.current())
                self._waiters.append(waiter)
            await self._core.caller.blocked(waiter.future)

    def move(self, large: Large, then: Callable[[m.Stored | Exception], None]) -> None:
        """Into shared memory, from private one when there is room; `then` gets where they are, at once or later. Under the lock."""
        if isinstance(large, m.Stored):
            then(large)
            return
        size = large.size()

        def moved(result: m.Stored | Exception) -> None:
            self.bytes -= size
            self.wake()
            then(result)

        self._core.store.write(Pickled(large.data, large.buffers, None), moved)

    def wake(self) -> None:
        """There may be room for those who wait, or the runtime has ended. Under the lock."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.settled(None)

    def _take(self, size: int) -> bool:
        """One that is larger than all of it may pass when nothing else is there."""
        if self.bytes and self.bytes + size > self.bytes_max:
            return False
        self.bytes += size
        return True
