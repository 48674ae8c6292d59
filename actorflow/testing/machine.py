"""Real processes of this machine, and what clusters leave behind on it, read from /proc and the file system.

A run that keeps its clusters in a directory of its own (ACTORFLOW_TMPDIR) is told from all others by that: processes inherit the variable,
so whoever has it in its environment belongs to the run, wherever it stands in the tree of processes.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable
from pathlib import Path

VARIABLE = "ACTORFLOW_TMPDIR"


def stat_of(pid: int | str) -> list[str]:
    """State, parent and so on of a process; empty when there is none."""
    try:
        # Behind the name, which may contain anything.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def birth_of(pid: int) -> str:
    """Tells a process from a later one with the same number; empty when it is gone."""
    fields = stat_of(pid)
    return fields[19] if fields and fields[0] != "Z" else ""


def command_of(pid: int) -> str:
    """Its command line; empty when it is gone."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return ""


def tree_of(root: int) -> dict[int, str]:
    """The living processes from `root` down, with their births."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (fields := stat_of(name)):
            children.setdefault(int(fields[1]), []).append(int(name))
    found, todo = {}, [root]
    while todo:
        pid = todo.pop()
        todo += children.get(pid, [])
        if birth := birth_of(pid):
            found[pid] = birth
    return found


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """Signal those that are there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def processes_of(directory: str | Path) -> dict[int, str]:
    """The living processes of the run in this directory, this one aside: pid -> command line."""
    needle = f"\0{VARIABLE}={directory}\0".encode()
    found = {}
    for name in os.listdir("/proc"):
        # The first of its variables has no zero before it.
        if name.isdigit() and int(name) != os.getpid() and needle in b"\0" + _environ(int(name)) and birth_of(int(name)):
            found[int(name)] = command_of(int(name))
    return found


def files_of(directory: str | Path) -> list[str]:
    """The session directories of the run, with their sockets and logs."""
    return sorted(str(path) for path in Path(directory).glob("actorflow-*/*"))


def leftovers_of(directory: str | Path) -> list[str]:
    """What clusters of the run have left, in words."""
    left = [f"process {pid}: {command}" for pid, command in processes_of(directory).items()]
    return left + [f"file {path}" for path in files_of(directory)]


def shared_memory(directory: str | Path) -> set[str]:
    """The names in /dev/shm, those aside that clusters of other runs, and programs beside, have there."""
    names = set()
    with contextlib.suppress(FileNotFoundError):
        names = {name for name in os.listdir("/dev/shm") if not _is_foreign(name, str(directory))}
    semaphores = {name for name in names if name.startswith("sem.")}
    if semaphores:
        mapped = _mapped_elsewhere(str(directory))
        names -= {name for name in semaphores if _inode(f"/dev/shm/{name}") in mapped}
    return names


def _environ(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/environ").read_bytes()
    return b""


def _is_foreign(name: str, directory: str) -> bool:
    try:
        return not os.readlink(f"/dev/shm/{name}/session").startswith(f"{directory}/")
    except OSError:
        return False


def _inode(path: str) -> int:
    with contextlib.suppress(OSError):
        return os.stat(path).st_ino
    return 0


def _mapped_elsewhere(directory: str) -> set[int]:
    """The inodes of /dev/shm that living processes which are not ours have mapped. By number: a semaphore is mapped under another name."""
    ours = processes_of(directory).keys() | {os.getpid()}
    found: set[int] = set()
    for pid in os.listdir("/proc"):
        if pid.isdigit() and int(pid) not in ours:
            with contextlib.suppress(OSError):
                lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
                found.update(int(line.split()[4]) for line in lines if "/dev/shm/" in line)
    return found
