"""The desk where drivers get their keys, and the news that a node sends to those who are registered with it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from actorflow._core.base.errors import ClusterConnectionError
from actorflow._core.io import access_desk as module
from actorflow._core.io.access_desk import AccessDesk, access_path, fetch_access
from actorflow._core.io.gateway import Gateway
from actorflow._core.io.handover import HandoverClient, HandoverServer


async def served(directory: Path, give: Callable[[str], Awaitable[bytes]], process_id: str = "d1") -> bytes:
    loop = asyncio.get_running_loop()
    desk = AccessDesk(loop, access_path(str(directory)), give)
    try:
        return await fetch_access(loop, str(directory), process_id)
    finally:
        desk.close()


async def given(name: str) -> bytes:
    return f"keys of {name}".encode() * 100


def test_a_driver_gets_its_keys(runner: asyncio.Runner, directory: Path) -> None:
    assert runner.run(served(directory, given)) == b"keys of d1" * 100
    assert list(directory.iterdir()) == [], "nothing is left"


def test_the_reason_is_told_when_there_are_none(runner: asyncio.Runner, directory: Path) -> None:
    async def refuse(name: str) -> bytes:
        raise ClusterConnectionError("the head is away")

    with pytest.raises(ConnectionRefusedError, match="the head is away"):
        runner.run(served(directory, refuse))


def test_what_is_no_id_is_refused(runner: asyncio.Runner, directory: Path) -> None:
    with pytest.raises(ConnectionRefusedError, match="that is no process id"):
        runner.run(served(directory, given, "a b"))


def test_nobody_there(runner: asyncio.Runner, directory: Path) -> None:
    with pytest.raises(FileNotFoundError):
        runner.run(fetched(directory))


async def fetched(directory: Path) -> bytes:
    return await fetch_access(asyncio.get_running_loop(), str(directory), "d1")


def test_ad_2_who_says_nothing_is_closed(runner: asyncio.Runner, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REQUEST_TIMEOUT_S", 0.1)

    async def scenario() -> bytes:
        loop = asyncio.get_running_loop()
        desk = AccessDesk(loop, access_path(str(directory)), given)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as link:
                link.connect(access_path(str(directory)))
                return await asyncio.wait_for(loop.sock_recv(link, 100), 10)
        finally:
            desk.close()

    assert runner.run(scenario()) == b""


def test_ad_2_at_most_so_many_wait(runner: asyncio.Runner, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REQUESTS_MAX", 0)
    with pytest.raises(OSError):
        runner.run(served(directory, given))


def test_news_reach_who_is_registered_and_only_the_newest_waits(runner: asyncio.Runner, directory: Path) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        gateway = Gateway(loop, protocol_version=1, tls=False)
        path = f"{directory}/handover.sock"
        server = HandoverServer(loop, path, gateway)
        came: list[str] = []
        went: list[str] = []
        server.on_registered, server.on_gone = came.append, went.append
        heard: list[bytes] = []
        arrived = asyncio.Event()

        def hear(news: bytes) -> None:
            heard.append(news)
            arrived.set()

        close = await HandoverClient.register(loop, path, "w1", lambda sock, preface: True, hear)
        assert (came, server.names()) == (["w1"], ["w1"])
        server.tell("nobody", b"lost")
        server.tell("w1", b"new keys")
        async with asyncio.timeout(10):
            await arrived.wait()
        assert heard == [b"new keys"]
        close()
        async with asyncio.timeout(10):
            while server.names():
                await asyncio.sleep(0.01)
        assert went == ["w1"]
        server.tell("w1", b"too late")
        server.close()
        gateway.close()

    runner.run(scenario())


def test_a_process_that_takes_nothing_gets_the_newest_later(
    runner: asyncio.Runner, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actorflow._core.io.handover.NEWS_RETRY_S", 0.02)

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        gateway = Gateway(loop, protocol_version=1, tls=False)
        path = f"{directory}/handover.sock"
        server = HandoverServer(loop, path, gateway)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as link:
            link.connect(path)
            link.send(b"w1".ljust(24, b"\0"))
            assert await asyncio.wait_for(loop.sock_recv(link, 10), 10) == b"\1"
            sent = 0
            while not server._news:
                server.tell("w1", b"%06d" % sent + bytes(30_000))
                sent += 1
            server.tell("w1", b"newest")
            heard = [(await asyncio.wait_for(loop.sock_recv(link, 40_000), 10))[:6] for _ in range(sent)]
            assert heard == [*(b"%06d" % number for number in range(sent - 1)), b"newest"]
        server.close()
        gateway.close()

    runner.run(scenario())
