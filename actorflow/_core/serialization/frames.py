"""Tracebacks as records, and records as tracebacks.

`frames_of` reads a traceback into records that can travel; `make_traceback` makes a real traceback of them:
frame objects that have the remote file, name, line and columns, and neither locals nor globals nor a
caller. Whatever prints tracebacks (the interpreter, logging, pytest, a debugger) shows them like any other,
with their source lines, which are lent to `linecache`.
"""

from __future__ import annotations

import ast
import functools
import itertools
import linecache
import os
import threading
from collections.abc import Iterator, Sequence
from types import CodeType, FunctionType, TracebackType
from typing import Any

import msgspec

from actorflow._core.base.errors import Hop
from actorflow._core.base.texts import made_fit

FRAMES_MAX = 200
"""Frames kept of one traceback: the first and the last half.

An endless recursion has a thousand, all the same.
"""
SOURCE_LINES_MAX = 8
"""A statement longer than this is shown by its first line, without carets."""


class FrameRecord(msgspec.Struct, array_like=True, frozen=True):
    """One entry of a traceback. Columns are -1 when unknown; `line` has all lines of the statement."""

    filename: str
    lineno: int
    name: str
    line: str = ""
    first_lineno: int = 1
    end_lineno: int = 0
    column: int = -1
    end_column: int = -1
    module: str = ""


clean = made_fit
"""Text as it can be encoded: a file name may hold lone surrogates."""


# Frames, from a traceback -----------------------------------------------------------------------------------

_OWN_CODE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))) + os.sep
_PLUMBING = tuple(
    os.path.join(os.path.dirname(os.__file__), name)
    for name in ("asyncio" + os.sep, "concurrent" + os.sep, "threading.py")
)
"""What may stand between our entry point and the user's code."""


def hop_frame(hop: Hop) -> FrameRecord:
    """The line that begins a hop in a traceback."""
    name = f"{hop.function_name} as {hop.task}"
    if hop.actor:
        name = f"{name} of {hop.actor}"
    return FrameRecord(f"<process {hop.process_id}, pid {hop.pid}>", 1, name)


def frames_of(tb: TracebackType | None) -> Iterator[FrameRecord]:
    """The records of a traceback without our own frames, and bounded."""
    entries = _without_own(tb)
    left_out = len(entries) - FRAMES_MAX
    for at, entry in enumerate(entries):
        if left_out > 0 and FRAMES_MAX // 2 <= at < FRAMES_MAX // 2 + left_out:
            if at == FRAMES_MAX // 2:
                yield FrameRecord("<actorflow>", 1, f"... {left_out} frames left out ...")
            continue
        yield _frame_record(entry)


def _without_own(tb: TracebackType | None) -> list[TracebackType]:
    """Everything if all of it is ours: then the error is ours, too, and so is its traceback."""
    entries = []
    while tb is not None:
        entries.append(tb)
        tb = tb.tb_next
    files = [entry.tb_frame.f_code.co_filename for entry in entries]
    start = 0
    for at, file in enumerate(files):
        if file.startswith(_OWN_CODE):
            start = at + 1
        elif not file.startswith(_PLUMBING):
            break
    kept = [entry for entry in entries[start:] if not entry.tb_frame.f_code.co_filename.startswith(_OWN_CODE)]
    return kept or entries


def _frame_record(entry: TracebackType) -> FrameRecord:
    frame = entry.tb_frame
    code = frame.f_code
    lineno = entry.tb_lineno or 0
    end_lineno, column, end_column = _position(code, entry.tb_lasti, lineno)
    if end_lineno - lineno >= SOURCE_LINES_MAX:
        end_lineno, column, end_column = lineno, -1, -1
    lines = (linecache.getline(code.co_filename, at, frame.f_globals) for at in range(lineno, end_lineno + 1))
    module = frame.f_globals.get("__name__", "")
    return FrameRecord(
        clean(code.co_filename),
        lineno,
        clean(code.co_name),
        clean("".join(lines).rstrip()),
        code.co_firstlineno,
        end_lineno,
        column,
        end_column,
        clean(module) if isinstance(module, str) else "",
    )


