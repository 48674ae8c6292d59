"""How much memory there is, and how much a process has, as the system counts it."""

from __future__ import annotations

import os
from collections.abc import Iterator

from actorflow._core.policy.memory_watch import MemoryUse

UNBOUNDED_BYTES = 1 << 60
"""A control group without a bound shows one that is larger than this."""


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


def private_bytes(pid: int) -> int:
    """The memory of a process in RAM that would be free without it: without the pages that it shares. 0 when there is no such process."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            _, resident, shared, *_ = map(int, file.read().split())
            return max(0, resident - shared) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0


class Gauge:
    """How much memory there is and is in use, for this process: on its machine, and in the control groups that it is in.

    Of several bounds the one that is nearest counts. Files that the system could drop from memory at any time do not count as used.
    `root` is where the system shows itself.
    """

    def __init__(self, root: str = "/") -> None:
        self._root = root.rstrip("/")
        self._groups = list(self._find_groups())

    def use(self) -> MemoryUse | None:
        """What is in use now; None where nobody says (no Linux)."""
        uses = [use for use in (self._machine(), *map(self._group, self._groups)) if use is not None]
        return max(uses, key=lambda use: use.share, default=None)

    def private_bytes(self, pid: int) -> int:
        """See the function."""
        return private_bytes(pid)

    def system_kills(self) -> int:
        """How many processes the system has ended here for want of memory, ever."""
        for line in self._lines("/proc/vmstat"):
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
        return 0

    def _machine(self) -> MemoryUse | None:
        found = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in self._lines("/proc/meminfo"))}
        if "MemAvailable" not in found:
            return None
        total = found["MemTotal"]
        return MemoryUse(total - found["MemAvailable"], total, "on this machine")

    def _find_groups(self) -> Iterator[tuple[str, str, str, str]]:
        """Directory, names of the files with what is used and with the bound, and the field of what could be dropped."""
        for line in self._lines("/proc/self/cgroup"):
            _, controllers, path = line.split(":", 2)
            if not controllers:
                base, names = "/sys/fs/cgroup", ("memory.current", "memory.max", "inactive_file")
            elif "memory" in controllers.split(","):
                base, names = "/sys/fs/cgroup/memory", ("memory.usage_in_bytes", "memory.limit_in_bytes", "total_inactive_file")
            else:
                continue
            # A bound may be on any group around ours. In a container the path may be the one outside: then the base is our group.
            parts = [part for part in path.split("/") if part]
            for depth in range(len(parts), -1, -1):
                directory = "/".join([base, *parts[:depth]])
                if os.path.exists(f"{self._root}{directory}/{names[1]}"):
                    yield directory, *names

    def _group(self, group: tuple[str, str, str, str]) -> MemoryUse | None:
        directory, current, bound, droppable = group
        try:
            limit, used = self._number(f"{directory}/{bound}"), self._number(f"{directory}/{current}")
        except ValueError:
            return None  # "max": there is none.
        if not 0 < limit < UNBOUNDED_BYTES:
            return None
        for line in self._lines(f"{directory}/memory.stat"):
            name, _, size = line.partition(" ")
            if name == droppable:
                used -= int(size)
        return MemoryUse(max(0, used), limit, f"in the control group {directory}")

    def _number(self, path: str) -> int:
        lines = self._lines(path)
        return int(lines[0]) if lines else 0

    def _lines(self, path: str) -> list[str]:
        try:
            with open(self._root + path) as file:
                return file.read().splitlines()
        except OSError:
            return []
