"""How many calls may be on their way to one worker at a time. Pure.

Short calls are pushed before their predecessors are done, so that the worker never waits for the wire; long ones are not, so that they
can go to another worker (DESIGN, section 3).
"""

from __future__ import annotations

PIPELINE_US = 2000.0
"""Work, in microseconds by its measured average, that may be on its way to one worker."""
PIPELINE_CALLS_MAX = 256
"""Bound on the calls on their way to one worker, however short they are."""
_ALPHA = 0.2


def may_push(*, inflight: int, load_us: float, run_us: float, retriable: bool) -> bool:
    """May one more call, of average `run_us` (negative: unknown), go to a worker that has `inflight` calls of `load_us` together?

    A call that must not run twice goes alone: were the worker to die, nobody could tell whether it had begun.
    """
    if inflight == 0:
        return True
    return retriable and run_us >= 0 and inflight < PIPELINE_CALLS_MAX and load_us + run_us <= PIPELINE_US


def average(previous_us: float, measured_us: float) -> float:
    """The moving average after one more measurement. It follows a rise at once and a fall slowly: a wrong guess of `short` costs more."""
    if previous_us < 0 or measured_us > previous_us * 4:
        return measured_us
    return previous_us + _ALPHA * (measured_us - previous_us)
