"""The real Ports: the system's clock, its randomness and its sockets."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import threading
import time

from actorflow._core.io.ports import Ports
from actorflow._core.io.sockets import UnixNetwork


def real_ports(loop: asyncio.AbstractEventLoop, *, lock: bool) -> Ports:
    """Make the ports of this process. To be called on the thread that runs `loop`.

    `lock`: whether other threads share the state of the role (a driver, a worker) or not (a node).
    """
    loop_thread = threading.get_ident()
    return Ports(
        loop=loop,
        network=UnixNetwork(loop),
        rng=random.Random(os.urandom(32)),
        monotonic=time.monotonic,
        wall_time=time.time,
        lock=threading.RLock() if lock else contextlib.nullcontext(),
        in_loop_thread=lambda: threading.get_ident() == loop_thread,
    )
