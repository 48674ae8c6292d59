"""The real Ports."""

import asyncio
import contextlib
import threading

from actorflow._core.io.real import real_ports
from actorflow._core.io.sockets import UnixNetwork


def test_the_ports_of_a_process_with_threads(runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        ports = real_ports(asyncio.get_running_loop(), lock=True)
        assert ports.loop is asyncio.get_running_loop()
        assert isinstance(ports.network, UnixNetwork)
        assert ports.in_loop_thread()
        assert not await asyncio.to_thread(ports.in_loop_thread)
        with ports.lock, ports.lock:  # A flush within a flush.
            taken: list[bool] = []
            other = threading.Thread(target=lambda: taken.append(ports.lock.acquire(blocking=False)))  # type: ignore[attr-defined]
            other.start()
            other.join()
            assert taken == [False]

    runner.run(scenario())


def test_the_ports_of_a_node_have_no_lock(runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        assert isinstance(real_ports(asyncio.get_running_loop(), lock=False).lock, contextlib.nullcontext)

    runner.run(scenario())


def test_chance_and_time(runner: asyncio.Runner) -> None:
    async def scenario() -> None:
        first, second = (real_ports(asyncio.get_running_loop(), lock=False) for _ in range(2))
        assert first.rng.getrandbits(128) != second.rng.getrandbits(128)
        assert first.monotonic() <= first.monotonic()
        assert first.wall_time() > 1_700_000_000

    runner.run(scenario())