def _position(code: CodeType, lasti: int, lineno: int) -> tuple[int, int, int]:
    """(end line, column, end column) of an instruction; (`lineno`, -1, -1) when Python did not keep them."""
    if lasti >= 0:
        positions = itertools.islice(code.co_positions(), lasti // 2, None)
        start, end, column, end_column = next(positions, (None, None, None, None))
        if start == lineno and end is not None and column is not None and end_column is not None:
            return end, column, end_column
    return lineno, -1, -1


# Frames, to a traceback -------------------------------------------------------------------------------------


def make_traceback(frames: Sequence[FrameRecord]) -> TracebackType | None:
    """A traceback of frames that never ran: remote names and positions, and no locals, globals or caller."""
    tb = None
    for record in reversed(frames):
        position = (record.lineno, record.end_lineno, record.column, record.end_column)
        code, lasti = _code_at(_line(record.first_lineno), position)
        filename = _sources.show(record)
        code = code.replace(co_filename=filename, co_name=record.name, co_qualname=record.name)
        # A generator that has not started has a frame, and the frame has no caller.
        generator = FunctionType(code, _globals(record.module))()
        tb = TracebackType(tb, generator.gi_frame, lasti, _line(record.lineno))
    return tb


@functools.lru_cache(maxsize=256)
def _globals(module: str) -> dict[str, Any]:
    return {"__name__": module}


@functools.lru_cache(maxsize=1024)
def _code_at(first_lineno: int, position: tuple[int, int, int, int]) -> tuple[CodeType, int]:
    """Code that begins at a line, and the offset of an instruction in it at the position; -1 for none."""
    if position[2] < 0:
        return _compile(first_lineno, (first_lineno, first_lineno, 0, 0)), -1
    try:
        code = _compile(first_lineno, position)
        return code, 2 * list(code.co_positions()).index(position)
    except (ValueError, OverflowError):  # there can be no such position: do without carets
        return _code_at(first_lineno, (0, 0, -1, -1))


def _line(number: int) -> int:
    """`number` where it can be a line number; a peer may say anything."""
    return number if 0 < number < 2**31 else 1


def _compile(first_lineno: int, position: tuple[int, int, int, int]) -> CodeType:
    """A generator function that begins at a line and yields at a position."""
    at = dict(zip(("lineno", "end_lineno", "col_offset", "end_col_offset"), position, strict=True))
    function = ast.parse("def f(): pass").body[0]
    assert isinstance(function, ast.FunctionDef)
    function.lineno = first_lineno
    function.end_lineno = max(first_lineno, at["end_lineno"])
    function.body = [ast.Expr(ast.Yield(None, **at), **at)]
    code = compile(ast.Module([function], []), "<remote>", "exec")
    return next(const for const in code.co_consts if isinstance(const, CodeType))


class _Sources:
    """Source lines of remote files, lent to `linecache` so that tracebacks, pytest and debuggers show them.

    A file that is here with the same line needs nothing. One that is not here is registered under its own
    name, and one that differs under another, as showing the wrong line would be worse than showing an odd
    name. Bounded: the oldest file goes first.
    """

    FILES_MAX = 256
    LINENO_MAX = 100_000
    COPIES_MAX = 4

    def __init__(self) -> None:
        self._own: dict[str, list[str]] = {}
        self._lock = threading.Lock()  # exceptions are restored on any thread

    def show(self, record: FrameRecord) -> str:
        """The file name under which the lines of `record` can be found here from now on."""
        name = filename = record.filename.replace("\0", "\\0")
        if not record.line or not 0 < record.lineno < self.LINENO_MAX:
            return name
        lines = [line.rstrip() for line in record.line.split("\n")]
        with self._lock:
            for copy in range(1, self.COPIES_MAX + 1):
                if self._fits(name, record.lineno, lines):
                    break
                name = f"{filename} (remote copy{f' {copy}' if copy > 1 else ''})"
        return name

    def _fits(self, name: str, lineno: int, lines: list[str]) -> bool:
        known = linecache.getlines(name)
        if not known or self._own.get(name) is known:
            return self._lend(name, lineno, lines)
        return [line.rstrip() for line in known[lineno - 1 : lineno - 1 + len(lines)]] == lines

    def _lend(self, name: str, lineno: int, lines: list[str]) -> bool:
        own = self._own.setdefault(name, [])
        own.extend("\n" for _ in range(lineno - 1 + len(lines) - len(own)))
        for at, line in enumerate(lines, lineno - 1):
            if own[at] not in ("\n", f"{line}\n"):
                return False
        own[lineno - 1 : lineno - 1 + len(lines)] = [f"{line}\n" for line in lines]
        # Without a time of change, linecache does not look for the file.
        linecache.cache[name] = (sum(map(len, own)), None, own, name)
        while len(self._own) > self.FILES_MAX:
            oldest = next(iter(self._own))
            del self._own[oldest]
            linecache.cache.pop(oldest, None)
        return True


_sources = _Sources()
