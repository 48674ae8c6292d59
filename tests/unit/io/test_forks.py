"""What a fork keeps in the parent, and what a child lets go of (FK-1 to FK-3), without a cluster."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any

import pytest

from actorflow._core.io import forks
from tests.integration.leaks import until


def test_fk_2_a_hold_ends_with_the_last_process_that_has_the_other_end() -> None:
    async def main() -> int:
        windows: list[Any] = [object()]
        hold = forks.Hold(windows)
        pid = os.fork()
        if not pid:
            hold.inherited()
            os.close(end)  # Or it would wait for itself.
            os.read(go, 1)
            os._exit(0)
        os.close(go)
        hold.forked(asyncio.get_running_loop())
        await asyncio.sleep(0.05)
        assert hold in forks.holds()
        assert windows
        os.close(end)
        while hold in forks.holds():
            await asyncio.sleep(0.005)
        assert not windows
        return pid

    go, end = os.pipe()
    os.waitpid(asyncio.run(asyncio.wait_for(main(), 10)), 0)


def test_fk_2_a_fork_that_failed_and_a_loop_that_is_gone_hold_nothing() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    windows: list[Any] = [object()]
    forks.Hold(windows).forked(loop)
    assert not windows
    assert not forks.holds()


def test_fk_2_without_a_descriptor_left_the_windows_stay_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> tuple[int, int]:
        raise OSError(24, "Too many open files")

    windows: list[Any] = [object()]
    with monkeypatch.context() as patch:
        patch.setattr(os, "pipe", full)
        hold = forks.Hold(windows)
    hold.forked(asyncio.AbstractEventLoop())
    hold.inherited()
    assert windows
    assert not forks.holds()


def test_fk_1_a_socket_is_closed_in_the_child_and_lives_on_in_the_parent() -> None:
    near, far = socket.socketpair()
    forks.own_socket(near)
    pid = os.fork()
    if not pid:
        forks.abandon_all()
        os._exit(0 if near.fileno() == -1 else 1)
    assert os.waitpid(pid, 0)[1] == 0
    near.sendall(b"still here")
    assert far.recv(100) == b"still here"
    far.setblocking(False)
    with pytest.raises(BlockingIOError):
        far.recv(1)
    near.close()
    far.close()
    assert until(lambda: near.fileno() == -1)
