"""`def` code of the user's runs inside a callback of its worker's loop, as if no loop ran on its thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actorflow._core.worker.core import Core
    from actorflow._core.worker.host import Host
    from actorflow._core.worker.hosted import HostedActor
    from actorflow._core.worker.incoming import Incoming

_running_loop, _set_running_loop = asyncio._get_running_loop, asyncio._set_running_loop


def apart(host: Host, incoming: Incoming, code: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run the code of a call: it, and whatever it calls, may use `asyncio.run`.

    Not the `def` methods of an actor that has `async def` ones: they are as functions that these call, and may start tasks.
    """
    hidden = HiddenLoop(host.core, host.executor.hides_loop)
    hidden.suit(incoming.actor)
    try:
        return code(*args, **kwargs)
    finally:
        hidden.show()


class HiddenLoop:
    """Hides the loop that runs on this thread. For many calls in a row that is done once: it costs as much as a tenth of a short call."""

    __slots__ = ("_core", "_hides", "loop")

    def __init__(self, core: Core, hides: bool) -> None:
        self._core = core
        self._hides = hides
        self.loop: asyncio.AbstractEventLoop | None = None
        """What is hidden now."""

    def suit(self, actor: HostedActor | None) -> None:
        """Hide the loop for `def` code of a task (None) or an actor, but for an actor that has `async def` methods."""
        if not self._hides or (actor is not None and actor.is_async):
            self.show()
        elif self.loop is None:
            self.loop = _running_loop()
            _set_running_loop(None)

    def show(self) -> None:
        """The end of it. What was sent meanwhile leaves when the turn of the loop ends: nobody could arrange that."""
        loop, self.loop = self.loop, None
        if loop is not None:
            _set_running_loop(loop)
            if self._core.flush_scheduled:
                self._core.flush_on(loop)
