"""Process trees, read from /proc: who belongs to one, what it holds and burns, and how it ends.

A program that becomes a subreaper keeps its descendants below it in the tree even when they daemonise, so
that a system's processes are exactly the tree below the process we started. Linux only, standard library
only.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PR_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> None:
    """Orphaned descendants of this process become its children instead of init's (kept across exec)."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state (field 3) on; empty when the process is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return text.rpartition(")")[2].split()


def start_time(pid: int) -> str:
    """Tells a process from a later one with the same pid; empty when it is gone or a zombie."""
    fields = _stat(pid)
    return fields[19] if fields and fields[0] != "Z" else ""


def tree(root: int) -> list[int]:
    """The living processes from `root` down, `root` first."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (fields := _stat(int(name))) and fields[0] != "Z":
            children.setdefault(int(fields[1]), []).append(int(name))
    found = [root] if start_time(root) else []
    todo = [root]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def cpu_seconds(pids: list[int]) -> float:
    """User and system time these processes have used so far."""
    return sum((int(f[11]) + int(f[12])) / _TICKS for pid in pids if (f := _stat(pid)))


def machine_cpu_seconds() -> float:
    """User and system time everything on this machine has used so far (idle and I/O wait left out)."""
    fields = Path("/proc/stat").read_text().split(None, 9)
    user, nice, system, _idle, _iowait, irq, softirq = (int(f) for f in fields[1:8])
    return (user + nice + system + irq + softirq) / _TICKS


def pss_bytes(pids: list[int]) -> int:
    """Proportional set size: private memory plus each process's share of what it shares."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
    return total


def names(pids: list[int]) -> list[str]:
    """`pid command line` of each, for messages."""
    out = []
    for pid in pids:
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        out.append(f"{pid} {words.strip()[:120]}")
    return out


def end(born: dict[int, str], grace_s: float) -> list[str]:
    """Wait until the processes of `born` (pid -> start time) are gone; kill and name what outlives it."""
    deadline = time.monotonic() + grace_s
    while left := [pid for pid, birth in born.items() if birth and start_time(pid) == birth]:
        if time.monotonic() > deadline:
            named = names(left)
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            time.sleep(0.1)
            return named
        time.sleep(0.02)
    return []
