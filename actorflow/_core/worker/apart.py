"""`def` code of the user's runs inside a callback of its worker's loop, as if no loop ran on its thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actorflow._core.worker.host import Host
    from actorflow._core.worker.incoming import Incoming

_running_loop, _set_running_loop = asyncio._get_running_loop, asyncio._set_running_loop


def apart(host: Host, incoming: Incoming, code: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run the code of a call: it, and whatever it calls, may use `asyncio.run`.

    Not the `def` methods of an actor that has `async def` ones: they are as functions that these call, and may start tasks.
    """
    loop = _running_loop() if host.executor.hides_loop and (incoming.actor is None or not incoming.actor.is_async) else None
    if loop is None:
        return code(*args, **kwargs)
    _set_running_loop(None)
    try:
        return code(*args, **kwargs)
    finally:
        _set_running_loop(loop)
        host.core.flush_on(loop)
