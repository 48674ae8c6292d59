"""The parts of a program's life that need no cluster: how it shows what its workers print."""

from __future__ import annotations

import io
import sys

import pytest

from actorflow._core.protocol.messages import WorkerLog
from actorflow._session import print_log


def terminal(errors: str = "strict") -> tuple[io.BytesIO, io.TextIOWrapper]:
    """A text stream as `sys.stdout` is on a terminal, and what has reached the terminal."""
    raw = io.BytesIO()
    return raw, io.TextIOWrapper(io.BufferedWriter(raw), "ascii", errors, newline="\n", line_buffering=True)  # type: ignore[type-var]


def said(*lines: str, dropped: int = 0, stream: str = "stdout") -> WorkerLog:
    return WorkerLog("w1", 7, "talk", stream, list(lines), dropped)


def test_lines_have_a_prefix_and_what_was_left_out_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    print_log(said("one", "two", dropped=3))
    print_log(said("oops", stream="stderr"))
    assert capsys.readouterr() == (
        "(talk pid=7) one\n(talk pid=7) two\n"
        "(talk pid=7) ... 3 more lines were not sent; the worker's log file has them\n",
        "(talk pid=7) oops\n",
    )


def test_a_line_that_the_program_has_begun_stays_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    raw, out = terminal()
    monkeypatch.setattr(sys, "stdout", out)
    print("first")
    print("half", end=" ")
    print_log(said("between"))
    print("whole")
    assert raw.getvalue() == b"first\n(talk pid=7) between\nhalf whole\n"


def test_what_a_terminal_cannot_show_is_written_as_its_stream_says(monkeypatch: pytest.MonkeyPatch) -> None:
    raw, out = terminal("backslashreplace")
    monkeypatch.setattr(sys, "stdout", out)
    print_log(said("\u00fcber"))
    assert raw.getvalue() == b"(talk pid=7) \\xfcber\n"


def test_where_whole_lines_are_held_back_their_order_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(raw), "utf-8"))  # type: ignore[type-var]
    print("first")
    print_log(said("second"))
    assert raw.getvalue() == b"first\n(talk pid=7) second\n"
