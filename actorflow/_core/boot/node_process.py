"""The node process: head, node and zygote of a local cluster, wired together."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys

from actorflow._core.boot.node_config import LocalClusterConfig
from actorflow._core.boot.session_dir import SessionDir
from actorflow._core.boot.zygote import start_zygote
from actorflow._core.io.arena import MemfdArena

log = logging.getLogger("actorflow")

STOP_GRACE_S = 0.5
"""How long workers have between the word to leave and SIGKILL when the cluster ends."""


def run(config: LocalClusterConfig) -> int:
    """Run the process until its driver is gone. Returns the exit code."""
    arena = MemfdArena.create(config.arena_bytes)
    # Workers inherit the descriptor of the arena with the fork, and read here where it is.
    os.environ["_ACTORFLOW_ARENA"] = f"{arena.fileno()}:{arena.size}"
    zygote = start_zygote(keep_fds=[arena.fileno()])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    session = SessionDir(path_of(config))
    session.hold_lock()

    from actorflow._core.io.loops import new_loop

    loop = new_loop()
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(_serve(config, session, arena, zygote, loop))
    finally:
        loop.close()
        session.remove()
    return 0


def path_of(config: LocalClusterConfig) -> object:
    """The session's directory."""
    from pathlib import Path

    return Path(config.session_dir)


async def _serve(config: LocalClusterConfig, session: SessionDir, arena: MemfdArena, zygote: object, loop: asyncio.AbstractEventLoop) -> None:
    raise SystemExit(f"{config} {session} {arena} {zygote} {loop} {sys.path}")
