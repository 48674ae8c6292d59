"""How a scene of the startup benchmark talks to `benchmarks.startup`. Imports little: its time counts.

A scene says where it is by `tell`, and waits in `wait_turn` while the other side measures it.
"""

from __future__ import annotations

import os
import sys

_answers = os.dup(1)
os.dup2(2, 1)  # what a library prints goes to the log


def tell(**facts: float) -> None:
    """One JSON line; numbers only, so that no json module is needed."""
    text = ", ".join(f'"{name}": {value!r}' for name, value in facts.items())
    os.write(_answers, f"{{{text}}}\n".encode())


def wait_turn() -> None:
    """Wait until the other side has measured."""
    sys.stdin.readline()


def memory_kb(field: str) -> int:
    """`VmRSS` (memory now) or `VmHWM` (its peak) of this process."""
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith(field + ":"):
                return int(line.split()[1])
    raise LookupError(field)


def forget_peak() -> None:
    """The peak starts again from what is held now."""
    with open("/proc/self/clear_refs", "w") as control:
        control.write("5")
