"""The output of workers: bytes into lines, the last lines for errors, and how many lines a driver gets. Pure.

LL-1: no line is longer than `line_bytes_max`: a longer one is cut into several.
LL-2: per worker at most `tail_lines` lines and one unfinished line per stream are kept.
LL-3: every line is either handed on or counted in `dropped`, which is told with the next lines or by
      `overdue`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

LINE_BYTES_MAX = 16 * 1024
TAIL_LINES = 20
LINES_PER_S = 2_000.0
"""Lines per second and worker that reach the driver for long; the files get everything."""
BURST_LINES = 10_000.0
"""Lines at once before the rate counts."""


class LineCutter:
    """One stream of one process: bytes in, whole lines out, as text.

    Only what a terminal would show is kept of a line that overwrites itself with carriage returns
    (progress bars).
    """

    __slots__ = ("_line_bytes_max", "_rest")

    def __init__(self, line_bytes_max: int = LINE_BYTES_MAX) -> None:
        self._line_bytes_max = line_bytes_max
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        """Take bytes, return the lines that are complete now, without their ends."""
        *whole, rest = (self._rest + data).split(b"\n")
        lines: list[str] = []
        for line in whole:
            self._cut(line, lines)
        if b"\r" in rest[:-1]:
            rest = rest[rest.rindex(b"\r", 0, -1) + 1 :]
        while len(rest) > self._line_bytes_max:
            end = _end(rest, self._line_bytes_max)
            lines.append(rest[:end].decode("utf-8", "replace"))
            rest = rest[end:]
        self._rest = rest
        return lines

    def flush(self) -> list[str]:
        """The unfinished line, at the end of the process."""
        rest, self._rest = self._rest, b""
        lines: list[str] = []
        if rest:
            self._cut(rest, lines)
        return lines

    def _cut(self, line: bytes, lines: list[str]) -> None:
        line = line.rstrip(b"\r")
        line = line[line.rfind(b"\r") + 1 :]
        while len(line) > self._line_bytes_max:
            end = _end(line, self._line_bytes_max)
            lines.append(line[:end].decode("utf-8", "replace"))
            line = line[end:]
        lines.append(line.decode("utf-8", "replace"))


def _end(line: bytes, at: int) -> int:
    """Where to cut at `at` or up to three bytes before: not inside a character of UTF-8."""
    for end in range(at, max(at - 4, 0), -1):
        if line[end] & 0xC0 != 0x80:
            return end
    return at


@dataclass(frozen=True, slots=True)
class Batch:
    """Lines of one stream for the driver, and how many were left out before them."""

    stream: str
    lines: list[str]
    dropped: int


class WorkerOutput:
    """What one worker printed."""

    __slots__ = ("_allowance", "_at", "_burst", "_cutters", "_rate", "dropped", "tail")

    def __init__(
        self,
        now: float,
        *,
        lines_per_s: float = LINES_PER_S,
        burst_lines: float = BURST_LINES,
        tail_lines: int = TAIL_LINES,
        line_bytes_max: int = LINE_BYTES_MAX,
    ) -> None:
        self._rate = lines_per_s
        self._burst = burst_lines
        self._allowance = burst_lines
        self._at = now
        self._cutters = {"stdout": LineCutter(line_bytes_max), "stderr": LineCutter(line_bytes_max)}
        self.tail: deque[str] = deque(maxlen=tail_lines)
        self.dropped = 0
        """Lines that were left out and that the driver has not been told of."""

    def feed(self, stream: str, data: bytes, now: float, *, room: bool) -> Batch | None:
        """Take output; return what the driver gets of it. `room`: the driver keeps up with its lines."""
        return self._pass_on(stream, self._cutters[stream].feed(data), now, room)

    def finish(self, now: float, *, room: bool) -> list[Batch]:
        """The process has ended: what is left of both streams."""
        batches = [
            self._pass_on(stream, cutter.flush(), now, room) for stream, cutter in self._cutters.items()
        ]
        return [batch for batch in batches if batch is not None]

    def overdue(self) -> Batch | None:
        """A count of lines left out that no later line has told yet."""
        if not self.dropped:
            return None
        dropped, self.dropped = self.dropped, 0
        return Batch("stderr", [], dropped)

    def _pass_on(self, stream: str, lines: list[str], now: float, room: bool) -> Batch | None:
        if not lines:
            return None
        self.tail.extend(lines)
        self._allowance = min(self._burst, self._allowance + (now - self._at) * self._rate)
        self._at = now
        count = min(len(lines), int(self._allowance)) if room else 0
        self._allowance -= count
        dropped_before, self.dropped = self.dropped, len(lines) - count
        if not count:
            self.dropped += dropped_before
            return None
        return Batch(stream, lines[:count], dropped_before)
