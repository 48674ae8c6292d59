"""What a node makes of a refusal: it waits, fails at once, or gives itself up."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop

from actorflow._core.boot.cluster_node import GIVEN_UP, ClusterNodeConfig, NodeProcess
from actorflow._core.boot.session_dir import SessionDir
from actorflow._core.security.errors import Code, HandshakeRefused

CONFIG = ClusterNodeConfig("/s", "127.0.0.1", "127.0.0.1", 0, "h:1", True, "", 60.0, {}, 1, -1, -1, {})


def refused(code: Code, *, told: bool = False) -> HandshakeRefused:
    return HandshakeRefused("why", code=code, told=told)


async def node(*, joining: bool = False, ended: bool = False, ready_fd: int = -1) -> tuple[NodeProcess, list[HandshakeRefused]]:
    process = NodeProcess(CONFIG._replace(ready_fd=ready_fd), SessionDir("/s"))
    given_up: list[HandshakeRefused] = []
    desk: Any = SimpleNamespace(give_up=given_up.append)
    credentials: Any = SimpleNamespace(ended=ended)
    process._joining = desk if joining else None
    process._credentials = None if joining else credentials
    return process, given_up


@pytest.mark.parametrize("code", [code for code in Code if code is not Code.ADMITTED])
async def test_while_it_joins_it_waits_for_what_may_change_and_fails_at_the_rest(code: Code) -> None:
    process, given_up = await node(joining=True)
    process._on_refused(refused(code, told=True))
    waits = code in (Code.TARGET, Code.BUSY, Code.TIMEOUT)
    assert len(given_up) == (0 if waits else 1)
    assert not process._ended.done()


@pytest.mark.parametrize("again", [True, False], ids=["begins again", "begins"])
async def test_a_handshake_that_is_cut_ends_no_node_that_begins_again(again: bool) -> None:
    process, given_up = await node(joining=True, ready_fd=-1 if again else 7)
    process._on_refused(HandshakeRefused("closed in the middle", code=Code.NOT_ADMITTED, cut=True))
    assert len(given_up) == (0 if again else 1)
    assert not process._ended.done()


@pytest.mark.parametrize("told", [True, False])
async def test_it_ends_when_the_head_itself_says_that_it_was_given_up(told: bool, caplog: pytest.LogCaptureFixture) -> None:
    process, _ = await node()
    for _ in range(2):
        process._on_refused(refused(Code.FENCED, told=told))
    assert process._ended.done() == told
    assert process._code == (GIVEN_UP if told else 0)
    assert caplog.text.count("the head has given this node up") == (1 if told else 0)


@pytest.mark.parametrize("ended", [True, False])
async def test_it_ends_when_its_certificate_has_ended_and_not_for_a_clock_that_differs(ended: bool) -> None:
    process, _ = await node(ended=ended)
    process._on_refused(refused(Code.CLOCK))
    assert process._ended.done() == ended
    assert process._code == (GIVEN_UP if ended else 0)


async def test_any_other_refusal_is_tried_again() -> None:
    process, _ = await node(ended=True)
    for code in (Code.NOT_ADMITTED, Code.TARGET, Code.BUSY, Code.TIMEOUT, Code.MALFORMED, Code.VERSION):
        process._on_refused(refused(code, told=True))
    assert not process._ended.done()
    await asyncio.sleep(0)


@pytest.mark.parametrize("make_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("late", [False, True], ids=["in its last turn", "after its last turn"])
def test_a_signal_to_end_is_heard_until_the_next_life(
    late: bool, make_loop: Callable[[], asyncio.AbstractEventLoop], monkeypatch: pytest.MonkeyPatch
) -> None:
    between: list[int] = []
    monkeypatch.setattr(NodeProcess, "_end_between_lives", lambda self, number, frame: between.append(number))
    before = signal.getsignal(signal.SIGTERM)

    async def main() -> NodeProcess:
        process, _ = await node()
        process._give_up("the head is away")
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, process._end_for_good, "SIGTERM")
        if not late:
            os.kill(os.getpid(), signal.SIGTERM)
        await process._hear_the_last_signals()
        return process

    try:
        with asyncio.Runner(loop_factory=make_loop) as runner:
            process = runner.run(main())
        if late:
            os.kill(os.getpid(), signal.SIGTERM)
        assert process._for_good == (not late)
        assert between == ([signal.SIGTERM] if late else [])
    finally:
        signal.signal(signal.SIGTERM, before)


def test_nothing_secret_is_in_the_arguments() -> None:
    names = set(CONFIG._fields)
    assert not {name for name in names if "token" in name or "secret" in name or "key" in name}
