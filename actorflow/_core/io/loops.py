"""Event loops: uvloop where there is one, asyncio's own elsewhere."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable


def _fastest() -> Callable[[], asyncio.AbstractEventLoop]:
    if sys.platform == "win32":
        return asyncio.new_event_loop
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    make: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return make


_make = _fastest()


def new_loop() -> asyncio.AbstractEventLoop:
    """Return a new event loop, of the fastest kind that is installed."""
    return _make()
