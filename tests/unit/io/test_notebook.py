"""What a notebook needs, without one (SEMANTICS 28)."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
import types

import pytest

from actorflow._core.io import notebook
from actorflow._core.io.blocking import block_on, close_thread_loop


def be_a_notebook(patch: pytest.MonkeyPatch, kernel: object) -> None:
    ipython = types.ModuleType("IPython")
    ipython.get_ipython = lambda: types.SimpleNamespace(kernel=kernel)  # type: ignore[attr-defined]
    patch.setitem(sys.modules, "IPython", ipython)


def test_28_a_notebook_is_a_shell_with_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not notebook.in_notebook()
    be_a_notebook(monkeypatch, None)
    assert not notebook.in_notebook(), "IPython in a terminal"
    be_a_notebook(monkeypatch, object())
    assert notebook.in_notebook()


def test_28_a_blocked_cell_can_be_interrupted_and_the_handler_is_the_kernels_again(monkeypatch: pytest.MonkeyPatch) -> None:
    be_a_notebook(monkeypatch, object())
    asked: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: asked.append(number))
    try:
        theirs = signal.getsignal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt), notebook.interruptible():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is theirs
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with notebook.interruptible():
            signal.raise_signal(signal.SIGINT)  # Between cells: nobody's.
        assert asked == []
    finally:
        signal.signal(signal.SIGINT, before)


async def test_28_the_ticker_stops_when_nothing_is_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notebook, "TICK_S", 0.001)
    ticker = notebook.Ticker(asyncio.get_running_loop())
    future = asyncio.get_running_loop().create_future()
    ticker.watch(future)
    await asyncio.sleep(0.02)
    assert ticker._ticking
    future.set_result(None)
    await asyncio.sleep(0.02)
    assert not ticker._ticking


def test_an_interrupted_wait_is_cancelled_and_the_next_one_works() -> None:
    """The private loop must not go on with what nobody waits for any more."""
    seen: list[str] = []

    async def wait() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    def interrupt() -> None:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    timer = threading.Timer(0.05, interrupt)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        block_on(wait())
    timer.join()
    assert seen == ["cancelled"]
    assert block_on(asyncio.sleep(0, "next")) == "next"
    close_thread_loop()
