"""The real Ports: the system's clock, its randomness and its sockets."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import threading
import time

from actorflow._core.io import busy_poll
from actorflow._core.io.ports import Ports
from actorflow._core.io.shared_reads import SharedReads
from actorflow._core.io.sockets import UnixNetwork


def real_ports(loop: asyncio.AbstractEventLoop, *, lock: bool, share_reads: bool = False) -> Ports:
    """Make the ports of this process. To be called on the thread that runs `loop`.

    `lock`: whether other threads share the state of the role (a driver, a worker) or not (a node). `share_reads`: whether a loop of the
    user's may read the sockets; then `loop` has a thread of its own.
    """
    loop_thread = threading.get_ident()
    guard = threading.RLock() if lock or share_reads else None
    reads = SharedReads(loop, guard) if guard is not None and share_reads else None
    return Ports(
        loop=loop,
        network=UnixNetwork(loop, reads=reads),
        rng=random.Random(os.urandom(32)),
        monotonic=time.monotonic,
        wall_time=time.time,
        lock=guard if guard is not None else contextlib.nullcontext(),
        in_loop_thread=lambda: threading.get_ident() == loop_thread,
        reads=reads,
        busy_poll=busy_poll.BusyPoll if busy_poll.pays() else None,
    )
