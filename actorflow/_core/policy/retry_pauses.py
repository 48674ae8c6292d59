"""How long a call that has failed waits before it is tried again. Pure.

RY-1: what was lost with its worker is tried again at once the first time: mostly that was not its doing. Then the pauses double.
RY-2: what its code raised waits from the first time on, for what the caller says, and the pauses double up to a minute.
RY-3: a pause is drawn from its upper half: calls that have failed together do not come back together.
RY-4: memory that ran out has tries of its own, with longer pauses, in which others may end.
"""

from __future__ import annotations

from typing import Protocol

LOST_S, LOST_S_MAX = 0.1, 10.0
RAISED_S = 0.1
"""The first pause after an exception, unless `retry_delay` says another."""
RAISED_S_MAX = 60.0
MEMORY_S, MEMORY_S_MAX = 1.0, 60.0
MEMORY_TRIES_MAX = 12
DOUBLINGS_MAX = 64


class Rng(Protocol):
    """What of `random.Random` is needed."""

    def uniform(self, a: float, b: float) -> float: ...


def pause_after_loss_s(losses: int, rng: Rng) -> float:
    """The pause in seconds after a call was lost for the `losses`th time."""
    return 0.0 if losses < 2 else _drawn(LOST_S, LOST_S_MAX, losses - 2, rng)


def pause_after_error_s(errors: int, first_s: float, rng: Rng) -> float:
    """The pause in seconds after its code raised for the `errors`th time; `first_s`: the first one."""
    return _drawn(first_s, max(first_s, RAISED_S_MAX), errors - 1, rng)


def pause_for_memory_s(tries: int, rng: Rng) -> float | None:
    """The pause in seconds when memory ran out under a call that was tried again for it `tries` times; None: not again."""
    return None if tries >= MEMORY_TRIES_MAX else _drawn(MEMORY_S, MEMORY_S_MAX, tries, rng)


def _drawn(first_s: float, most_s: float, doublings: int, rng: Rng) -> float:
    return min(first_s * 2.0 ** min(doublings, DOUBLINGS_MAX), most_s) * rng.uniform(0.5, 1.0)
