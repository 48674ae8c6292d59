"""How much memory a process has, as the system counts it."""

from __future__ import annotations

import os


def resident_bytes(pid: int) -> int:
    """The memory of a process that is in RAM now, pages that it shares with others included. 0 when there is no such process.

    Not the proportional share (PSS): for that the kernel walks through all pages of the process, and whoever asks would stand
    still meanwhile. This number it keeps.
    """
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        # It has ended, before or while it was read. Or there is no /proc: this is not Linux.
        return 0
