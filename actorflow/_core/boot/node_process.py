"""The node process: head, node and zygote of a local cluster, wired together."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from actorflow._core.boot.node_config import LocalClusterConfig
from actorflow._core.boot.session_dir import SessionDir
from actorflow._core.boot.zygote import start_zygote
from actorflow._core.io import lease_word
from actorflow._core.io.arena import ArenaServer, MemfdArena

if TYPE_CHECKING:
    from actorflow._core.io.zygote_link import ZygoteHandle

ARENA_VARIABLE = "_ACTORFLOW_ARENA"
"""Workers inherit the descriptor of the arena with the fork, and read here which it is: `number:bytes`."""
SHARED_MODULES = ("uvloop", "actorflow._core.io.peers", "actorflow._core.io.real")
"""What the roles of this process and the workers both need: imported once, before the zygote is forked, and in memory once."""
ROLE_MODULES = ("actorflow._core.head.head", "actorflow._core.io.processes", "actorflow._core.node.node")
"""What only the roles need: imported while the zygote imports what only the workers need."""


def run(config: LocalClusterConfig) -> int:
    """Run the process until its driver is gone. Returns the exit code."""
    arena, zygote = prepare(config.arena_bytes)
    # The terminal's Ctrl-C is for the driver; the node ends when the driver is gone (SEMANTICS 26, 27).
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    session = SessionDir(config.session_dir)
    session.hold_lock()
    for name in ROLE_MODULES:
        importlib.import_module(name)
    gc.freeze()
    gc.enable()

    from actorflow._core.io.loops import new_loop

    loop = new_loop()
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(serve(config, session, arena, zygote))
    finally:
        session.remove()
        loop.close()
        zygote.end()  # A node that has not started has not stopped it.
    return 0


def prepare(arena_bytes: int, more: Sequence[str] = (), *, leased: bool = False) -> tuple[MemfdArena, ZygoteHandle]:
    """Make the arena, import what is shared, and fork the zygote: before there is a thread or a loop.

    Ends the process, with words that its log keeps for whoever has started it, where no arena of this size can be made.
    """
    try:
        arena = MemfdArena.create(arena_bytes)
    except OSError as error:
        sys.exit(f"the node cannot start: {error.strerror or error}")
    os.environ[ARENA_VARIABLE] = f"{arena.fileno()}:{arena.size}"
    for name in (*SHARED_MODULES, *more):
        importlib.import_module(name)
    if leased:
        lease_word.make()
    gc.freeze()  # No collection in either process touches, and so copies, the pages that they share.
    return arena, start_zygote(keep_fds=[arena.fileno()])


async def serve(config: LocalClusterConfig, session: SessionDir, arena: MemfdArena, zygote: ZygoteHandle) -> None:
    """Start the roles, say that they are ready, and wait for the end of the owner."""
    from actorflow._core.boot.node_devices import own_devices
    from actorflow._core.head.config import HeadConfig
    from actorflow._core.head.head import Head
    from actorflow._core.io.memory import Gauge
    from actorflow._core.io.processes import ZygoteProcesses
    from actorflow._core.io.real import real_ports
    from actorflow._core.io.spill_files import FileSpill
    from actorflow._core.io.spill_target import place_of
    from actorflow._core.node.config import NodeConfig
    from actorflow._core.node.node import Node

    loop = asyncio.get_running_loop()
    ports = real_ports(loop, lock=False)
    ended: asyncio.Future[str] = loop.create_future()

    def end(reason: str) -> None:
        if not ended.done():
            ended.set_result(reason)

    def driver_gone() -> None:
        loop.remove_reader(config.life_fd)
        os.close(config.life_fd)
        end(f"its driver {config.driver_id} is gone")

    loop.add_signal_handler(signal.SIGTERM, end, "the node process was asked to end (SIGTERM)")
    loop.add_reader(config.life_fd, driver_gone)
    head_address = f"unix:{session.path}/head.sock"
    head = Head(ports, HeadConfig(address=head_address, pid=os.getpid()))
    own = own_devices(config.resources, config.devices)
    settings = NodeConfig(
        address=session.node_address,
        head_address=head_address,
        resources=own.resources,
        worker_address=session.worker_address,
        pid=os.getpid(),
        owner=config.driver_id,
        labels=own.labels,
        device_ids=own.ids,
        device_types=own.types,
        device_displays=own.displays,
        log_dir=session.logs,
        prestart=config.prestart,
        cancel_grace_s=config.cancel_grace_s,
        memory_threshold=config.memory_threshold,
    )
    spill = FileSpill(loop, arena, place_of(config.spill, session.spill, session.session_id))
    node = Node(ports, settings, ZygoteProcesses(loop, zygote), arena, end, spill, Gauge())
    async with contextlib.AsyncExitStack() as stack:
        server = ArenaServer(loop, session.arena_path, arena)
        stack.callback(server.close)
        await head.start()
        stack.push_async_callback(head.stop)
        await node.start()
        session.publish(session.node_address)
        os.write(config.ready_fd, b"ready")
        os.close(config.ready_fd)
        reason = await ended
        await node.stop(reason)
